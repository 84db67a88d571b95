"""The definition of mean and covariance, in exact rational order: sum, divide, sum again."""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def moments(  # type: ignore[no-untyped-def]
    weight, place, starts, n
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means (J, 3) and covariances (J, 3, 3) in voxels; sums without rounding error (`math.fsum`)."""
    means, covariances = [], []
    for first, last in pairwise(starts):
        w, voxels = weight[first:last], np.stack(np.unravel_index(place[first:last], (n, n, n)), axis=-1)
        total = math.fsum(w)
        mean = np.array([math.fsum(w * voxels[:, a]) for a in range(3)]) / total
        shifted = voxels - mean
        covariances.append([[math.fsum(w * shifted[:, a] * shifted[:, b]) / total for b in range(3)] for a in range(3)])
        means.append(mean)
    return np.array(means), np.array(covariances)

"""The definition of mean and covariance, in exact rational order: sum, divide, sum again."""

import math

import numpy as np
from numpy.typing import NDArray


def moments(  # type: ignore[no-untyped-def]
    weight, voxels
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (3,) and covariance (3, 3) in voxels; sums without rounding error (`math.fsum`)."""
    total = math.fsum(weight)
    mean = np.array([math.fsum(weight * voxels[:, a]) for a in range(3)]) / total
    shifted = voxels - mean
    covariance = [[math.fsum(weight * shifted[:, a] * shifted[:, b]) / total for b in range(3)] for a in range(3)]
    return mean, np.array(covariance)

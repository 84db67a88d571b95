"""Mean and covariance in one pass over the voxels, shifted to the heaviest one against cancellation."""

import numba
import numpy as np


@numba.njit(cache=True)
def moments(weight, voxels):  # type: ignore[no-untyped-def]
    """Mean (3,) and covariance (3, 3) in voxels."""
    origin = voxels[np.argmax(weight)].astype(np.float64)
    total = 0.0
    first, second = np.zeros(3), np.zeros((3, 3))
    for i in range(weight.size):
        w = weight[i]
        total += w
        for a in range(3):
            da = voxels[i, a] - origin[a]
            first[a] += w * da
            for b in range(a, 3):
                second[a, b] += w * da * (voxels[i, b] - origin[b])
    mean = first / total
    for a in range(3):
        for b in range(a, 3):
            second[a, b] = second[a, b] / total - mean[a] * mean[b]
            second[b, a] = second[a, b]
    return origin + mean, second

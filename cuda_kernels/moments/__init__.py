"""A marginal over voxels -> its mean and covariance."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.moments import numba_, reference_

BODIES: dict[str, Callable[..., Any]] = {"reference": reference_.moments, "numba": numba_.moments}

Floats = NDArray[np.float64]


def moments(
    weight: NDArray[np.floating], voxels: NDArray[np.int16], grid: tuple[Floats, float, int], backend: str = "numba"
) -> tuple[Floats, Floats]:
    """Mean (3,) in metres and covariance (3, 3) in square metres of a density that is constant within each voxel.

    Args:
        weight: (N,) non-negative, any scale, not all zero.
        voxels: (N, 3) int16 voxel indices.
        grid: centre (3,) in metres, side in metres, voxels a side.
    Returns:
        The covariance includes the spread inside a voxel, side^2 / 12 per axis, so that it is never singular.
    Raises:
        ValueError: shapes that do not fit, no weight at all, an unknown backend.
    Source: Pavlakos et al. 2017, section 3.2 (estimate) and 3.3 (covariance).
    """
    if weight.shape != (len(voxels),) or voxels.shape[1:] != (3,):
        raise ValueError(f"weight {weight.shape} and voxels {voxels.shape} do not fit")
    if not (weight.size and float(weight.max()) > 0):
        raise ValueError("a marginal without any weight has no moments")
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")
    centre, side, n = grid
    mean_vox, cov_vox = BODIES[backend](np.asarray(weight, np.float64), voxels)
    step = side / n
    mean = np.asarray(centre, np.float64) + (mean_vox + 0.5 - n / 2) * step
    return mean, (cov_vox + np.eye(3) / 12.0) * step**2

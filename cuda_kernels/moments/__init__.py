"""Marginals over voxels -> their means and covariances."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.gpu import gpu_body
from cuda_kernels.moments import numba_, reference_

BODIES: dict[str, Callable[..., Any]] = {
    "reference": reference_.moments,
    "numba": numba_.moments,
    "cuda": gpu_body("cuda_kernels.moments.cuda_", "moments"),
}

Floats = NDArray[np.float64]


def moments(
    weight: NDArray[np.floating],
    place: NDArray[np.int32],
    starts: NDArray[np.int64],
    grid: tuple[Floats, float, int],
    backend: str = "numba",
) -> tuple[Floats, Floats]:
    """Means (J, 3) in metres and covariances (J, 3, 3) in square metres of densities constant within each voxel.

    Args:
        weight: (N,) non-negative, any scale; place: (N,) int32 flat indices (x * n + y) * n + z of the voxels.
        starts: (J + 1,) joint j has the rows starts[j] .. starts[j + 1] - 1, not all of weight zero.
        grid: centre (3,) in metres, side in metres, voxels a side n.
    Returns:
        The covariance includes the spread inside a voxel, side^2 / 12 per axis, so that it is never singular.
    Raises:
        ValueError: shapes that do not fit, a joint without any weight, an unknown backend.
    Source: Pavlakos et al. 2017, section 3.2 (estimate) and 3.3 (covariance).
    """
    if weight.ndim != 1 or weight.shape != place.shape or starts[-1] != len(weight):
        raise ValueError(f"weight {weight.shape}, voxels {place.shape} and {starts[-1]} rows do not fit")
    if (np.diff(starts) == 0).any() or not (np.maximum.reduceat(weight, starts[:-1]) > 0).all():
        raise ValueError("a marginal without any weight has no moments")
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")
    centre, side, n = grid
    mean_vox, cov_vox = BODIES[backend](np.asarray(weight, np.float64), place, starts, n)
    step = side / n
    mean = np.asarray(centre, np.float64) + (mean_vox + 0.5 - n / 2) * step
    return mean, (cov_vox + np.eye(3) / 12.0) * step**2

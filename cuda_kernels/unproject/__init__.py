"""Heat maps of all views -> likelihood of every joint at every voxel."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.unproject import numba_, reference_

BODIES: dict[str, Callable[..., Any]] = {"reference": reference_.unproject, "numba": numba_.unproject}
CAMERA_NUMBERS = 36
SMALLEST_FLOAT32_EXPONENT = 30.0

Floats = NDArray[np.floating]


def unproject(
    score: Floats,
    cell_from_image: Floats,
    cameras: Floats,
    grid: tuple[Floats, float, int],
    floor: float,
    backend: str = "numba",
    out: Floats | None = None,
) -> Floats:
    """Likelihood (n, n, n, J) of each joint at each voxel: the product over views of floor + heat at its projection.

    Args:
        score: (V, h, w, J) float32 heat maps, channels last, non-negative, any scale; sampled bilinearly, zero outside.
        cell_from_image: (V, 2, 3) affine from image pixels to cells of the map.
        cameras: (V, 36) float64, each row `calib.Camera.packed()`.
        grid: centre (3,) in metres, side in metres, voxels a side n; voxel centres as in calib/conventions.md.
        out: an array to fill if it has the result's shape and dtype; spares the search for new memory.
        floor: what a view gives a joint that its map does not show, on the scale of `score`, >= 0. A voxel that a
            camera cannot see at all gets exactly this.
    Returns:
        float32, or float64 where a product of V floors would underflow in float32 (1e-30).
    Raises:
        ValueError: shapes that do not fit, a negative score or floor, an unknown backend.
    Source: Pavlakos et al. 2017, eq. 3 (floor = 0), for the shared grid of section 3.2.
    """
    views, _, _, joints = score.shape
    if cell_from_image.shape != (views, 2, 3) or cameras.shape != (views, CAMERA_NUMBERS):
        raise ValueError(f"score has {views} views, got cells {cell_from_image.shape} and cameras {cameras.shape}")
    if floor < 0 or (score.size and float(score.min()) < 0):
        raise ValueError("scores and floor must be non-negative")
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")
    centre, side, n = grid
    deep = floor > 0 and views * -np.log10(floor) > SMALLEST_FLOAT32_EXPONENT
    dtype = np.dtype(np.float64 if deep else np.float32)
    if out is None or out.shape != (n, n, n, joints) or out.dtype != dtype:
        out = np.empty((n, n, n, joints), dtype=dtype)
    BODIES[backend](
        np.ascontiguousarray(score, dtype=np.float32),
        np.ascontiguousarray(cell_from_image, dtype=np.float64),
        np.ascontiguousarray(cameras, dtype=np.float64),
        np.asarray(centre, dtype=np.float64),
        float(side),
        float(floor),
        out,
    )
    return out

"""Heat maps of all views -> likelihood of every joint at every voxel."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import ActiveVoxels, all_voxels, check_cut, split_by_likelihood
from cuda_kernels.gpu import gpu_body
from cuda_kernels.memory import Memory
from cuda_kernels.unproject import active_, numba_, reference_

BODIES: dict[str, Callable[..., Any]] = {
    "reference": reference_.unproject,
    "numba": numba_.unproject,
    "cuda": gpu_body("cuda_kernels.unproject.cuda_", "unproject"),
}
ACTIVE_BODIES: dict[str, Callable[..., Any]] = {
    "numba": active_.unproject_active,
    "cuda": gpu_body("cuda_kernels.unproject.cuda_", "unproject_active"),
}
CAMERA_NUMBERS = 37
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
        cameras: (V, 37) float64, each row `calib.Camera.packed`.
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
    _check(score, cell_from_image, cameras, floor, backend)
    centre, side, n = grid
    dtype = likelihood_type(len(score), floor)
    shape = (n, n, n, score.shape[3])
    if out is None or out.shape != shape or out.dtype != dtype:
        out = np.empty(shape, dtype=dtype)
    maps, cells, packed = _as_bodies_take_them(score, cell_from_image, cameras)
    BODIES[backend](maps, cells, packed, np.asarray(centre, np.float64), float(side), float(floor), out)
    return out


def unproject_active(  # noqa: PLR0913 - the arguments of `unproject` and what to keep
    score: Floats,
    cell_from_image: Floats,
    cameras: Floats,
    grid: tuple[Floats, float, int],
    floor: float,
    cut: NDArray[np.float64],
    backend: str = "numba",
    memory: Memory | None = None,
    most: int | None = None,
) -> ActiveVoxels | None:
    """What pruning by likelihood keeps of `unproject`, without ever writing what it does not keep.

    Args:
        cut: (J, B, B, B), as for `cuda_kernels.active.split_by_likelihood`; the rest as for `unproject`.
        memory: where all voxels are written if nothing is cut.
        most: voxels, of all joints together, for which there shall be room while looking; if it runs out, None.
    Returns:
        The voxels, values and peaks of `split_by_likelihood`, in another order within a joint. `dropped` is not below
        the true sum and above it by at most the cut times the number of voxels of the block, because blocks of 4^3
        voxels whose upper bound lies below the cut are not looked into: the bound stands for each of their voxels.
        Where nothing is cut and the floor is positive, all voxels, in the order of the grid.
    Raises:
        ValueError: as `unproject` and `split_by_likelihood`.
    """
    _check(score, cell_from_image, cameras, floor, backend)
    centre, side, n = grid
    check_cut(cut, score.shape[3], n)
    if backend == "reference":
        found = split_by_likelihood(unproject(score, cell_from_image, cameras, grid, floor, backend), cut, backend)
        return None if most is not None and found.starts[-1] > most else found
    if floor > 0 and not cut.any():
        memory, kind = memory or Memory(), likelihood_type(len(score), floor)
        whole = memory.array("likelihood", n**3 * score.shape[3], kind).reshape(n, n, n, -1)
        return all_voxels(unproject(score, cell_from_image, cameras, grid, floor, backend, whole), memory)
    maps, cells, packed = _as_bodies_take_them(score, cell_from_image, cameras)
    like: Floats = np.empty(0, likelihood_type(len(score), floor))
    place = np.asarray(centre, np.float64), float(side), int(n)
    limit = n**3 * score.shape[3] if most is None else most
    complete, *kept = ACTIVE_BODIES[backend]((maps, cells, packed, float(floor)), place, cut, like, limit)
    return ActiveVoxels(*kept) if complete else None


def likelihood_type(views: int, floor: float) -> type:
    """float32, or float64 where a product of so many floors would underflow."""
    deep = floor > 0 and views * -np.log10(floor) > SMALLEST_FLOAT32_EXPONENT
    return np.float64 if deep else np.float32


def _check(score: Floats, cell_from_image: Floats, cameras: Floats, floor: float, backend: str) -> None:
    views = len(score)
    if cell_from_image.shape != (views, 2, 3) or cameras.shape != (views, CAMERA_NUMBERS):
        raise ValueError(f"score has {views} views, got cells {cell_from_image.shape} and cameras {cameras.shape}")
    if floor < 0 or (score.size and float(score.min()) < 0):
        raise ValueError("scores and floor must be non-negative")
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")


def _as_bodies_take_them(score: Floats, cell_from_image: Floats, cameras: Floats) -> tuple[Any, Any, Any]:
    return (
        np.ascontiguousarray(score, dtype=np.float32),
        np.ascontiguousarray(cell_from_image, dtype=np.float64),
        np.ascontiguousarray(cameras, dtype=np.float64),
    )

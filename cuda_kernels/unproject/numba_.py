"""`unproject` for CPUs: sub-blocks of 4^3 voxels, all joints side by side in vectors; for one frame one thread.

Joints lie side by side in the maps (padded to a multiple of LANES), so that one gather of four cells serves them all. A
border of zeros round the maps spares every check: what lies outside is sampled at the border's corner.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from cuda_kernels.memory import of_this_thread
from cuda_kernels.unproject.cells import camera_steps, cell_from_distorted, project_to_cells
from cuda_kernels.unproject.simd import LANES, fill_voxels

SUB = 4  # voxels along a side of a sub-block: the unit that is evaluated or left out as a whole
INSIDE = SUB**3


class Views(NamedTuple):
    """Maps (flat, padded by one cell and to `wide` joints) and cameras, ready to be sampled."""

    maps: NDArray[np.float32]
    h: int
    w: int
    wide: int
    floor: np.float32
    cameras: NDArray[np.float64]
    cells: NDArray[np.float64]
    steps: NDArray[np.float64]


class Scratch(NamedTuple):
    """Room for one sub-block: cells of its voxels in one view, corners (V, INSIDE) and weights (V, 4, INSIDE) in all,
    likelihoods (INSIDE * wide,).
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    corner: NDArray[np.int64]
    weight: NDArray[np.float32]
    voxels: NDArray[np.floating]


@numba.njit(nogil=True, cache=True)
def make_views(score, cell_from_image, cameras, floor, step, room):  # type: ignore[no-untyped-def]
    """The views of (V, h, w, J) maps for a grid whose voxels are `step` metres wide; `room` (padded maps,) is used."""
    views, h, w, joints = score.shape
    wide = (joints + LANES - 1) // LANES * LANES
    padded = room.reshape(views, h + 2, w + 2, wide)
    padded[:] = 0
    padded[:, 1:-1, 1:-1, :joints] = score
    steps = np.empty((3, INSIDE))
    for i in range(INSIDE):
        steps[0, i], steps[1, i], steps[2, i] = i // SUB**2 * step, i // SUB % SUB * step, i % SUB * step
    turned = np.empty((views, 3, INSIDE))
    for view in range(views):
        turned[view] = camera_steps(cameras[view], steps)
    cells = cell_from_distorted(cameras, cell_from_image)
    return Views(padded.reshape(-1), h, w, wide, np.float32(floor), cameras, cells, turned)


@numba.njit(nogil=True, cache=True)
def make_scratch(views, like):  # type: ignore[no-untyped-def]
    """Room for one sub-block of likelihoods of the type of `like`."""
    count, x, y = len(views.cameras), np.empty(INSIDE), np.empty(INSIDE)
    corner, weight = np.empty((count, INSIDE), np.int64), np.empty((count, 4, INSIDE), np.float32)
    return Scratch(x, y, corner, weight, np.empty(INSIDE * views.wide, like.dtype))


@numba.njit(nogil=True, cache=True)
def _corners(views, view, scratch):  # type: ignore[no-untyped-def]
    """Turn cells into places in a view's map and bilinear weights; outside the map, to its empty corner."""
    x, y, corner = scratch.x, scratch.y, scratch.corner[view]
    w0, w1, w2, w3 = scratch.weight[view, 0], scratch.weight[view, 1], scratch.weight[view, 2], scratch.weight[view, 3]
    h, w, wide = views.h, views.w, views.wide
    row, first = (w + 2) * wide, view * (h + 2) * (w + 2) * wide
    one = np.float32(1)
    for i in range(INSIDE):
        inside = (x[i] > -1.0) & (y[i] > -1.0) & (x[i] < w) & (y[i] < h)
        cx, cy = x[i] + 1.0 if inside else 0.0, y[i] + 1.0 if inside else 0.0
        left, top = np.int64(cx), np.int64(cy)
        fx, fy = np.float32(cx - left), np.float32(cy - top)
        corner[i] = first + top * row + left * wide
        w0[i], w1[i] = (one - fx) * (one - fy), fx * (one - fy)
        w2[i], w3[i] = (one - fx) * fy, fx * fy


@numba.njit(nogil=True, cache=True)
def fill(views, origin, scratch):  # type: ignore[no-untyped-def]
    """Likelihoods of all joints in the sub-block whose first voxel has its centre at `origin`, in `scratch.voxels`."""
    for view in range(len(views.cameras)):
        project_to_cells(views.cameras[view], views.cells[view], origin, views.steps[view], scratch.x, scratch.y)
        _corners(views, view, scratch)
    wide = views.wide
    fill_voxels(views.maps, scratch.corner, scratch.weight, wide, (views.w + 2) * wide, views.floor, scratch.voxels)


def padded_size(score) -> int:  # type: ignore[no-untyped-def]
    """Numbers in maps (V, h, w, J) when padded by a cell on every side and to whole vectors of joints."""
    views, h, w, joints = score.shape
    return int(views * (h + 2) * (w + 2) * ((joints + LANES - 1) // LANES) * LANES)


def unproject(score, cell_from_image, cameras, centre, side, floor, out) -> None:  # type: ignore[no-untyped-def]
    """Fill `out`; see the contract in the folder's `__init__`."""
    room = of_this_thread().array("maps", padded_size(score), np.float32)
    _unproject((score, cell_from_image, cameras, floor), centre, side, room, out)


@numba.njit(nogil=True, cache=True)
def _unproject(maps, centre, side, room, out):  # type: ignore[no-untyped-def]
    score, cell_from_image, cameras, floor = maps
    n, step = out.shape[0], side / out.shape[0]
    views = make_views(score, cell_from_image, cameras, floor, step, room)
    scratch = make_scratch(views, out)
    origin = np.empty(3)
    for a in range(0, n, SUB):
        for b in range(0, n, SUB):
            for c in range(0, n, SUB):
                origin[0] = centre[0] + (a + 0.5 - n / 2) * step
                origin[1] = centre[1] + (b + 0.5 - n / 2) * step
                origin[2] = centre[2] + (c + 0.5 - n / 2) * step
                fill(views, origin, scratch)
                _copy_out(scratch.voxels, views.wide, a, b, c, out)


@numba.njit(nogil=True, cache=True)
def _copy_out(voxels, wide, a, b, c, out):  # type: ignore[no-untyped-def]
    """Copy a sub-block's voxels (INSIDE * wide,) to where they belong in `out` (n, n, n, J)."""
    n, joints = out.shape[0], out.shape[3]
    for i in range(min(SUB, n - a)):
        for j in range(min(SUB, n - b)):
            line, first = out[a + i, b + j].reshape(-1), (i * SUB + j) * SUB * wide
            for k in range(min(SUB, n - c)):
                source = voxels[first + k * wide : first + k * wide + joints]
                target = line[(c + k) * joints : (c + k + 1) * joints]
                for lane in range(joints):
                    target[lane] = source[lane]

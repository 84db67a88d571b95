"""Likelihoods of voxels on a GPU: projection once per voxel and view, then one thread a joint.

A block of threads takes a block of BLOCK^3 voxels, as many at a time as PAIRS projections allow. First its threads
project, one voxel and view each, and leave in shared memory where the four cells begin and how much each counts. Then
neighbouring threads take neighbouring joints of one voxel, which lie side by side in the maps.

Projections are in double precision, because the one distortion formula has double constants. That is cheap on GPUs
for computing; on others it takes most of the time.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calib import distortion
from cuda_kernels.active import BLOCK
from cuda_kernels.device import THREADS, DeviceMemory, cuda
from cuda_kernels.resident import LARGEST_GRID

BITS = 3
INSIDE = BLOCK**3
PAIRS = 512  # projections of voxels into views that shared memory holds at a time
GROUP = THREADS // 4  # joints that a block of threads takes at most
MOST_NUMBERS = 2**32 - 1  # scores whose place an unsigned 32-bit number can tell
OUTSIDE = -2.0  # a cell that touches no map
# Numbers of a lens: where columns of `Maps.lens` begin.
_TURN, _SHIFT, _CELL, _LIMIT, _FISHEYE, _COEFFICIENTS, _NUMBERS = 0, 9, 12, 21, 22, 23, 35

Floats = NDArray[np.float64]

_distort_pinhole = cuda.jit(device=True)(distortion.distort_pinhole)
_fisheye_scale = cuda.jit(device=True)(distortion.fisheye_scale)


class Maps(NamedTuple):
    """Heat maps of some frames and how their cameras see the voxels of each frame's grid; arrays on the device.

    score: flat (F, V, h, w, J) float32. lens: (F * V, 35) float64, see `lenses`. tile: voxels projected at a time;
    views_per_pair: one over that. n: voxels a side.
    """

    score: Any
    lens: Any
    views: np.int32
    h: np.int32
    w: np.int32
    joints: np.int32
    floor: np.float32
    tile: np.int32
    views_per_pair: np.float32
    n: np.int32


def lenses(cell_from_image: Floats, cameras: Floats, centres: Floats, step: float, n: int) -> Floats:
    """(F * V, 35): for each frame and view, how voxel (i, j, k) becomes a cell of the map.

    9 numbers turn steps of one voxel into the camera's frame, 3 say where voxel (0, 0, 0) lies there, 9 are the
    homography from distorted normalised coordinates to cells, then the squared radius within which a point is seen,
    whether the lens is a fisheye, and 12 coefficients of distortion.

    Args:
        cell_from_image: (F, V, 2, 3); cameras: (V, 37); centres: (F, 3) metres; step: metres.
    """
    frames, views = cell_from_image.shape[:2]
    turn = cameras[:, :9].reshape(views, 3, 3)
    corner = centres + (0.5 - n / 2) * step
    whole = np.zeros((frames, views, 3, 3))
    whole[:, :, :2], whole[:, :, 2, 2] = cell_from_image, 1.0
    out = np.empty((frames, views, _NUMBERS))
    out[..., _TURN:_SHIFT] = step * cameras[:, :9]
    out[..., _SHIFT:_CELL] = np.einsum("vab,fb->fva", turn, corner) + cameras[:, 9:12]
    out[..., _CELL:_LIMIT] = (whole @ cameras[:, 12:21].reshape(views, 3, 3)).reshape(frames, views, 9)
    out[..., _LIMIT], out[..., _FISHEYE] = cameras[:, 35] ** 2, cameras[:, 35] < 0
    out[..., _COEFFICIENTS:] = cameras[:, 21:33]
    return out.reshape(frames * views, _NUMBERS)


def upload_maps(
    memory: DeviceMemory, score: NDArray[np.float32], cell_from_image: Floats, cameras: Floats, grids: Any, floor: float
) -> Maps:
    """The maps of F frames on the device; `grids`: centres (F, 3), side, voxels a side.

    Raises:
        ValueError: more views or numbers than bodies for GPUs can take.
    """
    frames, views, h, w, joints = score.shape
    centres, side, n = grids
    if views > PAIRS or score.size > MOST_NUMBERS or n > LARGEST_GRID:
        raise ValueError(
            f"{views} views, {score.size} scores, {n} voxels a side were given, backend 'cuda' takes {PAIRS}, "
            f"{MOST_NUMBERS} and {LARGEST_GRID}; take fewer frames at a time, or backend 'numba'"
        )
    lens = memory.upload("lens", lenses(cell_from_image, cameras, centres, side / n, n))
    sizes = np.int32(views), np.int32(h), np.int32(w), np.int32(joints)
    room = memory.upload("score", score.reshape(-1))
    tile = PAIRS // max(views, 1)
    return Maps(room, lens, *sizes, np.float32(floor), np.int32(tile), np.float32(1 / tile), np.int32(n))


def grid_of(blocks: int, joints: int, frames: int) -> tuple[int, int, int]:
    """Blocks of threads for so many blocks of voxels, joints and frames."""
    return blocks, -(-joints // GROUP), frames


@cuda.jit(device=True)
def lane_of(joints):  # type: ignore[no-untyped-def]
    """The joint that a thread takes, which of the slots it is (none if not below their number), and their number."""
    groups = cuda.gridDim.y
    wide = (joints + groups - 1) // groups
    thread = cuda.threadIdx.x
    slots = THREADS // wide
    joint = cuda.blockIdx.y * wide + thread % wide
    slot = thread // wide
    if joint >= joints:
        slot = slots
    return joint, slot, slots


@cuda.jit(device=True)
def origin_of(block, n):  # type: ignore[no-untyped-def]
    """Indices of the first voxel of a block."""
    blocks = (n + BLOCK - 1) // BLOCK
    layer = block // blocks
    return (
        np.int32(layer // blocks * BLOCK),
        np.int32(layer % blocks * BLOCK),
        np.int32((block - layer * blocks) * BLOCK),
    )


@cuda.jit(device=True)
def voxel_of(origin, voxel):  # type: ignore[no-untyped-def]
    """Indices of a block's voxel by its number in the block."""
    x, y, z = origin
    inside = BLOCK - 1
    i, j, k = voxel >> (2 * BITS), (voxel >> BITS) & inside, voxel & inside  # shifts: division is slow on GPUs
    return np.int32(x + i), np.int32(y + j), np.int32(z + k)


@cuda.jit(device=True)
def _cell_of(lens, i, j, k):  # type: ignore[no-untyped-def]
    """The cell of the map at which a camera sees a voxel; OUTSIDE where it cannot."""
    z = lens[_SHIFT + 2] + lens[6] * i + lens[7] * j + lens[8] * k
    if not z > 1e-6:
        return OUTSIDE, OUTSIDE
    inverse = 1.0 / z
    x = (lens[_SHIFT] + lens[0] * i + lens[1] * j + lens[2] * k) * inverse
    y = (lens[_SHIFT + 1] + lens[3] * i + lens[4] * j + lens[5] * k) * inverse
    squared = x * x + y * y
    if not squared < lens[_LIMIT]:
        return OUTSIDE, OUTSIDE
    if lens[_FISHEYE] > 0:
        scale = _fisheye_scale(max(math.sqrt(squared), 1e-12), lens[_COEFFICIENTS:])
        x, y = x * scale, y * scale
    else:
        x, y = _distort_pinhole(x, y, lens[_COEFFICIENTS:])
    w = 1.0 / (lens[_CELL + 6] * x + lens[_CELL + 7] * y + lens[_CELL + 8])
    u = (lens[_CELL] * x + lens[_CELL + 1] * y + lens[_CELL + 2]) * w
    v = (lens[_CELL + 3] * x + lens[_CELL + 4] * y + lens[_CELL + 5]) * w
    if u > -1.0 and v > -1.0:
        return u, v
    return OUTSIDE, OUTSIDE


@cuda.jit(device=True)
def _share(at, size):  # type: ignore[no-untyped-def]
    """The first of two cells along an axis to read, and the weights of both; neither lies outside the map."""
    left = np.int32(math.floor(at))
    first = min(max(left, 0), max(size - 2, 0))
    beyond = np.float32(at - left)
    within = np.float32(1.0) - beyond
    if left < first:
        return first, beyond, np.float32(0.0)
    if left > first:
        return first, np.float32(0.0), within
    if first + 1 < size:
        return first, within, beyond
    return first, within, np.float32(0.0)


@cuda.jit(device=True)
def project(maps, frame, origin, first, room):  # type: ignore[no-untyped-def]
    """Fill `room` with where `maps.tile` voxels from the `first` of the block on fall in every view.

    room: shared arrays (PAIRS,): the place of the first cell in a view's map (int32), weights left, right, above and
    below (float32); weights of zero where a camera sees nothing.
    """
    corner, left, right, above, below = room
    for pair in range(cuda.threadIdx.x, maps.tile * maps.views, THREADS):
        view = np.int32((np.float32(pair) + np.float32(0.5)) * maps.views_per_pair)  # far enough from rounding
        x, y, z = voxel_of(origin, first + pair - view * maps.tile)
        u, v = OUTSIDE, OUTSIDE
        if x < maps.n and y < maps.n and z < maps.n:
            u, v = _cell_of(maps.lens[frame * maps.views + view], x, y, z)
        if u > -1.0 and u < maps.w and v < maps.h:
            column, left[pair], right[pair] = _share(u, maps.w)
            row, above[pair], below[pair] = _share(v, maps.h)
            corner[pair] = (row * maps.w + column) * maps.joints
        else:
            corner[pair] = 0
            left[pair] = right[pair] = above[pair] = below[pair] = np.float32(0.0)


@cuda.jit(device=True)
def likelihood(maps, frame, joint, voxel, one, room):  # type: ignore[no-untyped-def]
    """The product over views of floor + heat for one joint at one projected voxel, of the type of `one`."""
    corner, left, right, above, below = room
    across = np.uint32(maps.joints if maps.w > 1 else 0)
    down = np.uint32(maps.w * maps.joints if maps.h > 1 else 0)
    size = np.uint32(maps.h * maps.w * maps.joints)
    start = np.uint32(frame * maps.views * size + joint)
    pair = np.uint32(voxel)
    product = one
    for _ in range(maps.views):
        at = np.uint32(start + corner[pair])
        under = np.uint32(at + down)
        upper = left[pair] * maps.score[at] + right[pair] * maps.score[np.uint32(at + across)]
        lower = left[pair] * maps.score[under] + right[pair] * maps.score[np.uint32(under + across)]
        product *= maps.floor + (above[pair] * upper + below[pair] * lower)
        pair = np.uint32(pair + np.uint32(maps.tile))
        start = np.uint32(start + size)
    return product

"""Limb messages for GPUs over pairs of voxels: a block of threads takes a tile of targets, a thread one of them.

Tiles of sources pass through shared memory, those out of the target tile's reach are passed over. Squared distances
are sums of whole numbers below 2^24, exact in float32; beliefs are added in float64, source after source, so that the
bits of a message depend on neither the device nor its scheduling.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.device import VECTOR, block_max, cuda, of_this_thread
from cuda_kernels.limb_message.cuda_transform import transform_message
from cuda_kernels.resident import (
    HIGHEST,
    INTERVAL,
    LOWEST,
    TILE,
    WEIGHTS,
    Rows,
    belief_of,
    limbs_of,
    make_told,
    place_of,
    upload_rows,
)
from cuda_kernels.shell import Shell
from cuda_kernels.tree import Tree

# Seconds of one pair, of one multiplication in a transform, and of a transform's launches, from counts of instructions
# on a GPU of 30e12 a second, not measured. Only their ratios matter, and only for the choice of route.
SECONDS_PER_PAIR = 4e-13
SECONDS_PER_PRODUCT = 2e-13
SECONDS_PER_TRANSFORM = 1e-4
PLACES = 4 * TILE


@cuda.jit(cache=True)
def enclose(rows):  # type: ignore[no-untyped-def]
    """Fill `boxes`; a block takes a tile of a joint of a frame, a thread one of its voxels."""
    box = cuda.shared.array(6, np.int32)
    thread, tile, joint, frame = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y, cuda.blockIdx.z
    row = tile * TILE + thread
    if thread < 6:
        box[thread] = 1 << 20 if thread < 3 else -1
    cuda.syncthreads()
    if row < rows.count[frame, joint]:
        x, y, z = place_of(rows.spot[frame, joint, row])
        cuda.atomic.min(box, 0, np.int32(x))
        cuda.atomic.min(box, 1, np.int32(y))
        cuda.atomic.min(box, 2, np.int32(z))
        cuda.atomic.max(box, 3, np.int32(x))
        cuda.atomic.max(box, 4, np.int32(y))
        cuda.atomic.max(box, 5, np.int32(z))
    cuda.syncthreads()
    if thread < 6:
        rows.boxes[frame, joint, tile, thread] = box[thread]


@cuda.jit(device=True)
def _in_reach(a, b, lowest, highest):  # type: ignore[no-untyped-def]
    """Whether two boxes hold points whose squared distance lies in lowest .. highest."""
    near, far = np.float32(0), np.float32(0)
    for axis in range(3):
        gap = max(a[axis] - b[3 + axis], b[axis] - a[3 + axis], np.float32(0))
        span = max(a[3 + axis] - b[axis], b[3 + axis] - a[axis])
        near += gap * gap
        far += span * span
    return near <= highest and far >= lowest


@cuda.jit(device=True)
def _squared(place, source, target):  # type: ignore[no-untyped-def]
    """The squared distance to a source but for the target's own sum of squares; see `tell`.

    Indices are unsigned, here and in the loops: signed ones may be negative, which costs as much as all the rest.
    """
    x, y, z = target
    at = np.uint32(source * np.uint32(4))
    px, py, pz = place[at], place[np.uint32(at + np.uint32(1))], place[np.uint32(at + np.uint32(2))]
    return place[np.uint32(at + np.uint32(3))] + x * px + y * py + z * pz


@cuda.jit(device=True)
def _add_interval(place, belief, size, target, low, high):  # type: ignore[no-untyped-def]
    """The sum of the beliefs of sources whose `_squared` lies in low .. high."""
    total, source = 0.0, np.uint32(0)
    while source < size:
        squared = _squared(place, source, target)
        if squared >= low and squared <= high:
            total += belief[source]
        source = np.uint32(source + np.uint32(1))
    return total


@cuda.jit(device=True)
def _add_weighted(place, belief, size, target, low, weights):  # type: ignore[no-untyped-def]
    """The sum of the beliefs of sources times the weights of their `_squared`, the first of which is that of `low`."""
    total, source = 0.0, np.uint32(0)
    while source < size:
        index = np.int32(_squared(place, source, target) - low)
        if index >= 0 and index < weights.shape[0]:
            total += belief[source] * np.float64(weights[np.uint32(index)])
        source = np.uint32(source + np.uint32(1))
    return total


@cuda.jit(cache=True)
def tell(limbs, rows, told, edges, upward):  # type: ignore[no-untyped-def]
    """Messages along some limbs of all frames, with their largest values; a block takes a tile of targets.

    edges: (E, 2) int32 child and parent. The messages that go into these must be there, and the boxes. `place` holds
    four numbers a source, coordinates and their sum of squares; `target` coordinates times -2. The scalar product of
    both and the target's sum of squares is the squared distance; of the latter all bounds are relieved beforehand.
    """
    place = cuda.shared.array(PLACES, np.float32, alignment=VECTOR)
    belief = cuda.shared.array(TILE, np.float64)
    thread, frame = cuda.threadIdx.x, cuda.blockIdx.z
    child, parent = edges[cuda.blockIdx.y, 0], edges[cuda.blockIdx.y, 1]
    sender, receiver = (child, parent) if upward else (parent, child)
    first, count = cuda.blockIdx.x * TILE, rows.count[frame, receiver]
    if first >= count:
        return
    row, sources = first + thread, rows.count[frame, sender]
    lowest, highest = np.float32(limbs.table[child, LOWEST]), np.float32(limbs.table[child, HIGHEST])
    x, y, z = place_of(rows.spot[frame, receiver, min(row, count - 1)])
    squares = x * x + y * y + z * z
    low, high, minus = lowest - squares, highest - squares, np.float32(-2)
    target = (minus * x, minus * y, minus * z)
    start = limbs.table[child, WEIGHTS]
    weights = limbs.weights[start : start + limbs.table[child, HIGHEST] - limbs.table[child, LOWEST] + 1]
    interval, total = limbs.table[child, INTERVAL] != 0, 0.0
    for tile in range((sources + TILE - 1) // TILE):
        here, there = rows.boxes[frame, sender, tile], rows.boxes[frame, receiver, cuda.blockIdx.x]
        if _in_reach(here, there, lowest, highest):
            size = np.uint32(min(sources - tile * TILE, TILE))
            cuda.syncthreads()
            if thread < size:
                at = tile * TILE + thread
                sx, sy, sz = place_of(rows.spot[frame, sender, at])
                place[4 * thread], place[4 * thread + 1], place[4 * thread + 2] = sx, sy, sz
                place[4 * thread + 3] = sx * sx + sy * sy + sz * sz
                belief[thread] = belief_of(limbs, rows, told, frame, sender, receiver, at)
            cuda.syncthreads()
            if interval:
                total += _add_interval(place, belief, size, target, low, high)
            else:
                total += _add_weighted(place, belief, size, target, low, weights)
    cuda.syncthreads()
    message = told.up if upward else told.down
    if row < count:
        message[frame, child, row] = total
    top = block_max(total if row < count else 0.0, belief, thread)
    if thread == 0:
        cuda.atomic.max(told.top, (frame, 0 if upward else 1, child), top)


def find_boxes(rows: Rows) -> None:
    """Fill the boxes of `rows`, which `tell` needs."""
    frames, joints, tiles, _ = rows.boxes.shape
    enclose[(tiles, joints, frames), TILE](rows)


def cheapest_route(n_source: int, n_target: int, shell: Shell, n: int) -> str:
    """The route of least predicted time on a GPU for so many voxels at either end."""
    period = n + min(shell.reach, n - 1)
    products = 2 * n * period * (n * n + n * period + period * period)
    transform = SECONDS_PER_TRANSFORM + SECONDS_PER_PRODUCT * products
    return "pairs" if SECONDS_PER_PAIR * n_source * n_target <= transform else "transform"


def limb_message(belief, source, target, shell: Shell, n: int, route: str) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """See the contract in the folder's `__init__`: a tree of one limb, from joint 0 up to joint 1."""
    memory, tree = of_this_thread(), _one_limb(shell.lowest, shell.weights.tobytes(), shell.interval)
    counts = np.array([len(source), len(target)])
    place, value = np.concatenate([source, target]), np.concatenate([belief, np.zeros(len(target))])
    rows = upload_rows(memory, counts, place, value, n)
    (limbs, levels), told = limbs_of(tree), make_told(memory, 1, 2, rows.spot.shape[2])
    if route == "auto":
        route = cheapest_route(len(source), len(target), shell, n)
    if route == "transform":
        transform_message(memory, limbs, rows, told, (0, 1), True, shell, n)
    else:
        find_boxes(rows)
        tell[(rows.boxes.shape[2], 1, 1), TILE](limbs, rows, told, levels.on_device[0], True)
    message: NDArray[np.float64] = told.up.copy_to_host()[0, 0, : len(target)]
    return message


@lru_cache(maxsize=64)
def _one_limb(lowest: int, weights: bytes, interval: bool) -> Tree:
    """A tree of two joints, the second of which is the root; kept, because its tables lie on the device."""
    shell = Shell(lowest, np.frombuffer(weights, np.float32), interval)
    return Tree(np.array([1, -1]), [1, 0], [shell, None])

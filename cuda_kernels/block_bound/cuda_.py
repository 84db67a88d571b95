"""The bounds on blocks for GPUs: one launch for all messages of one depth of the tree and of all frames.

A block of threads takes a tile of receiving blocks of voxels, a thread one of them. The sending joint's blocks are
taken a tile at a time: each thread works out what one of them sends, then all take in what is within their reach.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import BLOCK
from cuda_kernels.device import THREADS, DeviceMemory, block_sum, cuda, of_this_thread
from cuda_kernels.resident import (
    FIRST_CHILD,
    HIGHEST,
    LAST_CHILD,
    LOWEST,
    PARENT,
    Levels,
    Limbs,
    Rows,
    Told,
    limbs_of,
    make_told,
    share_of,
    upload_rows,
)
from cuda_kernels.sum_product.cuda_ import conclude

CORNERS = 3 * THREADS


class Bounds(NamedTuple):
    """Bounds on S = B^3 blocks of voxels; arrays on the device.

    first (F, J, S + 1) int32: the first row of each block, whose rows lie one after the other. dropped (F, J, S)
    float64. sent (2, F, J, 2, S), up and down by the limb's child: at each of the receiver's blocks no less than the
    message of kept beliefs, and than what dropped likelihood adds to it. weight (F, J, S) float64: the result.
    """

    first: Any
    dropped: Any
    sent: Any
    weight: Any


@cuda.jit(device=True)
def _row_gain(limbs, rows, told, bounds, ends, place):  # type: ignore[no-untyped-def]
    """A voxel's kept belief and its gain from what is dropped elsewhere; the receiver's message is left out."""
    (joint, but), (frame, block, row) = ends, place
    low = rows.value[frame, joint, row]
    high = low
    for at in range(limbs.table[joint, FIRST_CHILD], limbs.table[joint, LAST_CHILD]):
        child = limbs.children[at]
        if child != but:
            message = told.up[frame, child, row] * share_of(told.top[frame, 0, child])
            low, high = low * message, high * (message + bounds.sent[0, frame, child, 1, block])
    parent = limbs.table[joint, PARENT]
    if parent >= 0 and parent != but:
        message = told.down[frame, joint, row] * share_of(told.top[frame, 1, joint])
        low, high = low * message, high * (message + bounds.sent[1, frame, joint, 1, block])
    return low, high - low


@cuda.jit(device=True)
def _most(limbs, bounds, joint, but, frame, block):  # type: ignore[no-untyped-def]
    """The most that a voxel of likelihood 1 in the block can weigh by all messages to the joint but one neighbour's."""
    most = 1.0
    for at in range(limbs.table[joint, FIRST_CHILD], limbs.table[joint, LAST_CHILD]):
        child = limbs.children[at]
        if child != but:
            most *= bounds.sent[0, frame, child, 0, block] + bounds.sent[0, frame, child, 1, block]
    parent = limbs.table[joint, PARENT]
    if parent >= 0 and parent != but:
        most *= bounds.sent[1, frame, joint, 0, block] + bounds.sent[1, frame, joint, 1, block]
    return most


@cuda.jit(device=True)
def _masses(limbs, rows, told, bounds, ends, place):  # type: ignore[no-untyped-def]
    """What a sender's block sends: kept belief, and what dropped likelihood adds."""
    (joint, but), (frame, block) = ends, place
    kept, added = 0.0, 0.0
    count = rows.count[frame, joint]
    for row in range(bounds.first[frame, joint, block], min(bounds.first[frame, joint, block + 1], count)):
        low, gain = _row_gain(limbs, rows, told, bounds, ends, (frame, block, row))
        kept += low
        added += gain
    dropped = bounds.dropped[frame, joint, block]
    if dropped > 0.0:
        added += dropped * _most(limbs, bounds, joint, but, frame, block)
    return kept, added


@cuda.jit(device=True)
def _corner(block, blocks):  # type: ignore[no-untyped-def]
    """Indices of a block's first voxel, float32."""
    layer = block // blocks
    size = np.float32(BLOCK)
    return (
        size * np.float32(layer // blocks),
        size * np.float32(layer % blocks),
        size * np.float32(block - layer * blocks),
    )


@cuda.jit(device=True)
def _within(here, there, at, lowest, highest):  # type: ignore[no-untyped-def]
    """Whether any two voxels of two blocks are a limb apart; `there` is an array of corners, `at` says which."""
    near, far, side = np.float32(0), np.float32(0), np.float32(BLOCK - 1)
    for axis in range(3):
        away = abs(here[axis] - there[np.uint32(np.uint32(3) * at + np.uint32(axis))])
        gap = max(away - side, np.float32(0))
        near += gap * gap
        far += (away + side) * (away + side)
    return near <= highest and far >= lowest


@cuda.jit(cache=True)
def send(limbs, rows, told, bounds, edges, upward, blocks):  # type: ignore[no-untyped-def]
    """Fill `bounds.sent` for some limbs of all frames; edges (E, 2) int32 child and parent; blocks a side."""
    corners = cuda.shared.array(CORNERS, np.float32)
    kept = cuda.shared.array(THREADS, np.float64)
    added = cuda.shared.array(THREADS, np.float64)
    thread, frame, size = cuda.threadIdx.x, cuda.blockIdx.z, blocks * blocks * blocks
    child, parent = edges[cuda.blockIdx.y, 0], edges[cuda.blockIdx.y, 1]
    ends = (child, parent) if upward else (parent, child)
    lowest, highest = np.float32(limbs.table[child, LOWEST]), np.float32(limbs.table[child, HIGHEST])
    target = cuda.blockIdx.x * THREADS + thread
    here = _corner(target, blocks)
    of_kept, of_added = 0.0, 0.0
    for start in range(0, size, THREADS):
        cuda.syncthreads()
        kept[thread], added[thread] = 0.0, 0.0
        if start + thread < size:
            kept[thread], added[thread] = _masses(limbs, rows, told, bounds, ends, (frame, start + thread))
        corners[3 * thread], corners[3 * thread + 1], corners[3 * thread + 2] = _corner(start + thread, blocks)
        cuda.syncthreads()
        source = np.uint32(0)
        while source < THREADS:
            if kept[source] > 0.0 or added[source] > 0.0:
                if _within(here, corners, source, lowest, highest):
                    of_kept += kept[source]
                    of_added += added[source]
            source = np.uint32(source + np.uint32(1))
    if target < size:
        way = 0 if upward else 1
        factor = limbs.heaviest[child] * share_of(told.top[frame, way, child])
        bounds.sent[way, frame, child, 0, target] = of_kept * factor
        bounds.sent[way, frame, child, 1, target] = of_added * factor


@cuda.jit(cache=True)
def weigh(limbs, bounds, total, missed):  # type: ignore[no-untyped-def]
    """Fill `bounds.weight`, and missed (F, J): the sums of dropped likelihood times it; a block takes a joint.

    total (F, J): sums of kept beliefs; infinity where there is none.
    """
    scratch = cuda.shared.array(THREADS, np.float64)
    thread, joint, frame = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y
    here, whole = 0.0, total[frame, joint]
    for block in range(thread, bounds.weight.shape[2], THREADS):
        weight = np.inf
        if whole > 0.0:
            weight = _most(limbs, bounds, joint, -1, frame, block) / whole
        bounds.weight[frame, joint, block] = weight
        dropped = bounds.dropped[frame, joint, block]
        if dropped > 0.0:
            here += dropped * weight
    everywhere = block_sum(here, scratch, thread)
    if thread == 0:
        missed[frame, joint] = everywhere


def bound_all(limbs: Limbs, levels: Levels, rows: Rows, told: Told, bounds: Bounds, total: Any, missed: Any) -> None:
    """Fill the bounds of all frames, their weights, and missed (F, J), given all messages and total (F, J)."""
    frames, joints, size = bounds.weight.shape
    tiles, blocks = -(-size // THREADS), round(size ** (1 / 3))
    for upward in (True, False):
        for level in levels.on_device if upward else levels.on_device[::-1]:
            send[(tiles, level.shape[0], frames), THREADS](limbs, rows, told, bounds, level, upward, blocks)
    weigh[(joints, frames), THREADS](limbs, bounds, total, missed)


def make_bounds(memory: DeviceMemory, first: Any, dropped: Any) -> Bounds:
    """Room for bounds; first (F, J, S + 1) and dropped (F, J, S) on the device."""
    frames, joints, size = dropped.shape
    sent = memory.array("bounds.sent", (2, frames, joints, 2, size))
    return Bounds(first, dropped, sent, memory.array("bounds.weight", (frames, joints, size)))


def weight_bound(tree, active, marginals, n, block) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """See the contract in the folder's `__init__`; one frame."""
    memory, joints, blocks = of_this_thread(), len(tree.parents), active.dropped.shape[1]
    x, y, z = (axis // block for axis in np.unravel_index(active.place, (n, n, n)))
    joint = np.repeat(np.arange(joints), active.counts)
    segment = joint * blocks**3 + (x * blocks + y) * blocks + z
    order = np.argsort(segment, kind="stable")
    many = np.bincount(segment, minlength=joints * blocks**3).reshape(joints, -1)
    first = np.concatenate([np.zeros((joints, 1), np.int64), np.cumsum(many, axis=1)], axis=1).astype(np.int32)
    rows = upload_rows(memory, active.counts, active.place[order], active.value[order], n)
    limbs, levels = limbs_of(tree)
    told = _upload_told(memory, tree, active, marginals, order, rows.spot.shape[2])
    dropped = memory.upload("bounds.dropped", active.dropped.reshape(1, joints, -1))
    bounds = make_bounds(memory, memory.upload("bounds.first", first[None]), dropped)
    belief, total = memory.array("belief", rows.value.shape), memory.array("total", (1, joints))
    conclude[(joints, 1), THREADS](limbs, rows, told, belief, total)
    bound_all(limbs, levels, rows, told, bounds, total, memory.array("bounds.missed", (1, joints)))
    weight: NDArray[np.float64] = bounds.weight.copy_to_host().reshape(active.dropped.shape)
    return weight


def _upload_told(
    memory: DeviceMemory, tree: Any, active: Any, marginals: Any, order: NDArray[np.int64], capacity: int
) -> Told:
    """Messages in the order of sorted rows, as they were before they were divided by their tops."""
    joints = len(tree.parents)
    told = make_told(memory, 1, joints, capacity)
    up, down, top = np.zeros((1, joints, capacity)), np.zeros((1, joints, capacity)), np.zeros((1, 2, joints))
    sorted_rows = [order[active.rows(joint)] - active.starts[joint] for joint in range(joints)]
    for child, parent, _ in tree.limbs:
        siblings = [other for other in tree.children(parent) if other != child]
        into_up = marginals.up_scale[tree.children(child)].sum()
        into_down = marginals.up_scale[siblings].sum() + marginals.down_scale[parent]
        top[0, 0, child] = np.exp(marginals.up_scale[child] - into_up)
        top[0, 1, child] = np.exp(marginals.down_scale[child] - into_down)
        up[0, child, : active.counts[parent]] = marginals.up[child][sorted_rows[parent]] * top[0, 0, child]
        down[0, child, : active.counts[child]] = marginals.down[child][sorted_rows[child]] * top[0, 1, child]
    told.up.copy_to_device(up)
    told.down.copy_to_device(down)
    told.top.copy_to_device(top)
    return told

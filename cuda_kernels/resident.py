"""What lies on the device while a tree is inferred: its limbs, the voxels of every joint, what limbs tell.

F frames, J joints, C rows for each joint of each frame; of the rows only the first `count` hold voxels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.device import THREADS, DeviceMemory, cuda
from cuda_kernels.tree import Tree

TILE = THREADS // 2  # voxels that are in or out of a limb's reach as a whole; C is a multiple
BITS = 10  # of a packed coordinate
LARGEST_GRID = 1 << BITS
# Columns of `Limbs.table`.
PARENT, LOWEST, HIGHEST, INTERVAL, WEIGHTS, FIRST_CHILD, LAST_CHILD, COLUMNS = range(8)


class Limbs(NamedTuple):
    """A tree: table (J, COLUMNS) int32, see the names of columns; children int32, those of joint j from FIRST_CHILD up
    to LAST_CHILD; heaviest (J,) float64; weights float32: that of squared distance d2 is at WEIGHTS + d2 - LOWEST.
    """

    table: Any
    children: Any
    heaviest: Any
    weights: Any


class Rows(NamedTuple):
    """Voxels: count (F, J) int32; spot (F, J, C) int32 packed indices, see `pack`; value (F, J, C) float64 likelihood
    over peak; boxes (F, J, C / TILE, 6) float32, lowest and highest indices of every TILE voxels.
    """

    count: Any
    spot: Any
    value: Any
    boxes: Any


class Told(NamedTuple):
    """Messages, by the limb's child c: up (F, J, C) at the voxels of its parent, down (F, J, C) at its own; top
    (F, 2, J) the largest of each, up and down. What counts is a message over its top.
    """

    up: Any
    down: Any
    top: Any


class Levels(NamedTuple):
    """Limbs by the depth of their child, deepest first: (E, 2) int32 child and parent, on the device and the host."""

    on_device: list[Any]
    edges: list[NDArray[np.int32]]


def pack(place: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """Flat indices (x * n + y) * n + z of voxels as x, y and z of BITS bits each, side by side.

    Raises:
        ValueError: more voxels a side than that many bits can tell.
    """
    if n > LARGEST_GRID:
        raise ValueError(f"a grid of {n} voxels a side was given, backend 'cuda' takes {LARGEST_GRID}; use 'numba'")
    x, y, z = place // (n * n), place // n % n, place % n
    packed: NDArray[np.int32] = (x << 2 * BITS | y << BITS | z).astype(np.int32)
    return packed


def unpack(spot: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """The reverse of `pack`."""
    x, y, z = spot >> 2 * BITS, spot >> BITS & LARGEST_GRID - 1, spot & LARGEST_GRID - 1
    place: NDArray[np.int32] = ((x * n + y) * n + z).astype(np.int32)
    return place


def limbs_of(tree: Tree) -> tuple[Limbs, Levels]:
    """The tree on the device; uploaded once for each."""
    kept: list[tuple[Limbs, Levels]] = tree.__dict__.setdefault("_on_device", [])
    if not kept:
        kept.append((_upload_limbs(tree), _levels(tree)))
    return kept[0]


def _upload_limbs(tree: Tree) -> Limbs:
    packed, joints = tree.packed, len(tree.parents)
    children = [tree.children(joint) for joint in range(joints)]
    ends = np.cumsum([len(those) for those in children])
    table = np.zeros((joints, COLUMNS), np.int32)
    columns = (PARENT, packed.parents), (LOWEST, packed.lowest), (HIGHEST, packed.highest), (LAST_CHILD, ends)
    for column, numbers in columns:
        table[:, column] = numbers
    table[:, FIRST_CHILD] = ends - [len(those) for those in children]
    table[:, INTERVAL], table[:, WEIGHTS] = packed.interval, packed.weight_start + 1  # a zero comes before each
    joined = np.array([child for those in children for child in those] or [0], np.int32)
    weights = packed.weights if packed.weights.size else np.zeros(1, np.float32)
    return Limbs(*(cuda.to_device(array) for array in (table, joined, packed.heaviest, weights)))


def _levels(tree: Tree) -> Levels:
    depth = {int(tree.order[0]): 0}
    for joint in tree.order[1:]:
        depth[int(joint)] = depth[int(tree.parents[joint])] + 1
    levels: list[list[tuple[int, int]]] = [[] for _ in range(max(depth.values()))]
    for joint in tree.order[1:]:
        levels[-depth[int(joint)]].append((int(joint), int(tree.parents[joint])))
    edges = [np.array(level, np.int32) for level in levels]
    return Levels([cuda.to_device(level) for level in edges], edges)


def whole_tiles(rows: int) -> int:
    """So many rows, rounded up to whole tiles."""
    return max(-(-rows // TILE), 1) * TILE


def upload_rows(memory: DeviceMemory, counts: NDArray[np.int64], place: Any, value: Any, n: int) -> Rows:
    """The voxels of one frame on the device, without their boxes: place and value (N,), joint after joint."""
    capacity, starts = whole_tiles(int(counts.max(initial=0))), np.cumsum(counts) - counts
    spot, heat = np.zeros((1, len(counts), capacity), np.int32), np.zeros((1, len(counts), capacity))
    packed = pack(place, n)
    for joint, (start, count) in enumerate(zip(starts, counts, strict=True)):
        spot[0, joint, :count], heat[0, joint, :count] = packed[start : start + count], value[start : start + count]
    count = memory.upload("rows.count", counts.astype(np.int32)[None])
    boxes = memory.array("rows.boxes", (1, len(counts), capacity // TILE, 6), np.float32)
    return Rows(count, memory.upload("rows.spot", spot), memory.upload("rows.value", heat), boxes)


def make_told(memory: DeviceMemory, frames: int, joints: int, capacity: int) -> Told:
    """Room for messages, with anything in it but tops of zero, which the first frame's `top` needs."""
    shape = (frames, joints, capacity)
    top = memory.upload("told.top", np.zeros((frames, 2, joints)))
    return Told(memory.array("told.up", shape), memory.array("told.down", shape), top)


@cuda.jit(device=True)
def place_of(spot):  # type: ignore[no-untyped-def]
    """Indices of a packed voxel, float32."""
    low = LARGEST_GRID - 1
    return np.float32(spot >> 2 * BITS), np.float32(spot >> BITS & low), np.float32(spot & low)


@cuda.jit(device=True)
def share_of(top):  # type: ignore[no-untyped-def]
    """What a message is multiplied by so that its largest value is one; zero if it says nothing."""
    return 1.0 / top if top > 0.0 else 0.0


@cuda.jit(device=True)
def belief_of(limbs, rows, told, frame, joint, but, row):  # type: ignore[no-untyped-def]
    """The likelihood of a joint's voxel times all messages to it but that of one neighbour (-1: all)."""
    belief = rows.value[frame, joint, row]
    for at in range(limbs.table[joint, FIRST_CHILD], limbs.table[joint, LAST_CHILD]):
        child = limbs.children[at]
        if child != but:
            belief *= told.up[frame, child, row] * share_of(told.top[frame, 0, child])
    parent = limbs.table[joint, PARENT]
    if parent >= 0 and parent != but:
        belief *= told.down[frame, joint, row] * share_of(told.top[frame, 1, joint])
    return belief

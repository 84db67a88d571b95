"""Sum-product for GPUs: all messages of one depth of the tree, and of all frames, in one launch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.device import THREADS, DeviceMemory, block_sum, cuda, of_this_thread
from cuda_kernels.limb_message.cuda_ import cheapest_route, find_boxes, tell
from cuda_kernels.limb_message.cuda_transform import transform_message
from cuda_kernels.resident import TILE, Levels, Limbs, Rows, Told, belief_of, limbs_of, make_told, upload_rows
from cuda_kernels.tree import Tree


@cuda.jit(cache=True)
def conclude(limbs, rows, told, belief, total):  # type: ignore[no-untyped-def]
    """Fill belief (F, J, C), likelihood times all messages, and total (F, J), its sums; a block takes a joint."""
    scratch = cuda.shared.array(THREADS, np.float64)
    thread, joint, frame = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y
    here = 0.0
    for row in range(thread, rows.count[frame, joint], THREADS):
        value = belief_of(limbs, rows, told, frame, joint, -1, row)
        belief[frame, joint, row] = value
        here += value
    everywhere = block_sum(here, scratch, thread)
    if thread == 0:
        total[frame, joint] = everywhere


def all_messages(limbs: Limbs, levels: Levels, rows: Rows, told: Told) -> None:
    """Fill the messages of all frames over pairs of voxels; boxes must be there, and tops be zero."""
    frames, _, tiles, _ = rows.boxes.shape
    for upward in (True, False):
        for level in levels.on_device if upward else levels.on_device[::-1]:
            tell[(tiles, level.shape[0], frames), TILE](limbs, rows, told, level, upward)


def _all_messages_of_one(
    memory: DeviceMemory, tree: Tree, levels: Levels, rows: Rows, told: Told, counts: NDArray[np.int64], n: int
) -> None:
    """The same for one frame, each message by the route of least predicted cost."""
    limbs = limbs_of(tree)[0]
    for upward in (True, False):
        for level in levels.edges if upward else levels.edges[::-1]:
            ends = [(int(a), int(b)) if upward else (int(b), int(a)) for a, b in level]
            shells = [tree.shell(*pair) for pair in ends]
            routes = [
                cheapest_route(counts[a], counts[b], shell, n) for (a, b), shell in zip(ends, shells, strict=True)
            ]
            in_pairs = level[[route == "pairs" for route in routes]]
            if len(in_pairs):
                edges = memory.upload("edges", in_pairs)
                tell[(rows.boxes.shape[2], len(in_pairs), 1), TILE](limbs, rows, told, edges, upward)
            for pair, shell, route in zip(ends, shells, routes, strict=True):
                if route == "transform":
                    transform_message(memory, limbs, rows, told, pair, upward, shell, n)


def sum_product(tree, active, n) -> Any:  # type: ignore[no-untyped-def]
    """The fields of `Marginals`, or None."""
    memory, counts, joints = of_this_thread(), active.counts, len(tree.parents)
    limbs, levels = limbs_of(tree)
    rows = upload_rows(memory, counts, active.place, active.value, n)
    told = make_told(memory, 1, joints, rows.spot.shape[2])
    find_boxes(rows)
    _all_messages_of_one(memory, tree, levels, rows, told, counts, n)
    belief, total = memory.array("belief", rows.value.shape), memory.array("total", (1, joints))
    conclude[(joints, 1), THREADS](limbs, rows, told, belief, total)
    tops, sums = told.top.copy_to_host()[0], total.copy_to_host()[0]
    children = [joint for joint in range(joints) if tree.parents[joint] >= 0]
    if not ((sums > 0).all() and (tops[:, children] > 0).all()):
        return None
    scale = log_scales(tree, tops)
    up, down, none = told.up.copy_to_host()[0], told.down.copy_to_host()[0], np.zeros(0)
    parents = [int(parent) for parent in tree.parents]
    told_up = [none if p < 0 else up[j, : counts[p]] / tops[0, j] for j, p in enumerate(parents)]
    told_down = [none if p < 0 else down[j, : counts[j]] / tops[1, j] for j, p in enumerate(parents)]
    marginal = belief.copy_to_host()[0] / sums[:, None]
    joined = np.concatenate([marginal[joint, :count] for joint, count in enumerate(counts)])
    root = int(tree.order[0])
    evidence = float(np.log(sums[root]) + scale[0, tree.children(root)].sum())
    return told_up, told_down, scale[0], scale[1], joined, evidence


def log_scales(tree: Tree, tops: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, J) logarithm of what each message up and down was divided by, those that went into it included."""
    scale, order = np.zeros((2, len(tree.parents))), [int(joint) for joint in tree.order]
    for joint in order[:0:-1]:
        scale[0, joint] = np.log(tops[0, joint]) + scale[0, tree.children(joint)].sum()
    for joint in order[1:]:
        parent = int(tree.parents[joint])
        others = [child for child in tree.children(parent) if child != joint]
        scale[1, joint] = np.log(tops[1, joint]) + scale[0, others].sum() + scale[1, parent]
    return scale

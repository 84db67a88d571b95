"""Inference on a batch of frames that stays on the GPU: maps go up once, one table of numbers comes down once.

Every launch serves all frames. What a joint keeps goes into a room of fixed size, so that nothing has to be asked of
the device in between.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import blocks_a_side
from cuda_kernels.block_bound.cuda_ import bound_all, make_bounds
from cuda_kernels.device import THREADS, DeviceMemory, cuda, of_this_thread
from cuda_kernels.limb_message.cuda_ import find_boxes
from cuda_kernels.moments.cuda_ import SUMS, add_moments, from_sums
from cuda_kernels.resident import TILE, Rows, limbs_of, make_told, unpack, whole_tiles
from cuda_kernels.sum_product.cuda_ import all_messages, conclude
from cuda_kernels.unproject import likelihood_type
from cuda_kernels.unproject.cuda_active import count_kept, make_survey, write_kept
from cuda_kernels.unproject.cuda_cells import upload_maps

# Columns of what comes down for each joint of each frame; the first are those of `add_moments`.
FIRST_SPOT, KEPT, PEAK, TOP, MISSED, COLUMNS = range(SUMS, SUMS + 6)


class Found(NamedTuple):
    """What is known of every joint of every frame, on the device: survey and voxels, largest messages, sums."""

    kept: Any
    peak: Any
    spot: Any
    top: Any
    moments: Any
    missed: Any


@cuda.jit(cache=True)
def find_unsound(score, unsound):  # type: ignore[no-untyped-def]
    """Set `unsound` (1,) if any score is negative or no number."""
    at, step = np.uint64(cuda.grid(1)), np.uint64(cuda.gridsize(1))
    while at < score.size:
        if not score[at] >= np.float32(0):
            unsound[0] = 1
        at += step


@cuda.jit(cache=True)
def report(found, table):  # type: ignore[no-untyped-def]
    """Fill table (F, J, COLUMNS)."""
    at, (frames, joints) = cuda.grid(1), found.peak.shape
    if at < frames * joints:
        frame, joint = at // joints, at % joints
        row = table[frame, joint]
        for column in range(SUMS):
            row[column] = found.moments[frame, joint, column]
        row[FIRST_SPOT] = found.spot[frame, joint, 0]
        row[KEPT] = found.kept[frame, joint, found.kept.shape[2] - 1]
        row[PEAK] = found.peak[frame, joint]
        row[TOP] = found.top[frame, 0, joint]
        row[MISSED] = found.missed[frame, joint]


def infer_frames(score, cell_from_image, cameras, grids, floor, cut, tree, capacity) -> Any:  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """Whether all scores are sound, and the fields of `FramePoses`."""
    memory, (frames, joints), n = of_this_thread(), (len(score), score.shape[4]), grids[2]
    maps = upload_maps(memory, score, cell_from_image, cameras, grids, floor)
    unsound = memory.upload("unsound", np.zeros(1, np.int32))
    find_unsound[min(-(-score.size // THREADS), 4096), THREADS](maps.score, unsound)
    cuts = np.full((joints,) + (blocks_a_side(n),) * 3, cut)
    survey = make_survey(memory, cuts, frames, n, likelihood_type(score.shape[1], floor))
    rows = make_rows(memory, frames, joints, whole_tiles(capacity))
    count_kept(memory, maps, survey, rows.count, capacity)
    write_kept(maps, survey, rows.spot, rows.value)
    found = _infer(memory, tree, rows, survey)
    table = memory.array("table", (frames, joints, COLUMNS))
    report[-(-frames * joints // THREADS), THREADS](found, table)
    return (not unsound.copy_to_host()[0], *_poses(table.copy_to_host(), tree, grids, capacity))


def make_rows(memory: DeviceMemory, frames: int, joints: int, capacity: int) -> Rows:
    """Room for the voxels of some frames, `capacity` for each joint."""
    return Rows(
        memory.array("rows.count", (frames, joints), np.int32),
        memory.array("rows.spot", (frames, joints, capacity), np.int32),
        memory.array("rows.value", (frames, joints, capacity)),
        memory.array("rows.boxes", (frames, joints, capacity // TILE, 6), np.float32),
    )


def _infer(memory: DeviceMemory, tree: Any, rows: Rows, survey: Any) -> Found:
    """Messages, marginals, their moments and the certificate, of all frames."""
    (limbs, levels), (frames, joints, capacity) = limbs_of(tree), rows.spot.shape
    told = make_told(memory, frames, joints, capacity)
    find_boxes(rows)
    all_messages(limbs, levels, rows, told)
    belief, total = memory.array("belief", rows.value.shape), memory.array("total", (frames, joints))
    conclude[(joints, frames), THREADS](limbs, rows, told, belief, total)
    sums = memory.array("moments", (frames, joints, SUMS))
    add_moments[(joints, frames), THREADS](rows.count, rows.spot, belief, sums)
    missed = memory.array("bounds.missed", (frames, joints))
    bounds = make_bounds(memory, survey.kept, survey.dropped)
    bound_all(limbs, levels, rows, told, bounds, total, missed)
    return Found(survey.kept, survey.peak, rows.spot, told.top, sums, missed)


def _poses(table: NDArray[np.float64], tree: Any, grids: Any, capacity: int) -> Any:
    """The fields of `FramePoses` from what came down."""
    centres, side, n = grids
    root, others = int(tree.order[0]), [int(joint) for joint in tree.order[1:]]
    found: NDArray[np.bool_] = np.all((table[..., 0] > 0) & (table[..., KEPT] <= capacity), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # of frames that are not found
        place = unpack(table[..., FIRST_SPOT].astype(np.int32), n)
        first = np.stack(np.unravel_index(place % n**3, (n, n, n)), -1)
        mean, cov = from_sums(table[..., :SUMS], first)
        evidence = np.log(table[:, root, 0]) + np.log(table[:, others, TOP]).sum(1) + np.log(table[..., PEAK]).sum(1)
    step = side / n
    mean_m = np.where(found[:, None, None], centres[:, None] + (mean + 0.5 - n / 2) * step, np.nan)
    cov_m2 = np.where(found[:, None, None, None], (cov + np.eye(3) / 12) * step**2, np.nan)
    bound = np.where(found, table[..., MISSED].sum(1), np.inf)
    return mean_m, cov_m2, np.where(found, evidence, -np.inf), bound, table[..., KEPT].mean(1), found

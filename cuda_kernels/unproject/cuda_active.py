"""`unproject` and pruning in one for GPUs: likelihoods are computed and never stored but where they are kept.

First each block of voxels is surveyed: the largest likelihood of each joint, and their sum. With the largest of all
blocks known, only blocks that reach some cut are looked into again, twice: to count what each thread keeps, and, when
sums of counts say where, to write it. All sums and places have one fixed order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import blocks_a_side
from cuda_kernels.device import THREADS, DeviceMemory, cuda, of_this_thread
from cuda_kernels.resident import BITS, unpack
from cuda_kernels.unproject.cuda_cells import (
    GROUP,
    INSIDE,
    PAIRS,
    Maps,
    grid_of,
    lane_of,
    likelihood,
    origin_of,
    project,
    upload_maps,
    voxel_of,
)

Floats = NDArray[np.float64]


class Survey(NamedTuple):
    """What is known of each of S blocks of voxels; arrays on the device.

    largest (F, S, J) of the likelihood's type; total (F, S, J) float64: sum of likelihoods; peak (F, J): largest of
    the frame; cut (J, S) float64; least (F, S, J): likelihood that is kept; slots (F, S, groups, THREADS) int32: voxels
    that each thread keeps; kept (F, J, S + 1) int32: voxels that the block keeps, later the first row of each block;
    dropped (F, J, S) float64, over the peak.
    """

    largest: Any
    total: Any
    peak: Any
    cut: Any
    least: Any
    slots: Any
    kept: Any
    dropped: Any


@cuda.jit(cache=True)
def look(maps, one, survey):  # type: ignore[no-untyped-def]
    """Fill `largest` and `total`, and raise `peak`, which must begin with zeros."""
    corner = cuda.shared.array(PAIRS, np.int32)
    left = cuda.shared.array(PAIRS, np.float32)
    right = cuda.shared.array(PAIRS, np.float32)
    above = cuda.shared.array(PAIRS, np.float32)
    below = cuda.shared.array(PAIRS, np.float32)
    sums = cuda.shared.array(THREADS, np.float64)
    tops = cuda.shared.array(THREADS, np.float64)
    room = (corner, left, right, above, below)
    block, frame = cuda.blockIdx.x, cuda.blockIdx.z
    origin = origin_of(block, maps.n)
    joint, slot, slots = lane_of(maps.joints)
    top, total = one - one, 0.0
    for first in range(0, INSIDE, maps.tile):
        cuda.syncthreads()
        project(maps, frame, origin, first, room)
        cuda.syncthreads()
        if slot < slots:
            for voxel in range(slot, min(maps.tile, INSIDE - first), slots):
                x, y, z = voxel_of(origin, first + voxel)
                if x < maps.n and y < maps.n and z < maps.n:
                    value = likelihood(maps, frame, joint, voxel, one, room)
                    top = max(top, value)
                    total += value
    sums[cuda.threadIdx.x], tops[cuda.threadIdx.x] = total, top
    cuda.syncthreads()
    if slot == 0:
        _finish_look(survey, frame, block, joint, slots, (tops, sums))


@cuda.jit(device=True)
def _finish_look(survey, frame, block, joint, slots, room):  # type: ignore[no-untyped-def]
    """Bring together what the threads of one joint saw."""
    tops, sums = room
    wide = (survey.peak.shape[1] + cuda.gridDim.y - 1) // cuda.gridDim.y
    top, total = 0.0, 0.0
    for thread in range(cuda.threadIdx.x, slots * wide, wide):
        top = max(top, tops[thread])
        total += sums[thread]
    survey.largest[frame, block, joint] = top
    survey.total[frame, block, joint] = total
    cuda.atomic.max(survey.peak, (frame, joint), survey.largest[frame, block, joint])


@cuda.jit(cache=True)
def set_limits(survey, tiny):  # type: ignore[no-untyped-def]
    """Fill `least`: each block's cut times the peak, in the likelihood's type, and never below a normal number."""
    at = cuda.grid(1)
    frames, blocks, joints = survey.least.shape
    if at < frames * blocks * joints:
        frame, block, joint = at // (blocks * joints), at // joints % blocks, at % joints
        survey.least[frame, block, joint] = survey.cut[joint, block] * np.float64(survey.peak[frame, joint])
        survey.least[frame, block, joint] = max(survey.least[frame, block, joint], tiny)


@cuda.jit(cache=True)
def collect(maps, one, survey, kept, writing):  # type: ignore[no-untyped-def]
    """Count what each thread keeps and sum what is dropped, or, if `writing`, write what is kept.

    One function for both, so that likelihoods have the same bits. What `kept` has no room for is left out.
    """
    corner = cuda.shared.array(PAIRS, np.int32)
    left = cuda.shared.array(PAIRS, np.float32)
    right = cuda.shared.array(PAIRS, np.float32)
    above = cuda.shared.array(PAIRS, np.float32)
    below = cuda.shared.array(PAIRS, np.float32)
    sums = cuda.shared.array(THREADS, np.float64)
    room = (corner, left, right, above, below)
    block, frame = cuda.blockIdx.x, cuda.blockIdx.z
    joint, slot, slots = lane_of(maps.joints)
    limit, row, peak = one, 0, 1.0
    active = slot < slots
    if active:
        limit = survey.least[frame, block, joint]
        active = survey.largest[frame, block, joint] >= limit
    if active and writing:
        row, peak = _first_row(survey, frame, block, joint), np.float64(survey.peak[frame, joint])
    begin, lost = row, 0.0
    if cuda.syncthreads_or(np.int32(active)):
        origin = origin_of(block, maps.n)
        for first in range(0, INSIDE, maps.tile):
            cuda.syncthreads()
            project(maps, frame, origin, first, room)
            cuda.syncthreads()
            if active:
                for voxel in range(slot, min(maps.tile, INSIDE - first), slots):
                    x, y, z = voxel_of(origin, first + voxel)
                    if x < maps.n and y < maps.n and z < maps.n:
                        value = likelihood(maps, frame, joint, voxel, one, room)
                        if value < limit:
                            lost += value
                        else:
                            if writing:
                                _keep(kept, frame, joint, row, x << 2 * BITS | y << BITS | z, value / peak)
                            row += 1
    if not writing:
        _count(survey, frame, block, joint, row - begin, lost, sums)


@cuda.jit(device=True)
def _first_row(survey, frame, block, joint):  # type: ignore[no-untyped-def]
    """Where a thread writes what it keeps: after earlier blocks, then after the threads before it."""
    wide = (survey.peak.shape[1] + cuda.gridDim.y - 1) // cuda.gridDim.y
    row = survey.kept[frame, joint, block]
    for thread in range(cuda.threadIdx.x % wide, cuda.threadIdx.x, wide):
        row += survey.slots[frame, block, cuda.blockIdx.y, thread]
    return row


@cuda.jit(device=True)
def _keep(kept, frame, joint, row, spot, value):  # type: ignore[no-untyped-def]
    spots, values = kept
    if row < spots.shape[2]:
        spots[frame, joint, row] = spot
        values[frame, joint, row] = value


@cuda.jit(device=True)
def _count(survey, frame, block, joint, count, lost, sums):  # type: ignore[no-untyped-def]
    """Store how many voxels a thread keeps; the first of each joint brings together those of all."""
    survey.slots[frame, block, cuda.blockIdx.y, cuda.threadIdx.x] = count
    sums[cuda.threadIdx.x] = lost
    cuda.syncthreads()
    wide = (survey.peak.shape[1] + cuda.gridDim.y - 1) // cuda.gridDim.y
    if cuda.threadIdx.x < wide and joint < survey.peak.shape[1]:
        total, number = 0.0, 0
        for thread in range(cuda.threadIdx.x, THREADS // wide * wide, wide):
            total += sums[thread]
            number += survey.slots[frame, block, cuda.blockIdx.y, thread]
        if survey.largest[frame, block, joint] < survey.least[frame, block, joint]:
            total = survey.total[frame, block, joint]
        peak = np.float64(survey.peak[frame, joint])
        survey.kept[frame, joint, block] = number
        survey.dropped[frame, joint, block] = total / peak if peak > 0.0 else 0.0


@cuda.jit(cache=True)
def add_up(survey, count, capacity):  # type: ignore[no-untyped-def]
    """Turn numbers of kept voxels into first rows, and fill `count` (F, J) with their sums; a block takes a joint.

    The count of a joint that keeps more than `capacity` is zero.
    """
    before = cuda.shared.array(THREADS, np.int32)
    thread, joint, frame = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y
    row = survey.kept[frame, joint]
    blocks = row.shape[0] - 1
    share = (blocks + THREADS - 1) // THREADS
    first, last = thread * share, min((thread + 1) * share, blocks)
    total = 0
    for block in range(first, last):
        total += row[block]
    before[thread] = total
    cuda.syncthreads()
    total = 0
    for other in range(thread):
        total += before[other]
    for block in range(first, last):
        here = row[block]
        row[block] = total
        total += here
    if thread == THREADS - 1:
        row[blocks] = total
        count[frame, joint] = total if total <= capacity else 0


def make_survey(memory: DeviceMemory, cut: Floats, frames: int, n: int, kind: type) -> Survey:
    """Room for a survey, its peaks zero; cut (J, B, B, B)."""
    blocks, joints = blocks_a_side(n) ** 3, len(cut)
    groups, each = -(-joints // GROUP), (frames, blocks, joints)
    return Survey(
        memory.array("survey.largest", each, kind),
        memory.array("survey.total", each),
        memory.upload("survey.peak", np.zeros((frames, joints), kind)),
        memory.upload("survey.cut", cut.reshape(joints, blocks)),
        memory.array("survey.least", each, kind),
        memory.array("survey.slots", (frames, blocks, groups, THREADS), np.int16),
        memory.array("survey.kept", (frames, joints, blocks + 1), np.int32),
        memory.array("survey.dropped", (frames, joints, blocks)),
    )


def count_kept(memory: DeviceMemory, maps: Maps, survey: Survey, count: Any, capacity: int) -> None:
    """Find peaks, first rows and what is dropped, and fill `count` (F, J) with numbers of kept voxels, see `add_up`."""
    frames, blocks, joints = survey.least.shape
    one = survey.least.dtype.type(1)
    grid = grid_of(blocks, joints, frames)
    look[grid, THREADS](maps, one, survey)
    set_limits[-(-frames * blocks * joints // THREADS), THREADS](survey, np.finfo(one.dtype).tiny)
    # Of the types that writing has, so that it is the same compiled code.
    nowhere = memory.array("nowhere.spot", (1, 1, 1), np.int32), memory.array("nowhere.value", (1, 1, 1))
    collect[grid, THREADS](maps, one, survey, nowhere, False)
    add_up[(joints, frames), THREADS](survey, count, capacity)


def write_kept(maps: Maps, survey: Survey, spot: Any, value: Any) -> None:
    """Write kept voxels to spot and value (F, J, C), after `count_kept`; those beyond C are left out."""
    frames, blocks, joints = survey.least.shape
    collect[grid_of(blocks, joints, frames), THREADS](maps, survey.least.dtype.type(1), survey, (spot, value), True)


def unproject_active(views, grid, cut, like, most) -> Any:  # type: ignore[no-untyped-def]
    """Whether no more than `most` voxels are kept, and the fields of `ActiveVoxels` if so, `dropped` exact.

    views: score, cell_from_image, cameras and floor as in the contract; grid: centre, side, n; `like`: of the type in
    which to multiply.
    """
    memory, (score, cell_from_image, cameras, floor) = of_this_thread(), views
    (centre, side, n), joints = grid, score.shape[3]
    maps = upload_maps(memory, score[None], cell_from_image[None], cameras, (centre[None], side, n), floor)
    survey = make_survey(memory, cut, 1, n, like.dtype.type)
    on_device = memory.array("rows.count", (1, joints), np.int32)
    count_kept(memory, maps, survey, on_device, n**3)
    count = on_device.copy_to_host()[0].astype(np.int64)
    if count.sum() > most:
        return (False,)
    shape = (1, joints, max(int(count.max()), 1))
    spot, value = memory.array("rows.spot", shape, np.int32), memory.array("rows.value", shape)
    write_kept(maps, survey, spot, value)
    rows = np.arange(shape[2]) < count[:, None]
    place, values = unpack(spot.copy_to_host()[0][rows], n), value.copy_to_host()[0][rows]
    starts, dropped = np.concatenate([[0], np.cumsum(count)]), survey.dropped.copy_to_host().reshape(cut.shape)
    return True, starts, place, values, dropped, survey.peak.copy_to_host()[0].astype(np.float64)

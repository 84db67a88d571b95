"""`unproject` for GPUs: the dense likelihood of one frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda_kernels.active import blocks_a_side
from cuda_kernels.device import THREADS, cuda, of_this_thread
from cuda_kernels.unproject.cuda_active import unproject_active
from cuda_kernels.unproject.cuda_cells import (
    INSIDE,
    PAIRS,
    grid_of,
    lane_of,
    likelihood,
    origin_of,
    project,
    upload_maps,
    voxel_of,
)

__all__ = ["fill", "unproject", "unproject_active"]


@cuda.jit(cache=True)
def fill(maps, one, out):  # type: ignore[no-untyped-def]
    """Fill `out` (flat, F * n * n * n * J) with likelihoods."""
    corner = cuda.shared.array(PAIRS, np.int32)
    left = cuda.shared.array(PAIRS, np.float32)
    right = cuda.shared.array(PAIRS, np.float32)
    above = cuda.shared.array(PAIRS, np.float32)
    below = cuda.shared.array(PAIRS, np.float32)
    room = (corner, left, right, above, below)
    n, frame = maps.n, cuda.blockIdx.z
    origin = origin_of(cuda.blockIdx.x, n)
    joint, slot, slots = lane_of(maps.joints)
    for first in range(0, INSIDE, maps.tile):
        cuda.syncthreads()
        project(maps, frame, origin, first, room)
        cuda.syncthreads()
        if slot < slots:
            for voxel in range(slot, min(maps.tile, INSIDE - first), slots):
                x, y, z = voxel_of(origin, first + voxel)
                if x < n and y < n and z < n:
                    row = np.uint64(frame * n + x) * np.uint64(n) + np.uint64(y)
                    at = (row * np.uint64(n) + np.uint64(z)) * np.uint64(maps.joints) + np.uint64(joint)
                    out[at] = likelihood(maps, frame, joint, voxel, one, room)


def unproject(score, cell_from_image, cameras, centre, side, floor, out) -> None:  # type: ignore[no-untyped-def]
    """Fill `out`; see the contract in the folder's `__init__`."""
    memory, n = of_this_thread(), out.shape[0]
    maps = upload_maps(memory, score[None], cell_from_image[None], cameras, (centre[None], side, n), floor)
    on_device = memory.array("likelihood", (out.size,), out.dtype)
    one: Any = out.dtype.type(1)
    fill[grid_of(blocks_a_side(n) ** 3, out.shape[3], 1), THREADS](maps, one, on_device)
    on_device.copy_to_host(out.reshape(-1))

"""Means and covariances for GPUs: a block takes a joint of a frame, and sums in an order that never changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.device import THREADS, block_sum, cuda, of_this_thread
from cuda_kernels.resident import place_of, upload_rows

# Columns of the sums: weight, weight times x, y, z, and times their products xx, xy, xz, yy, yz, zz.
SUMS = 10


@cuda.jit(cache=True)
def add_moments(count, spot, weight, sums):  # type: ignore[no-untyped-def]
    """Fill sums (F, J, SUMS), places counted from the joint's first voxel.

    Double precision loses about 1e-16 of the squared distance from there, at most 1e-10 square voxels.
    """
    scratch = cuda.shared.array(THREADS, np.float64)
    thread, joint, frame = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y
    ox, oy, oz = place_of(spot[frame, joint, 0])
    total, mx, my, mz, xx, xy, xz, yy, yz, zz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for row in range(thread, count[frame, joint], THREADS):
        w, (x, y, z) = weight[frame, joint, row], place_of(spot[frame, joint, row])
        dx, dy, dz = np.float64(x - ox), np.float64(y - oy), np.float64(z - oz)
        wx, wy, wz = w * dx, w * dy, w * dz
        total, mx, my, mz = total + w, mx + wx, my + wy, mz + wz
        xx, xy, xz = xx + wx * dx, xy + wx * dy, xz + wx * dz
        yy, yz, zz = yy + wy * dy, yz + wy * dz, zz + wz * dz
    mine = (total, mx, my, mz, xx, xy, xz, yy, yz, zz)
    for column in range(SUMS):
        everywhere = block_sum(mine[column], scratch, thread)
        if thread == 0:
            sums[frame, joint, column] = everywhere


def from_sums(sums: NDArray[np.float64], first: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means (..., 3) and covariances (..., 3, 3) in voxels, from sums (..., SUMS) about voxels `first` (..., 3)."""
    total = sums[..., 0, None]
    mean = sums[..., 1:4] / total
    squares = (sums[..., 4:] / total)[..., [[0, 1, 2], [1, 3, 4], [2, 4, 5]]]
    return first + mean, squares - mean[..., None] * mean[..., None, :]


def moments(  # type: ignore[no-untyped-def]
    weight, place, starts, n
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means (J, 3) and covariances (J, 3, 3) in voxels."""
    memory, counts = of_this_thread(), np.diff(starts)
    rows = upload_rows(memory, counts, place, weight, n)
    sums = memory.array("moments", (1, len(counts), SUMS))
    add_moments[(len(counts), 1), THREADS](rows.count, rows.spot, rows.value, sums)
    return from_sums(sums.copy_to_host()[0], np.stack(np.unravel_index(place[starts[:-1]], (n, n, n)), -1))

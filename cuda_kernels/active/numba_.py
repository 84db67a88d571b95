"""Pruning by likelihood for CPUs: one pass for the peaks, one to count and sum what is dropped, one to collect."""

import numba
import numpy as np


@numba.njit(parallel=True, cache=True)
def peaks(likelihood):  # type: ignore[no-untyped-def]
    """(J,) largest likelihood of each joint."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    best = np.zeros((n, joints))
    for i in numba.prange(n):
        top = np.zeros(joints, likelihood.dtype)
        for j in range(n):
            for k in range(n):
                voxel = likelihood[i, j, k]
                for joint in range(joints):
                    top[joint] = max(top[joint], voxel[joint])
        best[i] = top
    out = np.zeros(joints)
    for i in range(n):
        out = np.maximum(out, best[i])
    return out


def split(likelihood, peak, cut, block):  # type: ignore[no-untyped-def]
    """Row starts (J + 1,), kept voxels, their relative likelihood, and dropped mass by joint and block.

    Array work stands outside the compiled loops: inside, each line of it would start all threads once more.
    """
    n, blocks = likelihood.shape[0], cut.shape[1]
    scale = np.divide(1.0, peak, out=np.zeros_like(peak), where=peak > 0)
    threshold = (cut * peak[:, None, None, None]).transpose(1, 2, 3, 0).astype(likelihood.dtype)
    threshold = np.ascontiguousarray(np.maximum(threshold, np.finfo(likelihood.dtype).tiny))
    count, lost = _count(likelihood, threshold, block)
    per_slab = count.sum(axis=(1, 2))
    starts = np.concatenate([[0], np.cumsum(per_slab.sum(axis=0))])
    first = starts[:-1] + np.cumsum(per_slab, axis=0) - per_slab
    voxels, values = np.empty((starts[-1], 3), np.int16), np.empty(starts[-1])
    _collect(likelihood, threshold, count, first, scale, block, (voxels, values))
    slabs = np.arange(blocks) * block
    dropped = np.add.reduceat(lost, slabs[slabs < n], axis=0).transpose(3, 0, 1, 2) * scale[:, None, None, None]
    return starts, voxels, values, np.ascontiguousarray(dropped)


@numba.njit(parallel=True, cache=True)
def _count(likelihood, threshold, block):  # type: ignore[no-untyped-def]
    """Kept voxels and lost likelihood by slab of the first axis, block of the other two, and joint."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    blocks = threshold.shape[0]
    count = np.zeros((n, blocks, blocks, joints), np.int32)
    lost = np.zeros((n, blocks, blocks, joints))
    for i in numba.prange(n):
        for j in range(n):
            for bk in range(blocks):
                limit = threshold[i // block, j // block, bk]
                mine, mass = count[i, j // block, bk], lost[i, j // block, bk]
                for k in range(bk * block, min((bk + 1) * block, n)):
                    voxel = likelihood[i, j, k]
                    for joint in range(joints):
                        keep = voxel[joint] >= limit[joint]
                        mine[joint] += np.int32(keep)
                        mass[joint] += np.float64(0) if keep else np.float64(voxel[joint])
    return count, lost


@numba.njit(parallel=True, cache=True)
def _collect(likelihood, threshold, count, first, scale, block, out):  # type: ignore[no-untyped-def]
    """Write kept voxels and their relative likelihood to the rows from `first` on, joint by joint."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    voxels, values = out
    for i in numba.prange(n):
        at = first[i].copy()
        for j in range(n):
            for k in range(n):
                here = count[i, j // block, k // block]
                limit, voxel = threshold[i // block, j // block, k // block], likelihood[i, j, k]
                for joint in range(joints):
                    if here[joint] > 0 and voxel[joint] >= limit[joint]:
                        row = at[joint]
                        voxels[row, 0], voxels[row, 1], voxels[row, 2] = i, j, k
                        values[row] = voxel[joint] * scale[joint]
                        at[joint] = row + 1

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


@numba.njit(parallel=True, cache=True)
def split(likelihood, peak, cut, block):  # type: ignore[no-untyped-def]  # noqa: C901 - plain nested loops
    """Row starts (J + 1,), kept voxels, their relative likelihood, and dropped mass by joint and block.

    A block's voxels are counted where they are scanned, and collected in a second pass over the blocks that keep any.
    """
    n, joints = likelihood.shape[0], likelihood.shape[3]
    blocks = (n + block - 1) // block
    scale = np.zeros(joints)
    for joint in range(joints):
        if peak[joint] > 0:
            scale[joint] = 1.0 / peak[joint]
    threshold = np.empty((blocks, blocks, blocks, joints), likelihood.dtype)
    for joint in range(joints):
        threshold[:, :, :, joint] = np.maximum(cut[joint] * peak[joint], np.finfo(likelihood.dtype).tiny)
    count = np.zeros((n, blocks, blocks, joints), np.int32)
    lost = np.zeros((n, blocks, blocks, joints))
    for i in numba.prange(n):
        for j in range(n):
            for k in range(n):
                bj, bk = j // block, k // block
                limit, mine, mass = threshold[i // block, bj, bk], count[i, bj, bk], lost[i, bj, bk]
                voxel = likelihood[i, j, k]
                for joint in range(joints):
                    value = voxel[joint]
                    keep = value >= limit[joint]
                    mine[joint] += np.int32(keep)
                    mass[joint] += np.float64(0) if keep else np.float64(value)
    starts = np.zeros(joints + 1, np.int64)
    first = np.zeros((n, joints), np.int64)
    for joint in range(joints):
        at = starts[joint]
        for i in range(n):
            first[i, joint] = at
            at += count[i, :, :, joint].sum()
        starts[joint + 1] = at
    voxels, values = np.empty((starts[joints], 3), np.int16), np.empty(starts[joints])
    for i in numba.prange(n):
        at = first[i].copy()
        for j in range(n):
            for k in range(n):
                bj, bk = j // block, k // block
                if k % block == 0:
                    any_here = count[i, bj, bk].max() > 0
                if not any_here:
                    continue
                limit, voxel = threshold[i // block, bj, bk], likelihood[i, j, k]
                for joint in range(joints):
                    value = voxel[joint]
                    if value >= limit[joint]:
                        row = at[joint]
                        voxels[row, 0], voxels[row, 1], voxels[row, 2] = i, j, k
                        values[row] = value * scale[joint]
                        at[joint] = row + 1
    dropped = np.zeros((joints, blocks, blocks, blocks))
    for i in range(n):
        for bj in range(blocks):
            for bk in range(blocks):
                for joint in range(joints):
                    dropped[joint, i // block, bj, bk] += lost[i, bj, bk, joint] * scale[joint]
    return starts, voxels, values, dropped

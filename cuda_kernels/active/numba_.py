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
def split(likelihood, peak, cut, block):  # type: ignore[no-untyped-def]
    """Row starts (J + 1,), kept voxels, their relative likelihood, and dropped mass by joint and block."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    blocks = (n + block - 1) // block
    scale = np.zeros(joints)
    threshold = np.zeros(joints, likelihood.dtype)
    for joint in range(joints):
        if peak[joint] > 0:
            scale[joint] = 1.0 / peak[joint]
            threshold[joint] = cut * peak[joint]
    count = np.zeros((n, joints), np.int64)
    partial = np.zeros((n, blocks, blocks, joints))
    for i in numba.prange(n):
        mine = np.zeros(joints, np.int32)
        for j in range(n):
            for k in range(n):
                voxel, mass = likelihood[i, j, k], partial[i, j // block, k // block]
                for joint in range(joints):
                    value = voxel[joint]
                    keep = (value >= threshold[joint]) & (value > 0)
                    mine[joint] += np.int32(keep)
                    mass[joint] += 0.0 if keep else value * scale[joint]
        count[i] = mine
    starts = np.zeros(joints + 1, np.int64)
    first = np.zeros((n, joints), np.int64)
    for joint in range(joints):
        at = starts[joint]
        for i in range(n):
            first[i, joint] = at
            at += count[i, joint]
        starts[joint + 1] = at
    voxels, values = np.empty((starts[joints], 3), np.int16), np.empty(starts[joints])
    for i in numba.prange(n):
        at = first[i].copy()
        if count[i].sum() == 0:
            continue
        for j in range(n):
            for k in range(n):
                voxel = likelihood[i, j, k]
                for joint in range(joints):
                    value = voxel[joint]
                    if value >= threshold[joint] and value > 0:
                        row = at[joint]
                        voxels[row, 0], voxels[row, 1], voxels[row, 2] = i, j, k
                        values[row] = value * scale[joint]
                        at[joint] = row + 1
    dropped = np.zeros((joints, blocks, blocks, blocks))
    for i in range(n):
        for bj in range(blocks):
            for bk in range(blocks):
                for joint in range(joints):
                    dropped[joint, i // block, bj, bk] += partial[i, bj, bk, joint]
    return starts, voxels, values, dropped

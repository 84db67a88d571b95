"""Pruning a dense likelihood on CPUs: one pass for the peaks, one to count and sum what is dropped, one to collect."""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def split(likelihood, cut, block):  # type: ignore[no-untyped-def]
    """Row starts (J + 1,), places and relative likelihoods of kept voxels, dropped mass by joint and block, peaks."""
    n, joints, blocks = likelihood.shape[0], likelihood.shape[3], cut.shape[1]
    kind = likelihood.dtype.type
    tiny = np.finfo(likelihood.dtype).tiny
    peak = _peaks(likelihood)
    least = np.empty((blocks, blocks, blocks, joints), likelihood.dtype)
    for joint in range(joints):
        for index in np.ndindex(blocks, blocks, blocks):
            least[index][joint] = max(kind(cut[joint][index] * peak[joint]), tiny)
    starts, dropped = _count(likelihood, least, block)
    for joint in range(joints):
        dropped[joint] /= peak[joint] if peak[joint] > 0 else 1.0
    places, values = np.empty(starts[-1], np.int32), np.empty(starts[-1])
    row = starts.copy()
    for i, j, k in np.ndindex(n, n, n):
        limit, voxel = least[i // block, j // block, k // block], likelihood[i, j, k]
        for joint in range(joints):
            if voxel[joint] >= limit[joint]:
                at = row[joint]
                places[at] = (i * n + j) * n + k
                values[at] = np.float64(voxel[joint]) / peak[joint]
                row[joint] = at + 1
    return starts, places, values, dropped, peak


@numba.njit(nogil=True, cache=True)
def _peaks(likelihood):  # type: ignore[no-untyped-def]
    """(J,) largest likelihood of each joint."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    top = np.zeros(joints, likelihood.dtype)
    for i, j, k in np.ndindex(n, n, n):
        voxel = likelihood[i, j, k]
        for joint in range(joints):
            top[joint] = max(top[joint], voxel[joint])
    return top.astype(np.float64)


@numba.njit(nogil=True, cache=True)
def _count(likelihood, least, block):  # type: ignore[no-untyped-def]
    """Row starts (J + 1,) and the likelihood that is lost by joint and block."""
    n, joints, blocks = likelihood.shape[0], likelihood.shape[3], len(least)
    starts, lost = np.zeros(joints + 1, np.int64), np.zeros((joints, blocks, blocks, blocks))
    for i, j, k in np.ndindex(n, n, n):
        a, b, c = i // block, j // block, k // block
        limit, voxel = least[a, b, c], likelihood[i, j, k]
        for joint in range(joints):
            if voxel[joint] >= limit[joint]:
                starts[joint + 1] += 1
            else:
                lost[joint, a, b, c] += np.float64(voxel[joint])
    return np.cumsum(starts), lost


@numba.njit(nogil=True, cache=True, error_model="numpy")
def by_joint(likelihood, out):  # type: ignore[no-untyped-def]
    """Fill `out` (J, n, n, n) with the likelihood over each joint's peak; returns the peaks (J,)."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    peak = _peaks(likelihood)
    for i in range(n):
        for j in range(n):
            row = likelihood[i, j]
            for joint in range(joints):
                line, top = out[joint, i, j], peak[joint] if peak[joint] > 0 else 1.0
                for k in range(n):
                    line[k] = row[k, joint] / top
    return peak

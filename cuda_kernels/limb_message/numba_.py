"""Limb messages for CPUs: all pairs of active voxels, or running sums along the columns of a dense grid."""

import math
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from cuda_kernels.limb_message.fft_ import flat_index
from cuda_kernels.shell import Shell

TILE = 128  # targets a thread works on at a time: their places and sums stay in its first-level cache


def pairs(belief, source, target, shell: Shell) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """The message at the target voxels, summed over all pairs; see the contract in the folder's `__init__`.

    Targets lie side by side in a vector and sources come one after the other, so each sum has one fixed order: results
    do not depend on how the compiler arranges the loop, nor on the number of threads.
    """
    belief = np.ascontiguousarray(belief, np.float64)
    s, t = np.ascontiguousarray(source, np.float32), np.ascontiguousarray(target.T, np.float32)
    if shell.interval:
        return np.asarray(_interval_pairs(belief, s, t, np.float32(shell.lowest), np.float32(shell.highest)))
    return np.asarray(_weighted_pairs(belief, s, t, shell.lowest, shell.weights))


@numba.njit(parallel=True, cache=True)
def _interval_pairs(belief, source, target, lowest, highest):  # type: ignore[no-untyped-def]
    count = target.shape[1]
    out = np.zeros(count)
    for tile in numba.prange((count + TILE - 1) // TILE):
        first, last = tile * TILE, min((tile + 1) * TILE, count)
        x, y, z, total = target[0, first:last], target[1, first:last], target[2, first:last], out[first:last]
        for i in range(belief.size):
            sx, sy, sz, weight = source[i, 0], source[i, 1], source[i, 2], belief[i]
            for k in range(total.size):
                dx, dy, dz = x[k] - sx, y[k] - sy, z[k] - sz
                squared = dx * dx + dy * dy + dz * dz
                total[k] += weight if (squared >= lowest) & (squared <= highest) else 0.0
    return out


@numba.njit(parallel=True, cache=True)
def _weighted_pairs(belief, source, target, lowest, weights):  # type: ignore[no-untyped-def]
    count = target.shape[1]
    out = np.zeros(count)
    for tile in numba.prange((count + TILE - 1) // TILE):
        first, last = tile * TILE, min((tile + 1) * TILE, count)
        x, y, z, total = target[0, first:last], target[1, first:last], target[2, first:last], out[first:last]
        for i in range(belief.size):
            sx, sy, sz, value = source[i, 0], source[i, 1], source[i, 2], belief[i]
            for k in range(total.size):
                dx, dy, dz = x[k] - sx, y[k] - sy, z[k] - sz
                index = np.int32(dx * dx + dy * dy + dz * dz) - lowest
                if 0 <= index < weights.size:
                    total[k] += value * weights[index]
    return out


def columns(belief, source, target, shell: Shell, n: int) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """The message at the target voxels by differences of running sums along z; see the contract in `__init__`.

    A shell is a set of columns (dx, dy), in each of which it fills one or two runs of z. The sum over a run is the
    difference of two entries of the running sum, so the cost does not depend on how thick the shell is.
    """
    reach = shell.reach
    running = np.zeros((n, n, n + 2 * reach + 1))
    dense = np.zeros(n**3)
    dense[flat_index(source, n)] = belief
    running[:, :, reach + 1 : reach + 1 + n] = np.cumsum(dense.reshape(n, n, n), axis=2)
    running[:, :, reach + 1 + n :] = running[:, :, reach + n : reach + n + 1]
    wanted = np.zeros((n, n), np.bool_)
    wanted[target[:, 0], target[:, 1]] = True
    message = _column_sums(running, _runs(shell.lowest, shell.highest), wanted, n)
    return np.maximum(message.ravel()[flat_index(target, n)], 0.0)


@lru_cache(maxsize=64)
def _runs(lowest: int, highest: int) -> NDArray[np.int64]:
    """(R, 4) runs of the shell: dx, dy, first dz, last dz."""
    reach = math.isqrt(highest)
    runs = []
    for dx in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            across = dx * dx + dy * dy
            if across > highest:
                continue
            outer = math.isqrt(highest - across)
            inner = 0 if across >= lowest else math.isqrt(lowest - across - 1) + 1
            if inner == 0:
                runs.append((dx, dy, -outer, outer))
            elif inner <= outer:
                runs += [(dx, dy, -outer, -inner), (dx, dy, inner, outer)]
    return np.array(runs, dtype=np.int64).reshape(-1, 4)


@numba.njit(parallel=True, cache=True)
def _column_sums(running, runs, wanted, n):  # type: ignore[no-untyped-def]
    reach = (running.shape[2] - n - 1) // 2
    out = np.zeros((n, n, n))
    for x in numba.prange(n):
        for y in range(n):
            if not wanted[x, y]:
                continue
            total = out[x, y]
            for r in range(len(runs)):
                sx, sy = x + runs[r, 0], y + runs[r, 1]
                if sx < 0 or sy < 0 or sx >= n or sy >= n:
                    continue
                column = running[sx, sy]
                upto = column[reach + runs[r, 3] + 1 : reach + runs[r, 3] + 1 + n]
                before = column[reach + runs[r, 2] : reach + runs[r, 2] + n]
                for z in range(n):
                    total[z] += upto[z] - before[z]
    return out

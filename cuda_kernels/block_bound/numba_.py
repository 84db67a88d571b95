"""Sums over blocks of voxels, and which blocks a limb can reach from which."""

from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from cuda_kernels.shell import Shell


@numba.njit(cache=True)
def belief_by_block(likelihood, voxels, message, added, kept_bound, dropped, block):  # type: ignore[no-untyped-def]
    """Per block (B, B, B): kept belief, what it can gain, and the most that dropped likelihood can weigh.

    likelihood (N,) and voxels (N, 3) of the kept voxels; message (K, N) from K neighbours; added (K, B, B, B) bounds on
    what each message lacks, kept_bound (K, B, B, B) on what it holds anywhere in a block; dropped (B, B, B).
    """
    blocks = dropped.shape[0]
    kept, gain = np.zeros(dropped.shape), np.zeros(dropped.shape)
    neighbours = len(message)
    for i in range(likelihood.size):
        a, b, c = voxels[i, 0] // block, voxels[i, 1] // block, voxels[i, 2] // block
        low = high = likelihood[i]
        for k in range(neighbours):
            low *= message[k, i]
            high *= message[k, i] + added[k, a, b, c]
        kept[a, b, c] += low
        gain[a, b, c] += high - low
    outside = dropped.copy()
    for k in range(neighbours):
        for a in range(blocks):
            for b in range(blocks):
                for c in range(blocks):
                    outside[a, b, c] *= kept_bound[k, a, b, c] + added[k, a, b, c]
    return kept, gain, outside


def reached_by_block(mass: NDArray[np.float64], shell: Shell, block: int) -> NDArray[np.float64]:
    """(M, B, B, B): for each block, the mass of all blocks that hold a voxel one limb away from one of its own."""
    return _reached(mass, _reach(shell.lowest, shell.highest, mass.shape[1], block))


@numba.njit(cache=True)
def _reached(mass, offsets):  # type: ignore[no-untyped-def]
    blocks = mass.shape[1]
    out = np.zeros(mass.shape)
    for m in range(mass.shape[0]):
        for r in range(len(offsets)):
            da, db, first, last = offsets[r, 0], offsets[r, 1], offsets[r, 2], offsets[r, 3]
            for a in range(max(0, -da), min(blocks, blocks - da)):
                for b in range(max(0, -db), min(blocks, blocks - db)):
                    source, target = mass[m, a + da, b + db], out[m, a, b]
                    for dc in range(first, last + 1):
                        for c in range(max(0, -dc), min(blocks, blocks - dc)):
                            target[c] += source[c + dc]
    return out


@lru_cache(maxsize=512)
def _reach(lowest: int, highest: int, blocks: int, block: int) -> NDArray[np.int64]:
    """(R, 4) block offsets that a limb can span: da, db, first dc, last dc; runs of dc may leave out a core."""
    offset = np.abs(np.arange(-blocks + 1, blocks))
    near, far = np.maximum((offset - 1) * block + 1, 0) ** 2, ((offset + 1) * block - 1) ** 2
    rows = []
    for i, da in enumerate(range(-blocks + 1, blocks)):
        for j, db in enumerate(range(-blocks + 1, blocks)):
            fits = (near[i] + near[j] + near <= highest) & (far[i] + far[j] + far >= lowest)
            edges = np.flatnonzero(np.diff(np.concatenate([[False], fits, [False]]).astype(np.int8)))
            rows += [(da, db, s - blocks + 1, e - blocks) for s, e in zip(edges[::2], edges[1::2], strict=True)]
    return np.array(rows, dtype=np.int64).reshape(-1, 4)

"""Joints that no map shows: their likelihood is 1 everywhere, and only limbs say where they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import BLOCK, ActiveVoxels


def with_latent(seen: ActiveVoxels, latent: Sequence[int], n: int, cut: NDArray[np.float64]) -> ActiveVoxels:
    """The voxels of all joints, from those of the joints that maps show: a latent joint keeps all that no cut forbids.

    Args:
        seen: voxels of the joints that are not latent, in their order. latent: indices of the others.
        n: voxels a side of the grid. cut: (J, B, B, B) for all joints; a block whose cut exceeds 1 is dropped whole.
    """
    block_of, rows = np.arange(n) // BLOCK, iter(range(len(seen.counts)))
    size = np.bincount(block_of)
    voxels = size[:, None, None] * size[:, None] * size
    place, value, dropped, peak = [], [], np.empty(cut.shape), np.ones(len(cut))
    for joint in range(len(cut)):
        if joint in latent:
            kept = cut[joint] <= 1.0
            here = np.flatnonzero(kept[np.ix_(block_of, block_of, block_of)]).astype(np.int32)
            dropped[joint] = np.where(kept, 0, voxels)
            place.append(here)
            value.append(np.ones(here.size))
        else:
            row = next(rows)
            dropped[joint], peak[joint] = seen.dropped[row], seen.peak[row]
            place.append(seen.place[seen.rows(row)])
            value.append(seen.value[seen.rows(row)])
    starts = np.concatenate([[0], np.cumsum([part.size for part in place])])
    return ActiveVoxels(starts, np.concatenate(place), np.concatenate(value), dropped, peak)

"""The definition of inference on many frames: one after the other, by the kernels for one."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda_kernels.active import blocks_a_side
from cuda_kernels.block_bound import weight_bound
from cuda_kernels.moments import moments
from cuda_kernels.sum_product import sum_product
from cuda_kernels.unproject import unproject_active


def infer_frames(score, cell_from_image, cameras, grids, floor, cut, tree, capacity) -> Any:  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """Whether all scores are sound, and the fields of `FramePoses`."""
    (centres, side, n), (frames, joints) = grids, (len(score), score.shape[4])
    sound = bool((score >= 0).all())
    mean, cov = np.full((frames, joints, 3), np.nan), np.full((frames, joints, 3, 3), np.nan)
    evidence, bound, kept = np.full(frames, -np.inf), np.full(frames, np.inf), np.zeros(frames)
    if not sound:
        return sound, mean, cov, evidence, bound, kept, bound < 0
    cuts = np.full((joints,) + (blocks_a_side(n),) * 3, cut)
    for frame in range(frames):
        grid = (centres[frame], side, n)
        active = unproject_active(score[frame], cell_from_image[frame], cameras, grid, floor, cuts)
        assert active is not None  # no number of voxels is too many
        kept[frame] = active.counts.mean()
        marginals = sum_product(tree, active, n) if active.counts.max() <= capacity else None
        if marginals is not None:
            mean[frame], cov[frame] = moments(marginals.marginal, active.place, active.starts, grid)
            bound[frame] = (active.dropped * weight_bound(tree, active, marginals, n)).sum()
            evidence[frame] = marginals.log_evidence + np.log(active.peak).sum()
    return sound, mean, cov, evidence, bound, kept, np.isfinite(bound)

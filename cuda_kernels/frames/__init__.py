"""Heat maps of many frames -> the marginals of every frame's pose, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.frames import reference_
from cuda_kernels.gpu import gpu_body
from cuda_kernels.tree import Tree
from cuda_kernels.unproject import CAMERA_NUMBERS

BODIES: dict[str, Callable[..., Any]] = {
    "reference": reference_.infer_frames,
    "cuda": gpu_body("cuda_kernels.frames.cuda_", "infer_frames"),
}
CAPACITY = 4096  # voxels that a joint of a frame may keep

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FramePoses:
    """Marginals of F frames.

    mean_m (F, J, 3) and cov_m2 (F, J, 3, 3), NaN where not found. log_evidence (F,), of likelihoods as they are, -inf
    where not found. bound (F,): no marginal's total-variation distance to the one without pruning is larger; inf where
    not found. active (F,): voxels that a joint keeps, on average. found (F,) bool: whether there is an answer. There is
    none where no pose has any weight on the voxels that are kept, or a joint keeps more than there is room for; both
    say nothing about all voxels.
    """

    mean_m: Floats
    cov_m2: Floats
    log_evidence: Floats
    bound: Floats
    active: Floats
    found: NDArray[np.bool_]


def infer_frames(  # noqa: PLR0913 - the arguments of `unproject` for many frames, the tree, and what to keep
    score: NDArray[np.float32],
    cell_from_image: Floats,
    cameras: Floats,
    grids: tuple[Floats, float, int],
    floor: float,
    cut: float,
    tree: Tree,
    backend: str,
    capacity: int = CAPACITY,
) -> FramePoses:
    """The poses of all frames, by exact inference over the voxels that reach the cut, and how far that can be off.

    Args:
        score: (F, V, h, w, J) float32 heat maps, non-negative, joints in the tree's order.
        cell_from_image: (F, V, 2, 3); cameras: (V, 37), the same in all frames; both as for `unproject`.
        grids: centres (F, 3) in metres, side in metres, voxels a side n.
        floor: as for `unproject`. cut: likelihood over the joint's peak below which a voxel is left out.
        capacity: voxels that a joint may keep, for which every frame needs memory: about 40 bytes each.
    Raises:
        ValueError: shapes that do not fit, a negative or missing score, floor or cut, an unknown backend.
    Source: as `unproject`, `sum_product`, `weight_bound` and `moments`, which this does one after the other.
    """
    centres, side, n = grids
    _check(score, cell_from_image, cameras, centres, tree)
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")
    if not (floor >= 0 and cut >= 0 and n > 0 and capacity > 0):
        raise ValueError(
            f"floor {floor} and cut {cut} must be non-negative, {n} voxels and room for {capacity} positive"
        )
    maps = np.ascontiguousarray(score, np.float32)
    cells, packed = np.ascontiguousarray(cell_from_image, np.float64), np.ascontiguousarray(cameras, np.float64)
    where = np.ascontiguousarray(centres, np.float64), float(side), int(n)
    sound, *found = BODIES[backend](maps, cells, packed, where, float(floor), float(cut), tree, int(capacity))
    if not sound:
        raise ValueError("scores must be non-negative numbers")
    return FramePoses(*found)


def _check(score: NDArray[Any], cell_from_image: Floats, cameras: Floats, centres: Floats, tree: Tree) -> None:
    frames, views, joints = score.shape[0], score.shape[1], score.shape[-1]
    if score.ndim != 5 or cell_from_image.shape != (frames, views, 2, 3) or cameras.shape != (views, CAMERA_NUMBERS):
        raise ValueError(f"score {score.shape}, cells {cell_from_image.shape} and cameras {cameras.shape} do not fit")
    if centres.shape != (frames, 3) or len(tree.parents) != joints:
        raise ValueError(
            f"{frames} frames of {joints} joints, centres {centres.shape}, tree of {len(tree.parents)} do not fit"
        )

"""3D pictorial structures: heat maps of all views, one shared voxel grid, exact inference on the skeleton's tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from cuda_kernels.active import ActiveVoxels, blocks_a_side, split_by_likelihood
from cuda_kernels.block_bound import weight_bound
from cuda_kernels.limb_message import pair_seconds, transform_seconds
from cuda_kernels.memory import Memory, of_this_thread
from cuda_kernels.moments import moments
from cuda_kernels.shell import Shell, gaussian_shell, interval_shell
from cuda_kernels.sum_product import Marginals, sum_product
from cuda_kernels.tree import Tree
from cuda_kernels.unproject import unproject, unproject_active
from harvest.reconstruct.latent import with_latent
from harvest.reconstruct.limb_lengths import LimbLengths
from harvest.skeleton import Skeleton

Floats = NDArray[np.float64]
Prune = Callable[[Floats, int], ActiveVoxels | None]
DEMO_EPSILON = 1e-10
FIRST_CUT = 3e-4  # of the tolerance: likelihood over peak below which a voxel is left out at first
COARSE_CUT = 1e-3  # the same where that keeps too many voxels; later rounds go down from there by certificate
AIM = 0.3  # share of the tolerance that the next round aims at, by the last certificate
DENSE_SHARE = 0.7  # of the cost of all voxels: from there on leaving some out does not pay
IN_REACH = 0.4  # share of the pairs of voxels that a sum over pairs does not pass over, where they are many
ROUND_SECONDS = 2e-8  # a voxel: predicted cost of a round without its messages


@dataclass(frozen=True)
class PictorialSettings:
    """How inference is done.

    voxels: a side of the grid. sharpness: power of a heat map that is a likelihood (1 in the paper; more for a detector
    whose blobs are wider than its errors). floor: likelihood that a view gives a place its map does not show.
    limb_tolerance_vox: half-width of the limb-length interval, voxels (the paper's epsilon). prior: interval, or
    gaussian with that half-width as standard deviation. tolerance: largest total-variation error of any marginal that
    pruning may cause; 0 prunes nothing. published_demo: the arithmetic of the paper's public demo (see SumProduct), on
    all voxels; its answers are not marginals, it is for comparison only.
    """

    voxels: int = 64
    sharpness: float = 1.0
    floor: float = 1e-4
    limb_tolerance_vox: float = 1.0
    prior: str = "interval"
    tolerance: float = 1e-3
    backend: str = "numba"
    published_demo: bool = False


@dataclass
class FramePose:
    """Marginals of one frame: mean_m (J, 3), cov_m2 (J, 3, 3); found False where no pose fits, then the rest is NaN.

    log_evidence compares hypotheses about one frame; error_bound is the certified total-variation error; active, the
    mean number of voxels a joint kept; backend, the kernels' body that answered.
    """

    mean_m: Floats
    cov_m2: Floats
    found: bool
    log_evidence: float = -np.inf
    error_bound: float = 0.0
    active: float = 0.0
    backend: str = "numba"


@dataclass(frozen=True)
class Inference:
    """The voxels that took part, what they tell each other, and the certified total-variation error of any marginal."""

    active: ActiveVoxels
    marginals: Marginals
    bound: float


class PictorialModel:
    """A person's skeleton with limb lengths, ready for inference on grids of one voxel size."""

    def __init__(self, skeleton: Skeleton, lengths: LimbLengths, settings: PictorialSettings) -> None:
        """Take the skeleton, the lengths and the settings as they are."""
        self.skeleton, self.lengths, self.settings = skeleton, lengths, settings
        self._trees: dict[float, Tree] = {}

    def tree(self, step_m: float) -> Tree:
        """The limbs as shells on a grid whose voxels are `step_m` metres wide."""
        if step_m not in self._trees:
            self._trees[step_m] = self._make_tree(step_m)
        return self._trees[step_m]

    def _make_tree(self, step_m: float) -> Tree:
        shells: list[Shell | None] = [None] * len(self.skeleton.joints)
        for joint, parent in enumerate(self.skeleton.parents):
            if parent >= 0:
                half_width = max(self.settings.limb_tolerance_vox, float(self.lengths.slack_m[joint]) / step_m)
                length = float(self.lengths.length_m[joint]) / step_m
                shells[joint] = _shell(self.settings.prior, round(length, 6), round(half_width, 6))
        return Tree(self.skeleton.parents, self.skeleton.order, shells)

    def not_found(self) -> FramePose:
        """A frame without a pose."""
        joints = len(self.skeleton.joints)
        return FramePose(np.full((joints, 3), np.nan), np.full((joints, 3, 3), np.nan), False)

    def infer(
        self, rig: Rig, score: NDArray[np.float32], image_from_heatmap: Floats, centre_m: Floats, side_m: float
    ) -> FramePose:
        """The pose in one frame, from the heat maps of the views at hand.

        Args:
            rig: the cameras of those views, in the order of `score`.
            score: (V, h, w, J) float32 >= 0, joints in the skeleton's order; latent joints all zero.
            image_from_heatmap: (V, 2, 3). centre_m, side_m: the box in which the person is.
        Source: Pavlakos et al. 2017, eq. 1-4; the estimate is the mean of each marginal.
        """
        grid = (centre_m, side_m, self.settings.voxels)
        found = self.inference(rig, score, image_from_heatmap, grid, of_this_thread())
        if found is None:
            return self.not_found()
        active, marginals = found.active, found.marginals
        mean, cov = moments(marginals.marginal, active.place, active.starts, grid, self.settings.backend)
        evidence = marginals.log_evidence + float(np.log(active.peak).sum())
        return FramePose(mean, cov, True, evidence, found.bound, float(active.counts.mean()), self.settings.backend)

    def inference(
        self,
        rig: Rig,
        score: NDArray[np.float32],
        image_from_heatmap: Floats,
        grid: tuple[Floats, float, int],
        memory: Memory | None = None,
    ) -> Inference | None:
        """Voxels, messages and marginals of one frame on a grid (centre in metres, side in metres, voxels a side).

        The rest as for `infer`; None where no pose has any weight. Results lie in `memory`, new memory if None.
        """
        memory = memory or Memory()
        settings = self.settings
        cameras = np.stack([camera.packed for camera in rig.cameras])
        cells = np.stack([invert_affine(affine) for affine in image_from_heatmap])
        if settings.sharpness != 1.0:
            score = score ** np.float32(settings.sharpness)
        tree = self.tree(grid[1] / grid[2])
        latent = [self.skeleton.index(name) for name in self.skeleton.latent]
        shown = [joint for joint in range(score.shape[3]) if joint not in latent]

        def published_demo(cut: Floats, most: int) -> ActiveVoxels | None:
            likelihood = unproject(score, cells, cameras, grid, settings.floor, settings.backend) + DEMO_EPSILON
            likelihood[..., latent] = 1.0
            return split_by_likelihood(likelihood, cut)

        def prune(cut: Floats, most: int) -> ActiveVoxels | None:
            views = score[..., shown] if latent else score, cells, cameras, grid, settings.floor
            found = unproject_active(*views, cut[shown], settings.backend, memory, most)
            return with_latent(found, latent, grid[2], cut) if latent and found is not None else found

        return infer_marginals(tree, published_demo if settings.published_demo else prune, settings, memory)


def infer_marginals(
    tree: Tree, prune: Prune, settings: PictorialSettings, memory: Memory | None = None
) -> Inference | None:
    """Messages and marginals over the voxels that matter, and the certified bound on what the others would change.

    Voxels are pruned by their likelihood at first. Where the certificate exceeds the tolerance, the next round cuts by
    what a voxel can weigh: its likelihood times the certificate's bound for its block. Where that does not pay, all
    voxels take part. None where no pose has any weight on the grid.

    Args:
        prune: gives the voxels above a cut (J, B, B, B) on a grid of settings.voxels a side, or None if they are more
            than so many.
        memory: where results are written, so that they last until it is used again; new memory if None.
    """
    n, joints, memory = settings.voxels, len(tree.parents), memory or Memory()
    shape = (joints,) + (blocks_a_side(n),) * 3
    if settings.tolerance > 0 and not settings.published_demo:
        for first in (FIRST_CUT * settings.tolerance, COARSE_CUT):
            found = _within_tolerance(tree, prune, np.full(shape, first), settings, memory)
            if found is not None:
                return found
    active = prune(np.zeros(shape), joints * n**3)
    if active is None:
        return None
    marginals = sum_product(tree, active, n, settings.backend, settings.published_demo, memory)
    return None if marginals is None else Inference(active, marginals, 0.0)


def _within_tolerance(
    tree: Tree, prune: Prune, cut: Floats, settings: PictorialSettings, memory: Memory
) -> Inference | None:
    """What the voxels above a cut give, or above lower and lower ones; None if that fails or does not pay."""
    n, least, spent = settings.voxels, float(cut.flat[0]), 0.0
    enough = DENSE_SHARE * _dense_seconds(tree, n)
    per_pair = sum(2 * IN_REACH * pair_seconds(1, 1, shell.interval) for _, _, shell in tree.limbs)
    most = int(len(tree.parents) * np.sqrt(enough / per_pair))
    while True:
        active = prune(cut, most)
        spent += enough if active is None else ROUND_SECONDS * n**3 + _seconds(tree, active, n)
        if active is None or spent > enough:
            return None
        marginals = sum_product(tree, active, n, settings.backend, memory=memory)
        if marginals is None:
            return None
        weight = weight_bound(tree, active, marginals, n)
        bound = float((active.dropped * weight).sum())
        if bound <= settings.tolerance:
            return Inference(active, marginals, bound)
        least *= float(np.clip(AIM * settings.tolerance / bound, 1e-4, 0.1))
        with np.errstate(divide="ignore", over="ignore"):
            cut = least / weight  # infinite for a block that can weigh nothing


def _seconds(tree: Tree, active: ActiveVoxels, n: int) -> float:
    """Predicted cost of all messages over these voxels."""
    kept = active.counts
    return sum(
        2 * min(IN_REACH * pair_seconds(kept[a], kept[b], shell.interval), transform_seconds(n, shell.highest))
        for a, b, shell in tree.limbs
    )


def _dense_seconds(tree: Tree, n: int) -> float:
    """Predicted cost of all messages over the whole grid."""
    return sum(2 * transform_seconds(n, shell.highest) for _, _, shell in tree.limbs)


@lru_cache(maxsize=512)
def _shell(prior: str, length_vox: float, half_width_vox: float) -> Shell:
    return (interval_shell if prior == "interval" else gaussian_shell)(length_vox, half_width_vox)


def invert_affine(affine: Floats) -> Floats:
    """The inverse of a (2, 3) affine."""
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]])

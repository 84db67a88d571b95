"""3D pictorial structures: heat maps of all views, one shared voxel grid, exact inference on the skeleton's tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from cuda_kernels.active import blocks_a_side, peaks, split_by_likelihood
from cuda_kernels.limb_message import predicted_seconds
from cuda_kernels.moments import moments
from cuda_kernels.shell import Shell, gaussian_shell, interval_shell
from cuda_kernels.unproject import unproject
from harvest.reconstruct.certificate import missed_by_block
from harvest.reconstruct.limb_lengths import LimbLengths
from harvest.reconstruct.sum_product import SumProduct, Tree
from harvest.skeleton import Skeleton

Floats = NDArray[np.float64]
DEMO_EPSILON = 1e-10
FIRST_CUT = 1e-6  # likelihood over peak below which a voxel is left out at first
OPEN_DOWN_TO = 0.3  # share of the tolerance that may be left after opening blocks, by the last certificate
DENSE_SHARE = 0.7  # of the cost of all voxels: from there on leaving some out does not pay


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
    mean number of voxels a joint kept.
    """

    mean_m: Floats
    cov_m2: Floats
    found: bool
    log_evidence: float = -np.inf
    error_bound: float = 0.0
    active: float = 0.0
    marginals: list[tuple[NDArray[np.int16], Floats]] = field(default_factory=list)


class PictorialModel:
    """A person's skeleton with limb lengths, ready for inference on grids of one voxel size."""

    def __init__(self, skeleton: Skeleton, lengths: LimbLengths, settings: PictorialSettings) -> None:
        """Take the skeleton, the lengths and the settings as they are."""
        self.skeleton, self.lengths, self.settings = skeleton, lengths, settings
        self._likelihood: NDArray[np.floating] | None = None  # memory that one frame hands to the next

    def tree(self, step_m: float) -> Tree:
        """The limbs as shells on a grid whose voxels are `step_m` metres wide."""
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
        settings = self.settings
        grid = (centre_m, side_m, settings.voxels)
        cameras = np.stack([camera.packed() for camera in rig.cameras])
        cells = np.stack([invert_affine(affine) for affine in image_from_heatmap])
        if settings.sharpness != 1.0:
            score = score ** np.float32(settings.sharpness)
        likelihood = unproject(score, cells, cameras, grid, settings.floor, settings.backend, self._likelihood)
        self._likelihood = likelihood
        if settings.published_demo:
            likelihood += DEMO_EPSILON
        for name in self.skeleton.latent:
            likelihood[..., self.skeleton.index(name)] = 1.0
        run, bound = infer_marginals(self.tree(side_m / settings.voxels), likelihood, settings)
        joints = len(self.skeleton.joints)
        if run is None:
            return self.not_found()
        mean, cov = np.empty((joints, 3)), np.empty((joints, 3, 3))
        for joint in range(joints):
            mean[joint], cov[joint] = moments(run.marginal[joint], run.active.voxels[joint], grid, settings.backend)
        evidence = run.log_evidence + float(np.log(run.active.peak).sum())
        active = float(np.mean([len(voxels) for voxels in run.active.voxels]))
        marginals = list(zip(run.active.voxels, run.marginal, strict=True))
        return FramePose(mean, cov, True, evidence, bound, active, marginals)


def infer_marginals(
    tree: Tree, likelihood: NDArray[np.floating], settings: PictorialSettings
) -> tuple[SumProduct | None, float]:
    """Messages and marginals over the voxels that matter, and the certified bound on what the others would change.

    Voxels are pruned by their likelihood at first. Where the certificate exceeds the tolerance, the blocks that may
    hold most of what was missed are opened: all their voxels count. None where no pose has any weight on the grid.
    """
    n, joints = likelihood.shape[0], likelihood.shape[3]
    exact = settings.tolerance == 0 or settings.published_demo
    peak = peaks(likelihood)
    if not (peak > 0).all():
        return None, 0.0
    blocks = blocks_a_side(n)
    cut = np.full((joints, blocks, blocks, blocks), 0.0 if exact else FIRST_CUT)
    while True:
        active = split_by_likelihood(likelihood, peak, cut, settings.backend)
        run = SumProduct(tree, active, n, settings.backend, settings.published_demo)
        if cut.any() and run.predicted_seconds() > DENSE_SHARE * _dense_seconds(tree, n):
            cut[:] = 0.0
            continue
        found = run.run()
        if not cut.any():
            return (run if found else None), 0.0
        if found:
            missed = missed_by_block(run)
            bound = float(missed.sum())
            if bound <= settings.tolerance:
                return run, bound
            cut[_largest_until(missed, bound - OPEN_DOWN_TO * settings.tolerance)] = 0.0
        else:
            cut[:] = 0.0


def _dense_seconds(tree: Tree, n: int) -> float:
    """Predicted cost of all messages over the whole grid."""
    return sum(2 * min(predicted_seconds(n**3, n**3, shell, n).values()) for shell in tree.shells if shell is not None)


def _largest_until(missed: Floats, enough: float) -> NDArray[np.bool_]:
    """Which entries, the largest first, add up to `enough`."""
    flat = missed.ravel()
    order = np.argsort(-flat)
    taken = order[: int(np.searchsorted(np.cumsum(flat[order]), enough)) + 1]
    mask = np.zeros(flat.size, np.bool_)
    mask[taken] = True
    return mask.reshape(missed.shape)


@lru_cache(maxsize=512)
def _shell(prior: str, length_vox: float, half_width_vox: float) -> Shell:
    return (interval_shell if prior == "interval" else gaussian_shell)(length_vox, half_width_vox)


def invert_affine(affine: Floats) -> Floats:
    """The inverse of a (2, 3) affine."""
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]])

"""Learning to lift from which of two joints is nearer (Ronchi et al. 2018, "It is all relative")."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harvest.errors import UserError
from harvest.learn.geometry import lengths, norms, orthographic, perspective
from harvest.learn.lifting import ROOT, LifterSettings, LifterTraining, PoseSets, seen_by, typical_limbs
from harvest.learn.pairs import PairLabels, draw_pairs, true_labels
from harvest.learn.peers import Peers
from harvest.monocular.lift import Limbs
from harvest.monocular.lifter import SPREAD, Lifter, LifterShape
from harvest.skeleton import Skeleton, load_skeleton

UNIT = ("r_knee", "r_hip")  # the limb that others are compared with: the same length in every skeleton
USUAL_M = 5.0  # how far away a person is where a network with perspective begins to look


@dataclass(frozen=True)
class Pairs:
    """Labels of A pairs of joints: row (A,) of the pose in its batch; one, other (A,) places among the joints; r (A,):
    -1 if `one` is nearer to the camera, +1 if `other` is, 0 if they are about as far; weight (A,) of each.
    """

    row: Tensor
    one: Tensor
    other: Tensor
    r: Tensor
    weight: Tensor


@dataclass(frozen=True)
class RelativeWeights:
    """Of eq. 7 (alpha, beta, gamma) and of eq. 2 (steep, lambda there).

    The paper has beta 0.1 and gamma 1, and half a million steps; in a hundredth of them that finds one pose of the
    right proportions for all pictures. Without perspective, where near limbs look long, a gamma of 0.5 does better.
    """

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 2.0
    steep: float = 2.5


@dataclass(frozen=True)
class Proportions:
    """A skeleton's limbs: ends (L, 2) as places among the joints, and each one's length over that of the limb number
    `unit`, (L,).
    """

    ends: Tensor
    ratio: Tensor
    unit: int


def supervised_loss(poses: Tensor, truth: Tensor) -> Tensor:
    """Eq. 1: mean over the batch of the norm of the difference between poses and truth (B, J, 3), NaN where unknown."""
    known = torch.isfinite(truth)
    off = torch.where(known, poses - torch.where(known, truth, 0.0), 0.0)
    return norms(off.flatten(1)).mean()


def relative_loss(poses: Tensor, pairs: Pairs, steep: float = 2.5) -> Tensor:
    """Eq. 2, over a batch of poses (B, J, 3): mean over all pairs of log(1 + exp(-r d)), or |d| for r = 0.

    The paper has the sum over each pose's pairs, the same for one pair a pose; of many, a sum would drown the other
    terms. d = steep (z_one - z_other) over the mean absolute difference of all pairs of the batch; z grows away from
    the camera.
    """
    z = poses[..., 2]
    apart = z[pairs.row, pairs.one] - z[pairs.row, pairs.other]
    d = steep * apart / apart.abs().mean().clamp_min(1e-8)
    each = torch.where(pairs.r == 0, d.abs(), functional.softplus(-pairs.r * d))
    return (pairs.weight * each).sum() / max(len(each), 1)


def root_loss(poses: Tensor, root: int) -> Tensor:
    """Eq. 3: mean over the batch of the root's distance from the origin."""
    return norms(poses[:, root]).mean()


def projection_loss(projected: Tensor, seen: Tensor) -> Tensor:
    """Eq. 4 and 5: mean over the batch of the summed distances between projections and where joints are seen (B, J, 2),
    NaN where they are not.
    """
    known = torch.isfinite(seen).all(-1)
    off = torch.where(known[..., None], projected - torch.where(known[..., None], seen, 0.0), 0.0)
    return norms(off).sum(1).mean()


def skeleton_loss(poses: Tensor, proportions: Proportions) -> Tensor:
    """Eq. 6 on ratios: mean over the batch of the summed |length / length of the unit limb - ratio|."""
    found = lengths(poses, proportions.ends)
    unit = found[:, proportions.unit : proportions.unit + 1].clamp_min(1e-6)
    return (found / unit - proportions.ratio).abs().sum(1).mean()


@dataclass(frozen=True)
class RelativeHow:
    """root: its place among the joints. perspective: the projection is eq. 5's instead of eq. 4's. unit: what
    projections are divided by before they are compared. bones_share: of gamma. depth: of the root in eq. 5, of
    everybody; None: the scale that is learnt. No other term asks for a size, so that poses and such a scale grow
    together until it can no more; only a network that knows sizes already needs it.
    """

    root: int
    perspective: bool = False
    unit: float = 1.0
    bones_share: float = 1.0
    depth: float | None = None
    weights: RelativeWeights = RelativeWeights()


def relative_total(
    poses: Tensor,
    scale: Tensor,
    seen: Tensor,
    pairs: Pairs,
    proportions: Proportions | None,
    how: RelativeHow,
    at: Tensor | None = None,
) -> Tensor:
    """Eq. 7. `proportions` None leaves out eq. 6; eq. 5 is that of a root that is seen at (B, 1, 2), at depth 1."""
    w = how.weights
    depth = scale if how.depth is None else torch.full_like(scale, how.depth)
    projected = perspective(poses, depth, at) if how.perspective else orthographic(poses, scale)
    total = root_loss(poses, how.root) + w.alpha * relative_loss(poses, pairs, w.steep)
    total = total + w.beta * projection_loss(projected / how.unit, seen)
    return total if proportions is None else total + how.bones_share * w.gamma * skeleton_loss(poses, proportions)


@dataclass(frozen=True, kw_only=True)
class RelativeSettings(LifterSettings):
    """How a lifter learns from which of two joints is nearer.

    supervised: it learns from 3D instead (eq. 1), the bound. pairs: labels a picture, 0 for all. tolerance_m: pairs
    less apart than that are told to be as far. flipped: share of labels that are wrong. perspective: joints are
    projected by eq. 5, else by eq. 4, which needs no focal length, does worse, and takes gamma 0.5. bones: 'measured'
    mean proportions of the set, 'typical' ones of the skeleton's file, or 'none'.

    The weight of bones grows from 0 to its full size, but of what begins with weights that know better: at first they
    would be made long enough by depths of any sign, which order then could not mend.
    """

    supervised: bool = False
    pairs: int = 1
    tolerance_m: float = 0.0
    flipped: float = 0.0
    perspective: bool = True
    bones: str = "measured"
    weights: RelativeWeights = field(default_factory=RelativeWeights)


class RelativeTraining(LifterTraining[Lifter]):
    """`--recipe relative`."""

    settings: RelativeSettings

    def __init__(
        self,
        sets: PoseSets,
        out: Path,
        settings: RelativeSettings,
        labels: PairLabels | None = None,
        start: Lifter | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Take labels of pairs, of rows of the set that `prepared` makes; or else draw pairs, and let depths say.

        Raises:
            UserError: as `LifterTraining`; nothing to learn from; bones of an unknown kind.
        """
        torch.manual_seed(settings.seed)
        network = Lifter(shape_of(settings, start), settings.dropout)
        if start is not None:
            network.load_state_dict(start.state_dict())
        super().__init__(sets, out, settings, network, peers)
        truth = self.learn.xyz_m - self.learn.xyz_m[:, self.root : self.root + 1]
        self._truth, self._sure = self.tensor(truth), self.tensor(self.learn.confidence)
        unit = SPREAD if settings.perspective else 1.0
        self._started = start is not None
        depth = None if self._started else network.shape.unit / SPREAD
        self._how = RelativeHow(self.root, settings.perspective, unit, weights=settings.weights, depth=depth)
        self._xy = self.tensor(seen_by(network, self.learn))
        bones = proportions(self.limbs, self.skeleton, settings.bones)
        self._bones = replace(bones, ratio=bones.ratio.to(self.device)) if bones else None
        if not settings.supervised:
            self._labels_by_row(self._labels() if labels is None else labels)

    def _labels(self) -> PairLabels:
        s, known = self.settings, np.asarray(np.isfinite(self.learn.xyz_m).all(-1))
        if not (known.sum(axis=1) > 1).any():
            raise UserError("no pose is known in 3D, from which pairs of joints could be told; give --votes")
        pairs = draw_pairs(known, s.pairs or None, np.random.default_rng([s.seed, 17]))
        return true_labels(self.learn.xyz_m[..., 2], pairs, s.tolerance_m, s.flipped, s.seed)

    def _labels_by_row(self, labels: PairLabels) -> None:
        """Keep labels so that those of a row are found fast."""
        order = np.argsort(labels.row, kind="stable")
        kept = [getattr(labels, key)[order] for key in ("one", "other", "r", "weight")]
        self._pairs = [self.tensor(values) for values in kept]
        self._first = np.searchsorted(labels.row[order], np.arange(len(self.learn) + 1))

    def pairs_of(self, rows: NDArray[np.int64]) -> Pairs:
        """The labels of a batch."""
        counts = self._first[rows + 1] - self._first[rows]
        start = np.repeat(self._first[rows] - (np.cumsum(counts) - counts), counts)
        which = self.tensor(start + np.arange(counts.sum()))
        row = self.tensor(np.repeat(np.arange(len(rows)), counts))
        return Pairs(row, *(values[which] for values in self._pairs))

    def loss(self, batch: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Eq. 7, or eq. 1 if it is supervised."""
        rows = self.tensor(batch)
        seen, at = self.network.looked_at(self._xy[rows], self._sure[rows])
        poses, scale = self.network.lift(seen, at)
        if self.settings.supervised:
            loss = supervised_loss(poses, self._truth[rows])
        else:
            how = self._how if self._started else replace(self._how, bones_share=self.step / self.settings.steps)
            given = self._shown(rows), self.pairs_of(batch), self._bones
            loss = relative_total(poses, scale, *given, how, SPREAD * at)
        return loss, loss

    def _shown(self, rows: Tensor) -> Tensor:
        """(B, J, 2) where joints are seen about the root, in units of SPREAD; NaN where unknown."""
        xy = self._xy[rows]
        return (xy - xy[:, self.root : self.root + 1]) / SPREAD

    def lifter_of(self, network: Lifter) -> Lifter:
        """All of it."""
        return network


def shape_of(settings: RelativeSettings, start: Lifter | None) -> LifterShape:
    """The shape of a lifter to train: that of `start`, if it is given, else as settings say.

    Raises:
        UserError: `start` has other joints.
    """
    joints = load_skeleton(settings.skeleton).joints
    metric = settings.supervised or settings.perspective
    if start is None:
        shape = LifterShape(joints, ROOT, settings.width, settings.blocks, centred=not settings.supervised)
        shape = replace(shape, unit=USUAL_M * SPREAD if metric else 1.0, on_ray=metric)
    elif start.shape.joints == joints:
        shape = start.shape
    else:
        raise UserError(f"the weights to begin with have other joints than skeleton '{settings.skeleton}'")
    # With half its reach, which a fresh network tells, what is projected is where it is seen.
    reach = 2 * shape.unit / SPREAD if settings.perspective else 2 / shape.unit
    return replace(shape, reach=reach, metric=settings.supervised)


def proportions(limbs: Limbs, skeleton: Skeleton, kind: str) -> Proportions | None:
    """Reference limbs of eq. 6: 'measured' ones as given, 'typical' ones of a skeleton, or 'none'.

    Raises:
        UserError: another word.
    """
    if kind == "none":
        return None
    if kind not in ("measured", "typical"):
        raise UserError(f"bones are measured, typical or none, got '{kind}'")
    if kind == "typical":
        limbs = typical_limbs(skeleton)
    names = [tuple(skeleton.joints[end] for end in pair) for pair in limbs.ends]
    unit = names.index(UNIT)
    ratio = torch.from_numpy((limbs.length_m / limbs.length_m[unit]).astype(np.float32))
    return Proportions(torch.from_numpy(limbs.ends), ratio, unit)

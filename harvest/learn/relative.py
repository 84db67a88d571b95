"""Learning to lift from which of two joints is nearer (Ronchi et al. 2018, "It is all relative")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harvest.errors import UserError
from harvest.learn.geometry import lengths, norms, orthographic, perspective
from harvest.learn.lifting import ROOT, LifterSettings, LifterTraining, PoseSets, prepared, seen_by, typical_limbs
from harvest.learn.pairs import NO_LABELS, PairLabels, draw_pairs, true_labels
from harvest.learn.peers import Peers
from harvest.learn.pose_sets import PoseSet, join
from harvest.monocular.lift import Limbs
from harvest.monocular.lifter import SPREAD, Lifter, LifterShape
from harvest.skeleton import Skeleton, load_skeleton

UNIT = ("r_knee", "r_hip")  # the limb that others are compared with: the same length in every skeleton
NEAREST_M = 0.5  # that anybody is to the camera
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
    """Of eq. 7 (alpha, beta, gamma), of eq. 2 (steep, lambda there), and of eq. 1 beside eq. 7 (space).

    The paper has beta 0.1 and gamma 1, and half a million steps; in a hundredth of them that finds one pose of the
    right proportions for all pictures. Without perspective, where near limbs look long, a gamma of 0.5 does better.
    """

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 2.0
    steep: float = 2.5
    space: float = 10.0


@dataclass(frozen=True)
class Proportions:
    """A skeleton's limbs: ends (L, 2) as places among the joints, and each one's length over that of the limb number
    `unit`, (L,), whose own is unit_m.
    """

    ends: Tensor
    ratio: Tensor
    unit: int
    unit_m: float

    def to(self, device: torch.device) -> Proportions:
        """On a device."""
        return replace(self, ends=self.ends.to(device), ratio=self.ratio.to(device))


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


def skeleton_loss(poses: Tensor, proportions: Proportions, metric: bool = False) -> Tensor:
    """Eq. 6 on ratios: mean over the batch of the summed |length / length of the unit limb - ratio|; of poses in metres
    (`metric`) the unit limb is as long as it should be, so that sizes are compared too.
    """
    found = lengths(poses, proportions.ends)
    unit = found[:, proportions.unit : proportions.unit + 1].clamp_min(1e-6)
    unit = torch.full_like(unit, proportions.unit_m) if metric else unit
    return (found / unit - proportions.ratio).abs().sum(1).mean()


def fitted_depth(poses: Tensor, at: Tensor, seen: Tensor) -> Tensor:
    """(B,) the root's depth in metres with which poses (B, J, 3) come nearest to what is seen: their root at (B, 1, 2),
    joints about it at (B, J, 2), NaN where unknown. It is the least squares of eq. 5 times each joint's depth.
    """
    known = torch.isfinite(seen).all(-1, keepdim=True)
    about = torch.where(known, torch.nan_to_num(seen), 0.0)
    off = torch.where(known, poses[..., :2] - (about + at) * poses[..., 2:], 0.0)
    depth = (about * off).sum((1, 2)) / about.square().sum((1, 2)).clamp_min(1e-6)
    return depth.clamp_min(NEAREST_M)


@dataclass(frozen=True)
class RelativeHow:
    """root: its place among the joints. perspective: the projection is eq. 5's instead of eq. 4's. unit: what
    projections are divided by before they are compared. bones_share: of gamma. metric: poses are in metres; limbs have
    sizes then, and the root's depth in eq. 5 is the one that fits each pose best. Otherwise nothing tells a size: limbs
    have proportions, and everybody's root is as deep as `depth`. (One that is learnt would grow with the poses until it
    can no more.)
    """

    root: int
    perspective: bool = False
    unit: float = 1.0
    bones_share: float = 1.0
    metric: bool = False
    depth: float = USUAL_M
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
    """Eq. 7. `proportions` None leaves out eq. 6; scale (B,) is eq. 4's; eq. 5 is that of a root that is seen at
    (B, 1, 2), at depth 1, by default straight ahead.
    """
    w = how.weights
    if how.perspective:
        at = torch.zeros_like(poses[:, :1, :2]) if at is None else at
        fixed = torch.full_like(scale, how.depth)
        projected = perspective(poses, fitted_depth(poses, at, how.unit * seen) if how.metric else fixed, at)
    else:
        projected = orthographic(poses, scale)
    total = root_loss(poses, how.root) + w.alpha * relative_loss(poses, pairs, w.steep)
    total = total + w.beta * projection_loss(projected / how.unit, seen)
    if proportions is None:
        return total
    return total + how.bones_share * w.gamma * skeleton_loss(poses, proportions, how.metric)


@dataclass(frozen=True, kw_only=True)
class RelativeSettings(LifterSettings):
    """How a lifter learns from which of two joints is nearer.

    supervised: it learns from 3D instead (eq. 1), the bound. pairs: labels a picture, 0 for all. tolerance_m: pairs
    less apart than that are told to be as far. flipped: share of labels that are wrong. These three are of labels that
    depths tell, not of votes. perspective: joints are projected by eq. 5, else by eq. 4, which needs no focal length,
    does worse, and takes gamma 0.5. bones: 'measured' mean proportions of the set, 'typical' ones of the skeleton's
    file, or 'none'.

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
        start: tuple[Lifter, Limbs] | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Take labels of pairs, of rows of the set that `prepared` makes; or else draw pairs, and let depths say.

        Labels are of `sets.more` if there is such a set, of which nothing but 2D is looked at; `sets.learn` is then
        learnt from in 3D at the same time. `start` is what `load_lifter` gives; its limbs are those of sets that tell
        none.
        Raises:
            UserError: as `LifterTraining`; nothing to learn from; bones of an unknown kind.
        """
        torch.manual_seed(settings.seed)
        in_space = settings.supervised or sets.more is not None
        network = Lifter(shape_of(settings, start[0] if start else None, in_space), settings.dropout)
        if start is not None:
            network.load_state_dict(start[0].state_dict())
        super().__init__(sets, out, settings, network, peers, start[1] if start else None)
        poses = self.learn
        if sets.more is not None:
            poses = join([poses, prepared(sets.more, settings.skeleton)])
        self._known = len(self.learn) if in_space else 0
        self._ordered = len(poses) - self._known
        self._sure, self._xy = self.tensor(poses.confidence), self.tensor(seen_by(network, poses))
        self._truth = self.tensor(poses.xyz_m - poses.xyz_m[:, self.root : self.root + 1])
        if self._known and not self._truth[: self._known].isfinite().any():
            raise UserError("no pose to learn from is known in 3D; give others as --data, or leave --more away")
        self._started, shape = start is not None, network.shape
        unit = SPREAD if settings.perspective else 1.0
        self._how = RelativeHow(
            self.root, settings.perspective, unit, 1.0, shape.metric, shape.unit / SPREAD, settings.weights
        )
        bones = bones_of(settings.bones, self.limbs, self.skeleton)
        self._bones = bones.to(self.device) if bones else None
        if self._ordered:
            if labels is None:
                labels = self._drawn(poses) if sets.more is None else NO_LABELS
            self._labels_by_row(labels)

    def _drawn(self, poses: PoseSet) -> PairLabels:
        s, known = self.settings, np.asarray(np.isfinite(poses.xyz_m).all(-1))
        if not (known.sum(axis=1) > 1).any():
            raise UserError("no pose is known in 3D, from which pairs of joints could be told; give --votes")
        pairs = draw_pairs(known, s.pairs or None, np.random.default_rng([s.seed, 17]))
        return true_labels(poses.xyz_m[..., 2], pairs, s.tolerance_m, s.flipped, s.seed)

    def _labels_by_row(self, labels: PairLabels) -> None:
        """Keep labels so that those of a row are found fast."""
        order = np.argsort(labels.row, kind="stable")
        kept = [getattr(labels, key)[order] for key in ("one", "other", "r", "weight")]
        self._pairs = [self.tensor(values) for values in kept]
        self._first = np.searchsorted(labels.row[order], np.arange(self._ordered + 1))

    def pairs_of(self, rows: NDArray[np.int64]) -> Pairs:
        """The labels of a batch of poses with labels of pairs."""
        counts = self._first[rows + 1] - self._first[rows]
        start = np.repeat(self._first[rows] - (np.cumsum(counts) - counts), counts)
        which = self.tensor(start + np.arange(counts.sum()))
        row = self.tensor(np.repeat(np.arange(len(rows)), counts))
        return Pairs(row, *(values[which] for values in self._pairs))

    def batches(self) -> Iterator[Any]:
        """Rows (B,) of poses known in 3D, and of those with labels of pairs, each counted from its first; none of what
        there is not.
        """
        none, stream = repeat(np.empty(0, np.int64)), int(self._known > 0)
        known = self.shuffled(self._known) if self._known else none
        return zip(known, self.shuffled(self._ordered, stream) if self._ordered else none, strict=False)

    def loss(self, batch: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
        """Eq. 1 of poses known in 3D, and eq. 7 of those with labels of pairs; side by side, for batch norms."""
        n, rows = len(batch[0]), self.tensor(np.concatenate([batch[0], self._known + batch[1]]))
        seen, at = self.network.looked_at(self._xy[rows], self._sure[rows])
        poses, scale = self.network.lift(seen, at)
        if not self._ordered:
            loss = supervised_loss(poses, self._truth[rows])
            return loss, loss
        how = self._how if self._started else replace(self._how, bones_share=self.step / self.settings.steps)
        given = self._shown(rows[n:]), self.pairs_of(batch[1]), self._bones
        loss = relative_total(poses[n:], scale[n:], *given, how, SPREAD * at[n:])
        if n:
            loss = loss + how.weights.space * supervised_loss(poses[:n], self._truth[rows[:n]])
        return loss, loss

    def _shown(self, rows: Tensor) -> Tensor:
        """(B, J, 2) where joints are seen about the root, in units of SPREAD; NaN where unknown."""
        xy = self._xy[rows]
        return (xy - xy[:, self.root : self.root + 1]) / SPREAD

    def lifter_of(self, network: Lifter) -> Lifter:
        """All of it."""
        return network


def shape_of(settings: RelativeSettings, start: Lifter | None, in_space: bool) -> LifterShape:
    """The shape of a lifter to train, of poses known in 3D or not: that of `start`, if it is given, else as settings
    say.

    Raises:
        UserError: `start` has other joints.
    """
    joints = load_skeleton(settings.skeleton).joints
    metric = in_space or settings.perspective
    if start is None:
        shape = LifterShape(joints, ROOT, settings.width, settings.blocks, centred=not in_space)
        shape = replace(shape, unit=USUAL_M * SPREAD if metric else 1.0, on_ray=metric, metric=in_space)
    elif start.shape.joints == joints:
        shape = replace(start.shape, metric=in_space or start.shape.metric)
    else:
        raise UserError(f"the weights to begin with have other joints than skeleton '{settings.skeleton}'")
    return replace(shape, reach=2 / shape.unit)  # with half of which a fresh network projects to where it is seen


def bones_of(kind: str, measured: Limbs, skeleton: Skeleton) -> Proportions | None:
    """Reference limbs of eq. 6: 'measured' ones as given, 'typical' ones of a skeleton, or 'none'.

    Raises:
        UserError: another word.
    """
    if kind not in ("measured", "typical", "none"):
        raise UserError(f"bones are measured, typical or none, got '{kind}'")
    if kind == "none":
        return None
    return proportions(measured if kind == "measured" else typical_limbs(skeleton), skeleton)


def proportions(limbs: Limbs, skeleton: Skeleton) -> Proportions:
    """Limbs as ratios to UNIT, or to the first where UNIT is not among them."""
    names = [tuple(skeleton.joints[end] for end in pair) for pair in limbs.ends]
    unit = names.index(UNIT) if UNIT in names else 0
    ratio = torch.from_numpy((limbs.length_m / limbs.length_m[unit]).astype(np.float32))
    return Proportions(torch.from_numpy(limbs.ends), ratio, unit, float(limbs.length_m[unit]))

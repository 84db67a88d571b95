"""Training of lifters on pose sets: what all recipes share, and the recipe `relative`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harvest.errors import UserError
from harvest.learn.pairs import PairLabels, draw_pairs, true_labels
from harvest.learn.peers import Peers
from harvest.learn.pose_sets import PoseSet
from harvest.learn.relative import Pairs, Proportions, RelativeHow, RelativeWeights, relative_total, supervised_loss
from harvest.learn.training import Network, Training, TrainingSettings
from harvest.metrics.pose import scaled, similar
from harvest.monocular.lift import Limbs, mean_limbs
from harvest.monocular.lifter import SPREAD, Lifter, LifterShape
from harvest.monocular.lifter_files import save_lifter
from harvest.skeleton import Skeleton, load_skeleton

Floats = NDArray[np.float64]
WEIGHTS = "lifter.safetensors"
ROOT = "pelvis"
UNIT = ("r_knee", "r_hip")  # the limb that others are compared with: the same length in every skeleton
REACH_M = 10.0  # how far away a person may be that a network with perspective tells
USUAL_M = 5.0  # and where it begins to look


@dataclass(frozen=True, kw_only=True)
class LifterSettings(TrainingSettings):
    """How a lifter is trained.

    skeleton: built-in, of the joints. width, blocks, dropout: of the network.
    """

    skeleton: str = "mpii16"
    width: int = 1024
    blocks: int = 1
    dropout: float = 0.5
    steps: int = 8000
    batch: int = 256
    clip: float = 1.0
    decay: float = 0.0
    bf16: bool = False
    validate: int = 4000
    validate_every: int = 1000


@dataclass(frozen=True)
class PoseSets:
    """Poses to learn from, to measure on, and more of which only 2D is used."""

    learn: PoseSet
    measure: PoseSet | None = None
    more: PoseSet | None = None


class LifterTraining(Training[Network]):
    """Training of what contains a lifter, on pose sets of one skeleton."""

    measures = ("scaled_mm", "aligned_mm")
    settings: LifterSettings

    def __init__(
        self, sets: PoseSets, out: Path, settings: LifterSettings, network: Network, peers: Peers | None = None
    ) -> None:
        """Take the joints of the settings' skeleton out of the sets.

        Raises:
            UserError: sets without them, or a checkpoint of other settings.
        """
        self.skeleton = load_skeleton(settings.skeleton)
        self.root = self.skeleton.index(ROOT)
        self.learn, self.validation = prepared(sets.learn, settings.skeleton), None
        if sets.measure is not None:
            measured = prepared(sets.measure, settings.skeleton)
            step = max(1, len(measured) // settings.validate)
            self.validation = measured.take(np.arange(0, len(measured), step))
        self._xy = torch.from_numpy(self.learn.xy.astype(np.float32))
        super().__init__(out, settings, network, peers or Peers())

    def batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows of the set, in the endless shuffled order of the seed."""
        size, n = self.settings.batch, len(self.learn)
        own = slice(self.peers.rank * (size // self.peers.count), (self.peers.rank + 1) * (size // self.peers.count))
        order, of_epoch = np.empty(0, np.int64), -1
        for step in range(self.step, self.settings.steps):
            numbers = np.arange(step * size, (step + 1) * size)[own]
            rows = np.empty(len(numbers), np.int64)
            for epoch in np.unique(numbers // n):
                if epoch != of_epoch:
                    order, of_epoch = np.random.default_rng([self.settings.seed, epoch]).permutation(n), epoch
                here = numbers // n == epoch
                rows[here] = order[numbers[here] % n]
            yield rows

    @abstractmethod
    def lifter_of(self, network: Network) -> Lifter:
        """The lifter in the network."""

    def measure(self, network: Network) -> tuple[float, float] | None:
        """Mean distance of joints in mm after the best scale, and after the best similarity."""
        if self.validation is None:
            return None
        return pose_errors_mm(lifted(self.lifter_of(network), self.validation), self.validation, self.root)

    def save_weights(self, network: Network) -> None:
        """For `harvest predict --weights`."""
        save_lifter(self.lifter_of(network), self.usual_limbs(), self.out / WEIGHTS)

    def usual_limbs(self) -> Limbs:
        """Mean limbs of the poses that are known in 3D; where there are none, those of a typical skeleton."""
        try:
            return mean_limbs(self.learn.xyz_m, self.skeleton.parents.tolist())
        except ValueError:
            return typical_limbs(self.skeleton)


def prepared(poses: PoseSet, skeleton_name: str) -> PoseSet:
    """A set's joints of a built-in skeleton, of those people whose root is seen.

    Raises:
        UserError: nobody's is.
    """
    skeleton = load_skeleton(skeleton_name)
    found = poses.of(skeleton.joints)
    seen = np.asarray(np.isfinite(found.xy[:, skeleton.index(ROOT)]).all(axis=1))
    if not seen.any():
        raise UserError(f"no pose of the set has the {ROOT} of skeleton '{skeleton.name}'; choose another --skeleton")
    return found.take(seen)


TYPICAL_HEIGHT_M = 1.7


def typical_limbs(skeleton: Skeleton) -> Limbs:
    """The limbs of a skeleton's typical proportions, of a person of TYPICAL_HEIGHT_M."""
    children = np.flatnonzero(skeleton.parents >= 0)
    return Limbs(np.stack([children, skeleton.parents[children]], 1), TYPICAL_HEIGHT_M * skeleton.shares[children])


@torch.inference_mode()
def lifted(lifter: Lifter, poses: PoseSet, rows: int = 4096) -> Floats:
    """(N, J, 3) what a lifter in eval mode makes of a set."""
    xy = torch.from_numpy(poses.xy.astype(np.float32))
    return np.concatenate([lifter(part)[0].double().numpy() for part in xy.split(rows)])


def pose_errors_mm(found: Floats, poses: PoseSet, root: int) -> tuple[float, float]:
    """Mean distance of joints in mm between poses found (N, J, 3), in any unit, and a set's: root on root after the
    best scale, and after the best similarity; NaN where nothing is known in 3D.
    """
    truth = poses.xyz_m - poses.xyz_m[:, root : root + 1]
    ours = found - found[:, root : root + 1]
    return tuple(  # type: ignore[return-value]
        float(1000 * np.nanmean(np.linalg.norm(fit(ours, truth) - truth, axis=-1)))
        if np.isfinite(truth).all(-1).any()
        else np.nan
        for fit in (scaled, similar)
    )


@dataclass(frozen=True, kw_only=True)
class RelativeSettings(LifterSettings):
    """How a lifter learns from which of two joints is nearer.

    supervised: it learns from 3D instead (eq. 1), the bound. pairs: labels a picture, 0 for all. tolerance_m: pairs
    less apart than that are told to be as far. flipped: share of labels that are wrong. perspective: of the
    projection. bones: 'measured' mean proportions of the set, 'typical' ones of the skeleton's file, or 'none'.

    The weight of bones grows from 0 to its full size: at first they would be made long enough by depths of any sign,
    which order then could not mend.
    """

    supervised: bool = False
    pairs: int = 1
    tolerance_m: float = 0.0
    flipped: float = 0.0
    perspective: bool = False
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
        skeleton = load_skeleton(settings.skeleton)
        shape = LifterShape(
            skeleton.joints,
            ROOT,
            settings.width,
            settings.blocks,
            centred=not settings.supervised,
            reach=REACH_M if settings.perspective else 2.0,
            unit=USUAL_M * SPREAD if settings.perspective or settings.supervised else 1.0,
        )
        network = Lifter(shape, settings.dropout)
        if start is not None:
            network.load_state_dict(start.state_dict())
        super().__init__(sets, out, settings, network, peers)
        truth = self.learn.xyz_m - self.learn.xyz_m[:, self.root : self.root + 1]
        self._truth = torch.from_numpy(truth.astype(np.float32))
        unit = SPREAD if settings.perspective else 1.0
        self._how = RelativeHow(self.root, settings.perspective, unit, weights=settings.weights)
        self._bones = proportions(self, settings.bones)
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
        self._pairs = [
            torch.from_numpy(values.astype(np.float32 if i > 1 else np.int64)) for i, values in enumerate(kept)
        ]
        self._first = np.searchsorted(labels.row[order], np.arange(len(self.learn) + 1))

    def pairs_of(self, rows: NDArray[np.int64]) -> Pairs:
        """The labels of a batch."""
        counts = self._first[rows + 1] - self._first[rows]
        start = np.repeat(self._first[rows] - (np.cumsum(counts) - counts), counts)
        which = torch.from_numpy(start + np.arange(counts.sum()))
        row = torch.from_numpy(np.repeat(np.arange(len(rows)), counts))
        return Pairs(row, *(values[which] for values in self._pairs))

    def loss(self, batch: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Eq. 7, or eq. 1 if it is supervised."""
        rows = torch.from_numpy(batch)
        xy = self._xy[rows]
        poses, scale = self.network(xy)
        if self.settings.supervised:
            loss = supervised_loss(poses, self._truth[rows])
        else:
            how = replace(self._how, bones_share=self.step / self.settings.steps)
            loss = relative_total(poses, scale, self.network.inputs(xy), self.pairs_of(batch), self._bones, how)
        return loss, loss

    def lifter_of(self, network: Lifter) -> Lifter:
        """All of it."""
        return network


def proportions(training: LifterTraining[Network], kind: str) -> Proportions | None:
    """Reference limbs of eq. 6: 'measured', 'typical' or 'none'.

    Raises:
        UserError: another word.
    """
    if kind == "none":
        return None
    if kind not in ("measured", "typical"):
        raise UserError(f"bones are measured, typical or none, got '{kind}'")
    limbs = training.usual_limbs() if kind == "measured" else typical_limbs(training.skeleton)
    names = [tuple(training.skeleton.joints[end] for end in pair) for pair in limbs.ends]
    unit = names.index(UNIT)
    ratio = torch.from_numpy((limbs.length_m / limbs.length_m[unit]).astype(np.float32))
    return Proportions(torch.from_numpy(limbs.ends), ratio, unit)

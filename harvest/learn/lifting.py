"""Training of lifters on pose sets: what its recipes share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harvest.errors import UserError
from harvest.learn.peers import Peers
from harvest.learn.pose_sets import PoseSet
from harvest.learn.training import Network, Training, TrainingSettings
from harvest.metrics.pose import scaled, similar
from harvest.monocular.lift import Limbs, mean_limbs
from harvest.monocular.lifter import Lifter, in_metres
from harvest.monocular.lifter_files import save_lifter
from harvest.skeleton import Skeleton, load_skeleton

Floats = NDArray[np.float64]
WEIGHTS = "lifter.safetensors"
ROOT = "pelvis"
TYPICAL_HEIGHT_M = 1.7
Errors = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class LifterSettings(TrainingSettings):
    """How a lifter is trained.

    skeleton: built-in, of the joints. width, blocks, dropout: of the network.
    """

    skeleton: str = "mpii16"
    width: int = 1024
    blocks: int = 1
    dropout: float = 0.1
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

    measures: tuple[str, ...] = ("mpjpe_mm", "scaled_mm", "aligned_mm")
    settings: LifterSettings

    def __init__(
        self,
        sets: PoseSets,
        out: Path,
        settings: LifterSettings,
        network: Network,
        peers: Peers | None = None,
        limbs: Limbs | None = None,
    ) -> None:
        """Take the joints of the settings' skeleton out of the sets; `limbs` are those of poses unknown in 3D.

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
        self.limbs = usual_limbs(self.learn, self.skeleton, limbs)
        super().__init__(out, settings, network, peers or Peers())

    def batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows of the set to learn from, in the endless shuffled order of the seed."""
        return self.shuffled(len(self.learn))

    def shuffled(self, n: int, stream: int = 0) -> Iterator[NDArray[np.int64]]:
        """This process's part of what is left of batches of n rows; another `stream` has another order."""
        size = self.settings.batch
        own = slice(self.peers.rank * (size // self.peers.count), (self.peers.rank + 1) * (size // self.peers.count))
        order, of_epoch = np.empty(0, np.int64), -1
        for step in range(self.step, self.settings.steps):
            numbers = np.arange(step * size, (step + 1) * size)[own]
            rows = np.empty(len(numbers), np.int64)
            for epoch in np.unique(numbers // n):
                if epoch != of_epoch:
                    order, of_epoch = np.random.default_rng([self.settings.seed, epoch, stream]).permutation(n), epoch
                here = numbers // n == epoch
                rows[here] = order[numbers[here] % n]
            yield rows

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """An array where the network is; float64 as float32."""
        return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array).to(self.device)

    @abstractmethod
    def lifter_of(self, network: Network) -> Lifter:
        """The lifter in the network."""

    def measure(self, network: Network) -> Errors | None:
        """What `pose_errors_mm` gives."""
        if self.validation is None:
            return None
        lifter = self.lifter_of(network).cpu()
        return pose_errors_mm(lifted(lifter, self.limbs, self.validation), self.validation, self.root)

    def save_weights(self, network: Network) -> None:
        """For `harvest predict --weights`."""
        save_lifter(self.lifter_of(network), self.limbs, self.out / WEIGHTS)


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


def typical_limbs(skeleton: Skeleton) -> Limbs:
    """The limbs of a skeleton's typical proportions, of a person of TYPICAL_HEIGHT_M."""
    children = np.flatnonzero(skeleton.parents >= 0)
    return Limbs(np.stack([children, skeleton.parents[children]], 1), TYPICAL_HEIGHT_M * skeleton.shares[children])


def usual_limbs(poses: PoseSet, skeleton: Skeleton, otherwise: Limbs | None = None) -> Limbs:
    """Mean limbs of the poses that are known in 3D; where there are none, others, by default of a typical skeleton."""
    children = np.flatnonzero(skeleton.parents >= 0)
    known = np.asarray(np.isfinite(poses.xyz_m).all(-1))
    if not (known[:, children] & known[:, skeleton.parents[children]]).any():
        return otherwise or typical_limbs(skeleton)
    return mean_limbs(poses.xyz_m, skeleton.parents.tolist())


@torch.inference_mode()
def lifted(lifter: Lifter, limbs: Limbs, poses: PoseSet, rows: int = 4096) -> Floats:
    """(N, J, 3) metres about the root: what a lifter in eval mode makes of a set, of people of usual size."""
    seen, confidence = (
        torch.from_numpy(those.astype(np.float32)) for those in (seen_by(lifter, poses), poses.confidence)
    )
    parts = zip(seen.split(rows), confidence.split(rows), strict=True)
    return in_metres(lifter, limbs, np.concatenate([lifter(*part)[0].double().numpy() for part in parts]))


def seen_by(lifter: Lifter, poses: PoseSet) -> Floats:
    """(N, J, 2) a set's joints as a lifter looks at them."""
    return poses.on_screen(poses.xy) if lifter.shape.screen else poses.xy


def pose_errors_mm(found: Floats, poses: PoseSet, root: int) -> Errors:
    """Mean distance of joints in mm between poses found (N, J, 3) and a set's: root on root, after the best scale, and
    after the best similarity; NaN where nothing is known in 3D.
    """
    truth = poses.xyz_m - poses.xyz_m[:, root : root + 1]
    ours = found - found[:, root : root + 1]
    if not np.isfinite(truth).all(-1).any():
        return math.nan, math.nan, math.nan
    fits = ours, scaled(ours, truth), similar(ours, truth)
    return tuple(float(1000 * np.nanmean(np.linalg.norm(fit - truth, axis=-1))) for fit in fits)  # type: ignore[return-value]

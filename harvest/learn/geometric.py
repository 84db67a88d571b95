"""Learning depth from pictures some of which are labelled in 2D alone (Zhou et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harvest.errors import UserError
from harvest.learn.detector import Folders
from harvest.learn.geometry import lengths, seen_of, weak_perspective
from harvest.learn.map_loss import heat_loss
from harvest.learn.mapped import MappedSettings, MappedTraining, one_of
from harvest.learn.monocular import PoseTask, begin, limbs_of, same_origin
from harvest.learn.peers import Peers
from harvest.learn.samples import Place
from harvest.monocular.lift import Limbs
from harvest.monocular.networks import MAPPED, UNIT_M, Shape
from harvest.skeleton import load_skeleton

GROUPS = (("elbow", "wrist"), ("knee", "ankle"), ("shoulder",), ("hip",))  # far ends of the bones of each


@dataclass(frozen=True, kw_only=True)
class GeometricSettings(MappedSettings):
    """How a network learns depths from two folders, the second of pictures labelled in 2D.

    model: 'depth', as in the paper, or 'planar'. share: of samples from the second folder. more_is_2d: depths that
    its labels know are not looked at. lambda_reg, lambda_geo: of squared errors of known depths in UNIT_M, and of L_geo
    where no depth is known. geo_from: share of the steps before which the latter is 0; before it tells anything,
    depths must be about right. geo_in_space: it counts where depths are known, too.

    The paper's 0.1 and 0.01 stand beside a mean square over cells of heat maps, a few thousandths; ours stand beside a
    cross-entropy of a few units, so both are larger here, at the paper's ratio.
    """

    model: str = "depth"
    share: float = 0.5
    more_is_2d: bool = True
    lambda_reg: float = 10.0
    lambda_geo: float = 1.0
    geo_from: float = 0.5
    geo_in_space: bool = False


@dataclass(frozen=True)
class BoneGroups:
    """B bones that are compared with one another: ends (B, 2) as places among the joints, canonical length_m (B,), and
    whether each belongs to a group, member (G, B) of 0 and 1.
    """

    ends: Tensor
    length_m: Tensor
    member: Tensor

    def to(self, device: torch.device) -> BoneGroups:
        """On a device."""
        return BoneGroups(self.ends.to(device), self.length_m.to(device), self.member.to(device))


def bone_groups(limbs: Limbs, joints: Sequence[str]) -> BoneGroups:
    """The bones of GROUPS, both sides, with the lengths of known limbs."""
    far = [joints[end].partition("_")[2] for end in limbs.ends[:, 0]]
    member = torch.tensor([[float(name in group) for name in far] for group in GROUPS])
    some = member.sum(0) > 0
    ends, length = torch.from_numpy(limbs.ends), torch.from_numpy(limbs.length_m)
    return BoneGroups(ends[some], length[some].float(), member[:, some])


def geometric_loss(poses: Tensor, bones: BoneGroups) -> Tensor:
    """(B,) L_geo of poses (B, J, 3) in any unit, NaN where unknown: the sum over groups of the variance of length over
    canonical length, over those bones of a group whose ends are known.

    Source: Zhou et al. 2017, L_geo.
    """
    poses, known = seen_of(poses)
    told = (known[:, bones.ends[:, 0]] & known[:, bones.ends[:, 1]])[:, None] * bones.member
    ratio = (lengths(poses, bones.ends) / bones.length_m)[:, None]
    count = told.sum(-1, keepdim=True).clamp_min(1)
    mean = (told * ratio).sum(-1, keepdim=True) / count
    return (told * (ratio - mean).square() / count).sum((1, 2))


def depth_loss(depth_m: Tensor, truth_m: Tensor) -> Tensor:
    """(B,) mean squared error of depths (B, J) in UNIT_M, over those that the truth knows."""
    known = torch.isfinite(truth_m)
    off = torch.where(known, depth_m - torch.where(known, truth_m, 0.0), 0.0) / UNIT_M
    return off.square().sum(1) / known.sum(1).clamp_min(1)


class GeometricTask(PoseTask):
    """`PoseTask` on heat maps and depths, of samples of which some tell no depth.

    Pixels become metres by the scale that gives the sample's own limbs, with the depths that were told, the size of
    canonical ones (`metres_per_px`). It needs no intrinsics, makes true depths of a person of canonical proportions a
    minimum, and leaves no gain in making everybody small. The gradient takes it into account.
    """

    def __init__(self, shape: Shape, limbs: Limbs, settings: GeometricSettings, flat: Path | None) -> None:
        """For a network of that shape; limbs are canonical; labels in the folder `flat` tell no depth."""
        super().__init__(shape, limbs, settings.skeleton)
        self._flat, self._versions, self._everywhere = flat, settings.versions, settings.geo_in_space
        self._bones = bone_groups(limbs, shape.joints)
        self._ends, self._length_m = torch.from_numpy(limbs.ends), torch.from_numpy(limbs.length_m).float()

    def sample(self, place: Place, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """As of `PoseTask`, with depths of NaN where they do not count."""
        picture, truth = super().sample(place, one_of(self._versions, place, rng))
        if place.shard.parent == self._flat:
            truth[:, 2] = np.nan
        return picture, truth

    def losses(self, pose: Tensor, logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """L_2D; and the parts of L_dep, means over the batch: that of samples with depths, and L_geo of those without,
        or of all.

        In place of the paper's squared differences of maps stands the cross-entropy of maps of sum 1.

        Args:
            pose: (B, J, 3) what the network says; logits: (B, J, cells, cells) of its maps; truth: (B, J, 3).
        """
        uv, depth = truth[..., :2], pose[..., 2]
        in_space = torch.isfinite(truth[..., 2]).any(1)
        ends, length_m = self._ends.to(pose.device), self._length_m.to(pose.device)
        plausible = geometric_loss(weak_perspective(uv, depth, ends, length_m), self._bones.to(pose.device))
        geometric = plausible if self._everywhere else torch.where(in_space, 0.0, plausible)
        from_there = same_origin(depth, truth[..., 2], self._root)
        return heat_loss(logits, uv), depth_loss(from_there, truth[..., 2]).mean(), geometric.mean()


class GeometricTraining(MappedTraining):
    """Training of a network with maps on crops with labels in space, and more with labels in 2D."""

    settings: GeometricSettings
    task: GeometricTask

    def __init__(self, folders: Folders, out: Path, settings: GeometricSettings, peers: Peers | None = None) -> None:
        """Build the network, and measure the limbs of those in the first folder.

        Raises:
            UserError: one folder twice, no samples, a first folder without joints in space, a model without maps, no
                such weights or skeleton, or a checkpoint of other settings.
        """
        if settings.model not in MAPPED:
            raise UserError(f"'{settings.model}' has no maps of joints in 2D; choose {' or '.join(MAPPED)}")
        if folders.more is not None and folders.more.resolve() == folders.learn.resolve():
            raise UserError(f"{folders.more} is the first folder too; give other pictures, or none")
        network = begin(settings.model, settings.skeleton, settings.width, settings.start, settings.seed)
        self.limbs = limbs_of(folders.learn, load_skeleton(settings.skeleton))
        flat = folders.more if settings.more_is_2d else None
        task = GeometricTask(network.shape, self.limbs, settings, flat)
        super().__init__(task, folders, out, settings, peers or Peers(), network)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """L_2D + L_dep."""
        images, truth = batch
        pose, logits = self.told(images)
        in_2d, known, geometric = self.task.losses(pose, logits, truth.to(self.device))
        total = in_2d + self.settings.lambda_reg * known
        if self.geometry_counts:
            total = total + self.settings.lambda_geo * geometric
        return total, total

    @property
    def geometry_counts(self) -> bool:
        """Whether L_geo is switched on."""
        return self.step >= self.settings.geo_from * self.settings.steps

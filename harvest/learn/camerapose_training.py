"""Training of lifters as CameraPose does (Yang et al. 2023): augmented, with a camera branch for 2D labels, refined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from harvest.errors import UserError
from harvest.learn.camerapose import (
    CameraBranch,
    Chain,
    Critic,
    Generator,
    camera_loss,
    critic_loss,
    fitted_place,
    maker_loss,
    pictured,
    refine_loss,
    squared_loss,
)
from harvest.learn.geometry import norms
from harvest.learn.lifting import ROOT, LifterSettings, LifterTraining, PoseSets, prepared
from harvest.learn.peers import Peers
from harvest.learn.pose_sets import PoseSet
from harvest.learn.relative import projection_loss, proportions, skeleton_loss, supervised_loss
from harvest.monocular.lift import USUAL_FOCAL
from harvest.monocular.lifter import SPREAD, Lifter, LifterShape
from harvest.skeleton import load_skeleton

USUAL_M = 4.5  # how far away a person is where the lifter begins to look
TO_PAPER = 2 * USUAL_FOCAL  # from our screen to the paper's, whose longer side is -1 to 1
HARDER = 1.5  # times the error on true poses, of made ones


@dataclass(frozen=True, kw_only=True)
class CameraPoseSettings(LifterSettings):
    """How a lifter learns as CameraPose does.

    augment: a generator makes poses, and critics judge them. camera: a camera branch learns, and poses that are
    labelled in 2D alone teach too. lens: how these are seen: 'known', by the intrinsics that come with them, or 'told',
    by the branch. refine: joints in 2D are mended first. refine_until, warm_until: shares of the steps after which
    refining alone ends, and the lifter and the generator by themselves; without such a time for themselves 2D teaches
    more. The rest: weights of eq. 10, 11, 16, 17; pose_weight of true poses, made_weight of made ones, of which some
    trainings make too hard ones; of poses labelled in 2D alone, of how far from there they are seen (alone_weight), and
    of limbs that are not as long as the usual ones (bones_weight, reached at the end), without which depths go where
    they like.
    """

    augment: bool = True
    camera: bool = True
    lens: str = "known"
    refine: bool = True
    refine_until: float = 0.1
    warm_until: float = 0.0
    camera_weight: float = 0.01
    seen_weight: float = 0.5
    seen_alone_weight: float = 0.2
    pose_weight: float = 1.0
    made_weight: float = 0.3
    refine_weight: float = 1.0
    critic_weight: float = 0.001
    harder_weight: float = 0.1
    alone_weight: float = 1.0
    bones_weight: float = 0.2


class CameraPose(nn.Module):
    """All that learns: lifter, camera branch, generator, and critics of what is seen and of poses.

    Attributes:
        usual_m: the lifter's error on the last batch of true poses.
    """

    usual_m: Tensor

    def __init__(self, shape: LifterShape, parents: list[int], dropout: float) -> None:
        """Fresh parameters."""
        super().__init__()
        chain = Chain(shape.joints, parents)
        self.lifter, self.camera = Lifter(shape, dropout), CameraBranch(len(shape.joints))
        self.generator, self.of_seen, self.of_pose = Generator(chain), Critic(chain), Critic(chain)
        self.register_buffer("usual_m", torch.tensor(0.1))


@dataclass(frozen=True)
class Batch:
    """Poses as tensors, B in all.

    xy, label: (B, J, 2) on screen, as a detector saw joints and as labels tell; confidence (B, J). pose: (B, J, 3)
    metres about the root; place: (B, 3) of the root; camera: (B, 4) fx, fy, cx, cy of the screen's camera.
    """

    xy: Tensor
    label: Tensor
    confidence: Tensor
    pose: Tensor
    place: Tensor
    camera: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.xy)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(getattr(self, key).to(device) for key in self.__dataclass_fields__))

    def take(self, rows: Tensor) -> Batch:
        """Some of them."""
        return Batch(*(getattr(self, key)[rows] for key in self.__dataclass_fields__))


def batch_of(poses: PoseSet, root: int) -> Batch:
    """All poses of a set."""
    long = USUAL_FOCAL * poses.size_px.max(axis=1)
    focal = poses.K[:, [0, 1], [0, 1]] / long[:, None]
    middle = (poses.K[:, :2, 2] - (poses.size_px - 1) / 2) / long[:, None]
    place = poses.xyz_m[:, root]
    arrays = (
        poses.on_screen(poses.xy),
        poses.on_screen(poses.label_xy),
        poses.confidence,
        poses.xyz_m - place[:, None],
        place,
        np.concatenate([focal, middle], axis=1),
    )
    return Batch(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))


class CameraPoseTraining(LifterTraining[CameraPose]):
    """`--recipe camerapose`."""

    settings: CameraPoseSettings

    def __init__(self, sets: PoseSets, out: Path, settings: CameraPoseSettings, peers: Peers | None = None) -> None:
        """Take poses known in 3D, and more that are labelled in 2D alone, if the camera branch learns.

        Raises:
            UserError: as `LifterTraining`, a lens of another kind, no pose to learn from that is known in 3D, or none
                that is whole, to augment.
        """
        if settings.lens not in ("known", "told"):
            raise UserError(f"lens is known or told, got '{settings.lens}'")
        torch.manual_seed(settings.seed)
        skeleton = load_skeleton(settings.skeleton)
        shape = LifterShape(
            skeleton.joints,
            ROOT,
            settings.width,
            settings.blocks,
            centred=False,
            unit=USUAL_M * SPREAD,
            metric=True,
            screen=True,
            refined=settings.refine,
        )
        network = CameraPose(shape, skeleton.parents.tolist(), settings.dropout)
        super().__init__(sets, out, settings, network, peers)
        placed = np.asarray(np.isfinite(self.learn.xyz_m[:, self.root]).all(axis=1))
        if not placed.any():
            raise UserError(f"no pose to learn from has its {ROOT} in 3D; give others, or another --skeleton")
        self.learn = self.learn.take(placed)
        if settings.augment and not np.isfinite(self.learn.xyz_m).all(axis=(1, 2)).any():
            raise UserError(
                "no pose to learn from is known whole, to make others of; give another --skeleton, or "
                "--set augment=false"
            )
        self._known = batch_of(self.learn, self.root).to(self.device)
        self._bones = proportions(self.limbs, self.skeleton).to(self.device)
        self._seen: Batch | None = None
        if sets.more and settings.camera:
            self._seen = batch_of(prepared(sets.more, settings.skeleton), self.root).to(self.device)

    def batches(self) -> Iterator[Any]:
        """Rows to learn from, of both kinds of poses."""
        more = self.shuffled(len(self._seen), stream=1) if self._seen else None
        for rows in self.shuffled(len(self.learn)):
            yield rows, next(more) if more else None

    def lifter_of(self, network: CameraPose) -> Lifter:
        """With what refines in it."""
        return network.lifter

    def loss(self, batch: tuple[NDArray[np.int64], NDArray[np.int64] | None]) -> tuple[Tensor, Tensor]:
        """Eq. 16 of poses known in 3D, eq. 17 of the others, and what generator and critics want; in three steps.

        Of poses the norm of all joints' errors counts, not eq. 9's square, whose gradient vanishes beside the others'.
        Each part's loss reaches that part's parameters alone: all learn at once, by one optimizer. The lifter sees all
        kinds of poses in one batch, for batch norms to measure what they will meet.
        """
        s, share = self.settings, self.step / self.settings.steps
        known = self._known.take(self.tensor(batch[0]))
        kinds = [known]
        if self._seen is not None and batch[1] is not None and (share >= s.warm_until or share < s.refine_until):
            kinds.append(self._seen.take(self.tensor(batch[1])))
        if s.refine and share < s.refine_until:
            loss = self._refining(self._looked_at(kinds)[0], kinds)
            return loss, loss
        total, made = torch.zeros((), device=self.device), None
        whole = known.take(known.pose.isfinite().all(-1).all(-1) & known.label.isfinite().all(-1).all(-1))
        if s.augment and len(whole):
            made, total = self._made(whole)
            kinds.append(made)
        mended, at = self._looked_at(kinds)
        poses, _ = self.network.lifter.lift(mended, at)
        error = squared_loss(poses[: len(known)], known.pose)
        total = total + s.pose_weight * supervised_loss(poses[: len(known)], known.pose)
        if made is not None:
            total = total + s.made_weight * supervised_loss(poses[-len(made) :], made.pose)
            self.network.usual_m.copy_(error.detach().sqrt())
        if s.refine:
            total = total + s.refine_weight * self._refining(mended, kinds)
        if s.camera and share >= s.warm_until:
            labelled = sum(len(kind) for kind in kinds if kind is not made)
            seen = mended[:labelled], at[:labelled], poses[:labelled]
            total = total + self._by_camera(kinds, seen, whole.label if s.augment else whole.label[:0])
        return total, error.detach()

    def _looked_at(self, kinds: list[Batch]) -> tuple[Tensor, Tensor]:
        xy, confidence = (torch.cat([getattr(kind, key) for kind in kinds]) for key in ("xy", "confidence"))
        return self.network.lifter.looked_at(xy, confidence)

    def _refining(self, mended: Tensor, kinds: list[Batch]) -> Tensor:
        """Eq. 4."""
        xy, label, sure = (torch.cat([getattr(kind, key) for kind in kinds]) for key in ("xy", "label", "confidence"))
        return refine_loss(mended, (label - xy[:, self.root : self.root + 1]) / SPREAD, sure)

    def _by_camera(self, kinds: list[Batch], seen: tuple[Tensor, Tensor, Tensor], true: Tensor) -> Tensor:
        """Eq. 7 and 8 of poses known in 3D, eq. 7 of those seen alone; the latter should look like people, to a critic
        that learns to tell them from true ones (B, J, 2), if there are any, and have limbs of usual length.
        """
        s, network, known, poses = self.settings, self.network, kinds[0], seen[2]
        camera, place = network.camera(*(value.detach() for value in seen))
        count = len(known)
        told = camera_loss(camera[:count], place[:count], known.camera, known.place)
        total = s.camera_weight * told
        again = pictured(poses[:count], known.camera, known.place), pictured(poses.detach(), camera, place)
        for one in again:  # what the lifter and the branch should mend
            total = total + s.seen_weight * _projected(one[:count], known.label)
        if len(poses) > count:
            alone, label = poses[count:], kinds[1].label
            lens = kinds[1].camera if s.lens == "known" else camera[count:].detach()
            shown = pictured(alone, lens, fitted_place(alone, lens, label))
            total = total + s.alone_weight * projection_loss(shown, label)
            share = self.step / s.steps
            total = total + share * s.bones_weight * skeleton_loss(alone, self._bones, metric=True)
            total = total + s.seen_alone_weight * _projected(again[1][count:], label)
            if len(true):
                total = total + s.critic_weight * maker_loss(frozen(network.of_seen)(shown))
                total = total + _judged(network.of_seen, true, shown)
        return total

    def _made(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Poses that the generator makes, from which no gradient comes back; and what generator and critics want."""
        network, s = self.network, self.settings
        draw = torch.Generator().manual_seed(int(self.step) * 2**20 + s.seed)
        noise = torch.randn(len(batch), network.generator.noise, generator=draw).to(self.device)
        poses, place = network.generator(batch.pose, noise)
        seen = pictured(poses, batch.camera, place)
        fooled = maker_loss(frozen(network.of_pose)(poses)) + maker_loss(frozen(network.of_seen)(seen))
        judged = _judged(network.of_pose, batch.pose, poses) + _judged(network.of_seen, batch.label, seen)
        off = self._error(frozen(network.lifter)(seen)[0], poses).mean()
        harder = (off / (HARDER * float(self.network.usual_m.clamp_min(1e-3))) - 1).abs()
        sure = torch.ones_like(batch.confidence)
        made = Batch(seen.detach(), seen.detach(), sure, poses.detach(), place.detach(), batch.camera)
        return made, fooled + judged + s.harder_weight * harder

    @staticmethod
    def _error(found: Tensor, truth: Tensor) -> Tensor:
        """(B,) root of the mean squared distance of joints."""
        return norms((found - truth).flatten(1)) / found.shape[1] ** 0.5


def _judged(critic: Critic, real: Tensor, made: Tensor) -> Tensor:
    """What a critic learns of poses, real and made."""
    told = critic(torch.cat([real, made.detach()]))
    return critic_loss(told[: len(real)], told[len(real) :])


def _projected(found: Tensor, label: Tensor) -> Tensor:
    """Eq. 7 in the paper's unit."""
    return squared_loss(TO_PAPER * found, TO_PAPER * label)


def frozen(module: nn.Module) -> Callable[[Tensor], Any]:
    """What a module says when in use, without dropout and by its running means; no gradient reaches its parameters."""
    kept = {key: value.detach() for key, value in module.state_dict(keep_vars=True).items()}

    def say(x: Tensor) -> Any:
        trains = module.training
        try:
            return functional_call(module.eval(), kept, (x,))
        finally:
            module.train(trains)

    return say

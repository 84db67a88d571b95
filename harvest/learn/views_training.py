"""Training of networks that tell a 3D pose from one picture, on several views of moments and 2D labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harvest.errors import UserError
from harvest.learn.detector import Folders, PictureSettings
from harvest.learn.geometry import rays_at
from harvest.learn.map_loss import heat_loss
from harvest.learn.mapped import MappedSettings, MappedTraining, one_of
from harvest.learn.monocular import PoseTask, begin
from harvest.learn.multiview import Moment, SeenView, find_moments, read_views
from harvest.learn.multiview_loss import Bones, bones_loss, consistency_loss, normalised_poses, typical_bones
from harvest.learn.peers import Peers
from harvest.learn.samples import CROP_PX, Place, augmentation, augmented, find_samples, read_sample
from harvest.monocular.lift import rays_of
from harvest.monocular.networks import Shape
from harvest.skeleton import load_skeleton

Floats = NDArray[np.float64]
SCALES = ("limbs", "bone")
LABELLED = ("own", "more", "both", "none")
CHECKS = 50  # of the sign of depths
REVERSED = torch.tensor([1.0, 1.0, -1.0])
NODES = 33  # a side of the grid of rays over a crop
_BORDER_PX = -0.5, CROP_PX - 0.5


@dataclass(frozen=True, kw_only=True)
class ViewsWeights:
    """Of consistency (alpha) and bones (beta) beside the loss of heat maps; 0 leaves a term out.

    alone: share of the steps in which maps learn alone; over as many more both terms grow from 0. As long as joints
    are not found they would be put where bones get long enough, which maps then hardly mend.
    """

    alpha: float = 1.0
    beta: float = 1.0
    alone: float = 0.2


@dataclass(frozen=True, kw_only=True)
class ViewsSettings(MappedSettings):
    """How a network learns from views that belong together.

    views: of each moment in a batch, drawn anew each time; batch: of
    moments. labelled: 2D labels to learn maps from: 'own' ones of the views, those of 'more', a second folder of crops,
    'both', or 'none'. share: of the batch's rows that come from the second folder. scale: of `normalised_poses`. The
    paper's single bone errs with each of its ends by several percent, more than what perspective does, which alone
    tells a person from one whose depths are reversed or drawn out: training with it ends there.
    """

    views: int = 2
    labelled: str = "own"
    scale: str = "limbs"
    share: float = 0.3
    weights: ViewsWeights = field(default_factory=ViewsWeights)
    batch: int = 16
    clip: float = 10.0


@dataclass(frozen=True)
class Strangers:
    """Crops that have nothing to do with one another, as many as a moment has views."""

    places: tuple[Place, ...]


class ViewsTask(PoseTask):
    """`PoseTask` of V pictures at a time; its loss compares them with one another."""

    def __init__(self, shape: Shape, bones: Bones, settings: ViewsSettings) -> None:
        """For a network of that shape."""
        super().__init__(shape, bones.limbs, settings.skeleton)
        self._views, self._own = settings.views, settings.labelled in ("own", "both")
        self._versions = settings.versions

    def sample(self, place: Any, rng: np.random.Generator) -> Any:
        """Of a moment or of strangers: pictures (V, 256, 256, 3), turned and scaled each by itself, mirrored all or
        none; joints uv (V, J, 2) in them, NaN where there is no label; x and y of rays at nodes (V, 2, NODES, NODES),
        as `rays_at` takes them; and whether they belong together. Strangers have no rays.

        Of mirrored pictures the rays are mirrored too: they show a mirrored person, alike in all views.
        """
        rng = one_of(self._versions, place, rng)
        if isinstance(place, Strangers):
            seen = [self._stranger(one, rng) for one in place.places]
        else:
            count = len(place) if isinstance(place, tuple) else len(place.pictures)
            views = read_views(place, self.maps, rng.permutation(count)[: self._views].tolist())
            mirrored = bool(rng.random() < 0.5)
            seen = [self._view(one, mirrored, rng) for one in views]
        pictures, uv, rays = (np.stack(part) for part in zip(*seen, strict=True))
        uv[((uv < _BORDER_PX[0]) | (uv > _BORDER_PX[1])).any(axis=-1)] = np.nan  # maps cannot show it
        together = np.array(not isinstance(place, Strangers))
        return pictures, uv.astype(np.float32), rays.astype(np.float32), together

    def _stranger(self, place: Place, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Floats, Floats]:
        picture, uv, _ = read_sample(place, self.maps)
        return *augmented(augmentation(rng), picture, uv, self._mirror, rng), np.zeros((2, NODES, NODES))

    def _view(
        self, view: SeenView, mirrored: bool, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], Floats, Floats]:
        affine, _ = augmentation(rng)
        picture, uv = augmented((affine, mirrored), view.picture, view.uv_px, self._mirror, rng)
        return picture, uv if self._own else np.full_like(uv, np.nan), ray_grid(view, affine, mirrored)


def ray_grid(view: SeenView, affine: Floats, mirrored: bool) -> Floats:
    """(2, NODES, NODES) x and y at depth 1 that nodes of a view show after an `augmentation`, as `rays_at` takes them.

    Where the lens gives no ray, beyond what it can show, the affine map that is nearest to the others goes on.
    """
    nodes = np.linspace(*_BORDER_PX, NODES)
    px = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    unmirrored = np.column_stack([CROP_PX - 1 - px[:, 0], px[:, 1]]) if mirrored else px
    crop_px = (unmirrored - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
    xy = rays_of(crop_px, view.camera, view.image_from_crop)[:, :2]
    if mirrored:
        xy = xy * [-1, 1]
    known = np.asarray(np.isfinite(xy).all(axis=1))
    if not known.all():
        even = np.column_stack([px, np.ones(len(px))])
        fit = np.linalg.lstsq(even[known], xy[known], rcond=None)[0]
        xy = np.where(known[:, None], xy, even @ fit)
    return np.asarray(xy.T.reshape(2, NODES, NODES))


class ViewsTraining(MappedTraining):
    """Training of a network of model 'planar' on moments in several views, and 2D labels of these or of other crops.

    Of each joint the mean depth over all pictures stays 0, or what `start` says: cameras should stand all round.
    """

    settings: ViewsSettings

    def __init__(
        self,
        folders: Folders,
        out: Path,
        settings: ViewsSettings,
        bones: Bones | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Build the network.

        Args:
            folders: of moments (`find_moments`), of crops to measure on, and of crops with labels in 2D.
            bones: of other people; by default typical ones of the skeleton.
        Raises:
            UserError: labels that the settings ask for and nothing gives, fewer than two views, no samples, no such
                weights, a skeleton without reference bone, or a checkpoint of other settings.
        """
        if settings.labelled not in LABELLED:
            raise UserError(f"no labels '{settings.labelled}'; choose one of {', '.join(LABELLED)}")
        if (settings.labelled in ("more", "both")) != (folders.more is not None):
            raise UserError(f"labels are '{settings.labelled}'; a second folder belongs to more and both alone")
        if settings.scale not in SCALES:
            raise UserError(f"no scale by '{settings.scale}'; choose {' or '.join(SCALES)}")
        if settings.views < 2:
            raise UserError(f"{settings.views} views of a moment cannot be compared; take 2 or more")
        self.bones = bones or typical_bones(load_skeleton(settings.skeleton))
        self.limbs = self.bones.limbs
        network = begin("planar", settings.skeleton, settings.width, settings.start, settings.seed)
        network.unit_m.fill_(self.bones.reference_m)
        network.usual.requires_grad_(False)
        task = ViewsTask(network.shape, self.bones, settings)
        super().__init__(task, folders, out, settings, peers or Peers(), network)

    def find(self, folders: Folders, settings: PictureSettings) -> tuple[list[Any], list[Any]]:
        """Moments, and strangers of the second folder."""
        assert isinstance(settings, ViewsSettings)
        moments: list[Moment] = find_moments(folders.learn, settings.views)
        if folders.more is None:
            return moments, []
        places = find_samples(folders.more)
        order = np.random.default_rng([settings.seed, 29]).permutation(max(len(places), settings.views)) % len(places)
        rows = order[: len(order) // settings.views * settings.views].reshape(-1, settings.views)
        return moments, [Strangers(tuple(places[index] for index in row)) for row in rows]

    def loss(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """L_H + alpha L_MC + beta L_B."""
        images, uv, rays, together = batch
        pose, logits = self.told(images.flatten(0, 1))
        parts = [part.unflatten(0, (*together.shape, -1))[together] for part in (pose, logits)]
        parts += [uv[together], rays[together]]
        if self._checks_sign and self._reversed_is_better(parts):
            self._reverse()
            return self.loss(batch)
        total = heat_loss(logits, uv.flatten(0, 1).to(self.device)) + self.grown * self._without_labels(*parts)
        return total, total

    @property
    def _checks_sign(self) -> bool:
        return self.grown > 0 and self.step % max(self.settings.steps // CHECKS, 1) == 0

    @torch.no_grad()
    def _reversed_is_better(self, parts: list[Tensor]) -> bool:
        """Whether moments say that all depths have the wrong sign.

        Depths that are reversed in all views belong together, too, but for perspective: training ends there as often as
        not, by how it began, and no small step leads out.
        """
        pose, *others = parts
        signs = [torch.ones(3), REVERSED]
        costs = torch.stack([self._without_labels(pose * sign.to(pose), *others) for sign in signs])
        self.peers.average([costs], False)
        return bool(costs[1] < costs[0])

    @torch.no_grad()
    def _reverse(self) -> None:
        """Change the sign of all depths: of what gives them, its running mean, and where it was going."""
        first = len(self.task.maps)
        self.network.shared.neg_()
        self.mean["shared"].neg_()
        for name, value in self.network.head.named_parameters():
            going = self.optimizer.state[value].get("exp_avg", torch.zeros_like(value))
            for values in (value, self.mean[f"head.{name}"], going):
                values[first:].neg_()

    @property
    def grown(self) -> float:
        """How much of their weights consistency and bones have."""
        alone = self.settings.weights.alone * self.settings.steps
        return min(max(self.step / alone - 1, 0.0), 1.0) if alone else 1.0

    def _without_labels(self, pose: Tensor, logits: Tensor, uv: Tensor, rays: Tensor) -> Tensor:
        """What moments say of poses (B, V, J, 3); 0 if there is none.

        A joint counts for the consistency as much as its heat maps peak in both views; and, where views have labels,
        not at all without one, for it lies outside the picture.
        """
        total = torch.zeros((), device=pose.device)
        if not len(pose):
            return total
        w, bones = self.settings.weights, self.bones
        peaks = logits.detach().flatten(3).softmax(-1).amax(-1)
        if self.settings.labelled in ("own", "both"):
            peaks = peaks * torch.isfinite(uv).all(-1).to(peaks)
        at = rays_at(pose[..., :2].flatten(0, 1), rays.flatten(0, 1).to(pose), CROP_PX).view_as(pose)
        poses = normalised_poses(at, pose[..., 2] / self.network.unit_m, bones, self.settings.scale)
        if w.alpha:
            total = total + w.alpha * consistency_loss(poses, peaks)
        if w.beta:
            ends = torch.from_numpy(bones.limbs.ends).to(pose.device)
            ratio, deviation = (torch.from_numpy(those).to(pose) for those in (bones.ratio, bones.deviation))
            total = total + w.beta * bones_loss(poses, ends, ratio, deviation)
        return total

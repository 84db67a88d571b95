"""Training of networks that tell a 3D pose from one picture, on labels that runs harvested or the studio knows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harvest.detect2d.hourglass_files import read_weights
from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.errors import UserError
from harvest.learn.detector import Folders, PictureSettings, PictureTraining
from harvest.learn.peers import Peers
from harvest.learn.samples import Place, augment, find_samples, read_pose
from harvest.metrics.pose import joint_errors, similar
from harvest.monocular.files import save_monocular
from harvest.monocular.lift import Limbs, lift, mean_limbs, rays_of
from harvest.monocular.networks import CROP_PX, HALF_PX, MODELS, ROOT, UNIT_M, MonocularNetwork, Shape, predict_crops
from harvest.skeleton import Skeleton, load_skeleton

WEIGHTS = "monocular.safetensors"
MEASURE_BATCH = 16
LIMB_SAMPLES = 2000  # from which limbs are measured


@dataclass(frozen=True, kw_only=True)
class MonocularSettings(PictureSettings):
    """How a monocular network is trained.

    model: of MODELS, see `MonocularNetwork`. skeleton: built-in, of the joints.
    start: weights of an hourglass or a monocular network whose parts it begins with; empty for the published features
    alone. share: of samples from a second folder.
    """

    model: str = "volumetric"
    skeleton: str = "harvest21"
    start: str = ""
    width: int = 128
    steps: int = 3000


class PoseTask:
    """x and y in pixels, z in metres from the pelvis, of the joints that labels know (Pavlakos et al. 2017, eq. 5)."""

    measures: tuple[str, ...] = ("mpjpe_mm", "aligned_mm")

    def __init__(self, shape: Shape, limbs: Limbs, skeleton: str) -> None:
        """For a network of that shape; limbs are those of the people it learns from."""
        self.maps, self.limbs, self._squared = shape.joints, limbs, shape.model == "regression"
        self._mirror, self._root = load_skeleton(skeleton).mirror, shape.joints.index(ROOT)

    def prepare(self, network: HarvestHourglass) -> None:
        """Nothing to set."""

    def sample(self, place: Place, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A crop, turned, scaled and mirrored, and what is true of it: (J, 3), NaN where unknown.

        A turn in the picture is one about the camera's axis, and a change of scale one of the distance: neither
        changes depths from the pelvis. Where it has no label, they are from the mean of those that have.
        """
        found = read_pose(place, self.maps)
        depth = found.xyz_m[:, 2] - found.xyz_m[self._root, 2]
        if (known := np.isfinite(found.xyz_m[:, 2])).any() and not known[self._root]:
            depth = found.xyz_m[:, 2] - found.xyz_m[known, 2].mean()
        picture, truth = augment(found.picture, np.column_stack([found.uv_px, depth]), self._mirror, rng)
        outside = ((truth[:, :2] < -0.5) | (truth[:, :2] > CROP_PX - 0.5)).any(axis=1)
        truth[outside, :2] = np.nan  # maps cannot show it
        return picture, truth.astype(np.float32)

    def loss(self, scores: Tensor, truth: Tensor) -> Tensor:
        """Mean over known numbers of the distance in units of half a crop and UNIT_M: squared (eq. 5) for the
        regression, absolute for networks with maps, which would blur to please a few outliers.
        """
        depth = same_origin(scores[..., 2], truth[..., 2], self._root)
        found = torch.cat([scores[..., :2], depth[..., None]], dim=-1)
        off = (found - truth) / truth.new_tensor([HALF_PX, HALF_PX, UNIT_M])
        told = torch.isfinite(off)
        off = torch.where(told, off, 0.0)
        return (off.square() if self._squared else off.abs()).sum() / told.sum().clamp_min(1)

    def measure(self, network: MonocularNetwork, places: list[Place], bf16: bool) -> tuple[float, float]:
        """Mean distance of joints in millimetres, pelvis on pelvis, and after the best similarity."""
        errors = pose_errors_mm(network, self.limbs, places, bf16)
        return tuple(float(np.nanmean(error)) if np.isfinite(error).any() else math.nan for error in errors)  # type: ignore[return-value]


def same_origin(depth: Tensor, truth: Tensor, root: int) -> Tensor:
    """Depths (B, J), those of samples whose root has no true one (B, J, NaN where unknown) moved until their mean error
    is 0: their truth is known but for a constant.
    """
    known = torch.isfinite(truth)
    off = torch.where(known, torch.nan_to_num(truth) - depth, 0.0)
    shift = off.sum(1) / known.sum(1).clamp_min(1)
    return depth + torch.where(known[:, root], 0.0, shift)[:, None]


def pose_errors_mm(
    network: MonocularNetwork, limbs: Limbs, places: list[Place], bf16: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, J) distances from what labels say in millimetres: pelvis on pelvis, and after the best similarity; NaN where
    a label knows no such joint, or no pelvis.

    The distance to the person is that of one of usual size (`lift`); nothing of it is taken from the labels.
    """
    ours, theirs = poses_told(network, limbs, places, bf16)
    absolute, aligned = (1000 * joint_errors(points, theirs) for points in (ours, similar(ours, theirs)))
    return absolute, aligned


def poses_told(
    network: MonocularNetwork, limbs: Limbs, places: list[Place], bf16: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, J, 3) what a network says and what labels say, metres from the pelvis along the camera's axes; NaN where a
    label knows no such joint, or no pelvis.
    """
    joints = network.shape.joints
    root, ours, theirs = joints.index(ROOT), [], []
    for first in range(0, len(places), MEASURE_BATCH):
        read = [read_pose(place, joints) for place in places[first : first + MEASURE_BATCH]]
        given = predict_crops(network, np.stack([one.picture for one in read]), bf16)
        for one, told in zip(read, given, strict=True):
            xyz = lift(rays_of(told[:, :2], one.camera, one.image_from_crop), told[:, 2], limbs)
            ours.append(xyz - xyz[root])
            theirs.append(one.xyz_m - one.xyz_m[root])
    return np.array(ours), np.array(theirs)


class MonocularTraining(PictureTraining[MonocularNetwork]):
    """Training of a monocular network on folders of crops."""

    settings: MonocularSettings

    def __init__(self, folders: Folders, out: Path, settings: MonocularSettings, peers: Peers | None = None) -> None:
        """Build the network, and measure the limbs of those it learns from.

        Raises:
            UserError: an unknown model, no samples, samples without joints in space, no such weights, or a
                checkpoint of other settings.
        """
        network = begin(settings.model, settings.skeleton, settings.width, settings.start, settings.seed)
        self.limbs = limbs_of(folders.learn, load_skeleton(settings.skeleton))
        task = PoseTask(network.shape, self.limbs, settings.skeleton)
        super().__init__(task, folders, out, settings, peers or Peers(), network)

    def save_weights(self, network: MonocularNetwork) -> None:
        """For `harvest predict --weights`."""
        save_monocular(network, self.limbs, self.out / WEIGHTS)


def begin(model: str, skeleton: str, width: int, start: str, seed: int) -> MonocularNetwork:
    """A network to train: the published features, of `start` what fits, all else fresh.

    Raises:
        UserError: no such model or width, a skeleton without ROOT, or no such weights.
    """
    joints = load_skeleton(skeleton).joints
    if ROOT not in joints:
        raise UserError(f"skeleton '{skeleton}' has no {ROOT}, from which depths are told; choose another")
    try:
        shape = Shape(model, joints, width)
    except ValueError as error:
        raise UserError(f"{error}; choose {' or '.join(MODELS)}, and an even width") from None
    torch.manual_seed(seed)
    network = MonocularNetwork(shape)
    features, _ = read_weights(shipped(DETECTOR))
    network.start_from({key: value for key, value in features.items() if key.startswith("features.")})
    if start:
        network.start_from(read_weights(Path(start))[0])
    return network


def some_poses(folder: Path, joints: tuple[str, ...]) -> NDArray[np.float64]:
    """(N, J, 3) metres in the camera's frame, of crops spread evenly over a folder; NaN where unknown."""
    places = find_samples(folder)
    some = [places[index] for index in np.unique(np.linspace(0, len(places) - 1, LIMB_SAMPLES).round().astype(int))]
    return np.array([read_pose(place, joints).xyz_m for place in some])


def limbs_of(folder: Path, skeleton: Skeleton) -> Limbs:
    """Mean limbs of the people in a folder of crops.

    Raises:
        UserError: it knows none in space.
    """
    try:
        return mean_limbs(some_poses(folder, skeleton.joints), skeleton.parents.tolist())
    except ValueError:
        raise UserError(
            f"{folder} knows no joints in space; learn from labels of several views, ps+sel or ps"
        ) from None

"""Training of triangulation on multi-view heat maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from harvest.errors import UserError
from harvest.learn.map_samples import Batch, MapBatches, batch_of
from harvest.learn.map_sets import MapSet
from harvest.learn.peers import Peers
from harvest.learn.training import Training, TrainingSettings
from harvest.triangulate3d.from_maps import MapAlgebraic
from harvest.triangulate3d.losses import HEAT_SHARE, soft_mse, volumetric_loss
from harvest.triangulate3d.map_files import Triangulator, save_triangulator
from harvest.triangulate3d.map_volume import LEVELS, VOXELS, MapVolumetric
from harvest.triangulate3d.volumetric import Cube, How, VolumePose

Kind = Literal["algebraic", "volumetric"]
WEIGHTS = "triangulation.safetensors"
_CM2 = 1e4  # square centimetres in a square metre: slopes of a size that the optimiser tells from its epsilon
_READERS = 4  # processes that read for a GPU


@dataclass(frozen=True, kw_only=True)
class TriangulationSettings(TrainingSettings):
    """How triangulation is trained.

    how, voxels, levels, beta: of the volumetric model alone, the last of its loss; width: None for the model's own.
    bf16: of the volumetric model's convolutions alone.
    """

    model: Kind = "algebraic"
    how: How = "softmax"
    voxels: int = VOXELS
    levels: int = LEVELS
    beta: float = HEAT_SHARE
    width: int | None = None
    batch: int = 16
    warm: int = 200
    clip: float = 10.0
    validate: int = 256


def build_triangulator(settings: TriangulationSettings, joints: tuple[str, ...]) -> Triangulator:
    """A network with fresh parameters, for maps of those joints.

    Raises:
        UserError: sizes that no network has.
    """
    if settings.model not in get_args(Kind):
        raise UserError(f"--model takes {' or '.join(get_args(Kind))}, got '{settings.model}'")
    width = {} if settings.width is None else {"width": settings.width}
    if settings.model == "algebraic":
        return MapAlgebraic(**width)
    if settings.batch * (settings.voxels / 2 ** (settings.levels + 1)) ** 3 < 2:
        raise UserError("the innermost layer would see one voxel, too few to normalise; give a larger --batch")
    try:
        return MapVolumetric(joints, settings.how, n=settings.voxels, levels=settings.levels, **width)
    except ValueError as error:
        raise UserError(f"no volumetric model can be made of these settings: {error}") from None


def loss_of(model: Triangulator, batch: Batch, bf16: bool, beta: float = HEAT_SHARE) -> Tensor:
    """How wrong the joints of a batch are, by the loss of the model's kind.

    Algebraic: the softened squared error in square centimetres. Volumetric: absolute errors in the cube's own metres,
    and `beta` times the heat at the truth.
    Source: Iskakov et al. 2019, eq. 15 and 16.
    """
    if isinstance(model, MapAlgebraic):
        pose = model(batch.views)
        return _CM2 * soft_mse(pose.xyz_m, batch.xyz_m, pose.found)
    volume, cube = _volume(model, batch, bf16)
    return volumetric_loss(volume, batch.place.into(batch.xyz_m).to(volume.mean_m), cube, heat_share=beta)


def joints_of(model: Triangulator, batch: Batch, bf16: bool) -> Tensor:
    """(B, J, 3) where a model finds the joints of a batch in the world, NaN where it does not."""
    if isinstance(model, MapAlgebraic):
        found: Tensor = model(batch.views).xyz_m
        return found
    mean = _volume(model, batch, bf16)[0].mean_m.to(batch.centre_m)
    return batch.place.out_of(mean, mean.new_zeros(*mean.shape, 3))[0]


def _volume(model: MapVolumetric, batch: Batch, bf16: bool) -> tuple[VolumePose, Cube]:
    with torch.autocast(batch.score.device.type, torch.bfloat16, enabled=bf16):
        volume: tuple[VolumePose, Cube] = model(batch.views, batch.place)
    return volume


class TriangulationTraining(Training[Triangulator]):
    """Training of a network that triangulates, on sets of maps."""

    settings: TriangulationSettings
    measures = ("mpjpe_mm", "median_mm", "found")

    def __init__(
        self,
        maps: MapSet,
        out: Path,
        settings: TriangulationSettings,
        validation: MapSet | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Build the network, or load it.

        Raises:
            UserError: a checkpoint of other settings, or a validation set of other joints.
        """
        if validation is not None and settings.model == "volumetric" and validation.joints != maps.joints:
            raise UserError(f"{validation.folder} holds maps of other joints than {maps.folder}; use one detector")
        self.maps, self.validation = maps, validation
        torch.manual_seed(settings.seed)
        super().__init__(out, settings, build_triangulator(settings, maps.joints), peers or Peers(), maps.joints)

    def batches(self) -> Iterator[Batch]:
        """Moments of equally many views."""
        s = self.settings
        batches = MapBatches(self.maps, s.batch, s.steps, self.step, s.seed, self.peers)
        if self.device.type != "cuda":
            yield from (batches[index] for index in range(len(batches)))
        elif len(batches):
            yield from DataLoader(batches, None, num_workers=_READERS, multiprocessing_context="spawn")

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`loss_of` the batch."""
        loss = loss_of(self.network, batch.to(self.device), self.settings.bf16, self.settings.beta)
        return loss, loss

    def measure(self, network: Triangulator) -> tuple[float, float, float] | None:
        """`measure` on the validation set."""
        if self.validation is None:
            return None
        return measure(network, self.validation, self.settings.validate, self.settings.batch, bf16=self.settings.bf16)

    def save_weights(self, network: Triangulator) -> None:
        """For `reconstruct: {weights: FILE}` in a run's settings."""
        save_triangulator(network, self.out / WEIGHTS)


@torch.no_grad()
def measure(model: Triangulator, maps: MapSet, most: int, batch: int, *, bf16: bool) -> tuple[float, float, float]:
    """Mean and median distance to the truth in mm, over the joints found of at most so many items, all views of each;
    and the share of known joints that are found.
    """
    device = next(model.parameters()).device
    errors: list[NDArray[np.float64]] = []
    for first in range(0, min(most, len(maps)), batch):
        items = [maps[index] for index in range(first, min(first + batch, most, len(maps)))]
        loaded = batch_of(items, np.random.default_rng(first), augment=False).to(device)
        xyz_m = joints_of(model, loaded, bf16)
        off = (xyz_m - loaded.xyz_m).square().sum(-1).sqrt()[loaded.xyz_m.isfinite().all(-1)]
        errors.append(1000 * off.cpu().numpy())
    error = np.concatenate(errors)
    found = error[np.isfinite(error)]
    if not found.size:
        return float("nan"), float("nan"), 0.0
    return float(found.mean()), float(np.median(found)), found.size / error.size

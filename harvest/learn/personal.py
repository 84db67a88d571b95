"""Fine-tuning a detector on labels that were harvested from a subject's own footage."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harvest.detect2d.hourglass import StackedHourglass, images_of
from harvest.detect2d.hourglass_detector import HourglassDetector
from harvest.detect2d.hourglass_files import load_hourglass, save_hourglass
from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.learn.adapt import adapt, merged
from harvest.learn.detector import WEIGHTS, Folders, PictureSettings, PictureTraining
from harvest.learn.joints_task import peaks_in_maps
from harvest.learn.map_loss import map_loss, squared_loss
from harvest.learn.peers import Peers
from harvest.learn.samples import CROP_PX, Place, augment, read_sample
from harvest.learn.training import CURVE, DIGITS
from harvest.skeleton import mirror_name

NEAR = (0.025, 0.05)  # of the crop's side
MEASURE_BATCH = 16
LOSS = "held_out_loss"


@dataclass(frozen=True, kw_only=True)
class PersonalSettings(PictureSettings):
    """How a detector is fine-tuned; by default as Pavlakos et al. 2017, section 4.2, say: RMSprop, small batches.

    way, rank: what may change (`harvest.learn.adapt`). start_share: of the weights that it begins with in those that it
    ends with, which are the mean of both: it forgets less of what it knew, and takes over less of what labels do not
    know (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"); docs/measurements.md has figures. patience:
    so many measurements in a row without a smaller loss on what is held out end it.
    """

    optimizer: Literal["adamw", "rmsprop"] = "rmsprop"
    batch: int = 4
    rate: float = 2.5e-4
    warm: int = 20
    decay: float = 0.0
    clip: float = 10.0
    ema: float = 0.98
    share: float = 0.0
    way: str = "all"
    rank: int = 4
    start_share: float = 0.5
    patience: int = 2


class SubjectTask:
    """Heat maps of a network's own joints on harvested crops; joints without a label have no say."""

    measures: tuple[str, ...] = (LOSS, *(f"within_{share:g}" for share in NEAR))

    def __init__(self, network: StackedHourglass) -> None:
        """Take joints and kind of maps from the network: probabilities of ours, plain maps of published ones."""
        self.maps = network.joints
        self._mirror = np.array([self.maps.index(mirror_name(joint, self.maps)) for joint in self.maps])
        self._loss = map_loss if isinstance(network, HarvestHourglass) else squared_loss

    def prepare(self, network: HarvestHourglass) -> None:
        """Nothing: the network has learnt before."""

    def sample(self, place: Place, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A crop, turned, scaled and mirrored, and its joints (J, 2) in pixels, NaN where there is no label."""
        picture, uv, _ = read_sample(place, self.maps)
        picture, uv = augment(picture, uv, self._mirror, rng)
        return picture, uv.astype(np.float32)

    def loss(self, scores: Tensor, truth: Tensor) -> Tensor:
        """How wrong maps (B, J, cells, cells) are, given joints (B, J, 2)."""
        return self._loss(scores, truth)

    def measure(self, network: StackedHourglass, places: list[Place], bf16: bool) -> tuple[float, ...]:
        """Loss, and shares of labels within NEAR of the crop's side of the map's peak; of a network that has left all
        numbers behind infinity and 0.
        """
        losses, errors = [], []
        for first in range(0, len(places), MEASURE_BATCH):
            loaded = [read_sample(place, self.maps) for place in places[first : first + MEASURE_BATCH]]
            uv = np.stack([joints for _, joints, _ in loaded])
            scores = _scores(network, np.stack([picture for picture, _, _ in loaded]), bf16)
            if not scores.isfinite().all():
                return math.inf, *(0.0 for _ in NEAR)
            told = int(np.isfinite(uv).all(axis=2).sum())
            losses.append((float(self.loss(scores, torch.from_numpy(uv.astype(np.float32)))), told))
            peaks = peaks_in_maps(network.maps(scores).numpy(), network.joints, HourglassDetector.crop_from_heatmap)
            errors.append(np.linalg.norm(peaks - uv, axis=2))
        error = np.concatenate(errors)
        error = error[np.isfinite(error)]
        total = sum(count for _, count in losses)
        mean = sum(loss * count for loss, count in losses) / max(total, 1)
        return mean, *(float((error < share * CROP_PX).mean()) if len(error) else math.nan for share in NEAR)


@torch.inference_mode()
def _scores(network: StackedHourglass, crops: NDArray[np.uint8], bf16: bool) -> Tensor:
    """(B, J, cells, cells) the finest scores of crops (B, 256, 256, 3)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return network(images_of(crops, network.mean_rgb))[:, -1].float()


class PersonalTraining(PictureTraining[StackedHourglass]):
    """Fine-tuning that ends early where held-out footage is no longer understood better, and keeps the best weights.

    Attributes:
        best: the least loss on what is held out, so far.
    """

    settings: PersonalSettings

    def __init__(self, folders: Folders, out: Path, settings: PersonalSettings, peers: Peers | None = None) -> None:
        """Load what to begin with.

        Raises:
            UserError: as `PictureTraining`, `load_hourglass` and `adapt`.
        """
        network = load_hourglass(settings.start)
        task = SubjectTask(network)
        torch.manual_seed(settings.seed)
        self._start = {key: value.clone() for key, value in network.state_dict().items()}
        adapt(network, settings.way, settings.rank)
        super().__init__(task, folders, out, settings, peers or Peers(), network)
        self.best, self._worse = math.inf, 0
        for loss in losses_of(out / CURVE, self.step):
            self._count(loss)

    def run(self, most_seconds: float = math.inf) -> None:
        """As any training; where it begins is measured first."""
        if self.step == 0 and self.peers.rank == 0 and not (self.out / CURVE).is_file():
            self.note(math.nan)
        super().run(most_seconds)

    def make_ready(self) -> None:
        """Few pictures of one person say little of what batch norms should expect: these stay as they are."""
        self.network.train()
        for part in self.network.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()

    def averaged(self) -> StackedHourglass:
        """A plain network: the running mean of what was learnt, and its share of the start."""
        network = merged(super().averaged())
        mixed = {
            key: torch.lerp(value, self._start[key].to(value.device), self.settings.start_share)
            if value.dtype.is_floating_point
            else value
            for key, value in network.state_dict().items()
        }
        network.load_state_dict(mixed)
        return network

    def judge(self, network: StackedHourglass, measured: Sequence[float]) -> None:
        """Keep the weights if they are the best so far."""
        loss = float(f"{measured[0]:{DIGITS}}")  # as the curve keeps it, from which a training that goes on takes it
        if loss < self.best:
            save_hourglass(network, self.out / WEIGHTS)
        self._count(loss)

    def save_weights(self, network: StackedHourglass) -> None:
        """Only where nothing was held out to choose by: the last weights."""
        if not self._validation:
            save_hourglass(network, self.out / WEIGHTS)

    def _count(self, loss: float) -> None:
        self._worse = 0 if loss < self.best else self._worse + 1
        self.best = min(self.best, loss)
        self.enough = self._worse >= self.settings.patience


def losses_of(curve: Path, before: float = math.inf) -> list[float]:
    """Losses on what is held out in a curve.csv, up to a step, each step once."""
    if not curve.is_file():
        return []
    with curve.open(encoding="utf-8", newline="") as file:
        rows = {int(row["step"]): float(row[LOSS]) for row in csv.DictReader(file)}
    return [loss for step, loss in sorted(rows.items()) if step <= before]

"""Training of triangulation on multi-view heat maps: a running mean of the weights, exact resume."""

from __future__ import annotations

import csv
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from harvest.detect2d.hourglass_detector import fast_bf16
from harvest.errors import UserError
from harvest.learn.course import cosine, sigterm
from harvest.learn.map_samples import Batch, MapBatches, batch_of
from harvest.learn.map_sets import MapSet
from harvest.memory import keep_memory
from harvest.triangulate3d.from_maps import LEVELS, VOXELS, MapAlgebraic, MapVolumetric
from harvest.triangulate3d.losses import soft_mse, volumetric_loss
from harvest.triangulate3d.map_files import Triangulator, save_triangulator
from harvest.triangulate3d.volumetric import Cube, How, VolumePose

Kind = Literal["algebraic", "volumetric"]
WEIGHTS, CHECKPOINT, CURVE = "triangulation.safetensors", "checkpoint.pt", "curve.csv"
MEASURES = ("mpjpe_mm", "median_mm", "found")
_CM2 = 1e4  # square centimetres in a square metre: slopes of a size that the optimiser tells from its epsilon
_LEAST_RATE = 0.02  # of the rate's height, at the end
_READERS = 4  # processes that read for a GPU


@dataclass(frozen=True)
class TriangulationSettings:
    """How triangulation is trained.

    how, voxels, levels: of the volumetric model alone; width: None for the model's own. steps: batches. rate: of AdamW
    at its height, reached after `warm` steps and going down as a cosine. decay: of weights. clip: longest gradient.
    ema: share that the running mean of the weights keeps each step. bf16: compute the volumetric model's convolutions
    in bfloat16 where the processor has it. checkpoint_s: seconds between checkpoints. validate: items of the validation
    set looked at each time.
    """

    model: Kind = "algebraic"
    how: How = "softmax"
    voxels: int = VOXELS
    levels: int = LEVELS
    width: int | None = None
    steps: int = 20_000
    batch: int = 16
    rate: float = 1e-3
    warm: int = 200
    decay: float = 1e-4
    clip: float = 10.0
    ema: float = 0.999
    bf16: bool = True
    seed: int = 0
    checkpoint_s: float = 180.0
    validate: int = 256
    validate_every: int = 500


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
    if settings.batch * (settings.voxels / 2**settings.levels) ** 3 < 2:
        raise UserError("the innermost layer would see one voxel, too few to normalise; give a larger --batch")
    try:
        return MapVolumetric(joints, settings.how, n=settings.voxels, levels=settings.levels, **width)
    except ValueError as error:
        raise UserError(f"no volumetric model can be made of these settings: {error}") from None


def loss_of(model: Triangulator, batch: Batch, bf16: bool) -> Tensor:
    """How wrong the joints of a batch are, by the loss of the model's kind.

    Algebraic: the softened squared error in square centimetres. Volumetric: absolute errors in the cube's own metres,
    and the heat at the truth.
    Source: Iskakov et al. 2019, eq. 15 and 16.
    """
    if isinstance(model, MapAlgebraic):
        pose = model(batch.views)
        return _CM2 * soft_mse(pose.xyz_m, batch.xyz_m, pose.found)
    volume, cube = _volume(model, batch, bf16)
    return volumetric_loss(volume, batch.place.into(batch.xyz_m).to(volume.mean_m), cube)


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


class TriangulationTraining:
    """A training in a folder: begins anew, or goes on where a checkpoint of the same settings stands."""

    def __init__(
        self, maps: MapSet, out: Path, settings: TriangulationSettings, validation: MapSet | None = None
    ) -> None:
        """Build the network, or load it.

        Raises:
            UserError: a checkpoint of other settings, or a validation set of other joints.
        """
        if validation is not None and settings.model == "volumetric" and validation.joints != maps.joints:
            raise UserError(f"{validation.folder} holds maps of other joints than {maps.folder}; use one detector")
        self.maps, self.settings, self.out, self.validation = maps, settings, out, validation
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._bf16 = settings.bf16 and (self.device.type == "cuda" or fast_bf16())
        torch.manual_seed(settings.seed)
        self.network = build_triangulator(settings, maps.joints).to(self.device)
        self.mean = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.network.parameters(), settings.rate, weight_decay=settings.decay)
        self.step, self.seconds = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        self._resume()

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.is_file():
            return
        stored = torch.load(path, map_location=self.device, weights_only=True)
        free = ("steps", "checkpoint_s", "validate", "validate_every")  # may change without a new beginning
        before, now = stored["settings"], asdict(self.settings) | {"joints": list(self.maps.joints)}
        if changed := [key for key in now if key not in free and before.get(key) != now[key]]:
            changes = ", ".join(f"{key} {before.get(key)} (now {now[key]})" for key in changed)
            raise UserError(f"{self.out} holds a training with {changes}; give another --out, or the same to go on")
        self.network.load_state_dict(stored["network"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.mean, self.step, self.seconds = stored["mean"], stored["step"], stored["seconds"]

    def run(self, most_seconds: float = float("inf")) -> None:
        """Train to the last step, for so many seconds, or until SIGTERM; weights, checkpoint and curve are written on
        the way.
        """
        with sigterm() as asked_to_stop:
            self._run(most_seconds, asked_to_stop)

    def _run(self, most_seconds: float, asked_to_stop: threading.Event) -> None:
        begin = saved = time.monotonic()
        keep_memory()
        with tqdm(total=self.settings.steps, initial=self.step, desc="train", unit="batch") as bar:
            for batch in self._batches():
                loss = self._learn(batch.to(self.device))
                self.step += 1
                bar.update()
                bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
                now = time.monotonic()
                stops = asked_to_stop.is_set() or now - begin > most_seconds
                if now - saved > self.settings.checkpoint_s:
                    self.seconds += now - saved
                    saved = now
                    self.save()
                if self.validation and self.step % self.settings.validate_every == 0:
                    self._note(loss, self.seconds + time.monotonic() - saved)
                if stops:
                    break
        self.seconds += time.monotonic() - saved
        self.save()

    def _batches(self) -> Iterator[Batch]:
        s = self.settings
        batches = MapBatches(self.maps, s.batch, s.steps, self.step, s.seed)
        if self.device.type != "cuda":
            yield from (batches[index] for index in range(len(batches)))
        elif len(batches):
            yield from DataLoader(batches, None, num_workers=_READERS, multiprocessing_context="spawn")

    def _learn(self, batch: Batch) -> float:
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate * min(1.0, (self.step + 1) / s.warm, _LEAST_RATE + cosine(self.step / s.steps))
        self.network.train()
        loss = loss_of(self.network, batch, self._bf16)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.clip).isfinite():
            self.optimizer.step()
        with torch.no_grad():
            keep = min(s.ema, (self.step + 1) / (self.step + 10))
            for key, value in self.network.state_dict().items():
                if value.dtype.is_floating_point:
                    self.mean[key].lerp_(value, 1 - keep)
                else:
                    self.mean[key].copy_(value)
        return float(loss.detach())

    def save(self) -> None:
        """Write the checkpoint, and the running mean as weights that `harvest run` takes."""
        stored = {
            "settings": asdict(self.settings) | {"joints": list(self.maps.joints)},
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "mean": self.mean,
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.out / f"{CHECKPOINT}.partial"
        torch.save(stored, partial)
        os.replace(partial, self.out / CHECKPOINT)
        save_triangulator(self.averaged(), self.out / WEIGHTS)

    def averaged(self) -> Triangulator:
        """The network with the running mean of its weights, in eval mode."""
        network = build_triangulator(self.settings, self.maps.joints).to(self.device)
        network.load_state_dict(self.mean)
        return network.eval()

    def _note(self, loss: float, seconds: float) -> None:
        """Append a line to the curve: step, hours, loss, how wrong the running mean is on the validation set."""
        assert self.validation is not None
        s = self.settings
        measured = measure(self.averaged(), self.validation, s.validate, s.batch, bf16=self._bf16)
        path = self.out / CURVE
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "hours", "loss", *MEASURES])
            writer.writerow([self.step, f"{seconds / 3600:.3f}", *(f"{value:.5g}" for value in (loss, *measured))])
        draw_errors(path, path.with_suffix(".png"))


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


def draw_errors(table: Path, out: Path) -> None:
    """A picture of a training's curve.csv: errors in mm, and the loss."""
    from matplotlib.figure import Figure

    with table.open(encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    step = [row["step"] for row in rows]
    figure = Figure(figsize=(8, 4), layout="constrained")
    errors, losses = figure.subplots(1, 2)
    for name in MEASURES[:2]:
        errors.plot(step, [row[name] for row in rows], label=name.removesuffix("_mm"))
    errors.set(xlabel="batches", ylabel="error in mm")
    errors.set_ylim(bottom=0)
    errors.legend()
    losses.semilogy(step, [row["loss"] for row in rows])
    losses.set(xlabel="batches", ylabel="loss")
    figure.savefig(out, dpi=120)

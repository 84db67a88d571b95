"""Training of a stacked hourglass on crops: intermediate supervision, a running mean of its weights, exact resume."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from harvest.detect2d.hourglass import StackedHourglass, build_hourglass, save_hourglass
from harvest.errors import UserError
from harvest.learn.samples import CELLS, CROP_PX, Place, augment, find_samples, heat_maps, read_sample
from harvest.skeleton import load_skeleton

WEIGHTS, CHECKPOINT, CURVE = "hourglass.safetensors", "checkpoint.pt", "curve.csv"


@dataclass(frozen=True)
class TrainSettings:
    """How a detector is trained.

    stacks, width: of the hourglass. steps: batches. rate: of AdamW at its height, reached after `warm` steps and going
    down as a cosine. ema: share that the running mean of the weights keeps each step. bf16: compute in bfloat16.
    checkpoint_s: seconds between checkpoints. validate: crops of the validation set looked at each time.
    """

    joint_set: str = "mpii16"
    stacks: int = 2
    width: int = 128
    steps: int = 50_000
    batch: int = 16
    rate: float = 1e-3
    warm: int = 500
    decay: float = 1e-4
    ema: float = 0.999
    bf16: bool = True
    seed: int = 0
    checkpoint_s: float = 180.0
    validate: int = 512
    validate_every: int = 500


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Sample k of the endless, shuffled and augmented sequence of a seed; the same whoever asks for it."""

    def __init__(self, places: list[Place], settings: TrainSettings, first: int) -> None:
        """Take all samples, and the number of the first one that will be asked for."""
        self._places, self._settings, self._first = places, settings, first
        self._order: tuple[int, NDArray[np.int64]] = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        """All that is left of the training."""
        return self._settings.steps * self._settings.batch - self._first

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Picture (3, 256, 256) uint8 and heat maps (J, 64, 64) float32."""
        number = index + self._first
        epoch, row = divmod(number, len(self._places))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._settings.seed, epoch]).permutation(len(self._places))
        picture, uv, _ = read_sample(self._places[self._order[1][row]], self._settings.joint_set)
        rng = np.random.default_rng([self._settings.seed, number])
        picture, uv = augment(picture, uv, self._settings.joint_set, rng)
        return torch.from_numpy(picture.transpose(2, 0, 1).copy()), torch.from_numpy(heat_maps(uv))


class Training:
    """A training in a folder: begins anew, or goes on where a checkpoint of the same settings stands."""

    def __init__(self, crops: Path, validation: Path | None, out: Path, settings: TrainSettings) -> None:
        """Find the samples, build or load the network.

        Raises:
            UserError: no samples, or a checkpoint of other settings.
        """
        self.settings, self.out = settings, out
        self._places = find_samples(crops)
        self._validation = find_samples(validation)[: settings.validate] if validation else []
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(settings.seed)
        joints = load_skeleton(settings.joint_set).joints
        self.network = build_hourglass("slim", settings.stacks, settings.width, joints).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _begin_empty(self.network)
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
        before = {key: value for key, value in stored["settings"].items() if key not in free}
        now = {key: value for key, value in asdict(self.settings).items() if key not in free}
        if before != now:
            changed = ", ".join(
                f"{key} {before.get(key)} (now {now[key]})" for key in now if before.get(key) != now[key]
            )
            raise UserError(f"{self.out} holds a training with {changed}; give another --out, or the same to go on")
        self.network.load_state_dict(stored["network"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.mean, self.step, self.seconds = stored["mean"], stored["step"], stored["seconds"]

    def run(self, most_seconds: float = float("inf")) -> None:
        """Train to the last step, or for so many seconds; weights, checkpoint and curve are written on the way."""
        begin = saved = time.monotonic()
        bar = tqdm(total=self.settings.steps, initial=self.step, desc="train", unit="batch")
        for images, targets in self._batches():
            loss = self._learn(images, targets)
            self.step += 1
            bar.update()
            bar.set_postfix(loss=f"{loss:.2e}", refresh=False)
            now = time.monotonic()
            if self._validation and self.step % self.settings.validate_every == 0:
                self._note(loss)
            if now - saved > self.settings.checkpoint_s or now - begin > most_seconds:
                self.seconds += now - saved
                saved = now
                self.save()
                if now - begin > most_seconds:
                    break
        self.seconds += time.monotonic() - saved
        bar.close()
        self.save()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        samples = Samples(self._places, self.settings, self.step * self.settings.batch)
        if len(samples) <= 0:
            return
        # Spawned, not forked: OpenCV's threads do not survive a fork.
        yield from DataLoader(
            samples,
            self.settings.batch,
            num_workers=1,
            prefetch_factor=4,
            worker_init_fn=_one_thread,
            multiprocessing_context="spawn",
        )

    def _learn(self, images: Tensor, targets: Tensor) -> float:
        """One step; gives the loss of the last stack."""
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate * min(1.0, (self.step + 1) / s.warm, 0.02 + _cosine(self.step / s.steps))
        self.network.train()
        scores = self._scores(images)
        errors = ((scores - targets.to(self.device)[:, None]) ** 2).mean(dim=(0, 2, 3, 4))
        self.optimizer.zero_grad(set_to_none=True)
        (errors.sum() * CELLS).backward()  # so that gradients do not get lost below AdamW's epsilon
        self.optimizer.step()
        with torch.no_grad():
            keep = min(s.ema, (self.step + 1) / (self.step + 10))
            for key, value in self.network.state_dict().items():
                if value.dtype.is_floating_point:
                    self.mean[key].lerp_(value, 1 - keep)
                else:
                    self.mean[key].copy_(value)
        return float(errors[-1].detach())

    def _scores(self, images: Tensor, network: nn.Module | None = None) -> Tensor:
        mean_rgb = torch.tensor(self.network.mean_rgb, device=self.device)
        x = (images.to(self.device).permute(0, 2, 3, 1) / 255 - mean_rgb).permute(0, 3, 1, 2)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            return (network or self.network)(x.contiguous(memory_format=torch.channels_last)).float()

    def save(self) -> None:
        """Write the checkpoint, and the running mean as weights that `harvest run --weights` takes."""
        stored = {
            "settings": asdict(self.settings),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "mean": self.mean,
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.out / f"{CHECKPOINT}.partial"
        torch.save(stored, partial)
        os.replace(partial, self.out / CHECKPOINT)
        save_hourglass(self._averaged(), self.out / WEIGHTS)

    def _averaged(self) -> StackedHourglass:
        network = build_hourglass("slim", self.settings.stacks, self.settings.width, self.network.joints)
        network.load_state_dict({key: value.cpu() for key, value in self.mean.items()})
        return network.eval()

    def _note(self, loss: float) -> None:
        """Append a line to the curve: step, hours, loss, PCKh of the running mean's weights on the validation crops."""
        near, far = pckh(self._averaged(), self._validation, self.settings)
        path = self.out / CURVE
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "hours", "loss", "pckh_0.2", "pckh_0.5"])
            writer.writerow([self.step, f"{self.seconds / 3600:.3f}", f"{loss:.4e}", f"{near:.4f}", f"{far:.4f}"])
        draw_curve(path, path.with_suffix(".png"))


def _begin_empty(network: StackedHourglass) -> None:
    """Let a fresh network answer with nearly empty maps, as most cells are; else it first has to forget its noise."""
    for stack in range(network.stacks):
        score = network.get_submodule(f"score.{stack}")
        assert isinstance(score, nn.Conv2d) and score.bias is not None
        nn.init.normal_(score.weight, std=1e-3)
        nn.init.zeros_(score.bias)


def _one_thread(_: int) -> None:
    """A reader leaves the processors to the training."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _cosine(share: float) -> float:
    return 0.5 + 0.5 * float(np.cos(np.pi * min(share, 1.0)))


def pckh(network: nn.Module, places: list[Place], settings: TrainSettings) -> tuple[float, float]:
    """Shares of joints inside the picture that are found within 0.2 and 0.5 of the way from upper neck to head top."""
    joints = load_skeleton(settings.joint_set).joints
    right, total = np.zeros(2), 0
    for first in range(0, len(places), 32):
        loaded = [read_sample(place, settings.joint_set) for place in places[first : first + 32]]
        images = torch.from_numpy(np.stack([picture for picture, _, _ in loaded]))
        mean_rgb = torch.tensor(getattr(network, "mean_rgb", (0.0, 0.0, 0.0)))
        x = (images / 255 - mean_rgb).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            maps = network(x)[:, -1].float().numpy()
        flat = maps.reshape(*maps.shape[:2], -1).argmax(-1)
        found = np.stack([flat % CELLS, flat // CELLS], -1) * (CROP_PX / CELLS) + 1.5
        for place, (_, uv, visibility) in zip(found, loaded, strict=True):
            head = np.linalg.norm(uv[joints.index("head_top")] - uv[joints.index("upper_neck")])
            error = np.linalg.norm(place - uv, axis=1)[visibility > 0]
            right += [(error < share * head).sum() for share in (0.2, 0.5)]
            total += error.size
    return float(right[0] / max(total, 1)), float(right[1] / max(total, 1))


def draw_curve(table: Path, out: Path) -> None:
    """A picture of a training's curve.csv."""
    from matplotlib.figure import Figure

    with table.open(encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    figure = Figure(figsize=(8, 4), layout="constrained")
    shares, losses = figure.subplots(1, 2)
    step = [row["step"] for row in rows]
    for name in ("pckh_0.5", "pckh_0.2"):
        shares.plot(step, [row[name] for row in rows], label=name)
    shares.set(xlabel="batches", ylabel="share of joints", ylim=(0, 1))
    shares.legend()
    losses.semilogy(step, [row["loss"] for row in rows])
    losses.set(xlabel="batches", ylabel="loss of the last stack")
    figure.savefig(out, dpi=120)

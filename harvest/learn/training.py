"""Training of our hourglass on pictures: intermediate supervision, a running mean of its weights, exact resume."""

from __future__ import annotations

import csv
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from harvest.detect2d.hourglass_files import load_hourglass, save_hourglass
from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.detect2d.tfjs_file import read_tfjs
from harvest.errors import UserError
from harvest.learn.course import cosine, sigterm
from harvest.learn.peers import Peers, joined
from harvest.learn.samples import Place, find_samples
from harvest.memory import keep_memory

WEIGHTS, CHECKPOINT, CURVE = "hourglass.safetensors", "checkpoint.pt", "curve.csv"


@dataclass(frozen=True)
class TrainSettings:
    """How a detector is trained.

    start: weights to begin with, of an earlier training or of the features alone. stacks, width: of the hourglass.
    steps: batches. rate: of AdamW at its height, reached after `warm` steps and going down as a cosine. ema: share that
    the running mean of the weights keeps each step. bf16: compute in bfloat16. checkpoint_s: seconds between
    checkpoints. validate: pictures of the validation set looked at each time. share: of samples from the second folder.
    """

    start: str
    stacks: int = 2
    width: int = 128
    steps: int = 30_000
    batch: int = 32
    rate: float = 1e-3
    warm: int = 300
    decay: float = 1e-4
    ema: float = 0.999
    bf16: bool = True
    seed: int = 0
    checkpoint_s: float = 180.0
    validate: int = 512
    validate_every: int = 500
    share: float = 0.2


class Task(Protocol):
    """What a network is trained for.

    maps: names of the network's maps. measures: what `measure` gives, for the curve.
    """

    maps: tuple[str, ...]
    measures: tuple[str, str]

    def prepare(self, network: HarvestHourglass) -> None:
        """Set what a fresh network should begin with."""
        ...

    def sample(self, place: Place, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A picture (256, 256, 3) after a random augmentation, and what is true of it, of one shape for all."""
        ...

    def loss(self, scores: Tensor, truth: Tensor) -> Tensor:
        """How wrong scores (B, J, cells, cells) of pictures (B, 3, 256, 256) are, given the truths (B, ...)."""
        ...

    def measure(self, network: HarvestHourglass, places: list[Place], bf16: bool) -> tuple[float, float]:
        """How good a network is on pictures that it was not trained on."""
        ...


@dataclass(frozen=True)
class Folders:
    """Folders of pictures: to learn from, to measure on, and a second one to learn from, as often as settings say."""

    learn: Path
    measure: Path | None = None
    more: Path | None = None


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Sample k of the endless, shuffled and augmented sequence of a seed; the same whoever asks for it."""

    def __init__(
        self, task: Task, places: Sequence[list[Place]], settings: TrainSettings, step: int, peers: Peers
    ) -> None:
        """Take the samples of both folders, and the batch to begin with, of which a process has its part."""
        self._task, self._settings, self._step, self._peers = task, settings, step, peers
        self.batch = settings.batch // peers.count
        self._places, self._more = places
        self._order: tuple[int, NDArray[np.int64]] = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        """All that is left of the training."""
        return max(self._settings.steps - self._step, 0) * self.batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Picture (3, 256, 256) uint8 and its truth."""
        step, row = divmod(index, self.batch)
        number = (self._step + step) * self._settings.batch + self._peers.rank * self.batch + row
        epoch, row = divmod(number, len(self._places))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._settings.seed, epoch]).permutation(len(self._places))
        rng = np.random.default_rng([self._settings.seed, number])
        place = self._places[self._order[1][row]]
        if self._more and rng.random() < self._settings.share:
            place = self._more[int(rng.integers(len(self._more)))]
        picture, truth = self._task.sample(place, rng)
        return torch.from_numpy(picture.transpose(2, 0, 1).copy()), torch.from_numpy(truth)


class Training:
    """A training in a folder: begins anew, or goes on where a checkpoint of the same settings stands."""

    def __init__(
        self, task: Task, folders: Folders, out: Path, settings: TrainSettings, peers: Peers | None = None
    ) -> None:
        """Find the samples, build or load the network.

        Raises:
            UserError: no samples, or a checkpoint of other settings.
        """
        self.task, self.settings, self.out, self._peers = task, settings, out, peers or Peers()
        self._places = find_samples(folders.learn), find_samples(folders.more) if folders.more else []
        self._validation = find_samples(folders.measure)[: settings.validate] if folders.measure else []
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(settings.seed)
        self.network = begin(task, settings).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self._learnt = {key for key, value in self.network.named_parameters() if not value.requires_grad}
        self._learnt = self.mean.keys() - self._learnt
        learning = [value for value in self.network.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, settings.rate, weight_decay=settings.decay)
        self.step, self.seconds = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        self._resume()

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.is_file():
            return
        stored = torch.load(path, map_location=self.device, weights_only=True)
        free = ("steps", "checkpoint_s", "validate", "validate_every")  # may change without a new beginning
        before, now = asdict(TrainSettings("")) | stored["settings"], asdict(self.settings)
        if changed := [key for key in now if key not in free and before[key] != now[key]]:
            changes = ", ".join(f"{key} {before[key]} (now {now[key]})" for key in changed)
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
        first = self._peers.rank == 0
        bar = tqdm(total=self.settings.steps, initial=self.step, desc="train", unit="batch", disable=not first)
        keep_memory()
        for images, truth in self._batches():
            stops = asked_to_stop.is_set() or time.monotonic() - begin > most_seconds
            loss, stops = self._learn(images, truth, stops)
            self.step += 1
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if first and self._validation and self.step % self.settings.validate_every == 0:
                self._note(loss)
            now = time.monotonic()
            if first and now - saved > self.settings.checkpoint_s:
                self.seconds += now - saved
                saved = now
                self.save()
            if stops:
                break
        self.seconds += time.monotonic() - saved
        bar.close()
        if first:
            self.save()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        samples = Samples(self.task, self._places, self.settings, self.step, self._peers)
        if len(samples) == 0:
            return
        # Spawned, not forked: OpenCV's threads do not survive a fork.
        yield from DataLoader(
            samples,
            samples.batch,
            num_workers=1,
            prefetch_factor=4,
            worker_init_fn=_one_thread,
            multiprocessing_context="spawn",
        )

    def _learn(self, images: Tensor, truth: Tensor, stops: bool) -> tuple[float, bool]:
        """One step; gives the loss of the fine maps, and whether a process wants it to be the last."""
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate * min(1.0, (self.step + 1) / s.warm, 0.02 + cosine(self.step / s.steps))
        self.network.train()
        errors = [self.task.loss(scores, truth.to(self.device)) for scores in self._scores(images)]
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(errors).sum().backward()
        slopes = [value.grad for value in self.network.parameters() if value.grad is not None]
        counts = [value for value in self.network.buffers() if value.dtype.is_floating_point]
        stops = self._peers.average([*slopes, *counts], stops)
        self.optimizer.step()
        with torch.no_grad():
            keep = min(s.ema, (self.step + 1) / (self.step + 10))
            now = self.network.state_dict()
            for key in self._learnt:
                if now[key].dtype.is_floating_point:
                    self.mean[key].lerp_(now[key], 1 - keep)
                else:
                    self.mean[key].copy_(now[key])
        return float(errors[-1].detach()), stops

    def _scores(self, images: Tensor) -> list[Tensor]:
        mean_rgb = torch.tensor(self.network.mean_rgb, device=self.device)[:, None, None]
        x = (images.to(self.device) / 255 - mean_rgb).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            return self.network.all_scores(x)

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

    def _averaged(self) -> HarvestHourglass:
        network = HarvestHourglass(self.settings.stacks, self.settings.width, self.network.joints)
        network.load_state_dict({key: value.cpu() for key, value in self.mean.items()})
        return network.eval()

    def _note(self, loss: float) -> None:
        """Append a line to the curve: step, hours, loss, how good the running mean is on the validation set."""
        measured = self.task.measure(self._averaged(), self._validation, self.settings.bf16)
        path = self.out / CURVE
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "hours", "loss", *self.task.measures])
            numbers = [f"{self.seconds / 3600:.3f}", *(f"{value:.4f}" for value in (loss, *measured))]
            writer.writerow([self.step, *numbers])
        draw_curve(path, path.with_suffix(".png"))


def train(
    task: Task,
    folders: Folders,
    out: Path,
    settings: TrainSettings,
    processes: int = 1,
    most_seconds: float = float("inf"),
) -> None:
    """Train in a folder, in so many processes that share each batch.

    Raises:
        UserError: no samples, no such weights, a checkpoint of other settings, or a batch without such parts.
    """
    if settings.batch % processes:
        raise UserError(f"a batch of {settings.batch} has no {processes} equal parts; give another --batch")
    training = Training(task, folders, out, settings, Peers(0, processes))
    with joined(processes, partial(_take_part, task, folders, out, settings)):
        training.run(most_seconds)


def _take_part(task: Task, folders: Folders, out: Path, settings: TrainSettings, peers: Peers) -> None:
    Training(task, folders, out, settings, peers).run()


def begin(task: Task, settings: TrainSettings) -> HarvestHourglass:
    """A network to train: of `start` what fits, all else fresh.

    A start of fewer stacks gives its stacks; new ones begin with maps that say nothing.

    Raises:
        UserError: `start` is no weights file, neither of our hourglass nor MoveNet's model.json.
    """
    network = HarvestHourglass(settings.stacks, settings.width, task.maps)
    task.prepare(network)
    if Path(settings.start).suffix == ".json":
        network.features.load_published(read_tfjs(Path(settings.start)))
        return network
    given = load_hourglass(settings.start).state_dict()
    own = network.state_dict()
    if not isinstance(load_hourglass(settings.start), HarvestHourglass):
        raise UserError(f"{settings.start} is another kind of hourglass; start from one that `harvest train` made")
    network.load_state_dict(
        own | {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    )
    return network


def _one_thread(_: int) -> None:
    """A reader leaves the processors to the training."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def draw_curve(table: Path, out: Path) -> None:
    """A picture of a training's curve.csv."""
    from matplotlib.figure import Figure

    with table.open(encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    figure = Figure(figsize=(8, 4), layout="constrained")
    shares, losses = figure.subplots(1, 2)
    step = [row["step"] for row in rows]
    for name in [name for name in rows[0] if name not in ("step", "hours", "loss")]:
        shares.plot(step, [row[name] for row in rows], label=name)
    shares.set(xlabel="batches", ylabel="share", ylim=(0, 1))
    shares.legend()
    losses.semilogy(step, [row["loss"] for row in rows])
    losses.set(xlabel="batches", ylabel="loss of the fine maps")
    figure.savefig(out, dpi=120)

"""What every training has in common: a folder, ever smaller steps, a running mean of the weights, exact resume."""

from __future__ import annotations

import copy
import csv
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from harvest.detect2d.hourglass_detector import fast_bf16
from harvest.errors import UserError
from harvest.learn.peers import Peers, joined
from harvest.memory import keep_memory

CHECKPOINT, CURVE = "checkpoint.pt", "curve.csv"
DIGITS = ".5g"  # of numbers in the curve
FREE = ("steps", "checkpoint_s", "validate", "validate_every", "bf16")  # may change without a new beginning
_LEAST_RATE = 0.02  # of the rate's height, at the end
_RECENT = 0.98  # how much of its running mean the shown loss keeps with each batch
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How anything is trained.

    steps: batches. rate: of the optimizer at its height, reached after `warm` steps and going down as a cosine. decay:
    of weights. clip: longest gradient. ema: share that the running mean of the weights keeps each step. bf16: compute
    in bfloat16, by default where that is fast. checkpoint_s: seconds between checkpoints. validate: samples of the
    validation set looked at each time.
    """

    steps: int = 20_000
    batch: int = 32
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    rate: float = 1e-3
    warm: int = 300
    decay: float = 1e-4
    clip: float = float("inf")
    ema: float = 0.999
    bf16: bool = field(default_factory=lambda: torch.cuda.is_available() or fast_bf16())
    seed: int = 0
    checkpoint_s: float = 180.0
    validate: int = 512
    validate_every: int = 500


class Training(ABC, Generic[Network]):
    """A training in a folder: begins anew, or goes on where a checkpoint of the same settings stands.

    Attributes:
        network: what learns; mean: the running mean of its weights, by name; step, seconds: done so far; enough: set by
            `judge` to end the training early; recent: running mean of the loss that is shown, NaN before the first.
        measures: names of what `measure` gives, for the curve: shares, losses where one ends in `_loss`, or, where one
            ends in `_mm`, those in mm.
    """

    measures: tuple[str, ...]

    def __init__(
        self, out: Path, settings: TrainingSettings, network: Network, peers: Peers, joints: Sequence[str] = ()
    ) -> None:
        """Take a fresh network, or what a checkpoint has made of it; only what asks for a gradient learns.

        Args:
            joints: that the training is about, where the settings do not say so.
        Raises:
            UserError: a checkpoint of other settings or joints.
        """
        self.out, self.settings, self.peers = out, settings, peers
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device)
        self.mean = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        frozen = {key for key, value in self.network.named_parameters() if not value.requires_grad}
        self._learnt = self.mean.keys() - frozen
        learning = [value for value in self.network.parameters() if value.requires_grad]
        kinds: dict[str, Any] = {
            "adamw": partial(torch.optim.AdamW, fused=True),  # four times as fast on a processor
            "rmsprop": torch.optim.RMSprop,
        }
        kind = kinds[settings.optimizer]
        self.optimizer: torch.optim.Optimizer = kind(learning, settings.rate, weight_decay=settings.decay)
        self.step, self.seconds, self.enough, self.recent = 0, 0.0, False, float("nan")
        self._identity = asdict(settings) | ({"joints": list(joints)} if joints else {})
        out.mkdir(parents=True, exist_ok=True)
        self._resume()

    @abstractmethod
    def batches(self) -> Iterator[Any]:
        """What is left to learn from, beginning with the batch of number `step`; of each, this process's part."""

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """How wrong the network is on a batch: what is made smaller, and what is shown."""

    @abstractmethod
    def measure(self, network: Network) -> Sequence[float] | None:
        """How good a network is on what it was not trained on; None if there is nothing to measure on."""

    @abstractmethod
    def save_weights(self, network: Network) -> None:
        """Write weights that other commands take into the folder."""

    def judge(self, network: Network, measured: Sequence[float]) -> None:
        """What follows from a measurement of the running mean; nothing by default."""

    def make_ready(self) -> None:
        """Bring the network into the mode in which it learns."""
        self.network.train()

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.is_file():
            return
        stored = torch.load(path, map_location=self.device, weights_only=True)
        before, now = stored["settings"], self._identity
        if changed := [key for key in now if key not in FREE and before.get(key) != now[key]]:
            changes = ", ".join(f"{key} {before.get(key)} (now {now[key]})" for key in changed)
            raise UserError(f"{self.out} holds a training with {changes}; give another --out, or the same to go on")
        self.network.load_state_dict(stored["network"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.mean, self.step, self.seconds = stored["mean"], stored["step"], stored["seconds"]
        self.recent = stored.get("recent", self.recent)  # checkpoints of before have none

    def run(self, most_seconds: float = float("inf")) -> None:
        """Train to the last step, for so many seconds, or until SIGTERM; weights, checkpoint and curve are written on
        the way.

        Raises:
            SystemExit: after SIGTERM, with all saved, for nobody to take what there is for the whole.
        """
        with sigterm() as asked_to_stop:
            self._run(most_seconds, asked_to_stop)
        if asked_to_stop.is_set():
            raise SystemExit(128 + signal.SIGTERM)

    def _run(self, most_seconds: float, asked_to_stop: threading.Event) -> None:
        begun = last = saved = time.monotonic()
        first = self.peers.rank == 0
        stops = self.enough
        keep_memory()
        with tqdm(total=self.settings.steps, initial=self.step, desc="train", unit="batch", disable=not first) as bar:
            for batch in () if stops else self.batches():
                stops = self.enough or asked_to_stop.is_set() or time.monotonic() - begun > most_seconds
                loss, stops = self._learn(batch, stops)
                self.step += 1
                now = time.monotonic()
                self.seconds, last = self.seconds + now - last, now
                bar.update()
                self.recent = _RECENT * self.recent + (1 - _RECENT) * loss if np.isfinite(self.recent) else loss
                bar.set_postfix(loss=f"{self.recent:.4g}", refresh=False)
                if first and self.step % self.settings.validate_every == 0:
                    self.note(self.recent)
                if first and now - saved > self.settings.checkpoint_s:
                    saved = now
                    self.save()
                if stops:
                    break
        if first:
            self.save()

    def _learn(self, batch: Any, stops: bool) -> tuple[float, bool]:
        """One step; gives the loss that is shown, and whether a process wants it to be the last."""
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate * min(1.0, (self.step + 1) / s.warm, _LEAST_RATE + cosine(self.step / s.steps))
        self.make_ready()
        loss, shown = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        slopes = [value.grad for value in self.network.parameters() if value.grad is not None]
        counts = [value for value in self.network.buffers() if value.dtype.is_floating_point]
        stops = self.peers.average([*slopes, *counts], stops)
        if torch.nn.utils.clip_grad_norm_(self.network.parameters(), s.clip).isfinite():
            self.optimizer.step()
        with torch.no_grad():
            keep = min(s.ema, (self.step + 1) / (self.step + 10))
            now = self.network.state_dict()
            for key in self._learnt:
                if now[key].dtype.is_floating_point:
                    self.mean[key].lerp_(now[key], 1 - keep)
                else:
                    self.mean[key].copy_(now[key])
        return float(shown.detach()), stops

    def save(self) -> None:
        """Write the checkpoint, and the running mean as weights that other commands take."""
        stored = {
            "settings": self._identity,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "mean": self.mean,
            "step": self.step,
            "seconds": self.seconds,
            "recent": self.recent,
        }
        partial_file = self.out / f"{CHECKPOINT}.partial"
        torch.save(stored, partial_file)
        os.replace(partial_file, self.out / CHECKPOINT)
        self.save_weights(self.averaged())

    def averaged(self) -> Network:
        """The network with the running mean of its weights, in eval mode."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.mean)
        return network.eval()

    def note(self, loss: float) -> None:
        """Append a line to the curve: step, hours, recent loss, how good the running mean is on the validation set."""
        network = self.averaged()
        measured = self.measure(network)
        if measured is None:
            return
        self.judge(network, measured)
        path = self.out / CURVE
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "hours", "loss", *self.measures])
            numbers = (f"{value:{DIGITS}}" for value in (loss, *measured))
            writer.writerow([self.step, f"{self.seconds / 3600:.3f}", *numbers])
        draw_curve(path, path.with_suffix(".png"))


def train(make: Callable[[Peers], Training[Any]], processes: int = 1, most_seconds: float = float("inf")) -> None:
    """Run a training in so many processes that share each batch.

    Args:
        make: gives the training of one of them; picklable.
    Raises:
        UserError: what `make` raises, or a batch without such parts.
    """
    training = make(Peers(0, processes))
    if training.settings.batch % processes:
        raise UserError(f"a batch of {training.settings.batch} has no {processes} equal parts; give another --batch")
    with joined(processes, partial(_take_part, make)):
        training.run(most_seconds)


def _take_part(make: Callable[[Peers], Training[Any]], peers: Peers) -> None:
    make(peers).run()


@contextmanager
def sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, which then ends nothing by itself."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # who alone may say what a signal does
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def cosine(share: float) -> float:
    """From 1 to 0 while a share of all steps goes from 0 to 1."""
    return 0.5 + 0.5 * float(np.cos(np.pi * min(share, 1.0)))


def draw_curve(table: Path, out: Path) -> None:
    """A picture of a training's curve.csv: what was measured, and the loss."""
    from matplotlib.figure import Figure

    with table.open(encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    names = [name for name in rows[0] if name not in ("step", "hours", "loss") and not name.endswith("_loss")]
    in_mm = [name for name in names if name.endswith("_mm")]
    figure = Figure(figsize=(8, 4), layout="constrained")
    measured, losses = figure.subplots(1, 2)
    step = [row["step"] for row in rows]
    for name in in_mm or names:
        measured.plot(step, [row[name] for row in rows], label=name.removesuffix("_mm"))
    measured.set(xlabel="batches", ylabel="error in mm" if in_mm else "share")
    measured.set_ylim(0, None if in_mm else 1)
    measured.legend()
    shown = {name: [row[name] for row in rows] for name in rows[0] if name.endswith("loss")}
    for name, values in shown.items():
        losses.plot(step, values, label=name.replace("_", " "))
    known = [value for values in shown.values() for value in values if np.isfinite(value)]
    if known and max(known) > 3 * min(known) > 0:
        losses.set_yscale("log")
    losses.set(xlabel="batches", ylabel="loss")
    losses.legend()
    figure.savefig(out, dpi=120)

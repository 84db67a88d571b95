"""Training of our hourglass on pictures, with intermediate supervision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harvest.detect2d.hourglass_files import load_hourglass, save_hourglass
from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.detect2d.tfjs_file import read_tfjs
from harvest.errors import UserError
from harvest.learn.peers import Peers
from harvest.learn.samples import Place, find_samples
from harvest.learn.training import Network, Training, TrainingSettings

WEIGHTS = "hourglass.safetensors"
Given = TypeVar("Given")


@dataclass(frozen=True, kw_only=True)
class PictureSettings(TrainingSettings):
    """How a network that looks at pictures is trained.

    start: weights to begin with. share: of samples from the second folder.
    """

    start: str
    share: float = 0.2


@dataclass(frozen=True, kw_only=True)
class DetectorSettings(PictureSettings):
    """How a detector is trained.

    start: of an earlier training, or of the features alone. stacks, width: of the hourglass.
    """

    stacks: int = 2
    width: int = 128
    steps: int = 30_000


class Task(Protocol):
    """What a network is trained for.

    maps: names of the network's maps. measures: what `measure` gives, for the curve.
    """

    maps: tuple[str, ...]
    measures: tuple[str, ...]

    def prepare(self, network: HarvestHourglass) -> None:
        """Set what a fresh network should begin with."""
        ...

    def sample(self, place: Place, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A picture (256, 256, 3) after a random augmentation, and what is true of it, of one shape for all."""
        ...

    def loss(self, scores: Tensor, truth: Tensor) -> Tensor:
        """How wrong scores (B, J, cells, cells) of pictures (B, 3, 256, 256) are, given the truths (B, ...)."""
        ...

    def measure(self, network: Any, places: list[Place], bf16: bool) -> tuple[float, ...]:
        """How good a network is on pictures that it was not trained on."""
        ...


@dataclass(frozen=True)
class Folders:
    """Folders of pictures: to learn from, to measure on, and a second one to learn from, as often as settings say."""

    learn: Path
    measure: Path | None = None
    more: Path | None = None


class Samples(Dataset[tuple[Tensor, ...]]):
    """Sample k of the endless, shuffled and augmented sequence of a seed; the same whoever asks for it."""

    def __init__(
        self, task: Any, places: Sequence[list[Any]], settings: PictureSettings, step: int, peers: Peers
    ) -> None:
        """Take the samples of both folders, and the batch to begin with, of which a process has its part."""
        self._task, self._settings, self._step, self._peers = task, settings, step, peers
        self.batch = settings.batch // peers.count
        self._places, self._more = places
        self._order: tuple[int, NDArray[np.int64]] = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        """All that is left of the training."""
        return max(self._settings.steps - self._step, 0) * self.batch

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """Picture (3, 256, 256) uint8, or several (V, 3, 256, 256), and what is true of it."""
        step, row = divmod(index, self.batch)
        number = (self._step + step) * self._settings.batch + self._peers.rank * self.batch + row
        epoch, row = divmod(number, len(self._places))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._settings.seed, epoch]).permutation(len(self._places))
        rng = np.random.default_rng([self._settings.seed, number])
        place = self._places[self._order[1][row]]
        if self._more and rng.random() < self._settings.share:
            place = self._more[int(rng.integers(len(self._more)))]
        picture, *truth = self._task.sample(place, rng)
        return torch.from_numpy(np.moveaxis(picture, -1, -3).copy()), *map(torch.from_numpy, truth)


class PictureTraining(Training[Network]):
    """Training of a given network on pictures, for a task."""

    settings: PictureSettings

    def __init__(
        self,
        task: Task,
        folders: Folders,
        out: Path,
        settings: PictureSettings,
        peers: Peers,
        network: Network,
    ) -> None:
        """Find the samples.

        Raises:
            UserError: no samples, or a checkpoint of other settings.
        """
        self.task, self.measures = task, task.measures
        self._places = self.find(folders, settings)
        self._validation = find_samples(folders.measure)[: settings.validate] if folders.measure else []
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(out, settings, network, peers)

    def find(self, folders: Folders, settings: PictureSettings) -> tuple[list[Any], list[Any]]:
        """The samples to learn from, of the first folder and of the second."""
        return find_samples(folders.learn), find_samples(folders.more) if folders.more else []

    def batches(self) -> Iterator[Any]:
        """Pictures (B, 3, 256, 256) uint8 and what is true of them, as the task's samples are."""
        samples = Samples(self.task, self._places, self.settings, self.step, self.peers)
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

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The sum over all stacks' maps and the fine ones, which alone are shown."""
        images, truth = batch
        errors = [self.task.loss(scores, truth.to(self.device)) for scores in self._scores(images)]
        return torch.stack(errors).sum(), errors[-1]

    def _scores(self, images: Tensor) -> list[Tensor]:
        network: Any = self.network
        return self.seen(images, network.all_scores)

    def seen(self, images: Tensor, by: Callable[[Tensor], Given]) -> Given:
        """What a part of the network gives of pictures (B, 3, 256, 256) uint8."""
        network: Any = self.network
        mean_rgb = torch.tensor(network.mean_rgb, device=self.device)[:, None, None]
        x = (images.to(self.device) / 255 - mean_rgb).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            return by(x)

    def measure(self, network: Network) -> tuple[float, ...] | None:
        """What the task measures."""
        if not self._validation:
            return None
        return self.task.measure(network.cpu(), self._validation, self.settings.bf16)


class DetectorTraining(PictureTraining[HarvestHourglass]):
    """Training of our hourglass for a task, from its features or from an earlier training on."""

    def __init__(
        self, task: Task, folders: Folders, out: Path, settings: DetectorSettings, peers: Peers | None = None
    ) -> None:
        """Build the network.

        Raises:
            UserError: as `PictureTraining`, or no such weights.
        """
        torch.manual_seed(settings.seed)
        super().__init__(task, folders, out, settings, peers or Peers(), begin(task, settings))

    def save_weights(self, network: HarvestHourglass) -> None:
        """For `harvest run --weights`."""
        save_hourglass(network, self.out / WEIGHTS)


def begin(task: Task, settings: DetectorSettings) -> HarvestHourglass:
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

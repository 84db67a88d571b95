"""What trainings of networks with 2D heat maps and depths share; and features that are computed once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harvest.detect2d.features import FEATURE_CHANNELS
from harvest.learn.detector import PictureSettings, PictureTraining
from harvest.learn.monocular import WEIGHTS
from harvest.monocular.files import save_monocular
from harvest.monocular.lift import Limbs
from harvest.monocular.networks import CELLS, MonocularNetwork

_USED = [(channels, CELLS >> row, CELLS >> row) for row, channels in enumerate(FEATURE_CHANNELS[1:])]  # but the finest
_SIZES = [int(np.prod(shape)) for shape in _USED]
_KEY = 16  # bytes


@dataclass(frozen=True, kw_only=True)
class MappedSettings(PictureSettings):
    """How a network with heat maps is trained.

    skeleton, start, width: as of `MonocularSettings`. versions: random augmentations of each sample, over and over; 0:
    ever new ones. Few of them make a `FeatureStore` worth its while.
    """

    skeleton: str = "harvest21"
    start: str = ""
    width: int = 128
    versions: int = 0
    steps: int = 3000


def one_of(versions: int, place: object, rng: np.random.Generator) -> np.random.Generator:
    """What draws one of so many augmentations of a sample, the same ones for every seed; for 0 what was given."""
    if not versions:
        return rng
    return np.random.default_rng([zlib.crc32(repr(place).encode()), int(rng.integers(versions))])


class FeatureStore:
    """What frozen features show of pictures, kept in a file in float16, by what the pictures hold.

    The features cost several times what a small network behind them does. Several processes may share the file. What is
    found and what is computed anew is the same to the bit, so that a training that goes on does not depend on it.
    """

    def __init__(self, path: Path) -> None:
        """Open or begin a file; a record that was cut short is written again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        self._record = _KEY + 2 * sum(_SIZES)
        count = os.fstat(self._file).st_size // self._record
        self._rows = {os.pread(self._file, _KEY, row * self._record): row for row in range(count)}

    def __call__(self, images: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Features as `PeopleFeatures` gives them, the finest left empty, of pictures (B, 3, 256, 256) uint8.

        Args:
            compute: gives those of pictures that are new.
        """
        keys = [hashlib.blake2b(image.numpy(), digest_size=_KEY).digest() for image in images]
        if new := [index for index, key in enumerate(keys) if key not in self._rows]:
            with torch.no_grad():
                found = compute(images[new])[1:]
            for row, index in enumerate(new):
                self._add(keys[index], np.concatenate([level[row].half().cpu().numpy().ravel() for level in found]))
        rows = np.stack([self._read(key) for key in keys])
        parts = np.split(rows, np.cumsum(_SIZES)[:-1], axis=1)
        levels = [torch.from_numpy(part).float().view(-1, *shape) for part, shape in zip(parts, _USED, strict=True)]
        return [torch.empty(0), *(level.contiguous(memory_format=torch.channels_last) for level in levels)]

    def _add(self, key: bytes, values: np.ndarray[Any, np.dtype[np.float16]]) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            row = os.fstat(self._file).st_size // self._record
            os.pwrite(self._file, key + values.tobytes(), row * self._record)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._rows[key] = row

    def _read(self, key: bytes) -> np.ndarray[Any, np.dtype[np.float16]]:
        content = os.pread(self._file, self._record - _KEY, self._rows[key] * self._record + _KEY)
        return np.frombuffer(bytearray(content), np.float16)


class MappedTraining(PictureTraining[MonocularNetwork]):
    """Training of a network of model 'depth' or 'planar'.

    Attributes:
        limbs: of people of usual size, for the weights' file. store: of features, if they are to be kept.
    """

    limbs: Limbs
    store: FeatureStore | None = None

    def told(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Poses (B, J, 3) and logits of heat maps, of pictures (B, 3, 256, 256) uint8."""
        if self.store is None:
            return self.seen(images, lambda x: self.network.with_maps(self.network.features(x)))
        features = self.store(images, lambda some: self.seen(some, self.network.features))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            return self.network.with_maps([level.to(self.device) for level in features])

    def save_weights(self, network: MonocularNetwork) -> None:
        """For `harvest predict --weights`."""
        save_monocular(network, self.limbs, self.out / WEIGHTS)

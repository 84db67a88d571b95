"""Batches of multi-view heat maps to train triangulation on: random views, spoilt maps, cubes that lie a little off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from harvest.learn.map_sets import MapSet, MultiViewMaps
from harvest.learn.peers import Peers
from harvest.skeleton import mirror_name
from harvest.triangulate3d.from_maps import CubePlace, MapViews, upright
from harvest.triangulate3d.lenses import Lenses

Floats = NDArray[np.float64]
FEWEST = 2  # views
DROPPED, LOST, SWAPPED, GHOST = 0.03, 0.03, 0.03, 0.06  # shares of maps, of views, of views, of maps
GHOST_CELLS, GHOST_LEVEL, GHOST_SHARE = (4, 24), 0.3, 0.3  # how far off; least height left; least share of the ghost
JITTER_M = 0.05  # standard deviation of a cube's centre, each way
MARGIN_M, SMALLEST_M, LARGEST_M = 0.25, 1.2, 3.2  # of the cube, as harvest/reconstruct/volume.py makes it
STRETCH = (0.9, 1.3)  # of the person's extent: the cube of a run is one for all frames


class Batch(NamedTuple):
    """Items of equally many views, short ones filled up with views that are not seen.

    score (B, V, J, h, w) float32; image_from_heatmap (B, V, 2, 3); optics (B, V, 36); seen (B, V) bool; xyz_m (B, J, 3)
    the truth; centre_m (B, 3), side_m (B,) and turn (B, 3, 3) of the cubes. All but maps in float64.
    """

    score: Tensor
    image_from_heatmap: Tensor
    optics: Tensor
    seen: Tensor
    xyz_m: Tensor
    centre_m: Tensor
    side_m: Tensor
    turn: Tensor

    def to(self, device: torch.device) -> Batch:
        """On a device."""
        return Batch(*(value.to(device) for value in self))

    @property
    def views(self) -> MapViews:
        """What a network sees of it."""
        return MapViews(self.score, self.image_from_heatmap, Lenses.from_optics(self.optics), self.seen)

    @property
    def place(self) -> CubePlace:
        """Where the cubes are."""
        return CubePlace(self.centre_m, self.side_m, self.turn)


def spoilt(score: NDArray[np.float32], mirror: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Maps (V, J, h, w) with what detectors do wrong: sides exchanged, ghosts, maps and whole views without heat.

    A ghost is a copy of the map elsewhere that takes a share of its heat, up to all of it; what is left is fainter.
    """
    out = score.copy()
    views, joints = score.shape[:2]
    swapped = rng.random(views) < SWAPPED
    out[swapped] = out[swapped][:, mirror]
    for view, joint in np.argwhere(rng.random((views, joints)) < GHOST):
        way = rng.uniform(0, 2 * np.pi)
        dx, dy = (int(round(rng.uniform(*GHOST_CELLS) * part)) for part in (np.cos(way), np.sin(way)))
        share, level = rng.uniform(GHOST_SHARE, 1), rng.uniform(GHOST_LEVEL, 1)
        out[view, joint] = level * ((1 - share) * out[view, joint] + share * _moved(out[view, joint], dx, dy))
    out[rng.random((views, joints)) < DROPPED] = 0
    lost = np.flatnonzero(rng.random(views) < LOST)
    out[lost[: max(views - FEWEST, 0)]] = 0
    return out


def _moved(grid: NDArray[np.float32], dx: int, dy: int) -> NDArray[np.float32]:
    """A map (h, w) moved by whole cells; what comes in from outside is empty."""
    h, w = grid.shape
    out = np.zeros_like(grid)
    rows, columns = slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0))
    from_rows, from_columns = slice(max(-dy, 0), h + min(-dy, 0)), slice(max(-dx, 0), w + min(-dx, 0))
    out[rows, columns] = grid[from_rows, from_columns]
    return out


def place_of(item: MultiViewMaps, rng: np.random.Generator, *, augment: bool) -> tuple[Floats, float, Floats]:
    """Centre (3,), side and turn (3, 3) of a cube round the joints that are known.

    It lies a little off in any case, as a cube that triangulation places does; to augment, it is also turned about the
    vertical, and has another size.
    """
    known = item.xyz_m[np.isfinite(item.xyz_m).all(axis=1)]
    low, high = (known.min(axis=0), known.max(axis=0)) if len(known) else (np.zeros(3), np.zeros(3))
    centre = (low + high) / 2 + rng.normal(0, JITTER_M, 3)
    stretch, angle = (rng.uniform(*STRETCH), rng.uniform(0, 2 * np.pi)) if augment else (1.0, 0.0)
    side = float(np.clip(stretch * (high - low).max() + 2 * MARGIN_M, SMALLEST_M, LARGEST_M))
    about = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return centre, side, about @ upright(torch.from_numpy(item.up)).numpy()


def batch_of(
    items: Sequence[MultiViewMaps], rng: np.random.Generator, *, augment: bool, most_views: int | None = None
) -> Batch:
    """A batch of items, of at most so many views each, chosen at random; with all their views for None.

    Args:
        augment: spoil maps, and turn and stretch cubes.
    """
    chosen = [_present(item) for item in items]
    if most_views is not None:
        chosen = [np.sort(rng.permutation(views)[:most_views]) for views in chosen]
    b, v = len(items), max(map(len, chosen))
    joints, h, w = items[0].score.shape[1:]
    score = np.zeros((b, v, joints, h, w), np.float32)
    affine = np.full((b, v, 2, 3), np.nan)
    optics = np.stack([np.broadcast_to(item.optics[:1], (v, item.optics.shape[1])) for item in items])
    seen = np.zeros((b, v), np.bool_)
    mirror = np.array([items[0].joints.index(mirror_name(joint, items[0].joints)) for joint in items[0].joints])
    for row, (item, views) in enumerate(zip(items, chosen, strict=True)):
        n = len(views)
        score[row, :n] = spoilt(item.score[views], mirror, rng) if augment else item.score[views]
        affine[row, :n], optics[row, :n], seen[row, :n] = item.image_from_heatmap[views], item.optics[views], True
    xyz = np.stack([item.xyz_m for item in items])
    places = zip(*(place_of(item, rng, augment=augment) for item in items), strict=True)
    centre, side, turn = (np.array(part) for part in places)
    return Batch(*map(torch.from_numpy, (score, affine, optics, seen, xyz, centre, side, turn)))


def _present(item: MultiViewMaps) -> NDArray[np.int64]:
    return np.flatnonzero(np.isfinite(item.image_from_heatmap).all(axis=(1, 2)))


@dataclass
class MapBatches(Dataset[Batch]):
    """Batch k, from `step` on, of the endless, shuffled and augmented sequence of a seed; the same whoever asks.

    Of each, a process has its part, whose items have equally many views, two or more, as far as they have so many.
    """

    maps: MapSet
    batch: int
    steps: int
    step: int
    seed: int
    peers: Peers = field(default_factory=Peers)
    _order: tuple[int, NDArray[np.int64]] = field(default=(-1, np.empty(0, np.int64)), repr=False)

    def __len__(self) -> int:
        """All that is left of the training."""
        return max(self.steps - self.step, 0)

    def __getitem__(self, index: int) -> Batch:
        """A batch."""
        if not 0 <= index < len(self):
            raise IndexError(f"{len(self)} batches are left, got index {index}")
        number, part = self.step + index, self.batch // self.peers.count
        rng = np.random.default_rng([self.seed, number, self.peers.rank])
        first = number * self.batch + self.peers.rank * part
        items = [self.maps[self._row(first + row)] for row in range(part)]
        most = max(len(_present(item)) for item in items)
        return batch_of(items, rng, augment=True, most_views=int(rng.integers(FEWEST, max(most, FEWEST) + 1)))

    def _row(self, number: int) -> int:
        """Which item the number-th of the whole sequence is."""
        epoch, row = divmod(number, len(self.maps))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.maps))
        return int(self._order[1][row])

"""Sets of multi-view heat maps with their joints in 3D, to train triangulation on: a folder, read in any order."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harvest.detect2d.detectors import Detector
from harvest.errors import UserError
from harvest.learn.multiview import find_multiviews, read_multiview
from harvest.store.atomic import write_atomically, write_text_atomically
from harvest.store.fingerprint import fingerprint
from harvest.store.heatmaps import dequantise, quantise
from harvest.triangulate3d.lenses import OPTICS, optics_of

Floats = NDArray[np.float64]
SHARD = 64  # items of a file
HEADER = "set.json"
_OPEN = 64  # files that a process keeps open
_BY_VIEW, _BY_ITEM = ("peak", "image_from_heatmap", "optics"), ("up", "xyz_m")  # arrays beside the maps


@dataclass(frozen=True)
class MultiViewMaps:
    """What V views show of a person at one moment, and where the joints are.

    joints: J names. score (V, J, h, w) float32 >= 0; image_from_heatmap (V, 2, 3), NaN where the view has no maps;
    optics (V, 36), `Camera.optics` of the cameras of those pictures; up (3,) against gravity; xyz_m (J, 3) in the
    world, NaN where unknown.
    """

    joints: tuple[str, ...]
    score: NDArray[np.float32]
    image_from_heatmap: Floats
    optics: Floats
    up: Floats
    xyz_m: Floats

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        v, j = self.score.shape[:2]
        given = self.image_from_heatmap.shape, self.optics.shape, self.up.shape, self.xyz_m.shape
        if self.score.ndim != 4 or j != len(self.joints) or given != ((v, 2, 3), (v, OPTICS), (3,), (j, 3)):
            raise ValueError(f"maps {self.score.shape} of {len(self.joints)} joints do not go with {given}")


class MapSet:
    """The items of a finished set; joints: names of their maps."""

    def __init__(self, folder: Path) -> None:
        """Open a set.

        Raises:
            UserError: there is none, or it is not finished.
        """
        header = read_header(folder)
        if header is None:
            raise UserError(f"{folder} holds no set of heat maps (no {HEADER}); make one with `harvest train`")
        if not header["finished"]:
            raise UserError(f"the set of heat maps in {folder} is not finished; run the command that makes it again")
        self.folder, self._count = folder, int(header["items"])
        self.joints: tuple[str, ...] = tuple(header["joints"])

    def __len__(self) -> int:
        """Number of items."""
        return self._count

    def __getitem__(self, index: int) -> MultiViewMaps:
        """An item, read from its file."""
        if not 0 <= index < self._count:
            raise IndexError(f"{self.folder} has {self._count} items, got index {index}")
        row = index % SHARD
        file, arrays, first_view = _opened(_shard(self.folder, index - row))
        views = slice(int(first_view[row]), int(first_view[row + 1]))
        of_views = {name: arrays[name][views] for name in _BY_VIEW}
        score = dequantise(file[f"codes_{row}"], of_views.pop("peak"))
        return MultiViewMaps(self.joints, score, **of_views, **{name: arrays[name][row] for name in _BY_ITEM})


def write_map_set(
    folder: Path, joints: Sequence[str], count: int, item: Callable[[int], MultiViewMaps], made_from: str
) -> MapSet:
    """Fill a folder with items 0 .. count - 1, file by file; what a stopped call has written whole is kept.

    Args:
        made_from: names what the items are made of; a set of something else is not gone on with. Made of more items of
            the same, it grows.
    Raises:
        UserError: nothing to write, or a folder that holds something else.
    """
    if count == 0:
        raise UserError(f"there is nothing to make heat maps of for {folder}; give data that hold people with joints")
    header: dict[str, Any] = {"made_from": made_from, "joints": list(joints)}
    before = read_header(folder)
    if before is None and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds other files; give another --out")
    if before is not None and {key: before.get(key) for key in header} != header:
        raise UserError(f"{folder} holds heat maps of something else; give another --out, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    _write_header(folder, header | {"items": count, "finished": False})
    with tqdm(total=count, desc="heat maps", unit="item") as bar:
        for first in range(0, count, SHARD):
            rows = range(first, min(first + SHARD, count))
            if _items_in(_shard(folder, first)) != len(rows):
                _write_shard(_shard(folder, first), [item(row) for row in rows])
            bar.update(len(rows))
    _write_header(folder, header | {"items": count, "finished": True})
    return MapSet(folder)


def maps_of_multiviews(folder: Path, detector: Detector, out: Path) -> MapSet:
    """The maps that a detector gives of all multi-view samples of a folder, as `harvest studio views` makes them.

    Raises:
        UserError: no samples, or an `out` that holds something else.
    """
    places = find_multiviews(folder)

    def item(index: int) -> MultiViewMaps:
        sample = read_multiview(places[index], detector.joints)
        affine = np.tile(np.asarray(detector.crop_from_heatmap, np.float64), (len(sample.rig), 1, 1))
        score = detector(sample.pictures)
        return MultiViewMaps(
            tuple(detector.joints), score, affine, optics_of(sample.rig), np.array(sample.rig.up), sample.xyz_m
        )

    made_from = fingerprint("views", str(folder.resolve()), detector.fingerprint)
    return write_map_set(out, detector.joints, len(places), item, made_from)


def read_header(folder: Path) -> dict[str, Any] | None:
    """What a set says of itself: made_from, joints, items, finished; None where there is no set.

    Raises:
        UserError: a header that is none.
    """
    path = folder / HEADER
    if not path.is_file():
        return None
    try:
        header = dict(json.loads(path.read_text(encoding="utf-8")))
        if {"made_from", "joints", "items", "finished"} <= header.keys():
            return header
    except (ValueError, TypeError):
        pass
    raise UserError(f"{path} is no header of a set of heat maps; delete the folder, and make the set again")


def _write_header(folder: Path, header: dict[str, Any]) -> None:
    write_text_atomically(folder / HEADER, json.dumps(header))


def _shard(folder: Path, first: int) -> Path:
    return folder / f"{first:08d}.npz"


def _items_in(path: Path) -> int:
    """Items of a file, 0 where there is none. Files appear whole, so what is there can be read."""
    if not path.is_file():
        return 0
    with np.load(path) as file:
        return len(file["up"])


def _write_shard(path: Path, items: list[MultiViewMaps]) -> None:
    coded = [quantise(item.score) for item in items]
    arrays: dict[str, NDArray[Any]] = {f"codes_{row}": codes for row, (codes, _) in enumerate(coded)}
    arrays["first_view"] = np.cumsum([0, *(len(item.score) for item in items)])
    arrays["peak"] = np.concatenate([peak for _, peak in coded])
    arrays |= {name: np.concatenate([getattr(item, name) for item in items]) for name in _BY_VIEW[1:]}
    arrays |= {name: np.stack([getattr(item, name) for item in items]) for name in _BY_ITEM}

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def _opened(path: Path) -> tuple[Any, dict[str, NDArray[Any]], NDArray[np.int64]]:
    return _open_version(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=_OPEN)
def _open_version(path: Path, _: int) -> tuple[Any, dict[str, NDArray[Any]], NDArray[np.int64]]:
    """A file to read maps from, the arrays beside them, and where each item's views begin in those."""
    file = np.load(path)
    return file, {name: file[name] for name in (*_BY_VIEW, *_BY_ITEM)}, file["first_view"]

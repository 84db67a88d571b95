"""Heat maps on disk: Zarr v3, a chunk a frame, one byte a cell."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from harvest.store.atomic import replace_folder
from harvest.types import Heatmaps

LEVELS = 255


def quantise(score: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes (..., h, w) and peaks (...): value = peak * (code / 255)^2, off by at most sqrt(value * peak) / 255.

    The square keeps small values, on which the tails of a marginal rest, ten times finer than equal steps would.
    """
    peak = score.max(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(peak[..., None, None] > 0, score / peak[..., None, None], 0.0)
    return np.rint(np.sqrt(relative) * LEVELS).astype(np.uint8), peak


def dequantise(codes: NDArray[np.uint8], peak: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores (..., h, w) float32 of codes and peaks; see `quantise`."""
    unit = ((np.arange(LEVELS + 1) / LEVELS) ** 2).astype(np.float32)
    score: NDArray[np.float32] = unit[codes]
    score *= peak[..., None, None].astype(np.float32)
    return score


class HeatmapWriter:
    """Fills `name.partial` frame by frame, in any order and by any number of processes, then renames it.

    A frame counts as written once its `done` mark is, which comes last; frames already done in a partial store of the
    same fingerprint are kept, all else is begun anew.
    """

    def __init__(self, path: Path, fingerprint: str, frames: NDArray[np.int64], views: Sequence[str]) -> None:
        """Name the store; nothing is written before `open`."""
        self.path, self.fingerprint = path, fingerprint
        self.partial = path.with_name(path.name + ".partial")
        self.frames, self.views = frames, tuple(views)

    def open(self, joints: Sequence[str], size: int, sharpness: float = 1.0) -> NDArray[np.bool_]:
        """(T,) which frames are done already; makes or continues the partial store for maps of `size` cells a side.

        `sharpness`, the power of a map that is a likelihood, is kept beside the maps.
        """
        wanted: dict[str, object] = {"fingerprint": self.fingerprint, "views": list(self.views), "joints": list(joints)}
        wanted |= {"size": size, "sharpness": sharpness}
        if self.partial.exists() and _attributes(self.partial) != wanted | {"frames": self.frames.tolist()}:
            shutil.rmtree(self.partial)
        if not self.partial.exists():
            t, v, j = len(self.frames), len(self.views), len(joints)
            group = zarr.open_group(self.partial, mode="w")
            codec = zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="noshuffle")
            group.create_array(
                "codes", shape=(t, v, j, size, size), chunks=(1, v, j, size, size), dtype="uint8", compressors=codec
            )
            group.create_array("peak", shape=(t, v, j), chunks=(1, v, j), dtype="float32", compressors=None)
            group.create_array(
                "image_from_heatmap",
                shape=(t, v, 2, 3),
                chunks=(1, v, 2, 3),
                dtype="float64",
                fill_value=np.nan,
                compressors=None,
            )
            group.create_array("done", shape=(t,), chunks=(1,), dtype="uint8", compressors=None)
            group.attrs.update(wanted | {"frames": self.frames.tolist()})  # type: ignore[arg-type]
        self._group = zarr.open_group(self.partial, mode="r+")
        done = np.asarray(self._group["done"][:]) > 0  # type: ignore[index]
        return done

    def write(self, index: int, score: NDArray[np.float32], image_from_heatmap: NDArray[np.float64]) -> None:
        """Store the maps (V, J, h, w) and affines (V, 2, 3) of the frame at place `index`."""
        codes, peak = quantise(score)
        for name, value in (("codes", codes), ("peak", peak), ("image_from_heatmap", image_from_heatmap), ("done", 1)):
            self._group[name][index] = value  # type: ignore[index]

    def finish(self) -> None:
        """Put the complete store in place."""
        replace_folder(self.partial, self.path)


class HeatmapStore:
    """Heat maps read back block by block."""

    def __init__(self, path: Path) -> None:
        """Open a finished store."""
        self._group = zarr.open_group(path, mode="r")
        attributes = dict(self._group.attrs)
        self.fingerprint = str(attributes["fingerprint"])
        self.sharpness = float(attributes["sharpness"])  # type: ignore[arg-type]
        self.views: tuple[str, ...] = tuple(attributes["views"])  # type: ignore[arg-type]
        self.joints: tuple[str, ...] = tuple(attributes["joints"])  # type: ignore[arg-type]
        self.frames = np.asarray(attributes["frames"], dtype=np.int64)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def read(self, first: int, last: int) -> Heatmaps:
        """The maps of frames at places first .. last - 1."""
        codes = np.asarray(self._group["codes"][first:last])  # type: ignore[index]
        peak = np.asarray(self._group["peak"][first:last])  # type: ignore[index]
        affine = np.asarray(self._group["image_from_heatmap"][first:last])  # type: ignore[index]
        return Heatmaps(self.frames[first:last], self.views, self.joints, dequantise(codes, peak), affine)


def _attributes(path: Path) -> dict[str, object]:
    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except (OSError, ValueError, KeyError):
        return {}

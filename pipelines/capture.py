"""What a run works on: the chosen views' cameras, videos, frames and times, checked before any work begins."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.checks import compare_size
from calib.rig import Rig, load_rig
from harvest.errors import UserError
from harvest.store.fingerprint import file_fingerprint, fingerprint
from harvest.video import SyncedVideos, open_views, pair_videos

_log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Capture:
    """Cameras of the chosen views, their videos, the frame numbers (T,) to work on and their times (T,) in seconds.

    warnings: plain sentences for the report. fingerprint: names rig, videos, views and frames.
    """

    rig: Rig
    videos: SyncedVideos
    frames: NDArray[np.int64]
    times_s: NDArray[np.float64]
    warnings: tuple[str, ...]
    fingerprint: str

    def pictures(self, frames: Sequence[int]) -> Iterator[tuple[int, dict[str, Picture | None]]]:
        """The views' RGB pictures of some frames (increasing), None where one cannot be decoded."""
        return self.videos.frames(frames)


def open_capture(rig_path: Path, videos: Path, frames: str | None, views: str | None) -> Capture:
    """The capture that the command line asks for.

    Raises:
        UserError, CalibrationError: rig and videos that do not go together, bad frame or view choices.
    """
    rig = load_rig(rig_path)
    if views:
        rig = rig.select([name.strip() for name in views.split(",")])
    if len(rig) < 2:
        raise UserError(f"3D needs at least two views, got {', '.join(rig.names)}; choose more with --views")
    paths, unused = pair_videos(rig.names, videos, {camera.name: camera.video for camera in rig.cameras})
    synced = open_views(paths)
    rig, warnings = _fit_sizes(rig, synced)
    warnings += list(synced.problems)
    if unused and not views:
        warnings.append(f"videos that no camera of the rig uses: {', '.join(path.name for path in unused)}")
    for warning in warnings:
        _log.warning("%s", warning)
    numbers = np.arange(synced.n_frames)[parse_frames(frames)]
    if numbers.size == 0:
        raise UserError(
            f"--frames {frames} leaves none of the {synced.n_frames} frames; give start:stop:step within them"
        )
    content = {name: file_fingerprint(path) for name, path in paths.items()}
    key = fingerprint(rig.to_yaml(), content, numbers.tolist())
    return Capture(rig, synced, numbers, synced.times_s[numbers], tuple(warnings), key)


def _fit_sizes(rig: Rig, videos: SyncedVideos) -> tuple[Rig, list[str]]:
    """The rig with the videos' picture sizes where only codec padding was cut; any other mismatch is an error."""
    cameras, warnings = [], []
    for camera in rig.cameras:
        file = videos.files[camera.name]
        size = (file.width_px, file.height_px)
        level, message = compare_size(camera.size_px, size)
        if level == "error":
            raise UserError(f"camera '{camera.name}', {file.path.name}: {message}")
        if level == "warning":
            warnings.append(f"camera '{camera.name}': {message}")
        cameras.append(dataclasses.replace(camera, size_px=size))
    return Rig(tuple(cameras), rig.up), warnings


def parse_frames(text: str | None) -> slice:
    """The slice of `start:stop:step` (each part may be empty), or of one frame number; all frames for None."""
    if not text or not text.strip():
        return slice(None)
    try:
        parts = [int(part) if part.strip() else None for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(part is not None and part < 0 for part in parts) or parts[2:] == [0]:
        raise UserError(f"--frames takes start:stop:step, like 0:100:2, got '{text}'")
    if len(parts) == 1:
        start = parts[0] or 0
        return slice(start, start + 1)
    return slice(*parts)

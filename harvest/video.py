"""Videos of one scene, paired with its cameras and into time steps; single files are read by `harvest.video_file`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harvest.errors import UserError
from harvest.video_file import UNEVEN, VideoFile, increasing, probe, read_frames

__all__ = [
    "VIDEO_SUFFIXES",
    "SyncedVideos",
    "VideoFile",
    "named",
    "open_views",
    "pair_videos",
    "probe",
    "read_frames",
]

_log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm", ".mpg")
_READ_AHEAD = 4  # time steps decoded before they are asked for; at 1080p one costs 6 MB a view
_SAME_RATE = 0.01  # rates closer than this are one rate measured twice


@dataclass(frozen=True, eq=False)
class SyncedVideos:
    """Views of one scene, frame t of each taken at the same moment; see `open_views`.

    Attributes:
        names: the views; the first is the reference that the time steps follow.
        files: each view's file.
        n_frames: number of time steps that all views cover.
        fps: average frame rate of the reference, 1/s.
        problems: plain sentences, the files' own and those of their pairing.
        index_in_view: for each view (n_frames,) int64, its frame at each time step, or -1 where it has none.
    """

    names: tuple[str, ...]
    files: Mapping[str, VideoFile]
    n_frames: int
    fps: float
    problems: tuple[str, ...]
    index_in_view: Mapping[str, np.ndarray]

    @property
    def times_s(self) -> np.ndarray:
        """(n_frames,) float64, the time of each step on the reference's clock; the first is 0."""
        return self.files[self.names[0]].times_s[: self.n_frames]

    def frames(
        self, indices: Iterable[int], *, size_px: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, dict[str, np.ndarray | None]]]:
        """One time step after the other: (t, picture of each view), pictures and None as `read_frames` gives them.

        One thread a view decodes a few steps ahead; the threads end with the iterator, also when it is dropped early.

        Raises:
            ValueError: indices that are negative or do not increase.
            IndexError: an index of n_frames or more.
        """
        wanted = increasing(indices)
        if len(wanted) and wanted[-1] >= self.n_frames:
            raise IndexError(f"time step {wanted[-1]} was asked for; the videos share {self.n_frames}")
        return self._frames(wanted, size_px)

    def _frames(
        self, wanted: np.ndarray, size_px: tuple[int, int] | None
    ) -> Iterator[tuple[int, dict[str, np.ndarray | None]]]:
        with ExitStack() as at_end:
            readers, workers = {}, {}
            for name in self.names:
                numbers = self.index_in_view[name][wanted]
                readers[name] = read_frames(self.files[name], numbers[numbers >= 0], size_px=size_px)
                workers[name] = ThreadPoolExecutor(1, thread_name_prefix=f"video {name}")
                at_end.callback(readers[name].close)  # runs after the shutdown below: last in, first out
                at_end.callback(workers[name].shutdown, wait=True, cancel_futures=True)
            ahead: deque[tuple[int, dict[str, Future | None]]] = deque()
            for t in wanted:
                present = {name: self.index_in_view[name][t] >= 0 for name in self.names}
                ahead.append(
                    (int(t), {n: workers[n].submit(next, readers[n]) if present[n] else None for n in self.names})
                )
                if len(ahead) > _READ_AHEAD:
                    yield _collect(*ahead.popleft())
            while ahead:
                yield _collect(*ahead.popleft())


def open_views(paths: Mapping[str, Path]) -> SyncedVideos:
    """The videos paired into time steps: by frame number, or by time where one of the pair has a variable rate.

    By time, a view's frame serves the reference (first) view's frame nearest to it if less than half a frame interval
    lies between them, both clocks starting at the view's own first frame; else the view is missing at that step.

    Raises:
        UserError: no views, a file that `probe` refuses, or constant frame rates that differ by more than 1 %.
    """
    if not paths:
        raise UserError("no videos were given; name at least one camera with its video")
    files = {name: probe(path) for name, path in paths.items()}
    names = tuple(files)
    reference = files[names[0]]
    problems = [problem for file in files.values() for problem in file.problems]
    problems += _check_rates(files)
    matches, lengths = {}, {}
    for name, file in files.items():
        if file.variable_rate or reference.variable_rate:
            half_s = 0.5 / _typical_fps(reference)
            matches[name] = _match_times(reference.times_s, file.times_s, half_s)
            lengths[name] = int(np.sum(reference.times_s < file.times_s[-1] + half_s))
        else:
            matches[name] = np.arange(file.n_frames)
            lengths[name] = file.n_frames
    n_frames = min(lengths.values())
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in lengths.items())
        problems.append(f"unequal lengths: {listed} frames; the first {n_frames} are used")
    index_in_view = {name: match[:n_frames] for name, match in matches.items()}
    for name, match in index_in_view.items():
        if n_missing := int(np.sum(match < 0)):
            problems.append(f"{name}: no frame near enough in time at {n_missing} of {n_frames} time steps")
    return SyncedVideos(names, files, n_frames, reference.fps, tuple(problems), index_in_view)


def _collect(
    t: int, pictures: dict[str, Future[tuple[int, np.ndarray | None]] | None]
) -> tuple[int, dict[str, np.ndarray | None]]:
    return t, {name: None if picture is None else picture.result()[1] for name, picture in pictures.items()}


def _typical_fps(file: VideoFile) -> float:
    """The frame rate between frames that follow each other without a gap, or 0 for a single frame.

    A mean and not the median itself, which in containers that count milliseconds would be off by up to 1 ms.
    """
    step_s = np.diff(file.times_s)
    if not len(step_s):
        return 0.0
    median_s = np.median(step_s)
    return float(1 / np.mean(step_s[np.abs(step_s - median_s) <= UNEVEN * median_s]))


def _check_rates(files: Mapping[str, VideoFile]) -> list[str]:
    rates = {name: file.fps for name, file in files.items() if not file.variable_rate and file.n_frames > 1}
    if not rates:
        return []
    slow, fast = min(rates.values()), max(rates.values())
    listed = ", ".join(f"{name} {fps:.3f}" for name, fps in rates.items())
    if fast > slow * (1 + _SAME_RATE):
        raise UserError(
            f"frame rates differ: {listed} frames/s; resample all videos to one rate first, e.g. "
            f"ffmpeg -i in.mp4 -vf fps={slow:g} -crf 12 out.mp4"
        )
    if (fast / slow - 1) * min(file.n_frames for file in files.values()) > 0.5:
        return [f"frame rates differ slightly: {listed} frames/s; frames are paired by number all the same"]
    return []


def _match_times(reference_s: np.ndarray, view_s: np.ndarray, within_s: float) -> np.ndarray:
    """(T,) int64: for each reference time the view's nearest frame if closer than `within_s`, else -1; none twice."""
    after = np.searchsorted(view_s, reference_s).clip(0, len(view_s) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(reference_s - view_s[before] <= np.abs(view_s[after] - reference_s), before, after)
    distance_s = np.abs(view_s[nearest] - reference_s)
    by_distance = np.argsort(distance_s, kind="stable")
    _, first = np.unique(nearest[by_distance], return_index=True)  # of the times that share a frame, the closest
    keep = by_distance[first]
    keep = keep[distance_s[keep] < within_s]
    match = np.full(len(reference_s), -1)
    match[keep] = nearest[keep]
    return match


def pair_videos(
    names: Sequence[str], directory: Path, explicit: Mapping[str, str | None]
) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """Each camera's video, and the videos of the directory that no camera uses (a warning lists them too).

    A file in `explicit` (relative to the directory) wins; else the one whose stem is the camera's name exactly; else
    the one whose stem is the name but for case, '_', '-' and spaces.

    Raises:
        UserError: no such directory, a camera with no video or with several, or a video taken by two cameras.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory of videos; give the directory that holds {', '.join(names)}")
    videos = sorted(p for p in directory.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    pairs: dict[str, Path] = {}
    for name in names:
        pairs[name] = _video_of(name, directory, videos, explicit.get(name))
        rival = next((other for other in pairs if other != name and pairs[other] == pairs[name]), None)
        if rival is not None:
            raise UserError(
                f"cameras {rival} and {name} both take the video {pairs[name].name} in {directory}; "
                "give each its own with 'video:' in the rig file"
            )
    unused = tuple(video for video in videos if video not in pairs.values())
    if unused:
        _log.warning("%s: no camera uses %s", directory, ", ".join(video.name for video in unused))
    return pairs, unused


def _video_of(name: str, directory: Path, videos: list[Path], explicit: str | None) -> Path:
    there = ", ".join(video.name for video in videos) or "no video"
    if explicit is not None:
        if (directory / explicit).is_file():
            return directory / explicit
        raise UserError(
            f"camera {name}: its video {explicit} is not in {directory}, which holds {there}; correct 'video:' in the "
            "rig file or add the file"
        )
    found = named(name, {video: video.stem for video in videos})
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} videos have its name" if found else "no video has its name"
    raise UserError(
        f"camera {name}: {several} in {directory}, which holds {there}; rename the file or name it with 'video:' in "
        "the rig file"
    )


def named(name: str, stems: Mapping[Path, str]) -> list[Path]:
    """Those of the paths whose stem (the value) is the name; if none, is it but for case, '_', '-' and spaces."""
    exact = [path for path, stem in stems.items() if stem == name]
    return exact or [path for path, stem in stems.items() if _bare(stem) == _bare(name)]


def _bare(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", "_- "))

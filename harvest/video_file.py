"""Frames of one video file, numbered by presentation time.

A frame's index is the rank of its presentation time among all packets of the file, not a count of decoded frames. A
frame that cannot be decoded therefore leaves a hole, and every later frame keeps its number.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import av.container
import numpy as np
from av.video.stream import VideoStream

from harvest.errors import UserError

_log = logging.getLogger(__name__)

# FFmpeg's own messages name no file and repeat for every packet; what matters of them comes back in `problems`. They
# must not be routed to Python's logging instead: decoder threads would then wait for the interpreter lock.
av.logging.set_level(None)

UNEVEN = 0.3  # of a frame interval: losing one frame moves some frame by 1/3 or more, clock rounding by far less
_ALWAYS = -(2**63)  # earlier than every presentation time


@dataclass(frozen=True, eq=False)
class VideoFile:
    """What one video file holds, as `probe` found it.

    Attributes:
        path: the file.
        width_px, height_px: size of the upright picture, that is after rotation metadata.
        fps: average frame rate, 1/s; for a file of one frame, what the file says, or 0.
        n_frames: frames that have a packet in the file, decodable or not.
        times_s: (n_frames,) float64, increasing, presentation times; the first is 0.
        variable_rate: whether frames lie off an even grid, so that frame number and time are not proportional.
        problems: plain sentences about what is wrong with the file; empty for a sound one.
        pts: (n_frames,) int64, the same times in the file's own ticks, not shifted.
        key_pts: (K,) int64, increasing, those of them at which decoding can start.
    """

    path: Path
    width_px: int
    height_px: int
    fps: float
    n_frames: int
    times_s: np.ndarray
    variable_rate: bool
    problems: tuple[str, ...]
    pts: np.ndarray
    key_pts: np.ndarray


def probe(path: str | Path) -> VideoFile:
    """What the video file holds, from its packets and its first good frame; the rest is not decoded.

    Exception: H.264 or MPEG-4 in AVI is decoded once as a whole, for AVI may give reordered frames wrong times.

    Raises:
        UserError: no such file, not a video, no video stream, no frame, or no presentation times.
    """
    path = Path(path)
    with _open(path) as container:
        stream = _video_stream(container, path)
        pts, key_pts, problems = _scan(container, stream, path)
        tick_s = float(stream.time_base or 0)
        stated_fps = float(stream.average_rate or 0)
        times_s = (pts - pts[0]) * tick_s
        times_in_doubt = container.format.name == "avi" and bool(stream.codec_context.has_b_frames)
    width_px, height_px = _picture_size(path, check_all_times=times_in_doubt)
    n_frames = len(pts)
    variable_rate = _is_uneven(times_s)
    if variable_rate:
        step_s = np.diff(times_s)
        problems.append(f"{path.name}: variable frame rate, {step_s.min():.4f} to {step_s.max():.4f} s between frames")
    fps = (n_frames - 1) / float(times_s[-1]) if n_frames > 1 else stated_fps
    return VideoFile(path, width_px, height_px, fps, n_frames, times_s, variable_rate, tuple(problems), pts, key_pts)


def read_frames(
    path: str | Path | VideoFile, indices: Iterable[int], *, size_px: tuple[int, int] | None = None
) -> Generator[tuple[int, np.ndarray | None]]:
    """The asked-for frames, one by one: (index, (H, W, 3) uint8 RGB, upright), or (index, None) where there is none.

    None stands for a frame that does not decode, that may be predicted from such a one (all until the next key frame,
    for decoders paint over the damage without a word), that has another size than the first, or that lies past the
    end. Damage that happens to be valid code is not noticed.

    Args:
        path: the file; a VideoFile saves scanning it again.
        indices: increasing frame numbers from 0.
        size_px: (width, height) to scale the upright picture to. Edges are kept on edges, so a pixel centre u goes to
            (u + 0.5) * scale - 0.5.
    Raises:
        UserError: as `probe`.
        ValueError: indices that are negative or do not increase.
    """
    wanted = increasing(indices)
    return _read(path if isinstance(path, VideoFile) else probe(path), wanted, size_px)


def _open(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise UserError(f"{path}: no such video file; check the name and the directory")
    try:
        # FFmpeg takes a name with a colon for a network address unless the protocol is spelt out.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as a video ({getattr(error, 'strerror', None) or error}); "
            "give a complete video file; an mp4 or mov whose recording broke off has no index and needs repair first"
        ) from error
    if container.format.name.endswith("_pipe") or container.format.name in ("image2", "tty"):
        container.close()
        raise UserError(f"{path}: not a video but a file of format {container.format.name}; give a video file")
    return container


def _video_stream(container: av.container.InputContainer, path: Path) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        raise UserError(f"{path}: has no video stream that can be decoded; give the file that holds the pictures")
    # Without it, decoders fill damaged areas from neighbouring frames and hand them out as sound.
    stream.codec_context.options = {"err_detect": "explode"}
    return stream


def _packets(container: av.container.InputContainer, stream: VideoStream, path: Path) -> Iterator[av.Packet]:
    """The stream's packets with data, in file order; a read error ends them as the end of the file does."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.FFmpegError as error:
        _log.warning("%s: reading stopped early (%s)", path, error)


def _scan(
    container: av.container.InputContainer, stream: VideoStream, path: Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Presentation times of all frames and of the key frames (both increasing, in ticks), and the file's problems."""
    times: list[int] = []
    keys: list[int] = []
    n_packets = n_untimed = n_corrupt = 0
    last_dts = None
    for packet in _packets(container, stream, path):
        n_packets += 1
        n_corrupt += packet.is_corrupt
        last_dts = packet.dts if packet.dts is not None else last_dts
        if packet.pts is None:
            n_untimed += 1
        elif not packet.is_discard:  # an edit list cuts it: no player shows it
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    if n_untimed > n_packets / 2:
        raise _untimed(path)
    if not times:
        raise UserError(f"{path}: holds no video frame; record it again or leave it out")
    pts = np.unique(np.asarray(times, np.int64))
    n_sure = _complete_until(pts, last_dts)
    problems = _what_is_wrong(path, container, stream, n_packets, pts)
    if n_sure < len(pts) and not problems:
        problems.append(f"{path.name}: breaks off inside a group of frames; it was probably cut short")
    for n, what in (
        (n_corrupt, "corrupt packets"),
        (n_untimed, "packets without presentation time, left out"),
        (len(times) - len(pts), "packets that repeat the presentation time of another, left out"),
    ):
        if n:
            problems.append(f"{path.name}: number of {what}: {n}")
    return pts[:n_sure], np.unique(np.asarray(keys, np.int64)), problems


def _untimed(path: Path) -> UserError:
    return UserError(
        f"{path}: stores no usable presentation times (a raw stream, or AVI with reordered frames), so its frames "
        f"cannot be numbered; convert it first: ffmpeg -i {path.name} -c:v libx264 -crf 12 {path.stem}.mp4"
    )


def _complete_until(pts: np.ndarray, last_dts: int | None) -> int:
    """How many frames surely have no lost frame before them.

    Packets come in decoding order. Where a file breaks off, a few frames shown late are there while frames shown
    before them are not; a gap among the frames that outrun decoding time gives that away. Ranks after it are wrong.
    """
    if last_dts is None or len(pts) < 3:
        return len(pts)
    step = np.diff(pts)
    gap = np.flatnonzero((step > 1.5 * np.median(step)) & (pts[1:] > last_dts))
    return int(gap[0]) + 1 if len(gap) else len(pts)


def _what_is_wrong(
    path: Path, container: av.container.InputContainer, stream: VideoStream, n_packets: int, pts: np.ndarray
) -> list[str]:
    if stream.frames > n_packets:
        return [f"{path.name}: cut short, its header says {stream.frames} frames and {n_packets} are there"]
    stated_s = (container.duration or 0) / av.time_base
    end_s = float((pts[-1] + 1) * (stream.time_base or 0)) - (container.start_time or 0) / av.time_base
    # With sound, the container's duration is that of the longer of the two.
    if not container.streams.audio and stated_s - end_s > max(0.5, 0.01 * stated_s):
        return [f"{path.name}: cut short, its header says {stated_s:.2f} s and the last frame is at {end_s:.2f} s"]
    return []


def _picture_size(path: Path, *, check_all_times: bool) -> tuple[int, int]:
    size_px, last_pts = None, None
    for pts, frame in _good_frames(path):
        size_px = size_px or _upright_size(frame)
        if not check_all_times:
            break
        if last_pts is not None and pts <= last_pts:
            raise _untimed(path)
        last_pts = pts
    if size_px is None:
        raise UserError(f"{path}: none of its frames can be decoded; record it again or leave it out")
    return size_px


def _is_uneven(times_s: np.ndarray) -> bool:
    if len(times_s) < 3:
        return False
    step_s = times_s[-1] / (len(times_s) - 1)
    return bool(np.max(np.abs(times_s - np.arange(len(times_s)) * step_s)) > UNEVEN * step_s)


def increasing(indices: Iterable[int]) -> np.ndarray:
    """(N,) int64, the frame numbers.

    Raises:
        ValueError: numbers that are negative or do not increase.
    """
    wanted = np.fromiter(indices, np.int64)
    if len(wanted) and (wanted[0] < 0 or np.any(np.diff(wanted) <= 0)):
        raise ValueError("frame indices must be 0 or more and increase; sort them and drop the repeated ones")
    return wanted


def _read(
    file: VideoFile, wanted: np.ndarray, size_px: tuple[int, int] | None
) -> Generator[tuple[int, np.ndarray | None]]:
    """`read_frames` after its checks: the wanted times and the decoded ones, both increasing, merged."""
    wanted_pts = file.pts[wanted[wanted < file.n_frames]]
    done = n_lost = 0
    for pts, frame in _good_frames(file.path, file.key_pts, wanted_pts[0]) if len(wanted_pts) else ():
        while done < len(wanted_pts) and wanted_pts[done] < pts:
            yield int(wanted[done]), None
            done, n_lost = done + 1, n_lost + 1
        if done < len(wanted_pts) and wanted_pts[done] == pts:
            picture = _upright_rgb(frame, (file.width_px, file.height_px), size_px)
            n_lost += picture is None
            yield int(wanted[done]), picture
            done += 1
        if done == len(wanted_pts):
            break
    for index in wanted[done:]:
        yield int(index), None
    if n_lost := n_lost + len(wanted) - done:
        _log.warning("%s: %d of %d frames asked for are damaged or past the end", file.path, n_lost, len(wanted))


def _good_frames(
    path: Path, key_pts: np.ndarray | None = None, from_pts: int = 0
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(pts, frame) for frames that no known damage has touched, in presentation order, from `from_pts` at the latest.

    After a packet that fails, frames are held back until the next key frame, and those shown before that key frame
    too, as they may be predicted from both sides of it. Only a frame that no other refers to spoils itself alone.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        packets = _packets(container, stream, path)
        if key_pts is not None:
            packets = _skip_to(from_pts, key_pts, container, stream, path)
        clean_from: int | None = _ALWAYS
        spoilt: set[int] = set()
        for packet in packets:
            # Threads over slices, PyAV's default, and not over frames: an error then belongs to this very packet.
            try:
                frames, broken = packet.decode(), packet.is_corrupt
            except av.FFmpegError:
                frames, broken = [], True
            pts = packet.pts if packet.pts is not None else _ALWAYS
            if broken and not packet.is_disposable:
                clean_from = None
            elif clean_from is None and packet.is_keyframe:
                clean_from = pts
            if broken or clean_from is None or pts < clean_from:
                spoilt.add(pts)
            yield from _sound(frames, spoilt)
        try:
            yield from _sound(stream.decode(None), spoilt)
        except av.FFmpegError as error:
            _log.debug("%s: the decoder gave an error at the end (%s)", path, error)


def _skip_to(
    from_pts: int, key_pts: np.ndarray, container: av.container.InputContainer, stream: VideoStream, path: Path
) -> Iterator[av.Packet]:
    """The packets needed to decode from `from_pts` on, and one key frame's worth before them.

    That one more is for streams whose key frames do not cut off all that comes before.
    """
    start = int(np.searchsorted(key_pts, from_pts, side="right")) - 2
    if start <= 0:
        return _packets(container, stream, path)
    container.seek(int(key_pts[start]), stream=stream)
    packets = _packets(container, stream, path)
    first = next(packets, None)
    if first is not None and first.pts is not None and first.pts <= key_pts[start]:
        return chain([first], packets)
    container.seek(container.start_time or 0)  # no usable index: read it all
    return _packets(container, stream, path)


def _sound(frames: list[av.VideoFrame], spoilt: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    for frame in frames:
        if frame.pts is not None and frame.pts not in spoilt and not frame.is_corrupt:
            yield frame.pts, frame


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transposed, u reversed, v reversed): what the frame's display matrix asks for, to the nearest quarter turn.

    The matrix [a b; c d] takes a stored pixel (u, v) to (a u + c v, b u + d v).
    """
    if not frame.rotation:
        return False, False, False
    side_data = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # PyAV's stub lists one key only
    matrix = np.frombuffer(bytes(side_data), np.int32).astype(np.int64)
    a, b, c, d = matrix[[0, 1, 3, 4]]
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.height, frame.width) if _orientation(frame)[0] else (frame.width, frame.height)


def _upright_rgb(
    frame: av.VideoFrame, expected_px: tuple[int, int], size_px: tuple[int, int] | None
) -> np.ndarray | None:
    """(H, W, 3) uint8, or None if the frame has another size than its file: no calibration could fit both."""
    if _upright_size(frame) != expected_px:
        return None
    transposed, reverse_u, reverse_v = _orientation(frame)
    width, height = (size_px or expected_px)[::-1] if transposed else (size_px or expected_px)
    picture = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    if transposed:
        picture = picture.transpose(1, 0, 2)
    return np.ascontiguousarray(picture[:: -1 if reverse_v else 1, :: -1 if reverse_u else 1])

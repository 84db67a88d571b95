"""Sequences of CMU's Panoptic Studio, as its toolbox unpacks them: HD pictures or videos, and everybody's joints.

<sequence>/
  calibration_<sequence>.json
  hdPose3d_stage1_coco19/body3DScene_<frame>.json   also a folder deeper
  hdImgs/00_<camera>/00_<camera>_<frame>.jpg        or .png
  hdVideos/hd_00_<camera>.mp4                       where a camera has no pictures
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.importers import read_panoptic
from calib.rig import Rig
from harvest.errors import UserError
from harvest.learn.layouts.footage import FEWEST_VIEWS, Footage, Moment, Shot, at_intervals, known_people
from harvest.skeleton import load_skeleton
from harvest.video import VideoFile, probe

Floats = NDArray[np.float64]
POSES, PICTURES, VIDEOS = "hdPose3d_stage1_coco19", "hdImgs", "hdVideos"
SKELETON, BODY = "cmu19", "joints19"
RATE = 29.97  # HD frames a second
CM_PER_M = 100.0
Source = Mapping[int, Path] | VideoFile  # of one camera: pictures by the number of their frame, or a video


def is_panoptic(folder: Path) -> bool:
    """Whether a folder is a sequence, or holds some."""
    return bool(_sequences(folder))


def read_panoptic_footage(folder: Path) -> Footage:
    """The moments of a sequence, or of all sequences in a folder; -y is up.

    Joints whose confidence is not above 0 are unknown, and people of whom more than half are, are left out.

    Raises:
        UserError: a sequence without joints, or without pictures of two of its HD cameras; a file that cannot be read.
        CalibrationError: a calibration that cannot be read.
    Source: the panoptic-toolbox of the CMU Perceptual Computing Lab.
    """
    moments = tuple(moment for sequence in _sequences(folder) for moment in _moments(sequence))
    return Footage(folder, load_skeleton(SKELETON).joints, moments)


def _sequences(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in (folder, *sorted(folder.iterdir())) if (path / POSES).is_dir() or _calibrations(path)]


def _calibrations(sequence: Path) -> list[Path]:
    found = sorted(sequence.glob("calibration_*.json"))
    return [path for path in found if path.stem == f"calibration_{sequence.name}"] or found


def _moments(sequence: Path) -> list[Moment]:
    rig = read_panoptic(_calibration(sequence))
    scenes = _by_frame(sequence / POSES, "**/body3DScene_*.json")
    if not scenes:
        raise UserError(f"{sequence} holds no {POSES}/body3DScene_*.json; download {POSES}.tar and unpack it there")
    sources = {name: source for name in rig.names if (source := _source(sequence, name))}
    if len(sources) < FEWEST_VIEWS:
        raise UserError(
            f"{sequence} holds pictures of {len(sources)} HD cameras, two or more are needed; download "
            f"{VIDEOS}/hd_00_XX.mp4, or unpack them to {PICTURES}/00_XX/00_XX_<frame>.jpg"
        )
    read = partial(_moment, sequence.name, rig, scenes, sources)
    return [moment for _, moment in at_intervals(sorted(scenes), RATE, read)]


def _calibration(sequence: Path) -> Path:
    found = _calibrations(sequence)
    if len(found) != 1:
        what = "no calibration" if not found else f"{len(found)} calibrations"
        raise UserError(f"{sequence} holds {what}; give its own as calibration_{sequence.name}.json")
    return found[0]


def _by_frame(folder: Path, pattern: str) -> dict[int, Path]:
    """Files whose names end in the number of a frame, by that number."""
    ends = {path: path.stem.rpartition("_")[2] for path in folder.glob(pattern)}
    return {int(end): path for path, end in ends.items() if end.isdecimal()}


def _source(sequence: Path, camera: str) -> Source | None:
    pictures = _by_frame(sequence / PICTURES / camera, f"{camera}_*.[jp][pn]g")
    video = sequence / VIDEOS / f"hd_{camera}.mp4"
    if pictures or not video.is_file():
        return pictures or None
    return probe(video)


def _moment(
    sequence: str, rig: Rig, scenes: Mapping[int, Path], sources: Mapping[str, Source], frame: int
) -> Moment | None:
    """What the cameras show at a frame, None where they show nobody."""
    shots = {name: shot for name, source in sources.items() if (shot := _shot(source, frame))}
    people = _people(scenes[frame]) if len(shots) >= FEWEST_VIEWS else None
    if people is None:
        return None
    return Moment(f"{sequence}/{frame:08d}", rig.select(shots), tuple(shots.values()), people)


def _shot(source: Source, frame: int) -> Shot | None:
    if isinstance(source, VideoFile):
        return Shot(source, frame) if frame < source.n_frames else None
    return Shot(source[frame]) if frame in source else None


def _people(path: Path) -> Floats | None:
    """(P, 19, 3) of everybody who is known well enough, in metres; None if there is nobody."""
    try:
        bodies = json.loads(path.read_text(encoding="utf-8"))["bodies"]
        values = np.array([body[BODY] for body in bodies], np.float64).reshape(len(bodies), 19, 4)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error!r}); it needs 'bodies' with 19 x 4 numbers '{BODY}' each: unpack it again"
        ) from None
    return known_people(np.where(values[..., 3:] > 0, values[..., :3] / CM_PER_M, np.nan))

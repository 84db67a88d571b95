"""Human3.6M as mmpose's `preprocess_h36m.py` unpacks it, with the cameras as a text beside it: their own are a pickle.

<folder>/
  camera-parameters.json                            of github.com/karfly/human36m-camera-parameters
  annotation_body3d/fps10/h36m_train.npz            and h36m_test.npz: imgname (N,), S (N, 17, 4)
  images/S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from calib.importers import read_human36m
from calib.rig import Rig
from harvest.errors import UserError
from harvest.learn.layouts.footage import FEWEST_VIEWS, Footage, Moment, Shot, at_intervals, known_people
from harvest.skeleton import load_skeleton

Floats = NDArray[np.float64]
ANNOTATIONS, PICTURES, CAMERAS = "annotation_body3d", "images", "camera-parameters.json"
SPLITS = ("h36m_train.npz", "h36m_test.npz")
OTHERS = ("S*/Videos", "S*/MyPoseFeatures", "data_3d_h36m.npz")  # what comes as CDF files or as a pickle
SKELETON = "h36m17"
# Two of its joints lie inside the head, up to a decimetre from where detectors find joints of these names.
OWN_NAMES = {"nose": "head_joint", "head_top": "skull"}
RATE = 50.0  # frames a second, by whose numbers pictures are called at any rate
AGREE_M = 0.02  # views tell the same joints, each in its own frame
_NAME = re.compile(r"(?P<sequence>S\d+_.+)\.(?P<camera>\d+)_(?P<frame>\d+)")
Rows = Mapping[str, int]  # of a moment: the annotation's row of each camera


def is_human36m(path: Path) -> bool:
    """Whether a folder, or one split's file of annotations in it, is Human3.6M, be it one that cannot be read."""
    return _is_split(path) or (path / ANNOTATIONS).is_dir() or any(any(path.glob(other)) for other in OTHERS)


def read_human36m_footage(path: Path) -> Footage:
    """The moments of a split: of the file of annotations that is given, or of the folder's training subjects.

    Raises:
        UserError: annotations, cameras or pictures that are missing or do not go together.
        CalibrationError: cameras that cannot be read.
    """
    annotations = _annotations(path)
    folder = annotations.parents[2]
    cameras = folder / CAMERAS
    if not cameras.is_file():
        raise UserError(
            f"{folder} holds no {CAMERAS}; put that of github.com/karfly/human36m-camera-parameters there (cameras.pkl "
            "is a pickle, and pickles are not read)"
        )
    names, joints_m = _arrays(annotations)
    moments: list[Moment] = []
    for sequence, frames in _by_sequence(names, annotations).items():
        rig = read_human36m(cameras, sequence.partition("_")[0])
        read = partial(_moment, folder / PICTURES, rig, names, joints_m, frames)
        moments += [moment for _, moment in at_intervals(sorted(frames), RATE, read)]
    if not moments:
        raise UserError(
            f"{annotations} names no moment of which {folder / PICTURES} has two pictures; unpack them there"
        )
    joints = tuple(OWN_NAMES.get(name, name) for name in load_skeleton(SKELETON).joints)
    return Footage(path, joints, tuple(moments))


def _is_split(path: Path) -> bool:
    return path.name in SPLITS and path.resolve().parent.parent.name == ANNOTATIONS and path.is_file()


def _annotations(path: Path) -> Path:
    if _is_split(path):
        return path.resolve()
    for split in SPLITS:
        for found in sorted(path.glob(f"{ANNOTATIONS}/*/{split}")):
            return found
    raise UserError(
        f"{path} holds Human3.6M in a form that cannot be read: joints in CDF files or in a pickle; convert the "
        f"original with mmpose's tools/dataset/preprocess_h36m.py and give the folder that holds {ANNOTATIONS}"
    )


def _arrays(annotations: Path) -> tuple[list[str], Floats]:
    """Names (N) of pictures, and joints (N, 17, 3) in the frame of each one's camera, in metres, NaN where unknown."""
    try:
        with np.load(annotations) as file:
            names, joints = file["imgname"].tolist(), np.asarray(file["S"], np.float64)
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{annotations} cannot be read ({error}); it needs plain arrays imgname and S, as mmpose's "
            "preprocess_h36m.py writes them"
        ) from None
    if joints.shape != (len(names), 17, 4):
        raise UserError(f"{annotations}: S is {joints.shape}, and {len(names)} pictures need ({len(names)}, 17, 4)")
    return names, np.where(joints[..., 3:] > 0, joints[..., :3], np.nan)


def _by_sequence(names: Sequence[str], annotations: Path) -> dict[str, dict[int, dict[str, int]]]:
    """By sequence, such as 'S1_Directions_1', and frame: the row of each camera."""
    found: dict[str, dict[int, dict[str, int]]] = {}
    for row, name in enumerate(names):
        parts = _NAME.fullmatch(PurePosixPath(name).stem)
        if parts is None:
            raise UserError(f"{annotations}: picture '{name}' is not called <subject>_<action>.<camera>_<frame>.jpg")
        frames = found.setdefault(parts["sequence"], {})
        frames.setdefault(int(parts["frame"]), {})[parts["camera"]] = row
    return found


def _moment(
    pictures: Path, rig: Rig, names: Sequence[str], joints_m: Floats, frames: Mapping[int, Rows], frame: int
) -> Moment | None:
    """What the cameras show at a frame, None where fewer than two have a picture, or too little is known."""
    rows = {camera: row for camera, row in frames[frame].items() if (pictures / names[row]).is_file()}
    if len(rows) < FEWEST_VIEWS:
        return None
    seen = rig.select(rows)
    told = [
        (joints_m[row] - camera.t_cam_from_world_m) @ camera.R_cam_from_world
        for row, camera in zip(rows.values(), seen.cameras, strict=True)
    ]
    first = names[next(iter(rows.values()))]
    apart = float(np.nan_to_num(np.ptp(told, axis=0)).max())
    if apart > AGREE_M:
        raise UserError(
            f"{first}: two cameras place its joints {apart:.3g} m apart in the world; S must be in metres in each "
            f"camera's frame (D3_Positions_mono), and {CAMERAS} that of the data set"
        )
    people = known_people(np.mean(told, axis=0)[None])
    shots = tuple(Shot(pictures / names[row]) for row in rows.values())
    return None if people is None else Moment(first, seen, shots, people)

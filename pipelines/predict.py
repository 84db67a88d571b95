"""3D poses from single pictures: somebody is found, cut out, and told apart from the camera's distance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calib.camera import Camera
from calib.rig import load_rig
from harvest.detect2d.detectors import crop_picture, image_from_pixels, make_finder
from harvest.errors import UserError
from harvest.monocular.lift import USUAL_FOCAL
from harvest.monocular.networks import CROP_PX
from harvest.monocular.predictors import load_predictor
from harvest.report.single import Shown, draw_poses
from harvest.store.fingerprint import fingerprint
from harvest.store.tables import PERSON, write_table
from harvest.store.wheel import sha256_of
from harvest.video import probe, read_frames
from pipelines.harvested_crops import crop_of_person

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]
TABLE, SHEET = "poses.parquet", "poses.png"
SHOWN = 6


@dataclass(frozen=True)
class Question:
    """What to look at: a picture or a video, every so many frames; and by which camera of which rig, or of which focal
    length; without either one of USUAL_FOCAL is assumed.
    """

    weights: Path
    source: Path
    every: int = 1
    rig: Path | None = None
    camera: str | None = None
    focal_px: float | None = None


def predict(question: Question, out: Path) -> str:
    """Write poses.parquet and poses.png; gives a line about them.

    Raises:
        UserError: weights, picture, video or camera that cannot be used, or nobody in any picture.
        CalibrationError: a rig that cannot be read.
    """
    predictor = load_predictor(question.weights)
    finder, joints = make_finder("hourglass", None, None), predictor.joints
    frames: list[int] = []
    poses: list[tuple[Floats, Floats]] = []
    shown: dict[int, Shown] = {}  # the first pose of each of SHOWN stretches
    camera: Camera | None = None
    for stretch, frame, image in _pictures(question):
        camera = camera or camera_of(question, (image.shape[1], image.shape[0]))
        affine = crop_of_person(finder(image))
        if affine is None:
            continue
        crop, to_image = crop_picture(image, affine, CROP_PX), image_from_pixels(affine, CROP_PX)
        uv, xyz = predictor.predict(crop, camera, to_image)
        frames.append(frame)
        poses.append((uv @ to_image[:, :2].T + to_image[:, 2], xyz))
        shown.setdefault(stretch, Shown(f"{question.source.name}, frame {frame}", crop, uv, xyz))
    if not frames:
        raise UserError(f"nobody was found in {question.source}; give a picture that shows a person whole")
    out.mkdir(parents=True, exist_ok=True)
    all_uv, all_xyz = (np.array(part) for part in zip(*poses, strict=True))
    columns = {
        "frame": np.repeat(frames, len(joints)),
        "person": np.full(all_uv[..., 0].size, PERSON, np.int32),
        "joint": np.tile(np.array(joints), len(frames)),
        **{f"{axis}_px": all_uv[..., i].ravel() for i, axis in enumerate("uv")},
        **{f"{axis}_cam_m": all_xyz[..., i].ravel() for i, axis in enumerate("xyz")},
    }
    write_table(out / TABLE, columns, fingerprint("predict", sha256_of(question.weights), str(question.source)))
    draw_poses(list(shown.values()), joints, predictor.limbs.ends, out / SHEET)
    return f"{len(frames)} poses in {out / TABLE}; look at {out / SHEET}"


def _pictures(question: Question) -> Iterator[tuple[int, int, Picture]]:
    """Stretch (0 to SHOWN - 1), frame number and RGB picture of everything to look at."""
    path = question.source
    if not path.is_file():
        raise UserError(f"there is no {path}; give a picture as --image or a video as --video")
    found = cv2.imread(str(path), cv2.IMREAD_COLOR) if cv2.haveImageReader(str(path)) else None
    if found is not None:
        yield 0, 0, np.ascontiguousarray(found[..., ::-1], np.uint8)
        return
    chosen = range(0, probe(path).n_frames, question.every)
    for frame, image in tqdm(read_frames(path, chosen), total=len(chosen), desc="predict", unit="frame"):
        if image is not None:
            yield frame // question.every * SHOWN // len(chosen), frame, image


def camera_of(question: Question, size_px: tuple[int, int]) -> Camera:
    """The camera that took the pictures, or one that looks straight ahead and may well have.

    Raises:
        UserError: a rig without a name, or of pictures of another size.
    """
    if question.rig is not None:
        rig = load_rig(question.rig)
        if question.camera not in rig.names:
            raise UserError(f"--camera must name one of {', '.join(rig.names)}, got {question.camera}")
        if rig[question.camera].size_px != size_px:
            was = "x".join(map(str, rig[question.camera].size_px))
            raise UserError(f"camera '{question.camera}' was calibrated at {was}, not {size_px[0]}x{size_px[1]}")
        return rig[question.camera]
    focal = question.focal_px or USUAL_FOCAL * max(size_px)
    middle = [(side - 1) / 2 for side in size_px]
    K = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    return Camera("assumed", size_px, K, np.zeros(5), np.eye(3), np.zeros(3))

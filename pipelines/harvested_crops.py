"""Training crops of real people: out of a finished run, with the joints that it kept, or out of single videos."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calib.camera import Camera
from calib.rig import load_rig
from harvest.detect2d.candidates import PersonCandidates
from harvest.detect2d.detectors import crop_picture, image_from_pixels, make_detector, make_finder
from harvest.errors import UserError
from harvest.labels import TEACHERS, labels_by
from harvest.learn.samples import CROP_PX
from harvest.reconstruct.peaks import peak_points
from harvest.reconstruct.pictorial import invert_affine
from harvest.store.tables import read_boxes, read_poses
from harvest.types import Heatmaps, LabelSet
from harvest.video import VIDEO_SUFFIXES, probe, read_frames
from pipelines.capture import open_capture
from pipelines.run_folder import RunFolder
from pipelines.stages.label import evidence_of

Floats = NDArray[np.float64]
SHARD, QUALITY = 256, 92
SURE, LEAST_SURE = 0.6, 6  # a map's peak, and so many joints
CROP_OVER_CIRCLE = 1.1
JOINT_SET = "run"


@dataclass(frozen=True)
class Harvested:
    """A crop (256, 256, 3) of a frame and its labels.

    camera: that took it, of whose picture image_from_crop (2, 3) gives the pixels of the crop's. uv_px (J, 2) in the
    crop, visibility (J,) and weight (J,) as in `LabelSet`; xyz_cam_m (J, 3) and cov_cam_m2 (J, 3, 3) in the camera's
    frame, NaN where there is no label, or none in space.
    """

    frame: int
    camera: Camera
    picture: NDArray[np.uint8]
    image_from_crop: Floats
    joints: tuple[str, ...]
    uv_px: Floats
    visibility: NDArray[np.int64]
    weight: Floats
    xyz_cam_m: Floats
    cov_cam_m2: Floats

    def label(self) -> dict[str, Any]:
        """As JSON holds it (docs/formats.md)."""
        known = _label(list(self.joints), self.uv_px, self.visibility)
        xyz, cov = self.xyz_cam_m, self.cov_cam_m2.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
        known["joints"][JOINT_SET] |= {
            "xyz_cam_m": [np.round(p, 5).tolist() if np.isfinite(p).all() else None for p in xyz],
            "cov_cam_m2": [[float(f"{v:.4g}") for v in c] if np.isfinite(c).all() else None for c in cov],
            "weight": np.round(self.weight, 4).tolist(),
        }
        return known | {
            "frame": self.frame,
            "camera": self.camera.to_dict(),
            "image_from_crop": self.image_from_crop.round(6).tolist(),
        }


def crops_of_run(run: Path, videos: Path, out: Path, teacher: str = TEACHERS[0], part: slice = slice(None)) -> str:
    """Write <frame>-<view>.jpg and .json of every picture that has labels, in tar files; gives a line about it.

    Raises:
        UserError: as `harvested`, or a folder that holds something.
    """
    need_empty(out)
    with Shards(out) as shards:
        for sample in harvested(run, videos, teacher, part):
            shards.add(f"{sample.frame:08d}-{sample.camera.name}", sample.picture, sample.label())
    return f"{shards.count} crops in {out}"


def harvested(run: Path, videos: Path, teacher: str = TEACHERS[0], part: slice = slice(None)) -> Iterator[Harvested]:
    """Every picture of a finished run that has labels, frame by frame.

    Args:
        teacher: whose labels, of `labels_by`. part: of the run's frames, in their order.
    Raises:
        UserError: no finished run, videos that are not those of the run, or no such teacher.
    """
    folder = finished_run(run)
    evidence = evidence_of(load_rig(run / "rig.yaml"), folder.inputs())
    yield from samples_of(run, videos, labels_by(teacher, evidence, {}), part)


def samples_of(run: Path, videos: Path, labels: LabelSet, part: slice = slice(None)) -> Iterator[Harvested]:
    """Every picture of a finished run for which there are labels, frame by frame; see `harvested`."""
    folder = finished_run(run)
    boxes, cov_m2 = read_boxes(folder.file("locate")), read_poses(folder.file("reconstruct")).cov_m2
    place = {int(frame): index for index, frame in enumerate(boxes.frames)}
    rows: dict[int, list[int]] = {int(frame): [] for frame in boxes.frames[part]}
    for row, frame in enumerate(labels.frame):
        if int(frame) in rows:
            rows[int(frame)].append(row)
    capture = open_capture(run / "rig.yaml", videos, None, None)
    chosen = sorted(frame for frame, some in rows.items() if some)
    for frame, images in tqdm(capture.pictures(chosen), total=len(chosen), desc="crops", unit="frame"):
        for row in rows[frame]:
            camera = capture.rig[labels.views[labels.view[row]]]
            image, crop = images[camera.name], boxes.image_from_crop[place[frame], boxes.views.index(camera.name)]
            if image is not None and np.isfinite(crop).all():
                picture, from_world = crop_picture(image, crop, CROP_PX), camera.R_cam_from_world
                cov = from_world @ cov_m2[place[frame]] @ from_world.T
                yield _sample(labels, row, (camera, picture, image_from_pixels(crop, CROP_PX)), cov)


def _sample(
    labels: LabelSet, row: int, seen: tuple[Camera, NDArray[np.uint8], Floats], cov_cam_m2: Floats
) -> Harvested:
    """A row of labels in the pixels of its crop; `seen`: camera, crop, and where it was cut."""
    camera, picture, image_from_crop = seen
    to_crop, labelled = invert_affine(image_from_crop), labels.visibility[row] > 0
    xyz = np.where(labelled[:, None], labels.xyz_cam_m[row], np.nan)
    in_space = np.asarray(np.isfinite(xyz).all(axis=1))[:, None, None]
    return Harvested(
        int(labels.frame[row]),
        camera,
        picture,
        image_from_crop,
        labels.joints,
        labels.uv_px[row] @ to_crop[:, :2].T + to_crop[:, 2],
        labels.visibility[row],
        labels.weight[row],
        xyz,
        np.where(in_space, cov_cam_m2, np.nan),
    )


def finished_run(run: Path) -> RunFolder:
    """The folder of a run that has its labels.

    Raises:
        UserError: it has none.
    """
    folder = RunFolder(run)
    if folder.stored_fingerprint("label") is None:
        raise UserError(f"{run} holds no finished run (no {folder.file('label').name}); run `harvest run` first")
    return folder


def crops_of_videos(videos: Path, teacher: str, every: int, out: Path) -> str:
    """Write crops of the most certain person of each `every`th frame of each video by itself; gives a line about it.

    A joint is taken where the teacher, which looks at the crop and at its mirror image, is sure of it: its map is at
    least SURE. Nothing but the teacher's own certainty tells right from wrong here; a run of several views is better.

    Raises:
        UserError: no videos, a teacher that cannot be made, or a folder that holds something.
    """
    need_empty(out)
    paths = sorted(path for path in videos.iterdir() if path.suffix in VIDEO_SUFFIXES) if videos.is_dir() else []
    if not paths:
        raise UserError(f"{videos} holds no videos; give a folder of {', '.join(VIDEO_SUFFIXES)}")
    finder, detector = make_finder(teacher, None, None), make_detector(teacher, None, flip_test=True)
    with Shards(out) as shards:
        for path in paths:
            frames = range(0, probe(path).n_frames, every)
            for frame, image in tqdm(read_frames(path, frames), total=len(frames), desc=path.stem, unit="frame"):
                affine = crop_of_person(finder(image)) if image is not None else None
                if image is None or affine is None:
                    continue
                picture = crop_picture(image, affine, CROP_PX)
                maps = detector(picture[None])[:, None]
                place = detector.crop_from_heatmap[None, None]
                points = Heatmaps(np.zeros(1, np.int64), ("",), detector.joints, maps, place)
                uv, value = (found[0, 0] for found in peak_points(points))
                sure = value >= SURE
                if sure.sum() >= LEAST_SURE:
                    shards.add(f"{frame:08d}-{path.stem}", picture, _label(list(detector.joints), uv, 2 * sure))
    return f"{shards.count} crops in {out}"


def crop_of_person(people: PersonCandidates) -> NDArray[np.float64] | None:
    """(2, 3) image from the unit square round the first of some people, None where there is nobody."""
    if len(people) == 0:
        return None
    half = CROP_OVER_CIRCLE * people.radius_px[0]
    return np.column_stack([np.eye(2) * 2 * half, people.centre_px[0] - half])


def need_empty(out: Path) -> None:
    """Raise UserError where a folder holds something."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds files; give a new or an empty --out")


def _label(joints: list[str], uv: Any, visibility: Any) -> dict[str, Any]:
    points = [np.round(point, 3).tolist() if seen else None for point, seen in zip(uv, visibility, strict=True)]
    return {"joints": {JOINT_SET: {"names": joints, "uv_px": points, "visibility": visibility.tolist()}}}


class Shards:
    """Tar files of SHARD crops each, every one written when it is full or the last."""

    def __init__(self, out: Path) -> None:
        """Fill a folder."""
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._waiting = out, list[tuple[str, bytes]]()
        self.count = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Write what waits, unless something went wrong."""
        if kind is None:
            self._write()

    def add(self, name: str, picture: NDArray[np.uint8], label: dict[str, Any]) -> None:
        """One sample more; its name has no dot."""
        jpg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        self._waiting += [(f"{name}.jpg", jpg.tobytes()), (f"{name}.json", json.dumps(label).encode())]
        self.count += 1
        if self.count % SHARD == 0:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        path = self._out / f"{(self.count - 1) // SHARD:05d}.tar"
        partial = path.with_name(f"{path.name}.partial")
        with tarfile.open(partial, "w") as tar:
            for name, content in self._waiting:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
        os.replace(partial, path)
        self._waiting = []

"""Training crops of real people: out of a finished run, with the joints that it kept, or out of single videos."""

from __future__ import annotations

import json
import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harvest.detect2d.candidates import no_candidates
from harvest.detect2d.detectors import crop_picture, image_from_pixels, make_detector, make_finder
from harvest.errors import UserError
from harvest.learn.samples import CROP_PX
from harvest.reconstruct.peaks import peak_points
from harvest.reconstruct.pictorial import invert_affine
from harvest.store.tables import read_boxes
from harvest.types import Heatmaps
from harvest.video import VIDEO_SUFFIXES, probe, read_frames
from pipelines.capture import open_capture
from pipelines.run_folder import RunFolder

SHARD, QUALITY = 256, 92
SURE, LEAST_SURE = 0.6, 6  # a map's peak, and so many joints
CROP_OVER_CIRCLE = 1.1
JOINT_SET = "run"


def crops_of_run(run: Path, videos: Path, out: Path) -> str:
    """Write <frame>-<view>.jpg and .json of every picture that has labels, in tar files; gives a line about it.

    Raises:
        UserError: no finished run, videos that are not those of the run, or a folder that holds something.
    """
    folder = RunFolder(run)
    if folder.stored_fingerprint("label") is None:
        raise UserError(f"{run} holds no finished run (no {folder.file('label').name}); run `harvest run` first")
    _need_empty(out)
    capture = open_capture(run / "rig.yaml", videos, None, None)
    boxes = read_boxes(folder.file("locate"))
    labels = np.load(folder.file("label") / "labels.npz")
    place = {int(frame): index for index, frame in enumerate(boxes.frames)}
    rows: dict[int, list[int]] = {}
    for row, frame in enumerate(labels["frame"]):
        rows.setdefault(int(frame), []).append(row)
    with _Shards(out) as shards:
        pictures = capture.pictures(sorted(rows))
        for frame, images in tqdm(pictures, total=len(rows), desc="crops", unit="frame"):
            for row in rows[frame]:
                view = str(labels["view"][row])
                image, crop = images[view], boxes.image_from_crop[place[frame], boxes.views.index(view)]
                if image is None or not np.isfinite(crop).all():
                    continue
                to_crop = invert_affine(image_from_pixels(crop, CROP_PX))
                uv = labels["uv_px"][row] @ to_crop[:, :2].T + to_crop[:, 2]
                label = _label(labels["joints"].tolist(), uv, labels["visibility"][row])
                shards.add(f"{frame:08d}-{view}", crop_picture(image, crop, CROP_PX), label)
    return f"{shards.count} crops in {out}"


def crops_of_videos(videos: Path, teacher: str, every: int, out: Path) -> str:
    """Write crops of the most certain person of each `every`th frame of each video by itself; gives a line about it.

    A joint is taken where the teacher, which looks at the crop and at its mirror image, is sure of it: its map is at
    least SURE. Nothing but the teacher's own certainty tells right from wrong here; a run of several views is better.

    Raises:
        UserError: no videos, a teacher that cannot be made, or a folder that holds something.
    """
    _need_empty(out)
    paths = sorted(path for path in videos.iterdir() if path.suffix in VIDEO_SUFFIXES) if videos.is_dir() else []
    if not paths:
        raise UserError(f"{videos} holds no videos; give a folder of {', '.join(VIDEO_SUFFIXES)}")
    finder, detector = make_finder(teacher, None, None), make_detector(teacher, None, flip_test=True)
    with _Shards(out) as shards:
        for path in paths:
            frames = range(0, probe(path).n_frames, every)
            for frame, image in tqdm(read_frames(path, frames), total=len(frames), desc=path.stem, unit="frame"):
                people = finder(image) if image is not None else no_candidates()
                if image is None or len(people) == 0:
                    continue
                half = CROP_OVER_CIRCLE * people.radius_px[0]
                affine = np.column_stack([np.eye(2) * 2 * half, people.centre_px[0] - half])
                picture = crop_picture(image, affine, CROP_PX)
                maps = detector(picture[None])[:, None]
                place = detector.crop_from_heatmap[None, None]
                points = Heatmaps(np.zeros(1, np.int64), ("",), detector.joints, maps, place)
                uv, value = (found[0, 0] for found in peak_points(points))
                sure = value >= SURE
                if sure.sum() >= LEAST_SURE:
                    shards.add(f"{frame:08d}-{path.stem}", picture, _label(list(detector.joints), uv, 2 * sure))
    return f"{shards.count} crops in {out}"


def _need_empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds files; give a new or an empty --out")


def _label(joints: list[str], uv: Any, visibility: Any) -> dict[str, Any]:
    points = [np.round(point, 3).tolist() if seen else None for point, seen in zip(uv, visibility, strict=True)]
    return {"joints": {JOINT_SET: {"names": joints, "uv_px": points, "visibility": visibility.tolist()}}}


class _Shards:
    """Tar files of SHARD crops each, every one written when it is full or the last."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._waiting = out, list[tuple[str, bytes]]()
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write()

    def add(self, name: str, picture: NDArray[np.uint8], label: dict[str, Any]) -> None:
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

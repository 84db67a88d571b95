"""Training crops out of a finished run: what the detector sees of the person, with the joints that the run kept."""

from __future__ import annotations

import json
import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from harvest.detect2d.detectors import crop_picture, image_from_pixels
from harvest.errors import UserError
from harvest.learn.samples import CROP_PX
from harvest.reconstruct.pictorial import invert_affine
from harvest.store.tables import read_boxes
from pipelines.capture import open_capture
from pipelines.run_folder import RunFolder

SHARD, QUALITY = 256, 92
JOINT_SET = "run"


def crops_of_run(run: Path, videos: Path, out: Path) -> str:
    """Write <frame>-<view>.jpg and .json of every picture that has labels, in tar files; gives a line about it.

    Raises:
        UserError: no finished run, videos that are not those of the run, or a folder that holds something.
    """
    folder = RunFolder(run)
    if folder.stored_fingerprint("label") is None:
        raise UserError(f"{run} holds no finished run (no {folder.file('label').name}); run `harvest run` first")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds files; give a new or an empty --out")
    capture = open_capture(run / "rig.yaml", videos, None, None)
    boxes = read_boxes(folder.file("locate"))
    labels = np.load(folder.file("label") / "labels.npz")
    place = {int(frame): index for index, frame in enumerate(boxes.frames)}
    rows: dict[int, list[int]] = {}
    for row, frame in enumerate(labels["frame"]):
        rows.setdefault(int(frame), []).append(row)
    out.mkdir(parents=True, exist_ok=True)
    written: list[tuple[str, bytes, bytes]] = []
    shards = 0
    pictures = capture.pictures(sorted(rows))
    for frame, images in tqdm(pictures, total=len(rows), desc="crops", unit="frame"):
        for row in rows[frame]:
            view = str(labels["view"][row])
            image, crop = images[view], boxes.image_from_crop[place[frame], boxes.views.index(view)]
            if image is None or not np.isfinite(crop).all():
                continue
            to_crop = invert_affine(image_from_pixels(crop, CROP_PX))
            uv = labels["uv_px"][row] @ to_crop[:, :2].T + to_crop[:, 2]
            picture = crop_picture(image, crop, CROP_PX)
            jpg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            label = _label(labels["joints"].tolist(), uv, labels["visibility"][row])
            written.append((f"{frame:08d}-{view}", jpg.tobytes(), json.dumps(label).encode()))
            if len(written) == SHARD:
                _write(out / f"{shards:05d}.tar", written)
                written, shards = [], shards + 1
    if written:
        _write(out / f"{shards:05d}.tar", written)
    return f"{shards * SHARD + len(written)} crops in {out}"


def _label(joints: list[str], uv: Any, visibility: Any) -> dict[str, Any]:
    points = [np.round(point, 3).tolist() if seen else None for point, seen in zip(uv, visibility, strict=True)]
    return {"joints": {JOINT_SET: {"names": joints, "uv_px": points, "visibility": visibility.tolist()}}}


def _write(path: Path, samples: list[tuple[str, bytes, bytes]]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with tarfile.open(partial, "w") as tar:
        for name, jpg, label in samples:
            for kind, content in (("jpg", jpg), ("json", label)):
                member = tarfile.TarInfo(f"{name}.{kind}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    os.replace(partial, path)

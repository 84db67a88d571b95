"""Stage 2: heat maps of every joint in every view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harvest.detect2d.detectors import Detector, chain, crop_picture, image_from_pixels, make_detector
from harvest.detect2d.keypoints import Keypoints, gaussian_heatmaps
from harvest.detect2d.locate import NEAR, person_of_keypoints
from harvest.store.heatmaps import HeatmapWriter
from harvest.store.tables import read_boxes
from harvest.types import PersonBoxes
from pipelines.capture import Capture
from pipelines.settings import DetectSettings
from pipelines.stages.locate import keypoints_of

KEYPOINT_MAP_PX = 64


def run_detect(capture: Capture, settings: DetectSettings, boxes_path: Path, out: Path, key: str) -> str:
    """Write 20_heatmaps.zarr, going on where an earlier run of the same settings was stopped; a line for the log."""
    boxes = read_boxes(boxes_path)
    writer = HeatmapWriter(out, key, capture.frames, capture.rig.names)
    if settings.detector == "keypoints":
        _from_keypoints(capture, settings, boxes, writer)
    else:
        detector = make_detector(settings.detector, settings.weights, settings.flip_test, settings.engine)
        _from_pictures(capture, detector, boxes, writer)
    writer.finish()
    return f"heat maps of {len(capture.frames)} frames in {len(capture.rig)} views"


def _from_pictures(capture: Capture, detector: Detector, boxes: PersonBoxes, writer: HeatmapWriter) -> None:
    todo = np.flatnonzero(~writer.open(detector.joints, detector.heatmap_px, detector.sharpness))
    pictures = capture.pictures(capture.frames[todo].tolist())
    for place, (_, images) in zip(todo, tqdm(pictures, total=len(todo), desc="detect", unit="frame"), strict=True):
        shown = [
            v for v, name in enumerate(capture.rig.names)
            if images[name] is not None and np.isfinite(boxes.image_from_crop[place, v]).all()
        ]  # fmt: skip
        score = np.zeros((len(capture.rig), len(detector.joints)) + (detector.heatmap_px,) * 2, np.float32)
        affine = np.full((len(capture.rig), 2, 3), np.nan)
        if shown:
            crops = []
            for v in shown:
                frame_of = boxes.image_from_crop[place, v]
                crops.append(crop_picture(images[capture.rig.names[v]], frame_of, detector.input_px))  # type: ignore[arg-type]
                affine[v] = chain(image_from_pixels(frame_of, detector.input_px), detector.crop_from_heatmap)
            score[shown] = detector(np.stack(crops))
        writer.write(int(place), score, affine)


def _from_keypoints(capture: Capture, settings: DetectSettings, boxes: PersonBoxes, writer: HeatmapWriter) -> None:
    keypoints = keypoints_of(capture, settings)
    todo = np.flatnonzero(~writer.open(keypoints.joints, KEYPOINT_MAP_PX))
    for place in tqdm(todo, desc="detect", unit="frame"):
        affine = np.stack([image_from_pixels(crop, KEYPOINT_MAP_PX) for crop in boxes.image_from_crop[place]])
        shape = len(capture.rig), len(keypoints.joints)
        uv, confidence = np.full((*shape, 2), np.nan), np.zeros(shape)
        for view in range(len(capture.rig)):
            row = _person_in_crop(keypoints, view, int(capture.frames[place]), boxes.image_from_crop[place, view])
            if row is None:
                affine[view] = np.nan
            else:
                uv[view], confidence[view] = keypoints.uv_px[row], keypoints.confidence[row]
        writer.write(int(place), gaussian_heatmaps(uv, confidence, affine, KEYPOINT_MAP_PX), affine)


def _person_in_crop(keypoints: Keypoints, view: int, frame: int, crop: NDArray[np.floating]) -> int | None:
    """The row of the person nearest to the crop's middle, or None where no one is near."""
    people = person_of_keypoints(keypoints, view, frame)
    if len(people) == 0 or not np.isfinite(crop).all():
        return None
    middle = crop[:, :2] @ [0.5, 0.5] + crop[:, 2]
    distance = np.linalg.norm(people.centre_px - middle, axis=1) / people.radius_px
    nearest = int(np.argmin(distance))
    return int(keypoints.rows(view, frame)[nearest]) if distance[nearest] < NEAR else None

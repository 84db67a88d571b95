"""BlazePose behind our interfaces: heat maps of 33 joints, and a finder of people in a whole picture.

The two networks are Google's, in TensorFlow Lite form, out of the `mediapipe` wheel (Apache-2.0); `harvest weights
fetch blazepose` fetches them, and `ai-edge-litert` runs them. All else is ours: crops, anchors, joint maps.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.detect2d.candidates import PersonCandidates
from harvest.detect2d.weights import file_of
from harvest.errors import UserError
from harvest.skeleton import mirror_name

JOINTS = tuple(
    "nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear l_mouth r_mouth "
    "l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_pinky r_pinky l_index r_index l_thumb r_thumb "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle l_heel r_heel l_foot_index r_foot_index".split()
)
FINDER_PX = 224
FINDER_STRIDES = ((8, 2), (16, 2), (32, 6))  # stride in pixels, anchors a cell
SAME_PERSON_IOU = 0.3


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(
            "BlazePose needs the package ai-edge-litert; install it with `pip install 'harvest-pose[blazepose]'`"
        ) from None
    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    return interpreter


def _sigmoid(logit: NDArray[np.floating]) -> NDArray[np.float32]:
    return (1.0 / (1.0 + np.exp(-np.clip(logit, -80.0, 80.0)))).astype(np.float32)


class BlazePoseDetector:
    """Heat maps of BlazePose's 33 joints, each value the network's probability that the joint lies in that cell.

    Cell x of a map lies at crop pixel 4x - 0.5, not at a cell's centre: mirrored crops give maps whose peaks add up to
    64 cells, not 63 (docs/measurements.md).
    """

    joints = JOINTS
    input_px = 256
    heatmap_px = 64
    sharpness = 3.0  # its blobs are about 1.7 times as wide as its errors; docs/measurements.md
    crop_from_heatmap = np.array([[4.0, 0.0, -0.5], [0.0, 4.0, -0.5]])

    def __init__(self, *, flip_test: bool = False) -> None:
        """Load the network; with `flip_test`, average over the crop and its mirror image."""
        path, self.fingerprint = file_of("blazepose", "pose_landmark_full.tflite")
        self._interpreter = _interpreter(path)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = _output_of_shape(self._interpreter, (1, 64, 64, 39))
        self._mirror = [JOINTS.index(mirror_name(joint, JOINTS)) for joint in JOINTS]
        self.flip_test = flip_test

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 33, 64, 64) float32 maps of crops (B, 256, 256, 3) uint8 RGB."""
        maps = np.empty((len(crops), len(JOINTS), 64, 64), np.float32)
        for index, crop in enumerate(crops):
            maps[index] = self._one(crop)
            if self.flip_test:
                mirrored = self._one(np.ascontiguousarray(crop[:, ::-1]))[self._mirror]
                # Cell x of the mirror image shows cell 64 - x; the map's first column has no partner.
                maps[index, :, :, 1:] += mirrored[:, :, :0:-1]
                maps[index, :, :, 1:] *= 0.5
        return maps

    def _one(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input, crop[None].astype(np.float32) / 255.0)
        self._interpreter.invoke()
        return _sigmoid(self._interpreter.get_tensor(self._output)[0, :, :, : len(JOINTS)]).transpose(2, 0, 1)


class BlazePosePersonFinder:
    """People in a whole picture: for each the middle of the hips, and the radius of a circle round the whole body."""

    def __init__(self, *, min_score: float = 0.4) -> None:
        """Load the network; candidates below `min_score` are left out."""
        path, self.fingerprint = file_of("blazepose", "pose_detection.tflite")
        self._interpreter = _interpreter(path)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._boxes = _output_of_shape(self._interpreter, (1, 2254, 12))
        self._scores = _output_of_shape(self._interpreter, (1, 2254, 1))
        self._anchors = _anchors()
        self.min_score = min_score

    def __call__(self, image: NDArray[np.uint8]) -> PersonCandidates:
        """The people found in an RGB picture (H, W, 3) uint8, best first."""
        height, width = image.shape[:2]
        scale = FINDER_PX / max(height, width)
        small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        canvas = np.zeros((FINDER_PX, FINDER_PX, 3), np.uint8)
        top, left = (FINDER_PX - small.shape[0]) // 2, (FINDER_PX - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        self._interpreter.set_tensor(self._input, canvas[None].astype(np.float32) / 127.5 - 1.0)
        self._interpreter.invoke()
        score = _sigmoid(self._interpreter.get_tensor(self._scores)[0, :, 0]).astype(np.float64)
        good = score > self.min_score
        decoded = self._interpreter.get_tensor(self._boxes)[0][good] / FINDER_PX
        decoded[:, :2] += self._anchors[good]
        decoded[:, 4:] += np.tile(self._anchors[good], (1, 4))
        merged, kept = merge_overlapping(decoded, score[good])
        hips, rim = merged[:, 4:6], merged[:, 6:8]
        radius = np.linalg.norm(rim - hips, axis=1) * FINDER_PX / scale
        centre = (hips * FINDER_PX - [left, top]) / scale - 0.5
        return PersonCandidates(centre, radius, kept)


def _output_of_shape(interpreter: Any, shape: tuple[int, ...]) -> int:
    for detail in interpreter.get_output_details():
        if tuple(int(size) for size in detail["shape"]) == shape:
            return int(detail["index"])
    raise UserError(f"the BlazePose file has no output of shape {shape}; run `harvest weights fetch blazepose` again")


def _anchors() -> NDArray[np.float64]:
    """(2254, 2) anchor centres in 0..1: x, y of every cell of every stride, repeated for its anchors."""
    centres = []
    for stride, repeats in FINDER_STRIDES:
        cells = math.ceil(FINDER_PX / stride)
        y, x = np.mgrid[:cells, :cells]
        grid = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], 1) / cells
        centres.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(centres)


def merge_overlapping(
    boxes: NDArray[np.floating], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes (M, 12) and scores (M,) of distinct people: boxes that overlap the best one are averaged by their score.

    The first four numbers of a box (N, 12) are the centre and size of the face box that overlap is measured on.
    """
    order = [int(index) for index in np.argsort(-score, kind="stable")]
    merged, kept = [], []
    while order:
        best = order[0]
        together = [index for index in order if _iou(boxes[best], boxes[index]) > SAME_PERSON_IOU or index == best]
        merged.append(np.average(boxes[together], axis=0, weights=score[together]))
        kept.append(score[best])
        order = [index for index in order if index not in together]
    return np.array(merged, np.float64).reshape(-1, boxes.shape[1]), np.array(kept)


def _iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    low = np.maximum(a[:2] - a[2:4] / 2, b[:2] - b[2:4] / 2)
    high = np.minimum(a[:2] + a[2:4] / 2, b[:2] + b[2:4] / 2)
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    return shared / max(float(np.prod(a[2:4]) + np.prod(b[2:4])) - shared, 1e-12)

"""Crops without the lens's distortion: what an ideal pinhole camera in the same place would show of the person."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from harvest.detect2d.detectors import halved

Floats = NDArray[np.float64]


def ideal_camera(camera: Camera, image_from_crop: NDArray[np.floating], size_px: int) -> Camera | None:
    """The camera without distortion whose whole picture, (size_px, size_px), frames a person's box; None where no ray
    gives the box's middle.

    It stands where the camera does and looks the same way, but is turned about its axis as the box is, so that people
    stand upright. The box is read as `locate.upright_crop` makes it: round the middle of a ball, and as large as the
    camera without its distortion would show that ball straight ahead. The picture holds the ellipse that the ball
    becomes off the axis: sqrt(1 + x^2) as wide at the normalised place x.

    Args:
        image_from_crop: (2, 3) affine from the unit square to image pixels.
    """
    linear = np.asarray(image_from_crop[:, :2], dtype=np.float64)
    middle = image_from_crop[:, 2] + linear @ [0.5, 0.5]
    half_px = 0.5 * linear[:, 1] / np.linalg.norm(linear[:, 1])
    centre, below, above = camera.undistort(np.stack([middle, middle + half_px, middle - half_px]))
    down = (below - above) / np.linalg.norm(below - above)
    if not np.isfinite([centre, down]).all():
        return None
    turn = np.array([[down[1], -down[0], 0.0], [down[0], down[1], 0.0], [0.0, 0.0, 1.0]])
    x, y = turn[:2, :2] @ centre
    side = np.sqrt(abs(np.linalg.det(linear)) / (camera.K[0, 0] * camera.K[1, 1])) * np.hypot(1.0, max(abs(x), abs(y)))
    focal = size_px / side
    K = np.array([[focal, 0, (size_px - 1) / 2 - focal * x], [0, focal, (size_px - 1) / 2 - focal * y], [0, 0, 1]])
    R, t = turn @ camera.R_cam_from_world, turn @ camera.t_cam_from_world_m
    return Camera(camera.name, (size_px, size_px), K, np.zeros(0), R, t)


def picture_px(camera: Camera, ideal: Camera, ideal_px: ArrayLike) -> Floats:
    """(..., 2) pixels of a camera's picture that show what pixels (..., 2) of an ideal camera in its place show; NaN
    where the camera cannot see it.
    """
    normalised = (np.asarray(ideal_px, dtype=np.float64) - ideal.K[:2, 2]) / ideal.K[[0, 1], [0, 1]]
    rays = np.concatenate([normalised, np.ones_like(normalised[..., :1])], axis=-1)
    return camera.project(rays @ ideal.R_cam_from_world + ideal.centre_m)


def rectified_crop(image: NDArray[np.uint8], camera: Camera, ideal: Camera) -> NDArray[np.uint8]:
    """The picture (size, size, 3) of `ideal_camera`, out of the camera's own (H, W, 3); black where that has nothing.

    Pictures much larger than the crop are first halved, as `crop_picture` does.
    """
    width, height = ideal.size_px
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    at = picture_px(camera, ideal, places)
    row, column = height // 2, width // 2
    steps = np.stack([at[row, column] - at[row, column - 1], at[row, column] - at[row - 1, column]])
    scale, picture = float(np.sqrt(abs(np.linalg.det(steps)))), image
    while scale >= 2.0 and min(picture.shape[:2]) > 1:
        picture, at, scale = halved(picture), (at + 0.5) / 2 - 0.5, scale / 2
    with np.errstate(invalid="ignore"):
        inside = ((at > -1) & (at < [picture.shape[1], picture.shape[0]])).all(axis=-1, keepdims=True)
    # What lies outside is far outside: OpenCV counts places in whole numbers, which NaN and huge ones are not.
    given: NDArray[Any] = np.where(inside, at, -2.0).astype(np.float32)
    shown = cv2.remap(picture, given, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)  # type: ignore[call-overload]
    return np.asarray(shown, dtype=np.uint8)

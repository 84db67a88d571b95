"""Rigs of Human3.6M, from the file in which its camera parameters are usually passed on (`camera-parameters.json`)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibrationError, telling_of
from calib.rig import Rig

# The file does not say how large the pictures are; the data set's metadata.xml does.
SIZE_PX = {"54138969": (1000, 1002), "55011271": (1000, 1000), "58860488": (1000, 1000), "60457274": (1000, 1002)}
MM_PER_M = 1000.0


def read_human36m(path: Path, subject: str) -> Rig:
    """The rig of the four cameras as they stood for a subject ('S1' to 'S11'); millimetres become metres, z is up.

    Raises:
        CalibrationError: not such a file, a subject that it does not have, or a camera that cannot be used.
    Source: `camera-parameters.json` of github.com/karfly/human36m-camera-parameters; `intrinsics` by camera, and
        `extrinsics` by subject and camera, x_cam = R x_world + t.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        intrinsics, extrinsics = content["intrinsics"], content["extrinsics"]
        subjects = ", ".join(extrinsics)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CalibrationError(
            f"{path} is not Human3.6M's camera-parameters.json ({error!r}); it needs 'intrinsics' and 'extrinsics'"
        ) from None
    if subject not in extrinsics:
        raise CalibrationError(f"{path} has no cameras of subject {subject}, it has those of {subjects}")
    return Rig(tuple(_camera(path, name, intrinsics, pose) for name, pose in extrinsics[subject].items()))


def opencv_distortion(k1: float, k2: float, p1: float, p2: float, k3: float) -> NDArray[np.float64]:
    """(12,) OpenCV's coefficients of a lens of Human3.6M, exactly.

    There the tangential part is x (p1 y + p2 x) + p2 r^2 in x, and y (p1 y + p2 x) + p1 r^2 in y, without the factor 2
    that OpenCV has in front of the first term. Halves of p1 and p2 give that term; the half of r^2 that is then
    missing is a thin prism's.
    """
    return np.array([k1, k2, p1 / 2, p2 / 2, k3, 0, 0, 0, p2 / 2, 0, p1 / 2, 0], dtype=np.float64)


def _camera(path: Path, name: str, intrinsics: dict[str, Any], pose: dict[str, Any]) -> Camera:
    if name not in SIZE_PX:
        raise CalibrationError(f"{path}: '{name}' is no camera of Human3.6M; those are {', '.join(SIZE_PX)}")
    with telling_of(f"{path}: camera '{name}'"):
        return Camera(
            name=name,
            size_px=SIZE_PX[name],
            K=np.asarray(intrinsics[name]["calibration_matrix"]),
            dist_opencv=opencv_distortion(*intrinsics[name]["distortion"]),
            R_cam_from_world=np.asarray(pose["R"]),
            t_cam_from_world_m=np.asarray(pose["t"], dtype=np.float64).ravel() / MM_PER_M,
        )

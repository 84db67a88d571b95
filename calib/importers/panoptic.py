"""Rigs from the calibrations of CMU's Panoptic Studio (`calibration_<sequence>.json`)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from calib.camera import Camera
from calib.errors import CalibrationError, telling_of
from calib.rig import Rig

UP = (0.0, -1.0, 0.0)
CM_PER_M = 100.0


def read_panoptic(path: Path) -> Rig:
    """The rig of a sequence's HD cameras; centimetres become metres, the world keeps its axes, and -y is up.

    VGA and Kinect cameras are passed over. Distortion is OpenCV's k1 k2 p1 p2 k3.

    Raises:
        CalibrationError: not such a file, no HD camera in it, or a camera without a part that is needed.
    Source: the panoptic-toolbox of the CMU Perceptual Computing Lab.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["cameras"]
        found = [entry for entry in entries if entry["type"] == "hd"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CalibrationError(
            f"{path} is not a Panoptic calibration ({error!r}); give a sequence's calibration_<name>.json"
        ) from None
    if not found:
        raise CalibrationError(f"{path} holds no camera of type 'hd'; give the calibration file of the whole sequence")
    return Rig(tuple(_camera(path, entry) for entry in found), UP)


def _camera(path: Path, entry: dict[str, Any]) -> Camera:
    name = str(entry.get("name", "without a name"))
    with telling_of(f"{path}: camera '{name}'"):
        width, height = entry["resolution"]
        return Camera(
            name=name,
            size_px=(width, height),
            K=np.asarray(entry["K"]),
            dist_opencv=np.asarray(entry["distCoef"], dtype=np.float64),
            R_cam_from_world=np.asarray(entry["R"]),
            t_cam_from_world_m=np.asarray(entry["t"], dtype=np.float64).ravel() / CM_PER_M,
        )

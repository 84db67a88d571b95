"""Rigs from the TOML calibrations of aniposelib, Pose2Sim, FreeMoCap and Caliscope."""

import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from calib.camera import Camera
from calib.checks import SURELY_MILLIMETRES_M, millimetre_suspects
from calib.errors import CalibrationError
from calib.rig import Rig


def read_toml(path: Path) -> Rig:
    """The rig of a TOML file with one table a camera: name, size, matrix, distortions, rotation, translation, fisheye.

    The rotation may be a Rodrigues vector or a 3x3 matrix; it and the translation (metres) take the world to the
    camera. Tables without a matrix (`[metadata]`, `[charuco]`) are passed over.

    Raises:
        CalibrationError: not TOML, no camera in it, a camera without extrinsics, or ones that look like millimetres.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CalibrationError(
            f"{path} is not a TOML calibration ({error}); give aniposelib's or Pose2Sim's file"
        ) from None
    tables = {key: table for key, table in content.items() if isinstance(table, dict) and "matrix" in table}
    if not tables:
        raise CalibrationError(f"{path} has no table with a camera 'matrix'; give aniposelib's or Pose2Sim's file")
    rig = Rig(tuple(_camera(path, key, table) for key, table in tables.items()))
    for name, far in millimetre_suspects(rig).items():
        if far > SURELY_MILLIMETRES_M:
            raise CalibrationError(
                f"{path}: camera '{name}' stands {far:.0f} m from the other cameras, its translation seems to be in "
                "millimetres; divide all translations by 1000"
            )
    return rig


def _camera(path: Path, key: str, table: dict[str, Any]) -> Camera:
    name = str(table.get("name", key))
    missing = [part for part in ("size", "rotation", "translation") if part not in table]
    if missing:
        raise CalibrationError(f"{path}: camera '{name}' has no '{missing[0]}'; calibrate its extrinsics first")
    try:
        rotation = np.asarray(table["rotation"], dtype=np.float64)
        R = rotation if rotation.shape == (3, 3) else np.array(cv2.Rodrigues(rotation.reshape(3, 1))[0], np.float64)
        return Camera(
            name=name,
            size_px=(int(table["size"][0]), int(table["size"][1])),
            K=np.asarray(table["matrix"]),
            dist_opencv=np.asarray(table.get("distortions", []), dtype=np.float64),
            R_cam_from_world=R,
            t_cam_from_world_m=np.asarray(table["translation"], dtype=np.float64).ravel(),
            model="fisheye" if table.get("fisheye", False) else "pinhole",
        )
    except (TypeError, ValueError, cv2.error) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"{path}: camera '{name}' has a value of the wrong form ({error})") from None

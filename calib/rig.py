"""A rig: the cameras that see one space, and rig.yaml, the file that holds them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.errors import CalibrationError

RIG_KEYS = {"unit", "up", "cameras"}
CAMERA_KEYS = {"name", "size_px", "K", "dist_opencv", "model", "R_cam_from_world", "t_cam_from_world_m", "video"}
NEEDED_KEYS = CAMERA_KEYS - {"model", "video"}


@dataclass(frozen=True)
class Rig:
    """Cameras with unique names that share one world; `up` is the unit vector against gravity in that world."""

    cameras: tuple[Camera, ...]
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        """Check that there are cameras, that names differ, and normalise `up`."""
        if not self.cameras:
            raise CalibrationError("the rig has no cameras; list at least two under 'cameras:'")
        names = [camera.name for camera in self.cameras]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise CalibrationError(f"camera name '{twice[0]}' stands twice in the rig; give each camera its own name")
        try:
            up = np.asarray(self.up, dtype=np.float64)
        except (TypeError, ValueError):
            up = np.zeros(0)
        if up.shape != (3,) or not np.isfinite(up).all() or np.linalg.norm(up) < 1e-9:
            raise CalibrationError(f"'up' must be three numbers, not all zero, got {self.up}")
        length = float(np.linalg.norm(up))
        if abs(length - 1) > 1e-12:
            up = up / length
        object.__setattr__(self, "up", tuple(float(value) for value in up))

    @property
    def names(self) -> tuple[str, ...]:
        """Camera names, in the rig's order."""
        return tuple(camera.name for camera in self.cameras)

    def __len__(self) -> int:
        """Number of cameras."""
        return len(self.cameras)

    def __getitem__(self, name: str) -> Camera:
        """The camera of that name."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise CalibrationError(f"no camera '{name}' in the rig; it has {', '.join(self.names)}")

    def select(self, names: Iterable[str]) -> Rig:
        """The rig of the named cameras alone, in the order asked for."""
        return Rig(tuple(self[name] for name in names), self.up)

    def project(self, xyz_m: ArrayLike) -> NDArray[np.float64]:
        """(V, ..., 2) pixels of world points (..., 3) in every camera; NaN where a camera cannot see that direction."""
        return np.stack([camera.project(xyz_m) for camera in self.cameras])

    def focus_m(self) -> NDArray[np.float64]:
        """(3,) the point nearest to all optical axes by least squares: the middle of what the rig looks at."""
        A, b = np.zeros((3, 3)), np.zeros(3)
        for camera in self.cameras:
            axis = camera.R_cam_from_world[2]
            across = np.eye(3) - np.outer(axis, axis)
            A += across
            b += across @ camera.centre_m
        return np.asarray(np.linalg.lstsq(A, b, rcond=None)[0], dtype=np.float64)

    def to_yaml(self) -> str:
        """The text of a rig.yaml that `load_rig` reads back to the same numbers."""
        content = {"unit": "metre", "up": list(self.up), "cameras": [camera.to_dict() for camera in self.cameras]}
        return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)


def read_entries(path: Path) -> tuple[tuple[float, ...], list[Mapping[str, Any]]]:
    """The `up` vector and the raw camera entries of a rig.yaml, with keys checked and numbers unchecked.

    Raises:
        CalibrationError: no such file, not YAML, an unknown or missing key, a unit other than metre.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(
            f"cannot read the rig file {path}: {error.strerror}; give an existing rig.yaml"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).replace("\n", " ")
        raise CalibrationError(f"{path} is not valid YAML ({reason}); see examples/rig.yaml for the format") from None
    if not isinstance(content, dict) or not isinstance(content.get("cameras"), list):
        raise CalibrationError(f"{path} has no list 'cameras:'; see examples/rig.yaml, or run `harvest rig import`")
    _check_keys(content, RIG_KEYS, {"cameras"}, str(path))
    if content.get("unit", "metre") != "metre":
        raise CalibrationError(
            f"{path}: unit is '{content['unit']}', only 'metre' is supported; convert the translations"
        )
    for index, entry in enumerate(content["cameras"]):
        if not isinstance(entry, dict):
            raise CalibrationError(f"{path}: cameras[{index}] is not a mapping of keys to values")
        _check_keys(entry, CAMERA_KEYS, NEEDED_KEYS, f"{path}: camera '{entry.get('name', index)}'")
    up = content.get("up", (0.0, 0.0, 1.0))
    return tuple(up) if isinstance(up, (list, tuple)) else (up,), content["cameras"]


def _check_keys(entry: Mapping[str, Any], known: set[str], needed: set[str], where: str) -> None:
    unknown, missing = sorted(set(map(str, entry)) - known), sorted(needed - set(entry))
    if unknown:
        raise CalibrationError(f"{where}: unknown key '{unknown[0]}'; known keys are {', '.join(sorted(known))}")
    if missing:
        raise CalibrationError(f"{where}: key '{missing[0]}' is missing")


def camera_from_entry(entry: Mapping[str, Any]) -> Camera:
    """The camera that one entry of rig.yaml describes; raises CalibrationError with the camera's name."""
    try:
        return Camera(**{**entry, "name": str(entry["name"])})
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(
            f"camera '{entry['name']}': a value is not a number or has the wrong form ({error})"
        ) from None


def load_rig(path: str | os.PathLike[str]) -> Rig:
    """The rig that a rig.yaml holds; raises CalibrationError with one line that says what is wrong and where."""
    up, entries = read_entries(Path(path))
    return Rig(tuple(camera_from_entry(entry) for entry in entries), up)  # type: ignore[arg-type]

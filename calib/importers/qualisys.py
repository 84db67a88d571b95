"""Rigs from Qualisys Track Manager calibration files (`.qca.txt`, XML inside)."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from calib.camera import Camera
from calib.errors import CalibrationError
from calib.rig import Rig

SUBPIXELS = 64.0
CAM_FROM_QUALISYS = np.diag([1.0, -1.0, -1.0])


def read_qualisys(path: Path) -> Rig:
    """The rig of a Qualisys `.qca.txt`: positions in millimetres, intrinsics in 1/64 pixel, y up and z backward.

    The principal point counts from the corner of the sensor; where the video is a cut-out of it (`fov_video` with a
    left or top other than 0), it moves along.

    The distortion coefficients act on normalised coordinates and are therefore *not* in 1/64 pixel: they are taken
    as they stand (OpenCV's k1 k2 p1 p2 k3). Other tools divide them by 64, which all but removes the distortion;
    photographs of a chessboard by the cameras of the public Pose2Sim sample agree with the undivided values.

    Raises:
        CalibrationError: not such a file, or a camera without an attribute that is needed.
    """
    try:
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise CalibrationError(
            f"{path} is not a Qualisys calibration ({error}); export it from QTM as .qca.txt"
        ) from None
    cameras = []
    for element in root.iter("camera"):
        if element.get("active", "1") == "0":
            continue
        try:
            cameras.append(_camera(element))
        except (KeyError, AttributeError, ValueError) as error:
            if isinstance(error, CalibrationError):
                raise
            name = element.get("serial", f"number {len(cameras) + 1}")
            raise CalibrationError(f"{path}: camera '{name}' lacks a part that is needed ({error})") from None
    if not cameras:
        raise CalibrationError(f"{path} holds no active camera; export the calibration again from QTM as .qca.txt")
    return Rig(tuple(cameras))


def _camera(element: ElementTree.Element) -> Camera:
    transform, intrinsic, picture = (_child(element, name) for name in ("transform", "intrinsic", "fov_video"))
    rows = [[float(transform[f"r{i}{j}"]) for j in (1, 2, 3)] for i in (1, 2, 3)]
    R = CAM_FROM_QUALISYS @ _nearest_rotation(np.array(rows))
    centre_m = np.array([float(transform[axis]) for axis in "xyz"]) / 1000.0
    value = {key: float(intrinsic[key]) for key in intrinsic}
    cx, cy = (
        value[f"centerPoint{axis}"] / SUBPIXELS - int(picture[low]) for axis, low in (("U", "left"), ("V", "top"))
    )
    K = np.array(
        [
            [value["focalLengthU"] / SUBPIXELS, value.get("skew", 0.0) / SUBPIXELS, cx],
            [0.0, value["focalLengthV"] / SUBPIXELS, cy],
            [0.0, 0.0, 1.0],
        ]
    )
    radial = [value[f"radialDistortion{i}"] for i in (1, 2, 3)]
    tangential = [value.get(f"tangentalDistortion{i}", 0.0) for i in (1, 2)]
    size = tuple(int(picture[high]) - int(picture[low]) + 1 for high, low in (("right", "left"), ("bottom", "top")))
    return Camera(
        name=element.attrib["serial"],
        size_px=(size[0], size[1]),
        K=K,
        dist_opencv=np.array([*radial[:2], *tangential, radial[2]]),
        R_cam_from_world=R,
        t_cam_from_world_m=-R @ centre_m,
    )


def _child(element: ElementTree.Element, name: str) -> dict[str, str]:
    child = element.find(name)
    if child is None:
        raise KeyError(name)
    return dict(child.attrib)


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to a matrix that was printed with few digits."""
    u, s, vt = np.linalg.svd(matrix)
    if abs(s - 1).max() > 1e-3:
        raise ValueError(f"the transform is not a rotation: singular values {np.round(s, 4)}")
    return u @ vt

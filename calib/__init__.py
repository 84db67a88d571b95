"""Cameras, rigs, projection, distortion, triangulation and foreign calibration formats."""

from calib.camera import Camera
from calib.errors import CalibrationError
from calib.rig import Rig, load_rig

__all__ = ["CalibrationError", "Camera", "Rig", "load_rig"]

"""One calibrated camera: where a point of the world appears in the picture, and which ray a pixel sees."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.distortion import (
    N_COEFFICIENTS,
    PINHOLE_LENGTHS,
    distort_pinhole,
    fisheye_scale,
    tilt_matrix,
    valid_radius,
)
from calib.errors import CalibrationError
from calib.inversion import invert_distortion

Floats = NDArray[np.float64]
ROTATION_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Camera:
    """A pinhole or fisheye camera with OpenCV distortion; frames and units as in calib/conventions.md.

    Raises:
        CalibrationError: for an impossible size, matrix, number of coefficients or rotation.
    """

    name: str
    size_px: tuple[int, int]
    K: Floats
    dist_opencv: Floats
    R_cam_from_world: Floats
    t_cam_from_world_m: Floats
    model: str = "pinhole"
    video: str | None = None
    valid_radius: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check every field and bring arrays into float64."""
        set_ = object.__setattr__
        set_(self, "size_px", (int(self.size_px[0]), int(self.size_px[1])))
        for name, shape in (("K", (3, 3)), ("R_cam_from_world", (3, 3)), ("t_cam_from_world_m", (3,))):
            set_(self, name, self._array(name, getattr(self, name), shape))
        set_(self, "dist_opencv", np.asarray(self.dist_opencv, dtype=np.float64).ravel())
        self._check()
        set_(self, "valid_radius", valid_radius(self.coefficients, self.model == "fisheye"))

    def _array(self, name: str, value: ArrayLike, shape: tuple[int, ...]) -> Floats:
        array = np.asarray(value, dtype=np.float64)
        if array.shape != shape:
            raise CalibrationError(f"camera '{self.name}': {name} must have shape {shape}, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise CalibrationError(f"camera '{self.name}': {name} must hold finite numbers, got {array.tolist()}")
        return array

    def _check(self) -> None:
        if min(self.size_px) <= 0:
            raise CalibrationError(f"camera '{self.name}': size_px must be [width, height] > 0, got {self.size_px}")
        if self.model not in ("pinhole", "fisheye"):
            raise CalibrationError(f"camera '{self.name}': model must be pinhole or fisheye, got '{self.model}'")
        n = self.dist_opencv.size
        allowed = (4,) if self.model == "fisheye" else PINHOLE_LENGTHS
        if not np.isfinite(self.dist_opencv).all():
            raise CalibrationError(
                f"camera '{self.name}': dist_opencv must hold finite numbers, got {self.dist_opencv.tolist()}"
            )
        if n not in allowed:
            raise CalibrationError(
                f"camera '{self.name}': dist_opencv of a {self.model} camera has {n} terms, needs one of {allowed}"
            )
        K = self.K
        if K[0, 0] <= 0 or K[1, 1] <= 0 or abs(K[2] - [0, 0, 1]).max() > 1e-9 or abs(K[1, 0]) > 1e-9:
            raise CalibrationError(f"camera '{self.name}': K must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with f > 0")
        error = abs(self.R_cam_from_world @ self.R_cam_from_world.T - np.eye(3)).max()
        determinant = float(np.linalg.det(self.R_cam_from_world))
        if error > ROTATION_TOLERANCE or determinant < 0:
            raise CalibrationError(
                f"camera '{self.name}': R_cam_from_world is not a rotation (R R^T differs from 1 by {error:.2g}, "
                f"determinant {determinant:.3f}); check for a swapped axis or a matrix of world_from_cam with scale"
            )

    @cached_property
    def coefficients(self) -> Floats:
        """(14,) distortion coefficients, unused ones zero."""
        return np.pad(self.dist_opencv, (0, N_COEFFICIENTS - self.dist_opencv.size))

    @property
    def centre_m(self) -> Floats:
        """(3,) position of the camera in the world, metres."""
        return -self.R_cam_from_world.T @ self.t_cam_from_world_m

    @cached_property
    def image_from_distorted(self) -> Floats:
        """(3, 3) from distorted normalised coordinates to pixels; includes the sensor's tilt."""
        return self.K @ tilt_matrix(*self.coefficients[12:])

    def cam_from_world(self, xyz_m: ArrayLike) -> Floats:
        """(..., 3) points of the world in the camera's frame, metres."""
        return np.asarray(xyz_m, dtype=np.float64) @ self.R_cam_from_world.T + self.t_cam_from_world_m

    def project(self, xyz_m: ArrayLike) -> Floats:
        """(..., 2) pixels where world points (..., 3) appear; NaN behind the camera or where the lens model folds."""
        xyz = self.cam_from_world(xyz_m)
        z = xyz[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = xyz[..., 0] / z, xyz[..., 1] / z
            good = (z > 1e-6) & (np.hypot(x, y) < self.valid_radius)
        return self.image_from_normalised(np.where(good, x, np.nan), np.where(good, y, np.nan))

    def image_from_normalised(self, x: Floats, y: Floats) -> Floats:
        """(..., 2) pixels of undistorted normalised coordinates x, y."""
        xd, yd = self._distort(x, y)
        A = self.image_from_distorted
        w = A[2, 0] * xd + A[2, 1] * yd + A[2, 2]
        return np.stack(
            [(A[0, 0] * xd + A[0, 1] * yd + A[0, 2]) / w, (A[1, 0] * xd + A[1, 1] * yd + A[1, 2]) / w], axis=-1
        )

    def _distort(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        if self.model == "fisheye":
            scale = fisheye_scale(np.maximum(np.hypot(x, y), 1e-12), self.coefficients)
            return x * scale, y * scale
        xd, yd = distort_pinhole(x, y, self.coefficients)
        return xd, yd

    def undistort(self, uv_px: ArrayLike) -> Floats:
        """(..., 2) undistorted normalised coordinates of pixels (..., 2); NaN where no ray gives that pixel.

        Newton's method with a central-difference Jacobian, to 1e-12.
        """
        uv = np.asarray(uv_px, dtype=np.float64)
        target = np.concatenate([uv, np.ones_like(uv[..., :1])], -1) @ np.linalg.inv(self.image_from_distorted).T
        xd, yd = target[..., 0] / target[..., 2], target[..., 1] / target[..., 2]
        x, y = xd.copy(), yd.copy()
        if self.model == "fisheye":
            theta = np.minimum(np.hypot(xd, yd), math.pi / 2 - 1e-3)
            stretch = np.tan(theta) / np.maximum(np.hypot(xd, yd), 1e-12)
            x, y = np.where(theta > 1e-9, xd * stretch, xd), np.where(theta > 1e-9, yd * stretch, yd)
        fisheye = self.model == "fisheye"
        x, y, residual = invert_distortion(xd.ravel(), yd.ravel(), x.ravel(), y.ravel(), self.coefficients, fisheye)
        good = (residual < 1e-8) & (np.hypot(x, y) < self.valid_radius)
        return np.stack([np.where(good, x, np.nan), np.where(good, y, np.nan)], axis=-1).reshape(uv.shape)

    @cached_property
    def bend_per_px(self) -> float:
        """How crooked the lens draws, 1/px: its largest second derivative over its smallest first one squared.

        Sampled on a lattice over the picture and a tenth more on every side, with half as much again for what lies
        between. Points of space that project into a circle of radius r px stray from a linear map by at most
        bend_per_px * r^2 / 2 px. Zero without distortion.
        """
        if not self.dist_opencv.any():
            return 0.0
        width, height = self.size_px
        u, v = np.meshgrid(np.linspace(-0.1, 1.1, 25) * width, np.linspace(-0.1, 1.1, 25) * height)
        at = self.undistort(np.stack([u.ravel(), v.ravel()], -1))
        at = at[np.isfinite(at).all(axis=1)]
        if len(at) == 0:
            return math.inf
        h = 1e-3

        def picture(step: tuple[float, float]) -> Floats:
            return self.image_from_normalised(at[:, 0] + h * step[0], at[:, 1] + h * step[1])

        jacobian = np.stack([picture(d) - picture((-d[0], -d[1])) for d in ((1.0, 0.0), (0.0, 1.0))], -1) / (2 * h)
        stretch = np.linalg.svd(jacobian, compute_uv=False)[:, -1]
        half = math.sqrt(0.5)
        bend = np.zeros(len(at))
        for d in ((1.0, 0.0), (0.0, 1.0), (half, half), (half, -half)):
            second = picture(d) - 2 * picture((0.0, 0.0)) + picture((-d[0], -d[1]))
            bend = np.maximum(bend, np.linalg.norm(second, axis=1) / h**2)
        return float(1.5 * (bend / stretch**2).max())

    @cached_property
    def optics(self) -> Floats:
        """(36,) numbers for compiled code: R, t, image_from_distorted, 14 coefficients, valid radius.

        The sign of the radius tells the model: negative for fisheye.
        """
        radius = min(self.valid_radius, 1e9)
        pose = self.R_cam_from_world.ravel(), self.t_cam_from_world_m
        signed = [-radius if self.model == "fisheye" else radius]
        return np.concatenate([*pose, self.image_from_distorted.ravel(), self.coefficients, signed])

    @cached_property
    def packed(self) -> Floats:
        """(37,) `optics` and bend_per_px, as cuda_kernels/unproject takes them."""
        return np.append(self.optics, self.bend_per_px)

    def to_dict(self) -> dict[str, Any]:
        """The camera as one entry of rig.yaml, plain lists and numbers."""
        entry: dict[str, Any] = {"name": self.name, "size_px": list(self.size_px), "K": self.K.tolist()}
        if self.model == "fisheye":
            entry["model"] = "fisheye"
        entry["dist_opencv"] = self.dist_opencv.tolist()
        entry["R_cam_from_world"] = self.R_cam_from_world.tolist()
        entry["t_cam_from_world_m"] = self.t_cam_from_world_m.tolist()
        if self.video is not None:
            entry["video"] = self.video
        return entry

"""Cameras with lens distortion as tensors: points to pixels and pixels to rays, many cameras at a time, differentiable.

The model is that of calib/camera.py, and its pinhole distortion the very lines of calib/distortion.py.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib.distortion import distort_pinhole
from calib.rig import Rig
from harvest.triangulate3d.volumetric import NEAREST_M

_ROTATION, _SHIFT, _IMAGE, _BENDS = slice(0, 9), slice(9, 12), slice(12, 21), slice(21, 35)
OPTICS = 36  # numbers of a camera
_ITERATIONS, _CLOSE_ENOUGH, _STEP, _FOUND = 60, 1e-12, 1e-6, 1e-8  # as in calib/inversion.py and calib/camera.py
_SMALLEST = 1e-12  # normalised radius


def optics_of(rig: Rig) -> NDArray[np.float64]:
    """(V, 36) `Camera.optics` of a rig's cameras, from which `Lenses` are made."""
    return np.stack([camera.optics for camera in rig.cameras])


@dataclass(frozen=True, eq=False)
class Lenses:
    """Cameras of any batch shape (...), in the dtype of their arithmetic.

    R (..., 3, 3) and t (..., 3): from the world, in its unit; image_from_distorted (..., 3, 3); coefficients (..., 14);
    radius (...): of validity of the model, negative for fisheye. All as `calib.camera.Camera.optics` has them.
    """

    R: Tensor
    t: Tensor
    image_from_distorted: Tensor
    coefficients: Tensor
    radius: Tensor

    @classmethod
    def from_optics(cls, optics: Tensor) -> Lenses:
        """Those of `Camera.optics` (..., 36).

        Raises:
            ValueError: another number of numbers.
        """
        if optics.shape[-1] != OPTICS:
            raise ValueError(f"a camera has {OPTICS} numbers, got {tuple(optics.shape)}")
        R, A = (optics[..., part].unflatten(-1, (3, 3)) for part in (_ROTATION, _IMAGE))
        return cls(R, optics[..., _SHIFT], A, optics[..., _BENDS], optics[..., -1])

    def to(self, like: Tensor) -> Lenses:
        """In the dtype and on the device of a tensor."""
        return Lenses(*(getattr(self, field.name).to(like) for field in dataclasses.fields(self)))

    def view(self, view: int) -> Lenses:
        """Those of one view, (B,) of (B, V)."""
        return Lenses(*(getattr(self, field.name)[:, view] for field in dataclasses.fields(self)))

    @property
    def projections(self) -> Tensor:
        """(..., 3, 4) from the world to undistorted normalised coordinates."""
        return torch.cat([self.R, self.t[..., None]], dim=-1)

    @cached_property
    def _fisheye(self) -> bool:
        return bool((self.radius < 0).any())

    @cached_property
    def _bends(self) -> bool:
        # Of a tilted sensor, the last two coefficients, image_from_distorted takes care.
        return self._fisheye or bool(self.coefficients[..., :12].any())

    def in_place(self, centre: Tensor, turn: Tensor, scale: Tensor) -> Lenses:
        """The cameras (B, V) in other coordinates of the world: `scale * turn @ (x - centre)` instead of x.

        What they see stays where it is in the picture.

        Args:
            centre: (B, 3). turn: (B, 3, 3) rotations. scale: (B,) above 0.
        """
        R = (self.R[..., :, None, :] * turn[:, None, None]).sum(-1)
        t = scale[:, None, None] * ((self.R * centre[:, None, None]).sum(-1) + self.t)
        return dataclasses.replace(self, R=R, t=t)

    def project(self, xyz: Tensor) -> Tensor:
        """(..., M, 2) pixels where points (..., M, 3) appear; NaN behind the camera or where the lens model folds."""
        R, world = self.R[..., None, :, :], xyz.unbind(-1)
        x, y, z = (sum(R[..., i, j] * world[j] for j in range(3)) + self.t[..., None, i] for i in range(3))
        front = z > NEAREST_M
        depth = torch.where(front, z, 1.0)
        x, y = x / depth, y / depth
        good = front & (x * x + y * y < self.radius[..., None] ** 2)
        pixels = self._picture(*self._distort(torch.where(good, x, 0.0), torch.where(good, y, 0.0)))
        return torch.where(good[..., None], pixels, torch.nan)

    def _picture(self, x: Tensor, y: Tensor) -> Tensor:
        a = self.image_from_distorted[..., None, :, :]
        w = a[..., 2, 0] * x + a[..., 2, 1] * y + a[..., 2, 2]
        return torch.stack([(a[..., i, 0] * x + a[..., i, 1] * y + a[..., i, 2]) / w for i in (0, 1)], dim=-1)

    def _distort(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if not self._bends:
            return x, y
        k = self.coefficients[..., None, :].unbind(-1)
        xd, yd = distort_pinhole(x, y, k)
        if not self._fisheye:
            return xd, yd
        # calib.distortion.fisheye_scale, whose arc tangent is NumPy's (Kannala and Brandt 2006).
        r = (x * x + y * y).clamp_min(_SMALLEST**2).sqrt()
        theta = r.atan()
        t2 = theta * theta
        scale = theta * (1.0 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])))) / r
        fisheye = self.radius[..., None] < 0
        return torch.where(fisheye, x * scale, xd), torch.where(fisheye, y * scale, yd)

    def undistort(self, uv_px: Tensor) -> Tensor:
        """(..., M, 2) undistorted normalised coordinates of pixels (..., M, 2); NaN where no ray gives that pixel.

        Newton's method to 1e-12 in float64. The gradient is that of the inverse function: the inverse of the model's
        Jacobian at the answer. A pixel that no ray gives has none.
        """
        a = torch.linalg.inv(self.image_from_distorted.double())[..., None, :, :]
        given = uv_px.isfinite().all(-1)
        u, v = torch.where(given[..., None], uv_px, 0.0).unbind(-1)
        xd, yd, w = (a[..., i, 0] * u + a[..., i, 1] * v + a[..., i, 2] for i in range(3))
        xd, yd = xd / w, yd / w
        if not self._bends:
            return torch.where(given[..., None], torch.stack([xd, yd], dim=-1), torch.nan)
        with torch.no_grad():
            bent = self.to(xd)
            x, y = bent._inverted(xd, yd)
            ex, ey = (found - given for found, given in zip(bent._distort(x, y), (xd, yd), strict=True))
            good = (torch.maximum(ex.abs(), ey.abs()) < _FOUND) & (x * x + y * y < bent.radius[..., None] ** 2) & given
            inverse = [torch.where(good, slope, 0.0) for slope in bent._inverse_slopes(x, y)]
            x, y = torch.where(good, x, torch.nan), torch.where(good, y, torch.nan)
        dx, dy = xd - xd.detach(), yd - yd.detach()
        return torch.stack([x + inverse[0] * dx + inverse[1] * dy, y + inverse[2] * dx + inverse[3] * dy], dim=-1)

    def _inverted(self, xd: Tensor, yd: Tensor) -> tuple[Tensor, Tensor]:
        """Where Newton's method ends, converged or not."""
        x, y = xd, yd
        if self._fisheye:
            r = torch.hypot(xd, yd)
            theta = r.clamp_max(math.pi / 2 - 1e-3)
            stretch = torch.where((self.radius[..., None] < 0) & (theta > 1e-9), theta.tan() / r.clamp_min(1e-12), 1.0)
            x, y = xd * stretch, yd * stretch
        for _ in range(_ITERATIONS):
            fx, fy = self._distort(x, y)
            ex, ey = fx - xd, fy - yd
            away = torch.maximum(ex.abs(), ey.abs()) > _CLOSE_ENOUGH  # not so for NaN, which is given up
            if not away.any():
                break
            a, b, c, d = self._inverse_slopes(x, y)
            x, y = torch.where(away, x - (a * ex + b * ey), x), torch.where(away, y - (c * ex + d * ey), y)
        return x, y

    def _inverse_slopes(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """dx/dx', dx/dy', dy/dx' and dy/dy' of undistorted (x, y) by distorted (x', y'), by central differences."""
        right, left = self._distort(x + _STEP, y), self._distort(x - _STEP, y)
        below, above = self._distort(x, y + _STEP), self._distort(x, y - _STEP)
        a, c = ((more - less) / (2 * _STEP) for more, less in zip(right, left, strict=True))
        b, d = ((more - less) / (2 * _STEP) for more, less in zip(below, above, strict=True))
        determinant = a * d - b * c
        return d / determinant, -b / determinant, -c / determinant, a / determinant

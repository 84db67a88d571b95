"""From pixels and depths relative to the pelvis to metres in the camera's frame, by the usual size of a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera

Floats = NDArray[np.float64]
NEAREST_M = 0.3
USUAL_FOCAL = 1.2  # of the picture's longer side, where no camera is known: 45 degrees across


@dataclass(frozen=True)
class Limbs:
    """Limbs of a person of usual size: ends (L, 2) as places among the joints, and lengths (L,) in metres."""

    ends: NDArray[np.int64]
    length_m: Floats

    def __post_init__(self) -> None:
        """Check that each limb has two ends and a length."""
        if self.ends.shape != (len(self.length_m), 2) or not (self.length_m > 0).all() or not len(self.length_m):
            raise ValueError(f"limbs need ends (L, 2) and lengths (L,) above 0, got {self.ends.shape}, {self.length_m}")


def mean_limbs(xyz_m: Floats, parents: Sequence[int]) -> Limbs:
    """The limbs of a tree that poses (N, J, 3) show, with their mean lengths; NaN joints take no part.

    Raises:
        ValueError: no limb is shown.
    """
    pairs = np.array([(joint, parent) for joint, parent in enumerate(parents) if parent >= 0], np.int64)
    lengths = np.linalg.norm(xyz_m[:, pairs[:, 0]] - xyz_m[:, pairs[:, 1]], axis=2)
    shown = np.isfinite(lengths)
    known = shown.any(axis=0)
    mean = np.where(shown, lengths, 0).sum(axis=0)[known] / shown.sum(axis=0)[known]
    return Limbs(pairs[known], mean)


def rays_of(uv_px: Floats, camera: Camera, image_from_crop: Floats) -> Floats:
    """(..., 3) directions of depth 1 in the camera's frame that pixels (..., 2) of a crop show."""
    xy = camera.undistort(uv_px @ image_from_crop[:, :2].T + image_from_crop[:, 2])
    return np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1)


def placed(poses_m: Floats, rays: Floats) -> Floats:
    """(..., J, 3) poses (..., J, 3) in metres, moved so that joints come closest to their rays (..., J, 3).

    The least sum of squared distances, in closed form. Joints that are NaN take no part. A pose that would end up
    behind the camera is moved no further than to where its root is NEAREST_M away.
    """
    unit = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    told = np.isfinite(unit).all(-1) & np.isfinite(poses_m).all(-1)
    across = np.eye(3) - unit[..., :, None] * unit[..., None, :]
    across = np.where(told[..., None, None], across, 0.0)
    off = np.where(told[..., None], poses_m, 0.0)
    total = across.sum(axis=-3) + 1e-9 * np.eye(3)
    move = np.linalg.solve(total, -np.einsum("...jab,...jb->...a", across, off)[..., None])[..., 0]
    move[..., 2] = np.maximum(move[..., 2], NEAREST_M)
    return np.asarray(poses_m + move[..., None, :])


def lift(rays: Floats, depth_m: Floats, limbs: Limbs) -> Floats:
    """(..., J, 3) metres in the camera's frame of joints on rays (..., J, 3), depth_m (..., J) behind the pelvis.

    The pelvis is put as far away as makes the squares of the limbs add up to those of a person of usual size: with
    X_j = r_j (Z + z_j) that sum is a quadratic in Z, of which the larger root counts. Where depths alone make the limbs
    too long, the vertex comes closest. Joints that are NaN take no part; at least NEAREST_M away.
    """
    one, other = limbs.ends.T
    slope = rays[..., one, :] - rays[..., other, :]
    offset = rays[..., one, :] * depth_m[..., one, None] - rays[..., other, :] * depth_m[..., other, None]
    told = np.isfinite(slope).all(-1) & np.isfinite(offset).all(-1)
    a, b, c = (
        np.where(told, values, 0.0).sum(-1)
        for values in (
            (slope**2).sum(-1),
            2 * (slope * offset).sum(-1),
            (offset**2).sum(-1) - limbs.length_m**2,
        )
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        away = (-b + np.sqrt(np.maximum(b**2 - 4 * a * c, 0.0))) / (2 * a)
    away = np.maximum(away, NEAREST_M)
    return np.asarray(rays * (away[..., None] + depth_m)[..., None])

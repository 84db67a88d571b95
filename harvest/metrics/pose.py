"""Errors of 3D and 2D joints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harvest.skeleton import joint_sources

Floats = NDArray[np.float64]


def joint_errors(estimate: ArrayLike, truth: ArrayLike) -> Floats:
    """(...,) Euclidean distances between points (..., D) in the points' unit; NaN where either is missing."""
    return np.linalg.norm(np.asarray(estimate, np.float64) - np.asarray(truth, np.float64), axis=-1)


def mpjpe(estimate: ArrayLike, truth: ArrayLike) -> float:
    """Mean per-joint position error over all joints that both have, in the points' unit; NaN where there are none."""
    return summary(joint_errors(estimate, truth))["mean"]


def summary(errors: ArrayLike) -> dict[str, float]:
    """median, mean, p90 and n of the errors that are numbers; NaN and 0 where there are none."""
    values = np.asarray(errors, np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {"median": np.nan, "mean": np.nan, "p90": np.nan, "n": 0}
    p90 = float(np.percentile(values, 90))
    return {"median": float(np.median(values)), "mean": float(values.mean()), "p90": p90, "n": values.size}


def take_joints(points: Floats, available: Sequence[str], wanted: Sequence[str]) -> Floats:
    """(..., W, D) the wanted joints by name out of points (..., J, D); middles of two sides where only those exist.

    NaN for joints that the available ones do not give (`harvest.skeleton.joint_sources`).
    """
    out = np.full((*points.shape[:-2], len(wanted), points.shape[-1]), np.nan)
    for index, name in enumerate(wanted):
        sources = joint_sources(name, available)
        if sources:
            out[..., index, :] = points[..., [list(available).index(s) for s in sources], :].mean(axis=-2)
    return out


def similar(points: Floats, target: Floats) -> Floats:
    """(..., J, 3) points after the rotation, translation and scale that bring them closest to targets (..., J, 3).

    Pairs that are not finite take no part in finding it; NaN where fewer than three are left.

    Source: Umeyama 1991, eq. 40 to 42.
    """
    told = np.isfinite(points).all(axis=-1, keepdims=True) & np.isfinite(target).all(axis=-1, keepdims=True)
    count = np.maximum(told.sum(axis=-2, keepdims=True), 1)
    ma, mb = (np.where(told, those, 0.0).sum(axis=-2, keepdims=True) / count for those in (points, target))
    a, b = np.where(told, points - ma, 0.0), np.where(told, target - mb, 0.0)
    u, s, vt = np.linalg.svd(np.swapaxes(b, -1, -2) @ a)
    sign = np.ones_like(s)
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[..., None, :]) @ vt
    scale = (s * sign).sum(axis=-1) / np.maximum((a**2).sum(axis=(-2, -1)), 1e-12)
    moved = scale[..., None, None] * (points - ma) @ np.swapaxes(rotation, -1, -2) + mb
    return np.asarray(np.where(told.sum(axis=-2, keepdims=True) >= 3, moved, np.nan))


def scaled(points: Floats, target: Floats) -> Floats:
    """(..., J, 3) points times the one number each that brings them closest to targets (..., J, 3).

    Pairs that are not finite take no part in finding it.
    """
    told = (np.isfinite(points) & np.isfinite(target)).all(axis=-1, keepdims=True)
    a, b = np.where(told, points, 0.0), np.where(told, target, 0.0)
    scale = (a * b).sum(axis=(-2, -1)) / np.maximum((a**2).sum(axis=(-2, -1)), 1e-12)
    return np.asarray(scale[..., None, None] * points)


PARTS = {
    "upper arms": ("shoulder", "elbow"),
    "lower arms": ("elbow", "wrist"),
    "upper legs": ("hip", "knee"),
    "lower legs": ("knee", "ankle"),
}


def correct_parts(estimate: Floats, truth: Floats, joints: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """By kind of part (..., 2 sides): 1 where it is right, 0 where not, NaN where the truth does not know it.

    A part is right if the mean error of its two ends is at most half its length (PCP of Burenius et al. 2013, as in
    Pavlakos et al. 2017, table 1). Joints (..., J, 2 or 3) by name; a part that was not found is wrong.
    """
    out = {}
    for kind, places in _part_places(joints).items():
        ours, theirs = estimate[..., places, :], truth[..., places, :]
        error = np.linalg.norm(ours - theirs, axis=-1).mean(axis=-1)
        length = np.linalg.norm(theirs[..., 0, :] - theirs[..., 1, :], axis=-1)
        with np.errstate(invalid="ignore"):
            out[kind] = np.where(np.isfinite(length), (error <= length / 2).astype(float), np.nan)
    return out


def asymmetry_mm(xyz_m: Floats, joints: Sequence[str]) -> dict[str, float]:
    """By kind of part the mean difference between the lengths of left and right, of poses (..., J, 3) in metres.

    Poses that lack an end of a part take no part in its mean; NaN where all do.

    Source: Zhou et al. 2017, "Geometry validity".
    """
    out = {}
    for kind, places in _part_places(joints).items():
        ends = xyz_m[..., places, :]
        length = np.linalg.norm(ends[..., 0, :] - ends[..., 1, :], axis=-1)
        out[kind] = 1000 * summary(abs(length[..., 0] - length[..., 1]))["mean"]
    return out


def _part_places(joints: Sequence[str]) -> dict[str, list[list[int]]]:
    """Of each kind of part the places of both ends, left then right."""
    order = list(joints)
    return {kind: [[order.index(f"{side}_{end}") for end in ends] for side in "lr"] for kind, ends in PARTS.items()}

"""Groups of frames in which a body holds a like pose, wherever it stands and whichever way it faces."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harvest.errors import UserError
from harvest.types import Poses3D

Floats = NDArray[np.float64]
SIDES = (("l_hip", "r_hip"), ("l_shoulder", "r_shoulder"))  # lines from right to left, across the way a body faces
LEAST_APART = 1e-3  # body sizes, within which poses are one and the same
MOST_APART = 1.0  # body sizes that one joint can count for: a joint that went astray alone is no rare pose


def pose_groups(poses: Poses3D, count: int, up: ArrayLike) -> NDArray[np.int64]:
    """(T,) the group 0 .. count - 1 of each frame; fewer groups where there are fewer different poses.

    Farthest-first: the first centre is the pose nearest the run's median pose, each next one the pose that is farthest
    from all centres so far; a frame belongs to the nearest centre, the earlier one of equals. The distance of two poses
    is the root mean square over the joints that both have. A frame in which a hip, or half of the joints, was not found
    belongs to group 0. up (3,): against gravity.

    Raises:
        UserError: more than one group of poses that have no hips to be turned by.
    Source: Gonzalez 1985, section 3 (at most twice the least possible largest distance to a centre).
    """
    group = np.zeros(len(poses.frames), np.int64)
    if count <= 1:
        return group
    body = _aligned(poses, np.asarray(up, np.float64))
    known = np.flatnonzero(np.isfinite(body).all(axis=2).mean(axis=1) >= 0.5)
    if known.size == 0:
        return group
    body = body[known]
    median = np.nan_to_num(np.nanmedian(np.where(np.isfinite(body).any(axis=0), body, 0.0), axis=0))
    nearest, best = _distance(body, body[np.argmin(_distance(body, median))]), np.zeros(len(known), np.int64)
    for number in range(1, min(count, len(known))):
        if nearest.max() < LEAST_APART:
            break
        away = _distance(body, body[np.argmax(nearest)])
        best[away < nearest] = number
        nearest = np.minimum(nearest, away)
    group[known] = best
    return group


def _distance(body: Floats, other: Floats) -> Floats:
    """(T,) root mean square distance of poses (T, J, 3) from one pose (J, 3), over the joints that both have."""
    squared = np.minimum(((body - other) ** 2).sum(axis=2), MOST_APART**2)
    both = np.isfinite(squared)
    mean = np.where(both, squared, 0.0).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
    return np.asarray(np.sqrt(mean))


def _aligned(poses: Poses3D, up: Floats) -> Floats:
    """(T, J, 3) joints from the middle of the hips, turned about `up` so that the body faces one way, in units of the
    run's median distance of a joint from that middle; NaN where a hip was not found.
    """
    sides = [[poses.joints.index(name) for name in pair] for pair in SIDES if set(pair) <= set(poses.joints)]
    if not set(SIDES[0]) <= set(poses.joints):
        raise UserError("select.pose_groups needs a skeleton with l_hip and r_hip; set it to 1 for this one")
    centred = poses.xyz_m - poses.xyz_m[:, sides[0]].mean(axis=1, keepdims=True)
    across = sum(np.nan_to_num(poses.xyz_m[:, left] - poses.xyz_m[:, right]) for left, right in sides)
    aside = np.cross(up, np.eye(3)[np.argmin(abs(up))])
    aside /= np.linalg.norm(aside)
    ahead = np.cross(up, aside)
    angle = np.arctan2(across @ ahead, across @ aside)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = centred @ aside, centred @ ahead
    turned = np.stack([cos * x + sin * y, cos * y - sin * x, centred @ up], axis=2)
    size = np.linalg.norm(turned, axis=2)
    return np.asarray(turned / max(float(np.nanmedian(size)) if np.isfinite(size).any() else 1.0, 1e-6))

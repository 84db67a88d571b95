"""Where the person is: from triangulated joints where they agree, from the located sphere elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harvest.skeleton import joint_sources

Floats = NDArray[np.float64]
MARGIN_M = 0.25  # round the outermost triangulated joints, on every side
SMALLEST_M, LARGEST_M = 1.2, 3.2
NEEDED_SHARE = 0.5  # of the joints, for a frame's own joints to place its box
ARMS_AND_JUMPS = 1.15  # a sphere round the standing body, enlarged to hold raised arms


def box_centres(xyz_m: Floats, centre_m: Floats, radius_m: Floats) -> Floats:
    """(T, 3) box centres: the middle of the extent of the joints (T, J, 3) inside the sphere, else its centre."""
    inside = np.linalg.norm(xyz_m - centre_m[:, None], axis=2) < 1.5 * radius_m[:, None]
    points = np.where(inside[..., None], xyz_m, np.nan)
    out = centre_m.copy()
    for frame in np.flatnonzero(inside.mean(axis=1) >= NEEDED_SHARE):
        out[frame] = (np.nanmin(points[frame], axis=0) + np.nanmax(points[frame], axis=0)) / 2
    return out


def pelvis_centres(xyz_m: Floats, joints: Sequence[str], centre_m: Floats, radius_m: Floats) -> Floats:
    """(T, 3) the pelvis among joints (T, J, 3), or the middle of the hips; where the views agree on none inside the
    sphere, its centre, which stands for the hips.
    """
    found = [list(joints).index(name) for name in joint_sources("pelvis", joints)]
    if not found:
        return centre_m.copy()
    pelvis = xyz_m[:, found].mean(axis=1)
    inside = np.linalg.norm(pelvis - centre_m, axis=1) < radius_m
    return np.where(inside[:, None], pelvis, centre_m)


def box_side_m(xyz_m: Floats, centre_m: Floats, radius_m: Floats) -> float:
    """One side for all frames: holds the joints (T, J, 3) of 95 % of the frames with a margin; 1.2 to 3.2 m."""
    inside = np.linalg.norm(xyz_m - centre_m[:, None], axis=2) < 1.5 * radius_m[:, None]
    points = np.where(inside[..., None], xyz_m, np.nan)[inside.mean(axis=1) >= NEEDED_SHARE]
    if len(points) == 0:
        side = 2 * ARMS_AND_JUMPS * float(np.nanmedian(radius_m))
    else:
        extent = (np.nanmax(points, axis=1) - np.nanmin(points, axis=1)).max(axis=1)
        side = float(np.percentile(extent, 95)) + 2 * MARGIN_M
    return float(np.clip(side, SMALLEST_M, LARGEST_M))

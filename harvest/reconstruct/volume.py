"""The box in which the person is: from triangulated joints where they agree, from the located sphere elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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

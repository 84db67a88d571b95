"""What each view's maps say about a pose: heat at the projected joints, and at the joints of the other side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig

Floats = NDArray[np.float64]
SUPPORT = 0.1  # heat at the projection from which a view counts as supporting a joint


def sample_maps(rig: Rig, score: NDArray[np.float32], heatmap_from_image: Floats, xyz_m: Floats) -> Floats:
    """(V, J, J') heat of map J' at the projection of joint J: bilinear, zero outside a map or where not seen.

    Args:
        score: (V, h, w, J') float32; heatmap_from_image: (V, 2, 3); xyz_m: (J, 3).
    """
    views, h, w, _ = score.shape
    uv = rig.project(xyz_m)
    cells = np.einsum("vab,vjb->vja", heatmap_from_image[:, :, :2], uv) + heatmap_from_image[:, None, :, 2]
    cells = np.where(np.isfinite(cells), cells, -9.0)
    low = np.floor(cells).astype(np.int64)
    part = cells - low
    total = np.zeros((views, len(xyz_m), score.shape[3]))
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = low[..., 0] + dx, low[..., 1] + dy
            inside = (x >= 0) & (y >= 0) & (x < w) & (y < h)
            weight = np.where(dx, part[..., 0], 1 - part[..., 0]) * np.where(dy, part[..., 1], 1 - part[..., 1])
            taken = score[np.arange(views)[:, None], np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)]
            total += (weight * inside)[..., None] * taken
    return total


def flip_log_odds(sampled: Floats, mirror: NDArray[np.int64], floor: float) -> Floats:
    """(V,) log of how much likelier each view's maps are if its detector exchanged left and right, given the pose.

    `sampled` as from `sample_maps`; joints of the middle have no say. Source: the pictorial likelihood (Pavlakos et al.
    2017, eq. 3) with a hidden exchange of sides per view.
    """
    own = np.arange(len(mirror))
    straight, crossed = sampled[:, own, own], sampled[:, own, mirror]
    odds: Floats = np.log((crossed + floor) / (straight + floor)).sum(axis=1)
    return odds

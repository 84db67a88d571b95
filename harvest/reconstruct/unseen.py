"""How well views agree, without any truth: each view's own peaks against what all other views say together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from calib.triangulate import triangulate_ransac
from harvest.reconstruct.methods import threshold_px
from harvest.reconstruct.peaks import peak_points
from harvest.types import Heatmaps


def unseen_view_errors(rig: Rig, maps: Heatmaps) -> NDArray[np.float64]:
    """(T, V, J) distances of each view's peak from where the other views, by RANSAC, would see the joint.

    In shares of the crop's side; NaN where the view has no map or no two others agree. It measures the detector alone:
    neither limb lengths nor the view itself take part. An error that all views make alike does not show in it.

    Raises:
        ValueError: fewer than three views, of which two could not be told apart.
    """
    if len(rig) < 3:
        raise ValueError(f"one view against the others needs three or more, got {len(rig)}")
    points, value = peak_points(maps)
    points, value = points.transpose(1, 0, 2, 3), value.transpose(1, 0, 2)
    v, t, j, _ = points.shape
    limit, out = threshold_px(maps), np.full((t, v, j), np.nan)
    linear = maps.image_from_heatmap[..., :2]
    side_px = np.sqrt(np.abs(np.linalg.det(linear))) * maps.score.shape[-1]
    for view, camera in enumerate(rig.cameras):
        others = [index for index in range(v) if index != view]
        sub = rig.select([rig.names[index] for index in others])
        xyz, _ = triangulate_ransac(sub, points[others].reshape(v - 1, -1, 2), value[others].reshape(v - 1, -1), limit)
        seen = camera.project(xyz).reshape(t, j, 2)
        out[:, view] = np.linalg.norm(points[view] - seen, axis=2) / side_px[:, view, None]
    return out

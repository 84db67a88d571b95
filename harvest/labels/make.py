"""Kept 3D joints -> 2D labels in every view, with a visibility that the view's own maps decide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from harvest.types import LabelSet, Poses3D, Selection


def make_labels(
    rig: Rig,
    poses: Poses3D,
    selection: Selection,
    seen: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    origin: dict[str, str],
) -> LabelSet:
    """One row for each frame and view that has a picture of the person and at least one label.

    Args:
        seen: (T, V, J) whether the view's own heat map supports the joint where the 3D joint projects.
        shown: (T, V) whether the view has a picture of the person at that frame.
        origin: what the labels come from, by name and fingerprint.
    Returns:
        uv_px holds the projection of kept joints that fall inside the picture; visibility 2 where the view sees the
        joint, 1 where it lies in the picture but the view does not show it, 0 elsewhere. weight is the joint's
        confidence. xyz_cam_m holds all joints that were found, kept or not, in the view's camera frame.
    Source: Pavlakos et al. 2017, section 3.4 (projection of the selected joints).
    """
    t, v = shown.shape
    uv = np.stack([camera.project(poses.xyz_m) for camera in rig.cameras], axis=1)
    xyz_cam = np.stack([camera.cam_from_world(poses.xyz_m) for camera in rig.cameras], axis=1)
    size = np.array([camera.size_px for camera in rig.cameras])[None, :, None]
    with np.errstate(invalid="ignore"):
        inside = ((uv > -0.5) & (uv < size - 0.5)).all(axis=3)
    labelled = selection.keep[:, None] & inside & shown[:, :, None]
    visibility = np.where(labelled, np.where(seen, 2, 1), 0)
    rows = labelled.any(axis=2)
    frame, view = np.nonzero(rows)
    return LabelSet(
        frame=poses.frames[frame],
        view=view.astype(np.int64),
        views=rig.names,
        joints=poses.joints,
        uv_px=np.where(labelled[..., None], uv, np.nan)[rows],
        visibility=visibility[rows].astype(np.int64),
        weight=np.where(labelled, poses.confidence[:, None], 0.0)[rows],
        xyz_cam_m=xyz_cam[rows],
        origin=origin,
    )

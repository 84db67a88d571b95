"""What is true of a picture: where joints appear, and which of them can be seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from harvest.skeleton import load_skeleton
from harvest.studio.body import JOINT_SETS, Pose
from harvest.studio.render import View

Floats = NDArray[np.float64]
OUTSIDE, HIDDEN, VISIBLE = 0, 1, 2
# Metres of the body's own flesh that may lie before a joint that is still said to be seen.
FLESH_M = {
    **{"pelvis": 0.18, "spine": 0.17, "thorax": 0.16, "hip": 0.14, "shoulder": 0.1, "neck": 0.1, "upper_neck": 0.1},
    **{"knee": 0.09, "ankle": 0.08, "elbow": 0.075, "wrist": 0.06},
    **{"head_top": 0.06, "nose": 0.1, "eye": 0.05, "ear": 0.06},
}
TOUCH_M = 0.02  # nearer than this, another thing only touches a joint


def flesh_m(joints: tuple[str, ...]) -> Floats:
    """(J,) FLESH_M of joints by their names."""
    return np.array([FLESH_M[name if name in FLESH_M else name.split("_", 1)[-1]] for name in joints])


@dataclass(frozen=True)
class JointTruth:
    """One set of joints of one person in one picture: xyz_cam_m (J, 3), uv_px (J, 2), NaN where the camera cannot see;
    visibility (J,) OUTSIDE the picture, HIDDEN or VISIBLE.
    """

    xyz_cam_m: Floats
    uv_px: Floats
    visibility: NDArray[np.int8]


@cache
def names_of(joint_set: str) -> tuple[str, ...]:
    """The joints of a set, in order."""
    return load_skeleton(joint_set).joints


def joint_truth(view: View, camera: Camera, pose: Pose, thing: int, frame: int = 0) -> dict[str, JointTruth]:
    """Joints by set of the person who is a picture's `thing`, in one frame of its pose."""
    return {name: _one_set(view, camera, pose.joints(name)[frame], thing, names_of(name)) for name in JOINT_SETS}


def _one_set(view: View, camera: Camera, xyz: Floats, thing: int, names: tuple[str, ...]) -> JointTruth:
    cam, uv = camera.cam_from_world(xyz), camera.project(xyz)
    return JointTruth(cam, uv, visibility(view, uv, cam[:, 2], thing, flesh_m(names)))


def visibility(view: View, uv: Floats, depth_m: Floats, thing: int, flesh: Floats) -> NDArray[np.int8]:
    """(J,) whether joints at uv (J, 2) and depths (J,) can be seen, by the picture's own z-buffer.

    Hidden is what another thing lies before, or more of the own body than the joint's own flesh (J,).
    """
    height, width = view.shown.shape
    with np.errstate(invalid="ignore"):
        at = np.floor((uv + 0.5) * view.over)
        inside = (at >= 0).all(axis=1) & (at[:, 0] < width) & (at[:, 1] < height)
    found = np.full(len(uv), OUTSIDE, np.int8)
    column, row = at[inside].astype(np.int64).T
    shown, near = view.shown[row, column], view.near[row, column]
    own = (shown >= view.first[thing]) & (shown < view.first[thing + 1])
    allowed = np.where(own, flesh[inside], TOUCH_M)
    found[inside] = np.where(near * (depth_m[inside] - allowed) > 1, HIDDEN, VISIBLE)
    return found

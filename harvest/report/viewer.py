"""What the 3D view in the page needs, as JSON: poses in whole millimetres, cameras as small pyramids, the floor."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from harvest.report.content import ReportContent
from harvest.report.measures import Measures, quantile
from harvest.report.overlays import side_of

Floats = NDArray[np.floating]

MAX_FRAMES = 600
FRUSTUM_SHARE = 0.1  # a camera's pyramid, as a share of its distance from the scene
WIDEST = 1.2  # half width of a pyramid over its depth, however wide the lens
DEFAULT_STEP_S = 0.04


def embedded_frames(n: int) -> NDArray[np.int64]:
    """Indices of the frames shown: all, or every k-th so that they are at most 600."""
    return np.arange(0, n, max(1, -(-n // MAX_FRAMES)))


def viewer_data(content: ReportContent, measures: Measures) -> dict[str, Any]:
    """Plain values for viewer.js; lengths in metres but for xyz_mm, per frame x y z of every joint, null if missing."""
    poses = content.poses
    times = embedded_frames(len(poses.frames))
    focus = scene_focus(content, measures)
    return {
        "frames": poses.frames[times].tolist(),
        "time_s": [round(float(s), 3) if np.isfinite(s) else None for s in poses.time_s[times]],
        "step_s": _step_s(poses.time_s[times]),
        "joints": list(poses.joints),
        "parents": content.skeleton.parents.tolist(),
        "sides": [side_of(joint) for joint in poses.joints],
        "xyz_mm": [_whole_mm(xyz) for xyz in poses.xyz_m[times]],
        "state": [_states(f, k) for f, k in zip(measures.found[times], measures.keep[times], strict=True)],
        "cameras": [_pyramid(camera, focus) for camera in content.rig.cameras],
        "up": [round(value, 6) for value in content.rig.up],
        "floor_m": _floor_m(content, measures),
        "focus_m": np.round(focus, 3).tolist(),
        "reach_m": _reach_m(content, measures, focus),
    }


def as_script(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def scene_focus(content: ReportContent, measures: Measures) -> Floats:
    """(3,) the middle of where the person was, in metres; of what the cameras look at if no joint was found."""
    trusted = _trusted(content, measures)
    return np.median(trusted, axis=0) if len(trusted) else content.rig.focus_m()


def _trusted(content: ReportContent, measures: Measures) -> Floats:
    """(N, 3) joints kept, or all that were found where none is kept."""
    xyz: Floats = content.poses.xyz_m[measures.keep if measures.keep.any() else measures.found]
    return xyz


def _floor_m(content: ReportContent, measures: Measures) -> float:
    """Height along `up` of the lowest joints; their 1 % quantile, so that one outlier does not sink the floor."""
    trusted = _trusted(content, measures)
    if not len(trusted):
        return 0.0
    return round(quantile(trusted @ np.array(content.rig.up), 0.01), 3)


def _reach_m(content: ReportContent, measures: Measures, focus: Floats) -> float:
    """How far from the focus 98 % of the joints lie, at least 1 m."""
    far = quantile(np.linalg.norm(_trusted(content, measures) - focus, axis=-1), 0.98)
    return round(max(far, 1.0), 3) if np.isfinite(far) else 1.0


def _step_s(time_s: Floats) -> float:
    step = quantile(np.diff(time_s))
    return round(min(max(step, 0.01), 1.0), 4) if np.isfinite(step) else DEFAULT_STEP_S


def _whole_mm(xyz_m: Floats) -> list[int | None]:
    return [round(1000 * value) if np.isfinite(value) else None for value in xyz_m.ravel().tolist()]


def _states(found: NDArray[np.bool_], keep: NDArray[np.bool_]) -> str:
    """One letter a joint: k kept, d dropped, - not found."""
    return "".join(np.where(keep, "k", np.where(found, "d", "-")))


def _pyramid(camera: Camera, focus: Floats) -> dict[str, Any]:
    """The camera's centre and the corners of its picture held in front of it, metres in the world."""
    depth = FRUSTUM_SHARE * max(float(np.linalg.norm(camera.centre_m - focus)), 0.5)
    width, height = camera.size_px
    corners = np.array(
        [[-0.5, -0.5, 1], [width - 0.5, -0.5, 1], [width - 0.5, height - 0.5, 1], [-0.5, height - 0.5, 1]]
    )
    rays = corners @ np.linalg.inv(camera.K).T
    rays[:, :2] *= min(1.0, WIDEST / float(np.abs(rays[:, :2]).max()))
    world = (depth * rays - camera.t_cam_from_world_m) @ camera.R_cam_from_world
    return {
        "name": camera.name,
        "centre_m": np.round(camera.centre_m, 3).tolist(),
        "corners_m": np.round(world, 3).tolist(),
    }

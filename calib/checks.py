"""What is wrong with a rig.yaml, said in sentences: each camera on its own, the cameras together, and their videos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.errors import CalibrationError
from calib.rig import Rig, camera_from_entry, read_entries

Level = Literal["error", "warning", "ok"]
Size = tuple[int, int]

CODEC_BLOCK_PX = 16
SAME_ASPECT = 0.005
FAR_APART_M = 50.0
SURELY_MILLIMETRES_M = 300.0
SAME_PLACE_M = 0.01
PARALLEL_DEG = 2.0
SIDEWAYS_DEG = 60.0
COHERENT_UP = 0.7
FIELD_OF_VIEW_DEG = (5.0, 170.0)


@dataclass(frozen=True)
class Finding:
    """One sentence about a camera, or about the whole rig where `camera` is None."""

    camera: str | None
    level: Level
    message: str


def check_rig(path: Path, video_sizes: Mapping[str, Size] | None) -> list[Finding]:
    """What the checks found: first about the rig as a whole, then camera by camera in the file's order.

    A camera that cannot be used is an error of its own and the others are still checked; a camera without any error or
    warning gets one line of level "ok" with its position, height, field of view and distance to the focus point.

    Args:
        path: a rig.yaml, broken or not.
        video_sizes: (width, height) in pixels of each camera's upright video, by camera name; None leaves videos out.
    """
    try:
        up, entries = read_entries(path)
    except CalibrationError as error:
        return [Finding(None, "error", str(error))]
    cameras, findings = _read_cameras(entries)
    if len(cameras) < 2:
        few = f"{len(cameras)} of {len(entries)} cameras in {path} can be used, a reconstruction needs two or more"
        findings.append(Finding(None, "error", f"{few}; add cameras or mend the ones named below"))
    if cameras:
        rig, wrong_up = _rig(cameras, up)
        findings += wrong_up + _check_cameras(rig) + _check_together(rig)
        findings += _check_videos(rig, video_sizes) if video_sizes is not None else []
        findings += _describe_sound(rig, {finding.camera for finding in findings})
    order = [str(entry["name"]) for entry in entries]
    return sorted(findings, key=lambda finding: -1 if finding.camera is None else order.index(finding.camera))


def compare_size(calibrated: Size, video: Size) -> tuple[Level, str]:
    """Whether a video of one (width, height) can be used with the calibration of another, and why.

    A video whose right or bottom edge lacks the few pixels by which codecs pad the picture to whole blocks of 16 is
    accepted with a warning: pixel coordinates count from the top left and stay what they were.
    """
    have, want = _times(video), _times(calibrated)
    if video == calibrated:
        return "ok", f"the video is {have}, as calibrated"
    if _only_padding_cut(calibrated, video):
        return "warning", (
            f"the video is {have}, the calibration {want}, a multiple of {CODEC_BLOCK_PX}: codec padding was cut on "
            "the right or at the bottom; the principal point is unaffected and the video is accepted"
        )
    turned = (video[1], video[0])
    if turned == calibrated or _only_padding_cut(calibrated, turned):
        return "error", (
            f"the video is {have} but the calibration {want}: the video is rotated by a quarter turn relative to the "
            f"calibration; turn it back to {want}, or calibrate with pictures turned like the video"
        )
    wider, higher = video[0] / calibrated[0], video[1] / calibrated[1]
    if abs(wider / higher - 1) <= SAME_ASPECT < abs(wider - 1):
        return "error", (
            f"the video is {have} but the calibration {want}: the video seems scaled by a factor of {wider:.4g}; "
            f"calibrate again with this size, or re-encode the video at {want}"
        )
    return "error", (
        f"the video is {have} but the calibration {want}: neither padding, rotation nor scale explains it, so the "
        f"picture was cropped or belongs to another camera; give the video as it was calibrated, at {want}"
    )


def millimetre_suspects(rig: Rig) -> dict[str, float]:
    """Cameras that stand over 50 m from most others because of a large translation: name to median distance in metres.

    Coordinates far from the world's origin alone (a surveyed site) are no reason, nor is a camera near the origin whose
    neighbours stand far off: it is the neighbours that are named.
    """
    suspects = {}
    for camera in rig.cameras:
        gaps = [float(np.linalg.norm(camera.centre_m - other.centre_m)) for other in rig.cameras if other is not camera]
        far = float(np.median(gaps)) if gaps else 0.0
        if far > FAR_APART_M and abs(camera.t_cam_from_world_m).max() > FAR_APART_M:
            suspects[camera.name] = far
    return suspects


def _read_cameras(entries: Sequence[Mapping[str, Any]]) -> tuple[list[Camera], list[Finding]]:
    cameras: dict[str, Camera] = {}
    findings = []
    for entry in entries:
        name = str(entry["name"])
        try:
            camera = camera_from_entry(entry)
        except CalibrationError as error:
            findings.append(Finding(name, "error", str(error).removeprefix(f"camera '{name}': ")))
            continue
        if name in cameras:
            message = "this name stands twice in the rig, only the first is checked; give each camera its own name"
            findings.append(Finding(name, "error", message))
        else:
            cameras[name] = camera
    return list(cameras.values()), findings


def _rig(cameras: list[Camera], up: tuple[float, ...]) -> tuple[Rig, list[Finding]]:
    try:
        return Rig(tuple(cameras), up), []  # type: ignore[arg-type]
    except CalibrationError as error:
        return Rig(tuple(cameras)), [Finding(None, "error", str(error))]


def _check_cameras(rig: Rig) -> list[Finding]:
    findings = []
    for camera in rig.cameras:
        (width, height), K = camera.size_px, camera.K
        messages = []
        if not _inside(camera, K[:2, 2]):
            messages.append(
                f"the principal point ({K[0, 2]:.1f}, {K[1, 2]:.1f}) px lies outside the {width}x{height} picture; "
                "check cx, cy and size_px"
            )
        if max(K[0, 0] / K[1, 1], K[1, 1] / K[0, 0]) > 1.05:
            messages.append(
                f"focal lengths fx {K[0, 0]:.1f} and fy {K[1, 1]:.1f} px differ by more than 5 %, pixels are seldom "
                "that far from square; check K, and that the video was not stretched"
            )
        angle = _field_of_view_deg(camera)
        if angle < FIELD_OF_VIEW_DEG[0] or (angle > FIELD_OF_VIEW_DEG[1] and camera.model == "pinhole"):
            messages.append(
                f"the horizontal field of view is {angle:.1f} degrees; check that fx is in pixels of a "
                f"picture {width} wide"
            )
        findings += [Finding(camera.name, "warning", message) for message in messages]
    return findings


def _check_together(rig: Rig) -> list[Finding]:
    suspects = millimetre_suspects(rig)
    focus = rig.focus_m()
    findings = []
    for name, far in suspects.items():
        message = (
            f"it stands {far:.0f} m from the other cameras and {np.linalg.norm(rig[name].centre_m - focus):.0f} m from "
            "the point they look at: t_cam_from_world_m seems to be in millimetres; divide it by 1000"
        )
        findings.append(Finding(name, "error" if far > SURELY_MILLIMETRES_M else "warning", message))
    in_metres = [name for name in rig.names if name not in suspects]
    findings += _check_volume(rig.select(in_metres) if len(in_metres) >= 2 else rig)
    for a, b in combinations(rig.cameras, 2):
        gap = float(np.linalg.norm(a.centre_m - b.centre_m))
        if gap < SAME_PLACE_M:
            message = f"it stands {gap * 1000:.1f} mm from camera '{a.name}', two views from one place give no depth"
            findings.append(Finding(b.name, "warning", f"{message}; check that both have their own extrinsics"))
    return findings + _check_up(rig)


def _check_volume(rig: Rig) -> list[Finding]:
    """Cameras that do not see the point on which the optical axes converge."""
    if len(rig) < 2:
        return []
    axes = np.stack([camera.R_cam_from_world[2] for camera in rig.cameras])
    if abs(axes @ axes.T).min() > math.cos(math.radians(PARALLEL_DEG)):
        message = "all cameras look along nearly one line, so the volume they share cannot be told from their axes"
        return [Finding(None, "warning", f"{message}; check the rotations, or name the volume's centre yourself")]
    focus = rig.focus_m()
    reasons = {camera.name: reason for camera in rig.cameras if (reason := _why_unseen(camera, focus))}
    seeing = len(rig) - len(reasons)
    return [
        Finding(
            name,
            "error" if seeing < 2 else "warning",
            f"it does not see ({_numbers(focus)}) m, the point nearest to all optical axes: {reason}; "
            f"{seeing} of {len(rig)} cameras see it; check that R_cam_from_world and t_cam_from_world_m take the world "
            "to the camera",
        )
        for name, reason in reasons.items()
    ]


def _why_unseen(camera: Camera, point_m: NDArray[np.float64]) -> str:
    depth = camera.cam_from_world(point_m)[2]
    if depth <= 0:
        return f"it lies {-depth:.2f} m behind the camera"
    uv = camera.project(point_m)
    if np.isnan(uv).any():
        return "it lies beyond the angle that the lens model covers"
    return "" if _inside(camera, uv) else f"it appears at ({uv[0]:.0f}, {uv[1]:.0f}) px, outside the picture"


def _check_up(rig: Rig) -> list[Finding]:
    up = np.array(rig.up)
    picture_up = np.stack([-camera.R_cam_from_world[1] for camera in rig.cameras])
    against = int((picture_up @ up < -0.2).sum())
    mean = picture_up.mean(axis=0)
    length = float(np.linalg.norm(mean))
    advice = f"if the pictures are upright, set 'up' to the axis nearest to ({_numbers(mean)})"
    if against > len(rig) / 2:
        message = f"{against} of {len(rig)} cameras are upside down relative to up = ({_numbers(up)}); {advice}"
        return [Finding(None, "warning", message)]
    if length > COHERENT_UP and mean @ up / length < math.cos(math.radians(SIDEWAYS_DEG)):
        angle = math.degrees(math.acos(mean @ up / length))
        message = f"the pictures' upward direction is {angle:.0f} degrees off up = ({_numbers(up)}); {advice}"
        return [Finding(None, "warning", message)]
    return []


def _check_videos(rig: Rig, video_sizes: Mapping[str, Size]) -> list[Finding]:
    findings = []
    for camera in rig.cameras:
        if camera.name not in video_sizes:
            message = "it has no video; name the file after the camera, or give its name as 'video:' in rig.yaml"
            findings.append(Finding(camera.name, "error", message))
            continue
        width, height = video_sizes[camera.name]
        level, message = compare_size(camera.size_px, (width, height))
        if level != "ok":
            findings.append(Finding(camera.name, level, message))
    return findings


def _describe_sound(rig: Rig, reported: set[str | None]) -> list[Finding]:
    focus, up = rig.focus_m(), np.array(rig.up)
    return [
        Finding(
            camera.name,
            "ok",
            f"at ({_numbers(camera.centre_m)}) m, {camera.centre_m @ up:.2f} m above the origin, horizontal field of "
            f"view {_field_of_view_deg(camera):.1f} degrees, "
            f"{np.linalg.norm(camera.centre_m - focus):.2f} m from the focus point",
        )
        for camera in rig.cameras
        if camera.name not in reported
    ]


def _field_of_view_deg(camera: Camera) -> float:
    """Angle between the rays of the left and the right edge, through the lens model, or by fx where it has no ray."""
    width, K = camera.size_px[0], camera.K
    edges = np.array([[-0.5, K[1, 2]], [width - 0.5, K[1, 2]]])
    rays = camera.undistort(edges)[:, 0]
    if np.isfinite(rays).all():
        angles = np.arctan(rays)
    elif camera.model == "fisheye":
        angles = (edges[:, 0] - K[0, 2]) / K[0, 0]
    else:
        angles = np.arctan((edges[:, 0] - K[0, 2]) / K[0, 0])
    return math.degrees(angles[1] - angles[0])


def _only_padding_cut(calibrated: Size, video: Size) -> bool:
    padded = [-(-length // CODEC_BLOCK_PX) * CODEC_BLOCK_PX for length in video]
    return all(want in (have, full) for want, have, full in zip(calibrated, video, padded, strict=True))


def _inside(camera: Camera, uv_px: NDArray[np.float64]) -> bool:
    return bool((uv_px >= -0.5).all() and (uv_px <= np.array(camera.size_px) - 0.5).all())


def _numbers(vector: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.2f}" for value in vector)


def _times(size: Size) -> str:
    return f"{size[0]}x{size[1]}"

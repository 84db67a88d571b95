"""A moving figure and a ring of cameras: the smallest capture with exact truth, made without any asset."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.rig import Rig
from harvest.skeleton import Skeleton, load_skeleton
from harvest.studio.plain import TubePerson, plain_light, plain_room
from harvest.studio.render import Renderer, Scene
from harvest.studio.rotations import look_at
from harvest.studio.video import Video

Floats = NDArray[np.float64]
SIZE_PX = (640, 480)
FPS = 30


@dataclass(frozen=True)
class Wrong:
    """How the made-up 2D detector errs: noise_px of every joint; share of views and joints that are lost outright
    (outliers), and share of views that exchange left and right.
    """

    noise_px: float = 3.0
    outliers: float = 0.05
    flips: float = 0.03


def ring_rig(views: int, radius_m: float = 4.0, height_m: float = 1.6) -> Rig:
    """Cameras on a ring, all looking at a point 1 m above the origin, with some lens distortion."""
    cameras = []
    for view in range(views):
        angle = 2 * np.pi * view / views + 0.3
        centre = np.array([radius_m * np.cos(angle), radius_m * np.sin(angle), height_m])
        R, t = look_at(centre, (0.0, 0.0, 1.0))
        K = np.array([[560.0, 0, SIZE_PX[0] / 2 - 0.5], [0, 560.0, SIZE_PX[1] / 2 - 0.5], [0, 0, 1]])
        cameras.append(Camera(f"cam{view + 1:02d}", SIZE_PX, K, np.array([-0.1, 0.05, 1e-3, -5e-4]), R, t))
    return Rig(tuple(cameras))


def moving_figure(frames: int, height_m: float = 1.75) -> tuple[Skeleton, Floats]:
    """The MPII skeleton and its joints (T, 16, 3) in metres: walking in a circle, arms swinging, limbs of fixed length.

    Lengths are the skeleton's typical shares of the height, exactly.
    """
    skeleton = load_skeleton("mpii16")
    joints = np.zeros((frames, len(skeleton.joints), 3))
    for frame in range(frames):
        phase = 2 * np.pi * frame / (1.1 * FPS)
        heading = 2 * np.pi * frame / (8.0 * FPS)
        place = {"pelvis": np.array([0.7 * np.cos(heading), 0.7 * np.sin(heading), 0.53 * height_m])}
        forward = np.array([-np.sin(heading), np.cos(heading), 0.0])
        left = np.array([-forward[1], forward[0], 0.0])
        for joint in skeleton.order[1:]:
            limb = skeleton.limb_of(joint)
            direction = _direction(skeleton.joints[joint], phase, forward, left)
            place[limb.child] = place[limb.parent] + limb.share_of_height * height_m * direction
        joints[frame] = [place[name] for name in skeleton.joints]
    return skeleton, joints


def _direction(joint: str, phase: float, forward: Floats, left: Floats) -> Floats:
    """Unit vector from a joint's parent to the joint, at a phase of the gait."""
    up = np.array([0.0, 0.0, 1.0])
    side = left if joint.startswith("l_") else -left
    swing = np.sin(phase + (np.pi if joint.startswith("l_") else 0.0))
    part = joint.split("_", 1)[-1]
    bends = {
        "knee": 0.5 * swing,
        "ankle": 0.5 * swing - 0.35 * (1 - np.cos(phase)),
        "elbow": -0.6 * swing,
        "wrist": 0.5 - 0.6 * swing,
    }
    if part in ("hip", "shoulder"):
        return side
    if part in bends:
        vector = -up * np.cos(bends[part]) + forward * np.sin(bends[part]) + (0.25 * side if part == "elbow" else 0.0)
        return np.asarray(vector / np.linalg.norm(vector))
    vector = up + 0.05 * np.sin(phase) * left
    return np.asarray(vector / np.linalg.norm(vector))


def write_capture(folder: Path, views: int = 4, frames: int = 60, seed: int = 0, wrong: Wrong | None = None) -> None:
    """Fill a folder with rig.yaml, videos/, keypoints/ (OpenPose-like JSON, per view) and truth.npz.

    The keypoints err as `wrong` says, with confidences that follow the error only roughly, as real ones do. truth.npz
    (joint names, xyz_m) lies beside, for measuring alone.
    """
    wrong = wrong or Wrong()
    rng = np.random.default_rng(seed)
    rig, (skeleton, xyz) = ring_rig(views), moving_figure(frames)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "rig.yaml").write_text(rig.to_yaml(), encoding="utf-8")
    np.savez(folder / "truth.npz", joints=np.array(skeleton.joints), xyz_m=xyz)
    _film(folder / "videos", rig, skeleton, xyz)
    for camera in rig.cameras:
        uv = camera.project(xyz)
        _write_coco(folder / "keypoints" / f"{camera.name}.json", skeleton, _spoil(uv, skeleton, rng, wrong))


def _spoil(uv: Floats, skeleton: Skeleton, rng: np.random.Generator, wrong: Wrong) -> Floats:
    """(T, J, 3) u, v and confidence as a detector that errs would give them."""
    out = np.concatenate([uv + rng.normal(0, wrong.noise_px, uv.shape), rng.uniform(0.6, 0.95, (*uv.shape[:2], 1))], -1)
    flipped = rng.random(len(uv)) < wrong.flips
    out[flipped] = out[flipped][:, skeleton.mirror]
    lost = rng.random(uv.shape[:2]) < wrong.outliers
    out[lost, :2] += rng.normal(0, 60.0, (int(lost.sum()), 2))
    out[lost, 2] = rng.uniform(0.2, 0.7, int(lost.sum()))
    return out


def _write_coco(path: Path, skeleton: Skeleton, keypoints: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    annotations = [
        {"id": t + 1, "image_id": t + 1, "category_id": 1, "keypoints": [round(float(x), 3) for x in points.ravel()]}
        for t, points in enumerate(keypoints)
    ]
    images = [{"id": t + 1, "frame": t, "file_name": f"{t:06d}.jpg"} for t in range(len(keypoints))]
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.joints)}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    path.write_text(json.dumps(content), encoding="utf-8")


def _film(folder: Path, rig: Rig, skeleton: Skeleton, xyz: Floats) -> None:
    """The figure as a person of tubes in an empty room, one video a camera."""
    first = np.array(
        [xyz[0, skeleton.index(limb.child)] - xyz[0, skeleton.index(limb.parent)] for limb in skeleton.limbs]
    )
    lengths = np.zeros(len(skeleton.joints))
    lengths[[skeleton.index(limb.child) for limb in skeleton.limbs]] = np.linalg.norm(first, axis=1)
    person, light, room, renderer = TubePerson(skeleton, lengths), plain_light(), plain_room(), Renderer()
    videos = [Video(folder / f"{camera.name}.mp4", SIZE_PX, FPS) for camera in rig.cameras]
    for joints in xyz:
        scene = Scene([person.placed(joints)], light, room)
        for camera, video in zip(rig.cameras, videos, strict=True):
            video.add(renderer.draw(scene, camera).picture)
    for video in videos:
        video.close()

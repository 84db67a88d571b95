"""motion.npz and motion.json: clips that a body of any shape performs, from DeepMimic's motions in pybullet's wheel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from harvest.studio.body import ANCESTRIES, TRAITS, Body, BodyModel
from harvest.studio.motion import CHANNELS, MotionLibrary

Floats = NDArray[np.float64]
FOLDER = "pybullet_data/data/motions/"
FPS = 30
LEG_M = 0.42155 + 0.40987  # thigh and shank of DeepMimic's figure, metres
FLOOR_PERCENTILE, FLOOR_EVERY = 5, 3  # of the lowest points of the frames; every third vertex of the skin is enough

# Columns of a frame: duration, root (x, y up, z), then quaternions (w, x, y, z) from parent to child, or one angle.
ROOT, TURN, CHEST, NECK = slice(1, 4), slice(4, 8), slice(8, 12), slice(12, 16)
SIDES = {  # hip, knee, ankle, shoulder, elbow
    ".R": (slice(16, 20), 20, slice(21, 25), slice(25, 29), 29),
    ".L": (slice(30, 34), 34, slice(35, 39), slice(39, 43), 43),
}
COLUMNS = 44
# DeepMimic faces +x with y up; the studio's people face -y with z up.
STUDIO_FROM_SOURCE = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
DOWN = np.array([0.0, 0.0, -1.0])
LIMBS = ("upperarm", "lowerarm", "wrist", "upperleg", "lowerleg")  # hang down in DeepMimic's zero pose

# Which channel a bone follows; bones that are not named follow their parent. The lower forearm takes half of the hand's
# twist.
FOLLOWS = {
    **{"root": "root", "pelvis": "root", "spine05": "root", "spine04": "spine04", "spine03": "spine03"},
    **{"spine02": "spine01", "spine01": "spine01", "neck01": "neck01", "neck02": "neck01", "neck03": "neck03"},
    **{"head": "head", "clavicle": "clavicle", "shoulder01": "clavicle", "upperarm01": "upperarm"},
    **{"upperarm02": "upperarm", "lowerarm01": "lowerarm", "lowerarm02": "lowerarm", "wrist": "wrist"},
    **{"upperleg01": "upperleg", "upperleg02": "upperleg", "lowerleg01": "lowerleg", "lowerleg02": "lowerleg"},
    **{"foot": "foot"},
}
BLENDS = {"lowerarm02": "wrist"}
ENDS = {  # bones whose heads give a limb's direction
    **{"upperleg": ("upperleg01", "lowerleg01"), "lowerleg": ("lowerleg01", "foot")},
    **{"upperarm": ("upperarm01", "lowerarm01"), "lowerarm": ("lowerarm01", "wrist"), "wrist": ("wrist", "finger3-1")},
}


@dataclass(frozen=True)
class RawClip:
    """A clip of F frames at FPS: turns (F, 21, 4), world quaternions of CHANNELS from the zero pose, studio axes; root
    (F, 3) in leg lengths.
    """

    name: str
    turns: Floats
    root: Floats


def wanted(name: str) -> bool:
    """Whether a file of the wheel is a motion of a person (one is of a quadruped)."""
    return name.startswith(FOLDER) and name.endswith(".txt") and "laikago" not in name


def build_motion(
    files: Mapping[str, bytes], bodies: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of motion.npz and the content of motion.json; without files, a library without clips."""
    clips = [read_deepmimic(name, json.loads(files[name])) for name in sorted(files)]
    model = BodyModel(bodies)
    arrays = bone_tables(model) | clip_tables(clips)
    arrays["clip_floor"] = np.array(floors(arrays, model), np.float32)
    return arrays, describe(arrays)


def read_deepmimic(path: str, content: Mapping[str, Any]) -> RawClip:
    """The clip of a DeepMimic motion file, interpolated to FPS.

    Raises:
        ValueError: frames of another layout.
    """
    frames = np.array(content["Frames"], np.float64)
    if frames.ndim != 2 or frames.shape[1] != COLUMNS or len(frames) < 2:
        raise ValueError(f"{path}: frames of shape {frames.shape}, needed (two or more, {COLUMNS})")
    name = "dm_" + path.rpartition("/")[2].removesuffix(".txt").removeprefix("humanoid3d_").lstrip("0123456789")
    at = np.concatenate([[0.0], np.cumsum(frames[:-1, 0])])  # the last frame's duration leads to no frame
    times = np.arange(int(at[-1] * FPS + 1e-6) + 1) / FPS
    times = np.minimum(times, at[-1])
    root = np.stack([np.interp(times, at, frames[:, ROOT][:, axis]) for axis in range(3)], axis=-1)
    turns = np.stack([_quaternions(Slerp(at, turn)(times)) for turn in _world_turns(frames)], axis=1)
    return RawClip(name, turns, root @ STUDIO_FROM_SOURCE.T / LEG_M)


def _world_turns(frames: Floats) -> list[Rotation]:
    """Of each channel the world rotations of all frames, studio axes."""
    root = _turns(frames[:, TURN])
    chest = root * _turns(frames[:, CHEST])
    head = chest * _turns(frames[:, NECK])
    found = {"root": root, "spine04": _midway(root, chest), "spine03": chest, "spine01": chest}
    found |= {"neck01": head, "neck03": head, "head": head}  # the source's one neck joint lies low
    for side, (hip, knee, ankle, shoulder, elbow) in SIDES.items():
        thigh, arm = root * _turns(frames[:, hip]), chest * _turns(frames[:, shoulder])
        shank, forearm = thigh * _hinge(frames[:, knee]), arm * _hinge(frames[:, elbow])
        found |= {f"upperleg{side}": thigh, f"lowerleg{side}": shank, f"foot{side}": shank * _turns(frames[:, ankle])}
        found |= {f"clavicle{side}": chest, f"upperarm{side}": arm, f"lowerarm{side}": forearm, f"wrist{side}": forearm}
    return [found[channel] for channel in CHANNELS]


def _turns(wxyz: Floats) -> Rotation:
    """Rotations in studio axes of quaternions in the source's."""
    xyz = wxyz[:, 1:] @ STUDIO_FROM_SOURCE.T
    return Rotation.from_quat(np.concatenate([xyz, wxyz[:, :1]], axis=1))


def _hinge(angles: Floats) -> Rotation:
    """Knees and elbows turn about the source's z, from the body's left to its right."""
    return Rotation.from_rotvec(angles[:, None] * STUDIO_FROM_SOURCE[:, 2])


def _midway(a: Rotation, b: Rotation) -> Rotation:
    return a * Rotation.from_rotvec((a.inv() * b).as_rotvec() / 2)


def _quaternions(turns: Rotation) -> Floats:
    """(F, 4) quaternions (w, x, y, z) without a jump of sign from frame to frame."""
    q = turns.as_quat()[:, [3, 0, 1, 2]]
    flips = np.cumprod(np.where((q[1:] * q[:-1]).sum(axis=1) < 0, -1.0, 1.0))
    q[1:] *= flips[:, None]
    return q if q[0, 0] >= 0 else -q


def bone_tables(model: BodyModel) -> dict[str, NDArray[Any]]:
    """Which channel each bone follows and how, and the zero pose of the one source skeleton."""
    bones = list(model.bones)
    tables = {name: np.full(len(bones), -1) for name in ("channel", "blend_channel", "limb_from", "limb_to")}
    sign = np.zeros(len(bones), np.int8)
    for index, bone in enumerate(bones):
        stem, dot, side = bone.partition(".")
        channel = FOLLOWS.get(stem)
        if channel is None:
            continue
        tables["channel"][index] = _channel(channel, dot + side)
        if stem in BLENDS:
            tables["blend_channel"][index] = _channel(BLENDS[stem], dot + side)
        if channel in ENDS:
            begin, end = (bones.index(name + dot + side) for name in ENDS[channel])
            tables["limb_from"][index], tables["limb_to"][index] = begin, end
        if channel == "foot":
            sign[index] = 1 if side == "R" else -1
    zero = np.array([DOWN if channel.partition(".")[0] in LIMBS else 0 * DOWN for channel in CHANNELS])
    kinds = {"channel": np.int8, "blend_channel": np.int8, "limb_from": np.int16, "limb_to": np.int16}
    return {
        "channels": np.array(CHANNELS),
        "fps": np.array(float(FPS)),
        "skeleton_names": np.array(["deepmimic"]),
        "skeleton_zero_dir": zero[None].astype(np.float32),
        "skeleton_foot_roll": np.zeros(1, np.float32),
        "bone_foot_sign": sign,
        **{f"bone_{name}": tables[name].astype(kind) for name, kind in kinds.items()},
    }


def _channel(stem: str, side: str) -> int:
    return CHANNELS.index(stem if stem in CHANNELS else stem + side)


def clip_tables(clips: Sequence[RawClip]) -> dict[str, NDArray[Any]]:
    """Frames and what is known of the clips. Who performed them is not known: all are for training alone."""
    counts = np.array([len(clip.root) for clip in clips], np.int32)
    turns = [clip.turns for clip in clips] or [np.zeros((0, len(CHANNELS), 4))]
    root = [clip.root for clip in clips] or [np.zeros((0, 3))]

    def same(word: str) -> NDArray[np.str_]:
        return np.array([word] * len(clips), dtype=f"<U{len(word)}")

    return {
        "quaternions": np.round(np.concatenate(turns) * 32767).astype(np.int16),
        "root": np.concatenate(root).astype(np.float32),
        "clip_names": np.array([clip.name for clip in clips], np.str_),
        "clip_start": (np.cumsum(counts) - counts).astype(np.int32),
        "clip_frames": counts,
        "clip_skeleton": np.zeros(len(clips), np.int8),
        "clip_floor": np.zeros(len(clips), np.float32),
        "clip_subject": same("dm"),
        "clip_split": same("train"),
        "clip_source": same("deepmimic"),
    }


def mean_adult(model: BodyModel) -> Body:
    """A body in the middle of all traits."""
    return model.shape(dict.fromkeys((*TRAITS, *ANCESTRIES), 0.5) | {"age": 5 / 6})


def floors(arrays: Mapping[str, NDArray[Any]], model: BodyModel) -> list[float]:
    """Of each clip the height, in leg lengths, of what the mean adult touches in it: a low percentile over frames."""
    library, body = MotionLibrary(arrays), mean_adult(model)
    points = body.vertices[: model.skin_vertices : FLOOR_EVERY].astype(np.float64)
    weights = model.dense_weights[: model.skin_vertices : FLOOR_EVERY].astype(np.float64)
    found = []
    for clip in library.clips:
        turns, root = library.perform(body, clip, np.arange(len(clip)))
        heights = [lowest(body, turns[frame], root[frame], points, weights) for frame in range(len(clip))]
        found.append(float(np.percentile(heights, FLOOR_PERCENTILE)) / body.leg_m)
    return found


def lowest(body: Body, turns: Floats, root: Floats, points: Floats, weights: Floats) -> float:
    """Height in metres of the lowest of some points of a posed body; weights (P, B) of its bones."""
    heads, parents = body.heads, body.model.parents
    joints = np.zeros_like(heads)
    joints[0] = root
    for bone in range(1, len(heads)):
        parent = parents[bone]
        joints[bone] = joints[parent] + turns[parent] @ (heads[bone] - heads[parent])
    up = turns[:, 2]  # the row of each bone's rotation that makes heights
    rise = joints[:, 2] - (up * heads).sum(axis=1)
    return float((((weights @ up) * points).sum(axis=1) + weights @ rise).min())


def describe(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The content of motion.json."""
    clips = [
        {
            "name": str(arrays["clip_names"][i]),
            "source": str(arrays["clip_source"][i]),
            "subject": str(arrays["clip_subject"][i]),
            "skeleton": int(arrays["clip_skeleton"][i]),
            "frames": int(arrays["clip_frames"][i]),
            "action": str(arrays["clip_names"][i]).removeprefix("dm_"),
            "split": str(arrays["clip_split"][i]),
            "start": int(arrays["clip_start"][i]),
            "floor": round(float(arrays["clip_floor"][i]), 4),
            "seconds": round(int(arrays["clip_frames"][i]) / FPS, 2),
        }
        for i in range(len(arrays["clip_names"]))
    ]
    rule = "by subject; who performed these is not known, so all are for training alone"
    return {
        "fps": FPS,
        "units": "root and floor in leg lengths (thigh + shank)",
        "clips": clips,
        "split_rule": rule,
    }

"""Poses to learn from, 2D with or without 3D, whatever layout they come in: one type, and one reader a layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.learn.samples import files_of_samples, origin_of, pose_of_label, read_parts
from harvest.metrics.pose import take_joints
from harvest.monocular.lift import USUAL_FOCAL
from harvest.skeleton import load_skeleton

Floats = NDArray[np.float64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class PoseSet:
    """N people in pictures.

    Attributes:
        joints: J names.
        xy: (N, J, 2) where a detector sees them, as what lies at depth 1 in the frame of a camera without distortion;
            NaN where unknown. confidence: (N, J) of that, 0 where unknown. label_xy: (N, J, 2) where they are, as
            labels tell; the same where nothing else is known.
        xyz_m: (N, J, 3) metres in the camera's frame; NaN where unknown, all of it for labels in 2D alone.
        K: (N, 3, 3) pixels of that ideal camera; size_px: (N, 2) of its picture.
        subject, action, moment: (N,) who does what; pictures of one moment show the same pose.
        name: (N,) of the picture, unique; votes call it so.
    """

    joints: tuple[str, ...]
    xy: Floats
    label_xy: Floats
    confidence: Floats
    xyz_m: Floats
    K: Floats
    size_px: Floats
    subject: Names
    action: Names
    moment: Names
    name: Names

    def __post_init__(self) -> None:
        """Check shapes."""
        n, j = self.xy.shape[:2]
        needed = {
            "xy": (n, j, 2),
            "label_xy": (n, j, 2),
            "confidence": (n, j),
            "xyz_m": (n, j, 3),
            "K": (n, 3, 3),
            "size_px": (n, 2),
        }
        needed |= dict.fromkeys(("subject", "action", "moment", "name"), (n,))
        for key, shape in needed.items():
            if getattr(self, key).shape != shape or j != len(self.joints):
                raise ValueError(f"{key} must be {shape} for {len(self.joints)} joints, got {getattr(self, key).shape}")

    def __len__(self) -> int:
        """N."""
        return len(self.xy)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> PoseSet:
        """Some of the people."""
        return PoseSet(self.joints, *(getattr(self, one.name)[rows] for one in fields(self)[1:]))

    def of(self, joints: Sequence[str]) -> PoseSet:
        """Other joints by name; middles of two sides where only those are known, NaN for what nothing gives."""
        xy, label, xyz = (take_joints(points, self.joints, joints) for points in (self.xy, self.label_xy, self.xyz_m))
        told = take_joints(self.confidence[..., None], self.joints, joints)[..., 0]
        told = np.where(np.isfinite(xy).all(axis=-1), np.nan_to_num(told), 0.0)
        return PoseSet(tuple(joints), xy, label, told, xyz, *(getattr(self, one.name) for one in fields(self)[5:]))

    def exact(self) -> PoseSet:
        """The same with what labels say in place of what a detector sees."""
        known = np.asarray(np.isfinite(self.label_xy).all(axis=-1), np.float64)
        return replace(self, xy=self.label_xy, confidence=known)

    def on_screen(self, xy: Floats) -> Floats:
        """(N, J, 2) what is seen (N, J, 2) through K, as if the camera looked straight ahead and was USUAL_FOCAL long:
        pixels from the picture's middle, over that many of its longer side.
        """
        uv = xy * self.K[:, None, [0, 1], [0, 1]] + self.K[:, None, :2, 2]
        middle = (self.size_px - 1) / 2
        return np.asarray((uv - middle[:, None]) / (USUAL_FOCAL * self.size_px.max(axis=1))[:, None, None])


def join(sets: Sequence[PoseSet]) -> PoseSet:
    """Several sets of the same joints as one."""
    return PoseSet(
        sets[0].joints, *(np.concatenate([getattr(s, one.name) for s in sets]) for one in fields(PoseSet)[1:])
    )


def read_pose_set(path: Path) -> PoseSet:
    """The poses of a file or folder, by the first of LAYOUTS that it has.

    Raises:
        UserError: nothing there, or nothing that a layout knows.
    """
    for holds, read in LAYOUTS:
        if holds(path):
            return read(path)
    raise UserError(
        f"{path} holds no poses; give poses of `harvest studio poses`, an .npz of `harvest export training-set`, "
        "or a folder of crops"
    )


def _is_lifters(path: Path) -> bool:
    return path.suffix == ".npz" and path.is_file()


def _read_lifters(path: Path) -> PoseSet:
    """The .npz that `harvest export training-set` and `harvest studio poses` write (docs/formats.md)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
        joints = tuple(map(str, held["joints"])) if "joints" in held else load_skeleton("h36m17").joints
        seen, label = (held[key].astype(np.float64) for key in ("xy", "xy_exact" if "xy_exact" in held else "xy"))
        known = seen[..., 2] > 0
        xyz = np.where(held["S"][..., 3:] > 0, held["S"][..., :3], np.nan).astype(np.float64)
        n = len(seen)
        texts = [held[key].astype(np.str_) for key in ("subject", "action", "moment", "imgname")]
        K, size = held["K"].astype(np.float64), np.broadcast_to(held["size_px"], (n, 2)).astype(np.float64)
        xy, label = (np.where(those[..., 2:] > 0, those[..., :2], np.nan) for those in (seen, label))
        return PoseSet(joints, xy, label, np.where(known, seen[..., 2], 0.0), xyz, K, size, *texts)
    except (KeyError, ValueError, OSError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(
            f"{path} is no set of poses with cameras ({reason}); make it again with `harvest export training-set`"
        ) from None


def _is_crops(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.tar"))


def _read_crops(path: Path) -> PoseSet:
    """Labels of a folder of crops; pictures are not looked at."""
    rows, joints = list[tuple[object, ...]](), _all_names()
    for name, shard, files in files_of_samples(path):
        if "json" in files:
            label = json.loads(read_parts(shard, [files["json"]])[0])
            rows.append((*_of_crop(label, joints, shard), name))
    if not rows:
        raise UserError(f"{path} holds no crops with labels; make some with `harvest train crops --run`")
    return PoseSet(joints, *(np.array(part) for part in zip(*rows, strict=True)))


def _of_crop(label: dict[str, Any], joints: tuple[str, ...], shard: Path) -> tuple[object, ...]:
    """All of a crop that `PoseSet` tells of it but its name."""
    uv, xyz, camera, image_from_crop = pose_of_label(label, joints, shard)
    xy = camera.undistort(uv @ image_from_crop[:, :2].T + image_from_crop[:, 2])
    return xy, xy, np.isfinite(xy).all(axis=1).astype(float), xyz, camera.K, camera.size_px, *origin_of(label)


def _all_names() -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for one in ("mpii16", "h36m17", "coco17") for name in load_skeleton(one).joints))


LAYOUTS: list[tuple[Callable[[Path], bool], Callable[[Path], PoseSet]]] = [
    (_is_lifters, _read_lifters),
    (_is_crops, _read_crops),
]

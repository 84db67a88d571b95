"""Training samples of a 2D detector: crops of people and their joints; turned, scaled, mirrored."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from harvest.errors import UserError
from harvest.skeleton import load_skeleton

Floats = NDArray[np.float64]
CROP_PX = 256
LABEL_SETS = ("mpii16", "coco17", "h36m17")
TURN_SHARE, TURN_DEG, SCALE, SHIFT = 0.4, 30.0, 0.25, 0.06
Part = tuple[int, int]  # offset and size of a file in a shard


@dataclass(frozen=True)
class Place:
    """Where a sample lies: its name, unique in what one command makes; its shard, and picture and label in it."""

    name: str
    shard: Path
    picture: Part
    label: Part


def find_samples(folder: Path) -> list[Place]:
    """All samples of a folder of crops, in the order of their index.

    Raises:
        UserError: there is none.
    """
    places = [
        Place(name, shard, files["jpg"], files["json"])
        for name, shard, files in files_of_samples(folder)
        if {"jpg", "json"} <= files.keys()
    ]
    if not places:
        raise UserError(f"{folder} holds no crops; make some with `harvest studio crops --out {folder}`")
    return places


def files_of_samples(folder: Path) -> Iterator[tuple[str, Path, dict[str, Part]]]:
    """Of each sample in a folder of shards, in the order of their index: its name, which is what its files' names have
    before the first dot; its shard; and where its files lie, by what follows that in their names.
    """
    for shard in sorted(folder.glob("*.tar")):
        samples: dict[str, dict[str, Part]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                index, _, kind = member.name.partition(".")
                samples.setdefault(index, {})[kind] = member.offset_data, member.size
        for index, files in samples.items():
            yield index, shard, files


def read_parts(shard: Path, parts: Sequence[Part]) -> list[bytes]:
    """What some files of a shard hold."""
    with shard.open("rb") as file:
        return [_part(file, *part) for part in parts]


def decode_picture(content: bytes, shard: Path, command: str = "crops") -> NDArray[np.uint8]:
    """A picture (H, W, 3) RGB out of a shard that `harvest studio COMMAND` made.

    Raises:
        UserError: it is broken.
    """
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if found is None:
        raise UserError(f"{shard} holds a broken picture; delete it and run `harvest studio {command}` again")
    return np.ascontiguousarray(found[..., ::-1], np.uint8)


def read_files(place: Place) -> tuple[NDArray[np.uint8], bytes]:
    """Picture (256, 256, 3) RGB, and the label as it stands.

    Raises:
        UserError: the picture is broken.
    """
    picture, label = read_parts(place.shard, (place.picture, place.label))
    return decode_picture(picture, place.shard), label


def read_sample(place: Place, joints: Sequence[str]) -> tuple[NDArray[np.uint8], Floats, NDArray[np.int8]]:
    """Picture (256, 256, 3) RGB, joints uv (J, 2) in its pixels, NaN where unknown, and their visibility (J,).

    A joint is taken from the first set of the label that has it, in the order of `LABEL_SETS`; a set that is none of
    them brings its own names.
    """
    found, label = read_files(place)
    return found, *_in_picture(json.loads(label)["joints"], joints)


def read_joints(place: Place, joints: Sequence[str]) -> Floats:
    """Joints uv (J, 2) as `read_sample` gives them, without looking at the picture."""
    (label,) = read_parts(place.shard, (place.label,))
    return _in_picture(json.loads(label)["joints"], joints)[0]


def _in_picture(sets: Mapping[str, Mapping[str, Any]], joints: Sequence[str]) -> tuple[Floats, NDArray[np.int8]]:
    uv, visibility = np.full((len(joints), 2), np.nan), np.zeros(len(joints), np.int8)
    for index, (name, row) in enumerate(rows_of(joints, sets)):
        if name and sets[name]["uv_px"][row] is not None:
            uv[index], visibility[index] = sets[name]["uv_px"][row], sets[name]["visibility"][row]
    return uv, visibility


@dataclass(frozen=True)
class PoseSample:
    """A crop (256, 256, 3) with joints uv_px (J, 2) in it and xyz_m (J, 3) in its camera's frame, NaN where unknown;
    and where it was cut: pixels of the camera's picture by image_from_crop (2, 3).
    """

    picture: NDArray[np.uint8]
    uv_px: Floats
    xyz_m: Floats
    camera: Camera
    image_from_crop: Floats


def read_pose(place: Place, joints: Sequence[str]) -> PoseSample:
    """A sample with what is known of it in space.

    Raises:
        UserError: it was made by a version that wrote no camera.
    """
    picture, text = read_files(place)
    return PoseSample(picture, *pose_of_label(json.loads(text), joints, place.shard))


def pose_of_label(
    label: Mapping[str, Any], joints: Sequence[str], shard: Path
) -> tuple[Floats, Floats, Camera, Floats]:
    """Of a label out of a shard: joints uv_px (J, 2) and xyz_m (J, 3), camera and image_from_crop, as `PoseSample`.

    Raises:
        UserError: it was made by a version that wrote no camera.
    """
    sets = label["joints"]
    uv, _ = _in_picture(sets, joints)
    xyz = np.full((len(joints), 3), np.nan)
    for index, (name, row) in enumerate(rows_of(joints, sets)):
        if name and (known := sets[name].get("xyz_cam_m")) and known[row] is not None:
            xyz[index] = known[row]
    if "camera" not in label:
        raise UserError(f"{shard} tells no cameras; make it again with `harvest export` or `harvest studio crops`")
    affine = np.array(label.get("image_from_crop", np.eye(3)[:2]), np.float64)
    return uv, xyz, Camera(**label["camera"]), affine


def origin_of(label: Mapping[str, Any]) -> tuple[str, str, str]:
    """Of a crop's label: who is seen, doing what, and the moment, which pictures share that show the same pose.

    Empty where the label does not say.
    """
    who = str(label.get("subject", label.get("character", "")))
    action = str(label.get("take", label.get("clip", "")))
    return who, action, f"{who}-{action}-{label['frame']}" if "frame" in label else ""


def rows_of(joints: Sequence[str], sets: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """For each joint the first set of a label that gives it, and its row there; ("", 0) if none does."""
    return _rows(
        tuple(joints),
        tuple((name, tuple(those["names"]) if "names" in those else None) for name, those in sets.items()),
    )


@cache
def _rows(
    joints: tuple[str, ...], given: tuple[tuple[str, tuple[str, ...] | None], ...]
) -> tuple[tuple[str, int], ...]:
    own = {name: names for name, names in given if names is not None}
    sets = {name: load_skeleton(name).joints for name in LABEL_SETS if (name, None) in given} | own
    found = [next((name for name, those in sets.items() if joint in those), "") for joint in joints]
    return tuple((name, sets[name].index(joint) if name else 0) for joint, name in zip(joints, found, strict=True))


def _part(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    content: bytes = file.read(size)
    return content


def augmentation(rng: np.random.Generator) -> tuple[Floats, bool]:
    """(2, 3) from a crop's pixels to those of a turned, scaled and shifted one; and whether that is mirrored last."""
    turn = np.radians(np.clip(rng.normal(0, TURN_DEG), -2 * TURN_DEG, 2 * TURN_DEG)) * (rng.random() < TURN_SHARE)
    scale = np.clip(rng.normal(1, SCALE), 1 - 2 * SCALE, 1 + 2 * SCALE)
    middle, shift = (CROP_PX - 1) / 2, rng.normal(0, SHIFT, 2) * CROP_PX
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, middle + shift - linear @ [middle, middle]]), bool(rng.random() < 0.5)


def augment(
    picture: NDArray[np.uint8], uv: Floats, mirror: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Floats]:
    """A picture and its joints (J, 2 or more) after a random augmentation: the first two columns, pixels, move with the
    picture; light changes, and joints change places by `mirror`.

    What comes in from outside the crop is black, or repeats the border.
    """
    return augmented(augmentation(rng), picture, uv, mirror, rng)


def augmented(
    how: tuple[Floats, bool],
    picture: NDArray[np.uint8],
    uv: Floats,
    mirror: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], Floats]:
    """What `augment` gives, with an `augmentation` that is known; border and light are still drawn."""
    affine, mirrored = how
    border = int(rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT]))
    out = cv2.warpAffine(picture, affine, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=border)
    moved = uv.copy()
    moved[:, :2] = uv[:, :2] @ affine[:, :2].T + affine[:, 2]
    if mirrored:
        out = out[:, ::-1]
        moved[:, 0] = CROP_PX - 1 - moved[:, 0]
        moved = moved[mirror]
    gain = np.exp(rng.normal(0, 0.12, 3))
    tone = np.clip(255 * (np.arange(256) / 255)[:, None] ** np.exp(rng.normal(0, 0.15)) * gain, 0, 255)
    return np.asarray(cv2.LUT(np.ascontiguousarray(out), tone.astype(np.uint8)[None]), np.uint8), moved

"""Training samples of several views: one person at one moment, seen by several calibrated cameras."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.rig import Rig, camera_from_entry
from harvest.errors import UserError
from harvest.learn.samples import (
    Part,
    Place,
    decode_picture,
    files_of_samples,
    find_samples,
    origin_of,
    pose_of_label,
    read_files,
    read_parts,
    rows_of,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MultiViewPlace:
    """Where a sample lies: its shard, and its views' pictures and its label in it."""

    shard: Path
    pictures: tuple[Part, ...]
    label: Part


Moment = MultiViewPlace | tuple[Place, ...]  # one person at one moment: a multi-view sample, or crops of one frame


@dataclass(frozen=True)
class SeenView:
    """A crop (256, 256, 3) uint8 RGB with joints uv_px (J, 2) in it, NaN where unknown or outside; the camera, which
    stands nowhere in particular; and where the crop was cut: pixels of its picture by image_from_crop (2, 3).
    """

    picture: NDArray[np.uint8]
    uv_px: Floats
    camera: Camera
    image_from_crop: Floats


@dataclass(frozen=True)
class MultiViewSample:
    """One person in V views: pictures (V, 256, 256, 3) uint8 RGB; the rig of the cameras whose whole pictures they are,
    distortion and all; joints xyz_m (J, 3) in the world, NaN where unknown; visibility (V, J) int8, 0 outside the
    picture or unknown, 1 hidden, 2 visible.
    """

    pictures: NDArray[np.uint8]
    rig: Rig
    xyz_m: Floats
    visibility: NDArray[np.int8]


def find_multiviews(folder: Path) -> list[MultiViewPlace]:
    """All samples of a folder of multi-view samples, in the order of their index.

    Raises:
        UserError: there is none.
    """
    places = []
    for _, shard, files in files_of_samples(folder):
        pictures = [files[f"{view}.jpg"] for view in range(len(files)) if f"{view}.jpg" in files]
        if pictures and "json" in files:
            places.append(MultiViewPlace(shard, tuple(pictures), files["json"]))
    if not places:
        raise UserError(f"{folder} holds no multi-view samples; make some with `harvest studio views --out {folder}`")
    return places


def find_moments(folder: Path, views: int) -> list[Moment]:
    """All moments that at least so many views show: of multi-view samples, or of crops of a run, of one frame each.

    Raises:
        UserError: there is none.
    """
    found: list[Moment] = []
    if any({"json", "0.jpg"} <= files.keys() for _, _, files in files_of_samples(folder)):
        found += [place for place in find_multiviews(folder) if len(place.pictures) >= views]
    else:
        by_moment: dict[str, list[Place]] = {}
        for place in find_samples(folder):
            (label,) = read_parts(place.shard, (place.label,))
            by_moment.setdefault(origin_of(json.loads(label))[2], []).append(place)
        found += [tuple(places) for moment, places in by_moment.items() if moment and len(places) >= views]
    if not found:
        raise UserError(f"{folder} shows no moment in {views} views; make some with `harvest studio views`")
    return found


def read_views(moment: Moment, joints: Sequence[str], chosen: Sequence[int]) -> list[SeenView]:
    """Some views of a moment, with joints as `read_sample` takes them. Neither where cameras stand nor joints in space
    are looked at.

    Raises:
        UserError: a picture is broken, or a label tells no camera.
    """
    if isinstance(moment, MultiViewPlace):
        *jpgs, label = read_parts(moment.shard, (*(moment.pictures[view] for view in chosen), moment.label))
        truth = json.loads(label)
        return [
            SeenView(
                decode_picture(jpg, moment.shard, "views"),
                _uv_of(truth["joints"], joints, view),
                camera_from_entry(truth["cameras"][view] | _NOWHERE),
                np.eye(3)[:2],
            )
            for jpg, view in zip(jpgs, chosen, strict=True)
        ]
    found = []
    for view in chosen:
        place = moment[view]
        picture, text = read_files(place)
        label = json.loads(text)
        camera = {"camera": label["camera"] | _NOWHERE} if "camera" in label else {}
        uv, _, seen_by, affine = pose_of_label(label | camera, joints, place.shard)
        found.append(SeenView(picture, uv, seen_by, affine))
    return found


_NOWHERE = {"R_cam_from_world": np.eye(3).tolist(), "t_cam_from_world_m": [0.0, 0.0, 0.0]}


def _uv_of(sets: Mapping[str, Any], joints: Sequence[str], view: int) -> Floats:
    """(J, 2) joints in the pixels of a view of a multi-view label."""
    uv = np.full((len(joints), 2), np.nan)
    for index, (name, row) in enumerate(rows_of(joints, sets)):
        if name and (known := sets[name]["views"][view]["uv_px"][row]) is not None:
            uv[index] = known
    return uv


def read_multiview(place: MultiViewPlace, joints: Sequence[str]) -> MultiViewSample:
    """A sample with these joints, each taken from the first set of the label that has it, as `read_sample` does.

    Raises:
        UserError: a picture is broken, or there are more or fewer than the label's cameras.
    """
    *jpgs, label = read_parts(place.shard, (*place.pictures, place.label))
    truth = json.loads(label)
    sets, views = truth["joints"], len(truth["cameras"])
    if len(jpgs) != views:
        raise UserError(
            f"a sample in {place.shard} has {len(jpgs)} pictures of {views} cameras; delete it and run "
            "`harvest studio views` again"
        )
    pictures = np.stack([decode_picture(jpg, place.shard, "views") for jpg in jpgs])
    rig = Rig(tuple(camera_from_entry(entry) for entry in truth["cameras"]))
    xyz, visibility = np.full((len(joints), 3), np.nan), np.zeros((views, len(joints)), np.int8)
    for index, (name, row) in enumerate(rows_of(joints, sets)):
        if name and sets[name]["xyz_m"][row] is not None:
            xyz[index] = sets[name]["xyz_m"][row]
            visibility[:, index] = [view["visibility"][row] for view in sets[name]["views"]]
    return MultiViewSample(pictures, rig, xyz, visibility)

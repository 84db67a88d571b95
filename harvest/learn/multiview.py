"""Training samples of learnable triangulation: one person at one moment, seen by several calibrated cameras."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig, camera_from_entry
from harvest.errors import UserError
from harvest.learn.samples import Part, decode_picture, files_of_samples, read_parts, rows_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MultiViewPlace:
    """Where a sample lies: its shard, and its views' pictures and its label in it."""

    shard: Path
    pictures: tuple[Part, ...]
    label: Part


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

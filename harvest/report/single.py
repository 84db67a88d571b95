"""A picture of 3D poses that single pictures gave: the crop with its joints, and the pose from two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.report.overlays import side_of

Floats = NDArray[np.floating]
COLOURS = {"left": "#0072b2", "right": "#c46a00", "middle": "#6b7480"}
REACH_M = 1.1


@dataclass(frozen=True)
class Shown:
    """A crop (S, S, 3) with joints uv_px (J, 2) in it and xyz_m (J, 3) in its camera's frame, NaN where unknown."""

    title: str
    picture: NDArray[np.uint8]
    uv_px: Floats
    xyz_m: Floats


def draw_poses(rows: Sequence[Shown], joints: Sequence[str], limbs: NDArray[np.int64], out: Path) -> None:
    """Write a PNG with a row for each: the crop, the pose as the camera sees it, and from a side.

    Args:
        joints: their names, of which those on the left begin with l_. limbs: (L, 2) places of the ends of lines.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row, (flat, front, side) in zip(rows, axes, strict=True):
        flat.imshow(row.picture)
        flat.set_title(row.title, fontsize=9)
        flat.axis("off")
        _limbs(flat, row.uv_px, joints, limbs)
        # Not the mean, which a face's joints pull up until feet are cut off.
        middle = (np.nanmin(row.xyz_m, axis=0) + np.nanmax(row.xyz_m, axis=0)) / 2
        away = row.xyz_m - middle
        for axis, across, name in ((front, away[:, 0], "from the camera, m"), (side, away[:, 2], "from a side, m")):
            _limbs(axis, np.column_stack([across, -away[:, 1]]), joints, limbs)
            axis.set(xlim=(-REACH_M, REACH_M), ylim=(-REACH_M, REACH_M), aspect="equal")
            axis.set_title(name, fontsize=9)
            axis.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


def _limbs(axis: Any, points: Floats, joints: Sequence[str], limbs: NDArray[np.int64]) -> None:
    for joint, parent in limbs:
        axis.plot(*points[[joint, parent]].T, color=COLOURS[side_of(joints[joint])], linewidth=2)

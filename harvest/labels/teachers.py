"""What may teach a detector about footage: its own maps, or what all views together say; all of it, or the surest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from harvest.errors import UserError
from harvest.labels.make import make_labels
from harvest.types import LabelSet, Poses3D, Selection

TEACHERS = ("ps+sel", "ps", "hm+sel", "hm")
KEPT_BY_HEAT = 0.7


@dataclass(frozen=True)
class Evidence:
    """What a finished run knows.

    peaks_px (T, V, J, 2) and heat (T, V, J): where each view's own map is highest, NaN and 0 where it has none, and how
    high. seen (T, V, J), shown (T, V): as `make_labels` takes them.
    """

    rig: Rig
    poses: Poses3D
    selection: Selection
    peaks_px: NDArray[np.floating]
    heat: NDArray[np.floating]
    seen: NDArray[np.bool_]
    shown: NDArray[np.bool_]


def labels_by(teacher: str, run: Evidence, origin: dict[str, str]) -> LabelSet:
    """Labels of a run by one of TEACHERS.

    'ps+sel': projections of the 3D joints that the run kept; 'ps': of all that it found. 'hm': the place where each
    view's own map is highest; 'hm+sel': where it is also among the KEPT_BY_HEAT highest of its joint. The latter two
    have no 3D joints behind them (xyz_cam_m is NaN), weigh by the heat, and count every joint as seen.

    Raises:
        UserError: an unknown teacher.
    Source: Pavlakos et al. 2017, section 4.4 and table 4, whose names these are.
    """
    if teacher not in TEACHERS:
        raise UserError(f"no labels '{teacher}'; choose one of {', '.join(TEACHERS)}")
    if teacher.startswith("ps"):
        found = np.asarray(run.poses.found)
        everything = Selection(found, np.where(found, "", "not found").astype(object))
        chosen = run.selection if teacher == "ps+sel" else everything
        return make_labels(run.rig, run.poses, chosen, run.seen, run.shown, origin)
    own = np.isfinite(run.peaks_px).all(axis=3) & run.shown[..., None]
    return _own_labels(run, own if teacher == "hm" else own & highest(run.heat, own, KEPT_BY_HEAT), origin)


def highest(heat: NDArray[np.floating], among: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """(T, V, J) the share of each joint's places, over all frames and views, of the highest heat among some."""
    keep = np.zeros(among.shape, np.bool_)
    for joint in range(among.shape[2]):
        rows = np.flatnonzero(among[..., joint])
        order = rows[np.argsort(-heat[..., joint].ravel()[rows], kind="stable")]
        one = np.zeros(among[..., joint].size, np.bool_)
        one[order[: math.ceil(share * len(order) - 1e-9)]] = True
        keep[..., joint] = one.reshape(among.shape[:2])
    return keep


def _own_labels(run: Evidence, labelled: NDArray[np.bool_], origin: dict[str, str]) -> LabelSet:
    rows = labelled.any(axis=2)
    frame, view = np.nonzero(rows)
    return LabelSet(
        frame=run.poses.frames[frame],
        view=view.astype(np.int64),
        views=run.rig.names,
        joints=run.poses.joints,
        uv_px=np.where(labelled[..., None], run.peaks_px, np.nan)[rows],
        visibility=np.where(labelled, 2, 0)[rows].astype(np.int64),
        weight=np.where(labelled, np.clip(run.heat, 0, 1), 0.0)[rows],
        xyz_cam_m=np.full((*labelled[rows].shape, 3), np.nan),
        origin=origin,
    )

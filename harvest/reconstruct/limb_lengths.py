"""Limb lengths of this person, from the footage itself: robust medians, tied between sides, shrunk to proportions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.skeleton import Skeleton

Floats = NDArray[np.float64]
USUAL_HEIGHT_M = 1.72
PRIOR_FRAMES = 10.0  # how many good frames the typical proportions count for
PROPORTION_SPREAD = 0.10  # how far people's proportions lie from the typical ones, as a share
NEEDED_LIMBS = 4
LEAST_HEIGHT_M = 0.2


@dataclass(frozen=True)
class LimbLengths:
    """length_m (J,) from each joint to its parent, NaN at the root; slack_m (J,) how far it may vary; height_m, the
    height that explains the lengths best; n_frames (J,) how many frames each was measured in (0: from proportions).
    """

    length_m: Floats
    slack_m: Floats
    height_m: float
    n_frames: NDArray[np.int64]


def typical_lengths(skeleton: Skeleton, height_m: float = USUAL_HEIGHT_M) -> LimbLengths:
    """Lengths by proportion alone, for a person of that height."""
    slack = np.array([0.0 if p < 0 else skeleton.limb_of(j).slack for j, p in enumerate(skeleton.parents)])
    n = np.zeros(len(skeleton.joints), np.int64)
    return LimbLengths(skeleton.shares * height_m, slack * height_m, height_m, n)


def estimate_limb_lengths(skeleton: Skeleton, xyz_m: Floats) -> LimbLengths:
    """Lengths from triangulated joints (T, J, 3), NaN where unknown.

    Each limb's median length over frames; the same limb of the other side counts as more frames of it. The height is
    the median over limbs of length over share. A limb measured in n frames weighs n against PRIOR_FRAMES for its
    typical proportion, after lengths further than three PROPORTION_SPREADs from it have been brought back to there.

    Raises:
        UserError: fewer than four limbs could be measured at all.
    """
    measured = np.full(len(skeleton.joints), np.nan)
    frames = np.zeros(len(skeleton.joints), np.int64)
    per_frame = np.full((len(xyz_m), len(skeleton.joints)), np.nan)
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0:
            per_frame[:, joint] = np.linalg.norm(xyz_m[:, joint] - xyz_m[:, parent], axis=1)
    for joint, parent in enumerate(skeleton.parents):
        if parent < 0:
            continue
        twin = int(skeleton.mirror[joint])
        tied = twin != joint and skeleton.parents[twin] == skeleton.mirror[parent]
        values = per_frame[:, [joint, twin] if tied else [joint]]
        values = values[np.isfinite(values)]
        frames[joint] = values.size
        measured[joint] = np.median(values) if values.size else np.nan
    known = np.isfinite(measured) & (skeleton.shares > 0)
    if known.sum() < min(NEEDED_LIMBS, len(skeleton.joints) - 1):
        raise UserError(
            f"limb lengths need triangulated joints, but only {known.sum()} limbs were seen by two views that agree; "
            "check the rig (`harvest rig check`) and the boxes, or give --height"
        )
    height = float(np.median(measured[known] / skeleton.shares[known]))
    if height < LEAST_HEIGHT_M:
        raise UserError(
            f"triangulated joints make a body of {height:.2f} m: the detector puts all in one place, or the rig is "
            "not in metres; look at its maps, check the rig (`harvest rig check`), or give --height"
        )
    typical = typical_lengths(skeleton, height)
    ratio = np.clip(measured / typical.length_m, 1 - 3 * PROPORTION_SPREAD, 1 + 3 * PROPORTION_SPREAD)
    weight = frames / (frames + PRIOR_FRAMES)
    length = typical.length_m * np.where(known, weight * np.nan_to_num(ratio) + (1 - weight), 1.0)
    return LimbLengths(length, typical.slack_m, height, frames)

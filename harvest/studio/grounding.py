"""Feet on the floor: recorded motion on another body floats, sinks and slides a little; here it is set right.

Only the root is moved, so that no limb bends otherwise than it was recorded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d

from harvest.studio.people import Person
from harvest.studio.raster import bounds

Floats = NDArray[np.float64]
STANCE_S = 0.8  # within so long everybody touches the floor, jumpers too
STEP_S, FLIGHT_M = 0.2, 0.06
SMOOTH_S = 0.1
LEAST_STANCE = 0.4  # sum of both feet's shares in standing from which sliding is undone whole
SINK_M = 0.01  # that a sole may press into the floor
NEAR_M, SLOW_M_S = 0.05, 0.5  # a foot that is lower and slower than this stands, and should not move
SOLES = ("toe3-1.L", "toe3-1.R")


def grounded(person: Person, turns: Floats, root_m: Floats, rate: float) -> Floats:
    """(T, 3) where to put a person's root, metres, so that it stands on z = 0 and standing feet do not slide.

    Args:
        turns: (T, B, 3, 3) of the bones; root_m: (T, 3) as recorded; rate: frames a second.
    Height: the lowest point of the clothed body within STEP_S touches the floor, unless it rises above its surroundings
    by more than FLIGHT_M, as in a jump; then that within STANCE_S does. None sinks deeper than SINK_M.
    Sliding: while a foot stands, the root goes against its velocity; of two standing feet, against their mean.
    """
    still = root_m + _against_sliding(person, turns, root_m, rate)
    pose = person.body.pose(turns, still)
    low = np.array([float(bounds(person.mesh.placed(one).vertices)[0][2]) for one in pose.transforms])
    smooth = max(SMOOTH_S * rate, 1.0)
    long, short = (minimum_filter1d(low, 2 * max(round(s * rate / 2), 1) + 1) for s in (STANCE_S, STEP_S))
    floor = gaussian_filter1d(np.where(short - long < FLIGHT_M, short, long), smooth)
    needed = np.maximum(0.0, floor - low - SINK_M)
    lifted = gaussian_filter1d(maximum_filter1d(needed, 2 * max(round(smooth), 1) + 1), smooth)
    still[:, 2] += np.maximum(lifted, needed) - floor
    return still


def _against_sliding(person: Person, turns: Floats, root_m: Floats, rate: float) -> Floats:
    """(T, 3) horizontal metres to move the root by."""
    if len(turns) < 3:
        return np.zeros_like(root_m)
    soles = [person.body.model.bone(name) for name in SOLES]
    place = person.body.pose(turns, root_m).heads_m[:, soles]
    height = place[:, :, 2] - minimum_filter1d(place[:, :, 2].min(axis=1), 2 * round(STANCE_S * rate / 2) + 1)[:, None]
    velocity = np.gradient(place[:, :, :2], axis=0) * rate
    speed = np.linalg.norm(velocity, axis=-1)
    stands = np.exp(-((np.maximum(height, 0) / NEAR_M) ** 2) - (speed / SLOW_M_S) ** 2)
    against = -(stands[..., None] * velocity).sum(axis=1) / np.maximum(stands.sum(axis=1), LEAST_STANCE)[:, None]
    against = gaussian_filter1d(against, max(0.03 * rate, 0.5), axis=0)
    out = np.zeros_like(root_m)
    out[:, :2] = np.cumsum(against, axis=0) / rate
    return out

"""The limb prior as a table over squared voxel distances, shared by every body of `limb_message`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shell:
    """Weight of a limb by the squared distance of its ends in voxels: `weights[d2 - lowest]`, zero beyond the table.

    `interval` says that all weights are one, which bodies may use.
    """

    lowest: int
    weights: NDArray[np.float32]
    interval: bool

    @property
    def highest(self) -> int:
        """Largest squared distance with a weight."""
        return self.lowest + self.weights.size - 1

    @property
    def reach(self) -> int:
        """Largest offset along one axis that the shell can span, voxels."""
        return math.isqrt(max(self.highest, 0))


def interval_shell(length_vox: float, tolerance_vox: float) -> Shell:
    """The shell of limbs whose length differs by at most the tolerance from `length_vox`.

    Raises:
        ValueError: no distance between voxel centres lies in the interval.
    Source: Pavlakos et al. 2017, eq. 2, with both ends of the interval included.
    """
    slack = 1e-9  # lengths that equal a bound but for rounding lie inside
    lowest = math.ceil(max(length_vox - tolerance_vox, 0.0) ** 2 - slack)
    highest = math.floor((length_vox + tolerance_vox) ** 2 + slack)
    if highest < lowest:
        raise ValueError(f"no voxel distance lies in {length_vox} +- {tolerance_vox}; widen the tolerance")
    return Shell(lowest, np.ones(highest - lowest + 1, np.float32), True)


def gaussian_shell(length_vox: float, sigma_vox: float, cut: float = 4.0) -> Shell:
    """The shell whose weight is a Gaussian in the limb's length, cut at `cut` standard deviations."""
    lowest = math.ceil(max(length_vox - cut * sigma_vox, 0.0) ** 2)
    highest = math.floor((length_vox + cut * sigma_vox) ** 2)
    if highest < lowest:
        raise ValueError(f"no voxel distance lies within {cut} sigma of {length_vox} +- {sigma_vox}; widen sigma")
    distance = np.sqrt(np.arange(lowest, highest + 1))
    return Shell(lowest, np.exp(-0.5 * ((distance - length_vox) / sigma_vox) ** 2).astype(np.float32), False)

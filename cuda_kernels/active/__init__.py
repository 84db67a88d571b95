"""Dense likelihood -> the voxels of each joint that matter, and what is left out of each block of voxels."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import numba_, reference_

BODIES: dict[str, Callable[..., Any]] = {"reference": reference_.split, "numba": numba_.split}
BLOCK = 8
peaks = numba_.peaks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ActiveVoxels:
    """What pruning keeps and what it drops, per joint.

    voxels[j] (N_j, 3) int16 and value[j] (N_j,) float64: kept voxels and their likelihood over the joint's peak.
    dropped (J, B, B, B) float64: likelihood over peak summed over what was dropped of each block of BLOCK^3 voxels.
    peak (J,) float64: largest likelihood of the joint; 0 where there is none at all (then nothing is kept).
    """

    voxels: list[NDArray[np.int16]]
    value: list[Floats]
    dropped: Floats
    peak: Floats


def blocks_a_side(n: int) -> int:
    """Number of blocks along one side of a grid of n voxels; the last one may stand over."""
    return (n + BLOCK - 1) // BLOCK


def split_by_likelihood(
    likelihood: NDArray[np.floating], peak: Floats, cut: Floats, backend: str = "numba"
) -> ActiveVoxels:
    """The voxels whose likelihood is at least their block's `cut` times the largest of their joint.

    Thresholds are rounded to the likelihood's own precision; numbers too small to be normal ones count as zero.

    Args:
        likelihood: (n, n, n, J) from `unproject`, non-negative. peak: (J,) largest of each joint, from `peaks`.
        cut: (J, B, B, B) in [0, 1], one for each joint and block of BLOCK^3 voxels.
    Raises:
        ValueError: cuts of the wrong shape or outside [0, 1], or an unknown backend.
    """
    n, joints = likelihood.shape[0], likelihood.shape[3]
    if cut.shape != (joints,) + (blocks_a_side(n),) * 3 or not (0 <= cut.min() and cut.max() <= 1):
        raise ValueError(
            f"cut must have shape {(joints,) + (blocks_a_side(n),) * 3} and lie in [0, 1], got {cut.shape}"
        )
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")
    starts, voxels, value, dropped = BODIES[backend](likelihood, peak, cut, BLOCK)
    parts = list(pairwise(starts.tolist()))
    return ActiveVoxels([voxels[a:b] for a, b in parts], [value[a:b] for a, b in parts], dropped, peak)

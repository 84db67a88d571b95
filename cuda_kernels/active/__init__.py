"""Dense likelihood -> the voxels of each joint that matter, and what is left out of each block of voxels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import numba_, reference_

BODIES = {"reference": reference_.split, "numba": numba_.split}
BLOCK = 8

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


def split_by_likelihood(likelihood: NDArray[np.floating], cut: float, backend: str = "numba") -> ActiveVoxels:
    """The voxels whose likelihood is at least `cut` times the largest of their joint; all positive ones for cut = 0.

    Args:
        likelihood: (n, n, n, J) from `unproject`, non-negative.
    Raises:
        ValueError: a cut outside [0, 1], or an unknown backend.
    """
    if not 0 <= cut <= 1:
        raise ValueError(f"cut must lie in [0, 1], got {cut}")
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")
    peak = numba_.peaks(likelihood)
    starts, voxels, value, dropped = BODIES[backend](likelihood, peak, cut, BLOCK)
    parts = list(zip(starts[:-1], starts[1:], strict=True))
    return ActiveVoxels([voxels[a:b] for a, b in parts], [value[a:b] for a, b in parts], dropped, peak)

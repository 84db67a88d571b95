"""Dense likelihood -> the voxels of each joint that matter, and what is left out of each block of voxels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import numba_, reference_
from cuda_kernels.memory import Memory

BODIES: dict[str, Callable[..., Any]] = {"reference": reference_.split, "numba": numba_.split}
BLOCK = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ActiveVoxels:
    """What pruning keeps and what it drops.

    place (N,) int32 and value (N,) float64: flat indices (x * n + y) * n + z of kept voxels, and their likelihood
    over the joint's peak; joint j has the rows starts[j] .. starts[j + 1] - 1. dropped (J, B, B, B) float64:
    likelihood over peak summed over what was dropped of each block of BLOCK^3 voxels, or a bound that is not below
    it. peak (J,) float64: largest likelihood of the joint; 0 where there is none at all (then nothing is kept).
    """

    starts: NDArray[np.int64]
    place: NDArray[np.int32]
    value: Floats
    dropped: Floats
    peak: Floats

    @property
    def counts(self) -> NDArray[np.int64]:
        """(J,) number of voxels that each joint keeps."""
        return np.diff(self.starts)

    def rows(self, joint: int) -> slice:
        """The rows of one joint."""
        return slice(int(self.starts[joint]), int(self.starts[joint + 1]))


@lru_cache(maxsize=2)
def _all_places(joints: int, n: int) -> NDArray[np.int32]:
    place = np.tile(np.arange(n**3, dtype=np.int32), joints)
    place.setflags(write=False)
    return place


def all_voxels(likelihood: NDArray[np.floating], memory: Memory | None = None) -> ActiveVoxels:
    """Every voxel for every joint, in the order of the grid, also those of likelihood zero; values in `memory`."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    value = (memory or Memory()).array("value", joints * n**3)
    peak = numba_.by_joint(likelihood, value.reshape(joints, n, n, n))
    starts, dropped = np.arange(joints + 1) * n**3, np.zeros((joints,) + (blocks_a_side(n),) * 3)
    return ActiveVoxels(starts, _all_places(joints, n), value, dropped, peak)


def blocks_a_side(n: int) -> int:
    """Number of blocks along one side of a grid of n voxels; the last one may stand over."""
    return (n + BLOCK - 1) // BLOCK


def check_cut(cut: Floats, joints: int, n: int) -> None:
    """Raise ValueError unless `cut` has a number, not negative, for each joint and block."""
    shape = (joints,) + (blocks_a_side(n),) * 3
    if cut.shape != shape or not cut.min() >= 0:
        raise ValueError(f"cut must have shape {shape} and be non-negative, got {cut.shape}")


def split_by_likelihood(likelihood: NDArray[np.floating], cut: Floats, backend: str = "numba") -> ActiveVoxels:
    """The voxels whose likelihood is at least their block's `cut` times the largest of their joint.

    Thresholds are rounded to the likelihood's own precision; numbers too small to be normal ones count as zero.

    Args:
        likelihood: (n, n, n, J) from `unproject`, non-negative.
        cut: (J, B, B, B), one for each joint and block of BLOCK^3 voxels; above 1 nothing is kept.
    Raises:
        ValueError: cuts of the wrong shape or negative, or an unknown backend.
    """
    check_cut(cut, likelihood.shape[3], likelihood.shape[0])
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")
    return ActiveVoxels(*BODIES[backend](likelihood, cut, BLOCK))

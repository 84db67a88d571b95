"""Messages and marginals over active voxels -> how much any voxel that was left out can weigh, block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import BLOCK, ActiveVoxels
from cuda_kernels.block_bound import numba_, reference_
from cuda_kernels.gpu import gpu_body
from cuda_kernels.sum_product import Marginals
from cuda_kernels.tree import Tree

BODIES: dict[str, Callable[..., NDArray[np.float64]]] = {
    "reference": reference_.weight_bound,
    "numba": numba_.weight_bound,
    "cuda": gpu_body("cuda_kernels.block_bound.cuda_", "weight_bound"),
}


def weight_bound(
    tree: Tree, active: ActiveVoxels, marginals: Marginals, n: int, backend: str = "numba"
) -> NDArray[np.float64]:
    """(J, B, B, B) upper bounds on the probability of a voxel per unit of its likelihood over the joint's peak.

    Times `active.dropped`, a bound on the probability that the joint lies on a dropped voxel of the block; the sum of
    all those bounds the total-variation distance between every marginal and the one without pruning, because the two
    differ only by poses with some joint on a dropped voxel.

    Write every likelihood as kept + dropped. Along each edge two bounds travel beside the message, constant on blocks:
    M >= the message of kept beliefs at any voxel of the block, and D >= what dropped likelihood adds to it. A block's
    mass reaches another if any two of their voxels can be one limb apart. Kept voxels gain at most likelihood *
    (prod(m + D) - prod(m)), dropped ones weigh at most dropped * prod(M + D). What is returned is prod(M + D) over the
    kept partition function, a lower bound of the whole one. Rounding adds about 1e-6 of the value.

    Raises:
        ValueError: an unknown backend.
    """
    if backend not in BODIES:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BODIES)}")
    return BODIES[backend](tree, active, marginals, n, BLOCK)

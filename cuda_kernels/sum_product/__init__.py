"""Exact inference on a tree of joints over active voxels: all messages, both ways, and every joint's marginal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import ActiveVoxels
from cuda_kernels.gpu import gpu_body
from cuda_kernels.memory import Memory
from cuda_kernels.sum_product import numba_, reference_
from cuda_kernels.tree import Tree

Floats = NDArray[np.float64]
BACKENDS = ("reference", "numba", "cuda")

_on_gpu = gpu_body("cuda_kernels.sum_product.cuda_", "sum_product")


@dataclass(frozen=True)
class Marginals:
    """Messages and marginals of one tree over one set of active voxels.

    up[c] (N_parent,): what joint c tells its parent, at the parent's voxels; down[c] (N_c,): what the parent tells c,
    at c's voxels; the root's are empty. Both scaled so that their largest value is 1; up_scale, down_scale (J,):
    natural logarithm of what each was divided by, messages that went into it included. marginal (N,) float64, rows as
    those of the voxels: each joint's sums to 1.
    log_evidence: log of the sum over all configurations of all factors, likelihoods taken relative to their peaks.
    """

    up: list[Floats]
    down: list[Floats]
    up_scale: Floats
    down_scale: Floats
    marginal: Floats
    log_evidence: float

    def towards(self, tree: Tree, joint: int) -> list[tuple[Floats, float]]:
        """The messages to a joint with their scales, children's first, in the order of `tree.neighbours`."""
        told = [(self.up[child], float(self.up_scale[child])) for child in tree.children(joint)]
        if tree.parents[joint] >= 0:
            told.append((self.down[joint], float(self.down_scale[joint])))
        return told


def sum_product(
    tree: Tree,
    active: ActiveVoxels,
    n: int,
    backend: str = "numba",
    count_twice: bool = False,
    memory: Memory | None = None,
) -> Marginals | None:
    """Messages from the leaves to the root and back, and the marginals; None where no configuration has any weight.

    Each message leaves out what its receiver said before (exact belief propagation, unlike the published demo).

    Args:
        tree: J joints; active: their voxels on a grid of n a side.
        count_twice: repeat the public demo's mistake: on the way down a message holds what its receiver said before, so
            that a joint's own evidence counts twice. Done message by message, each by the backend.
        memory: where the fast body writes its results, so that they last until it is used again; new memory if None.
    Raises:
        ValueError: a tree and voxels of different numbers of joints, an unknown backend.
    Source: Pavlakos et al. 2017, section 3.2; Pearl 1988 for the algorithm.
    """
    if len(tree.parents) != len(active.counts):
        raise ValueError(f"a tree of {len(tree.parents)} joints and voxels of {len(active.counts)} do not fit")
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BACKENDS)}")
    if (active.counts == 0).any():
        return None
    if backend == "reference" or count_twice:
        found = reference_.sum_product(tree, active, n, count_twice, backend)
    elif backend == "cuda":
        found = _on_gpu(tree, active, n)
    else:
        found = numba_.sum_product(tree, active, n, memory or Memory())
    return None if found is None else Marginals(*found)

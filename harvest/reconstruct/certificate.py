"""How far marginals over active voxels can be from those over the whole grid: an upper bound, from the run itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import BLOCK
from cuda_kernels.block_bound import belief_by_block, reached_by_block
from harvest.reconstruct.sum_product import SumProduct

Floats = NDArray[np.float64]


def missed_by_block(run: SumProduct) -> Floats:
    """(J, B, B, B) upper bounds on the probability that a joint lies on a dropped voxel of that block.

    Their sum bounds the total-variation distance between every marginal of `run` and the one without pruning, because
    the two differ only by poses with some joint on a dropped voxel.

    Write every likelihood as kept + dropped. Along each edge two bounds travel beside the message, constant on blocks:
    M >= the message of kept beliefs at any voxel of the block, and D >= what dropped likelihood adds to it. A block's
    mass reaches another if any two of their voxels can be one limb apart. Kept voxels gain at most likelihood *
    (prod(m + D) - prod(m)), dropped ones weigh at most dropped * prod(M + D); over the kept partition function, a lower
    bound of the whole one, the latter is what is returned. Rounding adds about 1e-6 of the value.
    """
    bounds = _Bounds(run)
    order = list(run.tree.order)
    upward = [(joint, int(run.tree.parents[joint])) for joint in reversed(order[1:])]
    for sender, receiver in upward + [(parent, child) for child, parent in reversed(upward)]:
        bounds.send(sender, receiver)
    missed = np.empty_like(run.active.dropped)
    for joint in range(len(order)):
        kept, _, outside = bounds.by_block(joint, None)
        missed[joint] = outside / kept.sum()
    return missed


class _Bounds:
    """The two block-wise bounds (2, B, B, B) of every message of a run, M then D, in that run's units."""

    def __init__(self, run: SumProduct) -> None:
        self.run = run
        self.bound: dict[tuple[int, int], Floats] = {}

    def by_block(self, joint: int, but: int | None) -> tuple[Floats, Floats, Floats]:
        """Kept belief of a joint towards a neighbour, its gain, and the weight of what was dropped, per block."""
        active, edges = self.run.active, [(k, joint) for k in self.run.neighbours(joint) if k != but]
        shape = active.dropped.shape[1:]
        message = np.array([self.run.message[edge] for edge in edges]).reshape(len(edges), len(active.value[joint]))
        bound = np.array([self.bound[edge] for edge in edges]).reshape(len(edges), 2, *shape)
        terms: tuple[Floats, Floats, Floats] = belief_by_block(
            active.value[joint], active.voxels[joint], message, bound[:, 1], bound[:, 0], active.dropped[joint], BLOCK
        )
        return terms

    def send(self, sender: int, receiver: int) -> None:
        kept, gain, outside = self.by_block(sender, receiver)
        shell = self.run.tree.shell(sender, receiver)
        edge = sender, receiver
        inputs = sum(self.run.log_scale[k, sender] for k in self.run.neighbours(sender) if k != receiver)
        top = np.exp(self.run.log_scale[edge] - inputs)
        reached = reached_by_block(np.stack([kept, gain + outside]), shell, BLOCK)
        self.bound[edge] = reached * (float(shell.weights.max()) / top)

"""How far marginals over active voxels can be from those over the whole grid: an upper bound, from the run itself."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import BLOCK
from harvest.reconstruct.sum_product import SumProduct

Floats = NDArray[np.float64]


def total_variation_bound(run: SumProduct) -> Floats:
    """(J,) upper bounds on the total-variation distance between `run.marginal` and the marginals without pruning.

    Write every likelihood as kept + dropped. Along each edge two bounds travel beside the message, constant on blocks
    of voxels: M >= the message of kept beliefs at any voxel of the block, and D >= what dropped likelihood adds to it.
    A block's mass reaches another block if any two of their voxels can be one limb apart. At a joint, kept voxels gain
    at most likelihood * (prod(m + D) - prod(m)), dropped ones hold at most dropped * prod(M + D); their sum over the
    kept partition function bounds the distance. Rounding adds about 1e-6 of the value itself.
    """
    bounds = _Bounds(run)
    order = list(run.tree.order)
    upward = [(joint, int(run.tree.parents[joint])) for joint in reversed(order[1:])]
    for sender, receiver in upward + [(parent, child) for child, parent in reversed(upward)]:
        bounds.send(sender, receiver)
    return np.array([bounds.extra(joint, None)[1].sum() / bounds.kept_mass(joint) for joint in range(len(order))])


class _Bounds:
    """The two block-wise bounds of every message of a run, in the units of that run's messages."""

    def __init__(self, run: SumProduct) -> None:
        self.run = run
        self.blocks = run.active.dropped.shape[1]
        self.block_of = [_block_index(voxels, self.blocks) for voxels in run.active.voxels]
        self.kept: dict[tuple[int, int], Floats] = {}
        self.added: dict[tuple[int, int], Floats] = {}

    def kept_mass(self, joint: int) -> float:
        return float(self.run.belief(joint)[0].sum())

    def extra(self, joint: int, but: int | None) -> tuple[Floats, Floats, float]:
        """Per block: kept belief of a joint towards a neighbour, what dropped likelihood can add; log of their scale."""
        run, where = self.run, self.block_of[joint]
        kept, log_scale = run.belief(joint, but)
        raised = run.active.value[joint].copy()
        dropped = run.active.dropped[joint].ravel().copy()
        for neighbour in run.neighbours(joint):
            if neighbour != but:
                edge = neighbour, joint
                raised *= run.message[edge] + self.added[edge][where]
                dropped *= self.kept[edge] + self.added[edge]
        gain = np.bincount(where, weights=np.maximum(raised - kept, 0.0), minlength=self.blocks**3)
        return np.bincount(where, weights=kept, minlength=self.blocks**3), gain + dropped, log_scale

    def send(self, sender: int, receiver: int) -> None:
        kept, added, log_scale = self.extra(sender, receiver)
        shell = self.run.tree.shell(sender, receiver)
        edge = sender, receiver
        top = np.exp(self.run.log_scale[edge] - log_scale)
        reached = _reach(shell.lowest, shell.highest, self.blocks) @ np.stack([kept, added], 1)
        reached *= float(shell.weights.max()) / top
        self.kept[edge], self.added[edge] = reached[:, 0], reached[:, 1]


def _block_index(voxels: NDArray[np.int16], blocks: int) -> NDArray[np.int64]:
    block = voxels.astype(np.int64) // BLOCK
    return (block[:, 0] * blocks + block[:, 1]) * blocks + block[:, 2]


@lru_cache(maxsize=64)
def _reach(lowest: int, highest: int, blocks: int) -> Floats:
    """(B^3, B^3) one where some voxels of two blocks have a squared distance within the bounds, else zero."""
    axis = np.abs(np.arange(blocks)[:, None] - np.arange(blocks)[None, :])
    nearest = np.maximum((axis - 1) * BLOCK + 1, 0) ** 2
    farthest = ((axis + 1) * BLOCK - 1) ** 2

    def over_axes(square: NDArray[np.int64]) -> NDArray[np.int64]:
        total = (
            square[:, None, None, :, None, None]
            + square[None, :, None, None, :, None]
            + square[None, None, :, None, None, :]
        )
        return total.reshape(blocks**3, blocks**3)

    return ((over_axes(nearest) <= highest) & (over_axes(farthest) >= lowest)).astype(np.float64)

"""The definition of the bounds on blocks, edge by edge."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def weight_bound(tree, active, marginals, n, block) -> Floats:  # type: ignore[no-untyped-def]
    """See the contract in the folder's `__init__`."""
    bound: dict[tuple[int, int], tuple[Floats, Floats]] = {}

    def terms(joint: int, but: int | None) -> tuple[Floats, Floats, Floats, float]:
        """Kept belief and its gain per block, the most that likelihood 1 can weigh there, log scale of all inputs."""
        where = tuple(np.array(np.unravel_index(active.place[active.rows(joint)], (n, n, n))) // block)
        low, high = active.value[active.rows(joint)].copy(), active.value[active.rows(joint)].copy()
        most, inputs = np.ones(active.dropped.shape[1:]), 0.0
        for neighbour, (message, scale) in zip(tree.neighbours(joint), marginals.towards(tree, joint), strict=True):
            if neighbour != but:
                of_kept, added = bound[neighbour, joint]
                low, high = low * message, high * (message + added[where])
                most, inputs = most * (of_kept + added), inputs + scale
        kept, gain = np.zeros(most.shape), np.zeros(most.shape)
        np.add.at(kept, where, low)
        np.add.at(gain, where, high - low)
        return kept, gain, most, inputs

    order = list(tree.order)
    upward = [(joint, int(tree.parents[joint])) for joint in reversed(order[1:])]
    for sender, receiver in upward + [(parent, child) for child, parent in reversed(upward)]:
        kept, gain, most, inputs = terms(sender, receiver)
        up = tree.parents[sender] == receiver
        scale = marginals.up_scale[sender] if up else marginals.down_scale[receiver]
        shell = tree.shell(sender, receiver)
        factor = float(shell.weights.max()) * np.exp(inputs - scale)
        added = gain + active.dropped[sender] * most
        bound[sender, receiver] = _reached(kept, shell, block) * factor, _reached(added, shell, block) * factor
    out = np.empty_like(active.dropped)
    for joint in range(len(order)):
        kept, _, most, _ = terms(joint, None)
        out[joint] = most / kept.sum()
    return out


def _reached(mass: Floats, shell: Any, block: int) -> Floats:
    """(B, B, B): for each block, the mass of all blocks that hold a voxel one limb away from one of its own."""
    out = np.zeros(mass.shape)
    for a, b in itertools.product(np.ndindex(mass.shape), repeat=2):
        away = np.abs(np.subtract(a, b))
        near, far = np.maximum((away - 1) * block + 1, 0), (away + 1) * block - 1
        if (near**2).sum() <= shell.highest and (far**2).sum() >= shell.lowest:
            out[a] += mass[b]
    return out

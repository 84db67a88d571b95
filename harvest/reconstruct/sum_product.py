"""Exact inference on a tree of joints over a voxel grid: beliefs, messages, marginals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.active import ActiveVoxels
from cuda_kernels.limb_message import limb_message, predicted_seconds
from cuda_kernels.shell import Shell

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tree:
    """The limbs of a skeleton as arrays: parents (J,) with -1 at the root, an order in which parents come first, and
    for every joint but the root the shell of the limb to its parent.
    """

    parents: NDArray[np.int64]
    order: Sequence[int]
    shells: Sequence[Shell | None]

    def children(self, joint: int) -> list[int]:
        """Indices of the joint's children."""
        return [int(child) for child in np.flatnonzero(self.parents == joint)]

    def shell(self, a: int, b: int) -> Shell:
        """The shell of the limb between two neighbours."""
        shell = self.shells[a if self.parents[a] == b else b]
        if shell is None:
            raise ValueError(f"joints {a} and {b} are no neighbours")
        return shell


@dataclass
class SumProduct:
    """All messages and marginals of one tree over one set of active voxels.

    message[(a, b)] (N_b,) float64: what neighbour a tells joint b, scaled so that its largest value is 1;
    log_scale[(a, b)]: natural logarithm of what it was divided by. marginal[j] (N_j,) sums to 1.
    log_evidence: log of the sum over all configurations of all factors, likelihoods taken relative to their peaks;
    -inf where no configuration of the active voxels satisfies every limb. count_twice repeats the public demo's
    mistake: on the way down a message holds what its receiver said before, so a joint's own evidence counts twice.
    """

    tree: Tree
    active: ActiveVoxels
    n: int
    backend: str = "numba"
    count_twice: bool = False
    message: dict[tuple[int, int], Floats] = field(default_factory=dict)
    log_scale: dict[tuple[int, int], float] = field(default_factory=dict)
    marginal: list[Floats] = field(default_factory=list)
    log_evidence: float = -np.inf

    def neighbours(self, joint: int) -> list[int]:
        """Indices of the joints that a limb ties to this one."""
        parent = int(self.tree.parents[joint])
        return self.tree.children(joint) + ([parent] if parent >= 0 else [])

    def belief(self, joint: int, but: int | None = None) -> tuple[Floats, float]:
        """A joint's likelihood times all messages to it, but for one neighbour's: values (N,), log of their scale."""
        value, log_scale = self.active.value[joint].copy(), 0.0
        for neighbour in self.neighbours(joint):
            if neighbour != but:
                value *= self.message[neighbour, joint]
                log_scale += self.log_scale[neighbour, joint]
        return value, log_scale

    def predicted_seconds(self) -> float:
        """What all messages are predicted to cost, by the voxels at hand."""
        kept = [len(voxels) for voxels in self.active.voxels]
        total = 0.0
        for joint, parent in enumerate(self.tree.parents):
            if parent >= 0:
                shell = self.tree.shell(joint, int(parent))
                total += 2 * min(predicted_seconds(kept[joint], kept[parent], shell, self.n).values())
        return total

    def _send(self, sender: int, receiver: int) -> bool:
        downward = self.tree.parents[receiver] == sender
        value, log_scale = self.belief(sender, but=None if self.count_twice and downward else receiver)
        voxels, shell = self.active.voxels, self.tree.shell(sender, receiver)
        message = limb_message(value, voxels[sender], voxels[receiver], shell, self.n, self.backend)
        top = float(message.max(initial=0.0))
        if not top > 0:
            return False
        self.message[sender, receiver] = message / top
        self.log_scale[sender, receiver] = log_scale + float(np.log(top))
        return True

    def run(self) -> bool:
        """Pass messages from the leaves to the root and back; False where no configuration has any weight.

        Each message leaves out what its receiver said before (exact belief propagation, unlike the published demo).
        Source: Pavlakos et al. 2017, section 3.2; Pearl 1988 for the algorithm.
        """
        if any(len(voxels) == 0 for voxels in self.active.voxels):
            return False
        order = list(self.tree.order)
        upward = [(joint, int(self.tree.parents[joint])) for joint in reversed(order[1:])]
        for sender, receiver in upward + [(parent, child) for child, parent in reversed(upward)]:
            if not self._send(sender, receiver):
                return False
        self.marginal = []
        for joint in range(len(order)):
            value, log_scale = self.belief(joint)
            total = float(value.sum())
            if not total > 0:
                return False
            self.marginal.append(value / total)
            if joint == order[0]:
                self.log_evidence = log_scale + float(np.log(total))
        return True

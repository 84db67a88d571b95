"""A skeleton as kernels see it: who hangs on whom, and the shell of every limb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.limb_message.transform_ import spectrum
from cuda_kernels.shell import Shell


class PackedTree(NamedTuple):
    """A tree in arrays for compiled code; shells by the limb's child, those of the root unused.

    weights: all shells' weights one after the other, each with a zero at either end, from weight_start[child] on.
    """

    parents: NDArray[np.int64]
    order: NDArray[np.int64]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]
    interval: NDArray[np.bool_]
    heaviest: NDArray[np.float64]
    weight_start: NDArray[np.int64]
    weights: NDArray[np.float32]


class Spectra(NamedTuple):
    """The spectra of all limbs in arrays for compiled code, by the limb's child: see `transform_.Spectrum`."""

    quarter: NDArray[np.int64]
    eigenvalue_start: NDArray[np.int64]
    eigenvalues: NDArray[np.float64]
    matrix_start: NDArray[np.int64]
    matrices: NDArray[np.float64]


@dataclass(frozen=True)
class Tree:
    """The limbs of a skeleton: parents (J,) with -1 at the root, an order in which parents come first, and for every
    joint but the root the shell of the limb to its parent.
    """

    parents: NDArray[np.int64]
    order: Sequence[int]
    shells: Sequence[Shell | None]

    def children(self, joint: int) -> list[int]:
        """Indices of the joint's children."""
        return [int(child) for child in np.flatnonzero(self.parents == joint)]

    def neighbours(self, joint: int) -> list[int]:
        """Indices of the joints that a limb ties to this one."""
        parent = int(self.parents[joint])
        return self.children(joint) + ([parent] if parent >= 0 else [])

    def shell(self, a: int, b: int) -> Shell:
        """The shell of the limb between two neighbours.

        Raises:
            ValueError: they are no neighbours.
        """
        shell = self.shells[a if self.parents[a] == b else b]
        if shell is None or (self.parents[a] != b and self.parents[b] != a):
            raise ValueError(f"joints {a} and {b} are no neighbours")
        return shell

    @property
    def limbs(self) -> list[tuple[int, int, Shell]]:
        """Child, parent and shell of every limb."""
        return [(c, int(self.parents[c]), shell) for c, shell in enumerate(self.shells) if shell is not None]

    def spectra(self, n: int) -> Spectra:
        """The shells ready for convolution on a grid of n voxels a side; computed once."""
        kept: dict[int, Spectra] = self.__dict__.setdefault("_spectra", {})
        if n not in kept:
            quarter = np.zeros(len(self.parents), np.int64)
            eigenvalues: list[NDArray[np.float64]] = [np.zeros(0)] * quarter.size
            matrices = list(eigenvalues)
            for child, _, shell in self.limbs:
                quarter[child], eigenvalues[child], matrices[child] = spectrum(shell, n)
            starts = [np.cumsum([0] + [part.size for part in parts]) for parts in (eigenvalues, matrices)]
            kept[n] = Spectra(quarter, starts[0], np.concatenate(eigenvalues), starts[1], np.concatenate(matrices))
        return kept[n]

    @cached_property
    def packed(self) -> PackedTree:
        """The same in arrays."""
        joints = len(self.parents)
        lowest, highest, start = (np.zeros(joints, np.int64) for _ in range(3))
        interval, heaviest = np.ones(joints, np.bool_), np.zeros(joints)
        weights: list[NDArray[np.float32]] = []
        for child, _, shell in self.limbs:
            lowest[child], highest[child], interval[child] = shell.lowest, shell.highest, shell.interval
            heaviest[child], start[child] = float(shell.weights.max()), sum(w.size for w in weights)
            weights.append(np.pad(shell.weights, 1))
        joined = np.concatenate(weights) if weights else np.zeros(0, np.float32)
        parents, order = np.asarray(self.parents, np.int64), np.asarray(self.order, np.int64)
        return PackedTree(parents, order, lowest, highest, interval, heaviest, start, joined)

"""Short filters with fewer products: m outputs of r taps from n = m + r - 1 of them, in exact arithmetic.

Two polynomials, of m and of r coefficients, are multiplied by their values at n points, the last of which is infinity.
What is linear in that, transposed, is a filter: `outputs @ ((taps @ g) * (inputs @ x))` are m outputs of taps g,
exactly.

Source: Toom 1963 and Cook 1966; Winograd 1980, "Arithmetic Complexity of Computations"; for networks Lavin & Gray 2016.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import NamedTuple

from cuda_kernels.convolve3d.linear_map import Matrix


class Filter(NamedTuple):
    """The three matrices: inputs (n, n), taps (n, r), outputs (m, n)."""

    m: int
    r: int
    inputs: Matrix
    taps: Matrix
    outputs: Matrix

    @property
    def n(self) -> int:
        """How many inputs, and products."""
        return len(self.inputs)


def toom_cook(m: int, r: int, points: tuple[Fraction | int, ...]) -> Filter:
    """The filter by values at these points and at infinity.

    Rows of `inputs` are the coefficients, lowest first, of the polynomial with a root at every other point, and of the
    one with roots at all of them; both are monic.

    Raises:
        ValueError: not m + r - 2 different points.
    """
    n = m + r - 1
    if len(set(points)) != len(points) or len(points) != n - 1:
        raise ValueError(f"{m} outputs of {r} taps need {n - 1} different points, got {len(points)}: {points}")
    inputs, taps, outputs = [], [], []
    for point in points:
        others = [other for other in points if other != point]
        inputs.append([*_with_roots(others), Fraction(0)])
        taps.append([Fraction(point) ** k / prod(point - other for other in others) for k in range(r)])
        outputs.append([Fraction(point) ** k for k in range(m)])
    inputs.append(_with_roots(list(points)))
    taps.append([Fraction(k == r - 1) for k in range(r)])
    outputs.append([Fraction(k == m - 1) for k in range(m)])
    return Filter(m, r, inputs, taps, [list(row) for row in zip(*outputs, strict=True)])


def _with_roots(roots: list[Fraction | int]) -> list[Fraction]:
    """Coefficients, lowest first, of the monic polynomial with these roots."""
    found = [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found

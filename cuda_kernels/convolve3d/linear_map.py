"""The instructions for the product of a matrix of fractions with vectors, few of them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils

Matrix = list[list[Fraction]]
# On AMD's processors, measured on Zen 3, a fused product and sum holds up the stores that these maps are full of: 10
# cycles for a line of 6 vectors, 7 with products and sums apart.
_FUSED = not llvmlite.binding.get_host_cpu_name().startswith("znver")


def mapped(builder: Any, matrix: Matrix, vectors: list[Any]) -> list[Any]:
    """What a matrix makes of vectors.

    Columns, and then rows, that differ in some signs only, as those of points p and -p do, share their work.
    """
    matrix, vectors = [list(row) for row in matrix], list(vectors)
    for i, j in _twins([list(column) for column in zip(*matrix, strict=True)]):
        vectors[i], vectors[j] = builder.fadd(vectors[i], vectors[j]), builder.fsub(vectors[i], vectors[j])
        for row in matrix:
            row[i], row[j] = (row[i], Fraction(0)) if row[i] == row[j] else (Fraction(0), row[i])
    found: list[Any] = [None] * len(matrix)
    for i, j in _twins(matrix):
        alike = [a if a == b else Fraction(0) for a, b in zip(matrix[i], matrix[j], strict=True)]
        apart = [a if a != b else Fraction(0) for a, b in zip(matrix[i], matrix[j], strict=True)]
        (scale, even), (factor, odd) = _dot(builder, alike, vectors), _dot(builder, apart, vectors)
        even = _scaled(builder, even, scale)
        found[i], found[j] = (_plus(builder, even, odd, sign * factor) for sign in (1, -1))
    for i, row in enumerate(matrix):
        if found[i] is None:
            scale, total = _dot(builder, row, vectors)
            found[i] = _scaled(builder, total, scale)
    return found


def _twins(rows: Matrix) -> list[tuple[int, int]]:
    """Pairs of rows that differ in some signs, but not in all."""
    pairs: list[tuple[int, int]] = []
    for j, row in enumerate(rows):
        for i in range(j):
            alike = {a == b for a, b in zip(rows[i], row, strict=True) if a}
            same_sizes = [abs(a) for a in rows[i]] == [abs(b) for b in row]
            if same_sizes and len(alike) > 1 and not any(i in pair or j in pair for pair in pairs):
                pairs.append((i, j))
    return pairs


def _dot(builder: Any, factors: list[Fraction], vectors: list[Any]) -> tuple[Fraction, Any]:
    """A factor, and what it has to be multiplied by to be the sum of factors times vectors."""
    terms = [(factor, vector) for factor, vector in zip(factors, vectors, strict=True) if factor]
    lead = next((place for place, (factor, _) in enumerate(terms) if factor == 1), len(terms) - 1)
    scale, total = terms.pop(lead)
    for factor, vector in terms:
        total = _plus(builder, total, vector, factor / scale)
    return scale, total


def _plus(builder: Any, one: Any, other: Any, factor: Fraction) -> Any:
    """The sum of one vector and a factor times the other."""
    if abs(factor) == 1:
        return builder.fadd(one, other) if factor == 1 else builder.fsub(one, other)
    if not _FUSED:
        return builder.fadd(one, _scaled(builder, other, factor))
    kind = ir.FunctionType(one.type, [one.type] * 3)
    multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{one.type.count}f32")
    return builder.call(multiply_add, [other, _constant(one.type, factor), one])


def _scaled(builder: Any, vector: Any, factor: Fraction) -> Any:
    return vector if factor == 1 else builder.fmul(vector, _constant(vector.type, factor))


def _constant(vector: Any, factor: Fraction) -> Any:
    return ir.Constant(vector, [float(factor)] * vector.count)

"""What this machine can do at most, measured: multiply-adds of each width, and bytes copied."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SUMS, ROUNDS = 12, 2_000_000  # sums side by side: enough to hide the time that one multiply-add takes
VECTOR_BYTES = 64


def _make(kind: Any, lanes: int) -> Any:
    @intrinsic
    def multiply_adds(typing_context, rounds, factor):  # type: ignore[no-untyped-def]
        """Code for SUMS chains of `rounds` multiply-adds of one vector each; returns their sum, so that they happen."""

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            rounds, factor = arguments
            vector = ir.VectorType(kind, lanes)
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), factor, ir.Constant(ir.IntType(32), 0))
            lane = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            by = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lane)
            sums = [cgutils.alloca_once_value(builder, by) for _ in range(SUMS)]
            with cgutils.for_range(builder, rounds):
                for each in sums:
                    product = builder.fmul(builder.load(each), by, flags=["contract"])
                    builder.store(builder.fadd(product, by, flags=["contract"]), each)
            total = builder.load(sums[0])
            for each in sums[1:]:
                total = builder.fadd(total, builder.load(each))
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        scalar = types.float32 if lanes == VECTOR_BYTES // 4 else types.float64
        return scalar(types.intp, scalar), emit

    return multiply_adds


_singles, _doubles = _make(ir.FloatType(), 16), _make(ir.DoubleType(), 8)


@numba.njit(nogil=True)
def _run_singles(rounds, factor):  # type: ignore[no-untyped-def]
    return _singles(rounds, factor)


@numba.njit(nogil=True)
def _run_doubles(rounds, factor):  # type: ignore[no-untyped-def]
    return _doubles(rounds, factor)


def _least_seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def gflops(double: bool) -> float:
    """10^9 operations a second of one core, a multiply-add counting as two."""
    lanes = 8 if double else 16
    run, factor = (_run_doubles, np.float64(0.5)) if double else (_run_singles, np.float32(0.5))
    return 2e-9 * SUMS * ROUNDS * lanes / _least_seconds(lambda: run(ROUNDS, factor))


def gigabytes(size: int) -> float:
    """10^9 bytes a second that one core reads and writes when it copies arrays of `size` bytes."""
    source, target = np.ones(size // 8), np.empty(size // 8)
    repeats = max(1, 2**26 // size)

    def copy() -> None:
        for _ in range(repeats):
            np.copyto(target, source)

    return 2e-9 * size * repeats / _least_seconds(copy)

"""Vector instruction sequences for `transform_.py`: matrix products whose sums stay in registers, and butterflies.

Arrays are float64, flat and contiguous; places and steps count vectors of `LANES` numbers unless they say otherwise.
Nothing is checked. The compiler does not find these sequences by itself, because it cannot tell arrays apart.
"""

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
# Rows and columns summed at a time, the fastest of those tried: 32 registers of 8 doubles hold 6 x 4 sums of LANES, 16
# of 4 doubles hold 4 x 1.
ROWS, COLUMNS = (6, 4) if llvmlite.binding.get_host_cpu_features().get("avx512f") else (4, 1)

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_PARITIES = (1, 2, 4)  # bits of a lane's number


def make_product(rows: int) -> Any:
    """An intrinsic for `rows` rows of the product of a square matrix with COLUMNS columns of vectors."""

    @intrinsic
    def product(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - one argument an operand
        typing_context, matrix, corner, size, source, at, step, target, start, down, across
    ):
        """Code for `target[start + r * down + c * across] = sum over k of matrix[k, r] * source[at + k * step + c]`.

        The matrix is `size` a side and its first wanted number lies at `corner`, counted in numbers. Each sum runs in
        the order of k, so that its bits depend on nothing else.
        """
        place = types.intp
        kinds = (matrix, place, place, source, place, place, target, place, place, place)
        return types.void(*kinds), lambda *code: _emit_product(rows, *code)

    return product


def _emit_product(rows: int, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    matrix, corner, size, source, at, step, target, start, down, across = arguments
    matrix_type, source_type, target_type = (signature.args[i] for i in (0, 3, 6))
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(COLUMNS)] for _ in range(rows)]
    with cgutils.for_range(builder, size) as loop:
        line = builder.add(at, builder.mul(loop.index, step))
        values = [_load(context, builder, source_type, source, _plus(builder, line, c)) for c in range(COLUMNS)]
        first = builder.add(corner, builder.mul(loop.index, size))
        for r in range(rows):
            number = builder.load(_address(context, builder, matrix_type, matrix, _plus(builder, first, r)))
            factor = _splat(builder, number)
            for c in range(COLUMNS):
                term = builder.fmul(factor, values[c], flags=["contract"])
                builder.store(builder.fadd(builder.load(sums[r][c]), term, flags=["contract"]), sums[r][c])
    for r in range(rows):
        for c in range(COLUMNS):
            to = builder.add(start, builder.mul(down, ir.Constant(down.type, r)))
            to = builder.add(to, builder.mul(across, ir.Constant(across.type, c)))
            _store(context, builder, builder.load(sums[r][c]), target_type, target, to)
    return context.get_dummy_value()


@intrinsic
def copy(typing_context, source, at, target, to):  # type: ignore[no-untyped-def]
    """Code for `target[to] = source[at]`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, at, target, to = arguments
        value = _load(context, builder, signature.args[0], source, at)
        _store(context, builder, value, signature.args[2], target, to)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), emit


@intrinsic
def add(typing_context, source, one, other, target, to):  # type: ignore[no-untyped-def]
    """Code for `target[to] = source[one] + source[other]`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, one, other, target, to = arguments
        pair = [_load(context, builder, signature.args[0], source, at) for at in (one, other)]
        _store(context, builder, builder.fadd(*pair), signature.args[3], target, to)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp), emit


@intrinsic
def butterfly(  # type: ignore[no-untyped-def]
    typing_context, source, one, other, target, to_sum, to_difference
):
    """Code for the sum and the difference of `source[one]` and `source[other]`, both read before either is written."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, one, other, target, to_sum, to_difference = arguments
        pair = [_load(context, builder, signature.args[0], source, at) for at in (one, other)]
        _store(context, builder, builder.fadd(*pair), signature.args[3], target, to_sum)
        _store(context, builder, builder.fsub(*pair), signature.args[3], target, to_difference)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), emit


@intrinsic
def multiply_flipped(typing_context, values, at, factors, index, flip):  # type: ignore[no-untyped-def]
    """Code for `values[at][lane] *= factors[index][lane ^ flip]` in every lane."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, at, factors, index, flip = arguments
        factor = _load(context, builder, signature.args[2], factors, index)
        for bit in _PARITIES:
            flipped = _pick(builder, factor, factor, [lane ^ bit for lane in range(LANES)])
            is_set = builder.trunc(builder.lshr(flip, ir.Constant(flip.type, bit.bit_length() - 1)), ir.IntType(1))
            factor = builder.select(is_set, flipped, factor)
        product = builder.fmul(_load(context, builder, signature.args[0], values, at), factor)
        _store(context, builder, product, signature.args[0], values, at)
        return context.get_dummy_value()

    return types.void(values, types.intp, factors, types.intp, types.intp), emit


@intrinsic
def split_parities(  # type: ignore[no-untyped-def]
    typing_context, rows, length, up, down, target, to
):
    """Code that turns four rows of numbers into LANES vectors of even and odd parts.

    Row i, `length` numbers long, is the first or second of a pair along x (bit 0 of i) and along y (bit 1). Along z,
    `up + k` and `down - k` are pairs. Their parts go to `target[to + k]`, where lanes are sums or differences of pairs
    along x, y and z by their bits 0, 1 and 2; differences along z have their sign changed at odd k.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, length, up, down, target, to = arguments
        upward, downward = _row_addresses(context, builder, signature.args[0], rows, (length, up, down))
        backwards = list(range(LANES))[::-1]
        pairs = [builder.load(address, align=8) for address in upward]
        pairs += [_pick(builder, v, v, backwards) for v in (builder.load(a, align=8) for a in downward)]
        parts = _transposed(builder, _alternated(builder, _butterflies(builder, pairs)))
        for k, part in enumerate(parts):
            _store(context, builder, part, signature.args[4], target, _plus(builder, to, k))
        return context.get_dummy_value()

    return types.void(rows, types.intp, types.intp, types.intp, target, types.intp), emit


@intrinsic
def join_parities(  # type: ignore[no-untyped-def]
    typing_context, source, at, rows, length, up, down
):
    """Code that turns LANES vectors of even and odd parts into four rows of numbers, see `split_parities`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, at, rows, length, up, down = arguments
        upward, downward = _row_addresses(context, builder, signature.args[2], rows, (length, up, down))
        parts = [_load(context, builder, signature.args[0], source, _plus(builder, at, k)) for k in range(LANES)]
        pairs = _butterflies(builder, _alternated(builder, _transposed(builder, parts)))
        for i in range(4):
            builder.store(pairs[i], upward[i], align=8)
            builder.store(_pick(builder, pairs[4 + i], pairs[4 + i], list(range(LANES))[::-1]), downward[i], align=8)
        return context.get_dummy_value()

    return types.void(source, types.intp, rows, types.intp, types.intp, types.intp), emit


def _row_addresses(context: Any, builder: Any, kind: Any, rows: Any, place: Any) -> Any:
    """Where vectors begin that hold up .. up + 7, and down - 7 .. down, of each of four rows."""
    length, up, down = place
    lowest = _plus(builder, down, 1 - LANES)
    begins = [builder.mul(length, ir.Constant(length.type, i)) for i in range(4)]

    def addresses(first: Any) -> Any:
        numbers = [_address(context, builder, kind, rows, builder.add(begin, first)) for begin in begins]
        return [builder.bitcast(number, _VECTOR.as_pointer()) for number in numbers]

    return addresses(up), addresses(lowest)


def _butterflies(builder: Any, vectors: Any) -> Any:
    """Sums and differences of vectors whose numbers differ in one bit, for every bit."""
    for bit in _PARITIES:
        steps = [builder.fsub if i & bit else builder.fadd for i in range(LANES)]
        vectors = [step(vectors[i & ~bit], vectors[i | bit]) for i, step in enumerate(steps)]
    return vectors


def _alternated(builder: Any, vectors: Any) -> Any:
    """The vectors, with every second number of the last four negated."""
    signs = ir.Constant(_VECTOR, [1.0, -1.0] * (LANES // 2))
    return vectors[:4] + [builder.fmul(vector, signs) for vector in vectors[4:]]


def _transposed(builder: Any, vectors: Any) -> Any:
    """Vectors whose lane i is lane k of vector i."""
    for bit in _PARITIES:
        low = [k if not k & bit else LANES + k - bit for k in range(LANES)]
        high = [k + bit if not k & bit else LANES + k for k in range(LANES)]
        vectors = [_pick(builder, vectors[i & ~bit], vectors[i | bit], high if i & bit else low) for i in range(LANES)]
    return vectors


def _pick(builder: Any, one: Any, other: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes))


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return _pick(builder, one, one, [0] * LANES)


def _plus(builder: Any, index: Any, constant: int) -> Any:
    return builder.add(index, ir.Constant(index.type, constant))


def _address(context: Any, builder: Any, kind: Any, array: Any, number: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [number])


def _vector_address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    number = builder.mul(index, ir.Constant(index.type, LANES))
    return builder.bitcast(_address(context, builder, kind, array, number), _VECTOR.as_pointer())


def _load(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return builder.load(_vector_address(context, builder, kind, array, index), align=8)


def _store(context: Any, builder: Any, vector: Any, kind: Any, array: Any, index: Any) -> None:
    builder.store(vector, _vector_address(context, builder, kind, array, index), align=8)

"""Vector instruction sequences for `numba_.py`: tiles to points and back, and products whose sums stay in registers.

Arrays are float32, flat and contiguous; places and steps count numbers; channels lie side by side and are a multiple of
`FEWEST`. Nothing is checked. The compiler does not find these sequences by itself: it cannot tell arrays apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cuda_kernels.convolve3d.linear_map import Matrix, mapped

FEWEST = 4
LINE = 16  # numbers in a line of the cache
LANES = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8  # of a register
WIDTHS = tuple(width for width in (32, 16, 8, 4) if width <= 2 * LANES)  # of a product; two registers at most
ROWS = 6  # of a product at most: 12 sums of a register each, which 16 registers hold and which hide their latency

_PLACE, _PLACE_3 = types.intp, types.UniTuple(types.intp, 3)
_AHEAD = 4  # voxels of a line that are fetched early


class Code:
    """A builder of instructions, in terms of pointers to numbers."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        """For an intrinsic's arguments."""
        self.builder, self.place = builder, ir.IntType(types.intp.bitwidth)  # type: ignore[attr-defined]
        self.arrays = {
            number: context.make_array(kind)(context, builder, argument)
            for number, (kind, argument) in enumerate(zip(signature.args, arguments, strict=True))
            if isinstance(kind, types.Array)
        }

    def data(self, *arguments: int) -> list[Any]:
        """Where these arguments, arrays, begin."""
        return [self.arrays[number].data for number in arguments]

    def length(self, argument: int) -> Any:
        """Of an array."""
        return self.builder.extract_value(self.arrays[argument].shape, 0)

    def times(self, place: Any, factor: Any) -> Any:
        """The product of two places."""
        return self.builder.mul(*(self.place(one) if isinstance(one, int) else one for one in (place, factor)))

    def plus(self, *places: Any) -> Any:
        """The sum of places."""
        total = self.place(0)
        for place in places:
            total = self.builder.add(total, self.place(place) if isinstance(place, int) else place)
        return total

    def moved(self, pointer: Any, *places: Any) -> Any:
        """A pointer that so many numbers further on."""
        return self.builder.gep(pointer, [self.plus(*places)])

    def spaced(self, pointer: Any, step: Any, count: int) -> list[Any]:
        """So many pointers, a step apart."""
        return [self.moved(pointer, self.times(step, i)) for i in range(count)]

    def room(self, numbers: int) -> Any:
        """A pointer to so many numbers on the stack."""
        array = cgutils.alloca_once(self.builder, ir.ArrayType(ir.FloatType(), numbers))
        array.align = 4 * LINE
        return self.builder.bitcast(array, ir.FloatType().as_pointer())

    def load(self, pointer: Any, width: int) -> Any:
        """The vector at a pointer."""
        return self.builder.load(self.builder.bitcast(pointer, _vector(width).as_pointer()), align=4)

    def store(self, vector: Any, pointer: Any) -> None:
        """Write a vector."""
        self.builder.store(vector, self.builder.bitcast(pointer, vector.type.as_pointer()), align=4)

    def zeros(self, numbers: int) -> Any:
        """A pointer to so many zeros on the stack."""
        room = self.room(numbers)
        self.store(ir.Constant(_vector(numbers), [0.0] * numbers), room)
        return room

    def prefetch(self, pointer: Any) -> None:
        """Have the line of the cache at a pointer, which may be anywhere, brought near."""
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        called = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0i8")
        to_read, to_be_kept, data = number(0), number(3), number(1)
        self.builder.call(called, [self.builder.bitcast(pointer, byte), to_read, to_be_kept, data])

    def splat(self, number: Any, width: int) -> Any:
        """A vector of equal numbers."""
        undefined = ir.Constant(_vector(width), ir.Undefined)
        one = self.builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def below(self, place: Any, bound: Any) -> Any:
        """Whether 0 <= place < bound."""
        return self.builder.icmp_unsigned("<", place, bound)

    @contextmanager
    def loop(self, stop: Any, start: Any = 0, step: int = 1) -> Iterator[Any]:
        """A loop over places."""
        start, stop = (self.place(one) if isinstance(one, int) else one for one in (start, stop))
        with cgutils.for_range_slice(self.builder, start, stop, self.place(step), intp=self.place) as (place, _):
            yield place

    def chunks(self, channels: Any) -> Iterator[tuple[int, Any]]:
        """Code for all channels: a loop over those of a line of the cache, then what is left, in vectors half as wide
        each.
        """
        begin, width = self.place(0), LINE
        while width >= FEWEST:
            end = self.builder.and_(channels, self.place(-width))
            with cgutils.for_range_slice(self.builder, begin, end, self.place(width), intp=self.place) as (c, _):
                yield width, c
            begin, width = end, width // 2

    def map(self, matrix: Matrix, sources: list[Any], targets: list[Any], width: int) -> None:
        """Write the product of a matrix with a line of vectors, which may lie in the same place."""
        for part in range(0, width, LANES):
            vectors = [self.load(self.moved(source, part), min(width, LANES)) for source in sources]
            for vector, target in zip(mapped(self.builder, matrix, vectors), targets, strict=True):
                self.store(vector, self.moved(target, part))


def make_enter(matrix: Matrix) -> Any:
    """An intrinsic that brings a tile of n^3 voxels to n^3 points by a matrix (n, n) along each axis."""

    @intrinsic
    def enter(typing_context, volume, first, shape, channels, target, to, step):  # type: ignore[no-untyped-def]  # noqa: PLR0913
        """Code for `target[to + point * step + c]`, all c, of the tile whose first voxel is `first` (d, h, w).

        `shape` is (D, H, W) of the volume; outside it voxels count as 0.
        """
        kinds = (volume, _PLACE_3, _PLACE_3, _PLACE, target, _PLACE, _PLACE)
        return types.void(*kinds), lambda *code: _emit_enter(matrix, *code)

    return enter


def _emit_enter(matrix: Matrix, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    code, n = Code(context, builder, signature, arguments), len(matrix)
    _, first, shape, channels, _, to, step = arguments
    (target,) = code.data(4)
    first, shape = (cgutils.unpack_tuple(builder, three) for three in (first, shape))
    last = [code.plus(place, n - 1) for place in first]
    whole = reduce(builder.and_, map(code.below, [*first, *last], [*shape, *shape]))
    for width, c in code.chunks(channels):
        room = code.room(n**3 * width)
        with builder.if_else(whole) as (inside, across):
            with inside:
                _enter_lines(code, matrix, room, (width, c), (first, shape), channels, False)
            with across:
                _enter_lines(code, matrix, room, (width, c), (first, shape), channels, True)
        with code.loop(n) as d, code.loop(n) as w:
            line = code.plus(code.times(d, n * n), w)
            line = code.spaced(code.moved(room, code.times(line, width)), n * width, n)
            code.map(matrix, line, line, width)
        with code.loop(n * n) as hw:
            line = code.spaced(code.moved(room, code.times(hw, width)), n * n * width, n)
            points = code.spaced(code.moved(target, to, c, code.times(hw, step)), code.times(step, n * n), n)
            code.map(matrix, line, points, width)
    return context.get_dummy_value()


def _enter_lines(
    code: Code, matrix: Matrix, room: Any, chunk: tuple[int, Any], place: tuple[Any, Any], channels: Any, across: bool
) -> None:
    """The first step of `enter`, along w, for a chunk of channels; `across`: whether voxels may lie outside."""
    (width, c), n, (volume,) = chunk, len(matrix), code.data(0)
    (z0, y0, x0), (deep, high, wide) = place
    nothing = code.zeros(LINE)
    with code.loop(n) as d, code.loop(n) as h:
        z, y = code.plus(z0, d), code.plus(y0, h)
        voxel = code.plus(code.times(code.plus(code.times(z, high), y), wide), x0)
        voxels = code.spaced(code.moved(volume, c, code.times(voxel, channels)), channels, n)
        for ahead in range(n, n + _AHEAD):  # of the next tile, which comes next
            code.prefetch(code.moved(voxels[0], code.times(channels, ahead)))
        if across:
            here = code.builder.and_(code.below(z, deep), code.below(y, high))
            for w, pointer in enumerate(voxels):
                inside = code.builder.and_(here, code.below(code.plus(x0, w), wide))
                voxels[w] = code.builder.select(inside, pointer, nothing)
        line = code.plus(code.times(d, n * n), code.times(h, n))
        code.map(matrix, voxels, code.spaced(code.moved(room, code.times(line, width)), width, n), width)


def make_leave(matrix: Matrix) -> Any:
    """An intrinsic that brings n^3 points back to a tile of m^3 voxels by a matrix (m, n) along each axis."""

    @intrinsic
    def leave(typing_context, source, at, step, bias, added, lowest, target, first, shape):  # type: ignore[no-untyped-def]  # noqa: PLR0913
        """Code for `target = max(lowest, tile + bias + added)` where the tile whose first voxel is `first` (d, h, w)
        lies in the volume of `shape` (D, H, W).

        Its points are `source[at + point * step + o]`. `bias` has a number for each channel; `added` is like the
        target, or empty. What is not a number stays so.
        """
        kinds = (source, _PLACE, _PLACE, bias, added, types.float32, target, _PLACE_3, _PLACE_3)
        return types.void(*kinds), lambda *code: _emit_leave(matrix, *code)

    return leave


def _emit_leave(matrix: Matrix, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    code, m, n = Code(context, builder, signature, arguments), len(matrix), len(matrix[0])
    _, at, step, _, _, lowest, _, first, shape = arguments
    source, bias = code.data(0, 3)
    outs = code.length(3)
    z0, y0, x0 = cgutils.unpack_tuple(builder, first)
    deep, high, wide = cgutils.unpack_tuple(builder, shape)
    for width, c in code.chunks(outs):
        room = code.room(m * n * n * width)
        with code.loop(n * n) as hw:
            points = code.spaced(code.moved(source, at, c, code.times(hw, step)), code.times(step, n * n), n)
            code.map(matrix, points, code.spaced(code.moved(room, code.times(hw, width)), n * n * width, m), width)
        with code.loop(m) as d, code.loop(n) as w:
            line = code.plus(code.times(d, n * n), w)
            line = code.spaced(code.moved(room, code.times(line, width)), n * width, n)
            code.map(matrix, line, line[:m], width)
        with code.loop(m) as d, code.loop(m) as h:
            z, y = code.plus(z0, d), code.plus(y0, h)
            with builder.if_then(builder.and_(code.below(z, deep), code.below(y, high))):
                line = code.plus(code.times(d, n * n), code.times(h, n))
                line = code.spaced(code.moved(room, code.times(line, width)), width, n)
                voxel = code.plus(code.times(code.plus(code.times(z, high), y), wide), x0)
                place = code.plus(c, code.times(voxel, outs))
                after = code.moved(bias, c), lowest
                _leave_line(code, matrix, line, width, after, (place, builder.sub(wide, x0)))
    return context.get_dummy_value()


def _leave_line(
    code: Code, matrix: Matrix, line: list[Any], width: int, after: tuple[Any, Any], into: tuple[Any, Any]
) -> None:
    """The last step of `leave`, along w, for a line of m voxels; into: where the first goes, how many there are."""
    builder, outs, (added, target) = code.builder, code.length(3), code.data(4, 6)
    (bias, lowest), (place, count) = after, into
    adds = builder.icmp_signed("!=", code.length(4), code.place(0))
    for part in range(0, width, LANES):
        wide = min(width, LANES)
        vectors = [code.load(code.moved(spot, part), wide) for spot in line]
        offset, least = code.load(code.moved(bias, part), wide), code.splat(lowest, wide)
        for w, found in enumerate(mapped(builder, matrix, vectors)):
            with builder.if_then(builder.icmp_signed("<", code.place(w), count)):
                to = code.plus(place, part, code.times(outs, w))
                total = cgutils.alloca_once(builder, found.type)
                builder.store(builder.fadd(found, offset), total)
                with builder.if_then(adds):
                    builder.store(builder.fadd(builder.load(total), code.load(code.moved(added, to), wide)), total)
                vector = builder.load(total)
                vector = builder.select(builder.fcmp_ordered("<", vector, least), least, vector)
                code.store(vector, code.moved(target, to))


@intrinsic
def fetch(typing_context, array, place, step, count, numbers):  # type: ignore[no-untyped-def]
    """Code that has `numbers` numbers at each of `count` places, a step apart, brought near."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, place, step, count, numbers = arguments
        first = code.moved(*code.data(0), place)
        with code.loop(count) as row, code.loop(numbers, step=LINE) as number:
            code.prefetch(code.moved(first, code.times(row, step), number))
        return context.get_dummy_value()

    return types.void(array, _PLACE, _PLACE, _PLACE, _PLACE), emit


@intrinsic
def multiply(typing_context, values, places, shifts, channels, weights, corner, width, target, to, step):  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """Code for `target[to + i * step + o] = sum of values[places[i] + shift + k] * weights[corner + o]`, for all places
    and for o below `width`, one of WIDTHS.

    The sum runs over all `shifts` and, for each, over k in `channels`, in this order; `corner` moves on by `width` with
    every term. places, shifts: intp.
    """
    kinds = (values, places, shifts, _PLACE, weights, _PLACE, _PLACE, target, _PLACE, _PLACE)
    return types.void(*kinds), _emit_multiply


def _emit_multiply(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    code, width = Code(context, builder, signature, arguments), arguments[6]
    count = code.length(1)
    # Groups of places whose sizes differ by one at most, the larger ones first.
    groups = builder.sdiv(code.plus(count, ROWS - 1), code.place(ROWS))
    size, larger = builder.sdiv(count, groups), builder.srem(count, groups)
    begin = code.times(larger, code.plus(size, 1))
    for wide in WIDTHS:
        with builder.if_then(builder.icmp_signed("==", width, code.place(wide))):
            for rows in range(1, ROWS + 1):
                with builder.if_then(builder.icmp_signed("==", size, code.place(rows - 1))):
                    with code.loop(begin, step=rows) as first:
                        _multiply(code, rows, wide, first, arguments)
                with builder.if_then(builder.icmp_signed("==", size, code.place(rows))):
                    with code.loop(count, begin, rows) as first:
                        _multiply(code, rows, wide, first, arguments)
    return context.get_dummy_value()


def _multiply(code: Code, rows: int, width: int, first: Any, arguments: Any) -> None:
    builder = code.builder
    _, _, _, channels, _, corner, _, _, to, step = arguments
    values, places, shifts, weights, target = code.data(0, 1, 2, 4, 7)
    sums = [cgutils.alloca_once(builder, _vector(width)) for _ in range(rows)]
    for total in sums:
        builder.store(ir.Constant(_vector(width), [0.0] * width), total)
    lines = [code.moved(values, builder.load(code.moved(places, first, r))) for r in range(rows)]
    with code.loop(code.length(2)) as part:
        shift = builder.load(code.moved(shifts, part))
        starts = [code.moved(line, shift) for line in lines]
        begin = code.moved(weights, corner, code.times(code.times(part, channels), width))
        with code.loop(channels, step=FEWEST) as channel:
            for k in (code.plus(channel, one) for one in range(FEWEST)):
                column = code.load(code.moved(begin, code.times(k, width)), width)
                for start, total in zip(starts, sums, strict=True):
                    factor = code.splat(builder.load(code.moved(start, k)), width)
                    term = builder.fmul(factor, column, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), term, flags=["contract"]), total)
    for r, total in enumerate(sums):
        code.store(builder.load(total), code.moved(target, to, code.times(step, code.plus(first, r))))


def _vector(width: int) -> Any:
    return ir.VectorType(ir.FloatType(), width)

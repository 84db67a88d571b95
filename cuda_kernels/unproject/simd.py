"""Vector instruction sequences that the compiler does not find by itself, because it cannot tell arrays apart."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16


@intrinsic
def fill_voxels(typing_context, maps, corner, weight, wide, below, floor, voxels):  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """Code that fills voxels (N * wide,) with products over views of floor + bilinear sample, with nothing checked.

    maps: flat float32, `wide` joints side by side (a multiple of LANES), the next row `below` further on. corner (V, N)
    int64: where the first of the four cells starts; weight (V, 4, N) float32. voxels: float32 or float64.
    """
    single = types.float32
    if (maps.dtype, weight.dtype, floor) != (single, single, single):
        return None
    return types.void(maps, corner, weight, types.intp, types.intp, single, voxels), _emit_fill


def _emit_fill(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    arrays = [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1, 2, 6)]
    maps, corner, weight, voxels = arrays
    wide, below, floor = arguments[3], arguments[4], _splat(builder, arguments[5])
    views, count = (builder.extract_value(corner.shape, axis) for axis in (0, 1))
    double = signature.args[6].dtype == types.float64
    kind = ir.VectorType(ir.DoubleType() if double else ir.FloatType(), LANES)
    lanes = wide.type(LANES)
    cells = [wide.type(0), wide, below, builder.add(below, wide)]
    with cgutils.for_range(builder, count, intp=wide.type) as voxel:
        with cgutils.for_range_slice(builder, wide.type(0), wide, lanes, intp=wide.type) as (at, _):
            product = cgutils.alloca_once(builder, kind)
            builder.store(ir.Constant(kind, [1.0] * LANES), product)
            with cgutils.for_range(builder, views, intp=wide.type) as view:
                place = builder.add(builder.mul(view.index, count), voxel.index)
                start = builder.add(builder.load(builder.gep(corner.data, [place])), at)
                place = builder.add(builder.mul(builder.mul(view.index, wide.type(4)), count), voxel.index)
                total = floor
                for number, cell in enumerate(cells):
                    share = builder.load(builder.gep(weight.data, [place]))
                    values = _load(builder, maps.data, builder.add(start, cell))
                    values = builder.fmul(values, _splat(builder, share), flags=["contract"])
                    total = builder.fadd(total, values, flags=["contract"])
                    place = builder.add(place, count) if number < 3 else place
                total = builder.fpext(total, kind) if double else total
                builder.store(builder.fmul(builder.load(product), total), product)
            target = builder.add(builder.mul(voxel.index, wide), at)
            pointer = builder.bitcast(builder.gep(voxels.data, [target]), kind.as_pointer())
            builder.store(builder.load(product), pointer, align=4)
    return context.get_dummy_value()


@intrinsic
def multiply_window_max(typing_context, maps, corner, right, below, columns, rows, reach, floor, bound, at):  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """Code that does `bound[at:at+LANES] *= floor + the largest of maps in a window`, with nothing checked.

    `maps` holds at each cell the largest of the `reach` x `reach` cells from there on, so that few samples cover the
    window; its cells lie `right` apart along a row, rows `below`. A window smaller than `reach` counts as that large,
    an empty one as zero. `bound` is float32 or float64.
    """
    index, single = types.intp, types.float32
    if (maps.dtype, floor) != (single, single):
        return None
    return types.void(maps, index, index, index, index, index, index, single, bound, index), _emit_window


def _emit_window(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    maps, bound = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 8))
    _, corner, right, below, columns, rows, reach, floor, _, at = arguments
    vector = ir.VectorType(ir.FloatType(), LANES)
    zero, one = at.type(0), at.type(1)
    largest = cgutils.alloca_once(builder, vector)
    builder.store(ir.Constant(vector, [0.0] * LANES), largest)

    def samples(size: Any) -> tuple[Any, Any]:
        """How many samples cover so many cells, and where the last one stands."""
        count = builder.sdiv(builder.add(size, builder.sub(reach, one)), reach)
        last = builder.sub(size, reach)
        return count, builder.select(builder.icmp_signed(">", last, zero), last, zero)

    def place(number: Any, last: Any) -> Any:
        step = builder.mul(number, reach)
        return builder.select(builder.icmp_signed("<", step, last), step, last)

    (down, bottom), (across, end) = samples(rows), samples(columns)
    with cgutils.for_range(builder, down, intp=at.type) as row:
        start = builder.add(corner, builder.mul(place(row.index, bottom), below))
        with cgutils.for_range(builder, across, intp=at.type) as column:
            cell = builder.add(start, builder.mul(place(column.index, end), right))
            values, so_far = _load(builder, maps.data, cell), builder.load(largest)
            builder.store(builder.select(builder.fcmp_ordered(">", values, so_far), values, so_far), largest)
    factor = builder.fadd(_splat(builder, floor), builder.load(largest))
    double = signature.args[8].dtype == types.float64
    kind = ir.VectorType(ir.DoubleType() if double else ir.FloatType(), LANES)
    target = builder.bitcast(builder.gep(bound.data, [at]), kind.as_pointer())
    factor = builder.fpext(factor, kind) if double else factor
    builder.store(builder.fmul(builder.load(target, align=4), factor), target, align=4)
    return context.get_dummy_value()


@intrinsic
def take_larger(typing_context, maps, first, last, stride):  # type: ignore[no-untyped-def]
    """Code that does `maps[i] = max(maps[i], maps[i + stride])` for i from first to last - 1, in that order.

    maps: flat float32; the number of places and the stride are multiples of LANES.
    """
    if maps.dtype != types.float32:
        return None
    return types.void(maps, types.intp, types.intp, types.intp), _emit_take_larger


def _emit_take_larger(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    maps = context.make_array(signature.args[0])(context, builder, arguments[0])
    _, first, last, stride = arguments
    kind = ir.VectorType(ir.FloatType(), LANES)
    with cgutils.for_range_slice(builder, first, last, first.type(LANES), intp=first.type) as (i, _):
        here, there = _load(builder, maps.data, i), _load(builder, maps.data, builder.add(i, stride))
        larger = builder.select(builder.fcmp_ordered(">", there, here), there, here)
        builder.store(larger, builder.bitcast(builder.gep(maps.data, [i]), kind.as_pointer()), align=4)
    return context.get_dummy_value()


@intrinsic
def largest_and_sum(typing_context, voxels, wide, largest, total):  # type: ignore[no-untyped-def]
    """Code that fills largest and total (wide,) with the maximum (at least 0) and the sum over voxels (N * wide,)."""
    if not voxels.dtype == largest.dtype == total.dtype:
        return None
    return types.void(voxels, types.intp, largest, total), _emit_largest


def _emit_largest(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    voxels, largest, total = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 3))
    wide, size = arguments[1], builder.extract_value(voxels.shape, 0)
    kind = ir.VectorType(ir.DoubleType() if signature.args[0].dtype == types.float64 else ir.FloatType(), LANES)
    zeros = ir.Constant(kind, [0.0] * LANES)
    with cgutils.for_range_slice(builder, wide.type(0), wide, wide.type(LANES), intp=wide.type) as (at, _):
        top, added = cgutils.alloca_once(builder, kind), cgutils.alloca_once(builder, kind)
        builder.store(zeros, top)
        builder.store(zeros, added)
        with cgutils.for_range_slice(builder, at, size, wide, intp=wide.type) as (place, _):
            row = builder.load(builder.bitcast(builder.gep(voxels.data, [place]), kind.as_pointer()), align=4)
            so_far = builder.load(top)
            builder.store(builder.select(builder.fcmp_ordered(">", row, so_far), row, so_far), top)
            builder.store(builder.fadd(builder.load(added), row), added)
        for array, vector in ((largest, top), (total, added)):
            target = builder.bitcast(builder.gep(array.data, [at]), kind.as_pointer())
            builder.store(builder.load(vector), target, align=4)
    return context.get_dummy_value()


def _splat(builder: Any, scalar: Any) -> Any:
    vector = ir.VectorType(ir.FloatType(), LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _load(builder: Any, data: Any, index: Any) -> Any:
    kind = ir.VectorType(ir.FloatType(), LANES)
    return builder.load(builder.bitcast(builder.gep(data, [index]), kind.as_pointer()), align=4)

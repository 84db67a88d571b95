"""The inner loop over pairs of voxels with its sums kept in registers, which the compiler does not find by itself."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

TILE = 32  # targets side by side: their places and sums fill ten vector registers
SINGLES, DOUBLES, INTS = (ir.VectorType(kind, TILE) for kind in (ir.FloatType(), ir.DoubleType(), ir.IntType(32)))
Share = Callable[[Any, Any, Any], Any]  # builder, squared distances, belief of a source -> what it adds to each sum


@intrinsic
def add_pairs_in_shell(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - one argument an operand
    typing_context, source, belief, first, last, target, at, lowest, highest, out
):
    """Code that adds to `out[at:at+TILE]` the belief of sources first .. last - 1 within the shell of each target.

    source (3, S), target (3, N) float32 with contiguous rows, belief (S,), out (N,) float64, contiguous; lowest,
    highest: float32 squared distances, both inside. Sources come one after the other: every sum has one fixed order.
    """
    index, single = types.intp, types.float32
    return types.void(source, belief, index, index, target, index, single, single, out), _emit_interval


@intrinsic
def add_weighted_pairs(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - one argument an operand
    typing_context, source, belief, first, last, target, at, base, weights, out
):
    """Code that adds belief times weights[squared distance - base], arguments as for `add_pairs_in_shell`.

    weights (W,) float32 are zero at both ends, where distances outside the shell look.
    """
    index = types.intp
    return types.void(source, belief, index, index, target, index, types.int32, weights, out), _emit_weighted


def _emit_interval(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    lowest, highest = (_splat(builder, arguments[i], SINGLES) for i in (6, 7))

    def share(builder: Any, squared: Any, belief: Any) -> Any:
        near, far = builder.fcmp_ordered("<=", squared, highest), builder.fcmp_ordered(">=", squared, lowest)
        return builder.select(builder.and_(near, far), belief, ir.Constant(DOUBLES, [0.0] * TILE))

    return _emit(context, builder, signature, arguments, share)


def _emit_weighted(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    table = context.make_array(signature.args[7])(context, builder, arguments[7])
    size = builder.trunc(builder.extract_value(table.shape, 0), ir.IntType(32))
    base, zero = _splat(builder, arguments[6], INTS), ir.Constant(INTS, [0] * TILE)
    beyond = _splat(builder, builder.sub(size, size.type(1)), INTS)

    def share(builder: Any, squared: Any, belief: Any) -> Any:
        index = builder.sub(builder.fptosi(squared, INTS), base)
        index = builder.select(builder.icmp_signed(">", index, zero), index, zero)
        index = builder.select(builder.icmp_signed("<", index, beyond), index, beyond)
        weight = ir.Constant(SINGLES, ir.Undefined)
        for lane in range(TILE):
            place = ir.Constant(ir.IntType(32), lane)
            at = builder.zext(builder.extract_element(index, place), ir.IntType(64))
            weight = builder.insert_element(weight, builder.load(builder.gep(table.data, [at])), place)
        return builder.fmul(builder.fpext(weight, DOUBLES), belief, flags=["contract"])

    return _emit(context, builder, signature, arguments, share)


def _emit(context: Any, builder: Any, signature: Any, arguments: Any, share: Share) -> Any:
    """The loop over sources; `share` says what each adds."""

    def array(number: int) -> Any:
        return context.make_array(signature.args[number])(context, builder, arguments[number])

    source, belief, target, out = array(0), array(1), array(4), array(8)
    first, last, at = arguments[2], arguments[3], arguments[5]
    source_row, target_row = (
        builder.sdiv(builder.extract_value(array.strides, 0), at.type(4)) for array in (source, target)
    )
    rows = [builder.add(builder.mul(target_row, at.type(axis)), at) for axis in range(3)]
    place = [builder.load(_vector(builder, target.data, row, SINGLES), align=4) for row in rows]
    where = _vector(builder, out.data, at, DOUBLES)
    total = cgutils.alloca_once_value(builder, builder.load(where, align=8))
    with cgutils.for_range_slice(builder, first, last, at.type(1), intp=at.type) as (i, _):
        squared = ir.Constant(SINGLES, [0.0] * TILE)
        for axis in range(3):
            one = builder.load(builder.gep(source.data, [builder.add(builder.mul(source_row, at.type(axis)), i)]))
            away = builder.fsub(place[axis], _splat(builder, one, SINGLES))
            squared = builder.fadd(builder.fmul(away, away, flags=["contract"]), squared, flags=["contract"])
        one = _splat(builder, builder.load(builder.gep(belief.data, [i])), DOUBLES)
        so_far = builder.load(total)
        builder.store(builder.fadd(so_far, share(builder, squared, one), flags=["contract"]), total)
    builder.store(builder.load(total), where, align=8)
    return context.get_dummy_value()


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _vector(builder: Any, data: Any, index: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

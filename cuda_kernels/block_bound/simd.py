"""Adding one short row to another, which compiled loops do slowly because they check for overlap each time."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROW = 8  # doubles of one vector: rows are padded to a multiple


@intrinsic
def add_row(typing_context, target, at, source, start, size):  # type: ignore[no-untyped-def]
    """Code that does `target[at:at+size] += source[start:start+size]` for flat float64; size a multiple of ROW."""
    if not target.dtype == source.dtype == types.float64:
        return None
    return types.void(target, types.intp, source, types.intp, types.intp), _emit


def _emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    kind = ir.VectorType(ir.DoubleType(), ROW)
    target, source = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
    at, start, size = arguments[1], arguments[3], arguments[4]

    def pointer(array: Any, index: Any) -> Any:
        return builder.bitcast(builder.gep(array.data, [index]), kind.as_pointer())

    with cgutils.for_range_slice(builder, at.type(0), size, at.type(ROW), intp=at.type) as (i, _):
        into = pointer(target, builder.add(at, i))
        added = builder.load(pointer(source, builder.add(start, i)), align=8)
        builder.store(builder.fadd(builder.load(into, align=8), added), into, align=8)
    return context.get_dummy_value()

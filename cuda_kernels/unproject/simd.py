"""One vector instruction sequence that the compiler does not find by itself, because it cannot tell arrays apart."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16


@intrinsic
def multiply_bilinear(  # type: ignore[no-untyped-def]  # noqa: PLR0913 - one argument an operand
    typing_context, maps, corner, right, below, weights, floor, voxels, at
):
    """Code that does `voxels[at:at+LANES] *= floor + bilinear(maps)`, with nothing checked.

    `maps` float32 and `voxels` float32 or float64 are flat and contiguous; the four cells start at `corner`,
    `corner + right`, `corner + below` and `corner + below + right`; `weights` is their tuple of four float32.
    """
    fits = maps.dtype == types.float32 and weights.count == 4 and floor == types.float32
    if not (fits and maps.layout == "C" and voxels.layout == "C"):
        return None
    signature = types.void(maps, types.intp, types.intp, types.intp, weights, floor, voxels, types.intp)
    return signature, _emit


def _emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    maps_type, _, _, _, _, _, voxels_type, _ = signature.args
    maps, corner, right, below, weights, floor, voxels, at = arguments
    vector = ir.VectorType(ir.FloatType(), LANES)

    def splat(scalar: Any) -> Any:
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

    def address(array_type: Any, array: Any, index: Any, kind: Any) -> Any:
        base = context.make_array(array_type)(context, builder, array).data
        return builder.bitcast(builder.gep(base, [index]), kind.as_pointer())

    total = splat(floor)
    below_corner = builder.add(corner, below)
    cells = [corner, builder.add(corner, right), below_corner, builder.add(below_corner, right)]
    for number, cell in enumerate(cells):
        values = builder.load(address(maps_type, maps, cell, vector), align=4)
        weighted = builder.fmul(values, splat(builder.extract_value(weights, number)), flags=["contract"])
        total = builder.fadd(total, weighted, flags=["contract"])
    double = voxels_type.dtype == types.float64
    kind = ir.VectorType(ir.DoubleType(), LANES) if double else vector
    target = address(voxels_type, voxels, at, kind)
    factor = builder.fpext(total, kind) if double else total
    builder.store(builder.fmul(builder.load(target, align=4), factor), target, align=4)
    return context.get_dummy_value()

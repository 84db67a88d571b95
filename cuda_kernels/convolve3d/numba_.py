"""Convolutions of volumes by tiles: voxels to points, products channel by channel there, and back.

A box of tiles is worked on at a time, so that what lies between stays near the processor: tile after tile, and point
after point in it. Products at a point go where values at the point before were, which nobody needs any more.
"""

import numba
import numpy as np

from cuda_kernels.convolve3d.plan import F_2_3, F_4_3, FILTERS
from cuda_kernels.convolve3d.simd import WIDTHS, fetch, make_enter, make_leave, multiply

_enter_2_3, _enter_4_3, _enter_4_4 = (make_enter(one.inputs) for one in FILTERS)
_leave_2_3, _leave_4_3, _leave_4_4 = (make_leave(one.outputs) for one in FILTERS)


@numba.njit(nogil=True, cache=True)
def convolve(volume, shape, weights, after, boxes, room, out):  # type: ignore[no-untyped-def]
    """Fill some boxes of `out` (D, H, W, O), flat as all arrays are.

    shape: (D, H, W) of the volume. weights: the plan, and what `transformed` gives. after: the bias, what is added,
    like `out` or empty, and the lowest number that is left. boxes: the first of them, the last, and how many there are
    along each axis. room: `plan.room` numbers, with anything in them.
    """
    (plan, points), (begin, end, many) = weights, boxes
    places = np.empty(plan.box[0] * plan.box[1] * plan.box[2], np.intp)
    shifts = np.empty(plan.parts**3, np.intp)
    for number in range(begin, end):
        rest, w = divmod(number, many[2])
        d, h = divmod(rest, many[1])
        first = (d * plan.box[0], h * plan.box[1], w * plan.box[2])
        last = (
            min(first[0] + plan.box[0], (shape[0] + plan.m - 1) // plan.m),
            min(first[1] + plan.box[1], (shape[1] + plan.m - 1) // plan.m),
            min(first[2] + plan.box[2], (shape[2] + plan.m - 1) // plan.m),
        )
        count = _place(first, last, plan, places, shifts)
        _enter(volume, shape, first, last, plan, room)
        _multiply(room, points, plan, places[:count], shifts)
        _leave(room, shape, first, last, plan, after, out)


@numba.njit(nogil=True, cache=True)
def _place(first, last, plan, places, shifts):  # type: ignore[no-untyped-def]
    """Fill in where values of each output tile lie, and how far from them those of its kernel's pieces; how many."""
    down = last[2] - first[2] + plan.parts - 1
    across = (last[1] - first[1] + plan.parts - 1) * down
    many = 0
    for d in range(last[0] - first[0]):
        for h in range(last[1] - first[1]):
            for w in range(last[2] - first[2]):
                places[many] = (d * across + h * down + w) * plan.step
                many += 1
    for piece in range(shifts.size):
        rest, w = divmod(piece, plan.parts)
        d, h = divmod(rest, plan.parts)
        shifts[piece] = (d * across + h * down + w) * plan.step
    return many


@numba.njit(nogil=True, cache=True)
def _enter(volume, shape, first, last, plan, values):  # type: ignore[no-untyped-def]
    """Bring tiles first .. last - 1, and those that pieces of their kernel look at, to the points."""
    to, more = plan.slot, plan.parts - 1
    for d in range(first[0], last[0] + more):
        for h in range(first[1], last[1] + more):
            for w in range(first[2], last[2] + more):
                voxel = (d * plan.m - plan.reach, h * plan.m - plan.reach, w * plan.m - plan.reach)
                if plan.which == F_2_3:
                    _enter_2_3(volume, voxel, shape, plan.channels, values, to, plan.slot)
                elif plan.which == F_4_3:
                    _enter_4_3(volume, voxel, shape, plan.channels, values, to, plan.slot)
                else:
                    _enter_4_4(volume, voxel, shape, plan.channels, values, to, plan.slot)
                to += plan.step


@numba.njit(nogil=True, cache=True)
def _multiply(values, points, plan, places, shifts):  # type: ignore[no-untyped-def]
    """At each point, multiply tiles by the weights."""
    tiles = (places[-1] + shifts[-1]) // plan.step + 1
    corner = 0
    for point in range(plan.n**3):
        at = values[(point + 1) * plan.slot :]
        fetch(values, (point + 2) * plan.slot, plan.step, tiles, plan.channels)
        begin = 0
        for width in WIDTHS:
            while plan.outs - begin >= width:
                to = point * plan.slot + begin
                multiply(at, places, shifts, plan.channels, points, corner, width, values, to, plan.step)
                corner += plan.channels * shifts.size * width
                begin += width


@numba.njit(nogil=True, cache=True)
def _leave(values, shape, first, last, plan, after, out):  # type: ignore[no-untyped-def]
    """Bring products at the points back to tiles first .. last - 1, and write what comes after them."""
    bias, added, lowest = after
    at = 0
    for d in range(first[0], last[0]):
        for h in range(first[1], last[1]):
            for w in range(first[2], last[2]):
                voxel = (d * plan.m, h * plan.m, w * plan.m)
                if plan.which == F_2_3:
                    _leave_2_3(values, at, plan.slot, bias, added, lowest, out, voxel, shape)
                elif plan.which == F_4_3:
                    _leave_4_3(values, at, plan.slot, bias, added, lowest, out, voxel, shape)
                else:
                    _leave_4_4(values, at, plan.slot, bias, added, lowest, out, voxel, shape)
                at += plan.step

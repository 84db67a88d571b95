"""How a convolution is cut into tiles, and its weights at the tiles' points: all that is known before the voxels."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.convolve3d.simd import WIDTHS
from cuda_kernels.convolve3d.toom_cook import toom_cook

# Points of least error in three dimensions among those tried: for 3 taps a third of that of the usual 0, 1, -1, 2, -2.
FILTERS = (
    toom_cook(2, 3, (0, 1, -1)),
    toom_cook(4, 3, (0, Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))),
    toom_cook(4, 4, (Fraction(1, 3), Fraction(-1, 3), Fraction(9, 10), Fraction(-9, 10), 2, -2)),
)
SPARE = 1 << 20  # numbers
F_2_3, F_4_3, F_4_4 = range(len(FILTERS))


class Plan(NamedTuple):
    """What the compiled body needs to know.

    which: place in FILTERS. m, n: outputs and inputs of a tile along each axis. parts: pieces that a kernel is cut into
    along each axis; where there are several, pieces are as long as a tile, so that the next piece looks at the next
    tile. reach: voxels a kernel reaches to either side. channels, outs: of a voxel. slot, step: numbers from point to
    point, and from tile to tile. box: tiles along each axis that are worked on at a time.
    """

    which: int
    m: int
    n: int
    parts: int
    reach: int
    channels: int
    outs: int
    slot: int
    step: int
    box: tuple[int, int, int] = (1, 1, 1)

    @property
    def room(self) -> int:
        """Numbers that a box takes."""
        return prod(size + self.parts - 1 for size in self.box) * self.step

    def tiles(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Along each axis of a volume (D, H, W)."""
        return tuple(-(-side // self.m) for side in shape)

    def products(self, shape: tuple[int, ...]) -> int:
        """How many a volume (D, H, W) takes."""
        return prod(self.tiles(shape)) * self.n**3 * self.parts**3 * self.channels * self.outs

    def boxes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Along each axis of a volume (D, H, W)."""
        return tuple(-(-many // size) for many, size in zip(self.tiles(shape), self.box, strict=True))


def plan_for(weights: tuple[int, ...], tile: int) -> Plan:
    """The plan, without a box, for weights (O, C, k, k, k)."""
    outs, channels, k = weights[:3]
    which = F_4_4 if k > 3 else F_2_3 if tile == 2 else F_4_3
    chosen = FILTERS[which]
    # An odd number of slots: tiles that lie a multiple of 4096 bytes apart would share few places of a cache.
    slot, slots = max(channels, outs), chosen.n**3 + 1 | 1
    return Plan(which, chosen.m, chosen.n, -(-k // chosen.r), k // 2, channels, outs, slot, slots * slot)


def boxed(plan: Plan, shape: tuple[int, ...], threads: int) -> Plan:
    """With a box for a volume (D, H, W), so that each thread has one."""
    most = -(-prod(plan.tiles(shape)) // threads)
    most = min(most, 32 if plan.parts > 1 else max(16, plan.channels // 4))
    side = 4 if plan.parts > 1 else most  # the fewer the neighbours that pieces look at
    box: list[int] = []
    for many in reversed(plan.tiles(shape)):
        box.insert(0, min(many, most, side))
        most //= box[0]
    return plan._replace(box=(box[0], box[1], box[2]))


def transformed(weight: NDArray[np.float32], plan: Plan) -> NDArray[np.float32]:
    """Weights (O, C, k, k, k) at the points of a tile, flat, in the order in which they are read: for each point, and
    for each panel of output channels, (pieces^3, C, panel).
    """
    outs, channels, k = weight.shape[:3]
    r, parts, points = FILTERS[plan.which].r, plan.parts, plan.n**3
    room = np.zeros((outs, channels, *[parts * r] * 3))
    room[:, :, :k, :k, :k] = weight
    pieces = room.reshape(outs, channels, parts, r, parts, r, parts, r)
    for axis in (3, 5, 7):
        pieces = np.moveaxis(np.tensordot(pieces, np.array(FILTERS[plan.which].taps, float), (axis, 1)), -1, axis)
    flat = pieces.transpose(3, 5, 7, 2, 4, 6, 1, 0).reshape(points, parts**3 * channels, outs)
    panels, begin = [], 0
    for width in WIDTHS:
        while outs - begin >= width:
            panels.append(flat[:, :, begin : begin + width].reshape(points, -1))
            begin += width
    found = on_large_page(np.empty(flat.size + SPARE, np.float32))[: flat.size]
    found[:] = np.concatenate(panels, axis=1).ravel()
    return found


def on_large_page(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """What lies from the first page of 2 MiB on, of SPARE more than are needed: a tenth less time, as processors look
    up few pages at once. NumPy asks the system for such pages where an array has 4 MiB or more.
    """
    return numbers[-(numbers.ctypes.data // numbers.itemsize) % (SPARE // 2) :]

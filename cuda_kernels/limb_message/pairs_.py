"""Limb messages for CPUs over pairs of active voxels, tile by tile; tiles out of each other's reach are passed over."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from cuda_kernels.limb_message.pairs_simd import TILE, add_pairs_in_shell, add_weighted_pairs
from cuda_kernels.shell import Shell

SAMPLES = 32  # tiles at either end that are asked whether they are in reach
FAR = 1e4  # coordinate of the places that fill up the last tile: out of every limb's reach


class Tiles(NamedTuple):
    """Voxels in tiles of TILE: places (3, T * TILE) float32, filled up with FAR, and boxes (T, 6), low then high."""

    places: NDArray[np.float32]
    boxes: NDArray[np.float32]


class ShellNumbers(NamedTuple):
    """A shell as compiled code takes it; weights (W + 2,) have a zero at either end."""

    lowest: int
    highest: int
    interval: bool
    weights: NDArray[np.float32]


def limb_message(belief, source, target, shell: Shell, n: int) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """See the contract in the folder's `__init__`."""
    numbers = ShellNumbers(shell.lowest, shell.highest, shell.interval, np.pad(shell.weights, 1))
    out: NDArray[np.float64] = _limb_message(np.ascontiguousarray(belief, np.float64), source, target, numbers, n)
    return out


@numba.njit(nogil=True, cache=True)
def _limb_message(belief, source, target, shell, n):  # type: ignore[no-untyped-def]
    sources, targets = make_tiles(source, n), make_tiles(target, n)
    padded, out = np.zeros(sources.places.shape[1]), np.zeros(targets.places.shape[1])
    padded[: belief.size] = belief
    add_pairs(padded, sources, targets, shell, out)
    return out[: len(target)].copy()


@numba.njit(nogil=True, cache=True)
def make_tiles(place, n):  # type: ignore[no-untyped-def]
    """Voxels at flat indices (N,) of a grid of n a side, in tiles."""
    count = (place.size + TILE - 1) // TILE
    places, boxes = np.full((3, count * TILE), np.float32(FAR)), np.empty((count, 6), np.float32)
    for i in range(place.size):
        places[0, i], places[1, i], places[2, i] = place[i] // (n * n), place[i] // n % n, place[i] % n
    for tile in range(count):
        first, last = tile * TILE, min((tile + 1) * TILE, place.size)
        for axis in range(3):
            boxes[tile, axis], boxes[tile, 3 + axis] = places[axis, first:last].min(), places[axis, first:last].max()
    return Tiles(places, boxes)


@numba.njit(nogil=True, cache=True)
def in_reach(a, b, lowest, highest):  # type: ignore[no-untyped-def]
    """Whether two boxes hold points whose squared distance lies in lowest .. highest."""
    near = far = np.float32(0)
    for axis in range(3):
        gap = max(a[axis] - b[3 + axis], b[axis] - a[3 + axis], np.float32(0))
        span = max(a[3 + axis] - b[axis], b[3 + axis] - a[axis])
        near += gap * gap
        far += span * span
    return near <= highest and far >= lowest


@numba.njit(nogil=True, cache=True)
def share_in_reach(source, target, shell):  # type: ignore[no-untyped-def]
    """Roughly the share of pairs of tiles that `add_pairs` does not pass over: every so many tiles are asked."""
    low, high = np.float32(shell.lowest), np.float32(shell.highest)
    step, other_step = len(source.boxes) // SAMPLES + 1, len(target.boxes) // SAMPLES + 1
    asked = within = 0
    for i in range(0, len(source.boxes), step):
        for j in range(0, len(target.boxes), other_step):
            asked += 1
            within += in_reach(source.boxes[i], target.boxes[j], low, high)
    return within / max(asked, 1)


@numba.njit(nogil=True, cache=True)
def add_pairs(belief, source, target, shell, out):  # type: ignore[no-untyped-def]
    """Add to `out` (T * TILE,) the message of `belief` (S * TILE,), zero where tiles are filled up.

    Each target's sum has one fixed order, whatever the machine.
    """
    low, high, base = np.float32(shell.lowest), np.float32(shell.highest), np.int32(shell.lowest - 1)
    here, there, weights, interval = source.places, target.places, shell.weights, shell.interval
    for tile in range(len(target.boxes)):
        at = tile * TILE
        for other in range(len(source.boxes)):
            if in_reach(source.boxes[other], target.boxes[tile], low, high):
                first = other * TILE
                if interval:
                    add_pairs_in_shell(here, belief, first, first + TILE, there, at, low, high, out)
                else:
                    add_weighted_pairs(here, belief, first, first + TILE, there, at, base, weights, out)

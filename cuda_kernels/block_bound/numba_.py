"""The bounds on blocks for CPUs: the whole tree in one compiled pass, one thread."""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from cuda_kernels.block_bound.simd import ROW, add_row


def weight_bound(tree, active, marginals, n, block) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """See the contract in the folder's `__init__`."""
    blocks = active.dropped.shape[1]
    packed = tree.packed
    reach = [
        reach_table(int(low), int(high), blocks, block) for low, high in zip(packed.lowest, packed.highest, strict=True)
    ]
    up_start = np.cumsum([0] + [message.size for message in marginals.up])
    down = [m if m.size else np.zeros(count) for m, count in zip(marginals.down, active.counts, strict=True)]
    scale = np.stack([marginals.up_scale, marginals.down_scale])
    messages = np.concatenate(marginals.up), up_start, np.concatenate(down), scale
    voxels = active.starts, active.place, active.value
    out: NDArray[np.float64] = _weight_bound(packed, np.stack(reach), messages, voxels, active.dropped, (n, block))
    return out


@lru_cache(maxsize=512)
def reach_table(lowest: int, highest: int, blocks: int, block: int) -> NDArray[np.int64]:
    """(B, B, 2): for block offsets (|da|, |db|) the smallest and largest |dc| that a limb spans; -1 last if none."""
    offset = np.arange(blocks)
    near, far = np.maximum((offset - 1) * block + 1, 0) ** 2, ((offset + 1) * block - 1) ** 2
    fits = (near[:, None, None] + near[:, None] + near <= highest) & (far[:, None, None] + far[:, None] + far >= lowest)
    any_fits = fits.any(axis=2)
    first, last = fits.argmax(axis=2), blocks - 1 - fits[:, :, ::-1].argmax(axis=2)
    return np.stack([np.where(any_fits, first, 0), np.where(any_fits, last, -1)], axis=-1)


@numba.njit(nogil=True, cache=True)
def _reached(kept, added, table, factor, out):  # type: ignore[no-untyped-def]
    """Fill `out` (2, B, B, B) with `factor` times the mass of all blocks within reach of each, kept and added.

    Rows of blocks along the last axis, padded to whole vectors, are spread along it first, once for each pair of
    bounds on |dc|, then added up over the rows within reach.
    """
    blocks = len(table)
    wide = (blocks + ROW - 1) // ROW * ROW
    spread, done = np.empty((blocks * blocks, 2 * wide)), np.zeros(blocks * blocks, np.bool_)
    total = np.zeros(blocks * blocks * 2 * wide)
    flat = spread.reshape(-1)
    reach = blocks - 1
    while reach > 0 and table[reach, :, 1].max() < 0:
        reach -= 1
    for a in range(blocks):
        for b in range(blocks):
            row = (a * blocks + b) * blocks
            if not (kept[row : row + blocks].any() or added[row : row + blocks].any()):
                continue
            done[:] = False
            for x in range(max(a - reach, 0), min(a + reach + 1, blocks)):
                for y in range(max(b - reach, 0), min(b + reach + 1, blocks)):
                    first, last = table[abs(a - x), abs(b - y), 0], table[abs(a - x), abs(b - y), 1]
                    if last < 0:
                        continue
                    at = first * blocks + last
                    if not done[at]:
                        done[at] = True
                        _spread(kept, row, first, last, blocks, spread[at, :wide])
                        _spread(added, row, first, last, blocks, spread[at, wide:])
                    add_row(total, (x * blocks + y) * 2 * wide, flat, at * 2 * wide, 2 * wide)
    cube = total.reshape(blocks, blocks, 2, wide)
    for mass in range(2):
        out[mass] = cube[:, :, mass, :blocks] * factor


@numba.njit(nogil=True, cache=True)
def _spread(mass, row, first, last, blocks, line):  # type: ignore[no-untyped-def]
    """Fill `line` with the sums of a row's blocks first .. last away from each, on either side."""
    line[:] = 0
    for c in range(blocks):
        if mass[row + c] > 0:
            for step in range(first, last + 1):
                if c + step < blocks:
                    line[c + step] += mass[row + c]
                if step > 0 and c >= step:
                    line[c - step] += mass[row + c]


@numba.njit(nogil=True, cache=True)
def _terms(joint, but, packed, messages, bounds, voxels):  # type: ignore[no-untyped-def]
    """Kept belief and its gain per block, the most that likelihood 1 can weigh there, log scale of all inputs."""
    up, up_start, down, scale = messages
    starts, value, place = voxels
    bound_up, bound_down = bounds
    a, b = starts[joint], starts[joint + 1]
    low, high = value[a:b].copy(), value[a:b].copy()
    size = bound_up.shape[2]
    most, kept, gain, inputs = np.ones(size), np.zeros(size), np.zeros(size), 0.0
    for child in range(packed.parents.size):
        if packed.parents[child] == joint and child != but:
            _take_in(up[up_start[child] : up_start[child] + b - a], bound_up[child], place[a:b], low, high, most)
            inputs += scale[0, child]
    if packed.parents[joint] >= 0 and packed.parents[joint] != but:
        _take_in(down[a:b], bound_down[joint], place[a:b], low, high, most)
        inputs += scale[1, joint]
    for i in range(b - a):
        kept[place[a + i]] += low[i]
        gain[place[a + i]] += high[i] - low[i]
    return kept, gain, most, inputs


@numba.njit(nogil=True, cache=True)
def _take_in(message, bound, place, low, high, most):  # type: ignore[no-untyped-def]
    """Multiply a neighbour's message into the belief (low), the belief with its bound (high), the bounds (most)."""
    for i in range(message.size):
        low[i] *= message[i]
        high[i] *= message[i] + bound[1, place[i]]
    most *= bound[0] + bound[1]


@numba.njit(nogil=True, cache=True)
def _weight_bound(packed, reach, messages, voxels, dropped, grid):  # type: ignore[no-untyped-def]
    (starts, flat, value), (n, block) = voxels, grid
    joints, blocks = packed.parents.size, dropped.shape[1]
    size = blocks**3
    cube = (blocks, blocks, blocks)
    bounds = (np.zeros((joints, 2, size)), np.zeros((joints, 2, size)))
    place = np.empty(flat.size, np.int64)
    for i in range(flat.size):
        x, y, z = flat[i] // (n * n), flat[i] // n % n, flat[i] % n
        place[i] = (x // block * blocks + y // block) * blocks + z // block
    for turn in range(2 * joints - 2):
        upward = turn < joints - 1
        child = packed.order[joints - 1 - turn] if upward else packed.order[turn - joints + 2]
        parent = packed.parents[child]
        sender, receiver = (child, parent) if upward else (parent, child)
        kept, gain, most, inputs = _terms(sender, receiver, packed, messages, bounds, (starts, value, place))
        gain += dropped[sender].reshape(-1) * most
        factor = packed.heaviest[child] * np.exp(inputs - messages[3][0 if upward else 1, child])
        bound = bounds[0][child] if upward else bounds[1][child]
        _reached(kept, gain, reach[child], factor, bound.reshape(2, blocks, blocks, blocks))
    out = np.empty(dropped.shape)
    for joint in range(joints):
        kept, gain, most, inputs = _terms(joint, -1, packed, messages, bounds, (starts, value, place))
        out[joint] = (most / kept.sum()).reshape(cube)
    return out

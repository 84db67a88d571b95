"""Dense limb messages for GPUs: a convolution by real trigonometric transforms, written as products of matrices.

With a period p >= n + reach nothing wraps round into the grid. A shell is even along every axis, so it is diagonal in
the cosines and sines of each axis, with the same real eigenvalue for either. A product takes (R, K) numbers, the axis
to transform last, and gives (P, R): the new axis comes first, and three products in a row bring the axes back into
order. So a message takes six products and no transposition, O(n^4) in all.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.device import SIMULATED, THREADS, DeviceMemory, block_max, cuda
from cuda_kernels.resident import BITS, LARGEST_GRID, Limbs, Rows, Told, belief_of
from cuda_kernels.shell import Shell

# SIDE x SIDE threads sum 2 x 4 numbers each of a product's tile, SIDE terms at a time from shared memory.
SIDE = 4 if SIMULATED else 16
HIGH, WIDE = 2 * SIDE, 4 * SIDE
HIGH_ROOM, WIDE_ROOM = (SIDE, HIGH + 1), (SIDE, WIDE + 1)  # one more, so that columns lie in different banks

Floats = NDArray[np.float64]


class Transform(NamedTuple):
    """forward (p, n) and backward (n, p) matrices; eigenvalue (m + 1, m + 1, m + 1) by frequency, norms included."""

    forward: Any
    backward: Any
    eigenvalue: Any


def basis(n: int, period: int) -> Floats:
    """(period, n): cosine 0, then cosine and sine of each higher frequency, at the places of a grid."""
    row = np.arange(period)
    angle = 2 * np.pi / period * (np.outer((row + 1) // 2, np.arange(n)) % period)
    cosine = (row % 2 == 1) | (row == 0)
    return np.where(cosine[:, None], np.cos(angle), np.sin(angle))


def eigenvalues(shell: Shell, n: int) -> Floats:
    """(m + 1, m + 1, m + 1) what the shell multiplies each frequency with, over the squared norms of its basis."""
    reach = min(shell.reach, n - 1)  # longer offsets lead out of the grid from every voxel
    period = n + reach
    squares = np.arange(reach + 1) ** 2
    squared = squares[:, None, None] + squares[:, None] + squares
    inside = (squared >= shell.lowest) & (squared <= shell.highest)
    weight = shell.weights.astype(np.float64)[np.clip(squared - shell.lowest, 0, shell.weights.size - 1)]
    values = np.where(inside, weight, 0.0)
    frequency = np.arange(period // 2 + 1)
    cosines = np.cos(2 * np.pi / period * (np.outer(frequency, np.arange(reach + 1)) % period))
    cosines[:, 1:] *= 2.0  # offsets of either sign
    cosines *= np.where((frequency == 0) | (2 * frequency == period), 1.0, 2.0)[:, None] / period
    for _ in range(3):
        values = np.tensordot(values, cosines, (0, 1))
    return values


@lru_cache(maxsize=64)
def _transform(lowest: int, weights: bytes, n: int) -> Transform:
    shell = Shell(lowest, np.frombuffer(weights, np.float32), False)
    matrix = basis(n, n + min(shell.reach, n - 1))
    arrays = matrix, np.ascontiguousarray(matrix.T), eigenvalues(shell, n)
    return Transform(*(cuda.to_device(array) for array in arrays))


@cuda.jit(cache=True)
def product(matrix, source, target):  # type: ignore[no-untyped-def]
    """Fill `target` (P, R) with `matrix` (P, K) times the transposed of `source` (R, K); sums in the order of k."""
    left = cuda.shared.array(HIGH_ROOM, np.float64)
    right = cuda.shared.array(WIDE_ROOM, np.float64)
    thread = cuda.threadIdx.x
    x, y, depth = thread % SIDE, thread // SIDE, matrix.shape[1]
    first, top = cuda.blockIdx.x * WIDE, cuda.blockIdx.y * HIGH
    a0, a1, a2, a3, b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for start in range(0, depth, SIDE):
        cuda.syncthreads()
        for row in range(y, HIGH, SIDE):
            inside = top + row < matrix.shape[0] and start + x < depth
            left[x, row] = matrix[top + row, start + x] if inside else 0.0
        for row in range(y, WIDE, SIDE):
            inside = first + row < source.shape[0] and start + x < depth
            right[x, row] = source[first + row, start + x] if inside else 0.0
        cuda.syncthreads()
        for k in range(SIDE):
            p, q = left[k, y], left[k, y + SIDE]
            r0, r1, r2, r3 = right[k, x], right[k, x + SIDE], right[k, x + 2 * SIDE], right[k, x + 3 * SIDE]
            a0, a1, a2, a3 = a0 + p * r0, a1 + p * r1, a2 + p * r2, a3 + p * r3
            b0, b1, b2, b3 = b0 + q * r0, b1 + q * r1, b2 + q * r2, b3 + q * r3
    _store(target, top + y, first + x, (a0, a1, a2, a3))
    _store(target, top + y + SIDE, first + x, (b0, b1, b2, b3))


@cuda.jit(device=True)
def _store(target, row, column, numbers):  # type: ignore[no-untyped-def]
    """Store what lies inside `target` of four numbers of a row, SIDE columns apart."""
    if row < target.shape[0]:
        for i in range(4):
            if column + SIDE * i < target.shape[1]:
                target[row, column + SIDE * i] = numbers[i]


@cuda.jit(cache=True)
def scale(volume, eigenvalue):  # type: ignore[no-untyped-def]
    """Multiply every number of a transformed grid (p, p, p) by its frequency's eigenvalue."""
    at, period = cuda.grid(1), volume.shape[0]
    if at < period * period * period:
        x, y, z = at // (period * period), at // period % period, at % period
        volume[x, y, z] *= eigenvalue[(x + 1) // 2, (y + 1) // 2, (z + 1) // 2]


@cuda.jit(cache=True)
def clear(grid):  # type: ignore[no-untyped-def]
    """Fill a flat grid with zeros."""
    at = cuda.grid(1)
    if at < grid.size:
        grid[at] = 0.0


@cuda.jit(device=True)
def _flat(spot, n):  # type: ignore[no-untyped-def]
    low = LARGEST_GRID - 1
    return ((spot >> 2 * BITS) * n + (spot >> BITS & low)) * n + (spot & low)


@cuda.jit(cache=True)
def spread(limbs, rows, told, ends, n, grid):  # type: ignore[no-untyped-def]
    """Put the beliefs of a message's sender into a grid of zeros; ends: sender and receiver, of frame 0."""
    row, (sender, receiver) = cuda.grid(1), ends
    if row < rows.count[0, sender]:
        grid[_flat(rows.spot[0, sender, row], n)] = belief_of(limbs, rows, told, 0, sender, receiver, row)


@cuda.jit(cache=True)
def gather(rows, told, ends, upward, n, grid):  # type: ignore[no-untyped-def]
    """Take a message at the receiver's voxels out of a grid, negative rounding as zero, and find its largest value."""
    scratch = cuda.shared.array(THREADS, np.float64)
    row, (sender, receiver) = cuda.grid(1), ends
    child, message = (sender, told.up) if upward else (receiver, told.down)
    value = 0.0
    if row < rows.count[0, receiver]:
        value = max(grid[_flat(rows.spot[0, receiver, row], n)], 0.0)
        message[0, child, row] = value
    top = block_max(value, scratch, cuda.threadIdx.x)
    if cuda.threadIdx.x == 0:
        cuda.atomic.max(told.top, (0, 0 if upward else 1, child), top)


def multiply(matrix: Any, source: Any, target: Any) -> None:
    """Fill `target` with the product, arrays on the device."""
    product[(-(-source.shape[0] // WIDE), -(-matrix.shape[0] // HIGH)), SIDE * SIDE](matrix, source, target)


def convolve(memory: DeviceMemory, transform: Transform, grid: Any, n: int) -> None:
    """Replace a flat grid of n^3 numbers by the sum over the shell around each voxel; "transform.*" is scratch."""
    period = transform.forward.shape[0]
    one, other, source = "transform.one", "transform.other", grid
    for step in range(6):
        matrix, done = (transform.forward, period) if step < 3 else (transform.backward, n)
        before = n if step < 3 else period
        sides = [done] * (step % 3) + [before] * (2 - step % 3)
        target = grid if step == 5 else memory.array(one if step % 2 else other, (done * math.prod(sides),))
        multiply(matrix, source.reshape(math.prod(sides), before), target.reshape(done, math.prod(sides)))
        source = target
        if step == 2:
            scale[-(-(period**3) // THREADS), THREADS](source.reshape(period, period, period), transform.eigenvalue)


def transform_message(  # noqa: PLR0913 - a message is between two joints of a tree's voxels
    memory: DeviceMemory,
    limbs: Limbs,
    rows: Rows,
    told: Told,
    ends: tuple[int, int],
    upward: bool,
    shell: Shell,
    n: int,
) -> None:
    """Do what `tell` does for the message from one joint to another of frame 0, through the grid of n^3 voxels."""
    grid = memory.array("transform.grid", (n**3,))
    blocks = -(-rows.spot.shape[2] // THREADS)
    between = np.int32(ends[0]), np.int32(ends[1])
    clear[-(-(n**3) // THREADS), THREADS](grid)
    spread[blocks, THREADS](limbs, rows, told, between, n, grid)
    convolve(memory, _transform(shell.lowest, shell.weights.tobytes(), n), grid, n)
    gather[blocks, THREADS](rows, told, between, upward, n, grid)

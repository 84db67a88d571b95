"""A limb message as a convolution of dense grids, by real trigonometric transforms written as matrix products.

A shell is even along every axis. With a period p >= n + reach nothing wraps round into the grid, and the shell is
diagonal in the cosines and sines of each axis, with the same real eigenvalue for either. What makes this cheap:

- Measured from the grid's centre, cosines see only the even part of a belief and sines only the odd part. A grid of n^3
  numbers becomes (n / 2)^3 vectors of LANES = 8 parts, even (0) or odd (1) along x (bit 0 of the lane), y (bit 1) and z
  (bit 2). If n is odd, one more layer of zeros is thought at the far sides.
- At half-integer places u = j + 1/2, sin(2 pi m u / p) = (-1)^j cos(2 pi (p / 2 - m) u / p). Odd parts with signs that
  alternate therefore take the same cosine transform as even parts, and all lanes do the same; in odd lanes the m-th
  result belongs to the frequency p / 2 - m.
- With p = 4 q, these cosines are even (m even) or odd (m odd) about u = p / 4. So the transform falls into one of sums
  and one of differences, q x q each, and the first of them in two once more. Along each axis results are kept in this
  order: m = 0, 4, 8 ..; then 2, 6, 10 ..; then 1, 3, 5 ..
- Each product takes COLUMNS lines side by side and keeps its sums in registers, see `matmul_simd.py`.

Source: Martucci 1994, Symmetric convolution and the discrete sine and cosine transforms; the splitting of cosine
transforms: Britanak, Yip and Rao 2007, Discrete cosine and sine transforms, chapter 4.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from cuda_kernels.limb_message.matmul_simd import (
    COLUMNS,
    LANES,
    ROWS,
    add,
    butterfly,
    copy,
    join_parities,
    make_product,
    multiply_flipped,
    split_parities,
)
from cuda_kernels.shell import Shell

# Small functions are inlined before compilation: a call that passes arrays counts their users, which costs 15 % here.
_inlined = numba.njit(nogil=True, cache=True, inline="always")
_one_row, _two_rows, _three_rows, _four_rows, _five_rows, _six_rows = map(make_product, range(1, 7))


class Spectrum(NamedTuple):
    """A shell ready for `convolve`.

    quarter: a fourth of the period, voxels.
    eigenvalues: flat; LANES numbers for each m from 0 to `quarter` along z, y and x. They serve `2 * quarter - m` too,
        whose even and odd lanes are those of m exchanged.
    matrices: see `cosine_matrices`.
    """

    quarter: int
    eigenvalues: NDArray[np.float64]
    matrices: NDArray[np.float64]


class Sizes(NamedTuple):
    """Half the voxels a side, rounded up, and a fourth of the period, voxels."""

    half: int
    quarter: int


class Lines(NamedTuple):
    """COLUMNS parallel lines of vectors in a flat array: where the first begins, steps along a line and to the next."""

    start: int
    step: int
    across: int


def limb_message(  # type: ignore[no-untyped-def]
    belief, source, target, shell: Shell, n: int
) -> NDArray[np.float64]:
    """See the contract in the folder's `__init__`."""
    dense = np.zeros(n**3)
    dense[source] = belief
    message = convolve(dense.reshape(n, n, n), spectrum(shell, n))
    return np.maximum(message.ravel()[target], 0.0)


def spectrum(shell: Shell, n: int) -> Spectrum:
    """What `convolve` needs of a shell on a grid of n voxels a side; computed once for each shell and n."""
    return _spectrum(shell.lowest, shell.weights.tobytes(), n)


@lru_cache(maxsize=64)
def _spectrum(lowest: int, weights: bytes, n: int) -> Spectrum:
    shell = Shell(lowest, np.frombuffer(weights, np.float32), False)
    reach = min(shell.reach, n - 1)  # longer offsets lead out of the grid from every voxel
    quarter = -(-(n + reach) // 4)
    period = 4 * quarter
    squares = np.arange(reach + 1) ** 2
    squared = squares[:, None, None] + squares[:, None] + squares
    inside = (squared >= shell.lowest) & (squared <= shell.highest)
    weight = shell.weights.astype(np.float64)[np.clip(squared - shell.lowest, 0, shell.weights.size - 1)]
    values = np.where(inside, weight, 0.0)
    cosines = np.cos(2 * np.pi / period * (np.outer(np.arange(2 * quarter + 1), np.arange(reach + 1)) % period))
    cosines[:, 1:] *= 2.0  # offsets of either sign
    for _ in range(3):
        values = np.tensordot(values, cosines, (0, 1))
    m = np.arange(quarter + 1)
    norm = np.where(m == 0, 1.0, 2.0) / period
    of_parity = (m, 2 * quarter - m)
    flat = _aligned((quarter + 1) ** 3)
    lanes = flat.reshape(quarter + 1, quarter + 1, quarter + 1, LANES)
    for lane in range(LANES):
        chosen = values[np.ix_(of_parity[lane >> 2], of_parity[lane >> 1 & 1], of_parity[lane & 1])]
        lanes[..., lane] = chosen * norm[:, None, None] * norm[:, None] * norm
    flat.flags.writeable = False
    return Spectrum(quarter, flat, cosine_matrices(quarter))


@lru_cache(maxsize=256)
def cosine_matrices(quarter: int) -> NDArray[np.float64]:
    """Flat: a square matrix (place, frequency) for each part of the order of frequencies, then the three transposed."""
    middle, before = (quarter + 1) // 2, quarter // 2
    parts = (
        (np.arange(middle), 4 * np.arange(middle)),
        (np.arange(before)[::-1], 4 * np.arange(before) + 2),  # the second fold leaves its differences in this order
        (np.arange(quarter), 2 * np.arange(quarter) + 1),
    )
    period = 4 * quarter
    tables = [np.cos(np.pi / period * (np.outer(2 * j + 1, m) % (2 * period))) for j, m in parts]
    flat = np.concatenate([table.ravel() for table in tables] + [table.T.ravel() for table in tables])
    flat.flags.writeable = False
    return flat


@numba.njit(nogil=True, cache=True)
def convolve(belief, spectrum):  # type: ignore[no-untyped-def]
    """(n, n, n) float64: the belief (n, n, n) summed over the shell around each voxel, zero outside the grid.

    `spectrum` must be that of a grid of n. Runs on one thread and gives the same bits on every call. The rounding error
    is about 2e-15 of the largest value on random beliefs (n from 5 to 128), 5e-14 where only corners of the grid are a
    limb apart; zeros may come out below zero.
    """
    n = belief.shape[0]
    quarter, eigenvalues, matrices = spectrum
    half, many = (n + 1) // 2, 2 * quarter
    sizes = Sizes(half, quarter)
    width = -(-half // LANES) * LANES
    plane = half * width + COLUMNS  # not a power of two, whose multiples share few lines of a cache
    planes = -(-many // COLUMNS) * COLUMNS  # those that only fill up hold anything: no sum goes across columns
    volume = _aligned(planes * plane)  # frequency along z, x, y
    slab = _aligned(half * many * COLUMNS)  # x, frequency along y, COLUMNS frequencies along z
    panels = _aligned(many * COLUMNS), _aligned(many * COLUMNS)
    rows = np.zeros((LANES // 2) * 2 * width)
    block = _aligned(COLUMNS * width)
    message = np.empty((n, n, n))
    for x in range(half):
        _enter(belief, x, matrices, sizes, (rows, block, panels[0]), volume, plane)
    for z in range(0, planes, COLUMNS):
        _convolve_slab(volume, (z, plane), eigenvalues, matrices, sizes, slab, panels)
    for x in range(half):
        _leave(volume, plane, x, matrices, sizes, (rows, block, panels[0]), message)
    return message


@numba.njit(nogil=True, cache=True)
def _enter(belief, x, matrices, sizes, scratch, volume, plane):  # type: ignore[no-untyped-def]
    """Splits the x-th layers from the centre into even and odd parts and transforms them along z, into `volume`."""
    rows, block, panel = scratch
    half = sizes.half
    width = block.size // LANES // COLUMNS
    for y in range(0, half, COLUMNS):
        for c in range(min(COLUMNS, half - y)):
            _split(belief, x, y + c, rows, width)
            for z in range(0, half, LANES):
                split_parities(rows, 2 * width, width + z, width - 1 - z, block, c * width + z)
        into = Lines(x * width + y, plane, 1)
        _forward(matrices, sizes, block, Lines(0, 1, width), panel, volume, into)


@numba.njit(nogil=True, cache=True)
def _leave(volume, plane, x, matrices, sizes, scratch, message):  # type: ignore[no-untyped-def]
    """The reverse of `_enter`: fills the message's x-th layers from the centre."""
    rows, block, panel = scratch
    half = sizes.half
    width = block.size // LANES // COLUMNS
    for y in range(0, half, COLUMNS):
        _backward(matrices, sizes, volume, Lines(x * width + y, plane, 1), panel, block, Lines(0, 1, width))
        for c in range(min(COLUMNS, half - y)):
            for z in range(0, half, LANES):
                join_parities(block, c * width + z, rows, 2 * width, width + z, width - 1 - z)
            _join(rows, width, x, y + c, message)


@_inlined
def _split(belief, x, y, rows, width):  # type: ignore[no-untyped-def]
    """Copies the four rows that are x-th and y-th from the centre, centred in rows of 2 * width.

    The two sides change places at every second one, which gives odd parts the signs that they need.
    """
    n = belief.shape[0]
    half = (n + 1) // 2
    for i in range(4):
        at_x = half - 1 - x if (i ^ x) & 1 else half + x
        at_y = half - 1 - y if (i >> 1 ^ y) & 1 else half + y
        row = rows[(2 * i + 1) * width - half : (2 * i + 1) * width - half + n]
        if at_x < n and at_y < n:
            for z in range(n):
                row[z] = belief[at_x, at_y, z]
        else:
            row[:] = 0.0


@_inlined
def _join(rows, width, x, y, message):  # type: ignore[no-untyped-def]
    """The reverse of `_split`."""
    n = message.shape[0]
    half = (n + 1) // 2
    for i in range(4):
        at_x = half - 1 - x if (i ^ x) & 1 else half + x
        at_y = half - 1 - y if (i >> 1 ^ y) & 1 else half + y
        row = rows[(2 * i + 1) * width - half : (2 * i + 1) * width - half + n]
        if at_x < n and at_y < n:
            for z in range(n):
                message[at_x, at_y, z] = row[z]


@numba.njit(nogil=True, cache=True)
def _convolve_slab(volume, place, eigenvalues, matrices, sizes, slab, panels):  # type: ignore[no-untyped-def]
    """Convolves along x and y, in place, COLUMNS planes of the volume; place: the first, and vectors a plane.

    All that is touched more than once stays in a second-level cache of 1 MB up to n = 96 or so.
    """
    panel, frequencies = panels
    half, many = sizes.half, 2 * sizes.quarter
    z, plane = place
    width = (plane - COLUMNS) // half
    for x in range(half):
        into = Lines(x * many * COLUMNS, COLUMNS, 1)
        _forward(matrices, sizes, volume, Lines(z * plane + x * width, 1, plane), panel, slab, into)
    for y in range(many):
        lines = Lines(y * COLUMNS, many * COLUMNS, 1)
        _forward(matrices, sizes, slab, lines, panel, frequencies, Lines(0, COLUMNS, 1))
        for c in range(COLUMNS):
            _multiply(frequencies, c, eigenvalues, sizes.quarter, (y, min(z + c, many - 1)))
        _backward(matrices, sizes, frequencies, Lines(0, COLUMNS, 1), panel, slab, lines)
    for x in range(half):
        out_of = Lines(x * many * COLUMNS, COLUMNS, 1)
        _backward(matrices, sizes, slab, out_of, panel, volume, Lines(z * plane + x * width, 1, plane))


@_inlined
def _multiply(frequencies, column, eigenvalues, quarter, yz):  # type: ignore[no-untyped-def]
    """Multiplies a line of all frequencies along x by their eigenvalues, at the y-th and z-th along the other axes."""
    at_y, at_z = _frequency(yz[0], quarter), _frequency(yz[1], quarter)
    flip = (2 if at_y > quarter else 0) + (4 if at_z > quarter else 0)
    at_y, at_z = min(at_y, 2 * quarter - at_y), min(at_z, 2 * quarter - at_z)
    begin = (at_z * (quarter + 1) + at_y) * (quarter + 1)
    for i in range(2 * quarter):
        at_x = _frequency(i, quarter)
        if at_x <= quarter:
            multiply_flipped(frequencies, i * COLUMNS + column, eigenvalues, begin + at_x, flip)
        else:
            at_x = 2 * quarter - at_x
            multiply_flipped(frequencies, i * COLUMNS + column, eigenvalues, begin + at_x, flip + 1)


@numba.njit(nogil=True, cache=True)
def _frequency(i, quarter):  # type: ignore[no-untyped-def]
    """The i-th m in the order that the transforms keep."""
    middle = (quarter + 1) // 2
    if i < middle:
        return 4 * i
    if i < quarter:
        return 4 * (i - middle) + 2
    return 2 * (i - quarter) + 1


@numba.njit(nogil=True, cache=True)
def _forward(matrices, sizes, source, lines, panel, target, into):  # type: ignore[no-untyped-def]
    """Cosine transforms of lines of `half` vectors into lines of `2 * quarter`; `panel` is scratch."""
    half, quarter = sizes
    start, step, across = lines
    alone = 2 * quarter - half  # places whose mirror image lies outside the grid
    for j in range(quarter):
        for c in range(COLUMNS):
            at, low, high = start + j * step + c * across, j * COLUMNS + c, (quarter + j) * COLUMNS + c
            if j < alone:
                copy(source, at, panel, low)
                copy(source, at, panel, high)
            else:
                butterfly(source, at, at + (2 * (quarter - j) - 1) * step, panel, low, high)
    _fold_again(panel, quarter)
    _products(matrices, 0, quarter, panel, Lines(0, COLUMNS, 1), target, into)


@numba.njit(nogil=True, cache=True)
def _backward(matrices, sizes, source, lines, panel, target, into):  # type: ignore[no-untyped-def]
    """The transposed of `_forward`; the lines it reads lie side by side in memory."""
    half, quarter = sizes
    _products(matrices, matrices.size // 2, quarter, source, lines, panel, Lines(0, COLUMNS, 1))
    _fold_again(panel, quarter)
    start, step, across = into
    alone = 2 * quarter - half
    for j in range(quarter):
        for c in range(COLUMNS):
            to, low, high = start + j * step + c * across, j * COLUMNS + c, (quarter + j) * COLUMNS + c
            if j < alone:
                add(panel, low, high, target, to)
            else:
                butterfly(panel, low, high, target, to, to + (2 * (quarter - j) - 1) * step)


@_inlined
def _fold_again(panel, quarter):  # type: ignore[no-untyped-def]
    """Sums and differences of places that mirror each other in the first half of a panel; its middle one stays."""
    for j in range(quarter // 2):
        for c in range(COLUMNS):
            low, high = j * COLUMNS + c, (quarter - 1 - j) * COLUMNS + c
            butterfly(panel, low, high, panel, low, high)


@_inlined
def _products(matrices, corner, quarter, source, lines, target, into):  # type: ignore[no-untyped-def]
    """Products of the three matrices from `corner` on with the three parts of the lines."""
    first = 0
    for part in range(3):
        size = quarter if part == 2 else (quarter + 1 - part) // 2
        these = Lines(lines.start + first * lines.step, lines.step, 1)
        those = Lines(into.start + first * into.step, into.step, into.across)
        _product(matrices, corner, size, source, these, target, those)
        corner += size * size
        first += size


@_inlined
def _product(matrices, corner, size, source, lines, target, into):  # type: ignore[no-untyped-def]
    """A square matrix times COLUMNS lines, in tiles of at most ROWS rows whose heights differ by one at most."""
    tiles = (size + ROWS - 1) // ROWS
    fewest = size // max(tiles, 1)
    row = 0
    for tile in range(tiles):
        rows = fewest if tile < tiles * (fewest + 1) - size else fewest + 1
        at, step = lines.start, lines.step
        start, down, across = into.start + row * into.step, into.step, into.across
        if rows == 6:
            _six_rows(matrices, corner + row, size, source, at, step, target, start, down, across)
        elif rows == 5:
            _five_rows(matrices, corner + row, size, source, at, step, target, start, down, across)
        elif rows == 4:
            _four_rows(matrices, corner + row, size, source, at, step, target, start, down, across)
        elif rows == 3:
            _three_rows(matrices, corner + row, size, source, at, step, target, start, down, across)
        elif rows == 2:
            _two_rows(matrices, corner + row, size, source, at, step, target, start, down, across)
        else:
            _one_row(matrices, corner + row, size, source, at, step, target, start, down, across)
        row += rows


@numba.njit(nogil=True, cache=True)
def _aligned(vectors):  # type: ignore[no-untyped-def]
    """Uninitialised, flat room for vectors, none of which lies across two lines of the cache."""
    room = np.empty((vectors + 1) * LANES)
    skip = -(room.ctypes.data // room.itemsize) % LANES
    return room[skip : skip + vectors * LANES]

"""What views show together at points, point by point: the features of a cell lie side by side, and add up so."""

import numba
import numpy as np

LOG2_E = np.float32(1.4426950408889634)
LEAST = np.float32(-126.0)  # power of two of the smallest share that is told from none
# 2^f for f in 0..1, by powers of f: interpolated at Chebyshev's points, off by 2e-7 of the value at most.
EXP2 = np.polynomial.Chebyshev.interpolate(np.exp2, 6, domain=[0, 1]).convert(kind=np.polynomial.Polynomial).coef
C0, C1, C2, C3, C4, C5, C6 = EXP2.astype(np.float32)


@numba.njit(nogil=True, cache=True)
def view_features(maps, cells, softmax):  # type: ignore[no-untyped-def]
    """What V views show at N points (N, C)."""
    views, channels = maps.shape[0], maps.shape[3]
    out = np.empty((cells.shape[1], channels), np.float32)
    shown = np.empty((views, channels), np.float32)
    largest, below = np.empty(channels, np.float32), np.empty(channels, np.float32)
    bits = np.empty(channels, np.int32)
    scale = bits.view(np.float32)
    for point in range(cells.shape[1]):
        for view in range(views):
            _sample(maps[view], cells[view, point, 0], cells[view, point, 1], shown[view])
        if softmax:
            _mean(shown, largest, below, bits, scale, out[point])
        else:
            total = out[point]
            for c in range(channels):
                total[c] = shown[0, c]
            for view in range(1, views):
                for c in range(channels):
                    total[c] += shown[view, c]
    return out


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _sample(grid, x, y, into):  # type: ignore[no-untyped-def]
    """Fill (C,) with a map (h, w, C) at a cell."""
    h, w = grid.shape[0], grid.shape[1]
    if not (x > -1 and x < w and y > -1 and y < h):  # not so for NaN either
        into[:] = 0
        return
    left, top = int(np.floor(x)), int(np.floor(y))
    right_share, below_share = np.float32(x - left), np.float32(y - top)
    if 0 <= left < w - 1 and 0 <= top < h - 1:  # as below, the four at once
        a, b, c, d = grid[top, left], grid[top, left + 1], grid[top + 1, left], grid[top + 1, left + 1]
        left_share, above_share = np.float32(1) - right_share, np.float32(1) - below_share
        wa, wb, wc, wd = (
            above_share * left_share,
            above_share * right_share,
            below_share * left_share,
            below_share * right_share,
        )
        for k in range(into.size):
            into[k] = wa * a[k] + wb * b[k] + wc * c[k] + wd * d[k]
        return
    into[:] = 0
    for line in range(max(top, 0), min(top + 2, h)):
        down = below_share if line > top else np.float32(1) - below_share
        for column in range(max(left, 0), min(left + 2, w)):
            share = down * (right_share if column > left else np.float32(1) - right_share)
            features = grid[line, column]
            for c in range(into.size):
                into[c] += share * features[c]


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _mean(shown, largest, below, bits, scale, into):  # type: ignore[no-untyped-def]
    """Fill (C,) with the mean over views of what they show (V, C), weighted by its softmax."""
    channels = into.size
    for c in range(channels):
        largest[c], below[c], into[c] = shown[0, c], 0, 0
    for view in range(1, shown.shape[0]):
        for c in range(channels):
            largest[c] = max(largest[c], shown[view, c])
    for view in range(shown.shape[0]):
        values = shown[view]
        for c in range(channels):  # 2 to the whole part of the exponent: its bits, read as a float below
            exponent = max((values[c] - largest[c]) * LOG2_E, LEAST)
            bits[c] = (np.int32(np.floor(exponent)) + np.int32(127)) << np.int32(23)
        for c in range(channels):
            exponent = max((values[c] - largest[c]) * LOG2_E, LEAST)
            f = exponent - np.floor(exponent)
            share = scale[c] * (C0 + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6))))))
            below[c] += share
            into[c] += share * values[c]
    for c in range(channels):
        into[c] /= below[c]

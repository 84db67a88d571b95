"""Means and covariances in one pass over the voxels, shifted to the heaviest one against cancellation."""

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def moments(weight, place, starts, n):  # type: ignore[no-untyped-def]
    """Means (J, 3) and covariances (J, 3, 3) in voxels."""
    joints = starts.size - 1
    mean, covariance = np.empty((joints, 3)), np.empty((joints, 3, 3))
    for joint in range(joints):
        rows = slice(starts[joint], starts[joint + 1])
        if starts[joint + 1] - starts[joint] == n * n * n and in_order(place[rows]):
            _of_grid(weight[rows], n, mean[joint], covariance[joint])
        else:
            _one(weight[rows], place[rows], n, mean[joint], covariance[joint])
    return mean, covariance


@numba.njit(nogil=True, cache=True)
def in_order(place):  # type: ignore[no-untyped-def]
    """Whether the voxels are the first ones of the grid, in its own order."""
    elsewhere = 0
    for i in range(place.size):  # without leaving early, which would keep the compiler from looking at many at once
        elsewhere += place[i] != np.int32(i)
    return elsewhere == 0


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _of_grid(weight, n, mean, covariance):  # type: ignore[no-untyped-def]
    """As `_one` for all voxels in order, line by line: lines along z add up side by side, each place by itself."""
    ox = oy = oz = n // 2  # looking for the heaviest voxel would take longer than all the rest
    sums = np.zeros((6, n))
    w0, wx, wy, wxx, wxy, wyy = sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]
    plane, plane_y, plane_yy = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n):
        plane[:], plane_y[:], plane_yy[:] = 0, 0, 0
        for j in range(n):
            line, y = weight[(i * n + j) * n : (i * n + j + 1) * n], float(j - oy)
            _add(plane, line, 1.0)
            _add(plane_y, line, y)
            _add(plane_yy, line, y * y)
        x = float(i - ox)
        _add(w0, plane, 1.0)
        _add(wx, plane, x)
        _add(wxx, plane, x * x)
        _add(wy, plane_y, 1.0)
        _add(wxy, plane_y, x)
        _add(wyy, plane_yy, 1.0)
    z = np.arange(n) - float(oz)
    firsts = (w0.sum(), wx.sum(), wy.sum(), (w0 * z).sum())
    seconds = (wxx.sum(), wxy.sum(), (wx * z).sum(), wyy.sum(), (wy * z).sum(), (w0 * z * z).sum())
    _finish(firsts, seconds, (ox, oy, oz), mean, covariance)


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _add(into, line, factor):  # type: ignore[no-untyped-def]
    for k in range(into.size):
        into[k] += line[k] * factor


@numba.njit(nogil=True, cache=True)
def _finish(firsts, seconds, origin, mean, covariance):  # type: ignore[no-untyped-def]
    """Fill mean and covariance from sums of weights times shifted coordinates and their products."""
    (total, mx, my, mz), (xx, xy, xz, yy, yz, zz) = firsts, seconds
    mx, my, mz = mx / total, my / total, mz / total
    mean[0], mean[1], mean[2] = origin[0] + mx, origin[1] + my, origin[2] + mz
    covariance[0, 0], covariance[1, 1] = xx / total - mx * mx, yy / total - my * my
    covariance[2, 2] = zz / total - mz * mz
    covariance[0, 1] = covariance[1, 0] = xy / total - mx * my
    covariance[0, 2] = covariance[2, 0] = xz / total - mx * mz
    covariance[1, 2] = covariance[2, 1] = yz / total - my * mz


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _one(weight, place, n, mean, covariance):  # type: ignore[no-untyped-def]
    """Fill mean (3,) and covariance (3, 3). Each sum runs in the order of the voxels, so that its bits are fixed."""
    heaviest = place[np.argmax(weight)]
    ox, oy, oz = heaviest // (n * n), heaviest // n % n, heaviest % n
    per_layer, per_row = 1.0 / (n * n), 1.0 / n  # indices + 1/2 are far enough from whole layers for rounding
    total = mx = my = mz = 0.0
    xx = xy = xz = yy = yz = zz = 0.0
    for i in range(weight.size):
        w, at = weight[i], place[i]
        layer, row = int((at + 0.5) * per_layer), int((at + 0.5) * per_row)
        x, y, z = float(layer - ox), float(row - layer * n - oy), float(at - row * n - oz)
        wx, wy, wz = w * x, w * y, w * z
        total += w
        mx, my, mz = mx + wx, my + wy, mz + wz
        xx, xy, xz = xx + wx * x, xy + wx * y, xz + wx * z
        yy, yz, zz = yy + wy * y, yz + wy * z, zz + wz * z
    _finish((total, mx, my, mz), (xx, xy, xz, yy, yz, zz), (ox, oy, oz), mean, covariance)

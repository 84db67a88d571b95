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
        _one(weight[rows], place[rows], n, mean[joint], covariance[joint])
    return mean, covariance


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
    mx, my, mz = mx / total, my / total, mz / total
    mean[0], mean[1], mean[2] = ox + mx, oy + my, oz + mz
    covariance[0, 0], covariance[1, 1], covariance[2, 2] = (
        xx / total - mx * mx,
        yy / total - my * my,
        zz / total - mz * mz,
    )
    covariance[0, 1] = covariance[1, 0] = xy / total - mx * my
    covariance[0, 2] = covariance[2, 0] = xz / total - mx * mz
    covariance[1, 2] = covariance[2, 1] = yz / total - my * mz

"""Undistorted coordinates of distorted ones, point by point, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from calib import distortion

ITERATIONS, CLOSE_ENOUGH, STEP = 60, 1e-12, 1e-6

_pinhole = njit(error_model="numpy")(distortion.distort_pinhole)
_scale = njit(error_model="numpy")(distortion.fisheye_scale)


@njit(error_model="numpy")
def _distort(x, y, k, fisheye):  # type: ignore[no-untyped-def]
    if fisheye:
        scale = _scale(max(np.sqrt(x * x + y * y), 1e-12), k)
        return x * scale, y * scale
    return _pinhole(x, y, k)


@njit(cache=True, nogil=True, error_model="numpy")
def invert_distortion(xd, yd, x, y, k, fisheye):  # type: ignore[no-untyped-def]
    """Where the lens model gives (xd, yd), all (N,), by Newton's method from a start (x, y); and what is left over
    (N,).

    The Jacobian is that of central differences. What is left over stays large where the model never gives that place.
    """
    out_x, out_y, left = np.empty(xd.size), np.empty(xd.size), np.empty(xd.size)
    for n in range(xd.size):
        px, py, residual = x[n], y[n], np.inf
        for _ in range(ITERATIONS):
            fx, fy = _distort(px, py, k, fisheye)
            ex, ey = fx - xd[n], fy - yd[n]
            residual = max(abs(ex), abs(ey))
            if not residual > CLOSE_ENOUGH:
                break
            ax, ay = _distort(px + STEP, py, k, fisheye)
            bx, by = _distort(px - STEP, py, k, fisheye)
            cx, cy = _distort(px, py + STEP, k, fisheye)
            dx, dy = _distort(px, py - STEP, k, fisheye)
            a, b = (ax - bx) / (2 * STEP), (cx - dx) / (2 * STEP)
            c, d = (ay - by) / (2 * STEP), (cy - dy) / (2 * STEP)
            determinant = a * d - b * c
            px, py = px - (d * ex - b * ey) / determinant, py - (a * ey - c * ex) / determinant
        out_x[n], out_y[n], left[n] = px, py, residual
    return out_x, out_y, left

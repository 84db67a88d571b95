"""Where points of the grid fall in the heat maps: compiled projection of many points at a time."""

import math

import numba
import numpy as np

from calib import distortion

_distort_pinhole = numba.njit(distortion.distort_pinhole, inline="always")
_fisheye_scale = numba.njit(distortion.fisheye_scale, inline="always")
_FAST = {"contract", "nsz", "arcp"}


@numba.njit(nogil=True, cache=True)
def cell_from_distorted(cameras, cell_from_image):  # type: ignore[no-untyped-def]
    """(V, 3, 3) homographies from distorted normalised coordinates to cells of the heat map."""
    out = np.empty((len(cameras), 3, 3))
    for view in range(len(cameras)):
        for a in range(3):
            for b in range(3):
                image, affine = cameras[view, 12:21], cell_from_image[view]
                out[view, a, b] = image[6 + b]
                if a < 2:
                    out[view, a, b] *= affine[a, 2]
                    out[view, a, b] += affine[a, 0] * image[b] + affine[a, 1] * image[3 + b]
    return out


@numba.njit(nogil=True, cache=True)
def camera_steps(camera, steps):  # type: ignore[no-untyped-def]
    """(3, N) steps (3, N) of the world as steps in the camera's frame."""
    out = np.empty(steps.shape)
    for a in range(3):
        for i in range(steps.shape[1]):
            out[a, i] = camera[3 * a] * steps[0, i] + camera[3 * a + 1] * steps[1, i] + camera[3 * a + 2] * steps[2, i]
    return out


@numba.njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def project_to_cells(camera, m, origin, steps, x, y):  # type: ignore[no-untyped-def]
    """Fill x, y (N,) with the cells of the points `origin` (3,) in the world plus `steps` (3, N) in the camera's frame.

    NaN where the camera cannot see, which every later comparison then refuses. `m` (3, 3) as of `cell_from_distorted`.
    """
    x0 = camera[0] * origin[0] + camera[1] * origin[1] + camera[2] * origin[2] + camera[9]
    y0 = camera[3] * origin[0] + camera[4] * origin[1] + camera[5] * origin[2] + camera[10]
    z0 = camera[6] * origin[0] + camera[7] * origin[1] + camera[8] * origin[2] + camera[11]
    limit = camera[35] * camera[35]
    step_x, step_y, step_z = steps[0], steps[1], steps[2]
    for i in range(x.size):
        z = z0 + step_z[i]
        inverse = 1.0 / z
        xi, yi = (x0 + step_x[i]) * inverse, (y0 + step_y[i]) * inverse
        seen = (z > 1e-6) & (xi * xi + yi * yi < limit)
        x[i] = xi if seen else np.nan
        y[i] = yi if seen else np.nan
    _distort_to_cells(camera, m, x, y)


@numba.njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _distort_to_cells(camera, m, x, y):  # type: ignore[no-untyped-def]
    """Turn normalised coordinates into cells of the heat map, in place."""
    # A tuple of scalars, so that the compiler sees that writing x and y leaves the coefficients alone.
    k = (
        camera[21], camera[22], camera[23], camera[24], camera[25], camera[26], camera[27],
        camera[28], camera[29], camera[30], camera[31], camera[32], camera[33], camera[34],
    )  # fmt: skip
    if camera[35] < 0:
        for i in range(x.size):
            scale = _fisheye_scale(max(math.sqrt(x[i] * x[i] + y[i] * y[i]), 1e-12), k)
            x[i], y[i] = x[i] * scale, y[i] * scale
    else:
        for i in range(x.size):
            x[i], y[i] = _distort_pinhole(x[i], y[i], k)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = (
        m[0, 0], m[0, 1], m[0, 2], m[1, 0], m[1, 1], m[1, 2], m[2, 0], m[2, 1], m[2, 2],
    )  # fmt: skip
    for i in range(x.size):
        xi, yi = x[i], y[i]
        w = 1.0 / (m20 * xi + m21 * yi + m22)
        x[i] = (m00 * xi + m01 * yi + m02) * w
        y[i] = (m10 * xi + m11 * yi + m12) * w

"""`unproject` for CPUs: a thread takes rows of voxels; per row and view first all projections, then all gathers.

Joints lie side by side in the maps (padded to a multiple of LANES), so that one gather of four cells serves them all.
"""

import math

import numba
import numpy as np

from calib import distortion
from cuda_kernels.unproject.simd import LANES, multiply_bilinear

_distort_pinhole = numba.njit(distortion.distort_pinhole, inline="always")
_fisheye_scale = numba.njit(distortion.fisheye_scale, inline="always")


@numba.njit(fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _row_normalised(camera, origin, step_z, x, y):  # type: ignore[no-untyped-def]
    """Undistorted normalised coordinates of a row of voxels, `step_z` metres apart along z from `origin`; NaN
    where the camera cannot see, which every later comparison then refuses.
    """
    x0 = camera[0] * origin[0] + camera[1] * origin[1] + camera[2] * origin[2] + camera[9]
    y0 = camera[3] * origin[0] + camera[4] * origin[1] + camera[5] * origin[2] + camera[10]
    z0 = camera[6] * origin[0] + camera[7] * origin[1] + camera[8] * origin[2] + camera[11]
    dx, dy, dz = camera[2] * step_z, camera[5] * step_z, camera[8] * step_z
    limit = camera[35] * camera[35]
    for i in range(x.size):
        z = z0 + i * dz
        inverse = 1.0 / z
        xi, yi = (x0 + i * dx) * inverse, (y0 + i * dy) * inverse
        seen = (z > 1e-6) & (xi * xi + yi * yi < limit)
        x[i] = xi if seen else np.nan
        y[i] = yi if seen else np.nan


@numba.njit(fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _row_cells(camera, m, x, y):  # type: ignore[no-untyped-def]
    """Turn normalised coordinates into cells of the heat map, in place; `m` takes distorted coordinates to cells."""
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


@numba.njit(parallel=True, fastmath={"contract", "nsz", "arcp"}, cache=True, error_model="numpy")
def unproject(score, cell_from_image, cameras, centre, side, floor, out):  # type: ignore[no-untyped-def]
    """Fill `out`; see the contract in the folder's `__init__`. A border of zeros round the maps spares every check."""
    views, h, w, joints = score.shape
    n = out.shape[0]
    wide = (joints + LANES - 1) // LANES * LANES
    padded = np.zeros((views, h + 2, w + 2, wide), np.float32)
    padded[:, 1:-1, 1:-1, :joints] = score
    maps = padded.reshape(-1)
    row, view_size = (w + 2) * wide, (h + 2) * (w + 2) * wide
    step, start = side / n, 0.5 - n / 2
    floor32 = np.float32(floor)
    cell_from_distorted = np.empty((views, 3, 3))
    for view in range(views):
        for a in range(3):
            for b in range(3):
                image, affine = cameras[view, 12:21], cell_from_image[view]
                cell_from_distorted[view, a, b] = image[6 + b]
                if a < 2:
                    cell_from_distorted[view, a, b] *= affine[a, 2]
                    cell_from_distorted[view, a, b] += affine[a, 0] * image[b] + affine[a, 1] * image[3 + b]
    for slab in numba.prange(n):
        cell_x, cell_y = np.empty(n), np.empty(n)
        voxels = np.empty((n, wide), out.dtype)
        flat = voxels.reshape(-1)
        origin = np.empty(3)
        for j in range(n):
            origin[0] = centre[0] + (slab + start) * step
            origin[1] = centre[1] + (j + start) * step
            origin[2] = centre[2] + start * step
            voxels[:] = 1
            for view in range(views):
                _row_normalised(cameras[view], origin, step, cell_x, cell_y)
                _row_cells(cameras[view], cell_from_distorted[view], cell_x, cell_y)
                for i in range(n):
                    cx, cy = cell_x[i], cell_y[i]
                    if cx > -1.0 and cy > -1.0 and cx < w and cy < h:
                        x, y = int(cx + 1.0), int(cy + 1.0)
                        fx, fy = np.float32(cx + 1.0 - x), np.float32(cy + 1.0 - y)
                        corner = view * view_size + y * row + x * wide
                        one = np.float32(1)
                        weights = ((one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy)
                        for at in range(0, wide, LANES):
                            multiply_bilinear(maps, corner + at, wide, row, weights, floor32, flat, i * wide + at)
                    else:
                        voxels[i] *= floor32
            out[slab, j] = voxels[:, :joints]

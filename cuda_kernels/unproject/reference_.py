"""The definition of `unproject`, equation by equation, in plain loops over voxels."""

import numpy as np

from calib.distortion import distort_pinhole, fisheye_scale


def unproject(score, cell_from_image, cameras, centre, side, floor, out):  # type: ignore[no-untyped-def]
    """Fill `out`; see the contract in the folder's `__init__`."""
    n = out.shape[0]
    for index in np.ndindex(n, n, n):
        point = centre + (np.array(index) + 0.5 - n / 2) * side / n
        product = np.ones(out.shape[3])
        for view in range(len(score)):
            product = product * (floor + _sample(score[view], cell_from_image[view], cameras[view], point))
        out[index] = product


def _sample(maps, cell_from_image, camera, point):  # type: ignore[no-untyped-def]
    R, t, image = camera[:9].reshape(3, 3), camera[9:12], camera[12:21].reshape(3, 3)
    k, radius = camera[21:35], camera[35]
    x, y, z = R @ point + t
    if z <= 1e-6 or np.hypot(x / z, y / z) >= abs(radius):
        return np.zeros(maps.shape[2])
    x, y = x / z, y / z
    if radius < 0:
        scale = fisheye_scale(max(np.hypot(x, y), 1e-12), k)
        x, y = x * scale, y * scale
    else:
        x, y = distort_pinhole(x, y, k)
    u, v, w = image @ [x, y, 1.0]
    cx, cy = cell_from_image @ [u / w, v / w, 1.0]
    x0, y0 = int(np.floor(cx)), int(np.floor(cy))
    total = np.zeros(maps.shape[2])
    for yi, wy in ((y0, 1 - (cy - y0)), (y0 + 1, cy - y0)):
        for xi, wx in ((x0, 1 - (cx - x0)), (x0 + 1, cx - x0)):
            if 0 <= yi < maps.shape[0] and 0 <= xi < maps.shape[1]:
                total += wy * wx * maps[yi, xi]
    return total

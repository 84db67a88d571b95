"""Lens distortion, written once for scalars and arrays, so that NumPy, Numba and CUDA all run these lines.

Coefficients come in one array of 14 (OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tx ty, unused ones zero);
the fisheye model uses the first four. Points are normalised: x/z and y/z in the camera's frame.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

N_COEFFICIENTS = 14
PINHOLE_LENGTHS = (0, 4, 5, 8, 12, 14)


def distort_pinhole(x, y, k):  # type: ignore[no-untyped-def]
    """Distorted normalised coordinates (x', y') of (x, y) under rational, tangential and thin-prism terms.

    The sensor tilt (last two of `k`) is not applied here: see `tilt_matrix`.
    Source: OpenCV's camera model, as documented for `projectPoints`.
    """
    r2 = x * x + y * y
    numerator = 1.0 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
    denominator = 1.0 + r2 * (k[5] + r2 * (k[6] + r2 * k[7]))
    radial = numerator / denominator
    xd = x * radial + 2.0 * k[2] * x * y + k[3] * (r2 + 2.0 * x * x) + r2 * (k[8] + r2 * k[9])
    yd = y * radial + k[2] * (r2 + 2.0 * y * y) + 2.0 * k[3] * x * y + r2 * (k[10] + r2 * k[11])
    return xd, yd


def fisheye_scale(r, k):  # type: ignore[no-untyped-def]
    """Ratio of distorted to undistorted radius at normalised radius `r` > 0 of the equidistant fisheye model.

    Source: Kannala and Brandt 2006, in OpenCV's form theta_d = theta (1 + k1 theta^2 + ... + k4 theta^8).
    """
    theta = np.arctan(r)
    t2 = theta * theta
    return theta * (1.0 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])))) / r


def tilt_matrix(tau_x: float, tau_y: float) -> NDArray[np.float64]:
    """(3, 3) homography of a sensor tilted by the two angles (radians), OpenCV's sign convention.

    It acts on distorted normalised coordinates; the identity for zero angles.
    """
    rot_x = np.array([[1, 0, 0], [0, math.cos(tau_x), math.sin(tau_x)], [0, -math.sin(tau_x), math.cos(tau_x)]])
    rot_y = np.array([[math.cos(tau_y), 0, -math.sin(tau_y)], [0, 1, 0], [math.sin(tau_y), 0, math.cos(tau_y)]])
    rot = rot_y @ rot_x
    project = np.array([[rot[2, 2], 0, -rot[0, 2]], [0, rot[2, 2], -rot[1, 2]], [0, 0, 1.0]])
    return project @ rot


def valid_radius(k: NDArray[np.float64], fisheye: bool) -> float:
    """Largest normalised radius up to which the radial model still grows; infinity if it always does.

    Beyond it a polynomial folds back, and points far outside the picture would seem to lie inside it.
    """
    return _valid_radius(tuple(float(number) for number in k), fisheye)


@lru_cache(maxsize=256)
def _valid_radius(numbers: tuple[float, ...], fisheye: bool) -> float:
    k = np.array(numbers)
    radii = np.tan(np.linspace(1e-4, 1.553, 4000)) if fisheye else np.linspace(1e-3, 8.0, 8000)
    if fisheye:
        distorted = radii * fisheye_scale(radii, k)
    else:
        radial_only = np.where(np.isin(np.arange(N_COEFFICIENTS), (0, 1, 4, 5, 6, 7)), k, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            distorted = distort_pinhole(radii, np.zeros_like(radii), radial_only)[0]
    folds = np.flatnonzero(~(np.diff(distorted) > 0))
    return float(radii[folds[0]]) if folds.size else math.inf

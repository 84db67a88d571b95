"""How uncertain a triangulated point is: the covariance of its least-squares fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.rig import Rig
from calib.triangulate import reprojection_error_px

Floats = NDArray[np.float64]
_STEP_M = 1e-4  # of the central differences
_WORST_CONDITION = 1e12
_LEAST_SAY = 0.1  # share of the greatest weight from which on a view adds degrees of freedom


def fit_covariance(rig: Rig, xyz_m: Floats, uv_px: ArrayLike, weight: ArrayLike, least_px: float) -> Floats:
    """(N, 3, 3) covariance of points fitted to pixels, square metres; NaN where there is no point.

    Pixels of the greatest weight are taken to err by the root of the weighted residuals' variance, or by `least_px` if
    that is more; those of a share w of that weight by 1 / w as much. So a common factor of the weights changes nothing.
    A view of a small share adds no degrees of freedom, as if it were missing: its pixels hardly enter the residuals.

    Args:
        xyz_m: (N, 3) the points, NaN where there is none. uv_px: (V, N, 2).
        weight: (V, N) >= 0, by which a view's residual is multiplied; views of weight 0 took no part.
        least_px: standard deviation of a pixel at least.
    Source: Hartley and Zisserman, section 5.2 (covariance of weighted least squares).
    """
    given = np.asarray(weight, dtype=np.float64)
    greatest = given.max(axis=0)
    w = given / np.where(greatest > 0, greatest, 1.0)
    used = w > 0
    h = _STEP_M
    J = np.stack([(rig.project(xyz_m + h * a) - rig.project(xyz_m - h * a)) / (2 * h) for a in np.eye(3)], -1)
    error = np.where(used, w * reprojection_error_px(rig, xyz_m, uv_px), 0.0)
    freedom = np.maximum(2 * (w >= _LEAST_SAY).sum(axis=0) - 3, 1)
    variance = np.maximum((error**2).sum(axis=0) / freedom, least_px**2)
    H = np.einsum("vn,vnai,vnaj->nij", w**2, np.nan_to_num(J), np.nan_to_num(J))
    good = (used.sum(axis=0) >= 2) & (np.linalg.cond(H) < _WORST_CONDITION)
    cov = np.full(H.shape, np.nan)
    cov[good] = np.linalg.inv(H[good]) * variance[good, None, None]
    return cov

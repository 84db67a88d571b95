"""Triangulation: one 3D point from its pixels in several cameras, by linear least squares or robustly."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.rig import Rig

Floats = NDArray[np.float64]
GAUSS_NEWTON_STEPS = 8
MAX_PAIRS = 500


def undistort_views(rig: Rig, uv_px: ArrayLike) -> Floats:
    """(V, ..., 2) undistorted normalised coordinates of pixels (V, ..., 2)."""
    uv = np.asarray(uv_px, dtype=np.float64)
    return np.stack([camera.undistort(points) for camera, points in zip(rig.cameras, uv, strict=True)])


def triangulate_dlt(rig: Rig, uv_px: ArrayLike, weight: ArrayLike) -> Floats:
    """(N, 3) points in metres that minimise the weighted algebraic error; NaN where fewer than two views count.

    Args:
        uv_px: (V, N, 2) pixels, NaN where missing.
        weight: (V, N) non-negative; each view's two rows are multiplied by it. NaN counts as 0.
    Source: Hartley and Zisserman, section 12.2; the weights are those of Iskakov et al. 2019, eq. 4.
    """
    xy = undistort_views(rig, uv_px)
    given = np.asarray(weight, dtype=np.float64)
    w = np.where(np.isfinite(xy).all(-1) & ~np.isnan(given), given, 0.0)
    return _solve_dlt(rig, np.nan_to_num(xy), w)


def _solve_dlt(rig: Rig, xy: Floats, w: Floats) -> Floats:
    P = np.stack([np.column_stack([c.R_cam_from_world, c.t_cam_from_world_m]) for c in rig.cameras])
    rows = xy[..., :, None] * P[:, None, 2:3, :] - P[:, None, :2, :]
    A = (w[..., None, None] * rows).transpose(1, 0, 2, 3).reshape(w.shape[1], 2 * len(rig), 4)
    enough = (w > 0).sum(axis=0) >= 2
    solution = np.full((w.shape[1], 4), np.nan)
    if enough.any():
        solution[enough] = np.linalg.svd(A[enough], full_matrices=False)[2][:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return solution[:, :3] / solution[:, 3:]


def reprojection_error_px(rig: Rig, xyz_m: ArrayLike, uv_px: ArrayLike) -> Floats:
    """(V, N) distance in pixels between given pixels (V, N, 2) and the projections of points (N, 3)."""
    return np.linalg.norm(rig.project(xyz_m) - np.asarray(uv_px, dtype=np.float64), axis=-1)


def triangulate_ransac(
    rig: Rig, uv_px: ArrayLike, weight: ArrayLike, threshold_px: float, min_views: int = 2
) -> tuple[Floats, NDArray[np.bool_]]:
    """Points (N, 3) in metres on which most views agree, and which views (V, N) those are.

    Every pair of views proposes a point (for more than 500 pairs, a fixed subset that spreads over all views); the
    proposal with the most views within `threshold_px`, then the smallest error, wins. It is refined by Gauss-Newton on
    the Huber loss of the reprojection error over its inliers. NaN where fewer than `min_views` agree.

    Args:
        uv_px: (V, N, 2) pixels, NaN where missing. weight: (V, N); views of zero weight take no part.
    Source: the RANSAC baseline of Iskakov et al. 2019, section 3, with the error in real pixels.
    """
    uv = np.asarray(uv_px, dtype=np.float64)
    xy = undistort_views(rig, uv)
    usable = np.isfinite(xy).all(-1) & (np.asarray(weight) > 0)
    xy = np.nan_to_num(xy)
    n = uv.shape[1]
    best_count, best_error = np.zeros(n, int), np.full(n, np.inf)
    best_inliers = np.zeros((len(rig), n), bool)
    for a, b in _pairs(len(rig)):
        pair = Rig((rig.cameras[a], rig.cameras[b]))
        points = _solve_dlt(pair, xy[[a, b]], usable[[a, b]].astype(np.float64))
        error = np.where(usable, reprojection_error_px(rig, points, uv), np.inf)
        inliers = error <= threshold_px
        count = inliers.sum(0)
        total = np.where(inliers, error, 0.0).sum(0)
        better = (count > best_count) | ((count == best_count) & (total < best_error))
        best_count, best_error = np.where(better, count, best_count), np.where(better, total, best_error)
        best_inliers = np.where(better, inliers, best_inliers)
    best_inliers &= best_count >= max(min_views, 2)
    start = _solve_dlt(rig, xy, best_inliers.astype(np.float64))
    return refine_huber(rig, start, uv, best_inliers.astype(np.float64), threshold_px / 2), best_inliers


def _pairs(views: int) -> list[tuple[int, int]]:
    pairs = list(combinations(range(views), 2))
    if len(pairs) <= MAX_PAIRS:
        return pairs
    return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[:MAX_PAIRS]]


def refine_huber(rig: Rig, xyz_m: Floats, uv_px: Floats, weight: Floats, huber_px: float) -> Floats:
    """Points (N, 3) moved to a minimum of the weighted Huber loss of their reprojection error, lens model included."""
    xyz = xyz_m.copy()
    for _ in range(GAUSS_NEWTON_STEPS):
        residual, jacobian = _linearise(rig, xyz, uv_px)
        size = np.linalg.norm(residual, axis=-1)
        w = weight * np.minimum(1.0, huber_px / np.maximum(size, 1e-9))
        w = np.where(np.isfinite(size), w, 0.0)
        J, r = np.nan_to_num(jacobian), np.nan_to_num(residual)
        H = np.einsum("vn,vnai,vnaj->nij", w, J, J)
        g = np.einsum("vn,vnai,vna->ni", w, J, r)
        good = np.isfinite(xyz).all(-1) & ((w > 0).sum(0) >= 2)
        if not good.any():
            break
        damping = 1e-9 * np.trace(H, axis1=1, axis2=2)[good, None, None] * np.eye(3)
        step = np.linalg.solve(H[good] + damping, g[good, :, None])[..., 0]
        xyz[good] -= np.clip(step, -0.5, 0.5)
    return xyz


def _linearise(rig: Rig, xyz: Floats, uv: Floats) -> tuple[Floats, Floats]:
    """Residual (V, N, 2) and its Jacobian (V, N, 2, 3), by central differences of 0.1 mm."""
    h = 1e-4
    sides = [(rig.project(xyz + h * axis) - rig.project(xyz - h * axis)) / (2 * h) for axis in np.eye(3)]
    return rig.project(xyz) - uv, np.stack(sides, axis=-1)

"""Refinement of a rig on what it sees: bundle adjustment of cameras and points, held back by priors on the cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.camera import Camera
from calib.errors import CalibrationError
from calib.rig import Rig
from calib.triangulate import refine_huber, reprojection_error_px, triangulate_dlt, triangulate_ransac

Floats = NDArray[np.float64]

PARAMETERS = 9  # of a camera: rotation vector (3), shift of its centre in m (3), log focal, principal point in px (2)
MIN_POINTS, MIN_SPREAD_M = 50, 0.05
FIRST_DAMPING, LEAST_DAMPING, DAMPING_TRIES = 1e-4, 1e-9, 12
CONVERGED = 1e-3  # least gain of a step worth another; one standard deviation of anything costs 0.5
GAUGE_STEPS = 5
LEAST_SHARE, MOST_SIGMAS = 0.5, 4.0  # of points that agree, and of a camera's change, in a fit that can be believed


@dataclass(frozen=True)
class RefineSettings:
    """How far pixels and the given calibration are trusted, and which points are used; a sigma of 0 fixes a parameter.

    `pixel_sigma_px` is that of an observation of weight 1, `huber` where the loss bends, in such sigmas; `focal_sigma`
    is relative. Of points that can be used, at most `max_points` are. Raises CalibrationError for a value that makes no
    sense, or where every parameter is fixed.
    """

    pixel_sigma_px: float = 10.0
    rotation_sigma_deg: float = 1.0
    position_sigma_m: float = 0.05
    focal_sigma: float = 0.0
    centre_sigma_px: float = 0.0
    huber: float = 1.5
    ransac_threshold_px: float = 60.0
    min_views: int = 3
    max_points: int = 4000
    iterations: int = 30

    def __post_init__(self) -> None:
        """Check every value against the least that makes sense."""
        above_zero = dict.fromkeys(("pixel_sigma_px", "huber", "ransac_threshold_px"), 1e-6)
        least = {"min_views": 3, "max_points": MIN_POINTS, "iterations": 1} | above_zero
        for entry in fields(self):
            value, bound = getattr(self, entry.name), least.get(entry.name, 0)
            if not (np.isfinite(value) and value >= bound):
                raise CalibrationError(f"refine: {entry.name} must be a finite number >= {bound}, got {value}")
        if not (self.sigma > 0).any():
            raise CalibrationError("refine: every sigma of the cameras is 0, which leaves nothing to refine")

    @property
    def sigma(self) -> Floats:
        """(9,) standard deviations of a camera's parameters: radians, metres, relative focal length, pixels."""
        each = [np.radians(self.rotation_sigma_deg), self.position_sigma_m, self.focal_sigma, self.centre_sigma_px]
        return np.repeat(np.asarray(each, dtype=np.float64), [3, 3, 1, 2])


@dataclass(frozen=True)
class CameraChange:
    """How far one camera was moved from the given calibration, and the number of points by which that was judged."""

    name: str
    rotation_deg: float
    position_m: float
    focal_ratio: float
    centre_shift_px: tuple[float, float]
    n_points: int


@dataclass(frozen=True)
class RefinedRig:
    """The refined rig and the evidence for it; errors are medians in pixels over all views of all points used.

    `median_*_px` are reprojection errors of points triangulated from all their views, by the given rig and the refined.
    `unseen_*_px` tell whether it generalises: a rig was fitted to every second point, and each of the other points was
    triangulated from all its views but one and projected in that one. These share the detector and the scene with the
    points of the fit, so an error that the detector makes everywhere does not show in them.
    `n_offered` points had enough views for RANSAC, `n_points` have enough that agree. `largest_sigmas` is the largest
    change of a parameter in its sigma; `cost` is the objective at the start and after each step of the final fit.
    """

    rig: Rig
    changes: tuple[CameraChange, ...]
    n_offered: int
    n_points: int
    largest_sigmas: float
    median_before_px: float
    median_after_px: float
    unseen_before_px: float
    unseen_after_px: float
    cost: tuple[float, ...]

    @property
    def doubt(self) -> str | None:
        """Why the given calibration should be kept, or None where the evidence is for the refined rig."""
        if not self.unseen_after_px < self.unseen_before_px:
            return "views left out are not predicted better"
        if self.n_points < LEAST_SHARE * self.n_offered:
            return "the views disagree on most points, so check which video is which"
        if self.largest_sigmas > MOST_SIGMAS:
            return f"a camera moved {self.largest_sigmas:.1f} times as far as expected, so check which video is which"
        return None


def refine_rig(rig: Rig, uv_px: ArrayLike, weight: ArrayLike, settings: RefineSettings | None = None) -> RefinedRig:
    """The rig, moved within its priors to where it agrees best with itself on the given points.

    Minimises the Huber loss of the reprojection errors plus Gaussian priors that pull each camera to its given values.
    Points take part on which `min_views` views agree by RANSAC; of many, a fixed choice of `max_points`. The world's
    frame is kept, see `hold_frame`. Deterministic.

    Args:
        uv_px: (V, N, 2) pixels of the same N points of the world, NaN where missing.
        weight: (V, N) non-negative factor of an observation's loss, such as the detector's confidence.
        settings: default RefineSettings().
    Raises:
        CalibrationError: fewer than 50 usable points, or points all in one place.
        ValueError: arrays whose shapes do not fit the rig.
    Source: Triggs et al. 2000, "Bundle adjustment - a modern synthesis", sections 4, 6.1 (Schur complement), 9 (gauge).
    """
    settings = settings or RefineSettings()
    uv, w = np.asarray(uv_px, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    if uv.ndim != 3 or uv.shape[::2] != (len(rig), 2) or w.shape != uv.shape[:2]:
        raise ValueError(f"needs uv_px ({len(rig)}, N, 2) and weight ({len(rig)}, N), got {uv.shape} and {w.shape}")
    (problem, xyz, n_offered), free = _usable(rig, uv, w, settings), settings.sigma > 0
    half, other = problem.points(slice(0, None, 2)), problem.points(slice(1, None, 2))
    half_rig = moved_rig(rig, _fit(half, xyz[::2])[0])
    theta, fitted, cost = _fit(problem, xyz)
    theta, fitted = hold_frame(problem, theta, fitted)
    refined = moved_rig(rig, theta)
    return RefinedRig(
        rig=refined,
        changes=tuple(_changes(problem, theta)),
        n_offered=n_offered,
        n_points=len(xyz),
        largest_sigmas=float(abs(theta[:, free] / settings.sigma[free]).max()),
        median_before_px=_median_error_px(problem, rig, xyz),
        median_after_px=_median_error_px(problem, refined, fitted),
        unseen_before_px=_unseen_error_px(other, rig),
        unseen_after_px=_unseen_error_px(other, half_rig),
        cost=cost,
    )


def describe(refined: RefinedRig) -> list[str]:
    """One sentence about the whole refinement, then one about each camera in the rig's order."""
    verdict = f"but keep the given one: {refined.doubt}" if refined.doubt else "so the refined rig is the better one"
    lines = [
        f"{len(refined.rig)} cameras were refined on {refined.n_points} of {refined.n_offered} points: the median "
        f"reprojection error went from {refined.median_before_px:.1f} to {refined.median_after_px:.1f} px, in left-out "
        f"views of left-out points from {refined.unseen_before_px:.1f} to {refined.unseen_after_px:.1f} px, {verdict}."
    ]
    for change in refined.changes:
        u, v = change.centre_shift_px
        lines.append(
            f"camera '{change.name}' was turned by {change.rotation_deg:.2f} degrees and moved by "
            f"{1000 * change.position_m:.0f} mm, its focal length multiplied by {change.focal_ratio:.4f} and its "
            f"principal point shifted by ({u:+.1f}, {v:+.1f}) px, judged by {change.n_points} points."
        )
    return lines


@dataclass(frozen=True)
class Problem:
    """What a fit is about: the given rig, pixels (V, N, 2) free of NaN, and weights (V, N) that are 0 where unused."""

    rig: Rig
    uv_px: Floats
    weight: Floats
    settings: RefineSettings

    def points(self, which: slice | NDArray[np.bool_]) -> Problem:
        """The same problem of some of its points."""
        return replace(self, uv_px=self.uv_px[:, which], weight=self.weight[:, which])


def _usable(rig: Rig, uv: Floats, weight: Floats, settings: RefineSettings) -> tuple[Problem, Floats, int]:
    """The problem of all points that can be used, those points (N, 3) by the given rig, and how many were tried."""
    w = np.where(np.isfinite(uv).all(-1) & np.isfinite(weight), weight, 0.0)
    seen = np.flatnonzero((w > 0).sum(axis=0) >= settings.min_views)
    if len(seen) < MIN_POINTS:
        few = f"{settings.min_views} or more views see {len(seen)} of {w.shape[1]} points"
        raise CalibrationError(f"refine: {few}, {MIN_POINTS} are needed; give more frames")
    # A random choice, as a regular one could hit the same joint of the skeleton in every frame.
    chosen = np.sort(np.random.default_rng(0).permutation(seen)[: settings.max_points])
    uv, w = uv[:, chosen], w[:, chosen]
    xyz, inliers = triangulate_ransac(rig, uv, w, settings.ransac_threshold_px, settings.min_views)
    xyz = refine_huber(rig, xyz, uv, np.where(inliers, w, 0.0), settings.huber * settings.pixel_sigma_px)
    used = inliers & np.isfinite(reprojection_error_px(rig, xyz, uv))
    good = used.sum(axis=0) >= settings.min_views
    n = int(good.sum())
    if n < MIN_POINTS:
        raise CalibrationError(
            f"refine: {settings.min_views} or more views agree within {settings.ransac_threshold_px:g} px on {n} of "
            f"{len(chosen)} points, {MIN_POINTS} are needed; check which video is which, or give more frames"
        )
    spread = float(np.percentile(np.linalg.norm(xyz[good] - np.median(xyz[good], axis=0), axis=1), 90))
    if spread < MIN_SPREAD_M:
        raise CalibrationError(
            f"refine: the {n} usable points lie within {1000 * spread:.0f} mm of one place, which does not tell turned "
            "cameras from moved ones; give frames in which the person moves about"
        )
    return Problem(rig, np.nan_to_num(uv), np.where(used, w, 0.0), settings).points(good), xyz[good], len(chosen)


def _median_error_px(problem: Problem, rig: Rig, xyz: Floats) -> float:
    return float(np.nanmedian(reprojection_error_px(rig, xyz, problem.uv_px)[problem.weight > 0]))


def _unseen_error_px(problem: Problem, rig: Rig) -> float:
    """Median distance from an observation to the projection of the point triangulated from its other views."""
    uv, huber_px, errors = problem.uv_px, problem.settings.huber * problem.settings.pixel_sigma_px, []
    for view, camera in enumerate(rig.cameras):
        others = np.where(np.arange(len(rig))[:, None] == view, 0.0, problem.weight)
        xyz = refine_huber(rig, triangulate_dlt(rig, uv, others > 0), uv, others, huber_px)
        errors.append(np.linalg.norm(camera.project(xyz) - uv[view], axis=-1)[problem.weight[view] > 0])
    return float(np.nanmedian(np.concatenate(errors)))


def _changes(problem: Problem, theta: Floats) -> Iterator[CameraChange]:
    for camera, change, n in zip(problem.rig.cameras, theta, (problem.weight > 0).sum(axis=1), strict=True):
        angle_deg, distance_m = np.degrees(np.linalg.norm(change[:3])), np.linalg.norm(change[3:6])
        u, v = change[7:].tolist()
        yield CameraChange(camera.name, float(angle_deg), float(distance_m), float(np.exp(change[6])), (u, v), int(n))


def moved_rig(rig: Rig, theta: Floats) -> Rig:
    """The rig whose cameras are changed by parameters (V, 9); all zero gives back the same numbers."""
    cameras = []
    for camera, change in zip(rig.cameras, theta, strict=True):
        turn, zoom = rotation_matrix(change[:3]), np.exp(change[6])
        K = camera.K @ np.diag([zoom, zoom, 1.0])
        K[:2, 2] += change[7:]
        t = turn @ (camera.t_cam_from_world_m - camera.R_cam_from_world @ change[3:6])
        cameras.append(replace(camera, K=K, R_cam_from_world=turn @ camera.R_cam_from_world, t_cam_from_world_m=t))
    return Rig(tuple(cameras), rig.up)


def _cross_matrix(vector: Floats) -> Floats:
    return np.cross(vector, -np.eye(3))


def rotation_matrix(vector: Floats) -> Floats:
    """(3, 3) rotation about a vector (3,) by its length in radians; source: Rodrigues' formula."""
    angle, K = float(np.linalg.norm(vector)), _cross_matrix(vector)
    return np.eye(3) + np.sinc(angle / np.pi) * K + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (K @ K)


def rotation_vector(matrix: Floats) -> Floats:
    """(3,) axis times angle of a rotation (3, 3) by less than 90 degrees; the inverse of `rotation_matrix`."""
    sine_axis = 0.5 * (matrix - matrix.T)[[2, 0, 1], [1, 2, 0]]
    sine = min(float(np.linalg.norm(sine_axis)), 1.0)
    return np.asarray(sine_axis / np.sinc(np.arcsin(sine) / np.pi), dtype=np.float64)


def objective(problem: Problem, theta: Floats, xyz: Floats) -> float:
    """Half the squared parameters in their sigmas, plus the weighted Huber loss of errors in `pixel_sigma_px`.

    Infinite where a point in use comes to lie behind a camera or where its lens model folds.
    """
    settings, free, used = problem.settings, problem.settings.sigma > 0, problem.weight > 0
    error = reprojection_error_px(moved_rig(problem.rig, theta), xyz, problem.uv_px) / settings.pixel_sigma_px
    loss = np.where(error <= settings.huber, 0.5 * error**2, settings.huber * (error - 0.5 * settings.huber))
    total = float((problem.weight[used] * loss[used]).sum())
    prior = 0.5 * float(((theta[:, free] / settings.sigma[free]) ** 2).sum())
    return total + prior if np.isfinite(total) else np.inf


@dataclass(frozen=True)
class NormalEquations:
    """Blocks of the Gauss-Newton system of C free camera parameters in all and N points, and its right-hand side.

    cameras (C, C), cross (N, C, 3), points (N, 3, 3); the objective's gradients, cameras' (C,) and points' (N, 3).
    """

    cameras: Floats
    cross: Floats
    points: Floats
    cameras_gradient: Floats
    points_gradient: Floats

    def solve(self, damping: float) -> tuple[Floats, Floats]:
        """Steps of the cameras (C,) and points (N, 3), with the diagonal multiplied by 1 + damping (Marquardt).

        The points are eliminated by the Schur complement. Source: Triggs et al. 2000, section 6.1.
        """
        C, inverse = len(self.cameras), np.linalg.inv(self.points * (1.0 + damping * np.eye(3)))
        weighed = self.cross @ inverse
        left, right = (blocks.transpose(1, 0, 2).reshape(C, -1) for blocks in (weighed, self.cross))
        reduced = self.cameras * (1.0 + damping * np.eye(C)) - left @ right.T
        right_side = left @ self.points_gradient.ravel() - self.cameras_gradient
        cameras_step = np.asarray(np.linalg.solve(reduced, right_side), dtype=np.float64)
        back = (inverse @ self.points_gradient[:, :, None])[..., 0]
        return cameras_step, -back - np.einsum("nci,c->ni", weighed, cameras_step)


def normal_equations(problem: Problem, theta: Floats, xyz: Floats) -> NormalEquations:
    """The Gauss-Newton system at parameters (V, 9) and points (N, 3); the Huber loss enters by its weights."""
    settings, free = problem.settings, problem.settings.sigma > 0
    views, k = len(theta), int(free.sum())
    points, points_gradient = np.zeros((len(xyz), 3, 3)), np.zeros((len(xyz), 3))
    cameras, cameras_gradient = np.zeros((views, k, views, k)), theta[:, free] / settings.sigma[free] ** 2
    cross = np.zeros((len(xyz), views, k, 3))
    for v, camera in enumerate(moved_rig(problem.rig, theta).cameras):
        used = problem.weight[v] > 0
        uv, A, B = _linearise(camera, theta[v, :3], xyz[used])
        A, r = A[..., free], uv - problem.uv_px[v, used]
        error = np.linalg.norm(r, axis=1) / settings.pixel_sigma_px
        w = problem.weight[v, used] * np.minimum(1.0, settings.huber / np.maximum(error, 1e-12))
        r, w = r[:, :, None], w[:, None, None] / settings.pixel_sigma_px**2
        At, Bt = w * A.transpose(0, 2, 1), w * B.transpose(0, 2, 1)
        cameras[v, :, v] = (At @ A).sum(axis=0) + np.diag(1.0 / settings.sigma[free] ** 2)
        cameras_gradient[v] += (At @ r).sum(axis=0)[:, 0]
        cross[used, v] = At @ B
        points[used] += Bt @ B
        points_gradient[used] += (Bt @ r)[..., 0]
    square, stacked = cameras.reshape(views * k, -1), cross.reshape(len(xyz), -1, 3)
    return NormalEquations(square, stacked, points, cameras_gradient.ravel(), points_gradient)


def _linearise(camera: Camera, rotation: Floats, xyz: Floats) -> tuple[Floats, Floats, Floats]:
    """Pixels (N, 2), and their Jacobians by the camera's parameters (N, 2, 9) and by the points (N, 2, 3).

    `rotation` is how far the camera was turned already. Only the lens is differentiated numerically.
    """
    p = camera.cam_from_world(xyz)
    x, y = p[:, 0] / p[:, 2], p[:, 1] / p[:, 2]
    lens, h = camera.image_from_normalised, 1e-6
    by_normalised = np.stack([lens(x + h, y) - lens(x - h, y), lens(x, y + h) - lens(x, y - h)], axis=-1) / (2 * h)
    pinhole = np.zeros((len(p), 2, 3))
    pinhole[:, 0, 0] = pinhole[:, 1, 1] = 1.0 / p[:, 2]
    pinhole[:, 0, 2], pinhole[:, 1, 2] = -x / p[:, 2], -y / p[:, 2]
    K = _cross_matrix(rotation)
    left_jacobian = np.eye(3) + K / 2 + K @ K / 6  # third-order remainder: below 1e-6 for turns of a degree
    by_p = by_normalised @ pinhole
    by_xyz = by_p @ camera.R_cam_from_world
    uv, by_camera = lens(x, y), np.zeros((len(p), 2, PARAMETERS))
    by_camera[..., :3] = np.cross(p[:, None, :], by_p) @ left_jacobian
    by_camera[..., 3:6], by_camera[..., 6], by_camera[..., 7:] = -by_xyz, uv - camera.K[:2, 2], np.eye(2)
    return uv, by_camera, by_xyz


def _fit(problem: Problem, xyz: Floats) -> tuple[Floats, Floats, tuple[float, ...]]:
    """Parameters (V, 9) and points (N, 3) at the objective's minimum, and its value at the start and at each step."""
    free = problem.settings.sigma > 0
    theta, damping = np.zeros((len(problem.rig), PARAMETERS)), FIRST_DAMPING
    cost = [objective(problem, theta, xyz)]
    for _ in range(problem.settings.iterations):
        system = normal_equations(problem, theta, xyz)
        for _ in range(DAMPING_TRIES):
            cameras_step, points_step = system.solve(damping)
            trial = theta.copy()
            trial[:, free] += cameras_step.reshape(len(theta), -1)
            value = objective(problem, trial, xyz + points_step)
            if value < cost[-1]:
                break
            damping *= 10
        else:
            break
        theta, xyz, damping = trial, xyz + points_step, max(damping / 10, LEAST_DAMPING)
        cost.append(value)
        if cost[-2] - value < CONVERGED:
            break
    return theta, xyz, tuple(cost)


def hold_frame(problem: Problem, theta: Floats, xyz: Floats) -> tuple[Floats, Floats]:
    """Parameters (V, 9) and points (N, 3) after the rigid motion of the whole scene that the cameras' priors like best.

    No pixel tells where the world is: a rigid motion of cameras and points together changes no reprojection error. The
    motion of least prior cost takes out the cameras' mean motion, turns and shifts weighed by their sigmas. There lies
    the exact minimum of the objective, but a fit may stop short of it, as its cost hardly changes in that direction.
    Aligning the points with where the given rig saw them would keep its faults: on simulated rings of four cameras that
    ends three times as far from the true world. Nothing moves where the positions are fixed.
    Source: Triggs et al. 2000, section 9 (inner constraints).
    """
    sigma = problem.settings.sigma[:6]
    if sigma[3] == 0:
        return theta, xyz
    theta, scale, free = theta.copy(), np.where(sigma > 0, sigma, 1.0), sigma > 0
    for _ in range(GAUGE_STEPS):
        cameras = moved_rig(problem.rig, theta).cameras
        A, b, motion = np.zeros((len(cameras), 6, 6)), (theta[:, :6] / scale).ravel(), np.zeros(6)
        A[:, :3, :3], A[:, 3:, 3:] = [-camera.R_cam_from_world for camera in cameras], np.eye(3)
        A[:, 3:, :3] = [-_cross_matrix(camera.centre_m) for camera in cameras]
        motion[free] = -np.linalg.lstsq((A / scale[:, None]).reshape(-1, 6)[:, free], b, rcond=None)[0]
        turn, shift = rotation_matrix(motion[:3]), motion[3:]
        for v, (given, camera) in enumerate(zip(problem.rig.cameras, cameras, strict=True)):
            theta[v, 3:6] += (turn - np.eye(3)) @ camera.centre_m + shift
            turn_back = rotation_matrix(given.R_cam_from_world @ -motion[:3])
            theta[v, :3] = rotation_vector(rotation_matrix(theta[v, :3]) @ turn_back)
        xyz = xyz @ turn.T + shift
    return theta, xyz

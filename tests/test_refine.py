"""Bundle adjustment brings a perturbed rig back, leaves a good one alone, keeps the world, and says what it did."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from calib import CalibrationError, Camera, Rig
from calib.importers.qualisys import read_qualisys
from calib.refine import (
    NormalEquations,
    Problem,
    RefinedRig,
    RefineSettings,
    describe,
    hold_frame,
    moved_rig,
    normal_equations,
    objective,
    refine_rig,
    rotation_matrix,
    rotation_vector,
)
from calib.triangulate import refine_huber, reprojection_error_px, triangulate_dlt

DEMO = Path(__file__).resolve().parents[2] / "shared/data/pose2sim_demo"
POINTS = DEMO / "single/openpose_body25b_pose2sim_associated.npz"
N = 300
NOISE_PX = 1.0
MEDIAN_OF_NOISE_PX = 1.1774 * NOISE_PX  # of the length of a 2D normal error
SETTINGS = RefineSettings(pixel_sigma_px=2.0)


def camera(name: str, centre_m, target_m=(0.0, 0.0, 1.0)) -> Camera:
    """A 1920x1080 camera with some distortion that stands at one point and looks at another."""
    centre = np.asarray(centre_m, float)
    forward = (np.asarray(target_m) - centre) / np.linalg.norm(np.asarray(target_m) - centre)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    K = np.array([[1145.0, 0.0, 960.2], [0.0, 1144.1, 540.9], [0.0, 0.0, 1.0]])
    return Camera(name, (1920, 1080), K, np.array([-0.20, 0.24, -0.0009, -0.0016, 0.0]), R, -R @ centre)


def ring() -> Rig:
    """Four cameras 4.5 m from the origin, 1.3 to 2.2 m up."""
    angles = 0.3 + np.pi / 2 * np.arange(4)
    places = [(4.5 * np.cos(a), 4.5 * np.sin(a), 1.3 + 0.3 * i) for i, a in enumerate(angles)]
    return Rig(tuple(camera(f"c{i}", place) for i, place in enumerate(places)))


def person(rng: np.random.Generator, n: int = N) -> np.ndarray:
    """(n, 3) joints of a person of 1.8 m who walks about in a square of 2 m."""
    where = rng.uniform(-1, 1, (n, 2))
    return np.column_stack([where + rng.normal(0, 0.15, (n, 2)), rng.uniform(0, 1.8, n)])


def perturbation(rng: np.random.Generator, views: int = 4) -> np.ndarray:
    """(views, 9) turns of 0.7 degrees about and shifts of 3 cm in directions drawn at random."""
    way = rng.normal(size=(2, views, 3))
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    return np.hstack([np.radians(0.7) * way[0], 0.03 * way[1], np.zeros((views, 3))])


def scene(seed: int = 0) -> tuple[Rig, Rig, np.ndarray, np.ndarray, np.ndarray]:
    """The true rig, the perturbed one, true points (N, 3), noisy pixels (4, N, 2) and weights of 1."""
    rng = np.random.default_rng(seed)
    truth, xyz = ring(), person(rng)
    uv = truth.project(xyz) + rng.normal(0, NOISE_PX, (4, N, 2))
    return truth, moved_rig(truth, perturbation(rng)), xyz, uv, np.ones((4, N))


@cache
def refined_scene() -> RefinedRig:
    _, given, _, uv, w = scene()
    return refine_rig(given, uv, w, SETTINGS)


def triangulated(rig: Rig, uv, weight) -> np.ndarray:
    return refine_huber(rig, triangulate_dlt(rig, uv, weight), uv, weight, 3.0)


def median_mm(a: np.ndarray, b: np.ndarray) -> float:
    return 1000 * float(np.median(np.linalg.norm(a - b, axis=-1)))


def aligned(xyz: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Points after the rigid motion that brings them nearest to their targets (Kabsch)."""
    a, b = xyz.mean(axis=0), target.mean(axis=0)
    U, _, Vt = np.linalg.svd((xyz - a).T @ (target - b))
    R = Vt.T @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ U.T
    return (xyz - a) @ R.T + b


def problem_at(rig: Rig, uv, weight, settings=SETTINGS) -> tuple[Problem, np.ndarray]:
    return Problem(rig, uv, weight, settings), triangulated(rig, uv, weight)


def test_a_perturbed_rig_comes_back_to_the_noise_and_predicts_views_it_has_not_seen():
    truth, given, xyz, uv, w = scene()
    refined = refined_scene()
    ideal = float(np.median(reprojection_error_px(truth, triangulated(truth, uv, w), uv)))
    assert refined.n_points == refined.n_offered == N and refined.median_before_px > 5 and refined.doubt is None
    assert abs(refined.median_after_px - ideal) < 0.05 and refined.median_after_px < MEDIAN_OF_NOISE_PX
    assert refined.unseen_before_px > 15 and refined.unseen_after_px < 2.5
    assert all(0.05 < change.rotation_deg < 1.5 and 0.003 < change.position_m < 0.08 for change in refined.changes)


@pytest.mark.parametrize("seed", range(4))
def test_the_scene_gets_its_true_shape_and_drifts_no_further_from_the_truth_than_the_priors_tell(seed):
    """Measured: 35 to 60 mm from the truth by the given rig, 10 to 24 mm after, 4 to 5 mm (1 px of noise) in shape."""
    truth, given, xyz, uv, w = scene(seed)
    before, after = triangulated(given, uv, w), triangulated(refine_rig(given, uv, w, SETTINGS).rig, uv, w)
    assert median_mm(aligned(after, xyz), xyz) < median_mm(triangulated(truth, uv, w), xyz) + 1.5 < 6
    assert median_mm(after, xyz) < min(30, 0.7 * median_mm(before, xyz))


def test_the_world_stays_where_it_was_when_the_cameras_faults_have_no_motion_in_common():
    """Measured: 1 to 3 mm for the mean of all points, 5 mm for the median point, whose noise is 4 mm."""
    rng = np.random.default_rng(5)
    truth, xyz = ring(), person(rng)
    uv, w = truth.project(xyz) + rng.normal(0, NOISE_PX, (4, N, 2)), np.ones((4, N))
    theta, _ = hold_frame(Problem(truth, uv, w, SETTINGS), perturbation(rng), xyz)
    after = triangulated(refine_rig(moved_rig(truth, theta), uv, w, SETTINGS).rig, uv, w)
    assert np.linalg.norm((after - xyz).mean(axis=0)) < 0.005 and median_mm(after, xyz) < 7


def test_a_motion_of_the_whole_scene_is_taken_out_and_changes_no_pixel():
    truth, _, xyz, uv, w = scene()
    problem, turn, shift = (
        Problem(truth, uv, w, SETTINGS),
        np.array([0.01, -0.02, 0.015]),
        np.array([0.03, 0.01, -0.02]),
    )
    theta = np.zeros((4, 9))
    for v, c in enumerate(truth.cameras):
        theta[v, :3] = -c.R_cam_from_world @ turn
        theta[v, 3:6] = rotation_matrix(turn) @ c.centre_m + shift - c.centre_m
    carried = xyz @ rotation_matrix(turn).T + shift
    assert np.allclose(moved_rig(truth, theta).project(carried), truth.project(xyz), atol=1e-9)
    held, back = hold_frame(problem, theta, carried)
    assert abs(held).max() < 1e-9 and np.allclose(back, xyz, atol=1e-9)


def test_frames_held_after_some_other_fit_keep_every_projection():
    truth, _, xyz, uv, w = scene()
    theta = perturbation(np.random.default_rng(7))
    held, moved = hold_frame(Problem(truth, uv, w, SETTINGS), theta, xyz)
    assert np.allclose(moved_rig(truth, held).project(moved), moved_rig(truth, theta).project(xyz), atol=1e-8)
    assert (held**2 / np.where(SETTINGS.sigma > 0, SETTINGS.sigma, 1) ** 2).sum() < (
        theta**2 / np.where(SETTINGS.sigma > 0, SETTINGS.sigma, 1) ** 2
    ).sum()


def test_a_world_described_in_another_frame_gives_the_same_refinement():
    _, given, _, uv, w = scene()
    Q, s = rotation_matrix(np.array([0.4, -0.7, 0.2])), np.array([3.0, -1.0, 0.5])
    cameras = [
        replace(
            c,
            R_cam_from_world=c.R_cam_from_world @ Q.T,
            t_cam_from_world_m=-c.R_cam_from_world @ (c.centre_m + Q.T @ s),
        )
        for c in given.cameras
    ]
    one, other = refined_scene(), refine_rig(Rig(tuple(cameras)), uv, w, SETTINGS)
    for a, b in zip(one.rig.cameras, other.rig.cameras):
        assert np.allclose(Q @ a.centre_m + s, b.centre_m, atol=1e-6)
        assert np.allclose(a.R_cam_from_world @ Q.T, b.R_cam_from_world, atol=1e-6)


def test_a_rig_without_faults_stays_where_it_is():
    truth, _, _, uv, w = scene()
    refined = refine_rig(truth, uv, w, SETTINGS)
    assert all(change.rotation_deg < 0.1 and change.position_m < 0.005 for change in refined.changes)
    assert abs(refined.unseen_after_px - refined.unseen_before_px) < 0.1
    exact = refine_rig(truth, truth.project(person(np.random.default_rng(1))), w, SETTINGS)
    assert all(change.rotation_deg < 1e-6 and change.position_m < 1e-6 for change in exact.changes)


def test_outliers_and_missing_views_do_not_spoil_it():
    truth, given, xyz, uv, w = scene()
    rng = np.random.default_rng(3)
    wrong, missing = rng.random((4, N)) < 0.15, rng.random((4, N)) < 0.15
    uv[wrong] += rng.normal(0, 150, (wrong.sum(), 2))
    uv[missing] = np.nan
    w[rng.random((4, N)) < 0.05] = 0.0
    refined = refine_rig(given, uv, w, SETTINGS)
    shape = triangulated(refined.rig, truth.project(xyz), np.ones((4, N)))
    assert 50 <= refined.n_points < 250 and median_mm(aligned(shape, xyz), xyz) < 3
    assert refined.median_after_px < 2 * MEDIAN_OF_NOISE_PX and refined.unseen_after_px < 0.4 * refined.unseen_before_px


def test_a_camera_that_sees_nothing_stays_and_the_others_are_refined():
    _, given, _, uv, w = scene()
    rig = Rig((*given.cameras, camera("blind", (0.0, 0.0, 6.0), (0.3, 0.0, 1.0))))
    refined = refine_rig(rig, np.concatenate([uv, np.full((1, N, 2), np.nan)]), np.concatenate([w, w[:1]]), SETTINGS)
    blind = refined.changes[-1]
    assert blind.n_points == 0 and blind.rotation_deg < 0.5 and blind.position_m < 0.03
    assert refined.unseen_after_px < 2.5


def test_a_focal_length_that_is_off_is_found_if_it_may_move_and_kept_if_not():
    truth, _, xyz, uv, w = scene()
    uv = 0.8 * truth.project(xyz) + 0.2 * uv  # noise of 0.2 px: focal length and distance look much alike
    off = np.zeros((4, 9))
    off[1, 6] = np.log(1.004)
    given = moved_rig(truth, off)
    free = refine_rig(given, uv, w, RefineSettings(pixel_sigma_px=0.3, focal_sigma=0.01))
    ratios = [change.focal_ratio for change in free.changes]
    assert abs(ratios[1] - 1 / 1.004) < 0.001 and max(abs(np.delete(ratios, 1) - 1)) < 0.002
    fixed = refine_rig(given, uv, w, SETTINGS)
    assert all(np.array_equal(a.K, b.K) for a, b in zip(given.cameras, fixed.rig.cameras))


def test_a_principal_point_that_is_off_is_taken_up_by_its_shift_when_cameras_may_not_turn():
    truth, _, _, uv, w = scene()
    off = np.zeros((4, 9))
    off[2, 7:] = 6.0, -4.0
    settings = replace(SETTINGS, rotation_sigma_deg=0.0, position_sigma_m=0.0, centre_sigma_px=10.0)
    refined = refine_rig(moved_rig(truth, off), uv, w, settings)
    assert np.allclose(refined.changes[2].centre_shift_px, (-6.0, 4.0), atol=0.5)
    assert all(change.rotation_deg == 0 and change.position_m == 0 for change in refined.changes)


@pytest.mark.parametrize("fixed, kept", [("rotation_sigma_deg", "R_cam_from_world"), ("position_sigma_m", "centre_m")])
def test_what_is_fixed_does_not_move(fixed, kept):
    _, given, _, uv, w = scene()
    refined = refine_rig(given, uv, w, replace(SETTINGS, **{fixed: 0.0}))
    assert refined.median_after_px < refined.median_before_px
    for a, b in zip(given.cameras, refined.rig.cameras):
        assert np.allclose(getattr(a, kept), getattr(b, kept), rtol=0, atol=1e-12) and np.array_equal(a.K, b.K)


def test_every_step_lowers_the_objective_and_the_last_gains_next_to_nothing():
    _, given, _, uv, w = scene()
    cost = np.array(refine_rig(given, uv, w, replace(SETTINGS, focal_sigma=0.01, centre_sigma_px=5.0)).cost)
    assert len(cost) > 3 and (np.diff(cost) < 0).all() and cost[-2] - cost[-1] < 1e-3 < 0.01 * cost[0]


def test_a_step_that_leads_uphill_is_damped_until_it_leads_down(monkeypatch):
    _, given, _, uv, w = scene()
    solve = NormalEquations.solve

    def backward_unless_damped(self, damping):
        way = 1 if damping > 0.05 else -1
        return tuple(way * step for step in solve(self, damping))

    monkeypatch.setattr(NormalEquations, "solve", backward_unless_damped)
    refined = refine_rig(given, uv, w, SETTINGS)
    assert (np.diff(refined.cost) < 0).all() and refined.median_after_px < MEDIAN_OF_NOISE_PX


def dense_system(problem: Problem, theta: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal matrix and gradient of all parameters and points, from numeric derivatives of residuals and priors."""
    settings, cells = problem.settings, theta.size

    def residuals(x):
        rig, points = moved_rig(problem.rig, x[:cells].reshape(theta.shape)), x[cells:].reshape(-1, 3)
        data = np.sqrt(problem.weight)[..., None] * (rig.project(points) - problem.uv_px) / settings.pixel_sigma_px
        return np.concatenate([data.ravel(), (x[:cells].reshape(theta.shape) / settings.sigma).ravel()])

    x, h = np.concatenate([theta.ravel(), xyz.ravel()]), 1e-6
    J = np.stack([(residuals(x + h * e) - residuals(x - h * e)) / (2 * h) for e in np.eye(x.size)], axis=1)
    return J.T @ J, J.T @ residuals(x)


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_the_step_by_schur_complement_is_that_of_the_dense_normal_equations(damping):
    truth, given, _, uv, w = scene()
    few = slice(0, 12)
    w = np.random.default_rng(2).uniform(0.3, 1.0, (4, 12))
    w[1, ::3] = 0.0
    settings = replace(SETTINGS, focal_sigma=0.01, centre_sigma_px=5.0, huber=1e6)
    problem, xyz = problem_at(given, uv[:, few], w, settings)
    theta = 0.5 * perturbation(np.random.default_rng(4)) + 0.002
    H, g = dense_system(problem, theta, xyz)
    expected = np.linalg.solve(H + damping * np.diag(np.diag(H)), -g)
    cameras_step, points_step = normal_equations(problem, theta, xyz).solve(damping)
    sizes = np.concatenate([np.tile(settings.sigma, 4), np.full(36, 0.1)])
    assert abs((np.concatenate([cameras_step, points_step.ravel()]) - expected) / sizes).max() < 1e-4


def test_the_gradient_is_that_of_the_objective_where_the_huber_loss_bends():
    _, given, _, uv, w = scene()
    problem, xyz = problem_at(given, uv[:, :20], w[:, :20])
    theta = 0.5 * perturbation(np.random.default_rng(4))
    system, free, h = normal_equations(problem, theta, xyz), SETTINGS.sigma > 0, 1e-6
    gradient = system.cameras_gradient.reshape(4, -1)
    assert free.sum() == 6
    for v, i in [(0, 0), (1, 2), (2, 3), (3, 5)]:
        step = np.zeros_like(theta)
        step[v, i] = h
        slope = (objective(problem, theta + step, xyz) - objective(problem, theta - step, xyz)) / (2 * h)
        assert slope == pytest.approx(gradient[v, i], rel=1e-4, abs=1e-3)


def test_rotation_vectors_and_matrices_are_inverse_to_each_other():
    for vector in ([0.0, 0.0, 0.0], [1e-9, 0.0, -2e-9], [0.01, -0.02, 0.03], [0.9, -0.8, 0.5]):
        R = rotation_matrix(np.array(vector))
        assert np.allclose(R @ R.T, np.eye(3), atol=1e-14) and np.allclose(rotation_vector(R), vector, atol=1e-14)


def test_two_runs_are_equal_to_the_last_bit_even_when_points_are_chosen():
    _, given, _, uv, w = scene()
    one, other = (refine_rig(given, uv, w, replace(SETTINGS, max_points=120)) for _ in range(2))
    assert one.n_points == 120 and one.cost == other.cost and one.rig.to_yaml() == other.rig.to_yaml()
    assert one.unseen_after_px == other.unseen_after_px and one.changes == other.changes


def test_too_few_points_or_points_all_in_one_place_are_refused_in_one_line():
    truth, given, _, uv, w = scene()
    with pytest.raises(CalibrationError, match=r"3 or more views see 40 of 40 points, 50 are needed") as few:
        refine_rig(given, uv[:, :40], w[:, :40], SETTINGS)
    with pytest.raises(CalibrationError, match=r"see 0 of 300 points"):
        refine_rig(given, uv, np.where(np.arange(4)[:, None] < 2, w, 0.0), SETTINGS)
    anywhere = np.random.default_rng(0).uniform((0, 0), (1920, 1080), (4, N, 2))
    with pytest.raises(CalibrationError, match=r"agree within 60 px on \d+ of 300 points") as random:
        refine_rig(given, anywhere, w, SETTINGS)
    spot = truth.project(np.random.default_rng(0).normal((0, 0, 1), 0.005, (N, 3)))
    with pytest.raises(CalibrationError, match="one place") as narrow:
        refine_rig(truth, spot, w, SETTINGS)
    assert "\n" not in str(few.value) + str(narrow.value) + str(random.value)


def test_arrays_and_settings_that_make_no_sense_are_refused():
    _, given, _, uv, w = scene()
    with pytest.raises(ValueError, match=r"needs uv_px \(4, N, 2\)"):
        refine_rig(given, uv[:3], w, SETTINGS)
    for wrong in ({"pixel_sigma_px": 0.0}, {"focal_sigma": -1.0}, {"min_views": 2}, {"huber": np.nan}):
        with pytest.raises(CalibrationError, match=next(iter(wrong))):
            RefineSettings(**wrong)
    with pytest.raises(CalibrationError, match="nothing to refine"):
        RefineSettings(rotation_sigma_deg=0.0, position_sigma_m=0.0)


def test_it_is_described_in_one_sentence_for_the_rig_and_one_for_each_camera():
    refined = refined_scene()
    lines = describe(refined)
    assert len(lines) == 5 and "4 cameras were refined on 300 of 300 points" in lines[0] and "better" in lines[0]
    assert [line.split("'")[1] for line in lines[1:]] == list(refined.rig.names) and all(
        line.endswith(".") for line in lines
    )
    worse = replace(refined, unseen_after_px=refined.unseen_before_px)
    assert "but keep the given one: views left out" in describe(worse)[0]


@pytest.mark.parametrize("order, doubt", [([1, 0, 2, 3], "disagree on most points"), ([1, 0, 3, 2], "a camera moved")])
def test_videos_mixed_up_do_not_pass_for_a_better_rig(order, doubt):
    """By chance enough points agree for a fit, and its unseen views even get better."""
    _, given, _, uv, w = scene()
    refined = refine_rig(given, uv[order], w, SETTINGS)
    assert refined.doubt is not None and doubt in refined.doubt and "which video is which" in describe(refined)[0]


@pytest.mark.skipif(not POINTS.exists(), reason="the Pose2Sim demo footage is not here (shared/data/pose2sim_demo)")
def test_a_real_rig_predicts_unseen_views_better_by_a_fifth_at_least():
    """Measured: 22.8 px before, 13.0 px after, medians of OpenPose joints over 0.3 confidence."""
    found = np.load(POINTS)
    uv, w = np.full((4, 100, 25, 2), np.nan), np.zeros((4, 100, 25))
    uv[found["cam"], found["frame"]], w[found["cam"], found["frame"]] = found["kpts"][..., :2], found["kpts"][..., 2]
    w[w < 0.3] = 0.0
    rig = read_qualisys(DEMO / "calibration/Calib.qca.txt")
    refined = refine_rig(rig, uv.reshape(4, -1, 2), w.reshape(4, -1))
    assert refined.n_points > 1500 and refined.unseen_after_px < 0.8 * refined.unseen_before_px
    assert refined.doubt is None and refined.largest_sigmas < 2
    assert all(change.rotation_deg < 2 and change.position_m < 0.1 for change in refined.changes)

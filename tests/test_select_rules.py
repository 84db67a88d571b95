"""Selection by any rule, by probability and by groups of poses; and how well a score tells good from bad."""

from dataclasses import replace

import numpy as np
import pytest
from test_select_labels import poses_of

from harvest.errors import UserError
from harvest.metrics.selection import area_under, places, risk_coverage
from harvest.pose_groups import pose_groups
from harvest.select import NO_EVIDENCE, SelectionRule, select, select_by_determinant
from harvest.store.tables import read_selection, write_poses
from harvest.studio.figure import moving_figure, ring_rig
from harvest.studio.rotations import about
from harvest.uncertainty import Calibration, load_calibration, probability_within
from pipelines.run import STAGES, Run, ingredients
from pipelines.run_folder import RunFolder
from pipelines.settings import Settings, load_settings
from pipelines.stages.select import run_select

UP = (0.0, 0.0, 1.0)
SQUARES_MM2 = ((1, 1, 4000), (60, 60, 60), (100, 100, 100), (1, 2000, 2000))  # of four estimates of one joint
HEAT = (0.2, 0.5, 0.9, 0.7)


def four():
    """Four estimates of one joint, of which every rule has its own favourite."""
    cov = 1e-6 * np.array([np.diag(square) for square in SQUARES_MM2], float)[:, None]
    return replace(poses_of(np.zeros((4, 1, 3)), ["r_wrist"], cov), confidence=np.array(HEAT)[:, None])


@pytest.mark.parametrize(
    ("rule", "order"),
    [("determinant", (0, 1, 2, 3)), ("spread", (1, 2, 3, 0)), ("heat", (2, 3, 1, 0)), ("probability", (1, 2, 0, 3))],
)
def test_every_rule_keeps_what_it_ranks_first(rule, order):
    poses = four()
    probability = probability_within(poses.cov_m2, 0.05, Calibration(1.0, 0.0))
    for count in (1, 2, 3, 4):
        selection = select(poses, SelectionRule(rule, count / 4), probability)
        assert sorted(np.flatnonzero(selection.keep)) == sorted(order[:count])
        np.testing.assert_array_equal(selection.probability, probability)
    best = select(poses, SelectionRule(rule, 0.25), probability)
    side = "75 %" if rule in ("heat", "probability") else "25 %"
    assert all(side in str(text) for text in best.reason[~best.keep]) and len(set(best.reason[~best.keep])) == 1


def test_selection_by_determinant_is_what_it_was():
    skeleton, xyz = moving_figure(30)
    xyz[3, 2] = np.nan
    poses = poses_of(xyz, skeleton.joints)
    selection = select_by_determinant(poses, 0.55)
    for joint in range(len(skeleton.joints)):
        found = np.flatnonzero(poses.found[:, joint])
        best = found[np.argsort(np.linalg.det(poses.cov_m2[found, joint]))][: int(np.ceil(0.55 * len(found) - 1e-9))]
        assert np.flatnonzero(selection.keep[:, joint]).tolist() == sorted(best)
    assert set(selection.reason[~selection.keep]) == {"not found", "uncertainty above the 55 % quantile of this joint"}
    assert selection.probability is None


def test_what_is_less_probable_than_asked_for_is_dropped_whatever_the_share():
    poses = four()
    probability = np.array([[0.9], [0.8], [0.7], [0.6]])
    selection = select(poses, SelectionRule("spread", 1.0, 0.05, at_least=0.75), probability)
    assert selection.keep[:, 0].tolist() == [True, True, False, False]
    assert set(selection.reason[2:, 0]) == {"less than 0.75 probable to be within 50 mm"}
    none = select(poses, SelectionRule(keep_share=1.0, at_least=0.95), probability)
    assert not none.keep.any()
    unsupported = select(replace(poses, n_views=np.ones((4, 1), int)), SelectionRule(at_least=0.75), probability)
    assert set(unsupported.reason[:, 0]) == {NO_EVIDENCE}


def test_an_estimate_without_a_probability_is_ranked_last_and_never_probable_enough():
    poses, probability = four(), np.array([[np.nan], [0.8], [0.7], [0.6]])
    assert not select(poses, SelectionRule("probability", 0.75), probability).keep[0, 0]
    assert not select(poses, SelectionRule("determinant", 1.0, at_least=0.0), probability).keep[0, 0]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"name": "entropy"}, "unknown selection rule 'entropy'; known: determinant, spread, probability, heat"),
        ({"keep_share": 0.0}, "between 0 and 1"),
        ({"within_m": 0.0}, "within_mm above 0"),
        ({"at_least": 1.5}, "at_least from 0 to 1"),
    ],
)
def test_a_rule_that_is_none_is_refused_in_one_line(rule, said):
    with pytest.raises(UserError, match=said):
        SelectionRule(**rule)


def test_a_rule_by_probability_needs_probabilities():
    with pytest.raises(UserError, match="needs the calibrated probabilities"):
        select(four(), SelectionRule("probability"))


def crouching(frames=40, rare=5):
    """Poses of one who stands, turns and walks about, and crouches in the last frames, where it is less certain."""
    skeleton, xyz = moving_figure(1)
    stands = xyz[0]
    crouches = stands * [1, 1, 0.45] + [0, 0, 0.0]
    crouches[[skeleton.index("l_knee"), skeleton.index("r_knee")], 1] += 0.35
    rng = np.random.default_rng(0)
    body = np.stack([stands] * (frames - rare) + [crouches] * rare) + rng.normal(0, 0.004, (frames, *stands.shape))
    turn = about(UP, rng.uniform(0, 2 * np.pi, frames))
    xyz = np.einsum("tij,tkj->tki", turn, body) + rng.uniform(-2, 2, (frames, 1, 3))
    cov = rng.uniform(1e-5, 2e-5, (frames, len(skeleton.joints), 1, 1)) * np.eye(3)
    cov[-rare:] *= 50
    return poses_of(xyz, skeleton.joints, cov)


def test_a_rare_pose_that_the_plain_rule_drops_keeps_its_share():
    poses = crouching()
    plain = select(poses, SelectionRule())
    assert not plain.keep[-5:].any()
    grouped = select(poses, SelectionRule(), group=pose_groups(poses, 2, UP))
    assert (grouped.keep[-5:].sum(axis=0) == 4).all() and (grouped.keep[:-5].sum(axis=0) == 25).all()
    assert set(grouped.reason[~grouped.keep]) == {
        "uncertainty above the 70 % quantile of this joint in poses of its kind"
    }


def test_every_group_keeps_at_least_one_estimate_where_any_is_usable():
    poses, group = crouching(), np.arange(40) // 10
    n_views = poses.n_views.copy()
    n_views[:10, 3] = 1
    keep = select(replace(poses, n_views=n_views), SelectionRule(keep_share=0.01), group=group).keep
    counts = np.array([keep[group == one].sum(axis=0) for one in range(4)])
    assert counts[0, 3] == 0 and (np.delete(counts, 3, axis=1) == 1).all() and (counts[1:, 3] == 1).all()


def test_groups_of_poses_know_neither_place_nor_facing_nor_which_way_is_up():
    poses = crouching()
    group = pose_groups(poses, 2, UP)
    assert group.tolist() == [0] * 35 + [1] * 5
    turn = about((1.0, 2.0, -0.5), 1.1)
    np.testing.assert_array_equal(pose_groups(replace(poses, xyz_m=3 * poses.xyz_m @ turn.T), 2, turn @ UP), group)


def test_joints_that_were_not_found_neither_make_a_pose_rare_nor_hide_one():
    poses = crouching()
    xyz = poses.xyz_m.copy()
    xyz[[3, 37], 12] = np.nan
    xyz[4, [0, 5]] = np.nan
    xyz[5, poses.joints.index("l_hip")] = np.nan
    xyz[6, poses.joints.index("r_wrist")] += 5.0
    assert pose_groups(replace(poses, xyz_m=xyz), 2, UP).tolist() == [0] * 35 + [1] * 5
    assert not pose_groups(replace(poses, xyz_m=np.full_like(xyz, np.nan)), 3, UP).any()


def test_no_more_groups_are_made_than_there_are_poses():
    poses = crouching()
    same = np.repeat(poses.xyz_m[:1], 40, axis=0)
    turns = about(UP, np.linspace(0, 6, 40))
    assert not pose_groups(replace(poses, xyz_m=np.einsum("tij,tkj->tki", turns, same)), 5, UP).any()
    assert set(pose_groups(poses, 1000, UP).tolist()) == set(range(40))


def test_poses_without_hips_cannot_be_grouped():
    with pytest.raises(UserError, match="needs a skeleton with l_hip and r_hip"):
        pose_groups(four(), 2, UP)
    assert not pose_groups(four(), 1, UP).any()


def test_the_stage_writes_the_probability_of_the_method_and_follows_its_settings(tmp_path):
    poses = crouching()
    write_poses(tmp_path / "poses", poses, "p")
    settings = Settings.model_validate({"select": {"rule": "probability", "pose_groups": 2, "within_mm": 30}}).select
    calibration = load_calibration("pictorial")
    run_select(settings, tmp_path / "poses", ring_rig(4), calibration, tmp_path / "selection", "key")
    selection = read_selection(tmp_path / "selection")
    np.testing.assert_array_equal(selection.probability, probability_within(poses.cov_m2, 0.03, calibration))
    assert (selection.keep[-5:].sum(axis=0) == 4).all()


def test_a_selection_hangs_on_the_calibration_of_its_method(tmp_path):
    (stage,) = (stage for stage in STAGES if stage.name == "select")
    parts = {}
    for method in ("pictorial", "dlt"):
        run = Run(FakeCapture(), RunFolder(tmp_path), load_settings(None, {"reconstruct": {"method": method}}))
        run.keys["reconstruct"] = "r"
        parts[method] = ingredients(run, stage)["calibration"]
    assert parts["pictorial"] != parts["dlt"]


class FakeCapture:
    fingerprint = "capture"


def test_a_good_score_has_a_small_area_under_its_curve_and_none_beats_the_error_itself():
    rng = np.random.default_rng(0)
    error = rng.gamma(2, 10, (200, 5))
    good, useless = error + rng.normal(0, 5, error.shape), rng.normal(size=error.shape)
    areas = [area_under(*risk_coverage(error, places(score, error))) for score in (error, good, useless, -error)]
    assert areas == sorted(areas) and areas[2] == pytest.approx(error.mean(), rel=0.05)


def test_the_curve_ends_at_the_mean_of_all_and_begins_at_the_best_of_each_joint():
    error = np.array([[1.0, 10], [3, 30], [2, 20], [np.nan, 40]])
    score = np.array([[0.1, 1], [0.2, 3], [0.3, 2], [0.0, np.nan]])
    place = places(score, error)
    np.testing.assert_allclose(place, [[1 / 3, 1 / 4], [2 / 3, 3 / 4], [1, 2 / 4], [np.nan, 1]])
    share, risk = risk_coverage(error, place)
    np.testing.assert_allclose(share * 7, [1, 2, 3, 4, 5, 7])
    np.testing.assert_allclose(risk, [10, 11 / 2, 31 / 3, 34 / 4, 64 / 5, 106 / 7])
    assert area_under(share, risk) == pytest.approx((10 + 11 / 2 + 31 / 3 + 34 / 4 + 64 / 5 + 2 * 106 / 7) / 7)
    assert np.isnan(area_under(*risk_coverage(np.full((2, 2), np.nan), np.zeros((2, 2)))))

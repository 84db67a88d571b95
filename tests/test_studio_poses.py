"""Poses without pictures: the same for a seed, true in every camera, found as detectors find; cameras by night."""

import numpy as np
import pytest
from conftest import harvest

from harvest.errors import UserError
from harvest.learn.pose_sets import read_pose_set
from harvest.skeleton import load_skeleton
from harvest.studio.assets import Assets, find_assets
from harvest.studio.effects import Effects, draw_night
from harvest.studio.poses import all_joints, detected, draw_moments

with_assets = pytest.mark.skipif(
    find_assets() is None, reason="no studio assets; `harvest studio assets build` makes them"
)


def test_a_detector_is_a_little_off_often_and_far_off_seldom_and_mostly_knows():
    rng = np.random.default_rng(0)
    xy = rng.uniform(-1, 1, (4000, 16, 2)) * [0.3, 1.0]  # people two units high
    found, confidence = detected(xy, rng)
    off = np.linalg.norm(found - xy, axis=-1) / (1.25 * 2.0)
    assert 0.004 < np.median(off) < 0.012 and 0.01 < np.mean(off > 0.05) < 0.04
    assert np.mean(confidence[off > 0.05]) < 0.5 < np.mean(confidence[off < 0.02])


def test_all_joints_are_those_of_all_sets_once():
    assert set(all_joints()) == {j for name in ("mpii16", "h36m17", "coco17") for j in load_skeleton(name).joints}


def test_a_camera_by_night_is_dim_and_grey():
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    seen = draw_night(np.random.default_rng(1)).apply(picture, np.random.default_rng(2))
    assert seen.mean() < 0.5 * picture.mean()
    grey = Effects(grey=True).apply(picture, np.random.default_rng(2))
    assert np.ptp(grey.astype(int), axis=2).max() <= 1 < np.ptp(picture.astype(int), axis=2).max()


@with_assets
def test_moments_are_the_same_for_a_seed_and_true_in_every_camera():
    assets = Assets(find_assets())
    one, again, other = (draw_moments(assets, 40, seed, "val", 3) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.found_xy, again.found_xy)
    assert (one.clip != other.clip).any() or (one.xyz_m != other.xyz_m).any()
    assert one.xyz_m.shape == (120, len(all_joints()), 3) and len(set(one.moment.tolist())) == 40
    between = np.linalg.norm(one.xyz_m[:, :, None] - one.xyz_m[:, None], axis=-1).reshape(40, 3, -1)
    np.testing.assert_allclose(between[:, 0], between[:, 2], atol=1e-9)  # one pose, whoever sees it
    assert (one.xyz_m[..., 2] > 1).all() and len(set(one.clip.tolist())) > 5
    test_people = set(draw_moments(assets, 10, 3, "test", 1).person.tolist())
    assert not test_people & set(one.person.tolist())


@with_assets
def test_the_command_writes_a_set_that_lifters_read(tmp_path, capsys):
    harvest("studio", "poses", "--n", "20", "--split", "val", "--out", tmp_path / "sets" / "val.npz")
    poses = read_pose_set(tmp_path / "sets" / "val.npz")
    assert "20 poses" in capsys.readouterr().out and len(poses) == 20
    np.testing.assert_allclose(poses.label_xy, poses.xyz_m[..., :2] / poses.xyz_m[..., 2:], atol=1e-5)
    assert np.isfinite(poses.of(load_skeleton("h36m17").joints).xyz_m).all()
    assert (np.linalg.norm(poses.xy - poses.label_xy, axis=-1) > 0).all() and (poses.confidence < 1).any()
    with pytest.raises(UserError, match="poses are one"):
        harvest("studio", "poses", "--n", "2", "--out", tmp_path / "folder")

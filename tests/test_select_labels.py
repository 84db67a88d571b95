"""Selection by determinant, and labels that other tools read."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from harvest.errors import UserError
from harvest.labels import make_labels, write_labels
from harvest.select import NO_EVIDENCE, NOT_FOUND, position_sigma_m, select_by_determinant
from harvest.studio.figure import moving_figure, ring_rig
from harvest.types import Poses3D


def poses_of(xyz, joints, cov=None, n_views=None):
    t, j = xyz.shape[:2]
    rng = np.random.default_rng(0)
    if cov is None:
        cov = rng.uniform(1e-5, 1e-2, (t, j, 1, 1)) * np.eye(3)
    return Poses3D(
        frames=np.arange(t) * 2,
        time_s=np.arange(t) / 30,
        views=tuple(f"cam{v + 1:02d}" for v in range(4)),
        joints=tuple(joints),
        xyz_m=xyz,
        cov_m2=np.where(np.isfinite(xyz[..., :1, None]), cov, np.nan),
        confidence=np.full((t, j), 0.8),
        n_views=np.full((t, j), 4) if n_views is None else n_views,
        flip=np.zeros((t, 4)),
    )


def test_the_most_certain_share_of_every_joint_is_kept():
    skeleton, xyz = moving_figure(10)
    poses = poses_of(xyz, skeleton.joints)
    selection = select_by_determinant(poses, 0.7)
    assert (selection.keep.sum(axis=0) == 7).all()
    determinant = np.linalg.det(poses.cov_m2)
    for joint in range(len(skeleton.joints)):
        kept = selection.keep[:, joint]
        assert determinant[kept, joint].max() <= determinant[~kept, joint].min()
    assert (selection.reason[selection.keep] == "").all() and (selection.reason[~selection.keep] != "").all()


def test_joints_not_found_or_unsupported_are_dropped_with_that_reason_and_do_not_count():
    skeleton, xyz = moving_figure(10)
    xyz[:4, 0] = np.nan
    n_views = np.full(xyz.shape[:2], 4)
    n_views[:, 1] = 1
    selection = select_by_determinant(poses_of(xyz, skeleton.joints, n_views=n_views), 0.5)
    assert (selection.reason[:4, 0] == NOT_FOUND).all() and selection.keep[4:, 0].sum() == 3
    assert (selection.reason[:, 1] == NO_EVIDENCE).all()


@pytest.mark.parametrize("share", [0.0, 1.2, -1])
def test_a_share_that_is_none_is_refused(share):
    skeleton, xyz = moving_figure(3)
    with pytest.raises(UserError, match="between 0 and 1"):
        select_by_determinant(poses_of(xyz, skeleton.joints), share)


def test_the_size_of_a_ball_of_uncertainty_is_its_standard_deviation():
    np.testing.assert_allclose(position_sigma_m(0.02**2 * np.eye(3)), 0.02)
    assert position_sigma_m(np.full((3, 3), np.nan)) == np.inf


def labels_of(frames=5, seen=None, shown=None):
    rig, (skeleton, xyz) = ring_rig(4), moving_figure(frames)
    poses = poses_of(xyz, skeleton.joints)
    selection = select_by_determinant(poses, 0.6)
    shape = frames, 4, len(skeleton.joints)
    seen = np.ones(shape, bool) if seen is None else seen
    shown = np.ones(shape[:2], bool) if shown is None else shown
    labels = make_labels(rig, poses, selection, seen, shown, {"capture": "abc"})
    return rig, skeleton, poses, selection, labels


def test_labels_are_the_projections_of_kept_joints_and_of_no_others():
    rig, _, poses, selection, labels = labels_of()
    assert len(labels.frame) == 20
    for row in range(len(labels.frame)):
        t = int(np.flatnonzero(poses.frames == labels.frame[row])[0])
        expected = rig.cameras[labels.view[row]].project(poses.xyz_m[t])
        kept = selection.keep[t]
        np.testing.assert_allclose(labels.uv_px[row][kept], expected[kept])
        assert np.isnan(labels.uv_px[row][~kept]).all()
        assert (labels.visibility[row] == np.where(kept, 2, 0)).all()


def test_visibility_comes_from_the_views_own_evidence():
    seen = np.ones((5, 4, 16), bool)
    seen[:, 2] = False
    shown = np.ones((5, 4), bool)
    shown[:, 3] = False
    *_, labels = labels_of(seen=seen, shown=shown)
    assert set(labels.view.tolist()) == {0, 1, 2}
    assert set(np.unique(labels.visibility[labels.view == 2])) == {0, 1}
    assert set(np.unique(labels.visibility[labels.view == 0])) == {0, 2}


def test_joints_outside_the_picture_get_no_label():
    rig, skeleton, poses, selection, _ = labels_of()
    away = poses_of(poses.xyz_m + [0, 0, 30.0], skeleton.joints)
    everything = np.ones((5, 4, 16), bool)
    assert len(make_labels(rig, away, selection, everything, everything[..., 0], {}).frame) == 0


def test_pycocotools_reads_the_labels_of_every_view(tmp_path):
    rig, skeleton, _, _, labels = labels_of()
    write_labels(tmp_path, labels, rig, skeleton, "f")
    for index, camera in enumerate(rig.cameras):
        coco = COCO(str(tmp_path / f"coco_{camera.name}.json"))
        rows = np.flatnonzero(labels.view == index)
        assert sorted(coco.getImgIds()) == sorted((labels.frame[rows] + 1).tolist())
        for row in rows:
            (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[int(labels.frame[row]) + 1]))
            triplets = np.array(annotation["keypoints"]).reshape(-1, 3)
            used = labels.visibility[row] > 0
            np.testing.assert_allclose(triplets[used, :2], labels.uv_px[row][used] + 0.5, atol=0.006)
            assert annotation["num_keypoints"] == used.sum() and not triplets[~used].any()


def test_the_npz_holds_the_same_labels_and_needs_no_pickle(tmp_path):
    rig, skeleton, _, _, labels = labels_of()
    write_labels(tmp_path, labels, rig, skeleton, "f")
    with np.load(tmp_path / "labels.npz") as stored:
        np.testing.assert_array_equal(stored["uv_px"], labels.uv_px)
        assert json.loads(str(stored["origin"])) == {"capture": "abc"}

"""Pseudo-3D training sets: shards, arrays for lifters, splits by subject, data card and checksums."""

import hashlib
import json
import shutil
import tarfile

import numpy as np
import pytest
from conftest import harvest, keypoint_run

from calib.rig import load_rig
from harvest.errors import UserError
from harvest.learn.samples import find_samples, read_pose
from harvest.skeleton import load_skeleton
from harvest.store.tables import read_poses, read_selection

JOINTS = load_skeleton("h36m17").joints


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of one synthetic capture, and a set made of them, of two subjects."""
    folder = tmp_path_factory.mktemp("set")
    keypoint_run(folder, "walk.1")
    shutil.copytree(folder / "walk.1", folder / "walk2")
    command = []
    for run, subject in (("walk.1", "anna"), ("walk2", "ben")):
        command += ["--run", folder / run, "--videos", folder / "videos", "--subject", subject]
    harvest("export", "training-set", *command, "--test", "ben", "--out", folder / "made")
    return folder, command


def test_shards_hold_a_picture_and_a_label_a_sample_under_one_key(made):
    folder, _ = made
    assert {path.name for path in (folder / "made").iterdir()} == {
        "train",
        "test",
        "lifters",
        "README.md",
        "SHA256SUMS",
    }
    for split, subject, take in (("train", "anna", "walk_1"), ("test", "ben", "walk2")):
        with tarfile.open(folder / "made" / split / "00000.tar") as tar:
            names = tar.getnames()
            label = json.load(tar.extractfile(names[1]))
        assert len(names) == 36 and names[0] == f"{take}-00000000-cam01.jpg" and names[1] == names[0][:-3] + "json"
        assert (label["subject"], label["take"], label["frame"]) == (subject, take, 0)


def test_samples_hold_kept_joints_with_the_covariance_turned_into_the_cameras_frame(made):
    folder, _ = made
    run, rig = folder / "walk.1", load_rig(folder / "walk.1" / "rig.yaml")
    poses, keep = read_poses(run / "30_poses.parquet"), read_selection(run / "40_selection.parquet").keep
    frame = next(t for t in range(6) if 0 < keep[t].sum() < 16)
    with tarfile.open(folder / "made" / "train" / "00000.tar") as tar:
        label = json.load(tar.extractfile(f"walk_1-{frame:08d}-cam02.json"))["joints"]["run"]
    R = rig["cam02"].R_cam_from_world
    assert label["names"] == list(poses.joints)
    for joint, kept in enumerate(keep[frame]):
        assert (label["uv_px"][joint] is not None) == kept == (label["cov_cam_m2"][joint] is not None)
        if kept:
            there = R @ poses.cov_m2[frame, joint] @ R.T
            xx, xy, xz, yy, yz, zz = label["cov_cam_m2"][joint]
            np.testing.assert_allclose([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], there, atol=1e-3 * there.max())
            assert label["weight"][joint] == pytest.approx(poses.confidence[frame, joint], abs=1e-4)
    sample = read_pose(find_samples(folder / "made" / "train")[0], poses.joints)
    assert np.isfinite(sample.xyz_m).all(axis=1).sum() == keep[0].sum()


def test_lifters_get_plain_arrays_of_human36ms_joints(made):
    folder, _ = made
    rig = load_rig(folder / "walk.1" / "rig.yaml")
    with np.load(folder / "made" / "lifters" / "train.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert (
        arrays["S"].shape == (18, 17, 4) and arrays["part"].shape == (18, 17, 3) and (arrays["subject"] == "anna").all()
    )
    known = arrays["S"][..., 3] > 0
    for joint in ("spine", "nose", "head_top"):
        assert not known[:, JOINTS.index(joint)].any()
    assert known[:, JOINTS.index("l_knee")].any()
    for row, name in enumerate(arrays["imgname"]):
        camera = rig[str(name).split("/")[1]]
        world = (arrays["S"][row, :, :3] - camera.t_cam_from_world_m) @ camera.R_cam_from_world
        np.testing.assert_allclose(camera.project(world)[known[row]], arrays["part"][row, known[row], :2], atol=0.05)
        inside = abs(arrays["part"][row, known[row], :2] - arrays["center"][row]).max()
        assert inside < 100 * arrays["scale"][row] < 3 * inside
        assert np.isfinite(arrays["S_cov"][row][known[row]]).all() and np.isnan(arrays["S_cov"][row][~known[row]]).all()


def test_checksums_and_data_card_are_true(made):
    folder, _ = made
    lines = (folder / "made" / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == 5
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / "made" / name).read_bytes()).hexdigest() == digest
    card = (folder / "made" / "README.md").read_text()
    assert "36 crops" in card and "| walk2 | ben | test | 18 | 0.7 |" in card and "{" not in card


def test_what_makes_no_set_is_refused(made, tmp_path):
    folder, command = made
    for wrong, told in (
        ([*command, "--test", "carl"], "no run shows 'carl'"),
        (command[:-2], "need as many"),
        ([*command[:6], *command[:6]], "two runs are called 'walk_1'"),
    ):
        with pytest.raises(UserError, match=told):
            harvest("export", "training-set", *wrong, "--out", tmp_path / "x")
    same = [part if part != "ben" else "anna" for part in command]
    from pipelines.training_set import Take, export_training_set

    takes = [Take(same[1], same[3], "anna", "train"), Take(same[7], same[9], "anna", "test")]
    with pytest.raises(UserError, match="subject 'anna' is in test and train"):
        export_training_set(takes, tmp_path / "x")
    with pytest.raises(UserError, match="holds files"):
        harvest("export", "training-set", *command, "--out", folder)

"""From a run to a detector of its subject: label sets, what may change, early ends, the page, and the command."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import harvest, keypoint_run
from map_scenes import maps_round, rig_of

from harvest.detect2d.hourglass_files import build_hourglass, load_hourglass, save_hourglass
from harvest.errors import UserError
from harvest.labels import TEACHERS, Evidence, labels_by
from harvest.learn.adapt import WAYS, adapt, merged
from harvest.learn.detector import WEIGHTS, Folders
from harvest.learn.map_loss import squared_loss
from harvest.learn.personal import PersonalSettings, PersonalTraining, SubjectTask, losses_of
from harvest.learn.samples import find_samples, read_pose, read_sample
from harvest.learn.training import CHECKPOINT, CURVE
from harvest.reconstruct.unseen import unseen_view_errors
from harvest.select import select_by_determinant
from harvest.store.tables import read_poses
from harvest.studio.figure import moving_figure, ring_rig
from harvest.types import Poses3D
from pipelines.harvested_crops import crops_of_run
from pipelines.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")
FRAMES, VIEWS = 8, 3


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run on keypoints of a small synthetic capture; the capture's folder, in which it is `out`."""
    folder = tmp_path_factory.mktemp("run")
    keypoint_run(folder, "out", "--keep", "0.75", noise_px=1.0, views=VIEWS, frames=FRAMES)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Weights of a small network of each layout, fresh."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for layout in ("harvest", "bearpaw"):
        save_hourglass(build_hourglass(layout, 1, 16), folder / f"{layout}.safetensors")
    return folder


def settings(start, **others):
    usual = {"steps": 4, "validate_every": 2, "warm": 1, "bf16": False, "seed": 1}
    return PersonalSettings(start=str(start), **(usual | others))


def evidence():
    rig, (skeleton, xyz) = ring_rig(3), moving_figure(10)
    rng = np.random.default_rng(0)
    t, j = xyz.shape[:2]
    cov = rng.uniform(1e-5, 1e-2, (t, j, 1, 1)) * np.eye(3)
    xyz[0, 0] = np.nan
    names = tuple(camera.name for camera in rig.cameras)
    poses = Poses3D(
        np.arange(t), np.arange(t) / 30, names, skeleton.joints, xyz, cov, np.full((t, j), 0.8), np.full((t, j), 3),
        np.zeros((t, 3)),
    )  # fmt: skip
    peaks, heat = rng.uniform(0, 400, (t, 3, j, 2)), rng.uniform(0.1, 1, (t, 3, j))
    peaks[2, 1, 4], heat[2, 1, 4] = np.nan, 0.0
    shown = np.ones((t, 3), bool)
    shown[5, 2] = False
    return Evidence(rig, poses, select_by_determinant(poses, 0.7), peaks, heat, np.ones((t, 3, j), bool), shown)


def test_each_teacher_labels_what_it_knows():
    run = evidence()
    labels = {teacher: labels_by(teacher, run, {}) for teacher in TEACHERS}
    joints = {teacher: (found.visibility > 0).sum() for teacher, found in labels.items()}
    inside = 29 * 16  # pictures of the person times joints; one picture is not shown
    assert joints["ps"] == inside - 3 and joints["hm"] == inside - 1
    assert joints["ps+sel"] == labels_by("ps+sel", run, {}).weight.astype(bool).sum() < 0.75 * inside
    assert abs(joints["hm+sel"] - 0.7 * joints["hm"]) <= 16
    hm, ps = labels["hm"], labels["ps"]
    row = int(np.flatnonzero((hm.frame == 3) & (hm.view == 1))[0])
    np.testing.assert_array_equal(hm.uv_px[row], run.peaks_px[3, 1])
    np.testing.assert_allclose(ps.uv_px[row], run.rig.cameras[1].project(run.poses.xyz_m[3]))
    assert np.isnan(hm.xyz_cam_m).all() and np.isfinite(ps.xyz_cam_m[row]).all()


def test_selection_by_heat_keeps_the_highest_of_each_joint():
    run = evidence()
    found = labels_by("hm+sel", run, {})
    kept = np.zeros(run.heat.shape, bool)
    kept[found.frame, found.view] = found.visibility > 0
    usable = np.isfinite(run.peaks_px).all(axis=3) & run.shown[..., None]
    for joint in range(16):
        rest = run.heat[..., joint][usable[..., joint] & ~kept[..., joint]]
        assert run.heat[..., joint][kept[..., joint]].min() >= rest.max()


def test_an_unknown_teacher_is_refused():
    with pytest.raises(UserError, match="choose one of ps\\+sel, ps, hm\\+sel, hm"):
        labels_by("truth", evidence(), {})


def test_views_that_agree_err_by_nothing_and_one_that_is_off_by_what_it_is_off():
    rig = rig_of("barrel", "none", "none", "none")
    skeleton, xyz = moving_figure(3)
    maps = maps_round(rig, xyz, skeleton.joints)
    right = unseen_view_errors(rig, maps)
    assert right.shape == (3, 4, 16) and np.nanmax(right) < 0.006
    score = maps.score.copy()
    score[1, 2, 5] = np.roll(score[1, 2, 5], 9, axis=1)
    moved = unseen_view_errors(rig, dataclasses.replace(maps, score=score))
    assert abs(moved[1, 2, 5] - 9 / score.shape[-1]) < 0.01
    others = np.delete(moved[1, :, 5], 2)
    assert (others < 0.02).all(), "three others still agree"
    with pytest.raises(ValueError, match="three or more"):
        unseen_view_errors(rig.select(list(rig.names[:2])), maps)


@pytest.mark.parametrize("layout", ["harvest", "bearpaw"])
@pytest.mark.parametrize("way", WAYS)
def test_only_what_may_change_changes_and_the_merged_network_says_the_same(small, layout, way):
    network = load_hourglass(small / f"{layout}.safetensors")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    adapt(network, way, rank=2)
    network.eval()
    x = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(merged(network)(x), load_hourglass(small / f"{layout}.safetensors")(x))
    optimizer = torch.optim.SGD([value for value in network.parameters() if value.requires_grad], 1.0)
    for _ in range(2):  # low-rank changes begin at zero: the first step moves one of their factors alone
        optimizer.zero_grad()
        sum(score.square().sum() for score in network.all_scores(x)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    after = merged(network)
    with torch.no_grad():
        torch.testing.assert_close(after(x), network(x))
    own = after.state_dict()
    assert own.keys() == before.keys()
    changed = {key.split(".")[0] for key, value in own.items() if not torch.equal(value, before[key])}
    assert "features" not in changed and changed & set(network.last_parts)
    assert ("hg" in changed) == (way != "last")


def test_an_unknown_way_is_refused(small):
    with pytest.raises(UserError, match="choose one of all, last, low-rank"):
        adapt(load_hourglass(small / "harvest.safetensors"), "some")


def test_squared_loss_is_nothing_for_the_target_and_ignores_what_is_unknown():
    uv = torch.tensor([[[129.5, 65.5], [torch.nan, torch.nan], [-40.0, 3.0]]])
    cells = torch.arange(64.0)
    x, y = (torch.exp(-((cells - at) ** 2) / 2) for at in (32.0, 16.0))
    right = torch.zeros(1, 3, 64, 64)
    right[0, 0] = y[:, None] * x
    assert squared_loss(right, uv) < 1e-6
    right[0, 1] += 3.0
    assert squared_loss(right, uv) < 1e-6, "nobody knows that joint"
    right[0, 2, 5, 5] = 1.0
    assert squared_loss(right, uv) == pytest.approx(1 / (64 * 64) / 2, rel=1e-3)


def test_crops_of_a_run_hold_its_labels_in_pixels_and_in_space(done, tmp_path):
    crops_of_run(done / "out", done / "videos", tmp_path / "c", "ps")
    places = find_samples(tmp_path / "c")
    poses = read_poses(RunFolder(done / "out").file("reconstruct"))
    assert len(places) == FRAMES * VIEWS
    for place in places[::5]:
        sample = read_pose(place, poses.joints)
        seen = sample.camera.project((sample.xyz_m - sample.camera.t_cam_from_world_m) @ sample.camera.R_cam_from_world)
        there = sample.uv_px @ sample.image_from_crop[:, :2].T + sample.image_from_crop[:, 2]
        np.testing.assert_allclose(seen, there, atol=0.05)
    crops_of_run(done / "out", done / "videos", tmp_path / "part", "hm", slice(2, 4))
    some = find_samples(tmp_path / "part")
    assert len(some) == 2 * VIEWS and np.isnan(read_pose(some[0], poses.joints).xyz_m).all()


@pytest.fixture(scope="module")
def crops(done, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    crops_of_run(done / "out", done / "videos", folder / "learn", part=slice(0, 6))
    crops_of_run(done / "out", done / "videos", folder / "held_out", part=slice(6, 8))
    return Folders(folder / "learn", folder / "held_out")


@pytest.mark.parametrize(("layout", "steps"), [("harvest", 12), ("bearpaw", 4)])
def test_fine_tuning_learns_and_keeps_the_best_weights(small, crops, tmp_path, layout, steps):
    chosen = settings(small / f"{layout}.safetensors", steps=steps, validate_every=steps // 2, rate=1e-3, ema=0.5)
    training = PersonalTraining(crops, tmp_path, chosen)
    norms = {key: value.clone() for key, value in training.network.state_dict().items() if "running" in key}
    training.run()
    losses = losses_of(tmp_path / CURVE)
    assert len(losses) == 3 and training.best == pytest.approx(min(losses), rel=1e-4) and min(losses) < losses[0]
    network = load_hourglass(tmp_path / WEIGHTS)
    measured = SubjectTask(network).measure(network, find_samples(crops.measure), bf16=False)
    assert measured[0] == pytest.approx(min(losses), rel=2e-3)
    assert (tmp_path / "curve.png").is_file()
    own = training.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in norms.items()), "batch norms stay as they were"


def test_fine_tuning_ends_when_held_out_footage_is_understood_no_better_and_keeps_the_start(small, crops, tmp_path):
    chosen = settings(small / "harvest.safetensors", steps=40, validate_every=2, rate=30.0, clip=1e9, warm=1, ema=0.0)
    training = PersonalTraining(crops, tmp_path, chosen)
    training.run()
    assert training.step == 5 and training.enough
    kept, start = (load_hourglass(path).state_dict() for path in (tmp_path / WEIGHTS, small / "harvest.safetensors"))
    assert all(torch.equal(kept[key], value) for key, value in start.items())
    again = PersonalTraining(crops, tmp_path, chosen)
    assert again.enough and again.best == training.best
    again.run()
    assert again.step == 5


def test_the_result_is_the_mean_of_start_and_end_by_the_share_of_the_start(small, crops, tmp_path):
    ends = {}
    for share in (0.0, 0.25):
        chosen = settings(small / "harvest.safetensors", steps=1, start_share=share, ema=0.0)
        training = PersonalTraining(Folders(crops.learn), tmp_path / str(share), chosen)
        training.run()
        ends[share] = load_hourglass(tmp_path / str(share) / WEIGHTS).state_dict()
    start = load_hourglass(small / "harvest.safetensors").state_dict()
    for key, value in ends[0.25].items():
        if value.dtype.is_floating_point:
            torch.testing.assert_close(value, 0.75 * ends[0.0][key] + 0.25 * start[key], rtol=2e-3, atol=2e-4)
    assert any(not torch.equal(ends[0.0][key], value) for key, value in start.items())


def test_fine_tuning_goes_on_after_a_stop_to_the_same_weights(small, crops, tmp_path):
    chosen = settings(small / "harvest.safetensors", steps=6, way="low-rank", rank=2)
    PersonalTraining(crops, tmp_path / "whole", chosen).run()
    stopped = PersonalTraining(crops, tmp_path / "parts", chosen)
    stopped.run(most_seconds=0.0)
    assert stopped.step == 1
    PersonalTraining(crops, tmp_path / "parts", chosen).run()
    whole, parts = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["network"] for name in ("whole", "parts")
    )
    assert all(torch.equal(parts[key], value) for key, value in whole.items())
    assert losses_of(tmp_path / "whole" / CURVE) == losses_of(tmp_path / "parts" / CURVE)


def test_the_command_fine_tunes_runs_again_and_shows_what_changed(done, tmp_path, capsys):
    given = ["--run", done / "out", "--videos", done / "videos", "--out", tmp_path / "me", "--epochs", "1"]
    given += ["--held-out", "0.25"]
    harvest("personalize", *given)
    told = capsys.readouterr().out
    assert "round 1: loss on held-out footage" in told and "hourglass.safetensors" in told
    assert load_hourglass(tmp_path / "me" / WEIGHTS).joints[16] == "nose"
    assert RunFolder(tmp_path / "me" / "round_1" / "run").stored_fingerprint("label")
    page = (tmp_path / "me" / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 4 and "cam01, frame" in page and "{{" not in page
    summary = json.loads((tmp_path / "me" / "summary.json").read_text())
    assert summary["best"] == 1 and len(summary["rounds"][0]["losses"]) == 2
    harvest("personalize", *given)
    assert capsys.readouterr().out == told
    with pytest.raises(UserError, match="labels ps\\+sel \\(now hm\\)"):
        harvest("personalize", *given, "--labels", "hm")


def test_bad_orders_are_refused_in_one_line(done, tmp_path):
    given = ["--videos", done / "videos", "--out", tmp_path / "x"]
    with pytest.raises(UserError, match="holds no finished run"):
        harvest("personalize", "--run", tmp_path, *given)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "other").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        harvest("personalize", "--run", done / "out", *given)


def test_crops_that_are_read_as_samples_have_joints_where_the_labels_are(crops):
    picture, uv, visibility = read_sample(find_samples(crops.learn)[0], ("l_wrist", "r_ankle"))
    assert picture.shape == (256, 256, 3) and np.isfinite(uv[visibility > 0]).all()

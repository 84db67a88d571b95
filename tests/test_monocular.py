"""3D from single pictures: the networks, depth by limbs, training on harvested labels, prediction."""

import dataclasses

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import harvest, keypoint_run
from map_scenes import rig_of

from calib.camera import Camera
from harvest.errors import UserError
from harvest.learn.detector import Folders
from harvest.learn.monocular import WEIGHTS, MonocularSettings, MonocularTraining, PoseTask, pose_errors_mm
from harvest.learn.samples import find_samples, read_pose
from harvest.metrics.pose import PARTS, correct_parts, similar
from harvest.monocular.files import load_monocular, save_monocular
from harvest.monocular.lift import Limbs, lift, mean_limbs, rays_of
from harvest.monocular.networks import MODELS, MonocularNetwork, Shape, predict_crops
from harvest.skeleton import load_skeleton
from harvest.studio.figure import moving_figure
from pipelines.harvested_crops import crops_of_run
from pipelines.predict import Question, camera_of
from pipelines.recipes import Given, train_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
SKELETON = load_skeleton("mpii16")
PARENTS = SKELETON.parents.tolist()
ROOT = SKELETON.index("pelvis")
SMALL = {"skeleton": "mpii16", "width": 16, "bf16": False, "warm": 1, "batch": 4, "steps": 2, "validate_every": 2}
WHOLE = np.eye(3)[:2]


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Crops of a finished run on keypoints of a synthetic capture: to learn from, and to measure on."""
    folder = tmp_path_factory.mktemp("run")
    keypoint_run(folder, "out", "--keep", "1", frames=8)
    for name, part in (("learn", slice(0, 6)), ("measure", slice(6, 8))):
        crops_of_run(folder / "out", folder / "videos", folder / name, part=part)
    return Folders(folder / "learn", folder / "measure")


@pytest.mark.parametrize("lens", ["barrel", "fisheye", "tilted", "none"])
def test_a_pose_of_usual_size_is_put_where_it_is(lens):
    camera = rig_of(lens, "none").cameras[0]
    _, xyz = moving_figure(5)
    limbs = mean_limbs(xyz, PARENTS)
    uv, there = camera.project(xyz), camera.cam_from_world(xyz)
    depth = there[..., 2] - there[:, ROOT, None, 2]
    cut = np.array([[0.8, -0.3, 40.0], [0.3, 0.8, -10.0]])
    in_crop = (uv - cut[:, 2]) @ np.linalg.inv(cut[:, :2]).T
    found = lift(rays_of(in_crop, camera, cut), depth, limbs)
    np.testing.assert_allclose(found, there, atol=1e-6)


def test_joints_that_are_unknown_take_no_part_in_the_distance():
    camera = rig_of("none", "none").cameras[0]
    _, xyz = moving_figure(1)
    limbs, there = mean_limbs(xyz, PARENTS), camera.cam_from_world(xyz[0])
    rays, depth = rays_of(camera.project(xyz[0]), camera, WHOLE), there[:, 2] - there[ROOT, 2]
    depth[SKELETON.index("l_wrist")] = np.nan
    found = lift(rays, depth, limbs)
    known = np.isfinite(depth)
    np.testing.assert_allclose(found[known], there[known], atol=1e-6)
    assert np.isnan(found[~known]).all()


def test_depths_that_make_limbs_too_long_still_give_a_place_before_the_camera():
    rays = np.array([[0.0, 0.0, 1.0], [0.1, 0.0, 1.0]])
    found = lift(rays, np.array([0.0, 5.0]), Limbs(np.array([[1, 0]]), np.array([0.3])))
    assert np.isfinite(found).all() and found[0, 2] > 0


def test_mean_limbs_leave_out_what_nobody_shows():
    _, xyz = moving_figure(4)
    xyz = xyz.copy()
    xyz[:, SKELETON.index("l_wrist")] = np.nan
    xyz[0, SKELETON.index("r_wrist")] = np.nan
    limbs = mean_limbs(xyz, PARENTS)
    ends = {SKELETON.joints[joint] for joint in limbs.ends[:, 0]}
    assert "l_wrist" not in ends and "r_wrist" in ends and len(limbs.length_m) == 14
    with pytest.raises(ValueError, match="ends"):
        mean_limbs(np.full_like(xyz, np.nan), PARENTS)


def test_the_best_similarity_undoes_any_other():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(16, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    target = 1.7 * points @ turn.T + [1, 2, 3]
    np.testing.assert_allclose(similar(points, target), target, atol=1e-9)
    target[3] = np.nan
    assert np.isfinite(similar(points, target)).all() and np.isnan(similar(points[:2], target[:2])).all()
    mirrored = points * [-1, 1, 1]
    assert np.linalg.norm(similar(mirrored, points) - points, axis=1).mean() > 0.1, "a mirror is no rotation"


def test_a_part_is_right_if_its_ends_err_by_half_its_length_on_average():
    _, xyz = moving_figure(1)
    truth, wrist, elbow = xyz[0], SKELETON.index("l_wrist"), SKELETON.index("l_elbow")
    length = np.linalg.norm(truth[wrist] - truth[elbow])
    for off, right in ((0.99, 1.0), (1.01, 0.0)):
        moved = truth.copy()
        moved[wrist, 2] += off * length
        found = correct_parts(moved, truth, SKELETON.joints)
        assert found["lower arms"].tolist() == [right, 1.0] and found["upper arms"].tolist() == [1.0, 1.0]
    lost = truth.copy()
    lost[wrist] = np.nan
    assert correct_parts(lost, truth, SKELETON.joints)["lower arms"].tolist() == [0.0, 1.0]
    assert np.isnan(correct_parts(truth, lost, SKELETON.joints)["lower arms"][0]) and len(PARTS) == 4


@pytest.mark.parametrize("model", MODELS)
def test_a_fresh_network_says_the_middle_and_its_file_says_the_same(model, tmp_path):
    torch.manual_seed(0)
    network = MonocularNetwork(Shape(model, SKELETON.joints, 16)).eval()
    crops = np.random.default_rng(0).integers(0, 255, (2, 256, 256, 3), np.uint8)
    said = predict_crops(network, crops)
    assert said.shape == (2, 16, 3)
    np.testing.assert_allclose(said, np.broadcast_to([127.5, 127.5, 0.0], said.shape), atol=8)
    limbs = mean_limbs(moving_figure(3)[1], PARENTS)
    save_monocular(network, limbs, tmp_path / "w.safetensors")
    again, others = load_monocular(tmp_path / "w.safetensors")
    np.testing.assert_allclose(predict_crops(again, crops), said, atol=0.05)
    np.testing.assert_allclose(others.length_m, limbs.length_m, atol=1e-5)
    assert again.shape == network.shape and (others.ends == limbs.ends).all()


def test_volumetric_maps_with_one_peak_give_its_place():
    network = MonocularNetwork(Shape("volumetric", SKELETON.joints, 16))
    head = torch.zeros(1, 16 * 32, 32, 32)
    head.view(1, 16, 32, 32, 32)[0, 4, 30, 6, 20] = 1e3  # depth, row, column
    network.head = torch.nn.Identity()
    said = network._mean(head)[0, 4]
    torch.testing.assert_close(said, torch.tensor([20.5 * 8 - 0.5, 6.5 * 8 - 0.5, (30.5 / 16 - 1) * 1.2]))


def test_samples_stay_true_when_turned_scaled_and_mirrored(crops):
    place = find_samples(crops.learn)[0]
    known = read_pose(place, SKELETON.joints)
    task = PoseTask(Shape("volumetric", SKELETON.joints), mean_limbs(moving_figure(1)[1], PARENTS), "mpii16")
    depth = known.xyz_m[:, 2] - known.xyz_m[ROOT, 2]
    mirrored = 0
    for seed in range(12):
        _, truth = task.sample(place, np.random.default_rng(seed))
        same, other = (np.allclose(truth[:, 2], depth[rows], atol=1e-6) for rows in (np.arange(16), SKELETON.mirror))
        assert same or other
        mirrored += other and not same
    assert 0 < mirrored < 12


def test_the_loss_counts_known_numbers_alone():
    limbs = mean_limbs(moving_figure(1)[1], PARENTS)
    truth = torch.zeros(2, 16, 3)
    truth[:, 3] = torch.nan
    scores = truth.nan_to_num(9e9) + torch.tensor([128.0, 0, 0])
    for model in MODELS:
        assert PoseTask(Shape(model, SKELETON.joints), limbs, "mpii16").loss(scores, truth) == pytest.approx(1 / 3)
    scores[..., 0] *= 2
    assert PoseTask(Shape("regression", SKELETON.joints), limbs, "mpii16").loss(scores, truth) == pytest.approx(4 / 3)


def test_depths_of_a_sample_whose_pelvis_has_no_label_count_but_for_a_constant(crops):
    task = PoseTask(Shape("volumetric", SKELETON.joints), mean_limbs(moving_figure(1)[1], PARENTS), "mpii16")
    place = find_samples(crops.learn)[0]
    whole = task.sample(place, np.random.default_rng(0))[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harvest.learn.monocular.read_pose", without_pelvis)
        part = task.sample(place, np.random.default_rng(0))[1]
    assert np.isnan(part[ROOT]).all() and abs(np.nanmean(part[:, 2])) < 1e-6
    others = np.arange(16) != ROOT
    np.testing.assert_allclose(np.ptp(part[others, 2] - whole[others, 2]), 0, atol=1e-6)
    scores, truth = torch.tensor(whole)[None], torch.tensor(part)[None]
    assert task.loss(scores, truth) < 1e-6, "the same pose but for a constant"
    scores[0, 0, 2] += 0.1
    assert task.loss(scores, truth) > 1e-4
    assert task.loss(scores + torch.tensor([0, 0, 0.1]), torch.tensor(whole)[None]) > 1e-2, "a pelvis tells where"


def without_pelvis(place, joints):
    found = read_pose(place, joints)
    for values in (found.uv_px, found.xyz_m):
        values[ROOT] = np.nan
    return found


@pytest.mark.parametrize("model", [model for model in MODELS if model != "planar"])  # it needs a loss of maps
def test_training_learns_a_handful_of_pictures(crops, tmp_path, model, monkeypatch):
    monkeypatch.setattr("harvest.learn.monocular.augment", lambda picture, uv, mirror, rng: (picture, uv.copy()))
    chosen = MonocularSettings(**SMALL | {"model": model, "steps": 20, "validate_every": 20, "ema": 0.0, "rate": 3e-3})
    training = MonocularTraining(dataclasses.replace(crops, measure=crops.learn), tmp_path, chosen)
    before = np.nanmean(pose_errors_mm(training.averaged(), training.limbs, find_samples(crops.learn))[0])
    training.run()
    network, limbs = load_monocular(tmp_path / WEIGHTS)
    after, aligned = (np.nanmean(error) for error in pose_errors_mm(network, limbs, find_samples(crops.learn)))
    assert after < 0.75 * before and aligned < after


def test_what_cannot_be_trained_is_refused(crops, tmp_path):
    with pytest.raises(UserError, match="no recipe 'magic'"):
        train_recipe("magic", Given(crops.learn), tmp_path, {})
    with pytest.raises(UserError, match="choose volumetric or regression"):
        MonocularTraining(crops, tmp_path, MonocularSettings(**SMALL | {"model": "magic"}))
    with pytest.raises(UserError, match="skeleton 'coco17' has no pelvis"):
        MonocularTraining(crops, tmp_path, MonocularSettings(**SMALL | {"skeleton": "coco17"}))
    with pytest.raises(UserError, match=r"give a \.safetensors that `harvest train monocular` made"):
        load_monocular(tmp_path / "none.safetensors")


def test_the_commands_train_and_predict(crops, tmp_path, capsys):
    command = ["--data", crops.learn, "--validation", crops.measure, "--out", tmp_path / "m", "--skeleton", "mpii16"]
    command += ["--width", "16"]
    harvest("train", "monocular", *command, "--steps", "2", "--batch", "4", "--processes", "1")
    weights = tmp_path / "m" / WEIGHTS
    assert str(weights) in capsys.readouterr().out
    picture = read_pose(find_samples(crops.measure)[0], SKELETON.joints).picture
    canvas = np.full((400, 500, 3), 120, np.uint8)
    canvas[70:326, 120:376] = picture
    cv2.imwrite(str(tmp_path / "p.png"), canvas[..., ::-1])
    harvest("predict", "--weights", weights, "--image", tmp_path / "p.png", "--out", tmp_path / "said")
    table = pq.read_table(tmp_path / "said" / "poses.parquet").to_pydict()
    assert table["joint"] == list(SKELETON.joints) and set(table["frame"]) == {0}
    assert np.isfinite(table["z_cam_m"]).all() and min(table["z_cam_m"]) > 0
    assert cv2.imread(str(tmp_path / "said" / "poses.png")) is not None
    for given, told in (
        (["--image", tmp_path / "p.png", "--video", tmp_path / "p.mp4"], "one thing to look at"),
        (["--image", tmp_path / "none.png"], "there is no"),
    ):
        with pytest.raises(UserError, match=told):
            harvest("predict", "--weights", weights, *given, "--out", tmp_path / "said")


def test_a_camera_is_the_rigs_or_one_of_usual_focal_length(tmp_path):
    question = Question(tmp_path, tmp_path)
    assert camera_of(question, (400, 300)).K[0, 0] == 480
    assert camera_of(dataclasses.replace(question, focal_px=500.0), (400, 300)).K[1, 1] == 500
    rig = rig_of("barrel", "none")
    (tmp_path / "rig.yaml").write_text(rig.to_yaml())
    named = dataclasses.replace(question, rig=tmp_path / "rig.yaml", camera=rig.names[0])
    found = camera_of(named, rig.cameras[0].size_px)
    assert isinstance(found, Camera) and found.dist_opencv.any()
    with pytest.raises(UserError, match="was calibrated at"):
        camera_of(named, (10, 10))
    with pytest.raises(UserError, match="--camera must name one of"):
        camera_of(dataclasses.replace(named, camera="x"), (10, 10))

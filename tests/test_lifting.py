"""Lifters: their data and files, learning them from which of two joints is nearer, and prediction."""

import csv
import math
from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import draw, harvest

from calib.camera import Camera
from harvest.errors import UserError
from harvest.labels.merge import merge_votes
from harvest.labels.votes import Pair, Votes, VoteStore
from harvest.learn.geometry import orthographic, perspective, rotations
from harvest.learn.lifting import PoseSets, lifted, pose_errors_mm, prepared, typical_limbs
from harvest.learn.pairs import PairLabels, draw_pairs, labels_of, right_share, simulated_votes, true_labels
from harvest.learn.pose_sets import PoseSet, join, read_pose_set
from harvest.learn.relative import (
    RelativeSettings,
    RelativeTraining,
    RelativeWeights,
    fitted_depth,
)
from harvest.metrics.pose import scaled, similar
from harvest.monocular.lift import Limbs, placed
from harvest.monocular.lifter import Lifter, LifterShape, in_metres, share_of
from harvest.monocular.lifter_files import load_lifter, save_lifter
from harvest.skeleton import load_skeleton
from harvest.studio.figure import moving_figure
from pipelines.recipes import RECIPES, settings_of

pytestmark = pytest.mark.usefixtures("one_thread")
SKELETON = load_skeleton("mpii16")
ROOT = SKELETON.index("pelvis")
SMALL = {"width": 32, "batch": 16, "steps": 4, "warm": 1, "validate_every": 2, "dropout": 0.0}


def figures(count=64, seed=0, unsure=False) -> PoseSet:
    """Moments of a walking figure before random cameras that look at it."""
    _, xyz = moving_figure(count)
    rng = np.random.default_rng(seed)
    seen = []
    for pose in xyz:
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), np.sin(angle), 0], [0, 0, -1], [-np.sin(angle), np.cos(angle), 0]])
        seen.append((pose - pose[ROOT]) @ turn.T + [rng.normal(0, 0.3), rng.normal(0, 0.2), rng.uniform(3, 6)])
    xyz_m = np.array(seen)
    xy = xyz_m[..., :2] / xyz_m[..., 2:]
    K = np.tile(np.array([[900.0, 0, 640], [0, 900.0, 480], [0, 0, 1]]), (count, 1, 1))
    names = np.array([f"picture-{row:04d}" for row in range(count)])
    found = xy + rng.normal(0, 0.01, xy.shape) if unsure else xy
    who = np.full(count, "figure")
    sure = np.full(xy.shape[:2], 0.7 if unsure else 1.0)
    sizes = np.tile([1280.0, 960.0], (count, 1))
    return PoseSet(SKELETON.joints, found, xy, sure, xyz_m, K, sizes, who, who, names, names)


def in_2d(poses):
    """The same, of which nothing is known in space."""
    return replace(poses, xyz_m=np.full_like(poses.xyz_m, np.nan))


VOTES = PairLabels(np.array([0]), np.array([1]), np.array([2]), np.array([1]), np.ones(1))


# --- pairs and votes


def test_pairs_are_different_ones_of_known_joints():
    known = np.ones((50, 6), bool)
    known[:, 5], known[0, 1:] = False, False
    row, one, other = draw_pairs(known, 3, np.random.default_rng(0))
    assert 0 not in row and len(row) == 49 * 3 and 5 not in one and 5 not in other and (one != other).all()
    both = {(r, min(a, b), max(a, b)) for r, a, b in zip(row, one, other, strict=True)}
    assert len(both) == len(row) and 0.3 < np.mean(one > other) < 0.7
    assert len(draw_pairs(known, None, np.random.default_rng(0))[0]) == 49 * 10


def test_labels_say_which_is_nearer_unless_both_are_about_as_far():
    depth, asked = np.array([[1.0, 1.05, 2.0]]), (np.zeros(3, int), np.array([0, 0, 2]), np.array([1, 2, 1]))
    assert true_labels(depth, asked).r.tolist() == [-1, -1, 1]
    assert true_labels(depth, asked, tolerance_m=0.1).r.tolist() == [0, -1, 1]
    many = (np.zeros(4000, int), np.zeros(4000, int), np.full(4000, 2))
    assert np.mean(true_labels(depth, many, flipped=0.25).r == 1) == pytest.approx(0.25, abs=0.03)


def test_annotators_are_as_good_as_measured():
    assert right_share(np.array([0.0, 10.0])).tolist() == pytest.approx([0.5, 0.94])
    assert right_share(np.array(-0.3)) > 0.9 > right_share(np.array(0.1))


def crowd(each=5, pictures=600):
    """Votes on a pair of each of some figures, and what is so."""
    poses, rng = figures(pictures), np.random.default_rng(5)
    asked = draw_pairs(np.isfinite(poses.xyz_m).all(-1), 1, rng)
    votes = simulated_votes(poses.xyz_m[..., 2], asked, (poses.name, poses.joints), each, 20, rng)
    return poses, asked, votes


def test_merged_votes_are_right_more_often_than_single_ones_and_know_when():
    poses, (row, one, other), votes = crowd()
    labels = labels_of(votes, poses)
    truth = np.sign(poses.xyz_m[labels.row, labels.one, 2] - poses.xyz_m[labels.row, labels.other, 2])
    right = labels.r == truth
    single = {
        (a, b, c): r for a, b, c, r in zip(row, one, other, true_labels(poses.xyz_m[..., 2], (row, one, other)).r)
    }
    said = [
        single[int(picture[-4:]), poses.joints.index(a), poses.joints.index(b)] == r
        for picture, a, b, r in zip(votes.sample, votes.one, votes.other, votes.nearer, strict=True)
    ]
    assert right.mean() > np.mean(said) + 0.04
    sure = labels.weight > 0.9
    assert right[sure].mean() > right[~sure].mean() + 0.1


def test_who_often_disagrees_counts_less_and_the_order_of_asking_nothing():
    people, asked = [f"p{k}" for k in range(5)], 40
    rng = np.random.default_rng(0)
    truth = rng.choice([-1, 1], asked)
    said = np.array([truth, truth, truth, rng.choice([-1, 1], asked), -truth])
    names = [np.repeat([f"s{k:02d}" for k in range(asked)], 5), np.full(5 * asked, "a"), np.full(5 * asked, "b")]
    votes = Votes(*names, np.tile(people, asked), said.T.ravel().astype(np.int8))
    merged = merge_votes(votes)
    assert ((merged.nearer > 0.5) == (truth < 0)).all() and merged.right[:3].min() > 0.9 > 0.3 > merged.right[4]
    swapped = Votes(names[0], names[2], names[1], votes.annotator, (-votes.nearer).astype(np.int8))
    np.testing.assert_allclose(merge_votes(swapped).nearer, merged.nearer)
    neither = Votes(*(values[:1] for values in (*names, votes.annotator)), np.zeros(1, np.int8))
    assert merge_votes(neither).nearer.tolist() == [0.5]


# --- pose sets


def test_joints_come_by_name_and_pixels_through_one_usual_camera():
    poses = figures(3)
    coco = poses.of(["l_hip", "neck", "l_eye"])
    np.testing.assert_array_equal(coco.xy[:, 0], poses.xy[:, SKELETON.index("l_hip")])
    sides = [SKELETON.index(name) for name in ("l_shoulder", "r_shoulder")]
    np.testing.assert_allclose(coco.xyz_m[:, 1], poses.xyz_m[:, sides].mean(axis=1))
    assert np.isnan(coco.xy[:, 2]).all() and (coco.confidence[:, 2] == 0).all()
    screen = poses.on_screen(np.zeros((3, 1, 2)))
    np.testing.assert_allclose(screen[0, 0], [(640 - 639.5) / (1.2 * 1280), (480 - 479.5) / (1.2 * 1280)])
    assert len(join([poses, poses]).take(np.arange(4))) == 4
    unsure = figures(3, unsure=True)
    assert (unsure.exact().xy == unsure.label_xy).all() and (unsure.exact().confidence == 1).all()


def write_set(path, poses):
    """A pose set as `harvest studio poses` writes it."""
    ones = np.ones((*poses.xy.shape[:2], 1))
    np.savez(
        path,
        S=np.concatenate([poses.xyz_m, ones], -1),
        xy=np.concatenate([poses.xy, poses.confidence[..., None]], -1),
        xy_exact=np.concatenate([poses.label_xy, ones], -1),
        K=poses.K,
        size_px=poses.size_px[0],
        joints=np.array(poses.joints),
        subject=poses.subject,
        action=poses.action,
        moment=poses.moment,
        imgname=poses.name,
    )
    return path


def test_a_set_is_read_as_it_was_written_and_a_broken_one_is_told(tmp_path):
    poses = figures(5, unsure=True)
    read = read_pose_set(write_set(tmp_path / "set.npz", poses))
    for name in ("xy", "label_xy", "confidence", "xyz_m", "K", "size_px"):
        np.testing.assert_allclose(getattr(read, name), getattr(poses, name))
    assert read.joints == poses.joints and (read.name == poses.name).all()
    np.savez(tmp_path / "old.npz", S=np.zeros((1, 17, 4)))
    for path, told in ((tmp_path / "old.npz", "no set of poses with cameras"), (tmp_path / "no", "holds no poses")):
        with pytest.raises(UserError, match=told):
            read_pose_set(path)


def test_depths_begin_along_the_ray_on_which_the_root_is_seen():
    torch.manual_seed(0)
    straight = Lifter(LifterShape(SKELETON.joints, width=8)).eval()
    on_ray = Lifter(LifterShape(SKELETON.joints, width=8, on_ray=True)).eval()
    on_ray.load_state_dict(straight.state_dict())
    xy = torch.tensor(figures(2).xy, dtype=torch.float32)
    (before, scale), (after, same) = straight(xy), on_ray(xy)
    assert torch.equal(scale, same)
    torch.testing.assert_close(after[..., 2], before[..., 2])
    at = xy[:, ROOT : ROOT + 1]
    torch.testing.assert_close(after[..., :2], before[..., :2] + at * before[..., 2:])
    # So what is seen about the root does not depend on where that is.
    distance = torch.full((2,), 9.0)
    torch.testing.assert_close(perspective(after, distance, at), perspective(before, distance), atol=1e-5, rtol=1e-5)


# --- errors, limbs, placing


def test_the_best_scale_and_similarity_are_found_for_many_poses_at_once():
    target = draw(0, 7, 5, 3).numpy()
    turn = rotations(torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64)).numpy()
    moved = 2.5 * target @ turn.T + [1.0, 2.0, 3.0]
    moved[0, 1] = np.nan
    np.testing.assert_allclose(similar(moved, target)[1:], target[1:], atol=1e-9)
    np.testing.assert_allclose(similar(moved, target)[0, [0, 2, 3, 4]], target[0, [0, 2, 3, 4]], atol=1e-9)
    np.testing.assert_allclose(scaled(-3 * target, target), target)
    assert np.isnan(similar(moved[0, :2], target[0, :2])).all()
    flipped = target * [1, 1, -1]
    assert np.linalg.norm(similar(flipped, target) - target) > 1  # a mirror image is not similar


def test_a_pose_is_put_where_its_rays_meet_it():
    poses = figures(6)
    about = poses.xyz_m - poses.xyz_m[:, ROOT : ROOT + 1]
    rays = np.concatenate([poses.xy, np.ones((*poses.xy.shape[:2], 1))], axis=-1)
    rays[0, 3] = np.nan
    np.testing.assert_allclose(placed(about, rays), poses.xyz_m, atol=1e-6)


def test_what_has_no_unit_is_given_that_of_a_usual_person():
    limbs = typical_limbs(SKELETON)
    _, xyz = moving_figure(2)
    own = Limbs(limbs.ends, np.linalg.norm(xyz[0, limbs.ends[:, 0]] - xyz[0, limbs.ends[:, 1]], axis=1))
    free, metric = (Lifter(LifterShape(SKELETON.joints, width=8, metric=metric)) for metric in (False, True))
    np.testing.assert_allclose(in_metres(free, own, 0.01 * xyz[:1]), xyz[:1])
    np.testing.assert_array_equal(in_metres(metric, own, 0.01 * xyz), 0.01 * xyz)


# --- lifters and their training


@pytest.mark.parametrize("refined", [False, True])
def test_a_lifter_of_a_file_says_the_same_and_unknown_joints_are_at_the_root(tmp_path, refined):
    torch.manual_seed(0)
    lifter = Lifter(LifterShape(SKELETON.joints, width=16, blocks=2, refined=refined)).eval()
    save_lifter(lifter, typical_limbs(SKELETON), tmp_path / "l.safetensors")
    again, limbs = load_lifter(tmp_path / "l.safetensors")
    xy, confidence = draw(0, 4, 16, 2).float(), draw(1, 4, 16).abs().float()
    xy[0, 3] = math.nan
    for given in ((xy,), (xy, confidence)):
        for ours, theirs in zip(lifter(*given), again(*given), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert lifter(xy)[0].isfinite().all() and again.shape == lifter.shape
    np.testing.assert_allclose(limbs.length_m, typical_limbs(SKELETON).length_m, atol=1e-5)
    assert share_of(torch.tensor([[1.0, 3.0]])).tolist() == [[0.25, 0.75]]
    with pytest.raises(UserError, match="give a lifter"):
        load_lifter(tmp_path / "none.safetensors")


def test_learning_the_order_of_joints_gives_shapes_of_people(tmp_path):
    poses = figures(400)
    settings = RelativeSettings(**SMALL | {"width": 96, "steps": 400, "validate_every": 400, "pairs": 8, "ema": 0.98})
    training = RelativeTraining(PoseSets(poses, figures(50, seed=9)), tmp_path, settings)
    root = training.root
    before = pose_errors_mm(lifted(training.averaged(), training.limbs, training.validation), training.validation, root)
    training.run()
    lifter, limbs = load_lifter(tmp_path / "lifter.safetensors")
    after = pose_errors_mm(lifted(lifter, limbs, training.validation), training.validation, root)
    assert after[2] < 0.6 * before[2] and after[0] < before[0] and after[2] <= after[1] + 1e-6


@pytest.mark.parametrize(
    "change", [{}, {"supervised": True}, {"perspective": False}, {"bones": "none", "pairs": 0}, {"both": True}]
)
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, change):
    change = dict(change)
    sets = PoseSets(figures(40), figures(10, seed=3), figures(30, seed=4) if change.pop("both", False) else None)
    settings = RelativeSettings(**SMALL | change)
    RelativeTraining(sets, tmp_path / "whole", settings).run()
    RelativeTraining(sets, tmp_path / "parts", settings).run(most_seconds=0)
    RelativeTraining(sets, tmp_path / "parts", settings).run()
    whole, parts = (load_lifter(tmp_path / name / "lifter.safetensors")[0].state_dict() for name in ("whole", "parts"))
    assert all((whole[key] == parts[key]).all() for key in whole)
    with (tmp_path / "whole" / "curve.csv").open() as file:
        assert list(csv.DictReader(file))[-1].keys() == {"step", "hours", "loss", "mpjpe_mm", "scaled_mm", "aligned_mm"}


def test_labels_of_a_batch_are_those_of_its_rows(tmp_path):
    poses = figures(10)
    training = RelativeTraining(PoseSets(poses), tmp_path, RelativeSettings(**SMALL | {"pairs": 3}))
    rows = np.array([7, 2, 7])
    found = training.pairs_of(rows)
    apart = poses.xyz_m[rows[found.row], found.one, 2] - poses.xyz_m[rows[found.row], found.other, 2]
    assert len(found.r) == 9 and (np.sign(apart) == found.r.numpy()).all()


@pytest.mark.parametrize("lens", [False, True])
def test_a_lifter_that_knows_metres_goes_on_from_where_it_was(tmp_path, lens):
    poses, more = figures(40), {"perspective": lens}
    begin = RelativeTraining(PoseSets(poses), tmp_path / "a", RelativeSettings(**SMALL | {"supervised": True}))
    start = begin.averaged()
    given = start, begin.limbs
    after = RelativeTraining(PoseSets(poses), tmp_path / "b", RelativeSettings(**SMALL | more), start=given)
    xy = torch.from_numpy(poses.xy.astype(np.float32))
    ours, scale = after.averaged()(xy)
    torch.testing.assert_close(ours, start(xy)[0])
    assert after.network.shape.metric and not after.network.shape.centred
    at, about = xy[:, ROOT : ROOT + 1], (xy - xy[:, ROOT : ROOT + 1]) / 0.1
    shown = perspective(ours, fitted_depth(ours, at, 0.1 * about), at) / 0.1 if lens else orthographic(ours, scale)
    assert (shown - about).norm(dim=-1).mean() < 0.75 * about.norm(dim=-1).mean()
    with pytest.raises(UserError, match="other joints than skeleton 'h36m17'"):
        RelativeTraining(PoseSets(poses), tmp_path, RelativeSettings(**SMALL | {"skeleton": "h36m17"}), start=given)
    flat = RelativeTraining(PoseSets(in_2d(poses)), tmp_path / "c", RelativeSettings(**SMALL | more), VOTES, given)
    np.testing.assert_array_equal(flat.limbs.length_m, begin.limbs.length_m)


def test_poses_in_3d_and_votes_on_others_teach_at_once(tmp_path):
    known, others, judge = figures(24), figures(200, seed=5), figures(60, seed=9)
    both = RelativeSettings(**SMALL | {"width": 64, "steps": 400, "validate_every": 400, "ema": 0.98})
    labels = true_labels(others.xyz_m[..., 2], draw_pairs(np.ones((200, 16), bool), 1, np.random.default_rng(0)))
    alone = RelativeTraining(PoseSets(known, judge), tmp_path / "alone", replace(both, supervised=True))
    more = RelativeTraining(PoseSets(known, judge, in_2d(others)), tmp_path / "both", both, labels)
    assert more.network.shape == alone.network.shape
    errors = []
    for training in (alone, more):
        training.run()
        errors.append(training.measure(training.averaged()))
    assert errors[1][0] < 0.9 * errors[0][0] and errors[1][2] < 0.9 * errors[0][2]
    # Without a vote 2D teaches, and depths of the others are not looked at.
    short = replace(both, steps=3)
    unlike = replace(others, xyz_m=others.xyz_m * [1.0, 1.0, -1.0])
    sets = {name: PoseSets(known, None, those) for name, those in (("flat", in_2d(others)), ("deep", unlike))}
    found = [RelativeTraining(those, tmp_path / name, short) for name, those in sets.items()]
    for training in found:
        training.run()
    one, other = (training.network.state_dict() for training in found)
    assert all((one[key] == other[key]).all() for key in one) and all(v.isfinite().all() for v in one.values())
    with pytest.raises(UserError, match="no pose to learn from is known in 3D"):
        RelativeTraining(PoseSets(in_2d(known), None, others), tmp_path / "none", both)


def test_what_cannot_be_learnt_from_is_refused(tmp_path):
    with pytest.raises(UserError, match="give --votes"):
        RelativeTraining(PoseSets(in_2d(figures(5))), tmp_path, RelativeSettings(**SMALL))
    with pytest.raises(UserError, match="bones are measured, typical or none, got 'some'"):
        RelativeTraining(PoseSets(figures(5)), tmp_path, RelativeSettings(**SMALL | {"bones": "some"}))
    with pytest.raises(UserError, match="has the pelvis of skeleton"):
        prepared(figures(5).of(["nose"]), "mpii16")
    assert RelativeWeights().alpha == 1


def test_the_command_learns_from_peoples_votes_on_pictures_known_in_2d_alone_and_predicts(tmp_path, capsys):
    poses = figures(30)
    path = write_set(tmp_path / "set.npz", in_2d(poses))
    with np.load(path) as held:
        arrays = dict(held)
    arrays["S"][..., 3] = 0
    np.savez(path, **arrays)
    with closing(VoteStore.open(tmp_path / "votes.sqlite")) as store:
        for name in poses.name[:20].tolist():
            store.add(Pair(name, "l_knee", "r_wrist"), "anna", -1, 1.0)
    command = ["--recipe", "relative", "--data", path, "--votes", tmp_path / "votes.sqlite", "--out", tmp_path / "m"]
    command += ["--width", "16", "--steps", "2", "--batch", "8", "--processes", "1", "--set", "bones=typical"]
    harvest("train", "monocular", *command)
    weights = tmp_path / "m" / "lifter.safetensors"
    assert str(weights) in capsys.readouterr().out
    lab = write_set(tmp_path / "lab.npz", figures(20, seed=1))
    harvest("train", "monocular", *command, "--data", lab, "--more", path, "--out", tmp_path / "both")
    assert load_lifter(tmp_path / "both" / "lifter.safetensors")[0].shape.metric
    assert not load_lifter(weights)[0].shape.metric
    for more, told in (
        (["--set", "bones"], "give KEY=VALUE, known: steps"),
        (["--set", "pairs=many"], "takes a int, got 'many'"),
        (["--set", "alpha=much"], "takes a float, got 'much'"),
        (["--recipe", "magic"], "no recipe 'magic'"),
        (["--recipe", "harvested"], "makes no use of --votes; beside --data and --validation it takes --more, --start"),
    ):
        with pytest.raises(UserError, match=told):
            harvest("train", "monocular", *command[:-2], *more)


def test_settings_of_a_recipe_are_read_by_their_type_and_weights_as_if_they_were_its_own():
    told = ["pairs=3", "perspective=false", "tolerance_m=1", "bones=none", "gamma=3", "steep=0.5"]
    found = settings_of(RelativeSettings, "relative", told)
    weights = RelativeWeights(gamma=3.0, steep=0.5)
    assert found == {"pairs": 3, "perspective": False, "tolerance_m": 1.0, "bones": "none", "weights": weights}
    assert type(found["tolerance_m"]) is float
    for recipe in RECIPES.values():
        assert settings_of(recipe.settings, "any", ["steps=7"]) == {"steps": 7}


def test_a_lifter_predicts_what_the_hourglass_shows_it(tmp_path):
    from harvest.monocular.predictors import load_predictor

    torch.manual_seed(0)
    save_lifter(Lifter(LifterShape(SKELETON.joints, width=8)), typical_limbs(SKELETON), tmp_path / "l.safetensors")
    predictor = load_predictor(tmp_path / "l.safetensors")
    K = np.array([[700.0, 0, 199.5], [0, 700.0, 149.5], [0, 0, 1]])
    camera = Camera("c", (400, 300), K, np.zeros(5), np.eye(3), np.zeros(3))
    crop = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8), (0, 0), 3)
    uv, xyz = predictor.predict(crop, camera, np.array([[1.0, 0, 50], [0, 1.0, 20]]))
    assert uv.shape == (16, 2) and np.isfinite(xyz).all() and xyz[ROOT, 2] > 0

"""Depths from pictures labelled in 2D alone: the geometry loss, its scale, mixed batches, training."""

import dataclasses
import json
import math
import tarfile

import numpy as np
import pytest
import torch
from picture_folders import assert_resumes, figures, no_workers, ring, write_crops, write_shard

from harvest.errors import UserError
from harvest.learn.detector import Folders
from harvest.learn.geometric import (
    BoneGroups,
    GeometricSettings,
    GeometricTask,
    GeometricTraining,
    bone_groups,
    depth_loss,
    geometric_loss,
)
from harvest.learn.geometry import LEAST_SCALE, metres_per_px, weak_perspective
from harvest.learn.map_loss import heat_loss, target_maps
from harvest.learn.mapped import FeatureStore
from harvest.learn.monocular import WEIGHTS, pose_errors_mm, poses_told
from harvest.learn.samples import find_samples
from harvest.metrics.pose import asymmetry_mm
from harvest.monocular.files import load_monocular
from harvest.monocular.lift import mean_limbs
from harvest.monocular.networks import Shape

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["no_workers"]
SKELETON, POSES = figures(6)
LIMBS = mean_limbs(POSES, SKELETON.parents.tolist())
BONES = bone_groups(LIMBS, SKELETON.joints)
ENDS, LENGTH = torch.from_numpy(LIMBS.ends), torch.from_numpy(LIMBS.length_m)
SMALL = GeometricSettings(
    skeleton="mpii16", width=16, bf16=False, warm=1, batch=4, steps=6, validate_every=6, rate=3e-3, ema=0.5, versions=1
)


def double(bones):
    return BoneGroups(bones.ends, bones.length_m.double(), bones.member.double())


def test_bones_are_grouped_as_arms_legs_shoulders_and_hips():
    assert BONES.member.sum(1).tolist() == [4, 4, 2, 2] and BONES.member.sum(0).tolist() == [1] * 12
    far = [SKELETON.joints[end] for end in BONES.ends[BONES.member[0] > 0][:, 0]]
    assert sorted(far) == ["l_elbow", "l_wrist", "r_elbow", "r_wrist"]


def test_the_geometry_loss_is_the_variance_of_length_over_canonical_length_in_each_group():
    # Bones of a star: hips of ratios 1 and 2 (variance 1/4), arms of ratios 1, 1, 1 and 3 (variance 3/4).
    poses = torch.zeros(1, 7, 3)
    for joint, (length, axis) in enumerate([(0.1, 0), (0.2, 1), (0.3, 2), (0.3, 0), (0.3, 1), (0.9, 2)], start=1):
        poses[0, joint, axis] = length
    ends = torch.tensor([[joint, 0] for joint in range(1, 7)])
    bones = BoneGroups(
        ends, torch.tensor([0.1, 0.1, 0.3, 0.3, 0.3, 0.3]), torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1]])
    )
    assert geometric_loss(poses, bones).item() == pytest.approx(0.25 + 0.75)
    poses[0, 6] = torch.nan
    assert geometric_loss(poses, bones).item() == pytest.approx(0.25), "the bone that is unknown is left out"


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_a_figure_of_canonical_proportions_costs_nothing_whatever_its_size(size):
    loss = geometric_loss(torch.from_numpy(size * POSES), double(BONES))
    torch.testing.assert_close(loss, torch.zeros(6).double(), atol=1e-10, rtol=0)
    bent = POSES.copy()
    bent[:, SKELETON.index("l_wrist")] += 0.1
    assert (geometric_loss(torch.from_numpy(size * bent), double(BONES)) > 1e-4 * size**2).all()


def test_the_scale_is_that_which_gives_limbs_their_length():
    uv, depth = torch.tensor([[[10.0, 20.0], [40.0, 20.0]]]), torch.tensor([[0.0, 0.4]])
    ends, length = torch.tensor([[1, 0]]), torch.tensor([0.5])
    torch.testing.assert_close(metres_per_px(uv, depth, ends, length), torch.tensor([0.01]))  # 30 px, 0.3 m beside 0.4
    torch.testing.assert_close(metres_per_px(uv, 9 * depth, ends, length), torch.tensor([LEAST_SCALE * 0.5 / 30]))
    assert metres_per_px(torch.full_like(uv, torch.nan), depth, ends, length).item() == 0


def test_true_depths_of_a_canonical_figure_are_a_minimum_of_the_loss_of_what_a_picture_shows():
    poses = torch.from_numpy(POSES)[..., [0, 2, 1]]
    uv, depth = 130 * poses[..., :2] + 100, poses[..., 2]
    scale = metres_per_px(uv, depth, ENDS, LENGTH)
    torch.testing.assert_close(scale, torch.full((6,), 1 / 130).double())
    task = GeometricTask(Shape("depth", SKELETON.joints), LIMBS, SMALL, None)
    flat = torch.cat([uv, torch.full_like(depth, torch.nan)[..., None]], -1).float()
    found = []
    for told in (depth, 0 * depth, depth + 0.1 * torch.randn(depth.shape, generator=torch.manual_seed(0))):
        pose = torch.cat([uv, told[..., None]], -1).float()
        found.append(task.losses(pose, torch.zeros(6, 16, 32, 32), flat)[2].item())
    assert found[0] < 1e-8 and min(found[1:]) > 1e-3


def test_slopes_of_geometry_and_scale_are_right():
    generator = torch.manual_seed(1)
    poses = torch.randn(2, 16, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: geometric_loss(x, double(BONES)), poses)
    uv = (60 * torch.randn(2, 16, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    for size in (0.1, 10.0):  # the second leaves nothing for what is across
        depth = (size * torch.randn(2, 16, generator=generator, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(lambda u, z: metres_per_px(u, z, ENDS, LENGTH), (uv, depth))


def test_slopes_are_finite_for_joints_that_lie_on_one_another_or_are_unknown():
    depth = torch.zeros(1, 16, dtype=torch.float64, requires_grad=True)
    uv = torch.zeros(1, 16, 2, dtype=torch.float64)
    uv[0, 3] = torch.nan
    for made in (uv, uv + torch.arange(32.0).view(1, 16, 2)):
        geometric_loss(weak_perspective(made, depth, ENDS, LENGTH), double(BONES)).sum().backward()
        assert torch.isfinite(depth.grad).all()


def test_known_depths_cost_their_mean_square_in_half_metres():
    truth = torch.tensor([[0.0, 1.0, torch.nan], [torch.nan] * 3])
    assert depth_loss(torch.tensor([[0.5, 1.0, 7.0], [1.0, 2.0, 3.0]]), truth).tolist() == [0.5, 0.0]


def test_maps_of_sum_one_cost_their_cross_entropy_and_nothing_where_there_is_no_label():
    uv = torch.tensor([[[131.5, 123.5], [torch.nan, 5.0], [-30.0, 40.0]]])
    assert heat_loss(torch.zeros(1, 3, 32, 32), uv).item() == pytest.approx(math.log(1024))
    logits = torch.zeros(1, 3, 32, 32)
    logits[0, 1:] = torch.randn(2, 32, 32, generator=torch.manual_seed(0))
    logits[0, 0, 15, 16] = math.log(1023.0)  # half of all heat
    there = target_maps(uv, 32)[0, 0, 15, 16].item()
    assert heat_loss(logits, uv).item() == pytest.approx(math.log(2046) - there * math.log(1023), rel=1e-5)


def test_asymmetry_is_the_mean_difference_of_left_and_right():
    poses = POSES[:2].copy()
    assert max(asymmetry_mm(poses, SKELETON.joints).values()) < 1e-9
    wrist, elbow = SKELETON.index("l_wrist"), SKELETON.index("l_elbow")
    poses[0, wrist] = poses[0, elbow] + 1.1 * (poses[0, wrist] - poses[0, elbow])
    found = asymmetry_mm(poses, SKELETON.joints)
    assert found["lower arms"] == pytest.approx(1000 * 0.1 * 0.146 * 1.75 / 2) and found["upper legs"] < 1e-9
    poses[0, wrist] = np.nan
    assert asymmetry_mm(poses, SKELETON.joints)["lower arms"] < 1e-9
    assert np.isnan(asymmetry_mm(poses[:1], SKELETON.joints)["lower arms"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("geometric")
    return Folders(
        write_crops(folder / "learn"), write_crops(folder / "measure", 1), write_crops(folder / "more", 2, 3)
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features of the folders' few pictures, computed once."""
    return FeatureStore(tmp_path_factory.mktemp("store") / "features")


def training(folders, out, store, **changes):
    made = GeometricTraining(folders, out, dataclasses.replace(SMALL, **changes))
    made.store = store
    return made


def batch_of(made, which):
    """Both kinds of samples, or those of one folder."""
    places = made._places[which]
    parts = [made.task.sample(place, np.random.default_rng(0)) for place in places[:3]]
    pictures, truth = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
    return pictures.permute(0, 3, 1, 2).contiguous(), truth


def test_samples_of_the_second_folder_tell_no_depth_unless_they_may(folders, tmp_path, store):
    made = training(folders, tmp_path / "a", store)
    assert torch.isfinite(batch_of(made, 0)[1][..., 2]).all() and torch.isnan(batch_of(made, 1)[1][..., 2]).all()
    assert torch.isfinite(batch_of(made, 1)[1][..., :2]).any()
    made = training(folders, tmp_path / "b", store, more_is_2d=False)
    assert torch.isfinite(batch_of(made, 1)[1][..., 2]).all()


def test_depths_that_a_label_in_2d_happens_to_know_change_nothing(folders, tmp_path, store):
    def shifted(path):
        with tarfile.open(path) as tar:
            files = [(member.name, tar.extractfile(member).read()) for member in tar]
        for name, content in files:
            index, _, kind = name.partition(".")
            label = json.loads(content) if kind == "json" else content
            if kind == "json":
                label["joints"]["run"]["xyz_cam_m"] = [[9.0 * j, 1.0, -5.0] for j in range(16)]
            samples.setdefault(index, {})[kind] = label

    samples, before = {}, training(folders, tmp_path / "a", store)
    shifted(folders.more / "0.tar")
    (tmp_path / "more").mkdir()
    write_shard(tmp_path / "more" / "0.tar", samples.values())
    after = training(dataclasses.replace(folders, more=tmp_path / "more"), tmp_path / "b", store)
    losses = []
    for made in (before, after):
        made.task._versions = 0  # whose seeds follow from the folder's name
        made.step = 5
        losses.append(made.loss(batch_of(made, 1))[0].item())
    assert losses[0] == losses[1]


def test_samples_without_depth_move_no_depth_before_the_loss_is_switched_on(folders, tmp_path, store):
    made = training(folders, tmp_path, store, geo_from=0.5)
    slopes = []
    for step in (2, 3):
        made.step = step
        made.network.zero_grad()
        made.loss(batch_of(made, 1))[0].backward()
        given = [value.grad for value in made.network.deep.parameters()]
        slopes.append(sum(0.0 if one is None else float(one.abs().sum()) for one in given))
    assert slopes[0] == 0 and slopes[1] > 0
    made.step = 3
    known, made.settings = made.loss(batch_of(made, 0))[0], dataclasses.replace(made.settings, lambda_geo=0.0)
    assert made.loss(batch_of(made, 0))[0] == known, "where depths are known, it says nothing"
    made.task._everywhere, made.settings = True, dataclasses.replace(made.settings, lambda_geo=1.0)
    assert made.loss(batch_of(made, 0))[0] > known, "unless it is asked to"
    made.step = 0
    made.loss(batch_of(made, 0))[0].backward()
    assert made.network.deep.linear.weight.grad.abs().sum() > 0, "known depths move it from the beginning"


def test_a_training_goes_on_to_the_same_weights_and_its_network_predicts(folders, tmp_path, store, no_workers):
    made = assert_resumes(lambda out: training(folders, out, store), tmp_path)
    network, limbs = load_monocular(tmp_path / "whole" / WEIGHTS)
    assert network.shape.model == "depth"
    np.testing.assert_allclose(limbs.length_m, made.limbs.length_m, atol=1e-5)
    places = find_samples(folders.measure)
    absolute, aligned = pose_errors_mm(network, limbs, places)
    assert absolute.shape == (2, 16) and np.nanmean(aligned) < np.nanmean(absolute)
    ours, theirs = poses_told(network, limbs, places)
    np.testing.assert_allclose(1000 * np.linalg.norm(ours - theirs, axis=2), absolute)
    assert (tmp_path / "whole" / "curve.csv").read_text().startswith("step,hours,loss,mpjpe_mm,aligned_mm")


def test_a_training_lowers_its_loss(folders, tmp_path, store):
    made = training(folders, tmp_path, store, steps=40, geo_from=0.0)
    batch = [torch.cat(parts) for parts in zip(batch_of(made, 0), batch_of(made, 1), strict=True)]
    losses = []
    for made.step in range(14):
        losses.append(made._learn(batch, False)[0])
    assert losses[-1] < 0.8 * losses[0]


def test_features_from_the_store_are_those_of_the_network(folders, tmp_path, store):
    made = training(folders, tmp_path / "t", None)
    images, _ = batch_of(made, 0)
    own = FeatureStore(tmp_path / "own")
    made.network.eval()
    plain = made.told(images)[0]
    for again in (False, False, True):  # computed, read, and read by another
        made.store = FeatureStore(tmp_path / "own") if again else own
        torch.testing.assert_close(made.told(images)[0], plain, atol=0.05, rtol=1e-3)
    with (tmp_path / "own").open("r+b") as file:
        file.truncate((tmp_path / "own").stat().st_size - 9)
    assert len(FeatureStore(tmp_path / "own")._rows) == 2


def test_two_trainings_may_write_to_one_store(folders, tmp_path):
    made = training(folders, tmp_path / "t", None)
    images, _ = batch_of(made, 0)
    made.network.eval()
    plain = [made.told(images[row : row + 1])[0] for row in (0, 1)]
    one, other = FeatureStore(tmp_path / "shared"), FeatureStore(tmp_path / "shared")
    for made.store, row in ((one, 0), (other, 1), (one, 1), (other, 0), (one, 0), (other, 1)):
        torch.testing.assert_close(made.told(images[row : row + 1])[0], plain[row], atol=0.05, rtol=1e-3)


def test_what_cannot_be_trained_is_refused(folders, tmp_path):
    with pytest.raises(UserError, match="is the first folder too"):
        GeometricTraining(Folders(folders.learn, None, folders.learn), tmp_path, SMALL)
    with pytest.raises(UserError, match="'volumetric' has no maps of joints in 2D"):
        GeometricTraining(folders, tmp_path, dataclasses.replace(SMALL, model="volumetric"))


def test_rings_of_cameras_see_the_whole_figure():
    uv = np.array([camera.project(POSES) for camera in ring(3)])
    assert uv.min() > 5 and uv.max() < 250

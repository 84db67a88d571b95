"""Poses from views that belong together: 2.5D to 3D, consistency, bones, samples, training."""

import dataclasses

import numpy as np
import pytest
import torch
from picture_folders import assert_resumes, figures, no_workers, ring, write_crops, write_views

from harvest.errors import UserError
from harvest.learn.detector import Folders
from harvest.learn.geometry import EDGE, bounded_root, rays_at, rigidly, root_distance
from harvest.learn.mapped import FeatureStore
from harvest.learn.monocular import WEIGHTS, pose_errors_mm
from harvest.learn.multiview import SeenView, find_moments, read_views
from harvest.learn.multiview_loss import (
    bones_loss,
    consistency_loss,
    measured_bones,
    normalised_poses,
    typical_bones,
)
from harvest.learn.samples import augmentation, find_samples
from harvest.learn.views_training import Strangers, ViewsSettings, ViewsTraining, ViewsWeights, ray_grid
from harvest.monocular.files import load_monocular
from harvest.monocular.lift import lift, mean_limbs, rays_of
from harvest.monocular.networks import MonocularNetwork, Shape
from harvest.skeleton import load_skeleton
from harvest.studio.rotations import look_at

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["no_workers"]
SKELETON, POSES = figures(5)
ROOT, TOP = SKELETON.index("pelvis"), SKELETON.index("thorax")
BONES = typical_bones(SKELETON)
UNIT = np.linalg.norm(POSES[0, TOP] - POSES[0, ROOT])
WHOLE = np.eye(3)[:2]
SMALL = ViewsSettings(
    skeleton="mpii16",
    width=16,
    bf16=False,
    warm=1,
    batch=2,
    steps=6,
    validate_every=6,
    rate=3e-3,
    ema=0.5,
    versions=1,
    weights=ViewsWeights(alone=0.3),
)


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.manual_seed(seed), dtype=torch.float64)


def exact(camera, xyz):
    """Rays through joints (J, 3) of the world, depths in units of the trunk from the pelvis, and the pose in them."""
    there = torch.from_numpy(camera.cam_from_world(xyz) / UNIT)
    return there / there[:, 2:], there[:, 2] - there[ROOT, 2], there


# --- the root's depth


@pytest.mark.parametrize("seed", range(8))
def test_exact_rays_and_depths_give_the_exact_pose_whatever_the_camera(seed):
    rng = np.random.default_rng(seed)
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(2.5, 12)
    centre = np.array([away * np.cos(angle), away * np.sin(angle), rng.uniform(0.2, 2.5)])
    pose = look_at(centre, rng.normal([0, 0, 0.9], 0.2))
    camera = dataclasses.replace(ring(1)[0], R_cam_from_world=pose[0], t_cam_from_world_m=pose[1])
    rays, depth, there = exact(camera, POSES[seed % 5])
    for scale in ("bone", "limbs"):
        torch.testing.assert_close(normalised_poses(rays, depth, BONES, scale), there, atol=1e-9, rtol=0)
        moved = normalised_poses(rays, depth + 0.7, BONES, scale)
        torch.testing.assert_close(moved, there, atol=1e-9, rtol=0)  # where depths begin does not matter


def test_a_bone_across_the_view_is_as_far_as_its_rays_say():
    rays = torch.tensor([[[0.0, 0.0, 1.0], [0.1, 0.0, 1.0]]])
    ends = torch.tensor([[0, 1]])
    assert root_distance(rays, torch.zeros(1, 2), ends, torch.ones(1)).item() == pytest.approx(10, rel=1e-5)
    # With z = 0.6 for the far end: (0.1 (Z + 0.6))^2 + 0.6^2 = 1, so Z = 8 - 0.6.
    tilted = root_distance(rays, torch.tensor([[0.0, 0.6]]), ends, torch.ones(1))
    assert tilted.item() == pytest.approx(7.4, rel=1e-5)


def test_the_distance_of_many_limbs_is_that_of_lift():
    camera, limbs = ring(1, ())[0], mean_limbs(POSES, SKELETON.parents.tolist())
    there = camera.cam_from_world(POSES)
    rays, depth = there / there[..., 2:], there[..., 2] - there[:, ROOT, None, 2]
    depth = depth + np.random.default_rng(0).normal(0, 0.05, depth.shape)
    depth[1, 3] = np.nan
    found = root_distance(*map(torch.from_numpy, (rays, depth, limbs.ends, limbs.length_m)))
    expected = lift(rays, depth, limbs)[:, ROOT, 2] - depth[:, ROOT]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_depths_that_make_the_bone_too_long_give_the_nearest_to_its_length():
    rays = torch.tensor([[[0.0, 0.0, 1.0], [0.1, 0.0, 1.0]]], dtype=torch.float64)
    depth = torch.tensor([[0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    ends, one = torch.tensor([[0, 1]]), torch.ones(1, dtype=torch.float64)
    found = root_distance(rays, depth.detach() - 20, ends, one, (0.3, 99.0))
    assert found.item() == pytest.approx(17.0), "where the far end crosses the axis of view"
    root_distance(rays, depth, ends, one).sum().backward()
    assert torch.isfinite(depth.grad).all()


def test_a_bone_that_shrinks_to_a_point_is_as_far_as_may_be_and_has_no_slope():
    rays = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]], dtype=torch.float64, requires_grad=True)
    depth = torch.zeros(1, 2, dtype=torch.float64)
    ends, one = torch.tensor([[0, 1]]), torch.ones(1, dtype=torch.float64)
    found = root_distance(rays, depth, ends, one, (1.0, 40.0))
    found.sum().backward()
    assert found.item() == 40 and not rays.grad.any()
    nothing = root_distance(torch.full((1, 2, 3), torch.nan), torch.zeros(1, 2), ends, torch.ones(1))
    assert torch.isfinite(nothing).all()


def test_roots_go_on_straight_below_their_edge():
    x = torch.tensor([4.0, EDGE**2, 0.0, -(EDGE**2), -3.0])
    torch.testing.assert_close(bounded_root(x), torch.tensor([2.0, EDGE, EDGE / 2, 0.0, 0.0]))


@pytest.mark.parametrize("gap", [1.0, 0.04, 0.01, -0.01, -1.0])
def test_slopes_of_the_distance_are_right_near_the_vertex_too(gap):
    """The gap is the discriminant, in units of Z^2: its root, or the tangent to it, or nothing of it counts."""
    rays = torch.tensor([[0.0, 0.0, 1.0], [0.1, 0.02, 1.0], [-0.05, 0.1, 1.0]], dtype=torch.float64)
    depth = torch.tensor([0.0, 0.9, -0.3], dtype=torch.float64) - 12
    ends, length = torch.tensor([[1, 0], [2, 1]]), torch.tensor([1.0, 1.0], dtype=torch.float64)
    slope, shift = (points[ends[:, 0]] - points[ends[:, 1]] for points in (rays, rays * depth[:, None]))
    a, vertex = slope.square().sum(), -(slope * shift).sum() / slope.square().sum()
    wanted = a * (gap * EDGE - vertex**2) + shift.square().sum()
    length = length * (wanted / 2).sqrt()
    rays, depth = rays[None].requires_grad_(), depth[None].requires_grad_()
    found = root_distance(rays, depth, ends, length, (0.1, 99.0)).item()
    assert found == pytest.approx(float(vertex + bounded_root(torch.tensor(gap * EDGE))))
    assert torch.autograd.gradcheck(lambda r, z: root_distance(r, z, ends, length, (0.1, 99.0)), (rays, depth))


def test_slopes_of_rays_poses_and_losses_are_right():
    rays, depth, _ = exact(ring(1)[0], POSES[0])
    rays, depth = (rays + 0.01 * numbers(0, 16, 3)).requires_grad_(), (depth + 0.1 * numbers(1, 16)).requires_grad_()
    assert torch.autograd.gradcheck(lambda r, z: normalised_poses(r, z, BONES), (rays, depth))
    uv, grid = (130 + 40 * numbers(2, 2, 3, 2)).requires_grad_(), numbers(3, 2, 2, 9, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, g: rays_at(p, g, 256), (uv, grid))
    poses, weight = numbers(4, 2, 3, 6, 3).requires_grad_(), numbers(5, 2, 3, 6).abs()
    assert torch.autograd.gradcheck(lambda p: consistency_loss(p, weight), poses), "though the rotation has no slope"
    ends = torch.tensor([[0, 1], [2, 3]])
    ratio, off = torch.ones(2).double(), torch.full((2,), 0.1).double()
    assert torch.autograd.gradcheck(lambda p: bones_loss(p, ends, ratio, off), poses)


# --- rays


@pytest.mark.parametrize("mirrored", [False, True])
def test_rays_of_an_augmented_view_are_those_of_its_joints(mirrored):
    camera = ring(1)[0]
    view = SeenView(np.zeros((256, 256, 3), np.uint8), camera.project(POSES[0]), camera, WHOLE)
    affine, _ = augmentation(np.random.default_rng(3))
    uv = view.uv_px @ affine[:, :2].T + affine[:, 2]
    uv[:, 0] = 255 - uv[:, 0] if mirrored else uv[:, 0]
    grid = torch.from_numpy(ray_grid(view, affine, mirrored))[None]
    found = rays_at(torch.from_numpy(uv)[None], grid, 256)[0].numpy()
    expected = rays_of(view.uv_px, camera, WHOLE) * ([-1, 1, 1] if mirrored else 1)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_where_a_lens_shows_nothing_its_rays_go_on_evenly():
    camera = dataclasses.replace(ring(1)[0], dist_opencv=np.array([-0.9, 0.0, 0.0, 0.0]))
    view = SeenView(np.zeros((256, 256, 3), np.uint8), np.zeros((1, 2)), camera, WHOLE)
    wide = np.array([[0.3, 0.0, 90.0], [0.0, 0.3, 90.0]])  # far beyond the picture's border
    grid = ray_grid(view, wide, False)
    assert np.isfinite(grid).all() and (np.diff(grid[0], axis=1) > -0.2).all()
    assert np.isnan(camera.undistort([-300.0, -300.0])).all()


# --- consistency and bones


def seen_twice(mirror=None):
    """(1, 2, J, 3) what two cameras show of one figure, the second mirrored or not."""
    found = []
    for number, camera in enumerate(ring(2)):
        rays, depth, _ = exact(camera, POSES[0])
        if mirror is not None and number:
            rays, depth = rays * torch.tensor(mirror), depth
        found.append(normalised_poses(rays, depth, BONES))
    return torch.stack(found)[None]


def test_a_pose_seen_by_two_cameras_is_consistent_and_a_mirrored_one_is_not():
    even = torch.ones(1, 2, 16).double()
    assert consistency_loss(seen_twice(), even).item() < 1e-9
    assert consistency_loss(seen_twice((-1.0, 1.0, 1.0)), even).item() > 0.05
    spoilt = seen_twice()
    spoilt[0, 1, 3] += 9
    assert consistency_loss(spoilt, even).item() > 0.1
    even[0, 0, 3] = 0
    assert consistency_loss(spoilt, even).item() < 1e-9, "a joint that one view does not know has no say"


def test_the_loss_of_two_bones_that_differ_by_a_length_is_a_root_mean_square():
    # Two joints 2 and 4 apart: put middle on middle, both are off by 1.
    poses = torch.tensor([[[[0.0, 0, 0], [2, 0, 0]], [[0, 0, 0], [0, 4, 0]]]])
    assert consistency_loss(poses, torch.ones(1, 2, 2)).item() == pytest.approx(1.0, rel=1e-5)


def test_the_best_rigid_motion_undoes_any_other_but_changes_no_size():
    points, turn = numbers(0, 7, 3), torch.linalg.qr(numbers(1, 3, 3))[0]
    turn = turn * torch.linalg.det(turn)
    target, even = points @ turn.T + torch.tensor([1.0, 2.0, 3.0]).double(), torch.ones(7).double()
    torch.testing.assert_close(rigidly(points, target, even), target)
    torch.testing.assert_close(rigidly(2 * points, target, even).std(0), 2 * target.std(0))
    assert (rigidly(points * torch.tensor([-1.0, 1, 1]), target, even) - target).norm(dim=1).mean() > 0.1


def test_poses_that_are_points_or_lines_have_finite_slopes():
    for poses in (torch.zeros(1, 2, 4, 3), torch.arange(8.0).view(1, 2, 4, 1) * torch.ones(3)):
        poses.requires_grad_()
        consistency_loss(poses, torch.ones(1, 2, 4)).backward()
        assert torch.isfinite(poses.grad).all()


def test_bones_cost_what_lies_beyond_their_range():
    poses = torch.zeros(1, 4, 3)
    poses[0, 1:, 0] = torch.tensor([1.05, 1.5, 0.5])
    ends = torch.tensor([[1, 0], [2, 0], [3, 0]])
    found = bones_loss(poses, ends, torch.ones(3), torch.full((3,), 0.1))
    assert found.item() == pytest.approx((0 + 0.4 + 0.4) / 3)


def test_typical_bones_are_those_of_the_skeletons_file_and_measured_ones_those_of_poses():
    knee = [SKELETON.joints[end] for end in BONES.limbs.ends[:, 0]].index("l_knee")
    assert BONES.ratio[knee] == pytest.approx(0.24 / 0.31) and BONES.deviation[knee] == pytest.approx(0.024 / 0.31)
    assert BONES.reference_m == pytest.approx(0.31 * 1.7)
    hip = [SKELETON.joints[end] for end in BONES.limbs.ends[:, 0]].index("l_hip")
    assert BONES.deviation[hip] == pytest.approx((0.006 + 0.01) / 0.31), "it stretches, too"
    known = POSES.copy()
    known[0, TOP] = np.nan
    measured = measured_bones(known, SKELETON)
    np.testing.assert_allclose(measured.ratio, BONES.ratio, atol=1e-9)
    assert measured.deviation.max() < 1e-9 and measured.reference_m == pytest.approx(0.31 * 1.75)
    human = load_skeleton("h36m17")
    spine = typical_bones(human)
    assert spine.reference == (human.index("neck"), human.index("pelvis"))
    assert spine.reference_m == pytest.approx((0.135 + 0.145) * 1.7)
    with pytest.raises(UserError, match="has no pelvis with thorax or neck"):
        typical_bones(load_skeleton("coco17"))
    with pytest.raises(UserError, match="no pose shows thorax and pelvis"):
        measured_bones(np.full((2, 16, 3), np.nan), SKELETON)


def test_depths_of_a_plane_network_are_those_where_the_heat_is_in_its_bones_length():
    network = MonocularNetwork(Shape("planar", SKELETON.joints, 16)).eval()
    network.unit_m.fill_(0.4)
    network.head = torch.nn.Identity()
    maps = torch.zeros(1, 32, 32, 32)
    maps[0, 4, 6, 20] = 1e3  # heat of a joint: row, column
    maps[0, 16 + 4] = 900.0  # hundredths of a bone
    maps[0, 16 + 4, 6, 20] = 200.0
    maps[0, 16 + ROOT] = 50.0
    pose, logits = network._planar(maps, maps)
    torch.testing.assert_close(pose[0, 4], torch.tensor([20.5 * 8 - 0.5, 6.5 * 8 - 0.5, 0.4 * (2.0 - 0.5)]))
    assert pose[0, ROOT, 2] == 0 and torch.equal(logits, maps[:, :16])
    network.train()
    pose, _ = network._planar(maps[[0, 0]], maps[[0, 0]])
    assert not pose[..., 2].any(), "what all pictures say is taken off"
    torch.testing.assert_close(network.shared[4], torch.tensor(0.1 * (2.0 - 0.5)))
    network.eval().usual.data[4] = 3.0
    assert network._planar(maps, maps)[0][0, 4, 2].item() == pytest.approx(0.4 * (0.9 * 1.5 + 3.0))


# --- samples


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    return Folders(
        write_views(folder / "learn"), write_crops(folder / "measure", 1), write_crops(folder / "more", 2, 2)
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features of the folders' few pictures, computed once."""
    return FeatureStore(tmp_path_factory.mktemp("store") / "features")


def training(folders, out, store, bones=None, **changes):
    settings = dataclasses.replace(SMALL, **changes)
    if settings.labelled not in ("more", "both"):
        folders = dataclasses.replace(folders, more=None)
    made = ViewsTraining(folders, out, settings, bones)
    made.store = store
    return made


def batch_of(made, which=0):
    made.task._versions = 0  # whose seeds follow from the folder's name
    parts = [made.task.sample(place, np.random.default_rng(5)) for place in made._places[which][:2]]
    pictures, *others = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
    return pictures.permute(0, 1, 4, 2, 3).contiguous(), *others


def test_where_cameras_stand_and_joints_in_space_change_nothing(folders, tmp_path, store):
    def other(label):
        for camera in label["cameras"]:
            camera |= {"R_cam_from_world": np.eye(3).tolist(), "t_cam_from_world_m": [7.0, 8.0, 9.0]}
        label["joints"]["mpii16"]["xyz_m"] = [None] * 16
        return label

    changed = dataclasses.replace(folders, learn=write_views(tmp_path / "changed", change=other))
    losses, at_once = [], ViewsWeights(alone=0.0)
    for name, given in (("a", folders), ("b", changed)):
        made = training(given, tmp_path / name, store, weights=at_once)
        losses.append(made.loss(batch_of(made))[0].item())
    assert losses[0] == losses[1]

    def nearer(label):
        for camera in label["cameras"]:
            camera["K"][0][0] *= 1.3
        return label

    changed = dataclasses.replace(folders, learn=write_views(tmp_path / "k", change=nearer))
    made = training(changed, tmp_path / "c", store, weights=at_once)
    assert made.loss(batch_of(made))[0].item() != losses[0], "intrinsics are looked at"


def test_crops_of_one_frame_are_a_moment_as_multi_view_samples_are(folders, tmp_path):
    for folder, views in ((folders.learn, 3), (folders.more, 2)):
        moments = find_moments(folder, 2)
        assert len(moments) == len(find_moments(folder, views))
        for moment, xyz in zip(moments, figures(3)[1], strict=False):
            found = read_views(moment, SKELETON.joints, [1, 0])
            for view, camera in zip(found, ring(views)[1::-1], strict=True):
                np.testing.assert_allclose(view.uv_px, camera.project(xyz), atol=1e-6)
                np.testing.assert_array_equal(view.camera.K, camera.K)
                assert not view.camera.t_cam_from_world_m.any()
        with pytest.raises(UserError, match=f"shows no moment in {views + 1} views"):
            find_moments(folder, views + 1)


def test_a_sample_is_mirrored_in_all_views_or_in_none_and_true_depths_make_it_consistent(folders, tmp_path, store):
    made = training(folders, tmp_path, store)
    moment, turned, made.task._versions = made._places[0][0], set(), 0
    for seed in range(8):
        _, uv, rays, together = made.task.sample(moment, np.random.default_rng(seed))
        assert together and uv.shape == (2, 16, 2)
        known = torch.from_numpy(np.isfinite(uv).all(2))
        at = rays_at(torch.from_numpy(np.nan_to_num(uv, nan=9.0)), torch.from_numpy(rays), 256)
        depths = [exact(camera, POSES[0])[1] for camera in ring(3)]
        off, mirrored = min(
            (
                consistency_loss(
                    normalised_poses(at.double(), torch.stack([one[order], other[order]]), BONES)[None],
                    known[None].double(),
                ).item(),
                mirrored,
            )
            for mirrored, order in enumerate((torch.arange(16), torch.from_numpy(SKELETON.mirror)))
            for one in depths
            for other in depths
        )
        assert off < 2e-3
        turned.add(mirrored)
    assert len(turned) == 2


def test_strangers_teach_maps_alone_and_each_term_can_be_left_out(folders, tmp_path, store):
    made = training(folders, tmp_path / "both", store, labelled="both")
    assert isinstance(made._places[1][0], Strangers)
    batch = batch_of(made, 1)
    assert not batch[3].any() and made.loss(batch)[0].item() == pytest.approx(np.log(1024), abs=0.3)

    def loss_of(name, step=SMALL.steps, **changes):
        made = training(folders, tmp_path / name, store, **changes)
        with torch.no_grad():
            made.network.head.weight.normal_(std=0.05, generator=torch.manual_seed(0))
        made.step = step
        return made.loss(batch_of(made))[0].item()

    none = ViewsWeights(alpha=0.0, beta=0.0)
    whole, maps = loss_of("whole"), loss_of("maps", weights=none)
    assert loss_of("begin", step=0) == pytest.approx(maps), "at first maps alone count"
    consistent, bony = (loss_of(str(one), weights=one) for one in (ViewsWeights(beta=0.0), ViewsWeights(alpha=0.0)))
    assert whole == pytest.approx(consistent + bony - maps, rel=1e-4) and min(consistent, bony) > maps > 1
    assert loss_of("nothing", weights=none, labelled="none") == 0
    assert loss_of("more", weights=none, labelled="more") == 0, "own labels are left alone"


def test_maps_learn_alone_and_then_the_other_terms_grow_for_as_long(folders, tmp_path, store):
    made = training(folders, tmp_path, store, steps=40, weights=ViewsWeights(alone=0.25))
    grown = []
    for made.step in (0, 10, 15, 20, 39):
        grown.append(made.grown)
    assert grown == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_labels_and_views_that_are_not_there_are_refused(folders, tmp_path):
    alone = dataclasses.replace(folders, more=None)
    for given, changes, told in (
        (alone, {"labelled": "magic"}, "no labels 'magic'"),
        (alone, {"labelled": "more"}, "a second folder belongs to"),
        (folders, {"labelled": "own"}, "a second folder belongs to"),
        (alone, {"views": 1}, "cannot be compared"),
        (alone, {"scale": "magic"}, "choose limbs or bone"),
        (alone, {"views": 4}, "shows no moment in 4 views"),
    ):
        with pytest.raises(UserError, match=told):
            ViewsTraining(given, tmp_path, dataclasses.replace(SMALL, **changes))


# --- training


def test_a_training_goes_on_to_the_same_weights_and_its_network_predicts(folders, tmp_path, store, no_workers):
    bones = measured_bones(POSES, SKELETON)
    assert_resumes(lambda out: training(folders, out, store, bones, labelled="both"), tmp_path)
    network, limbs = load_monocular(tmp_path / "whole" / WEIGHTS)
    assert network.shape.model == "planar" and network.unit_m.item() == pytest.approx(0.31 * 1.75)
    np.testing.assert_allclose(limbs.length_m, bones.limbs.length_m, atol=1e-5)
    assert np.isfinite(pose_errors_mm(network, limbs, find_samples(folders.measure))[0]).all()
    assert (tmp_path / "whole" / "curve.csv").read_text().startswith("step,hours,loss,mpjpe_mm,aligned_mm")


def test_a_training_lowers_its_loss(folders, tmp_path, store):
    made = training(folders, tmp_path, store, steps=60)
    batch, losses = batch_of(made), []
    for made.step in range(25):
        losses.append(made._learn(batch, False)[0])
    assert losses[-1] < 0.8 * losses[0]


def test_depths_that_are_reversed_in_all_views_are_turned_round(folders, tmp_path, store):
    made = training(folders, tmp_path, store, weights=ViewsWeights(alone=0.0), steps=50)
    poses = [exact(camera, POSES[0]) for camera in ring(2, ())]
    uv = torch.from_numpy(np.stack([camera.project(POSES[0]) for camera in ring(2, ())]))[None].float()
    depth = torch.stack([depth for _, depth, _ in poses])[None, ..., None].float() * made.network.unit_m
    views = [SeenView(np.zeros((256, 256, 3), np.uint8), np.zeros((1, 2)), camera, WHOLE) for camera in ring(2, ())]
    even = np.eye(3)[:2]
    rays = torch.from_numpy(np.stack([ray_grid(view, even, False) for view in views]))[None].float()
    maps = torch.zeros(1, 2, 16, 32, 32)
    assert not made._reversed_is_better([torch.cat([uv, depth], -1), maps, uv, rays])
    assert made._reversed_is_better([torch.cat([uv, -depth], -1), maps, uv, rays])
    batch = batch_of(made)
    made._learn(batch, False)
    images = batch[0].flatten(0, 1)
    made.network.eval()
    before, said = made.told(images)[0], made.averaged()
    made._reverse()
    np.testing.assert_array_equal(made.told(images)[0].detach(), before.detach() * torch.tensor([1.0, 1, -1]))
    after = made.averaged().head
    assert torch.equal(after.weight[16:], -said.head.weight[16:]) and torch.equal(after.bias[:16], said.head.bias[:16])
    assert before[..., 2].abs().max() > 0

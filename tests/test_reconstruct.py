"""From maps to poses: exact on made-up captures, and unmoved by what should not matter."""

import dataclasses

import numpy as np
import pytest

from calib.camera import Camera
from calib.rig import Rig
from cuda_kernels import frames
from harvest.errors import UserError
from harvest.reconstruct import batch
from harvest.reconstruct.limb_lengths import estimate_limb_lengths, typical_lengths
from harvest.reconstruct.methods import for_skeleton, infer_frame, triangulate, triangulated_peaks
from harvest.reconstruct.pictorial import PictorialModel, PictorialSettings
from harvest.reconstruct.volume import box_centres, box_side_m
from harvest.skeleton import load_skeleton
from harvest.studio.figure import moving_figure, ring_rig
from harvest.types import Heatmaps

SIZE = 48
HEIGHT = 1.75


def maps_of(rig, xyz, joints, sigma_cells=1.2):
    """Maps with a Gaussian at each joint's projection, in crops that hold the whole figure."""
    t = len(xyz)
    score = np.zeros((t, len(rig), len(joints), SIZE, SIZE), np.float32)
    affine = np.zeros((t, len(rig), 2, 3))
    y, x = np.mgrid[:SIZE, :SIZE]
    for frame in range(t):
        for view, camera in enumerate(rig.cameras):
            uv = camera.project(xyz[frame])
            scale = 1.25 * (uv.max(0) - uv.min(0)).max() / SIZE
            start = (uv.max(0) + uv.min(0)) / 2 - scale * (SIZE - 1) / 2
            affine[frame, view] = np.column_stack([np.eye(2) * scale, start])
            cells = (uv - start) / scale
            for joint, (cx, cy) in enumerate(cells):
                score[frame, view, joint] = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma_cells**2))
    return Heatmaps(np.arange(t), rig.names, tuple(joints), score, affine)


@pytest.fixture(scope="module")
def scene():
    rig, (skeleton, xyz) = ring_rig(4), moving_figure(40, HEIGHT)
    xyz = xyz[::13]
    return rig, skeleton, xyz, maps_of(rig, xyz, skeleton.joints)


def model_of(skeleton, **settings):
    return PictorialModel(skeleton, typical_lengths(skeleton, HEIGHT), PictorialSettings(voxels=40, **settings))


def infer(scene, maps=None, rig=None, flip_prior=0.0, frame=0, **settings):
    known_rig, skeleton, xyz, known_maps = scene
    centre = (xyz[frame].min(0) + xyz[frame].max(0)) / 2
    model = model_of(skeleton, **settings)
    return infer_frame(model, rig or known_rig, maps or known_maps, frame, (centre, 2.1), flip_prior)


def with_score(maps, score):
    return dataclasses.replace(maps, score=score)


@pytest.mark.parametrize("prior", ["interval", "gaussian"])
def test_a_clean_pose_is_found_within_a_fraction_of_a_voxel(scene, prior):
    result = infer(scene, prior=prior)
    error = np.linalg.norm(result.pose.mean_m - scene[2][0], axis=1)
    assert error.max() < 0.5 * 2.1 / 40
    assert (result.n_views == 4).all() and (result.confidence > 0.5).all()


def test_the_true_place_lies_within_the_ellipsoid(scene):
    result = infer(scene)
    offset = result.pose.mean_m - scene[2][0]
    mahalanobis = np.einsum("ji,jik,jk->j", offset, np.linalg.inv(result.pose.cov_m2), offset)
    assert (mahalanobis < 9).all()


def test_the_order_of_views_does_not_matter(scene):
    rig, _, _, maps = scene
    order = [2, 0, 3, 1]
    other = Heatmaps(
        maps.frames,
        tuple(rig.names[v] for v in order),
        maps.joints,
        maps.score[:, order],
        maps.image_from_heatmap[:, order],
    )
    a, b = infer(scene), infer(scene, maps=other, rig=rig.select(other.views))
    np.testing.assert_allclose(a.pose.mean_m, b.pose.mean_m, atol=1e-6)


def test_a_view_that_shows_nothing_changes_nothing(scene):
    rig, _, _, maps = scene
    blank = maps.score.copy()
    blank[:, 1] = 0
    three = [0, 2, 3]
    without = Heatmaps(
        maps.frames,
        tuple(rig.names[v] for v in three),
        maps.joints,
        maps.score[:, three],
        maps.image_from_heatmap[:, three],
    )
    a = infer(scene, maps=with_score(maps, blank))
    b = infer(scene, maps=without, rig=rig.select(without.views))
    np.testing.assert_allclose(a.pose.mean_m, b.pose.mean_m, atol=1e-5)
    missing = maps.image_from_heatmap.copy()
    missing[:, 1] = np.nan
    c = infer(scene, maps=dataclasses.replace(maps, score=blank, image_from_heatmap=missing))
    np.testing.assert_allclose(c.pose.mean_m, b.pose.mean_m, atol=1e-12)
    assert np.isnan(c.flip[1])


def test_a_moved_world_gives_the_moved_pose(scene):
    rig, skeleton, xyz, maps = scene
    shift = np.array([3.0, -2.0, 0.5])
    moved = Rig(
        tuple(
            Camera(
                c.name,
                c.size_px,
                c.K,
                c.dist_opencv,
                c.R_cam_from_world,
                c.t_cam_from_world_m - c.R_cam_from_world @ shift,
            )
            for c in rig.cameras
        )
    )
    a, b = infer(scene), infer((moved, skeleton, xyz + shift, maps))
    np.testing.assert_allclose(b.pose.mean_m - shift, a.pose.mean_m, atol=1e-4)


def test_one_lying_view_is_outvoted_where_averaging_is_misled(scene):
    rig, _, xyz, maps = scene
    lying = maps.score.copy()
    lying[:, 2] = np.roll(lying[:, 2], (9, -11), axis=(2, 3))
    result = infer(scene, maps=with_score(maps, lying))
    assert np.linalg.norm(result.pose.mean_m - xyz[0], axis=1).max() < 0.05
    averaged = triangulate(rig, with_score(maps, lying), np.zeros(len(xyz)), "dlt")
    assert np.linalg.norm(averaged.xyz_m[0] - xyz[0], axis=1).mean() > 0.1
    assert (result.n_views == 3).mean() > 0.8


def test_a_view_that_exchanged_left_and_right_is_noticed_and_set_right(scene):
    _, skeleton, xyz, maps = scene
    crossed = maps.score.copy()
    crossed[:, 3] = crossed[:, 3][:, skeleton.mirror]
    result = infer(scene, maps=with_score(maps, crossed), flip_prior=0.02)
    assert result.flip[3] > 0.99 and (result.flip[:3] < 0.01).all()
    assert np.linalg.norm(result.pose.mean_m - xyz[0], axis=1).max() < 0.03
    assert (result.n_views == 4).all()


def test_a_joint_that_no_view_shows_stays_near_its_neighbours_and_is_uncertain(scene):
    _, skeleton, _, maps = scene
    pelvis = skeleton.index("pelvis")
    empty = maps.score.copy()
    empty[:, :, pelvis] = 0
    result = infer(scene, maps=with_score(maps, empty))
    assert result.n_views[pelvis] == 0
    size = np.linalg.det(result.pose.cov_m2)
    assert size[pelvis] > 3 * np.median(size)


def test_fewer_than_two_views_find_no_pose(scene):
    maps = scene[3]
    missing = maps.image_from_heatmap.copy()
    missing[:, 1:] = np.nan
    result = infer(scene, maps=dataclasses.replace(maps, image_from_heatmap=missing))
    assert not result.pose.found and np.isnan(result.pose.mean_m).all() and (result.n_views == 0).all()


@pytest.mark.parametrize("method", ["ransac", "dlt"])
def test_triangulation_of_clean_maps_is_right_and_honest(scene, method):
    rig, _, xyz, maps = scene
    poses = triangulate(rig, maps, np.zeros(len(xyz)), method)
    error = np.linalg.norm(poses.xyz_m - xyz, axis=2)
    assert error.max() < 0.01
    sigma = np.sqrt(np.trace(poses.cov_m2, axis1=2, axis2=3))
    assert (error < 4 * sigma).all()


def test_rays_that_meet_behind_a_camera_find_no_joint(scene):
    rig, _, xyz, maps = scene
    two = dataclasses.replace(maps, image_from_heatmap=maps.image_from_heatmap.copy())
    two.image_from_heatmap[:, 2:] = np.nan
    found, shift = [], np.arange(-3000, 3001, 1000)
    for off in shift:
        two.image_from_heatmap[:, 1, 0, 2] = maps.image_from_heatmap[:, 1, 0, 2] + off
        poses = triangulate(rig, two, np.zeros(len(xyz)), "dlt")
        np.testing.assert_array_equal(poses.found, np.isfinite(poses.cov_m2).all(axis=(2, 3)))
        np.testing.assert_array_equal(poses.n_views, np.where(poses.found, 2, 0))
        assert (poses.confidence[~poses.found] == 0).all()
        found.append(poses.found.mean())
    assert min(found) == 0 and found[len(shift) // 2] == 1


def test_limb_lengths_come_back_from_triangulated_joints(scene):
    rig, skeleton, _, _ = scene
    _, xyz = moving_figure(40, 1.62)
    joints = triangulated_peaks(rig, maps_of(rig, xyz[::2], skeleton.joints))[0]
    lengths = estimate_limb_lengths(skeleton, joints)
    assert lengths.height_m == pytest.approx(1.62, abs=0.01)
    np.testing.assert_allclose(lengths.length_m[1:6], (skeleton.shares * 1.62)[1:6], atol=0.01)


def test_a_wild_limb_is_drawn_back_to_human_proportions(scene):
    _, skeleton, xyz, _ = scene
    wild = np.repeat(xyz, 10, axis=0)
    wild[:, skeleton.index("l_wrist")] += [0, 0, 2.0]
    wild[:, skeleton.index("r_wrist")] += [0, 0, 2.0]
    length = estimate_limb_lengths(skeleton, wild).length_m[skeleton.index("l_wrist")]
    typical = skeleton.shares[skeleton.index("l_wrist")] * HEIGHT
    assert typical < length <= 1.31 * typical


def test_limb_lengths_without_any_joint_are_refused():
    skeleton = load_skeleton("mpii16")
    with pytest.raises(UserError, match="--height"):
        estimate_limb_lengths(skeleton, np.full((5, 16, 3), np.nan))


def test_the_box_holds_the_person_and_passes_over_stray_joints(scene):
    xyz = scene[2].copy()
    centre, radius = xyz.mean(axis=1), np.full(len(xyz), 1.0)
    xyz[0, 3] += 5.0
    side = box_side_m(xyz, centre, radius)
    assert np.ptp(scene[2][..., 2], axis=1).max() + 0.4 < side < 2.6
    assert np.linalg.norm(box_centres(xyz, centre, radius) - centre, axis=1).max() < 0.3
    nothing = np.full_like(xyz, np.nan)
    np.testing.assert_array_equal(box_centres(nothing, centre, radius), centre)


def test_maps_are_put_in_the_skeletons_order_by_name(scene):
    _, skeleton, _, maps = scene
    coco = for_skeleton(maps, load_skeleton("coco17"))
    np.testing.assert_array_equal(
        coco.score[:, :, coco.joints.index("l_knee")], maps.score[:, :, skeleton.index("l_knee")]
    )
    assert not coco.score[:, :, coco.joints.index("nose")].any()


@pytest.fixture(scope="module")
def block():
    """Eight frames of four views, one of which exchanges left and right now and then, and one of which is missing."""
    rig, (skeleton, xyz) = ring_rig(4), moving_figure(8, HEIGHT)
    maps = maps_of(rig, xyz, skeleton.joints)
    maps.score[::3, 1] = maps.score[::3, 1][:, skeleton.mirror]
    maps.image_from_heatmap[5, 2] = np.nan
    boxes = [((frame.min(0) + frame.max(0)) / 2, 2.2) for frame in xyz]
    return rig, skeleton, maps, boxes


def model_of_block(skeleton, **settings):
    chosen = PictorialSettings(**{"voxels": 32, "floor": 1e-3, **settings})
    return PictorialModel(skeleton, typical_lengths(skeleton, HEIGHT), chosen)


def test_frames_on_several_threads_give_the_bits_of_frames_one_by_one(block, monkeypatch):
    monkeypatch.setattr(batch, "processors", lambda: 4)
    rig, skeleton, maps, boxes = block
    model = model_of_block(skeleton)
    together = batch.infer_block(model, rig, maps, boxes, 0.02)
    for t, other in enumerate(together):
        one = infer_frame(model, rig, maps, t, boxes[t], 0.02)
        np.testing.assert_array_equal(one.pose.mean_m, other.pose.mean_m)
        np.testing.assert_array_equal(one.pose.cov_m2, other.pose.cov_m2)


@pytest.fixture
def gpu_by_definition(monkeypatch):
    """Batches for a GPU are answered by their definition on the CPU."""
    monkeypatch.setitem(frames.BODIES, "cuda", frames.BODIES["reference"])


@pytest.mark.parametrize("tolerance", [1e-3, 3e-2])
def test_a_block_for_the_gpu_gives_the_same_poses_exchanged_and_missing_views_included(
    block, gpu_by_definition, tolerance
):
    rig, skeleton, maps, boxes = block
    alone, together = (
        batch.infer_block(model_of_block(skeleton, backend=backend, tolerance=tolerance), rig, maps, boxes, 0.02)
        for backend in ("numba", "cuda")
    )
    assert any((result.flip > 0.5).any() for result in alone)
    assert [result.pose.backend for result in together].count("cuda") >= 6
    for one, other in zip(alone, together, strict=True):
        assert other.pose.error_bound <= tolerance
        np.testing.assert_allclose(one.pose.mean_m, other.pose.mean_m, atol=2.2 * tolerance)
        np.testing.assert_allclose(one.flip, other.flip, atol=1e-3)
        np.testing.assert_array_equal(one.n_views, other.n_views)


@pytest.mark.parametrize(
    "settings",
    [{"floor": 0.05}, {"tolerance": 0.0}, {"latent": frozenset({"thorax"})}],
    ids=["floor", "exact", "latent"],
)
def test_what_a_batch_cannot_answer_is_left_to_the_cpu(block, gpu_by_definition, settings):
    rig, skeleton, maps, boxes = block
    skeleton = dataclasses.replace(skeleton, latent=settings.pop("latent", skeleton.latent))
    alone, together = (
        batch.infer_block(model_of_block(skeleton, backend=backend, **settings), rig, maps, boxes[:2], 0.0)
        for backend in ("numba", "cuda")
    )
    for one, other in zip(alone, together, strict=True):
        assert other.pose.backend == "numba" and other.pose.found
        np.testing.assert_array_equal(one.pose.mean_m, other.pose.mean_m)

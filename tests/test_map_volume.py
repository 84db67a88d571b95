"""Triangulation of heat maps in a cube: what views show together, what a network adds, the closer look, folding."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import draw
from map_scenes import JOINTS, answer, scene, tiny
from torch import nn

from calib.camera import Camera
from calib.rig import Rig
from harvest.detect2d.weights import shipped
from harvest.errors import UserError
from harvest.learn.map_samples import batch_of
from harvest.learn.triangulation import loss_of
from harvest.skeleton import load_skeleton
from harvest.studio.figure import ring_rig
from harvest.triangulate3d.folded import folded
from harvest.triangulate3d.from_maps import CUBE_M, inverse_affine
from harvest.triangulate3d.infer_maps import maps_of_joints, supported_poses, triangulate_learned
from harvest.triangulate3d.lenses import Lenses, optics_of
from harvest.triangulate3d.map_files import load_triangulator
from harvest.triangulate3d.map_volume import BLUR_CELLS, MapVolumetric, _cells, evidence
from harvest.triangulate3d.volume_network import VolumeNetwork, VoxelConvolution
from harvest.triangulate3d.volumetric import Cube, second_moments

pytestmark = pytest.mark.usefixtures("one_thread")


def test_voxels_look_where_the_calibration_package_projects_them(figure):
    rig, maps, xyz = figure
    item = scene(3, rig)[0]
    batch = batch_of([item], np.random.default_rng(1), augment=True)
    lenses, place = Lenses.from_optics(batch.optics), batch.place
    cube = Cube(torch.zeros(1, 3), CUBE_M, 16)
    moved = lenses.in_place(place.centre_m, place.turn, place.scale)
    cells = _cells(batch.views, moved.to(cube.centre_m), cube.voxels_m())[0]
    world, _ = place.out_of(cube.voxels_m().flatten(1, 3).double(), torch.eye(3).double().expand(1, 16**3, 3, 3))
    views = [optics.tolist() for optics in batch.optics[0]]
    for view, found in enumerate(cells):
        camera = rig.cameras[optics_of(rig).tolist().index(views[view])]
        affine = inverse_affine(batch.image_from_heatmap[0, view]).numpy()
        expected = camera.project(world[0].numpy()) @ affine[:, :2].T + affine[:, 2]
        np.testing.assert_allclose(found.flatten(0, 2), expected, atol=2e-3)


@pytest.mark.parametrize("how", ["softmax", "confidence", "sum"])
def test_a_volumetric_network_says_the_same_whether_it_learns_or_not(how):
    network = tiny(how=how).eval()
    torch.nn.init.normal_(network.volume.up.weight)
    if network.log_scale is not None:
        network.log_scale.data.uniform_(-1, 1)
    if network.trust is not None:
        torch.nn.init.normal_(network.trust.layers[2].weight)
    batch = batch_of([scene(0)[0], scene(1, ring_rig(3))[0]], np.random.default_rng(0), augment=False)
    expected = network(batch.views, batch.place)[0].mean_m
    with torch.no_grad():
        found = network(batch.views, batch.place)[0].mean_m
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("how", ["softmax", "confidence", "sum"])
def test_before_any_training_the_answer_is_that_of_the_views_together(how, figure):
    rig, maps, xyz = figure
    poses = answer(MapVolumetric(maps.joints, how, width=4, levels=1), rig, maps, xyz)
    error = np.linalg.norm(poses.xyz_m - xyz, axis=2)
    assert error.mean() < 0.01 and error.max() < 0.03  # a voxel is 7 cm


def test_a_closer_look_finds_what_lies_between_voxels_and_keeps_what_is_known_from_afar(figure):
    rig, maps, xyz = figure
    network = MapVolumetric(maps.joints, "sum", width=4, levels=1, n=16)
    exact = answer(network, rig, maps, xyz)
    assert np.linalg.norm(exact.xyz_m - xyz, axis=2).max() < 0.01  # a voxel is 14 cm
    assert np.sqrt(np.linalg.eigvalsh(exact.cov_m2)).max() < 0.04
    torn = dataclasses.replace(maps, score=maps.score.copy())
    wrist, ankle = maps.joints.index("l_wrist"), maps.joints.index("r_ankle")
    torn.score[:, :, wrist] = 0.55 * maps.score[:, :, wrist] + 0.45 * maps.score[:, :, ankle]  # two places, one more so
    network.log_gain.data.fill_(0.0)
    both = answer(network, rig, torn, xyz)
    apart = np.linalg.norm(xyz[:, wrist] - xyz[:, ankle], axis=1)
    largest = np.sqrt(np.linalg.eigvalsh(both.cov_m2[:, wrist])[:, -1])
    assert (largest > 0.25 * apart).all() and apart.min() > 0.4


def test_evidence_is_1_at_a_certain_cell_0_without_heat_and_falls_as_a_logarithm():
    cells = np.arange(64)
    score = np.exp(-((cells - 30) ** 2 + (cells[:, None] - 20) ** 2) / 2).astype(np.float32)
    found = evidence(torch.from_numpy(np.stack([score, 0 * score, 0.01 * score])), BLUR_CELLS)
    assert found.shape == (3, 64, 64) and found[0, 20, 30] == found[0].max() == pytest.approx(1, abs=1e-3)
    assert not found[1].any() and found[2, 20, 30] == pytest.approx(0.5, abs=0.01)
    wide = 1 + BLUR_CELLS**2
    expected = [1 - off**2 / (2 * wide * np.log(1e4)) for off in range(6)]
    np.testing.assert_allclose(found[0, 20, 30:36], expected, atol=2e-3)


@pytest.mark.parametrize("how", ["softmax", "confidence", "sum"])
def test_a_volumetric_network_learns_where_joints_are(how):
    torch.manual_seed(0)
    network = MapVolumetric(JOINTS, how, width=8, levels=2, n=16)
    items = [scene(number, wrong_view=True)[0] for number in range(4)]
    batch = batch_of(items, np.random.default_rng(0), augment=False)
    steps = torch.optim.AdamW(network.parameters(), 1e-2)
    losses = []
    for _ in range(24):
        losses.append(loss_of(network, batch, bf16=False))
        steps.zero_grad()
        losses[-1].backward()
        assert all(value.grad.isfinite().all() for value in network.parameters())
        steps.step()
    assert losses[-1] < 0.6 * losses[0]
    assert (network.trust is not None, network.log_scale is not None) == (how == "confidence", how == "softmax")
    if network.trust is not None:
        assert network.trust.layers[2].bias.grad.any()


@pytest.mark.parametrize("how", ["softmax", "confidence", "sum"])
def test_what_is_a_mean_over_views_does_not_count_them_for_the_network_and_a_sum_does(how):
    network = tiny(how=how).eval()
    torch.nn.init.normal_(network.volume.up.weight)
    network.log_gain.data.fill_(-torch.inf)  # the network alone
    batch = batch_of([scene(5)[0]], np.random.default_rng(0), augment=False)
    parts = ("score", "image_from_heatmap", "optics", "seen")
    twice = batch._replace(**{name: getattr(batch, name).repeat_interleave(2, dim=1) for name in parts})
    with torch.no_grad():
        once, again = (network(one.views, one.place)[0].log_probability for one in (batch, twice))
    assert torch.allclose(once, again, atol=1e-6) == (how != "sum")


def test_a_volumetric_answer_moves_with_the_world_whatever_is_up_there(figure):
    rig, maps, xyz = figure
    R, shift = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), np.array([3.0, -2.0, 5.0])  # z becomes y
    cameras = [(c, c.R_cam_from_world @ R.T) for c in rig.cameras]
    moved = Rig(
        tuple(
            Camera(c.name, c.size_px, c.K, c.dist_opencv, turned, c.t_cam_from_world_m - turned @ shift, c.model)
            for c, turned in cameras
        ),
        (0.0, 1.0, 0.0),
    )
    torch.manual_seed(1)
    network = tiny(maps.joints)
    torch.nn.init.normal_(network.volume.up.weight, std=3000.0)
    network.log_gain.data.fill_(-torch.inf)  # the network alone, which knows up from down
    here, there = answer(network, rig, maps, xyz), answer(network, moved, maps, xyz @ R.T + shift)
    np.testing.assert_allclose(there.xyz_m, here.xyz_m @ R.T + shift, atol=2e-3)
    np.testing.assert_allclose(there.cov_m2, R @ here.cov_m2 @ R.T, atol=2e-3)
    upside = Rig(moved.cameras)
    assert np.abs(answer(network, upside, maps, xyz @ R.T + shift).xyz_m - there.xyz_m).max() > 0.02


def test_maps_are_taken_by_name_and_too_few_are_refused(figure):
    rig, maps, xyz = figure
    picked = maps_of_joints(maps, ("l_wrist", "tail", "pelvis", "r_hip"))
    assert picked.joints == ("l_wrist", "tail", "pelvis", "r_hip") and not picked.score[:, :, 1].any()
    np.testing.assert_array_equal(picked.score[:, :, 2], maps.score[:, :, maps.joints.index("pelvis")])
    poses = answer(tiny(("l_wrist", "tail", "pelvis", "r_hip")), rig, maps, xyz)
    assert poses.joints == picked.joints and poses.found.all() and not poses.n_views[:, 1].any()
    with pytest.raises(UserError, match=r"knows 3 joints \(tail, horn, pelvis.*has 1 of them.*--method algebraic"):
        answer(tiny(("tail", "horn", "pelvis")), rig, maps, xyz)


def test_nobody_is_found_where_nobody_is_placed(figure):
    rig, maps, xyz = figure
    centres = xyz.mean(axis=1)
    centres[2] = np.nan
    poses = triangulate_learned(tiny(maps.joints).eval(), rig, maps, np.arange(5) / 30, centres, 2.0)
    assert poses.found.all(axis=1).tolist() == [True, True, False, True, True]
    assert (
        np.isfinite(poses.cov_m2[0]).all()
        and np.isnan(poses.cov_m2[2]).all()
        and (np.linalg.eigvalsh(poses.cov_m2[0]) > 0).all()
    )


def test_the_volume_network_is_as_wide_as_asked_and_the_published_one_by_default():
    shapes = {width: VolumeNetwork(3, 2, 1, width).front[0][0].weight.shape for width in (4, 8)}
    assert shapes == {4: (2, 3, 7, 7, 7), 8: (4, 3, 7, 7, 7)}
    with torch.device("meta"):
        assert VolumeNetwork(32, 17).front[3].body[0].weight.shape == (32, 32, 3, 3, 3)
    for width in (0, 5):
        with pytest.raises(ValueError, match="must be even"):
            VolumeNetwork(3, 2, 1, width)
    for wrong in ({"how": "mean"}, {"n": 8, "levels": 3}):
        with pytest.raises(ValueError):
            MapVolumetric(JOINTS, **wrong)


def test_autocast_leaves_logits_in_full_precision():
    network = tiny().volume.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert network(torch.randn(1, 4, 16, 16, 16)).dtype == torch.float32


@pytest.mark.parametrize(("kernel", "side"), [(3, 1), (3, 2), (3, 3), (5, 4), (7, 6)])
def test_slopes_in_bfloat16_are_right_in_volumes_narrower_than_the_kernel(kernel, side):
    layer = VoxelConvolution(16, 16, kernel, padding=kernel // 2)
    exact = copy.deepcopy(layer).double()
    x = draw(5, 2, 16, side, side, side).float()
    exact(x.double()).square().sum().backward()
    for _ in range(3):
        spoilt = [torch.full((2**power,), torch.nan) for power in range(8, 21)]  # what freed memory may hold
        del spoilt
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = layer(x).float().square().sum()
        loss.backward()
        for slope, expected in ((layer.weight.grad, exact.weight.grad), (layer.bias.grad, exact.bias.grad)):
            assert (slope - expected).norm() < 0.02 * expected.norm()


def test_the_shipped_volumetric_network_finds_a_figure_that_it_never_saw_in_a_cube_that_lies_off(figure):
    rig, maps, xyz = figure
    network = folded(load_triangulator(shipped("volumetric-s")))
    assert network.joints == load_skeleton("harvest21").joints and shipped("volumetric-s").stat().st_size < 8e6
    poses = triangulate_learned(network, rig, maps, np.arange(5) / 30, xyz.mean(axis=1) + [0.1, -0.05, 0.05], 2.4)
    both = [joint for joint in maps.joints if joint in poses.joints]
    found = poses.xyz_m[:, [poses.joints.index(joint) for joint in both]]
    error = np.linalg.norm(found - xyz[:, [maps.joints.index(joint) for joint in both]], axis=2)
    assert len(both) == 16 and error.mean() < 0.03 and error.max() < 0.12, (error.mean(), error.max())


def test_second_moments_are_sums_over_all_voxels():
    probability, off = draw(5, 2, 3, 4, 4, 4).abs(), draw(6, 2, 3, 3, 4)
    x, y, z = off.unbind(2)
    places = torch.stack(
        torch.broadcast_tensors(x[..., :, None, None], y[..., None, :, None], z[..., None, None, :]), -1
    )
    expected = torch.einsum("bjxyz,bjxyza,bjxyzc->bjac", probability, places, places)
    torch.testing.assert_close(second_moments(probability, off), expected)


def test_a_folded_network_gives_the_same_numbers_without_batch_norms():
    torch.manual_seed(0)
    network = VolumeNetwork(3, 2, 2, 8)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    x = torch.randn(2, 3, 8, 8, 8)
    quick = folded(network)
    assert network.training and not quick.training
    with torch.no_grad():
        expected = network.eval()(x)
        torch.testing.assert_close(quick(x), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    assert not any(isinstance(part, nn.BatchNorm3d) for part in quick.modules())
    assert sum(isinstance(part, nn.BatchNorm3d) for part in network.modules()) > 20


def test_a_place_without_a_covariance_is_no_joint(figure):
    _, maps, xyz = figure
    t, v, j = maps.score.shape[:3]
    places, cov = np.broadcast_to(xyz, (t, j, 3)), np.tile(1e-4 * np.eye(3), (t, j, 1, 1))
    cov[0, 1] = np.nan
    poses = supported_poses(maps, np.zeros(t), places, cov, np.ones((t, v, j)))
    lost = np.isnan(poses.xyz_m).all(axis=2)
    assert lost[0, 1] and lost.sum() == 1
    assert ((poses.n_views == 0) == lost).all() and ((poses.confidence == 0) == lost).all()

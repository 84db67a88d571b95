"""Triangulation learnt from heat maps: lenses as in the calibration package, exact maps, lying views, files."""

import dataclasses

import numpy as np
import pytest
import torch
from map_scenes import LENSES, answer, rig_of, scene, tiny
from safetensors.torch import save_file
from torch.autograd import gradcheck

from calib.covariance import fit_covariance
from calib.rig import Rig
from calib.triangulate import triangulate_dlt
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.errors import UserError
from harvest.learn.map_samples import batch_of
from harvest.learn.triangulation import loss_of
from harvest.studio.figure import ring_rig
from harvest.triangulate3d.agreement import agreed_point, votes_of_views
from harvest.triangulate3d.algebraic import triangulate_weighted
from harvest.triangulate3d.from_maps import (
    CUBE_M,
    CubePlace,
    MapAlgebraic,
    inverse_affine,
    upright,
)
from harvest.triangulate3d.lenses import Lenses, optics_of
from harvest.triangulate3d.map_files import load_triangulator, save_triangulator
from harvest.triangulate3d.map_volume import MapVolumetric
from harvest.types import Heatmaps

pytestmark = pytest.mark.usefixtures("one_thread")


def lenses_of(rig: Rig) -> Lenses:
    """(1, V)."""
    return Lenses.from_optics(torch.from_numpy(optics_of(rig))[None])


# Lenses


@pytest.mark.parametrize("name", LENSES)
def test_points_project_as_in_the_calibration_package(name):
    rig = rig_of("none", name, "fisheye")
    xyz = np.random.default_rng(0).uniform(-6, 6, (400, 3))
    expected = rig.project(xyz)
    assert 0.2 < np.isfinite(expected[..., 0]).mean() < 0.9  # some lie behind a camera
    points = torch.from_numpy(xyz).expand(1, 3, 400, 3)
    np.testing.assert_allclose(lenses_of(rig).project(points)[0], expected, rtol=1e-9, atol=1e-7)
    alone = lenses_of(rig).view(1).project(points[:, 0])
    np.testing.assert_allclose(alone[0], expected[1], rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("name", LENSES)
def test_pixels_are_undistorted_as_in_the_calibration_package(name):
    rig = rig_of(name, "fisheye", "none")
    width, height = rig.cameras[0].size_px
    u, v = np.meshgrid(np.linspace(-0.4, 1.4, 24) * width, np.linspace(-0.4, 1.4, 24) * height)
    uv = np.stack([u.ravel(), v.ravel()], axis=-1)
    uv[5] = np.nan
    expected = np.stack([camera.undistort(uv) for camera in rig.cameras])
    found = lenses_of(rig).undistort(torch.from_numpy(uv).expand(1, 3, *uv.shape))
    np.testing.assert_allclose(found[0], expected, rtol=1e-7, atol=1e-9)
    assert np.isnan(expected[0]).any(axis=1).sum() > (50 if name == "folding" else 0)


@pytest.mark.parametrize("name", LENSES)
def test_the_gradient_of_undistortion_is_exact_and_pixels_without_a_ray_disturb_none(name):
    lenses = lenses_of(rig_of(name, "folding", "fisheye"))
    uv = torch.tensor([[30.0, 50], [320, 239.5], [600, 400]], dtype=torch.float64).expand(1, 3, 3, 2).clone()
    assert gradcheck(lenses.undistort, (uv.requires_grad_(),), eps=1e-4, rtol=1e-5)
    lost = torch.cat([uv.detach(), torch.full((1, 3, 1, 2), 1e5), torch.full((1, 3, 1, 2), torch.nan)], dim=2)
    rays = lenses.undistort(lost.requires_grad_())
    points = triangulate_weighted(rays, lenses.projections, torch.ones(1, 3, 5))
    assert points.found[0].tolist() == [True, True, True, False, False]
    points.xyz_m[points.found].sum().backward()
    assert lost.grad.isfinite().all() and lost.grad[:, :, :3].all() and not lost.grad[:, :, 3:].any()


def test_cameras_in_other_coordinates_see_the_same():
    lenses, rng = lenses_of(rig_of("barrel", "fisheye", "tilted")), np.random.default_rng(3)
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0])[None]
    turn = turn * torch.linalg.det(turn)[:, None, None]
    place = CubePlace(torch.tensor([[0.3, -0.1, 1.2]]).double(), torch.tensor([2.6]).double(), turn)
    xyz = torch.from_numpy(rng.normal([0, 0, 1], 0.5, (1, 7, 3)))
    inside = place.into(xyz)
    assert not torch.allclose(inside, xyz)
    moved = lenses.in_place(place.centre_m, place.turn, place.scale)
    views = (1, 3, 7, 3)
    torch.testing.assert_close(moved.project(inside[:, None].expand(views)), lenses.project(xyz[:, None].expand(views)))
    spread = torch.diag(torch.tensor([1e-4, 4e-4, 9e-4])).double().expand(1, 7, 3, 3)
    back, cov = place.out_of(inside, spread)
    torch.testing.assert_close(back, xyz)
    torch.testing.assert_close(cov[0, 0], turn[0].T @ spread[0, 0] @ turn[0] * (2.6 / CUBE_M) ** 2)


@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (0, 0, -1), (0.6, 0, -0.8), (0, 1e-8, -1)])
def test_up_is_brought_to_z_by_a_rotation(up):
    given = torch.tensor(up, dtype=torch.float64)
    R = upright(given / given.norm())
    torch.testing.assert_close(R @ given, torch.tensor([0.0, 0, 1]).double(), atol=1e-7, rtol=0)
    torch.testing.assert_close(R @ R.T, torch.eye(3).double(), atol=1e-7, rtol=0)
    assert torch.linalg.det(R) > 0.99


def test_an_affine_and_its_inverse_cancel():
    affine = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 2, 3)))
    inverse = inverse_affine(affine)
    points = torch.tensor([0.3, -2.0]).double()
    there = (affine[..., :2] @ points[:, None])[..., 0] + affine[..., 2]
    back = (inverse[..., :2] @ there[..., None])[..., 0] + inverse[..., 2]
    torch.testing.assert_close(back, points.expand(2, 3, 2))


# Maps to joints, view by view


def without(maps: Heatmaps, views: list[int], frames: slice = slice(None)) -> Heatmaps:
    """The maps with some views missing in some frames."""
    affine, score = maps.image_from_heatmap.copy(), maps.score.copy()
    for view in views:
        affine[frames, view], score[frames, view] = np.nan, 0
    return dataclasses.replace(maps, image_from_heatmap=affine, score=score)


def test_exact_maps_give_the_joints_to_a_millimetre_before_any_training(figure):
    rig, maps, xyz = figure
    poses = answer(MapAlgebraic(), rig, maps, xyz)
    error = np.linalg.norm(poses.xyz_m - xyz, axis=2)
    assert error.max() < 2e-3 and error.mean() < 1e-3
    assert poses.joints == maps.joints and (poses.n_views == 4).all() and poses.confidence.min() > 0.5
    sigma = np.sqrt(np.linalg.eigvalsh(poses.cov_m2))
    assert 1e-3 < sigma.min() and sigma.max() < 0.03  # of a cell's width, about 4 cm


def test_a_missing_view_is_as_if_the_rig_lacked_it_and_one_view_is_not_enough(figure):
    rig, maps, xyz = figure
    names = [rig.names[v] for v in (0, 2, 3)]
    fewer = Heatmaps(
        maps.frames, tuple(names), maps.joints, maps.score[:, [0, 2, 3]], maps.image_from_heatmap[:, [0, 2, 3]]
    )
    expected = answer(MapAlgebraic(), rig, fewer, xyz)
    found = answer(MapAlgebraic(), rig, without(maps, [1]), xyz)
    np.testing.assert_allclose(found.xyz_m, expected.xyz_m, atol=1e-9)
    np.testing.assert_allclose(found.cov_m2, expected.cov_m2, rtol=1e-6)
    np.testing.assert_allclose(found.confidence, expected.confidence)
    network = tiny(maps.joints, "confidence")
    expected, found = answer(network, rig, fewer, xyz), answer(network, rig, without(maps, [1]), xyz)
    np.testing.assert_allclose(found.xyz_m, expected.xyz_m, atol=1e-3)  # bfloat16 adds in another order
    for network in (MapAlgebraic(), tiny(maps.joints)):
        poses = answer(network, rig, without(maps, [0, 1, 3], slice(1, 2)), xyz)
        assert poses.found.all(axis=1).tolist() == [True, False, True, True, True]
        assert not poses.found[1].any() and not poses.n_views[1].any() and not poses.confidence[1].any()


def test_empty_maps_take_no_part(figure):
    rig, maps, xyz = figure
    score = maps.score.copy()
    score[0, 0, 3] = 0  # a joint that one view does not show
    score[0, 1:, 5] = 0  # one that only one view shows
    score[1] = 0
    poses = answer(MapAlgebraic(), rig, dataclasses.replace(maps, score=score), xyz)
    assert np.linalg.norm(poses.xyz_m[0, 3] - xyz[0, 3]) < 2e-3 and poses.n_views[0, 3] == 3
    assert np.isnan(poses.xyz_m[0, 5]).all() and poses.found[0].sum() == len(maps.joints) - 1
    assert not poses.found[1].any() and poses.found[2:].all()
    assert not answer(tiny(maps.joints), rig, dataclasses.replace(maps, score=score), xyz).found[1].any()


def test_the_highest_peak_is_the_place_however_faint_the_map():
    cells, network = np.arange(64), MapAlgebraic()

    def bump(x, y):
        return torch.from_numpy(np.exp(-((cells - x) ** 2 + (cells[:, None] - y) ** 2) / 2)).float()

    two = bump(20.3, 30.6) + 0.4 * bump(50, 9)
    place = torch.tensor([20.3, 30.6])
    for level in (1.0, 1e-2, 1e-6):
        torch.testing.assert_close(network.cells(level * bump(20.3, 30.6)), place, atol=0.03, rtol=0)
        assert (network.cells(level * two) - place).norm() < 1.5  # the mean of the map itself is 10 cells off
    torch.testing.assert_close(network.cells(torch.zeros(64, 64)), torch.tensor([31.5, 31.5]))


def test_a_fresh_head_trusts_all_alike_and_every_parameter_learns():
    items = [scene(number, wrong_view=True)[0] for number in range(3)]
    batch = batch_of(items, np.random.default_rng(0), augment=False)
    torch.manual_seed(0)
    network = MapAlgebraic()
    pose = network(batch.views)
    trust = network.trust(batch.score)
    torch.testing.assert_close(trust, torch.full_like(trust, 0.5))
    torch.testing.assert_close(pose.weight.sum(1), torch.ones_like(pose.weight[:, 0]), atol=1e-4, rtol=0)
    torch.nn.init.normal_(network.trust.layers[2].weight)
    loss_of(network, batch, bf16=False).backward()
    assert all(value.grad.isfinite().all() and value.grad.any() for value in network.parameters())


def test_autocast_leaves_places_and_points_exact():
    batch = batch_of([scene(0)[0]], np.random.default_rng(0), augment=False)
    network = MapAlgebraic()
    exact = network(batch.views)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(batch.views)
    torch.testing.assert_close(found.xyz_m, exact.xyz_m, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.image_px, exact.image_px)


def views_of_points(lies, count=5):
    """Normalised points (1, V, J, 2), projections (1, V, 3, 4), truth (1, J, 3); of joint j, views lies[j] lie."""
    rig, rng = ring_rig(count), np.random.default_rng(0)
    xyz = torch.from_numpy(rng.uniform(-0.7, 0.7, (len(lies), 3)) + [0, 0, 1])
    projections = lenses_of(rig).projections
    at = (projections[..., None, :, :3] * xyz[:, None]).sum(-1) + projections[..., None, :, 3]
    points = at[..., :2] / at[..., 2:]
    for joint, views in enumerate(lies):
        points[0, list(views), joint] += torch.from_numpy(rng.choice([-1, 1], (len(views), 2)) * 0.1)
    return points, projections, xyz[None]


def test_views_agree_on_the_point_that_most_of_them_see():
    points, projections, xyz = views_of_points([[], [0], [3], [1, 4]])
    trust, scale = torch.full(points.shape[:3], 0.5).double(), torch.full(points.shape[:2], 0.01).double()
    torch.testing.assert_close(agreed_point(points, projections, trust, scale), xyz, atol=1e-7, rtol=0)
    plain = triangulate_weighted(points, projections, trust).xyz_m
    assert ((plain - xyz).norm(dim=-1)[0] > 0.02).tolist() == [False, True, True, True]
    votes = votes_of_views(xyz, points, projections, scale)
    torch.testing.assert_close(votes[0, :, 1], torch.tensor([1 / 201, 1, 1, 1, 1]).double())
    trust[0, [0, 2, 3], 3] = 0.01  # now the two that lie together are trusted more
    assert (agreed_point(points, projections, trust, scale) - xyz).norm(dim=-1)[0, 3] > 0.02
    trust[0, 1:, 2] = 0
    assert agreed_point(points, projections, trust, scale).isnan().all(-1).tolist() == [[False, False, True, False]]


def test_only_the_most_trusted_views_propose_and_all_vote():
    points, projections, xyz = views_of_points([[0, 1]], count=9)
    trust, scale = torch.full(points.shape[:3], 0.5).double(), torch.full(points.shape[:2], 0.01).double()
    trust[0, :2] = 0.6
    torch.testing.assert_close(agreed_point(points, projections, trust, scale), xyz, atol=1e-7, rtol=0)


def test_votes_have_exact_gradients_and_a_view_that_cannot_see_the_point_has_none():
    points, projections, xyz = views_of_points([[], [2]])
    points = (points + 0.003).requires_grad_()
    scale = torch.full(points.shape[:2], 0.01).double().requires_grad_()
    assert gradcheck(lambda p, s: votes_of_views(xyz, p, projections, s), (points, scale))
    behind = votes_of_views(xyz + torch.tensor([0.0, 0.0, 1e3]), points, projections, scale)
    unseen = torch.where(torch.arange(5)[:, None, None] == 1, torch.nan, points)
    votes = votes_of_views(xyz, unseen, projections, scale)
    assert (behind < 1e-3).all() and (votes[0, 1] == 0).all() and (votes[0, 0] > 0.5).all()


def test_a_lying_view_loses_trust_and_does_no_harm_after_a_short_training():
    torch.manual_seed(0)
    network = MapAlgebraic()
    train = [scene(number, wrong_view=True)[0] for number in range(48)]
    unseen = [scene(1000 + number, wrong_view=True) for number in range(8)]
    batch = batch_of([item for item, _ in unseen], np.random.default_rng(0), augment=False)

    @torch.no_grad()
    def error_m() -> float:
        return float((network(batch.views).xyz_m - batch.xyz_m).norm(dim=-1).mean())

    before, losses = error_m(), []
    steps = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(40):
        part = [train[(8 * step + row) % len(train)] for row in range(8)]
        losses.append(loss_of(network, batch_of(part, np.random.default_rng(step), augment=False), bf16=False))
        steps.zero_grad()
        losses[-1].backward()
        steps.step()
    assert torch.stack(losses[-5:]).mean() < 0.5 * torch.stack(losses[:5]).mean()
    weight, trust = network(batch.views).weight, network.trust(batch.score)
    for row, (_, wrong) in enumerate(unseen):
        honest = [view for view in range(4) if view != wrong]
        assert (weight[row, wrong] < 0.1 * weight[row, honest].min(dim=0).values).all()
        assert (trust[row, wrong] < 0.5 * trust[row, honest].min(dim=0).values).all()
    assert error_m() < 0.7 * before


# Covariances


def test_the_covariance_of_a_weighted_fit_is_the_spread_of_its_answers():
    rig, rng, n, noise = ring_rig(4), np.random.default_rng(0), 3000, 2.0
    xyz = np.array([0.2, -0.1, 1.1])
    weight = np.array([1.0, 0.5, 1.0, 0.25])[:, None] * np.ones((1, n))
    uv = rig.project(np.tile(xyz, (n, 1))) + rng.normal(0, noise, (4, n, 2)) / weight[..., None]
    found = triangulate_dlt(rig, uv, weight)
    spread = np.cov(found.T)
    told = fit_covariance(rig, found, uv, weight, 0.01).mean(axis=0)
    np.testing.assert_allclose(np.sqrt(np.diag(told)), np.sqrt(np.diag(spread)), rtol=0.1)
    np.testing.assert_allclose(fit_covariance(rig, found, uv, 7 * weight, 0.01).mean(axis=0), told, rtol=1e-9)
    alike = fit_covariance(rig, found, uv, np.ones_like(weight), 0.01).mean(axis=0)
    assert np.linalg.det(alike) > 1.5 * np.linalg.det(told)
    none = fit_covariance(rig, found[:2], uv[:, :2], np.array([[1, 0], [0, 0], [0, 0], [0, 0]]), 1.0)
    assert np.isnan(none).all()


# Files


@pytest.mark.parametrize("network", [MapAlgebraic(width=4), tiny(how="confidence")], ids=["algebraic", "volumetric"])
def test_what_is_saved_is_what_is_loaded(network, figure, tmp_path):
    rig, maps, xyz = figure
    network.trust.layers[2].weight.data.normal_()
    path = tmp_path / "w.safetensors"
    save_triangulator(network, path)
    again = load_triangulator(path)
    assert type(again) is type(network) and not again.training and [p.name for p in tmp_path.iterdir()] == [path.name]
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    if isinstance(network, MapVolumetric):
        shape = ("joints", "how", "width", "levels", "n")
        assert [getattr(again, name) for name in shape] == [getattr(network, name) for name in shape]
    else:
        expected, found = (answer(one, rig, maps, xyz) for one in (network, again))
        np.testing.assert_allclose(found.xyz_m, expected.xyz_m, atol=1e-3)


def test_what_is_shipped_finds_joints_before_any_lenses(figure):
    rig, maps, xyz = figure
    network = load_triangulator(shipped("algebraic-s"))
    assert isinstance(network, MapAlgebraic) and shipped("algebraic-s").stat().st_size < 1e5
    assert np.linalg.norm(answer(network, rig, maps, xyz).xyz_m - xyz, axis=2).max() < 3e-3


def test_what_is_no_triangulator_is_told_in_one_line(tmp_path):
    network, path = tiny(), tmp_path / "w.safetensors"
    save_triangulator(network, path)
    header = {"triangulator": '{"kind": "algebraic", "width": 8}'}
    state = MapAlgebraic().state_dict()
    mistakes = {
        "gone": ("there is no such file", None),
        "broken": ("cannot be read as weights", lambda to: to.write_bytes(path.read_bytes()[:-5])),
        "kind": (
            "tells no triangulator's sizes.*'cubic'",
            lambda to: save_file(state, to, {"triangulator": '{"kind": "cubic"}'}),
        ),
        "sizes": ("tells no triangulator's sizes", lambda to: save_file(state, to, {"triangulator": '{"width": 8}'})),
        "part": (
            r"not a whole algebraic.*1 missing \('log_floor'\)",
            lambda to: save_file({k: v for k, v in state.items() if k != "log_floor"}, to, header),
        ),
        "wide": ("misshapen", lambda to: save_file(MapAlgebraic(width=4).state_dict(), to, header)),
    }
    for name, (message, write) in mistakes.items():
        wrong = tmp_path / f"{name}.safetensors"
        if write is not None:
            write(wrong)
        with pytest.raises(UserError, match=message) as caught:
            load_triangulator(wrong)
        assert str(wrong) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="something else than a triangulator"):
        load_triangulator(shipped(DETECTOR))
    for unfit in (tmp_path / "w.pt", tmp_path / "nowhere" / "w.safetensors"):
        with pytest.raises(UserError, match="cannot save weights"):
            save_triangulator(network, unfit)

"""Learnable triangulation: the published numbers, exact gradients, and what must not matter."""

import itertools

import numpy as np
import pytest
import torch
from conftest import draw
from torch import nn
from torch.autograd import gradcheck

from calib.camera import Camera
from calib.rig import Rig
from calib.triangulate import triangulate_dlt, undistort_views
from cuda_kernels.unproject import unproject as kernel_unproject
from harvest.studio.figure import ring_rig
from harvest.triangulate3d import algebraic, volumetric
from harvest.triangulate3d.algebraic import AlgebraicTriangulator, smallest_direction, soft_argmax_px
from harvest.triangulate3d.algebraic import triangulate_weighted as triangulate
from harvest.triangulate3d.backbone import PoseResNet, Seen
from harvest.triangulate3d.losses import soft_mse, volumetric_loss
from harvest.triangulate3d.volume_network import VolumeNetwork
from harvest.triangulate3d.volumetric import Cube, VolumetricTriangulator, unproject, volume_soft_argmax

HOWS = ("sum", "confidence", "softmax")


pytestmark = pytest.mark.usefixtures("one_thread")


def plain_rig(views: int) -> Rig:
    """A ring of cameras without distortion, 4 m from the middle."""
    bent = ring_rig(views).cameras
    poses = [(c.K, np.zeros(5), c.R_cam_from_world, c.t_cam_from_world_m) for c in bent]
    return Rig(tuple(Camera(c.name, c.size_px, *pose) for c, pose in zip(bent, poses, strict=True)))


def matrices(rig: Rig, normalised: bool = False) -> torch.Tensor:
    """(1, V, 3, 4) projections to pixels, or to normalised coordinates."""
    pose = [np.column_stack([c.R_cam_from_world, c.t_cam_from_world_m]) for c in rig.cameras]
    intrinsics = [np.eye(3) if normalised else c.K for c in rig.cameras]
    return torch.from_numpy(np.stack([K @ P for K, P in zip(intrinsics, pose, strict=True)]))[None]


def projected(P: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
    """(B, V, J, 2) of points (B, J, 3)."""
    at = torch.einsum("bvrc,bjc->bvjr", P[..., :3], xyz) + P[:, :, None, :, 3]
    return at[..., :2] / at[..., 2:]


def scene(views: int, joints: int, noise: float = 0.01) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy normalised points, projections and weights of a ring of views round random joints."""
    P = matrices(plain_rig(views), normalised=True)
    points = projected(P, 0.5 * draw(1, 1, joints, 3) + torch.tensor([0.0, 0, 1]))
    return points + noise * draw(2, *points.shape), P, draw(3, 1, views, joints).abs() + 0.1


def motion(turn: float) -> torch.Tensor:
    """(4, 4) a turn about z, then a shift."""
    move = torch.eye(4, dtype=torch.float64)
    move[:2, :2] = torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    move[:3, 3] = torch.tensor([0.3, -2.0, 0.7])
    return move


# Crops to points, through a backbone


def test_every_parameter_learns_through_the_points():
    torch.manual_seed(0)
    network = AlgebraicTriangulator(PoseResNet(18, 2, algebraic=True))
    rig = plain_rig(2)
    scale = torch.diag(torch.tensor([0.2, 0.2, 1.0], dtype=torch.float64))  # brings 640 pixels to 128
    pose = network(torch.randn(1, 2, 3, 128, 128), (scale @ matrices(rig)).float())
    soft_mse(pose.xyz_m, torch.zeros(1, 2, 3)).backward()
    grads = {key: value.grad for key, value in network.named_parameters()}
    assert pose.found.all() and all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert all(
        grads[f"backbone.{key}"].any() for key in ("stem.0.weight", "score.weight", "algebraic_head.layers.4.bias")
    )


# Heat maps to pixels


@pytest.mark.parametrize(("x", "y"), [(10.0, 7.0), (11.3, 20.75), (7.5, 14.5)])
def test_the_soft_argmax_of_a_gaussian_is_its_middle(x, y):
    rows, columns = torch.arange(28.0), torch.arange(20.0)
    log = -((columns - x) ** 2 + (rows[:, None] - y) ** 2) / (2 * 1.2**2)
    expected = torch.tensor([(x + 0.5) * 4 - 0.5, (y + 0.5) * 4 - 0.5])
    torch.testing.assert_close(soft_argmax_px(log / 50, 50.0, 4.0), expected, atol=1e-3, rtol=0)
    flat = soft_argmax_px(torch.zeros(2, 28, 20), stride=8)
    torch.testing.assert_close(flat, torch.tensor([79.5, 111.5]).expand(2, 2))


def test_shares_add_up_over_the_views_there_are():
    seen = torch.tensor([[True, False, True], [False, False, False]])
    shares = algebraic.shares(draw(4, 2, 3, 5).exp(), seen)
    torch.testing.assert_close(shares[0].sum(0), torch.ones(5, dtype=torch.float64))
    assert not shares[0, 1].any() and not shares[1].any()


# Pixels to points


@pytest.mark.parametrize("views", [2, 3, 8, 31])
def test_points_are_those_of_the_calibration_package(views):
    rig, rng = ring_rig(views), np.random.default_rng(views)
    xyz = rng.normal([0, 0, 1], 0.4, (6, 3))
    uv = rig.project(xyz) + rng.normal(0, 3, (views, 6, 2))
    weight = rng.random((views, 6))
    uv[0, 1], weight[1, 2], weight[0, 3], weight[1:, 4] = np.nan, 0, np.nan, 0
    expected = triangulate_dlt(rig, uv, weight)
    points = torch.from_numpy(undistort_views(rig, uv))[None]
    found = triangulate(points, matrices(rig, normalised=True), torch.from_numpy(weight)[None])
    np.testing.assert_allclose(found.xyz_m[0], expected, atol=1e-9)
    assert found.found[0].tolist() == np.isfinite(expected).all(-1).tolist()
    assert found.found[0].tolist() == [True, *[views > 2] * 3, False, True]


def test_pixels_and_normalised_coordinates_agree_where_views_do():
    rig = plain_rig(4)
    xyz = 0.4 * draw(5, 2, 7, 3)
    P = matrices(rig).expand(2, -1, -1, -1)
    found = triangulate(projected(P, xyz), P, torch.ones(2, 4, 7))
    torch.testing.assert_close(found.xyz_m, xyz, atol=1e-9, rtol=0)


@pytest.mark.parametrize("views", [2, 4])
def test_the_gradient_of_points_is_exact(views):
    inputs = [value.requires_grad_() for value in scene(views, 2)]
    assert gradcheck(lambda *given: triangulate(*given).xyz_m, inputs, rtol=1e-4)


def test_the_gradient_of_points_is_exact_where_rays_are_nearly_parallel():
    P = torch.eye(4, dtype=torch.float64)[:3].repeat(1, 2, 1, 1)
    P[0, 1, 0, 3] = -0.002  # two millimetres beside the first, 5 m away from the point
    points = projected(P, torch.tensor([[[0.1, -0.2, 5.0]]], dtype=torch.float64)).requires_grad_()
    weight = torch.tensor([[[1.0], [0.3]]], dtype=torch.float64, requires_grad=True)
    grad = torch.autograd.grad(triangulate(points, P, weight).xyz_m[0, 0, 2], points)[0]
    assert 5**2 / 0.002 * 0.99 < grad[0, 0, 0, 0].abs() < 5**2 / 0.002 * 1.01
    assert gradcheck(lambda *given: triangulate(given[0], P, given[1]).xyz_m, (points, weight), eps=1e-8, rtol=1e-3)


@pytest.mark.parametrize("sizes", [(2, 2, 2, 0.5), (3, 2, 2, 0), (2, 2, 1, 1 - 1e-3), (5, 1e-3, 1e-3, 0)])
def test_the_gradient_is_exact_where_singular_values_meet(sizes):
    left, right = torch.linalg.qr(draw(6, 6, 4))[0], torch.linalg.qr(draw(7, 4, 4))[0]
    A = (left @ torch.diag(torch.tensor(sizes, dtype=torch.float64)) @ right).requires_grad_()

    def projector(A):
        v, certain = smallest_direction(A)
        assert certain
        return v[:, None] * v  # without a sign

    assert gradcheck(projector, (A,), eps=1e-8, rtol=1e-3, atol=1e-4)
    assert gradcheck(
        projector, (torch.nn.functional.pad(A.detach(), (0, 0, 0, 3)).requires_grad_(),), eps=1e-8, atol=1e-4
    )


def test_points_without_an_answer_are_not_found_and_disturb_no_gradient():
    points, P, weight = scene(3, 6)
    points, P = points.repeat(3, 1, 1, 1), P.repeat(3, 1, 1, 1)
    weight = weight.repeat(3, 1, 1)
    P[1] = P[1, :1].clone()  # three times the same camera: any point of the ray
    points[1] = points[1, :1].clone()
    P[2] = torch.eye(3, 4)
    P[2, :, 0, 3] = torch.tensor([0.0, 1, 2])
    points[2] = 0.1  # parallel rays
    weight[0, 1, 1], weight[0, 1, 2] = torch.inf, -1
    points[0, 0, 3], weight[0, 0, 4] = torch.nan, torch.nan
    P[0, 2, 1, 1] = torch.nan  # the third view is missing for all
    given = [value.requires_grad_() for value in (points, P, weight)]
    pose = triangulate(*given)
    assert pose.found.tolist() == [[True, False, False, False, False, True], [False] * 6, [False] * 6]
    assert torch.equal(pose.xyz_m.isfinite().all(-1), pose.found)
    pose.xyz_m[pose.found].sum().backward()
    assert all(value.grad.isfinite().all() and value.grad.any() for value in given)
    assert not points.grad[1:].any() and not points.grad[0, 2].any()


def test_a_missing_view_changes_no_point_and_neither_does_the_order_of_views():
    points, P, weight = scene(4, 5)
    expected = triangulate(points, P, weight).xyz_m
    more = [torch.cat([given, given[:, :1] + 1], dim=1) for given in (points, P, weight)]
    more[2][:, -1] = 0
    torch.testing.assert_close(triangulate(*more).xyz_m, expected, atol=1e-10, rtol=0)
    other = [given[:, [2, 0, 3, 1]] for given in (points, P, weight)]
    torch.testing.assert_close(triangulate(*other).xyz_m, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(triangulate(points, P, 1e-3 * weight).xyz_m, expected, atol=1e-10, rtol=0)
    assert (triangulate(points, P, torch.ones_like(weight)).xyz_m - expected).abs().max() > 1e-4


def test_a_moved_world_moves_the_points():
    points, P, weight = scene(4, 5, noise=0)
    move = motion(0.8)
    expected = triangulate(points, P, weight).xyz_m @ move[:3, :3].T + move[:3, 3]
    torch.testing.assert_close(triangulate(points, P @ move.inverse(), weight).xyz_m, expected, atol=1e-9, rtol=0)


def test_shapes_that_do_not_fit_are_refused():
    points, P, weight = scene(3, 2)
    for wrong in [(points[0], P, weight), (points, P[:, :2], weight), (points, P, weight[..., :1])]:
        with pytest.raises(ValueError, match="need points"):
            triangulate(*wrong)


# Features to voxels


def volume_scene(views: int = 3) -> tuple[torch.Tensor, torch.Tensor, Cube, torch.Tensor]:
    """Features, projections to their cells, a turned cube that views see in part, one from inside, and confidences."""
    P = matrices(plain_rig(views), normalised=True)
    cells = torch.tensor([[8.0, 0, 3.2], [0, 8.0, 2.1], [0, 0, 1]], dtype=torch.float64) @ P
    cells[0, 0, :, 3] = cells[0, 0, :, :3] @ -torch.tensor([0.1, 0.0, 1.0], dtype=torch.float64)
    centre, turn = torch.tensor([[0.1, -0.2, 0.9]]).double(), torch.tensor([0.4]).double()
    return draw(8, 1, views, 2, 5, 7), cells, Cube(centre, 2.5, 6, turn), draw(9, 1, views, 2).abs()


def plain_views(features, P, cube) -> tuple[np.ndarray, dict[str, int]]:
    """(V, C, n, n, n) what each view shows, word for word, and how many voxels are behind, outside and inside."""
    views, channels, h, w = features.shape[1:]
    shown, count = np.zeros((views, channels, *[cube.n] * 3)), {"behind": 0, "outside": 0, "inside": 0}
    turn = float(cube.turn_rad[0])
    R = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    for view, *ijk in itertools.product(range(views), *[range(cube.n)] * 3):
        point = cube.centre_m[0].numpy() + R @ ((np.array(ijk) + 0.5 - cube.n / 2) * cube.side_m / cube.n)
        x, y, depth = P[0, view].numpy() @ np.append(point, 1)
        if depth <= 0:
            count["behind"] += 1
            continue
        x, y = x / depth, y / depth
        count["inside" if 0 <= x <= w - 1 and 0 <= y <= h - 1 else "outside"] += 1
        for row, column in itertools.product(range(h), range(w)):
            share = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
            shown[(view, slice(None), *ijk)] += share * features[0, view, :, row, column].numpy()
    return shown, count


@pytest.mark.parametrize("how", HOWS)
def test_voxels_hold_what_the_definition_says(how):
    features, P, cube, confidence = volume_scene()
    shown, count = plain_views(features, P, cube)
    assert min(count.values()) > 20, count
    share = {
        "sum": np.ones_like(shown),
        "confidence": (confidence / confidence.sum(1, keepdim=True)).numpy()[0][..., None, None, None],
        "softmax": np.exp(shown) / np.exp(shown).sum(0),
    }[how]
    volume = unproject(features, P, cube, how, confidence=confidence if how == "confidence" else None)
    np.testing.assert_allclose(volume[0], (share * shown).sum(0), atol=1e-12)


@pytest.mark.parametrize("how", HOWS)
def test_voxels_are_the_same_with_and_without_learning(how):
    features, P, cube, confidence = (
        value.float() if isinstance(value, torch.Tensor) else value for value in volume_scene()
    )
    features, P = torch.cat([features, features.flip(1)]), P.expand(2, -1, -1, -1)
    cube = Cube(cube.centre_m.float().expand(2, 3), cube.side_m, cube.n, torch.tensor([0.3, 1.0]))
    trust = confidence.expand(2, -1, -1) if how == "confidence" else None
    seen = torch.tensor([[True, False, True], [True, True, True]])
    expected = unproject(features, P, cube, how, confidence=trust, seen=seen)
    with torch.no_grad():
        found = unproject(features, P, cube, how, confidence=trust, seen=seen)
        nothing = unproject(features, P, cube, how, confidence=trust, seen=torch.zeros_like(seen))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last_3d) and not nothing.any()


@pytest.mark.parametrize("view", range(3))
def test_one_view_shows_what_the_kernel_of_the_reconstruction_sees(view):
    camera, n, stride = plain_rig(3).cameras[view], 6, 40.0
    score = np.random.default_rng(view).random((1, 8, 10, 2)).astype(np.float32)
    cell_from_image = np.array([[[1 / stride, 0, 0.5 / stride - 0.5], [0, 1 / stride, 0.5 / stride - 0.5]]])
    centre = np.array([0.5, 0.2, 1.1])
    expected = kernel_unproject(score, cell_from_image, camera.packed[None], (centre, 4.0, n), 0.0, "reference")
    P = volumetric.cells_from_pixels(matrices(Rig((camera,))), stride)
    volume = unproject(
        torch.from_numpy(score.transpose(0, 3, 1, 2))[None], P, Cube(torch.from_numpy(centre)[None], 4.0, n)
    )
    assert 0.1 < (expected > 0).mean() < 0.95
    np.testing.assert_allclose(volume[0].permute(1, 2, 3, 0), expected, atol=1e-5)


def test_cells_lie_where_the_conventions_say():
    P = matrices(plain_rig(2))
    xyz = 0.3 * draw(10, 1, 4, 3)
    torch.testing.assert_close(
        (projected(volumetric.cells_from_pixels(P, 4.0), xyz) + 0.5) * 4 - 0.5, projected(P, xyz)
    )


@pytest.mark.parametrize("how", HOWS)
def test_the_gradient_of_voxels_is_exact(how):
    features, P, cube, confidence = volume_scene()

    def volume(features, P, centre, turn, confidence):
        moved = Cube(centre, 1.2, 2, turn)
        return unproject(features, P, moved, how, confidence=confidence if how == "confidence" else None)

    given = [value.clone().requires_grad_() for value in (features, P, cube.centre_m, cube.turn_rad, confidence)]
    assert gradcheck(volume, given)


@pytest.mark.parametrize("how", HOWS)
def test_a_missing_view_changes_no_voxel_and_neither_does_the_order_of_views(how):
    features, P, cube, confidence = volume_scene()

    def volume(order=slice(None), **more):
        return unproject(
            features[:, order],
            P[:, order],
            cube,
            how,
            confidence=confidence[:, order] if how == "confidence" else None,
            **more,
        )

    expected = volume()
    torch.testing.assert_close(volume([2, 0, 1]), expected, atol=1e-12, rtol=0)
    seen = torch.tensor([[True, True, True, False]])
    assert not torch.allclose(volume([0, 1, 2, 1]), expected)
    torch.testing.assert_close(volume([0, 1, 2, 1], seen=seen), expected, atol=1e-12, rtol=0)
    broken = torch.cat([P, torch.full_like(P[:, :1], torch.nan)], dim=1)
    lost = torch.cat([features, torch.full_like(features[:, :1], torch.nan)], dim=1).requires_grad_()
    trust = (
        torch.cat([confidence, torch.full_like(confidence[:, :1], torch.nan)], dim=1) if how == "confidence" else None
    )
    found = unproject(lost, broken, cube, how, confidence=trust, seen=seen)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    found.square().sum().backward()
    assert lost.grad.isfinite().all() and lost.grad[:, :3].any() and not lost.grad[:, 3].any()
    assert not volume(seen=torch.zeros(1, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize("how", HOWS)
def test_learning_never_holds_the_voxels_of_all_views(how):
    views, channels, n = 8, 64, 8
    cube = Cube(torch.zeros(1, 3), 1.0, n)
    P = matrices(plain_rig(views)).float()
    P[:, :, :2] /= 100
    features = torch.randn(1, views, channels, 6, 6, requires_grad=True)
    confidence = torch.rand(1, views, channels, requires_grad=True) if how == "confidence" else None
    kept = {}

    def note(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes() / 4
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        volume = unproject(features, P, cube, how, confidence=confidence)
    assert sum(kept.values()) < 3 * channels * n**3  # of 8, and of 16 or more if a softmax kept what it makes
    volume.sum().backward()
    assert features.grad.any()


def test_a_moved_world_moves_voxels_means_and_covariances():
    features, P, cube, _ = volume_scene()
    move = motion(1.1)
    centre = cube.centre_m @ move[:3, :3].T + move[:3, 3]
    other = Cube(centre, cube.side_m, cube.n, cube.turn_rad + 1.1)
    volume, moved = unproject(features, P, cube), unproject(features, P @ move.inverse(), other)
    torch.testing.assert_close(moved, volume, atol=1e-12, rtol=0)
    here, there = (volume_soft_argmax(v, c, 3.0, covariance=True) for v, c in ((volume, cube), (moved, other)))
    torch.testing.assert_close(there.mean_m, here.mean_m @ move[:3, :3].T + move[:3, 3])
    torch.testing.assert_close(there.covariance_m2, move[:3, :3] @ here.covariance_m2 @ move[:3, :3].T)


def test_a_turn_is_counter_clockwise_about_up():
    quarter = torch.tensor([np.pi / 2])
    for up, corner in [((0.0, 0, 1), [-1, 1, 1]), ((0.0, 2, 0), [1, 1, -1]), ((0.0, 0, -1), [1, -1, 1])]:
        voxels = Cube(torch.zeros(1, 3), 4.0, 2, quarter, up).voxels_m()
        torch.testing.assert_close(voxels[0, 1, 1, 1], torch.tensor(corner, dtype=torch.float32), atol=1e-6, rtol=0)


def test_autocast_leaves_places_exact():
    features, P, cube, _ = volume_scene()
    features, P, cube = features.float(), P.float(), Cube(cube.centre_m.float(), 2.5, 6, cube.turn_rad.float())
    score = draw(11, 1, 3, 9, 9).float()

    def places():
        volume = unproject(features, volumetric.cells_from_pixels(P, 0.9), cube, "softmax")
        pose = volume_soft_argmax(volume, cube, 3.0, covariance=True)
        return volume, pose.mean_m, pose.covariance_m2, soft_argmax_px(score), cube.index_of(pose.mean_m)

    exact = places()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(places(), exact)


def test_what_voxels_cannot_be_made_of_is_refused():
    features, P, cube, confidence = volume_scene()
    for how, trust in [("mean", None), ("sum", confidence), ("confidence", None), ("confidence", confidence[:, :2])]:
        with pytest.raises(ValueError):
            unproject(features, P, cube, how, confidence=trust)
    for wrong in [(features[0], P, cube), (features, P[:, :2], cube)]:
        with pytest.raises(ValueError, match="need features"):
            unproject(*wrong)
    with pytest.raises(ValueError, match="need seen"):
        unproject(features, P, cube, seen=torch.ones(1, 2, dtype=torch.bool))
    for centre, side, n, turn in [
        (torch.zeros(3), 1, 2, None),
        (torch.zeros(1, 3), 0, 2, None),
        (torch.zeros(1, 3), 1, 0, None),
    ]:
        with pytest.raises(ValueError):
            Cube(centre, side, n, turn)


# Voxels to joints


@pytest.mark.parametrize(("levels", "n"), [(5, 32), (2, 12)])
def test_the_volume_network_keeps_the_grid(levels, n):
    with torch.device("meta"):
        network = VolumeNetwork(32, 17, levels)
        assert network(torch.zeros(2, 32, n, n, n)).shape == (2, 17, n, n, n)
        with pytest.raises(ValueError, match=f"multiple of {2**levels}"):
            network(torch.zeros(1, 32, n + 1, n, n))


def test_the_mean_of_a_gaussian_is_its_middle_and_its_covariance_its_own():
    centre, turn = torch.tensor([[1.0, -2, 0.8]]).double(), torch.tensor([0.7]).double()
    cube = Cube(centre, 2.4, 24, turn)
    middle = torch.tensor([[[1.1, -2.13, 0.72]]]).double()
    spread = torch.tensor([[0.02, 0.006, 0], [0.006, 0.03, -0.004], [0, -0.004, 0.015]]).double()
    off = cube.voxels_m()[:, None] - middle[:, :, None, None, None]
    log = -0.5 * torch.einsum("bjxyzr,rs,bjxyzs->bjxyz", off, spread.inverse(), off)
    pose = volume_soft_argmax(log / 3, cube, 3.0, covariance=True)
    torch.testing.assert_close(pose.mean_m, middle, atol=1e-4, rtol=0)
    inside = torch.eye(3).double() * 0.1**2 / 12
    torch.testing.assert_close(pose.covariance_m2[0, 0], spread + inside, atol=1e-4, rtol=0)
    flat = volume_soft_argmax(torch.zeros(1, 2, 8, 8, 8).double(), cube_of(8), covariance=True)
    torch.testing.assert_close(flat.mean_m, centre.expand(1, 2, 3))
    torch.testing.assert_close(flat.covariance_m2, (torch.eye(3).double() * 2.4**2 / 12).expand(1, 2, 3, 3))
    assert volume_soft_argmax(torch.zeros(1, 2, 24, 24, 24), cube).covariance_m2 is None
    with pytest.raises(ValueError, match="of 24 voxels"):
        volume_soft_argmax(torch.zeros(1, 2, 8, 8, 8), cube)


def cube_of(n: int) -> Cube:
    return Cube(torch.tensor([[1.0, -2, 0.8]]).double(), 2.4, n)


class Told(nn.Module):
    """A backbone that is told its heat maps: they are the picture, three joints of it, which are features too."""

    stride, feature_channels = 4, 3

    def forward(self, images: torch.Tensor) -> Seen:
        return Seen(images, images, None, images.new_ones(len(images), 3))


def test_crops_that_show_joints_give_the_joints():
    xyz = torch.tensor([[[0.3, 0.1, 1.2], [-0.2, 0.4, 0.6], [0.1, -0.3, 1.0]]]).double()
    P = matrices(plain_rig(3))
    cells = projected(volumetric.cells_from_pixels(P, 4.0), xyz)
    rows, columns = torch.arange(120.0), torch.arange(160.0)
    log = -((columns - cells[..., :1, None]) ** 2 + (rows[:, None] - cells[..., 1:, None]) ** 2) / (2 * 1.5**2)
    pose = AlgebraicTriangulator(Told(), multiplier=1.0)(log, P)
    torch.testing.assert_close(pose.xyz_m, xyz, atol=1e-3, rtol=0)
    torch.testing.assert_close(pose.crop_px, projected(P, xyz), atol=0.05, rtol=0)
    alone = AlgebraicTriangulator(Told(), multiplier=1.0)(log, P, torch.tensor([[True, False, False]]))
    assert not alone.found.any()


@pytest.mark.parametrize("how", HOWS)
def test_a_volumetric_network_learns_where_a_joint_is(how):
    torch.manual_seed(0)
    network = VolumetricTriangulator(Told(), 1, how, channels=3, levels=1)
    with pytest.raises(ValueError, match="multiple of 2"):
        network(torch.randn(1, 3, 3, 8, 8), matrices(plain_rig(3)).float(), Cube(torch.zeros(1, 3), 2.0, 5))
    P = matrices(plain_rig(3)).float()
    P[..., :2, :] /= 20  # 640 pixels to 32, 8 cells
    images, cube = torch.randn(2, 3, 3, 8, 8), Cube(torch.tensor([[0.0, 0, 1], [0, 0.1, 1]]), 2.0, 8)
    truth = torch.tensor([[[0.3, 0.1, 1.2]], [[-0.2, 0.5, 0.6]]])
    steps = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(12):
        pose = network(images, P.expand(2, -1, -1, -1), cube)
        losses.append(volumetric_loss(pose, truth, cube))
        steps.zero_grad()
        losses[-1].backward()
        assert all(value.grad.isfinite().all() for value in network.parameters())
        steps.step()
    assert losses[-1] < 0.6 * losses[0]
    blind = network(images, P.expand(2, -1, -1, -1), cube, torch.tensor([[True] * 3, [False] * 3]))
    assert blind.mean_m.isfinite().all((1, 2)).tolist() == [True, False]
    with torch.no_grad():
        exact = network.eval()(images, P.expand(2, -1, -1, -1), cube)
        network.bf16 = True
        rounded = network(images, P.expand(2, -1, -1, -1), cube)
    assert rounded.log_probability.dtype == torch.float32 and not torch.equal(rounded.mean_m, exact.mean_m)
    torch.testing.assert_close(rounded.mean_m, exact.mean_m, atol=0.02, rtol=0)

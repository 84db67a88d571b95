"""Every body of a kernel gives what its definition gives, on odd inputs."""

import numpy as np
import pytest

from calib.camera import Camera
from cuda_kernels.active import BLOCK, blocks_a_side, peaks, split_by_likelihood
from cuda_kernels.limb_message import cheapest_route, limb_message
from cuda_kernels.moments import moments
from cuda_kernels.shell import gaussian_shell, interval_shell
from cuda_kernels.unproject import unproject


def camera_towards_origin(angle, dist=(-0.1, 0.05, 1e-3, -5e-4), model="pinhole"):
    centre = np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.0])
    forward = -centre / np.linalg.norm(centre)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    K = np.array([[80.0, 0.0, 32.0], [0.0, 80.0, 30.0], [0.0, 0.0, 1.0]])
    return Camera("c", (64, 64), K, np.array(dist), R, -R @ centre, model=model)


def unprojection_input(views, joints, n, rng, **camera):
    cameras = np.stack([camera_towards_origin(0.7 + view * 1.9, **camera).packed() for view in range(views)])
    score = rng.random((views, 17, 13, joints)).astype(np.float32)
    cells = np.tile(np.array([[0.2, 0.03, 0.1], [-0.02, 0.25, 0.4]]), (views, 1, 1))
    return score, cells, cameras, (np.array([0.05, -0.02, 0.1]), 1.7, n)


@pytest.mark.parametrize(("views", "joints", "n"), [(1, 1, 3), (3, 5, 7), (4, 17, 9), (2, 33, 5)])
def test_unproject_equals_its_definition(views, joints, n):
    args = unprojection_input(views, joints, n, np.random.default_rng(views))
    fast, slow = unproject(*args, 1e-3), unproject(*args, 1e-3, "reference")
    assert fast.shape == (n, n, n, joints)
    np.testing.assert_allclose(fast, slow, rtol=2e-5)


@pytest.mark.parametrize(
    "camera",
    [
        {"dist": (0.1, -0.05, 0.02, -0.01), "model": "fisheye"},
        {"dist": (-0.1, 0.05, 1e-3, -5e-4, 0.01, 0.02, 0.01, 0.0, 1e-3, 0, -1e-3, 0, 0.05, -0.03)},
        {"dist": ()},
    ],
)
def test_unproject_knows_every_lens(camera):
    args = unprojection_input(2, 3, 6, np.random.default_rng(7), **camera)
    np.testing.assert_allclose(unproject(*args, 1e-2), unproject(*args, 1e-2, "reference"), rtol=2e-5)


def test_a_voxel_that_a_camera_cannot_see_gets_the_floor():
    score, cells, cameras, _ = unprojection_input(1, 2, 4, np.random.default_rng(1))
    behind = (np.array([30.0 * np.cos(0.7), 30.0 * np.sin(0.7), 0.0]), 1.0, 4)
    assert (unproject(score, cells, cameras, behind, 0.25) == np.float32(0.25)).all()


def test_many_views_with_a_small_floor_do_not_underflow():
    score, cells, cameras, grid = unprojection_input(31, 2, 4, np.random.default_rng(3))
    likelihood = unproject(0 * score, cells, cameras, grid, 1e-4)
    assert likelihood.dtype == np.float64
    np.testing.assert_allclose(likelihood, 1e-4**31, rtol=1e-3)


def test_unproject_takes_maps_that_are_not_contiguous():
    score, cells, cameras, grid = unprojection_input(2, 6, 5, np.random.default_rng(5))
    strided = np.asfortranarray(score)[..., ::2]
    np.testing.assert_array_equal(
        unproject(strided, cells, cameras, grid, 0.0), unproject(strided.copy(), cells, cameras, grid, 0.0)
    )


def test_unproject_refuses_what_does_not_fit():
    score, cells, cameras, grid = unprojection_input(2, 3, 4, np.random.default_rng(5))
    with pytest.raises(ValueError, match="2 views"):
        unproject(score, cells[:1], cameras, grid, 0.0)
    with pytest.raises(ValueError, match="non-negative"):
        unproject(score - 1, cells, cameras, grid, 0.0)
    with pytest.raises(ValueError, match="unknown backend"):
        unproject(score, cells, cameras, grid, 0.0, "fortran")


def some_voxels(n, count, rng):
    chosen = rng.permutation(n**3)[:count]
    return np.stack(np.unravel_index(chosen, (n, n, n)), -1).astype(np.int16)


SHELLS = [
    interval_shell(4.2, 1.0),
    interval_shell(0.5, 1.0),
    interval_shell(1.0, 0.01),
    interval_shell(30.0, 1.0),
    gaussian_shell(3.0, 0.8),
    gaussian_shell(0.0, 1.0),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("route", ["pairs", "columns", "fft", "auto"])
@pytest.mark.parametrize("n", [5, 11])
def test_every_route_gives_the_definition(shell, route, n):
    if route == "columns" and not shell.interval:
        pytest.skip("running sums serve intervals only")
    rng = np.random.default_rng(n)
    source, target = some_voxels(n, n**3 // 2, rng), some_voxels(n, n**3 - 3, rng)
    belief = rng.random(len(source))
    expected = limb_message(belief, source, target, shell, n, "reference")
    got = limb_message(belief, source, target, shell, n, route=route)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-12 * max(expected.max(), 1.0))


@pytest.mark.parametrize("route", ["pairs", "columns", "fft"])
def test_a_belief_of_zero_says_nothing_and_a_spike_says_its_shell(route):
    n, shell = 9, interval_shell(3.0, 0.5)
    every = some_voxels(n, n**3, np.random.default_rng(0))
    assert not limb_message(np.zeros(n**3), every, every, shell, n, route=route).any()
    spike = np.array([[4, 4, 4]], np.int16)
    message = limb_message(np.array([2.0]), spike, every, shell, n, route=route)
    distance = np.linalg.norm(every - 4.0, axis=1)
    np.testing.assert_allclose(message, np.where(abs(distance - 3.0) <= 0.5, 2.0, 0.0), atol=1e-12)


def test_pairs_keep_the_relative_accuracy_of_tiny_messages():
    n, shell = 16, interval_shell(2.0, 0.5)
    source, target = np.array([[1, 1, 1], [12, 12, 12]], np.int16), np.array([[3, 1, 1], [14, 12, 12]], np.int16)
    message = limb_message(np.array([1.0, 1e-20]), source, target, shell, n, route="pairs")
    np.testing.assert_allclose(message, [1.0, 1e-20], rtol=1e-6)


def test_the_planner_takes_pairs_for_few_voxels_and_not_for_all():
    shell = interval_shell(12.0, 1.0)
    assert cheapest_route(300, 300, shell, 64) == "pairs"
    assert cheapest_route(64**3, 64**3, shell, 64) != "pairs"


def test_a_shell_without_any_voxel_distance_is_refused():
    with pytest.raises(ValueError, match="widen the tolerance"):
        interval_shell(1.2, 0.01)


def test_limb_message_refuses_what_does_not_fit():
    voxels, shell = some_voxels(4, 5, np.random.default_rng(0)), gaussian_shell(1.0, 0.5)
    with pytest.raises(ValueError, match="do not fit"):
        limb_message(np.ones(4), voxels, voxels, shell, 4)
    with pytest.raises(ValueError, match="route 'columns'"):
        limb_message(np.ones(5), voxels, voxels, shell, 4, route="columns")


@pytest.mark.parametrize("n", [BLOCK, 13, 20])
def test_pruning_equals_its_definition(n):
    rng = np.random.default_rng(n)
    likelihood = (rng.random((n, n, n, 5)) ** 12).astype(np.float32)
    likelihood[..., 3] = 0
    cut = rng.choice([0.0, 1e-3, 0.3], (5,) + (blocks_a_side(n),) * 3)
    fast = split_by_likelihood(likelihood, peaks(likelihood), cut)
    slow = split_by_likelihood(likelihood, peaks(likelihood), cut, "reference")
    np.testing.assert_allclose(fast.dropped, slow.dropped, rtol=1e-6, atol=1e-12)
    for joint in range(5):
        np.testing.assert_array_equal(fast.voxels[joint], slow.voxels[joint])
        np.testing.assert_allclose(fast.value[joint], slow.value[joint], rtol=1e-6)
    assert len(fast.voxels[3]) == 0 and fast.peak[3] == 0


def test_moments_equal_their_definition_far_from_the_origin():
    rng = np.random.default_rng(2)
    voxels = (120 + some_voxels(4, 40, rng)).astype(np.int16)
    weight, grid = rng.random(40), (np.array([100.0, -50.0, 3.0]), 2.0, 128)
    for fast, slow in zip(moments(weight, voxels, grid), moments(weight, voxels, grid, "reference"), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-10)


def test_one_voxel_has_its_centre_as_mean_and_its_own_spread_as_covariance():
    mean, cov = moments(np.array([3.0]), np.array([[0, 2, 3]], np.int16), (np.zeros(3), 4.0, 4))
    np.testing.assert_allclose(mean, [-1.5, 0.5, 1.5])
    np.testing.assert_allclose(cov, np.eye(3) / 12)


def test_a_marginal_without_weight_has_no_moments():
    with pytest.raises(ValueError, match="no moments"):
        moments(np.zeros(2), np.zeros((2, 3), np.int16), (np.zeros(3), 1.0, 4))

"""Every body of a kernel gives what its definition gives, on odd inputs."""

import numpy as np
import pytest

from calib.camera import Camera
from cuda_kernels.active import BLOCK, all_voxels, blocks_a_side, split_by_likelihood
from cuda_kernels.block_bound import weight_bound
from cuda_kernels.limb_message import cheapest_route, limb_message
from cuda_kernels.moments import moments
from cuda_kernels.shell import gaussian_shell, interval_shell
from cuda_kernels.sum_product import sum_product
from cuda_kernels.tree import Tree
from cuda_kernels.unproject import unproject, unproject_active
from cuda_kernels.view_features import view_features


def camera_towards_origin(angle, dist=(-0.1, 0.05, 1e-3, -5e-4), model="pinhole"):
    centre = np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.0])
    forward = -centre / np.linalg.norm(centre)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    K = np.array([[80.0, 0.0, 32.0], [0.0, 80.0, 30.0], [0.0, 0.0, 1.0]])
    return Camera("c", (64, 64), K, np.array(dist), R, -R @ centre, model=model)


def unprojection_input(views, joints, n, rng, **camera):
    cameras = np.stack([camera_towards_origin(0.7 + view * 1.9, **camera).packed for view in range(views)])
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
    return rng.permutation(n**3)[:count].astype(np.int32)


def flat(n, *voxels):
    return np.array([(x * n + y) * n + z for x, y, z in voxels], np.int32)


SHELLS = [
    interval_shell(4.2, 1.0),
    interval_shell(0.5, 1.0),
    interval_shell(1.0, 0.01),
    interval_shell(30.0, 1.0),
    gaussian_shell(3.0, 0.8),
    gaussian_shell(0.0, 1.0),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("route", ["pairs", "transform", "auto"])
@pytest.mark.parametrize("n", [5, 11])
def test_every_route_gives_the_definition(shell, route, n):
    rng = np.random.default_rng(n)
    source, target = some_voxels(n, n**3 // 2, rng), some_voxels(n, n**3 - 3, rng)
    belief = rng.random(len(source))
    expected = limb_message(belief, source, target, shell, n, "reference")
    got = limb_message(belief, source, target, shell, n, route=route)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-12 * max(expected.max(), 1.0))


@pytest.mark.parametrize("route", ["pairs", "transform"])
def test_a_belief_of_zero_says_nothing_and_a_spike_says_its_shell(route):
    n, shell = 9, interval_shell(3.0, 0.5)
    every = some_voxels(n, n**3, np.random.default_rng(0))
    assert not limb_message(np.zeros(n**3), every, every, shell, n, route=route).any()
    spike = flat(n, (4, 4, 4))
    message = limb_message(np.array([2.0]), spike, every, shell, n, route=route)
    distance = np.linalg.norm(np.stack(np.unravel_index(every, (n, n, n)), -1) - 4.0, axis=1)
    np.testing.assert_allclose(message, np.where(abs(distance - 3.0) <= 0.5, 2.0, 0.0), atol=1e-12)


def test_pairs_keep_the_relative_accuracy_of_tiny_messages():
    n, shell = 16, interval_shell(2.0, 0.5)
    source, target = flat(n, (1, 1, 1), (12, 12, 12)), flat(n, (3, 1, 1), (14, 12, 12))
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
    with pytest.raises(ValueError, match="route 'fast'"):
        limb_message(np.ones(5), voxels, voxels, shell, 4, route="fast")


@pytest.mark.parametrize("n", [BLOCK, 13, 20])
def test_pruning_equals_its_definition(n):
    rng = np.random.default_rng(n)
    likelihood = (rng.random((n, n, n, 5)) ** 12).astype(np.float32)
    likelihood[..., 3] = 0
    cut = rng.choice([0.0, 1e-3, 0.3, 2.0], (5,) + (blocks_a_side(n),) * 3)
    fast, slow = split_by_likelihood(likelihood, cut), split_by_likelihood(likelihood, cut, "reference")
    np.testing.assert_allclose(fast.dropped, slow.dropped, rtol=1e-6, atol=1e-12)
    for name in ("starts", "place", "peak"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))
    np.testing.assert_allclose(fast.value, slow.value, rtol=1e-6)
    assert fast.counts[3] == 0 and fast.peak[3] == 0


def test_all_voxels_are_those_that_no_cut_leaves_out():
    likelihood = np.random.default_rng(0).random((9, 9, 9, 3)).astype(np.float32)
    every, kept = all_voxels(likelihood), split_by_likelihood(likelihood, np.zeros((3, 2, 2, 2)))
    for name in ("starts", "place", "peak", "dropped"):
        np.testing.assert_array_equal(getattr(every, name), getattr(kept, name))
    np.testing.assert_allclose(every.value, kept.value, rtol=1e-6)


def bumps(views, joints, n, rng, **camera):
    """Maps with one bump a joint, so that bounds on blocks have something to rule out."""
    score, cells, cameras, grid = unprojection_input(views, joints, n, rng, **camera)
    y, x = np.mgrid[: score.shape[1], : score.shape[2]]
    for view in range(views):
        for joint in range(joints):
            cy, cx = rng.uniform(4, 12), rng.uniform(3, 9)
            score[view, :, :, joint] = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2.0) * (joint != 1)
    return score, cells, cameras, grid


LENSES = [
    {"dist": ()},
    {"dist": (-0.1, 0.05, 1e-3, -5e-4)},
    {"dist": (0.1, -0.05, 0.02, -0.01), "model": "fisheye"},
]


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize(("views", "n", "floor", "cut"), [(3, 16, 1e-3, 1e-4), (2, 13, 1e-2, 0.1), (2, 24, 0.0, 1e-6)])
def test_unprojecting_only_what_matters_keeps_what_pruning_the_whole_grid_keeps(lens, views, n, floor, cut):
    rng = np.random.default_rng(n)
    args = bumps(views, 5, n, rng, **lens)
    cuts = cut * rng.choice([1.0, 10.0], (5,) + (blocks_a_side(n),) * 3)
    fast, slow = unproject_active(*args, floor, cuts), unproject_active(*args, floor, cuts, "reference")
    whole = split_by_likelihood(unproject(*args, floor), cuts)
    np.testing.assert_allclose(fast.peak, slow.peak, rtol=2e-5)
    np.testing.assert_array_equal(fast.peak, whole.peak)
    np.testing.assert_array_equal(fast.starts, whole.starts)
    for joint in range(5):
        order = np.argsort(fast.place[fast.rows(joint)])
        np.testing.assert_array_equal(fast.place[fast.rows(joint)][order], whole.place[whole.rows(joint)])
        np.testing.assert_allclose(fast.value[fast.rows(joint)][order], whole.value[whole.rows(joint)], rtol=1e-6)
    assert (fast.dropped >= whole.dropped * (1 - 1e-5)).all()
    assert (fast.dropped <= whole.dropped * (1 + 1e-5) + cuts * BLOCK**3 * 1.0001).all()


def test_a_camera_among_the_voxels_rules_out_nothing_wrongly():
    score, cells, cameras, (_, side, n) = bumps(2, 3, 16, np.random.default_rng(6))
    centre = np.array([3 * np.cos(0.7), 3 * np.sin(0.7), 1.0])
    cuts = np.full((3, 2, 2, 2), 1e-3)
    fast = unproject_active(score, cells, cameras, (centre, side, n), 1e-2, cuts)
    whole = split_by_likelihood(unproject(score, cells, cameras, (centre, side, n), 1e-2), cuts)
    np.testing.assert_array_equal(fast.starts, whole.starts)
    assert (fast.dropped >= whole.dropped * (1 - 1e-5)).all()


def problem(rng, n=12, kind=interval_shell):
    """A tree of five joints that branches, and likelihoods with bumps on a floor."""
    parents = np.array([-1, 0, 1, 1, 3])
    tree = Tree(parents, [0, 1, 3, 2, 4], [None] + [kind(length, 0.8) for length in (3.0, 4.0, 2.5, 5.0)])
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1)
    places = rng.uniform(n / 2 - 2, n / 2 + 2, (5, 3))
    likelihood = np.stack([np.exp(-((grid - place) ** 2).sum(-1) / 4.0) + 1e-4 for place in places], -1)
    return tree, likelihood.astype(np.float32)


@pytest.mark.parametrize("kind", [interval_shell, gaussian_shell])
@pytest.mark.parametrize("cut", [0.0, 1e-3, 0.03])
def test_the_whole_tree_at_once_gives_the_definition(kind, cut):
    tree, likelihood = problem(np.random.default_rng(1), kind=kind)
    active = split_by_likelihood(likelihood, np.full((5, 2, 2, 2), cut))
    fast, slow = sum_product(tree, active, 12), sum_product(tree, active, 12, "reference")
    np.testing.assert_allclose(fast.marginal, slow.marginal, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose([fast.up_scale, fast.down_scale], [slow.up_scale, slow.down_scale], atol=1e-5)
    assert fast.log_evidence == pytest.approx(slow.log_evidence, abs=1e-6)
    for joint in range(5):
        np.testing.assert_allclose(fast.up[joint], slow.up[joint], rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(fast.down[joint], slow.down[joint], rtol=1e-5, atol=1e-12)


def test_a_tree_that_does_not_fit_the_voxels_is_refused():
    tree, likelihood = problem(np.random.default_rng(1))
    active = split_by_likelihood(likelihood[..., :4], np.zeros((4, 2, 2, 2)))
    with pytest.raises(ValueError, match="5 joints and voxels of 4"):
        sum_product(tree, active, 12)
    with pytest.raises(ValueError, match="no neighbours"):
        tree.shell(2, 4)


@pytest.mark.parametrize("kind", [interval_shell, gaussian_shell])
@pytest.mark.parametrize("n", [12, 20])
def test_bounds_on_blocks_equal_their_definition(kind, n):
    tree, likelihood = problem(np.random.default_rng(n), n, kind)
    active = split_by_likelihood(likelihood, np.full((5,) + (blocks_a_side(n),) * 3, 0.01))
    marginals = sum_product(tree, active, n)
    fast, slow = (weight_bound(tree, active, marginals, n, backend) for backend in ("numba", "reference"))
    np.testing.assert_allclose(fast, slow, rtol=1e-9)


def test_moments_equal_their_definition_far_from_the_origin():
    rng = np.random.default_rng(2)
    place = flat(128, *rng.integers(120, 124, (40, 3)))
    weight, grid = rng.random(40), (np.array([100.0, -50.0, 3.0]), 2.0, 128)
    args = weight, place, np.array([0, 15, 40]), grid
    for fast, slow in zip(moments(*args), moments(*args, "reference"), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-10)


def test_moments_of_a_whole_grid_equal_their_definition():
    n, rng = 7, np.random.default_rng(4)
    weight, place = rng.random(2 * n**3), np.tile(np.arange(n**3, dtype=np.int32), 2)
    place[n**3 :] = rng.permutation(place[n**3 :])
    args = weight, place, np.array([0, n**3, 2 * n**3]), (np.array([1.0, 2.0, -3.0]), 2.0, n)
    for fast, slow in zip(moments(*args), moments(*args, "reference"), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-10, atol=1e-12)


def test_one_voxel_has_its_centre_as_mean_and_its_own_spread_as_covariance():
    mean, cov = moments(np.array([3.0]), flat(4, (0, 2, 3)), np.array([0, 1]), (np.zeros(3), 4.0, 4))
    np.testing.assert_allclose(mean, [[-1.5, 0.5, 1.5]])
    np.testing.assert_allclose(cov, [np.eye(3) / 12])


def test_a_marginal_without_weight_has_no_moments():
    with pytest.raises(ValueError, match="no moments"):
        moments(np.zeros(2), np.zeros(2, np.int32), np.array([0, 2]), (np.zeros(3), 1.0, 4))


def test_an_inference_without_room_for_its_voxels_says_so():
    args = bumps(3, 4, 16, np.random.default_rng(2))
    cuts = np.full((4, 2, 2, 2), 1e-3)
    kept = unproject_active(*args, 1e-3, cuts)
    assert unproject_active(*args, 1e-3, cuts, most=int(kept.starts[-1]) // 2) is None
    assert unproject_active(*args, 1e-3, cuts, most=4 * 16**3) is not None


def test_nothing_cut_and_a_positive_floor_give_all_voxels_in_order():
    args = bumps(2, 3, 9, np.random.default_rng(3))
    every = unproject_active(*args, 1e-2, np.zeros((3, 2, 2, 2)))
    np.testing.assert_array_equal(every.place.reshape(3, -1), np.tile(np.arange(9**3), (3, 1)))
    np.testing.assert_allclose(every.value.reshape(3, 9, 9, 9) * every.peak[:, None, None, None],
                               np.moveaxis(unproject(*args, 1e-2), -1, 0), rtol=1e-6)  # fmt: skip


def test_many_views_with_a_small_floor_are_pruned_in_double_precision():
    args = bumps(31, 2, 12, np.random.default_rng(3))
    cuts = np.full((2, 2, 2, 2), 1e-6)
    fast, slow = unproject_active(*args, 1e-4, cuts), unproject_active(*args, 1e-4, cuts, "reference")
    np.testing.assert_allclose(fast.peak, slow.peak, rtol=1e-4)
    np.testing.assert_array_equal(fast.counts, slow.counts)


@pytest.mark.parametrize("how", ["sum", "softmax"])
@pytest.mark.parametrize(("views", "channels"), [(1, 1), (2, 5), (4, 32), (8, 21)])
def test_features_of_views_come_together_as_defined(how, views, channels):
    rng = np.random.default_rng(views)
    maps = rng.normal(0, 3, (views, 11, 9, channels)).astype(np.float32)
    cells = rng.uniform(-2, 12, (views, 400, 2)).astype(np.float32)
    corners = [(np.nan, 1), (np.inf, -np.inf), (-1, 0), (9, 10), (-0.5, 10.5), (8, 10), (0, 0), (8.5, 3), (-1e30, 1e30)]
    cells[0, : len(corners)] = corners
    found, expected = view_features(maps, cells, how), view_features(maps, cells, how, "reference")
    assert found.dtype == np.float32 and found.shape == (400, channels)
    np.testing.assert_allclose(found, expected, atol=4e-6)
    turned = np.asfortranarray(maps), np.repeat(cells, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(view_features(*turned, how), found)


def test_a_softmax_of_features_that_are_far_apart_takes_the_largest():
    maps = np.array([[[[300.0, -4e4]]], [[[1.0, 5e4]]]], np.float32)
    at = np.zeros((2, 1, 2), np.float32)
    assert view_features(maps, at, "softmax").tolist() == [[300.0, 5e4]]
    assert view_features(maps[:1], at[:1] + 9, "softmax").tolist() == [[0, 0]]


def test_features_of_views_that_do_not_fit_are_refused():
    maps, cells = np.zeros((2, 3, 3, 1), np.float32), np.zeros((2, 5, 2), np.float32)
    for wrong in ((maps[:1], cells, "sum"), (maps[:0], cells[:0], "sum"), (maps[0], cells, "sum")):
        with pytest.raises(ValueError, match="of the same views"):
            view_features(*wrong)
    for how, backend in (("mean", "numba"), ("sum", "cuda")):
        with pytest.raises(ValueError, match="need one of"):
            view_features(maps, cells, how, backend)

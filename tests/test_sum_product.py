"""Messages and marginals are those of the definition: brute force on tiny trees, no pruning on larger ones."""

import itertools

import numpy as np
import pytest

from cuda_kernels.active import blocks_a_side, split_by_likelihood
from cuda_kernels.block_bound import weight_bound
from cuda_kernels.shell import gaussian_shell, interval_shell
from cuda_kernels.sum_product import sum_product
from cuda_kernels.tree import Tree
from harvest.reconstruct.latent import with_latent
from harvest.reconstruct.pictorial import Inference, PictorialSettings, infer_marginals

CHAIN = (np.array([-1, 0, 1]), [0, 1, 2])
STAR = (np.array([1, -1, 1, 1]), [1, 0, 2, 3])
FORK = (np.array([-1, 0, 1, 1]), [0, 1, 2, 3])


def brute_force(tree, likelihood):
    """Marginals (J, n^3) and the log of the sum over all poses, by visiting every pose."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    voxels = np.array(list(np.ndindex(n, n, n)))
    squared = ((voxels[:, None] - voxels[None]) ** 2).sum(-1)
    total = np.ones((n**3,) * joints)
    for joint in range(joints):
        shape = [1] * joints
        shape[joint] = n**3
        total = total * likelihood[..., joint].astype(np.float64).reshape(shape)
        parent = int(tree.parents[joint])
        if parent >= 0:
            shell = tree.shell(joint, parent)
            inside = (squared >= shell.lowest) & (squared <= shell.highest)
            weight = np.where(inside, shell.weights[np.clip(squared - shell.lowest, 0, shell.weights.size - 1)], 0)
            shape[parent] = n**3
            total = total * (weight if joint < parent else weight.T).reshape(shape)
    marginals = []
    for joint in range(joints):
        marginals.append(total.sum(axis=tuple(axis for axis in range(joints) if axis != joint)))
    return np.array(marginals) / total.sum(), np.log(total.sum())


def dense(run, n):
    joints = len(run.active.counts)
    out = np.zeros((joints, n**3))
    for joint in range(joints):
        rows = run.active.rows(joint)
        out[joint, run.active.place[rows]] = run.marginals.marginal[rows]
    return out


def infer(tree, likelihood, **settings):
    """What inference finds from a dense likelihood."""
    voxels = PictorialSettings(voxels=len(likelihood), **settings)
    return infer_marginals(tree, lambda cut, most: split_by_likelihood(likelihood, cut), voxels)


@pytest.mark.parametrize(("parents", "order"), [CHAIN, STAR, FORK])
@pytest.mark.parametrize("kind", ["interval", "gaussian"])
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_marginals_and_evidence_equal_brute_force(parents, order, kind, backend):
    n, rng = 3, np.random.default_rng(len(order))
    make = interval_shell if kind == "interval" else gaussian_shell
    shells = [None if parent < 0 else make(1.0 + 0.4 * joint, 0.5) for joint, parent in enumerate(parents)]
    tree = Tree(parents, order, shells)
    likelihood = (rng.random((n, n, n, len(parents))) ** 3).astype(np.float32)
    likelihood[0, 0] = 0
    expected, evidence = brute_force(tree, likelihood)
    run = infer(tree, likelihood, tolerance=0.0, backend=backend)
    np.testing.assert_allclose(dense(run, n), expected, atol=2e-6)
    assert run.bound == 0
    assert run.marginals.log_evidence + np.log(run.active.peak).sum() == pytest.approx(evidence, abs=1e-5)


def test_every_joint_tells_the_same_evidence():
    n, rng = 4, np.random.default_rng(9)
    tree = Tree(FORK[0], FORK[1], [None, interval_shell(1.5, 0.6), interval_shell(1, 0.6), interval_shell(2, 0.6)])
    run = infer(tree, rng.random((n, n, n, 4)).astype(np.float32), tolerance=0.0)
    evidence = []
    for joint in range(4):
        told = run.marginals.towards(tree, joint)
        value = run.active.value[run.active.rows(joint)] * np.prod([message for message, _ in told], axis=0)
        evidence.append(sum(scale for _, scale in told) + np.log(value.sum()))
    np.testing.assert_allclose(evidence, run.marginals.log_evidence, rtol=1e-6)


def test_limbs_that_cannot_be_satisfied_find_no_pose():
    likelihood = np.zeros((6, 6, 6, 2), np.float32)
    likelihood[0, 0, 0] = 1
    tree = Tree(np.array([-1, 0]), [0, 1], [None, interval_shell(3.0, 0.5)])
    assert infer(tree, likelihood, tolerance=0.0) is None
    assert infer(tree, likelihood * 0) is None


def noisy_problem(n, floor, rng, spread=2.0, outlier=False):
    """A chain of five joints with bumps near true places, a floor everywhere, and perhaps a joint misplaced."""
    parents, lengths = np.array([-1, 0, 1, 2, 2]), [0, 5.0, 4.0, 6.0, 5.0]
    place = [np.full(3, n / 2)]
    for joint in range(1, 5):
        direction = rng.normal(size=3)
        place.append(place[parents[joint]] + lengths[joint] * direction / np.linalg.norm(direction))
    if outlier:
        place[3] = rng.uniform(2, n - 2, 3)
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1)
    bumps = [np.exp(-0.5 * ((grid - p) ** 2).sum(-1) / spread**2) + floor for p in place]
    shells = [None] + [interval_shell(length, 1.0) for length in lengths[1:]]
    return Tree(parents, [0, 1, 2, 3, 4], shells), np.stack(bumps, -1).astype(np.float32)


@pytest.mark.parametrize(("floor", "outlier"), list(itertools.product([0.0, 1e-9, 1e-6, 1e-4], [False, True])))
def test_pruned_marginals_are_within_the_certified_bound(floor, outlier):
    n, rng = 32, np.random.default_rng(int(floor > 0) + 2 * outlier)
    tree, likelihood = noisy_problem(n, floor, rng, spread=1.0, outlier=outlier)
    exact, pruned = infer(tree, likelihood, tolerance=0.0), infer(tree, likelihood, tolerance=1e-3)
    distance = 0.5 * abs(dense(exact, n) - dense(pruned, n)).sum(axis=1)
    assert distance.max() <= pruned.bound + 1e-5
    assert pruned.bound <= 1e-3
    assert pruned.bound > 0 or floor >= 1e-6 or outlier  # where leaving voxels out does not pay


def test_the_certificate_holds_for_any_cut_however_coarse():
    n, rng = 24, np.random.default_rng(4)
    for floor in (0.0, 1e-7, 1e-3):
        tree, likelihood = noisy_problem(n, floor, rng)
        exact = infer(tree, likelihood, tolerance=0.0)
        for cut in (1e-1, 1e-2, 1e-5):
            cuts = np.full((5,) + (blocks_a_side(n),) * 3, cut)
            active = split_by_likelihood(likelihood, cuts)
            marginals = sum_product(tree, active, n)
            bound = (weight_bound(tree, active, marginals, n) * active.dropped).sum()
            distance = 0.5 * abs(dense(exact, n) - dense(Inference(active, marginals, bound), n)).sum(axis=1).max()
            assert distance <= bound + 1e-5


def test_the_published_demo_counts_evidence_twice_and_so_differs():
    n, rng = 4, np.random.default_rng(3)
    tree = Tree(CHAIN[0], CHAIN[1], [None, interval_shell(1.5, 0.6), interval_shell(1.0, 0.6)])
    likelihood = (rng.random((n, n, n, 3)) ** 3).astype(np.float32)
    exact, demo = infer(tree, likelihood, tolerance=0.0), infer(tree, likelihood, tolerance=0.0, published_demo=True)
    told, wrong = dense(exact, n), dense(demo, n)
    np.testing.assert_allclose(wrong[0], told[0], atol=1e-6)  # the root hears upward messages only
    twice = demo.marginals.down[1] * exact.active.value[exact.active.rows(1)] * exact.marginals.up[2]
    np.testing.assert_allclose(wrong[1], twice / twice.sum(), atol=1e-6)
    assert abs(wrong[1] - told[1]).max() > 1e-3


def test_latent_joints_get_the_marginals_of_a_likelihood_that_is_one_everywhere():
    n, rng = 24, np.random.default_rng(7)
    tree, likelihood = noisy_problem(n, 1e-6, rng)
    latent = [0, 2]
    likelihood[..., latent] = 1.0
    exact = infer(tree, likelihood, tolerance=0.0)
    shown = np.ascontiguousarray(likelihood[..., [1, 3, 4]])

    def prune(cut, most):
        return with_latent(split_by_likelihood(shown, cut[[1, 3, 4]]), latent, n, cut)

    for tolerance in (0.0, 1e-4):
        found = infer_marginals(tree, prune, PictorialSettings(voxels=n, tolerance=tolerance))
        distance = 0.5 * abs(dense(exact, n) - dense(found, n)).sum(axis=1).max()
        assert distance <= found.bound + 1e-6 and found.bound <= tolerance

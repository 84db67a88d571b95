"""Learning from which of two joints is nearer (Ronchi et al. 2018): every loss by hand."""

import math

import pytest
import torch
from conftest import draw

from harvest.learn.geometry import lengths, norms, orthographic, perspective, rotations, turned
from harvest.learn.relative import (
    Pairs,
    Proportions,
    RelativeHow,
    RelativeWeights,
    fitted_depth,
    projection_loss,
    relative_loss,
    relative_total,
    root_loss,
    skeleton_loss,
    supervised_loss,
)

pytestmark = pytest.mark.usefixtures("one_thread")

LIMBS = Proportions(torch.tensor([[0, 1], [1, 2], [2, 3]]), torch.tensor([0.7, 1.0, 1.4]), 1, 1.3)


def pairs(row, one, other, r):
    """Labels with weight 1."""
    return Pairs(*(torch.tensor(values) for values in (row, one, other, r)), torch.ones(len(row)))


def test_the_supervised_loss_is_the_norm_of_what_is_known():
    poses, truth = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    truth[0, 0, 0], truth[0, 1, 1], truth[1] = 3.0, 4.0, math.nan
    assert supervised_loss(poses, truth).item() == pytest.approx(5.0 / 2)


def test_a_nearer_joint_that_is_told_so_costs_little_and_is_drawn_nearer():
    poses = torch.tensor([[[0.0, 0, 1.0], [0.0, 0, 3.0]]], requires_grad=True)  # joint 0 is nearer
    right, wrong = (relative_loss(poses, pairs([0], [0], [1], [r])) for r in (-1, 1))
    assert right.item() == pytest.approx(math.log(1 + math.exp(-2.5)))  # d = 2.5 (1 - 3) / 2
    assert wrong.item() == pytest.approx(math.log(1 + math.exp(2.5)))
    loss = relative_loss(poses, pairs([0, 0], [0, 0], [1, 1], [-1, 1]))
    assert loss.item() == pytest.approx((right.item() + wrong.item()) / 2)
    two = torch.tensor([[[0.0, 0, 1.0], [0, 0, 3.0]], [[0.0, 0, 5.0], [0, 0, 4.0]]], requires_grad=True)
    relative_loss(two, pairs([0, 1], [0, 0], [1, 1], [-1, -1])).backward()
    assert two.grad[1, 0, 2] > 0 > two.grad[1, 1, 2]  # told to be nearer, it is farther: it is drawn nearer


def test_joints_told_to_be_as_far_cost_their_difference_over_the_usual_one():
    poses = torch.tensor([[[0.0, 0, 1.0], [0.0, 0, 3.0], [0, 0, 9.0]]])
    loss = relative_loss(poses, pairs([0, 0], [0, 0], [1, 2], [0, 0]), steep=2.5)
    assert loss.item() == pytest.approx(2.5 * (2 + 8) / 2 / 5)


def test_the_order_does_not_depend_on_the_size_of_depths():
    poses, told = draw(0, 5, 6, 3), pairs([0, 1, 3], [0, 2, 4], [1, 5, 0], [1, -1, -1])
    assert relative_loss(7 * poses, told).item() == pytest.approx(relative_loss(poses, told).item())


def test_root_and_projection_losses_are_mean_distances_of_what_is_seen():
    poses = torch.tensor([[[3.0, 4.0, 0.0], [1.0, 0.0, 2.0]]])
    assert root_loss(poses, 0).item() == pytest.approx(5.0)
    seen = torch.tensor([[[math.nan, 0.0], [0.5, 1.0]]])
    assert projection_loss(orthographic(poses, torch.tensor([0.5])), seen).item() == pytest.approx(1.0)
    by_lens = perspective(poses, torch.tensor([2.0]))
    assert by_lens[0].tolist() == [[1.5, 2.0], [0.25, 0.0]]
    aside = perspective(poses, torch.tensor([2.0]), torch.tensor([[[0.5, 0.0]]]))
    assert aside[0].tolist() == [[1.5, 2.0], [0.0, 0.0]]  # (3 + 1, 4) / 2 and (1 + 1, 0) / 4, less (0.5, 0)
    near = perspective(torch.tensor([[[1.0, 0.0, -9.0]]]), torch.tensor([2.0]))
    assert near.isfinite().all() and near[0, 0, 0] == pytest.approx(1 / 0.02)


def test_the_whole_loss_is_the_weighted_sum_of_its_terms():
    poses = torch.tensor([[[0.0, 0, 0], [1.0, 0, 1.0], [1.0, 2.0, 1.0]]])
    told, seen, scale = pairs([0], [0], [1], [-1]), torch.zeros(1, 3, 2), torch.tensor([0.5])
    bones = Proportions(torch.tensor([[1, 0], [2, 1]]), torch.tensor([1.0, 1.0]), 0, 2.0)
    weights = RelativeWeights(alpha=3.0, beta=0.1, gamma=2.0, steep=1.0)
    order, proportions = math.log(1 + math.exp(-1)), math.sqrt(2) - 1  # lengths are 1.41 and 2, and should be alike
    rest = 3 * order + 0.5 * 2 * proportions

    def total(at=None, **how):
        given = RelativeHow(0, weights=weights, bones_share=0.5, **how)
        return relative_total(poses, scale, seen, told, bones, given, at).item()

    assert total() == pytest.approx(rest + 0.1 * 0.5 * (1 + math.sqrt(5)))
    lens = {"perspective": True, "unit": 0.1}
    sized = 3 * order + 0.5 * 2 * (1 - math.sqrt(0.5))  # as long as 2 m both, of which the first lacks 0.59
    fits = total(**lens, metric=True)  # all joints are seen where the root is: from as far as can be told, 0.5 m
    assert fits == pytest.approx(sized + 0.1 * (1 + math.sqrt(5)) / 1.5 / 0.1, rel=1e-5)
    assert total(**lens, depth=3.0) == pytest.approx(rest + 0.1 * (1 + math.sqrt(5)) / 4 / 0.1, rel=1e-5)
    aside = total(torch.tensor([[[1.0, 0.0]]]), **lens, depth=3.0)  # (1 + 3) / 4 - 1 = 0, and 2 / 4
    assert aside == pytest.approx(rest + 0.1 * 0.5 / 0.1, rel=1e-5)


def test_proportions_are_compared_whatever_the_size():
    ends = torch.tensor([[1, 0], [2, 1]])
    reference = Proportions(ends, torch.tensor([1.0, 2.0]), 0, 2.0)
    poses = torch.tensor([[[0.0, 0, 0], [0, 0, 3.0], [6.0, 0, 3.0]], [[0.0, 0, 0], [0, 1.0, 0], [0, 1.0, 1.0]]])
    assert skeleton_loss(poses[:1], reference).item() == 0
    assert skeleton_loss(poses, reference).item() == pytest.approx(0.5)  # the second limb is 1 instead of 2
    # 3 and 6 m instead of 2 and 4, and 1 and 1: in units of 2 m they are off by 0.5, 1, 0.5 and 1.5
    assert skeleton_loss(poses, reference, metric=True).item() == pytest.approx((0.5 + 1 + 0.5 + 1.5) / 2)


def test_the_depth_that_fits_best_is_the_one_it_was_seen_from():
    poses, at = 0.4 * draw(5, 3, 6, 3), 0.2 * draw(6, 3, 1, 2)
    poses[:, 0] = 0
    depth = torch.tensor([2.0, 3.5, 9.0], dtype=poses.dtype)
    seen = perspective(poses, depth, at)
    seen[0, 2] = math.nan
    torch.testing.assert_close(fitted_depth(poses, at, seen), depth)
    assert fitted_depth(poses, at, -seen).tolist() == [0.5] * 3  # nobody stands behind the camera


@pytest.mark.parametrize(
    "loss",
    [
        lambda p: supervised_loss(p, draw(1, *p.shape)),
        lambda p: relative_loss(p, pairs([0, 1, 1, 2], [0, 1, 2, 3], [1, 2, 3, 0], [1, -1, 0, 1])),
        lambda p: root_loss(p, 0),
        lambda p: projection_loss(orthographic(p, p[:, 0, 0].sigmoid()), draw(2, *p.shape)[..., :2]),
        lambda p: projection_loss(perspective(p, 6 + p[:, 0, 0]), draw(2, *p.shape)[..., :2]),
        lambda p: skeleton_loss(p, LIMBS),
        lambda p: skeleton_loss(p, LIMBS, metric=True),
        lambda p: fitted_depth(p, draw(4, 3, 1, 2), 0.3 * p[..., :2] + 0.1 * draw(5, 3, 4, 2)).sum(),
        lambda p: turned(p, 2 * p).square().sum() + turned(p, 1e-5 * p)[..., 0].sum(),
    ],
)
def test_losses_have_the_gradients_that_differences_show(loss):
    assert torch.autograd.gradcheck(loss, draw(0, 3, 4, 3).requires_grad_())


def test_a_limb_without_length_has_no_gradient_but_a_finite_one():
    poses = torch.zeros(1, 2, 3, requires_grad=True)
    lengths(poses, torch.tensor([[0, 1]])).sum().backward()
    assert (poses.grad == 0).all() and norms(torch.zeros(2, 3)).tolist() == [0, 0]


def test_turns_are_turns():
    about = torch.tensor([[0.0, 0, math.pi / 2], [0, 0, 0], [0.3, -0.2, 0.9]], dtype=torch.float64)
    turns = rotations(about)
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    torch.testing.assert_close(
        turned(torch.tensor([1.0, 0, 0], dtype=torch.float64), about[0]), torch.tensor([0.0, 1, 0], dtype=torch.float64)
    )

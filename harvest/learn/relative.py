"""Learning to lift from which of two joints is nearer (Ronchi et al. 2018, "It is all relative")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from harvest.learn.geometry import lengths, norms, orthographic, perspective


@dataclass(frozen=True)
class Pairs:
    """Labels of A pairs of joints: row (A,) of the pose in its batch; one, other (A,) places among the joints; r (A,): -1 if `one` is nearer to the camera, +1 if `other` is, 0 if they are about as far; weight (A,) of each."""

    row: Tensor
    one: Tensor
    other: Tensor
    r: Tensor
    weight: Tensor


@dataclass(frozen=True)
class RelativeWeights:
    """Of eq. 7 (alpha, beta, gamma) and of eq. 2 (steep, lambda there).

    The paper has beta 0.1 and gamma 1, and half a million steps; in a hundredth of them that finds one pose of the
    right proportions for all pictures.
    """

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 0.5
    steep: float = 2.5


@dataclass(frozen=True)
class Proportions:
    """A skeleton's limbs: ends (L, 2) as places among the joints, and each one's length over that of the limb number
    `unit`, (L,).
    """

    ends: Tensor
    ratio: Tensor
    unit: int


def supervised_loss(poses: Tensor, truth: Tensor) -> Tensor:
    """Eq. 1: mean over the batch of the norm of the difference between poses and truth (B, J, 3), NaN where unknown."""
    known = torch.isfinite(truth)
    off = torch.where(known, poses - torch.where(known, truth, 0.0), 0.0)
    return norms(off.flatten(1)).mean()


def relative_loss(poses: Tensor, pairs: Pairs, steep: float = 2.5) -> Tensor:
    """Eq. 2, over a batch of poses (B, J, 3): the mean of the sums over a pose's pairs of log(1 + exp(-r d)), or |d| for
    r = 0.

    d = steep (z_one - z_other) over the mean absolute difference of all pairs of the batch; z grows away from the
    camera.
    """
    z = poses[..., 2]
    apart = z[pairs.row, pairs.one] - z[pairs.row, pairs.other]
    d = steep * apart / apart.abs().mean().clamp_min(1e-8)
    each = torch.where(pairs.r == 0, d.abs(), functional.softplus(-pairs.r * d))
    return (pairs.weight * each).sum() / len(poses)


def root_loss(poses: Tensor, root: int) -> Tensor:
    """Eq. 3: mean over the batch of the root's distance from the origin."""
    return norms(poses[:, root]).mean()


def projection_loss(projected: Tensor, seen: Tensor) -> Tensor:
    """Eq. 4 and 5: mean over the batch of the summed distances between projections and where joints are seen (B, J, 2),
    NaN where they are not.
    """
    known = torch.isfinite(seen).all(-1)
    off = torch.where(known[..., None], projected - torch.where(known[..., None], seen, 0.0), 0.0)
    return norms(off).sum(1).mean()


def skeleton_loss(poses: Tensor, proportions: Proportions) -> Tensor:
    """Eq. 6 on ratios: mean over the batch of the summed |length / length of the unit limb - ratio|."""
    found = lengths(poses, proportions.ends)
    unit = found[:, proportions.unit : proportions.unit + 1].clamp_min(1e-6)
    return (found / unit - proportions.ratio).abs().sum(1).mean()


@dataclass(frozen=True)
class RelativeHow:
    """root: its place among the joints. perspective: the projection is eq. 5's instead of eq. 4's. unit: what
    projections are divided by before they are compared. bones_share: of gamma.
    """

    root: int
    perspective: bool = False
    unit: float = 1.0
    bones_share: float = 1.0
    weights: RelativeWeights = RelativeWeights()


def relative_total(
    poses: Tensor, scale: Tensor, seen: Tensor, pairs: Pairs, proportions: Proportions | None, how: RelativeHow
) -> Tensor:
    """Eq. 7. `proportions` None leaves out eq. 6."""
    w = how.weights
    projected = perspective(poses, scale) if how.perspective else orthographic(poses, scale)
    total = root_loss(poses, how.root) + w.alpha * relative_loss(poses, pairs, w.steep)
    total = total + w.beta * projection_loss(projected / how.unit, seen)
    return total if proportions is None else total + how.bones_share * w.gamma * skeleton_loss(poses, proportions)

"""Differentiable geometry that losses on single views share; batched, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def lengths(poses: Tensor, ends: Tensor) -> Tensor:
    """(..., L) distances between the two ends (L, 2), places among the joints, of each limb of poses (..., J, D).

    The gradient at a limb of no length is 0 instead of undefined.
    """
    squared = (poses[..., ends[:, 0], :] - poses[..., ends[:, 1], :]).square().sum(-1)
    return norm_of(squared)


def norm_of(squared: Tensor) -> Tensor:
    """Square roots, with gradient 0 where they are 0."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def norms(vectors: Tensor) -> Tensor:
    """(...,) lengths of vectors (..., D), with gradient 0 where they are 0."""
    return norm_of(vectors.square().sum(-1))


def orthographic(poses: Tensor, scale: Tensor) -> Tensor:
    """(B, J, 2) poses (B, J, 3) seen from infinitely far, times scale (B,)."""
    return scale[:, None, None] * poses[..., :2]


def perspective(poses: Tensor, distance: Tensor) -> Tensor:
    """(B, J, 2) at depth 1, poses (B, J, 3) whose origin lies straight ahead in a distance (B,).

    What comes nearer than a hundredth of the distance is seen as if it were that near.
    """
    depth = poses[..., 2] + distance[:, None]
    return poses[..., :2] / torch.maximum(depth, 0.01 * distance[:, None])[..., None]


def rotations(vectors: Tensor) -> Tensor:
    """(..., 3, 3) turns about vectors (..., 3) by their lengths in radians (Rodrigues); smooth at 0."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    squared = vectors.square().sum(-1)
    small = squared < 1e-8
    angle = torch.where(small, 1.0, squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / angle.square())
    eye = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return eye + sine[..., None, None] * skew + cosine[..., None, None] * (skew @ skew)


def turned(vectors: Tensor, about: Tensor) -> Tensor:
    """(..., 3) vectors (..., 3), each turned as `rotations` of (..., 3) says."""
    return (rotations(about) @ vectors[..., None])[..., 0]

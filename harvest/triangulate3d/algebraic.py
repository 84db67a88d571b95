"""Algebraic triangulation that learns: heat maps -> pixels and trust of every view -> the point, all differentiable.

**The gradient of the point.** The weighted rows A (2V, 4) of a joint have singular values s1 >= s2 >= s3 >= s4 and
right singular vectors v1 .. v4; the point is v4 (Iskakov et al. 2019, eq. 4). A general backward pass of the singular
value decomposition divides by s_i^2 - s_j^2 of every pair, and gives NaN where any two meet, although v4 alone is asked
for. v4 is also the eigenvector of M = A^T A of its smallest eigenvalue, M v4 = s4^2 v4. The differential of that, seen
from each of the other v_i, is

    dv4 = -sum_(i<4) v_i (v_i . dM v4) / g_i,     g_i = s_i^2 - s4^2,     dM v4 = dA^T A v4 + A^T dA v4

so s1, s2 and s3 may meet at will; only s3 = s4, two answers equally good, is singular. Such a joint is not found (see
`AMBIGUOUS`), hence g_i > AMBIGUOUS s1^2 and |dv4| <= 2 s1 |dA| / g_3 < 2 |dA| / (AMBIGUOUS s1). The decomposition gives
each s_i to about 1e-16 s1, so g_i, and with it every gradient that is given, is right to about eight digits or more.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from harvest.triangulate3d.backbone import Backbone

MULTIPLIER = 100.0  # of heat maps before their softmax (Iskakov et al. 2019, eq. 1)
LEAST_TRUST = 1e-5  # what a view keeps of its share of all trust, so that no view drops out of learning for good
# The least (s3^2 - s4^2) / s1^2 of a point: the square of float32's steps, by which rays differ by chance. Cameras 2
# micrometres apart that look 10 m far have it; and so have usual ones, one of them trusted a millionth of the other.
AMBIGUOUS = 1e-14


class Triangulated(NamedTuple):
    """xyz_m (B, J, 3) in the world, NaN where not found; found (B, J) bool."""

    xyz_m: Tensor
    found: Tensor


class AlgebraicPose(NamedTuple):
    """A `Triangulated`, and from what: crop_px (B, V, J, 2) pixels of the crops, weight (B, V, J), whose sum
    over views is about 1."""

    xyz_m: Tensor
    found: Tensor
    crop_px: Tensor
    weight: Tensor


def soft_argmax_px(score: Tensor, multiplier: float = MULTIPLIER, stride: float = 4.0) -> Tensor:
    """(..., 2) the mean place, in pixels of the crop, under the softmax of heat maps (..., h, w).

    Cell (x, y) sits at ((x, y) + 0.5) stride - 0.5, as in calib/conventions.md.
    Source: Iskakov et al. 2019, eq. 1 and 2.
    """
    h, w = score.shape[-2:]
    exact = score.to(torch.promote_types(score.dtype, torch.float32))
    share = (multiplier * exact).flatten(-2).softmax(-1).unflatten(-1, (h, w))
    x, y = (torch.arange(n, device=score.device, dtype=share.dtype) for n in (w, h))
    # Not matrix products, which autocast would do in 8 bits.
    cell = torch.stack([(share.sum(-2) * x).sum(-1), (share.sum(-1) * y).sum(-1)], dim=-1)
    return (cell + 0.5) * stride - 0.5


def shares(confidence: Tensor, seen: Tensor | None = None, least: float = 0.0) -> Tensor:
    """Confidences (B, V, ...) divided by their sum over views, then `least` more; 0 for views not in `seen`.

    Args:
        seen: (B, V) bool, which views there are; None: all.
    """
    kind = (*confidence.shape[:2], *[1] * (confidence.ndim - 2))
    here = confidence.new_ones(kind, dtype=torch.bool) if seen is None else seen.reshape(kind)
    given = torch.where(here, confidence, 0.0)
    total = given.sum(1, keepdim=True)
    return torch.where(here, given / torch.where(total > 0, total, 1.0) + least, 0.0)


def triangulate_weighted(points: Tensor, projections: Tensor, weight: Tensor) -> Triangulated:
    """The points that minimise the weighted algebraic error, each joint by itself; differentiable in all arguments.

    Not found: fewer than two views with a weight, or views that leave more than one answer (see `AMBIGUOUS`), or an
    answer at infinity. Those are NaN, and give no gradient. A view takes no part where its weight is 0, negative or not
    finite, or its pixel or projection is not finite; it gets no gradient there.

    Args:
        points: (B, V, J, 2) pixels without lens distortion, or undistorted normalised coordinates.
        projections: (B, V, 3, 4) to the same from the world.
        weight: (B, V, J); each view's two rows are multiplied by it. A common factor changes nothing.
    Source: Iskakov et al. 2019, eq. 3 to 5; Hartley and Zisserman, section 12.2. Solved in float64 whatever comes in.
    """
    if points.ndim != 4 or projections.shape != (*points.shape[:2], 3, 4) or weight.shape != points.shape[:3]:
        shapes = ", ".join(str(tuple(given.shape)) for given in (points, projections, weight))
        raise ValueError(f"need points (B, V, J, 2), projections (B, V, 3, 4) and weight (B, V, J), got {shapes}")
    real = projections.isfinite().flatten(-2).all(-1)
    counts = points.isfinite().all(-1) & weight.isfinite() & (weight > 0) & real[..., None]
    # Clean what takes no part before it meets anything: a NaN would come back in the gradient of what it was zeroed by.
    P = torch.where(real[..., None, None], projections, 0.0).double()[:, :, None]
    w = torch.where(counts, weight, 0.0).double()
    xy = torch.where(counts[..., None], points, 0.0).double()
    rows = w[..., None, None] * (xy[..., None] * P[..., 2:, :] - P[..., :2, :])
    A = rows.transpose(1, 2).flatten(2, 3)
    A = functional.pad(A, (0, 0, 0, max(0, 4 - A.shape[2])))
    homogeneous, certain = smallest_direction(A)
    last = homogeneous[..., 3:]
    found = (counts.sum(1) >= 2) & certain & (last[..., 0].abs() > AMBIGUOUS)
    xyz = homogeneous[..., :3] / torch.where(found[..., None], last, 1.0)
    return Triangulated(torch.where(found[..., None], xyz, torch.nan).to(points.dtype), found)


def smallest_direction(A: Tensor) -> tuple[Tensor, Tensor]:
    """The unit vectors (..., 4) that rows A (..., R, 4), R >= 4, make smallest, and whether each is the only one.

    In float64, of arbitrary sign. Vectors that are not the only one get no gradient; the others' is that of the text at
    the top of this file.
    """
    with torch.no_grad():
        # The triangle of A has its singular values and right vectors, and is as small as those for 2 or 31 views.
        _, s, rows = torch.linalg.svd(torch.linalg.qr(A, mode="r")[1])
        last, others = rows[..., 3, :], rows[..., :3, :]
        gaps = s[..., :3] ** 2 - s[..., 3:] ** 2
        certain = gaps[..., 2] > AMBIGUOUS * s[..., 0] ** 2
        inverse = torch.where(certain[..., None], 1 / torch.where(certain[..., None], gaps, 1.0), 0.0)
    pull = torch.einsum("...ri,...r->...i", A, torch.einsum("...ri,...i->...r", A, last))
    step = torch.einsum("...ki,...k->...i", others, inverse * torch.einsum("...ki,...i->...k", others, pull))
    return last - (step - step.detach()), certain


class AlgebraicTriangulator(nn.Module):
    """From crops of all views to joints in 3D by their heat maps and confidences.

    Attributes:
        backbone: a `Backbone`; without a head of algebraic confidences all views count alike.
        multiplier: of heat maps before their softmax.
    """

    def __init__(self, backbone: Backbone, multiplier: float = MULTIPLIER) -> None:
        """Around a backbone."""
        super().__init__()
        self.backbone, self.multiplier = backbone, multiplier

    def observe(self, images: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Places (B, V, J, 2) in pixels of the crops, and weights (B, V, J), of crops (B, V, 3, H, W).

        Args:
            seen: (B, V) bool, which views there are; None: all. The others' pixels may be anything finite.
        """
        said = self.backbone(images.flatten(0, 1))
        score = said.score.unflatten(0, images.shape[:2])
        given = score.new_ones(said.score.shape[:2]) if said.algebraic is None else said.algebraic
        weight = shares(given.unflatten(0, images.shape[:2]), seen, LEAST_TRUST)
        return soft_argmax_px(score, self.multiplier, self.backbone.stride), weight

    def forward(self, images: Tensor, projections: Tensor, seen: Tensor | None = None) -> AlgebraicPose:
        """The joints of crops (B, V, 3, H, W) without lens distortion.

        Args:
            projections: (B, V, 3, 4) from the world to pixels of the crops. For crops with distortion take `observe`,
                undistort its places, and give them to `triangulate_weighted`.
            seen: (B, V) bool, which views there are; None: all.
        """
        crop_px, weight = self.observe(images, seen)
        return AlgebraicPose(*triangulate_weighted(crop_px, projections, weight), crop_px, weight)

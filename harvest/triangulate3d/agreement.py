"""The point on which most views agree, each view as far as it is trusted: where weighted triangulation begins.

One view that is wrong and sure of it pulls the weighted mean of all rays away from everybody, and then agrees with it
as well as the others do. Hence points are proposed by pairs of views, and the views vote.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from harvest.triangulate3d.volumetric import NEAREST_M

PROPOSING = 6  # views, those trusted most, whose pairs propose points


@torch.no_grad()
def agreed_point(points: Tensor, projections: Tensor, trust: Tensor, scale: Tensor) -> Tensor:
    """(B, J, 3) of the points that pairs of views propose, the one with the most votes; NaN where no pair proposes any.

    A view's vote is its trust over 1 + r^2, as of a Cauchy distribution, for a point whose image is r scales away.

    Args:
        points: (B, V, J, 2) undistorted normalised coordinates. projections: (B, V, 3, 4) to these from the world.
        trust: (B, V, J), 0 of views that take no part. scale: (B, V) of the votes, in the points' unit.
    """
    last = torch.where(trust > 0, trust, -1.0).topk(min(PROPOSING, trust.shape[1]), dim=1).indices
    rows = torch.arange(len(points), device=points.device)[:, None, None], torch.arange(points.shape[2])[None, None]
    xy = torch.where(points.isfinite(), points, 0.0)[rows[0], last, rows[1].to(points.device)].double()
    P = projections.double()[rows[0], last]
    lines = xy[..., None] * P[..., 2:, :] - P[..., :2, :]
    first, second = (list(part) for part in zip(*combinations(range(last.shape[1]), 2), strict=True))
    A = torch.cat([lines[:, first], lines[:, second]], dim=-2)
    direction = torch.linalg.eigh(A.mT @ A)[1][..., 0]
    proposed = direction[..., :3] / direction[..., 3:]
    taking_part = trust.gather(1, last) > 0
    votes = torch.stack([_votes(candidate, points, projections, trust, scale) for candidate in proposed.unbind(1)], 1)
    votes = torch.where(taking_part[:, first] & taking_part[:, second], votes, -1.0)
    best = votes.argmax(1, keepdim=True)
    chosen = proposed.gather(1, best[..., None].expand(-1, -1, -1, 3))[:, 0]
    return torch.where(votes.gather(1, best)[:, 0, :, None] > 0, chosen, torch.nan).to(points.dtype)


def votes_of_views(xyz: Tensor, points: Tensor, projections: Tensor, scale: Tensor) -> Tensor:
    """(B, V, J) in 0..1, how well points (B, J, 3) agree with what views show: 1 over 1 + r^2; 0 behind a view.

    Arguments are those of `agreed_point`; differentiable in points and scale.
    """
    P = projections[:, :, None]
    at = (P[..., :3] * xyz[:, None, :, None, :]).sum(-1) + P[..., 3]
    front = at[..., 2] > NEAREST_M
    image = at[..., :2] / torch.where(front, at[..., 2], 1.0)[..., None]
    away = (image - points).square().sum(-1) / scale[..., None].square()
    known = front & away.isfinite()
    return torch.where(known, 1 / (1 + torch.where(known, away, 0.0)), 0.0)


def _votes(xyz: Tensor, points: Tensor, projections: Tensor, trust: Tensor, scale: Tensor) -> Tensor:
    real = torch.where(xyz.isfinite(), xyz, 0.0).to(points.dtype)
    return (trust * votes_of_views(real, points, projections, scale)).sum(1)

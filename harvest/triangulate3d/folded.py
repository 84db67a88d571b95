"""Networks made ready to be asked: what only learning needs is multiplied into their weights, volumes tiled."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harvest.triangulate3d.backbone import Residual
from harvest.triangulate3d.tiled import TiledConvolution, TiledResidual, fits
from harvest.triangulate3d.volume_network import VolumeNetwork

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """A copy in eval mode that gives the same numbers, but for rounding, with fewer passes over them.

    A batch norm that follows a convolution in a sequence becomes part of its weights. Volumes lie in memory with the
    channels of a voxel side by side, as convolutions on a processor like them best, and these are tiled
    (`harvest.triangulate3d.tiled`). It learns no more.
    """
    out = copy.deepcopy(network).eval()
    for sequence in [part for part in out.modules() if isinstance(part, nn.Sequential)]:
        for place, (first, second) in enumerate(pairwise(list(sequence))):
            if isinstance(first, _CONVOLUTIONS) and isinstance(second, _NORMS):
                transposed = isinstance(first, nn.ConvTranspose2d | nn.ConvTranspose3d)
                sequence[place] = fuse_conv_bn_eval(first, second, transposed)
                sequence[place + 1] = nn.Identity()
        for place, part in enumerate(sequence):
            if isinstance(part, nn.ReLU) and place > 0:  # what the sequence is given is not its own to change
                sequence[place] = nn.ReLU(inplace=True)
    for part in [part for part in out.modules() if isinstance(part, VolumeNetwork)]:
        part.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        _tiled(part)
    return out.requires_grad_(False)


def _tiled(part: nn.Module) -> nn.Module:
    """The same with tiled convolutions of volumes, together with what comes right after them."""
    steps = [step for step in part.children() if not isinstance(step, nn.Identity)]
    if isinstance(part, nn.Sequential):
        made: list[nn.Module] = []
        for step, after in zip(steps, [*steps[1:], None], strict=True):
            if fits(step):
                made.append(TiledConvolution(step, isinstance(after, nn.ReLU)))
            elif not (isinstance(step, nn.ReLU) and made and isinstance(made[-1], TiledConvolution)):
                made.append(_tiled(step))
        return nn.Sequential(*made)
    if isinstance(part, Residual):
        match [step for step in part.body.children() if not isinstance(step, nn.Identity)]:
            case [first, nn.ReLU(), second] if fits(first) and fits(second):
                return TiledResidual(first, second, _tiled(part.skip))
    for name, step in list(part.named_children()):
        setattr(part, name, _tiled(step))
    return part

"""Layers of networks on volumes that are asked, and do not learn, with fewer products on the CPU."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cuda_kernels.convolve3d import FEWEST, Prepared, convolve3d, prepare

# Voxels a side up to which tiles of 2 are quicker than those of 4, from benchmarks/convolution_speed.py: there reading
# the weights takes longer than multiplying by them.
SMALL = 4


class TiledConvolution(nn.Module):
    """A convolution of volumes, what is added to it, and max(0, .) of that if wanted, in one pass.

    On other devices, in other precisions, in autocast and for gradients PyTorch does it. Weights must not change once
    it has been asked.
    """

    def __init__(self, layer: nn.Conv3d, relu: bool) -> None:
        """Of a layer that `fits`."""
        super().__init__()
        self.layer, self.relu = layer, relu
        self._prepared: dict[int, Prepared] = {}

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Of volumes (B, C, D, H, W); `added`: as the result."""
        plain = x.device.type == "cpu" and x.dtype == self.layer.weight.dtype == torch.float32
        if plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            more = None if added is None else _channels_last(added)
            weights, threads = self._weights(max(x.shape[2:])), torch.get_num_threads()
            found = convolve3d(_channels_last(x), weights, added=more, relu=self.relu, threads=threads)
            return torch.from_numpy(found).permute(0, 4, 1, 2, 3)
        out: Tensor = self.layer(x)
        out = out if added is None else out + added
        return functional.relu(out) if self.relu else out

    def _weights(self, side: int) -> Prepared:
        tile = 2 if side <= SMALL and self.layer.kernel_size[0] == 3 else 4
        if tile not in self._prepared:
            weight, bias = self.layer.weight.detach().numpy(), self.layer.bias
            self._prepared[tile] = prepare(weight, None if bias is None else bias.detach().numpy(), tile)
        return self._prepared[tile]


class TiledResidual(nn.Module):
    """max(0, second(first(x)) + skip(x)) as tiled convolutions do it."""

    def __init__(self, first: nn.Conv3d, second: nn.Conv3d, skip: nn.Module) -> None:
        """Of layers that `fits`; between them, max(0, .)."""
        super().__init__()
        self.first, self.second, self.skip = TiledConvolution(first, True), TiledConvolution(second, True), skip

    def forward(self, x: Tensor) -> Tensor:
        """Of volumes (B, C, D, H, W)."""
        found: Tensor = self.second(self.first(x), self.skip(x))
        return found


def fits(layer: nn.Module) -> TypeGuard[nn.Conv3d]:
    """Whether a layer is a convolution of volumes that can be tiled: a cube of an odd number of taps a side, but not of
    one, which leaves nothing to save; an output for each voxel; channels in fours.
    """
    if not isinstance(layer, nn.Conv3d):
        return False
    k = layer.kernel_size[0]
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and {*layer.stride, *layer.dilation} == {1}
    same = set(layer.kernel_size) == {k} and k % 2 == 1 and layer.padding == (k // 2,) * 3
    channels = layer.in_channels % FEWEST == 0 and layer.out_channels % FEWEST == 0
    return plain and same and channels and k > 1


def _channels_last(x: Tensor) -> NDArray[np.float32]:
    """(B, D, H, W, C), in the same memory."""
    found: NDArray[np.float32] = x.permute(0, 2, 3, 4, 1).numpy()
    return found

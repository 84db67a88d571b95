"""Which parameters of a network may change when it is adapted to something: all, its last parts, or few directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from harvest.detect2d.hourglass import StackedHourglass
from harvest.detect2d.hourglass_files import build_hourglass
from harvest.errors import UserError

WAYS = ("all", "last", "low-rank")
_FROZEN = "features"  # published, see docs/hourglass.md


class LowRank(nn.Module):
    """A weight plus a product of two thin matrices, which begins at zero.

    Source: Hu et al. 2021 (LoRA), section 4.1.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        """For a weight (out, ...)."""
        super().__init__()
        inside = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, inside) / math.sqrt(inside))
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The sum, of the weight's shape."""
        return weight + (self.up @ self.down).view_as(weight)


def adapt(network: StackedHourglass, way: str, rank: int = 4) -> None:
    """Let all parameters learn but published features; or those behind the hourglasses alone; or these and, in every
    other convolution, a change of its weight of so low a rank.

    Raises:
        UserError: another way than those of WAYS, or no rank.
    """
    if way not in WAYS or rank < 1:
        raise UserError(f"no way '{way}' of rank {rank} to adapt a network; choose one of {', '.join(WAYS)}, rank >= 1")
    for name, value in network.named_parameters():
        first = name.split(".")[0]
        value.requires_grad_(first in network.last_parts if way != "all" else first != _FROZEN)
    if way == "low-rank":
        for name, part in list(network.named_modules()):
            if isinstance(part, nn.Conv2d) and name.split(".")[0] not in (_FROZEN, *network.last_parts):
                register_parametrization(part, "weight", LowRank(part.weight, rank))


def merged(network: StackedHourglass) -> StackedHourglass:
    """A plain network, in eval mode, that says what one with low-rank changes says."""
    own, changed = network.state_dict(), {}
    for name, part in network.named_modules():
        if is_parametrized(part, "weight"):
            changed[f"{name}.weight"] = part.weight.detach()
    kept = {key: value for key, value in own.items() if ".parametrizations." not in key}
    out = build_hourglass(network.layout, network.stacks, network.width, network.joints, network.blocks)
    out.load_state_dict(kept | changed)
    return out.eval()

"""From joints in 2D to joints in 3D: the lifter that several ways of learning share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SPREAD = 0.1  # of joints at depth 1 about the pelvis: a person of 1.7 m at 5 m


@dataclass(frozen=True)
class LifterShape:
    """What a lifter is.

    joints: names. root: among them. width: channels. blocks: residual ones. centred: whether the root lies at the
    origin of what it sees. reach: the largest scale that it can tell. unit: of x and y where it begins: a pose is what
    is seen about the root, in units of SPREAD, times this, plus what is learnt.
    """

    joints: tuple[str, ...]
    root: str = "pelvis"
    width: int = 1024
    blocks: int = 1
    centred: bool = True
    reach: float = 2.0
    unit: float = 1.0

    def __post_init__(self) -> None:
        """Check that there is such a lifter."""
        if self.root not in self.joints or self.width < 2 or self.blocks < 1 or not self.reach > 0:
            raise ValueError(f"no lifter of {len(self.joints)} joints about '{self.root}', width {self.width}")


class Residual(nn.Module):
    """Two times linear, batch norm, ReLU and dropout, added to what came in (Martinez et al. 2017)."""

    def __init__(self, width: int, dropout: float) -> None:
        """Of that many channels."""
        super().__init__()
        self.layers = nn.Sequential(*layer(width, width, dropout), *layer(width, width, dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) of (B, width)."""
        return x + self.layers(x)


def layer(given: int, width: int, dropout: float) -> list[nn.Module]:
    """Linear, batch norm, ReLU, dropout."""
    return [nn.Linear(given, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]


class Lifter(nn.Module):
    """The network of Martinez et al. 2017 with a second head for the scale (Ronchi et al. 2018, figure 6).

    Theirs tells x and y from nothing; here it only corrects what is seen, which takes far fewer steps to learn.

    Attributes:
        shape: what it is.
    """

    def __init__(self, shape: LifterShape, dropout: float = 0.5) -> None:
        """Fresh parameters."""
        super().__init__()
        self.shape, joints = shape, len(shape.joints)
        self.bring = nn.Sequential(*layer(2 * joints, shape.width, dropout))
        self.blocks = nn.Sequential(*(Residual(shape.width, dropout) for _ in range(shape.blocks)))
        self.pose = nn.Linear(shape.width, 3 * joints)
        self.scale = nn.Linear(shape.width, 1)

    def forward(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Poses (B, J, 3), in metres where the training knows what a metre is, and scales (B,) in 0..reach.

        Args:
            xy: (B, J, 2) where joints are seen, at depth 1; NaN where unknown.
        """
        x = self.blocks(self.bring(torch.nan_to_num(self.inputs(xy)).flatten(1)))
        poses = self.pose(x).unflatten(1, (-1, 3))
        poses = poses + functional.pad(self.shape.unit * torch.nan_to_num(self.centred(xy)), (0, 1))
        return poses, self.shape.reach * self.scale(x)[:, 0].sigmoid()

    def inputs(self, xy: Tensor) -> Tensor:
        """(B, J, 2) what the network looks at: about the root if it is centred, in units of SPREAD."""
        return self.centred(xy) if self.shape.centred else xy / SPREAD

    def centred(self, xy: Tensor) -> Tensor:
        """(B, J, 2) what is seen about the root, in units of SPREAD."""
        root = self.shape.joints.index(self.shape.root)
        return (xy - xy[:, root : root + 1]) / SPREAD

"""From joints in 2D to joints in 3D: the lifter that several ways of learning share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from harvest.monocular.lift import Limbs

Floats = NDArray[np.float64]

SPREAD = 0.1  # of joints at depth 1 about the pelvis: a person of 1.7 m at 5 m
REFINE_WIDTH = 512
FIRST = 0.1  # of a fresh layer's size, that of what tells poses


@dataclass(frozen=True)
class LifterShape:
    """What a lifter is.

    joints: names. root: among them. width: channels. blocks: residual ones. centred: whether the root lies at the
    origin of what it sees. reach: the largest scale that it can tell. unit: of x and y where it begins: a pose is what
    is seen about the root, in units of SPREAD, times this, plus what is learnt. metric: whether its unit is the metre.
    screen: whether it sees pixels through one usual camera, instead of through each picture's own. refined: whether it
    mends what a detector saw first. on_ray: whether depths begin along the ray on which the root is seen, as those of
    a camera are, instead of straight ahead.
    """

    joints: tuple[str, ...]
    root: str = "pelvis"
    width: int = 1024
    blocks: int = 1
    centred: bool = True
    reach: float = 2.0
    unit: float = 1.0
    metric: bool = False
    screen: bool = False
    refined: bool = False
    on_ray: bool = False

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


class RefineNet(nn.Module):
    """Mends joints in 2D by what they are together and how sure each is (Yang et al. 2023, section 3.1)."""

    def __init__(self, joints: int) -> None:
        """For so many joints; at first it changes nothing."""
        super().__init__()
        self.bring = nn.Sequential(*layer(3 * joints, REFINE_WIDTH, 0.0))
        self.block = Residual(REFINE_WIDTH, 0.0)
        self.mend = nn.Linear(REFINE_WIDTH, 2 * joints)
        for value in self.mend.parameters():
            nn.init.zeros_(value)

    def forward(self, seen: Tensor, confidence: Tensor) -> Tensor:
        """(B, J, 2) mended; of joints seen (B, J, 2), in units of SPREAD about the root, with confidence (B, J)."""
        given = torch.cat([seen, len(confidence[0]) * share_of(confidence)[..., None]], dim=-1)
        return seen + self.mend(self.block(self.bring(given.flatten(1)))).view_as(seen)


def share_of(confidence: Tensor) -> Tensor:
    """(B, J) each confidence over the sum of its picture's (Yang et al. 2023, eq. 3)."""
    return confidence / confidence.sum(1, keepdim=True).clamp_min(1e-6)


class Lifter(nn.Module):
    """The network of Martinez et al. 2017 with a second head for the scale (Ronchi et al. 2018, figure 6).

    Theirs tells x and y from nothing; here it only corrects what is seen, which takes far fewer steps to learn. Its
    corrections, and depths, begin small: where only the order of depths is known, large ones of any sign give limbs
    their proportions, and stay.

    Attributes:
        shape: what it is.
    """

    def __init__(self, shape: LifterShape, dropout: float = 0.5) -> None:
        """Fresh parameters."""
        super().__init__()
        self.shape, joints = shape, len(shape.joints)
        self.refine = RefineNet(joints) if shape.refined else None
        self.bring = nn.Sequential(*layer(2 * joints, shape.width, dropout))
        self.blocks = nn.Sequential(*(Residual(shape.width, dropout) for _ in range(shape.blocks)))
        self.pose = nn.Linear(shape.width, 3 * joints)
        self.scale = nn.Linear(shape.width, 1)
        with torch.no_grad():
            for value in self.pose.parameters():
                value.mul_(FIRST)

    def forward(self, xy: Tensor, confidence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Poses (B, J, 3) and scales (B,) in 0..reach.

        Args:
            xy: (B, J, 2) where joints are seen, at depth 1; NaN where unknown.
            confidence: (B, J) of that in 0..1, where it is refined; by default all alike.
        """
        return self.lift(*self.looked_at(xy, confidence))

    def looked_at(self, xy: Tensor, confidence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, J, 2) joints about the root in units of SPREAD, mended if it is refined and 0 where unknown; and where
        the root is seen (B, 1, 2), in the same unit.
        """
        root = self.shape.joints.index(self.shape.root)
        at = xy[:, root : root + 1]
        seen = torch.nan_to_num((xy - at) / SPREAD)
        if self.refine is not None:
            sure = torch.isfinite(xy).all(-1).to(xy.dtype) if confidence is None else confidence
            seen = self.refine(seen, sure)
        return seen, torch.nan_to_num(at / SPREAD)

    def lift(self, seen: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Poses and scales of what `looked_at` gives."""
        x = seen if self.shape.centred else seen + at
        x = self.blocks(self.bring(x.flatten(1)))
        poses = self.pose(x).unflatten(1, (-1, 3)) + functional.pad(self.shape.unit * seen, (0, 1))
        if self.shape.on_ray:
            poses = poses + functional.pad(SPREAD * at * poses[..., 2:], (0, 1))
        return poses, self.shape.reach * self.scale(x)[:, 0].sigmoid()


def in_metres(lifter: Lifter, limbs: Limbs, poses: Floats) -> Floats:
    """(..., J, 3) what a lifter told (..., J, 3), in metres: as it is where its unit is the metre, else so large that
    the limbs add up to those of a person of usual size.
    """
    if lifter.shape.metric:
        return poses
    one, other = limbs.ends.T
    told = np.linalg.norm(poses[..., one, :] - poses[..., other, :], axis=-1).sum(axis=-1)
    return np.asarray(poses * (limbs.length_m.sum() / np.maximum(told, 1e-9))[..., None, None])

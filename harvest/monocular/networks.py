"""Networks from a crop to a 3D pose: pixels across, metres along the camera's axis from the pelvis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from harvest.detect2d.features import FEATURE_CHANNELS, MEAN, PeopleFeatures
from harvest.detect2d.hourglass import BearpawLevels, BearpawResidual, bearpaw_residuals, images_of
from harvest.detect2d.own_hourglass import PEAK, POOLINGS, coarse_features

MODELS = ("volumetric", "regression", "depth", "planar")
MAPPED = ("depth", "planar")  # of which, those with 2D heat maps
ROOT = "pelvis"  # from which depths are told
CROP_PX = 256
CELLS = CROP_PX // 8  # along a side of what the hourglass gives
HALF_PX, UNIT_M = CROP_PX / 2, 0.5  # of the numbers that the regression gives
DEPTHS, REACH_M = 32, 1.2  # bins of the volumetric maps, and how far from the pelvis the outermost reach
_NARROW, _POOLED = 32, 8  # channels and cells a side that the fully connected layer sees
_HALVINGS = 3  # of what depths are regressed from: 32 cells down to 4
_GENTLY = 0.01  # of maps of depth: losses that do not know depth must grow it from 0, not jump into a wrong minimum
_MOMENTUM = 0.1  # of the running mean of depths
_MAPS = {"volumetric": DEPTHS, "depth": 1, "planar": 2}  # of each joint


@dataclass(frozen=True)
class Shape:
    """What a network is: one of MODELS, the names of its joints, and its channels."""

    model: str
    joints: tuple[str, ...]
    width: int = 128

    def __post_init__(self) -> None:
        """Check that there is such a network."""
        known = self.model in MODELS and (self.model != "planar" or ROOT in self.joints)
        if not known or not self.joints or self.width < 2 or self.width % 2:
            raise ValueError(f"no monocular network '{self.model}' of {len(self.joints)} joints and width {self.width}")


class DepthRegression(nn.Module):
    """Depths from heat maps and features, which 1x1 convolutions bring to the same channels and which are added up.

    Source: Zhou et al. 2017, figure 1; here normalised before the last layer, whose first steps would else be far off.
    """

    def __init__(self, width: int, joints: int) -> None:
        """Fresh parameters, for two kinds of features of `width` channels."""
        super().__init__()
        self.bring = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (joints, width, width))
        halving = [layer for _ in range(_HALVINGS) for layer in (BearpawResidual(width, width), nn.MaxPool2d(2))]
        self.res = nn.Sequential(*halving, nn.BatchNorm2d(width), nn.ReLU())
        self.linear = nn.Linear(width * (CELLS >> _HALVINGS) ** 2, joints)
        nn.init.normal_(self.linear.weight, std=1e-3)
        nn.init.zeros_(self.linear.bias)

    def forward(self, heat: Tensor, *features: Tensor) -> Tensor:
        """(B, J) in units of UNIT_M, of maps (B, J, CELLS, CELLS) with peaks of about 1, and features of their size."""
        brought = [one(given) for one, given in zip(self.bring, (heat, *features), strict=True)]
        told: Tensor = self.linear(self.res(torch.stack(brought).sum(0)).flatten(1))
        return told


class MonocularNetwork(nn.Module):
    """One hourglass behind published features of people, and a head.

    'regression': a fully connected layer gives 3 J numbers, as in Pavlakos et al. 2017, section 3.5 (there the
    hourglass sees the picture itself; here frozen features, which few pictures could not teach). 'volumetric': a map of
    every joint over cells and depths, softmax, and its mean (Sun et al. 2018, "Integral human pose regression"), which
    asks much less of the head. 'depth': 2D heat maps, and a module that regresses depths from them and the features
    before and behind the hourglass (Zhou et al. 2017). 'planar': of each joint a heat map and a map of depths, of which
    the mean where the heat is counts, in units of a bone's length (Iqbal et al. 2020); what pictures share of it is
    taken off (as a batch norm does), and told apart: it would else tell one pose of all pictures before they differ.

    Attributes:
        shape: what it is. mean_rgb: what is subtracted from RGB in 0..1. unit_m, shared, usual: of 'planar', the
            bone's length, the running mean (J,) of depths, and what is told in its place.
    """

    mean_rgb = (MEAN, MEAN, MEAN)

    def __init__(self, shape: Shape) -> None:
        """Fresh parameters; the features take no part in training."""
        super().__init__()
        self.shape, joints = shape, len(shape.joints)
        self.features = PeopleFeatures().requires_grad_(False)
        self.bring = nn.ModuleList(nn.Conv2d(channels, shape.width, 1) for channels in FEATURE_CHANNELS[1:])
        self.hg = nn.ModuleList([BearpawLevels(shape.width, 1, POOLINGS)])
        self.res = nn.ModuleList([bearpaw_residuals(shape.width, 1)])
        self.narrow: nn.Module = nn.Identity()
        if shape.model == "regression":
            self.narrow = nn.Sequential(nn.Conv2d(shape.width, _NARROW, 1), nn.BatchNorm2d(_NARROW), nn.ReLU())
            self.head: nn.Module = nn.Linear(_NARROW * _POOLED**2, 3 * joints)
        else:
            self.head = nn.Conv2d(shape.width, joints * _MAPS[shape.model], 1)
        for value in self.head.parameters():
            nn.init.normal_(value, std=1e-3)
        if shape.model == "depth":
            self.deep = DepthRegression(shape.width, joints)
        if shape.model == "planar":
            with torch.no_grad():
                for value in self.head.parameters():
                    value[joints:] = 0
            self.unit_m: Tensor
            self.shared: Tensor
            self.register_buffer("shared", torch.zeros(joints))
            self.usual = nn.Parameter(torch.zeros(joints))
            self.register_buffer("unit_m", torch.tensor(UNIT_M))

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what another network has under the same name and of the same shape."""
        own = self.state_dict()
        fits = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
        self.load_state_dict(own | fits)

    def forward(self, images: Tensor) -> Tensor:
        """(B, J, 3) x and y in pixels of the crop, z in metres from the pelvis, positive away from the camera.

        Args:
            images: (B, 3, 256, 256) float32 RGB in 0..1 less `mean_rgb`.
        """
        if self.shape.model in MAPPED:
            return self.with_maps(self.features(images))[0]
        x = self.narrow(self._behind(self.features(images))[1])
        with torch.autocast(x.device.type, enabled=False):
            return self._regressed(x.float()) if self.shape.model == "regression" else self._mean(x.float())

    def with_maps(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and logits of the 2D heat maps (B, J, CELLS, CELLS); of MAPPED alone.

        Args:
            features: what `self.features` gives of the pictures.
        """
        before, behind = self._behind(features)
        with torch.autocast(behind.device.type, enabled=False):
            return (self._deep if self.shape.model == "depth" else self._planar)(before.float(), behind.float())

    def _behind(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features (B, width, CELLS, CELLS) before and behind the hourglass."""
        before = coarse_features(features, self.bring)
        return before, self.res[0](self.hg[0](before))

    def all_scores(self, images: Tensor) -> list[Tensor]:
        """What training compares with the truth."""
        return [self(images)]

    def _regressed(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, _POOLED).flatten(1)
        numbers = self.head(pooled).view(len(x), len(self.shape.joints), 3)
        scale = numbers.new_tensor([HALF_PX, HALF_PX, UNIT_M])
        return scale * numbers + numbers.new_tensor([HALF_PX - 0.5, HALF_PX - 0.5, 0.0])

    def _mean(self, x: Tensor) -> Tensor:
        maps = self.head(x).reshape(len(x), len(self.shape.joints), -1).softmax(-1)
        maps = maps.view(len(x), len(self.shape.joints), DEPTHS, CELLS, CELLS)
        cells = _cells_px(x.device)
        depths = ((torch.arange(DEPTHS, device=x.device) + 0.5) * (2 / DEPTHS) - 1) * REACH_M
        across, down, along = maps.sum((2, 3)) @ cells, maps.sum((2, 4)) @ cells, maps.sum((3, 4)) @ depths
        return torch.stack([across, down, along], dim=-1)

    def _deep(self, before: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.head(behind)
        heat = logits.flatten(2).softmax(-1).view_as(logits)
        depth = UNIT_M * self.deep(PEAK * heat, before, behind)
        return torch.cat([_mean_px(heat), depth[..., None]], dim=-1), logits

    def _planar(self, _: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
        logits, depths = self.head(behind).chunk(2, dim=1)
        heat = logits.flatten(2).softmax(-1).view_as(logits)
        depth = _GENTLY * (heat * depths).sum((2, 3))
        root = self.shape.joints.index(ROOT)
        depth = depth - depth[:, root, None]
        shared = depth.mean(0) if self.training else self.shared
        if self.training:
            self.shared.lerp_(shared.detach(), _MOMENTUM)
        depth = depth - shared + self.usual - self.usual[root]
        return torch.cat([_mean_px(heat), self.unit_m * depth[..., None]], dim=-1), logits


def _cells_px(device: torch.device) -> Tensor:
    """(CELLS,) where the middles of cells lie in the crop."""
    return (torch.arange(CELLS, device=device) + 0.5) * (CROP_PX / CELLS) - 0.5


def _mean_px(heat: Tensor) -> Tensor:
    """(B, J, 2) means of maps (B, J, CELLS, CELLS) of sum 1, in pixels of the crop."""
    cells = _cells_px(heat.device)
    return torch.stack([heat.sum(2) @ cells, heat.sum(3) @ cells], dim=-1)


@torch.inference_mode()
def predict_crops(network: MonocularNetwork, crops: NDArray[np.uint8], bf16: bool = False) -> NDArray[np.float64]:
    """(B, J, 3) what a network says of crops (B, 256, 256, 3)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return network(images_of(crops, network.mean_rgb)).double().numpy()

"""Networks from a crop to a 3D pose: pixels across, metres along the camera's axis from the pelvis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from harvest.detect2d.features import FEATURE_CHANNELS, MEAN, PeopleFeatures
from harvest.detect2d.hourglass import BearpawLevels, bearpaw_residuals, images_of
from harvest.detect2d.own_hourglass import POOLINGS, coarse_features

MODELS = ("volumetric", "regression")
CROP_PX = 256
CELLS = CROP_PX // 8  # along a side of what the hourglass gives
HALF_PX, UNIT_M = CROP_PX / 2, 0.5  # of the numbers that the regression gives
DEPTHS, REACH_M = 32, 1.2  # bins of the volumetric maps, and how far from the pelvis the outermost reach
_NARROW, _POOLED = 32, 8  # channels and cells a side that the fully connected layer sees


@dataclass(frozen=True)
class Shape:
    """What a network is: one of MODELS, the names of its joints, and its channels."""

    model: str
    joints: tuple[str, ...]
    width: int = 128

    def __post_init__(self) -> None:
        """Check that there is such a network."""
        if self.model not in MODELS or not self.joints or self.width < 2 or self.width % 2:
            raise ValueError(f"no monocular network '{self.model}' of {len(self.joints)} joints and width {self.width}")


class MonocularNetwork(nn.Module):
    """One hourglass behind published features of people, and a head.

    'regression': a fully connected layer gives 3 J numbers, as in Pavlakos et al. 2017, section 3.5 (there the
    hourglass sees the picture itself; here frozen features, which few pictures could not teach). 'volumetric': a map of
    every joint over cells and depths, softmax, and its mean (Sun et al. 2018, "Integral human pose regression"), which
    asks much less of the head.

    Attributes:
        shape: what it is. mean_rgb: what is subtracted from RGB in 0..1.
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
            self.head = nn.Conv2d(shape.width, joints * DEPTHS, 1)
        for value in self.head.parameters():
            nn.init.normal_(value, std=1e-3)

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
        x = coarse_features(self.features(images), self.bring)
        x = self.narrow(self.res[0](self.hg[0](x)))
        with torch.autocast(x.device.type, enabled=False):
            return self._regressed(x.float()) if self.shape.model == "regression" else self._mean(x.float())

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
        cells = (torch.arange(CELLS, device=x.device) + 0.5) * (CROP_PX / CELLS) - 0.5
        depths = ((torch.arange(DEPTHS, device=x.device) + 0.5) * (2 / DEPTHS) - 1) * REACH_M
        across, down, along = maps.sum((2, 3)) @ cells, maps.sum((2, 4)) @ cells, maps.sum((3, 4)) @ depths
        return torch.stack([across, down, along], dim=-1)


@torch.inference_mode()
def predict_crops(network: MonocularNetwork, crops: NDArray[np.uint8], bf16: bool = False) -> NDArray[np.float64]:
    """(B, J, 3) what a network says of crops (B, 256, 256, 3)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return network(images_of(crops, network.mean_rgb)).double().numpy()

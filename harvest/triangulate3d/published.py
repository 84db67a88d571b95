"""Networks of karfly/learnable-triangulation-pytorch: their files read, their conventions kept.

Their conventions differ from calib/conventions.md: cell x of a map sits at pixel x stride; voxel i of n stands at
i / (n - 1) of the side, so that the outermost ones lie on the cube's faces; and when maps are sampled, x and y are
divided by the map's height and width, the wrong way round, and multiplied by what they should be divided by, less one.
Each is an affine change of pixels or of the cube, which is made here, before and after our own networks. Their pictures
are BGR in 0..1 less the ImageNet mean (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225), in that order.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from harvest.errors import UserError
from harvest.triangulate3d.algebraic import AlgebraicTriangulator
from harvest.triangulate3d.backbone import BLOCKS, PoseResNet
from harvest.triangulate3d.volume_network import LEVELS
from harvest.triangulate3d.volumetric import Cube, How, VolumePose, VolumetricTriangulator

Weights = str | os.PathLike[str] | Mapping[str, Tensor]
MULTIPLIER_2D, MULTIPLIER_3D = 100.0, 30.0
_NEEDED = "give a .pth of karfly/learnable-triangulation-pytorch, a state dict of its network"
Network = TypeVar("Network", bound=nn.Module)
_LEVEL_PARTS = {"encoder_res": "encode", "skip_res": "skip", "decoder_res": "decode", "decoder_upsample": "up"}


def _deeper(found: re.Match[str]) -> str:
    return f"volume.middle.{'inner.' * (int(found[2]) - 1)}{_LEVEL_PARTS[found[1]]}."


# Their names to ours, all in this order.
_NAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^backbone\.conv1\.", "backbone.stem.0."),
    (r"^backbone\.bn1\.", "backbone.stem.1."),
    (r"^backbone\.layer(\d)\.", lambda found: f"backbone.stages.{int(found[1]) - 1}."),
    (r"(?<=\d)\.conv(\d)\.", lambda found: f".body.{3 * int(found[1]) - 3}."),
    (r"(?<=\d)\.bn(\d)\.", lambda found: f".body.{3 * int(found[1]) - 2}."),
    (r"\.downsample\.", ".skip."),
    (r"^backbone\.deconv_layers\.", "backbone.rising."),
    (r"^backbone\.final_layer\.", "backbone.score."),
    (r"^backbone\.alg_confidences\.", "backbone.algebraic_head."),
    (r"^backbone\.vol_confidences\.", "backbone.volumetric_head."),
    (r"_head\.head\.", "_head.layers."),
    (r"^process_features\.0\.", "bring."),
    (r"^volume_net\.front_layers\.", "volume.front."),
    (r"^volume_net\.back_layers\.", "volume.back."),
    (r"^volume_net\.output_layer\.", "volume.out."),
    (r"^volume_net\.encoder_decoder\.mid_res\.", "volume.middle." + "inner." * LEVELS),
    (r"^volume_net\.encoder_decoder\.([a-z_]+?)(\d)\.", _deeper),
    (r"\.res_branch\.", ".body."),
    (r"\.skip_con\.", ".skip."),
    (r"\.block\.", "."),
)


class PublishedAlgebraic(AlgebraicTriangulator):
    """Their algebraic network, whose cells sit at stride times their number."""

    def observe(self, images: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `AlgebraicTriangulator.observe`, in their pixels."""
        crop_px, weight = super().observe(images, seen)
        return crop_px - (self.backbone.stride - 1) / 2, weight


class PublishedVolumetric(VolumetricTriangulator):
    """Their volumetric network, with their cells and voxels."""

    def forward(
        self, images: Tensor, projections: Tensor, cube: Cube, seen: Tensor | None = None, *, covariance: bool = False
    ) -> VolumePose:
        """As `VolumetricTriangulator.forward`; the cube's outermost voxels lie on its faces."""
        h, w = (size // self.backbone.stride for size in images.shape[-2:])
        theirs = with_their_cells(projections, (h, w), self.backbone.stride)
        wider = dataclasses.replace(cube, side_m=cube.side_m * cube.n / (cube.n - 1))
        return super().forward(images, theirs, wider, seen, covariance=covariance)


def with_their_cells(projections: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Projections to pixels that `cells_from_pixels` takes to their cells: pixel u to u / stride (w - 1) / h.

    Args:
        projections: (..., 3, 4) to pixels.
        size: (h, w) of the maps.
    """
    h, w = size
    scale = projections.new_tensor([(w - 1) / h, (h - 1) / w])[:, None]
    depth = projections[..., 2:, :]
    return torch.cat([scale * projections[..., :2, :] + (stride - 1) / 2 * depth, depth], dim=-2)


def load_published_algebraic(weights: Weights) -> PublishedAlgebraic:
    """Their algebraic network in eval mode, float32; its sizes are read from the weights.

    Args:
        weights: a .pth file, or its state dict; names bare or after `module.`.
    Raises:
        UserError: no such file, not weights, or not all of such a network.
    """
    state = renamed(read_state(weights))
    return _filled(PublishedAlgebraic(_backbone_for(state), MULTIPLIER_2D), state)


def load_published_volumetric(weights: Weights, how: How, multiplier: float = MULTIPLIER_3D) -> PublishedVolumetric:
    """Their volumetric network in eval mode, float32; its sizes are read from the weights.

    Args:
        weights: as for `load_published_algebraic`.
        how: views come together, which weights do not tell: their `conf_norm` is "confidence".
        multiplier: of the volumes before their softmax, which weights do not tell either.
    Raises:
        UserError: as `load_published_algebraic`, or weights without the confidences that `how` needs.
    """
    state = renamed(read_state(weights))
    backbone = _backbone_for(state)
    if "bring.weight" not in state or "volume.out.weight" not in state:
        raise UserError(f"these weights have no volume network; load them as an algebraic one, or {_NEEDED}")
    if how == "confidence" and backbone.volumetric_head is None:
        raise UserError("these weights have no volumetric confidences; choose 'sum' or 'softmax', as they were trained")
    channels, joints = len(state["bring.weight"]), len(state["volume.out.weight"])
    return _filled(PublishedVolumetric(backbone, joints, how, channels=channels, multiplier=multiplier), state)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of theirs under the names of our networks; names that are not theirs stay as they are."""
    ours = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        ours[name] = value
    return ours


def read_state(weights: Weights) -> Mapping[str, Tensor]:
    """The state dict of a .pth file, under whatever names; raises UserError where it holds none."""
    if isinstance(weights, Mapping):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"no weights in {path}, there is no such file; {_NEEDED}")
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # what a broken file raises is in no contract
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}); {_NEEDED}") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path} holds no state dict (tensors by parameter name); {_NEEDED}")
    return found


def _backbone_for(state: Mapping[str, Tensor]) -> PoseResNet:
    """A fresh backbone of the sizes that the weights tell."""
    blocks = {found.groups() for key in state if (found := re.match(r"backbone\.stages\.(\d)\.(\d+)\.", key))}
    counts = tuple(sum(stage == str(number) for stage, _ in blocks) for number in range(4))
    bottleneck = "backbone.stages.0.0.body.6.weight" in state
    layers = next((n for n, known in BLOCKS.items() if known == counts and (n >= 50) == bottleneck), None)
    if layers is None or "backbone.score.weight" not in state:
        raise UserError(f"these weights have no ResNet for pose, they have {min(state, default='')!r}; {_NEEDED}")
    joints, features = state["backbone.score.weight"].shape[:2]
    volumetric = state.get("backbone.volumetric_head.layers.4.bias", torch.empty(0))
    algebraic = "backbone.algebraic_head.layers.4.bias" in state
    return PoseResNet(layers, joints, algebraic=algebraic, volumetric=len(volumetric), features=features)


def _filled(network: Network, state: Mapping[str, Tensor]) -> Network:
    own = network.state_dict()
    misshapen = {key for key in own.keys() & state.keys() if own[key].shape != state[key].shape}
    wrong = {"missing": own.keys() - state.keys(), "unknown": state.keys() - own.keys(), "misshapen": misshapen}
    if any(wrong.values()):
        found = ", ".join(f"{len(keys)} {how} ({min(keys)!r})" for how, keys in wrong.items() if keys)
        raise UserError(f"these weights are not a whole network, parameters {found}; {_NEEDED}")
    network.load_state_dict(dict(state))
    return network.eval()

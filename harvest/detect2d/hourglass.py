"""Stacked hourglass networks, filled from published checkpoints, and the heat maps they give for a crop.

One network (Newell, Yang and Deng 2016, "Stacked hourglass networks for human pose estimation") was published with
two sets of parameter names. They differ in three places only: how modules are named, how wide the stem is (64-128-128
or 64-128-256 channels), and whether a residual that keeps its width also carries a skip convolution, which it then
never uses. `StackedHourglass` holds the network; its two subclasses hold the names, so that a checkpoint loads as is.
"""

import hashlib
import json
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from harvest.errors import UserError

Layout = Literal["princeton", "bearpaw"]

MPII_JOINTS = (
    *("r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "pelvis", "thorax"),
    *("upper_neck", "head_top", "r_wrist", "r_elbow", "r_shoulder", "l_shoulder", "l_elbow", "l_wrist"),
)

INPUT_PX = 256
HEATMAP_PX = 64
STRIDE = INPUT_PX // HEATMAP_PX

_DEPTH = 4  # poolings inside an hourglass: 64 cells down to 4 (section 3.1)
_STEM_CHANNELS = 64
_COUNTER = "num_batches_tracked"


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the map's size at stride 1."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)


class _PreactResidual(nn.Module):
    """1x1, 3x3, 1x1 convolutions at half width, each after batch norm and ReLU, added to the shortcut (section 3.2)."""

    def __init__(self, channels_in: int, channels_out: int, conv: Callable[[int, int, int], nn.Module] = _conv) -> None:
        super().__init__()
        half = channels_out // 2
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv(channels_in, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, channels_out, 1)
        self.same_width = channels_in == channels_out

    def shortcut(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.bn1(x)))
        y = self.conv2(functional.relu(self.bn2(y)))
        y = self.conv3(functional.relu(self.bn3(y)))
        return y + self.shortcut(x)


_Step = Callable[[Tensor], Tensor]


def _hourglass_level(x: Tensor, skip: _Step, before: _Step, inner: _Step, after: _Step) -> Tensor:
    """One scale of an hourglass: the branch at full size plus the branch at half size, brought back (section 3.1)."""
    low = after(inner(before(functional.max_pool2d(x, 2))))
    return skip(x) + functional.interpolate(low, scale_factor=2, mode="nearest")


class StackedHourglass(nn.Module):
    """A stacked hourglass network; `build_hourglass` or `load_hourglass` makes one.

    Attributes:
        layout: whose parameter names it carries.
        stacks, blocks, width: hourglasses in a row, residuals at each place, channels.
        joints: names of the heat maps, in order.
        mean_rgb: what the published weights expect to be subtracted from RGB in 0..1.
    Source: Newell et al. 2016, section 3.
    """

    layout: ClassVar[Layout]
    mean_rgb: ClassVar[tuple[float, float, float]]

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int) -> None:
        """Set the sizes; the subclass adds the modules."""
        super().__init__()
        self.stacks = stacks
        self.width = width
        self.blocks = blocks
        self.joints = tuple(joints)

    def forward(self, images: Tensor) -> Tensor:
        """Heat maps of every stack, neither clipped nor normalised.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1 less `mean_rgb`; H and W multiples of 64.
        Returns:
            (B, stacks, J, H/4, W/4) float32.
        """
        x = self._stem(images)
        scores = []
        for stack in range(self.stacks):
            features, score = self._features_and_score(stack, x)
            scores.append(score)
            if stack + 1 < self.stacks:
                x = x + self._merge(stack, features, score)
        return torch.stack(scores, dim=1)

    def images_from_crops(self, crops: NDArray[np.uint8]) -> Tensor:
        """Crops as `forward` wants them: (B, 3, H, W) float32 on the network's device, from (B, H, W, 3) uint8 RGB."""
        device = next(self.parameters()).device
        # The copy makes read-only and mirrored views acceptable to torch.
        rgb = torch.from_numpy(np.array(crops, order="C")).to(device).permute(0, 3, 1, 2)
        mean = torch.tensor(self.mean_rgb, device=device).view(1, 3, 1, 1)
        return (rgb.float() / 255 - mean).contiguous()

    def _stem(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def _features_and_score(self, stack: int, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _merge(self, stack: int, features: Tensor, score: Tensor) -> Tensor:
        raise NotImplementedError


class _PrincetonConv(nn.Module):
    """A convolution, then batch norm and ReLU if asked for."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.conv = _conv(channels_in, channels_out, kernel, stride)
        self.bn = nn.BatchNorm2d(channels_out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if self.bn is None else functional.relu(self.bn(y))


class _PrincetonResidual(_PreactResidual):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, _PrincetonConv)
        # Published with every residual, so it is kept to load them; where the width stays it takes no part.
        self.skip_layer = _PrincetonConv(channels_in, channels_out, 1)

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.same_width else self.skip_layer(x)


class _PrincetonHourglass(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.up1 = _PrincetonResidual(width, width)
        self.low1 = _PrincetonResidual(width, width)
        self.low2 = _PrincetonHourglass(depth - 1, width) if depth > 1 else _PrincetonResidual(width, width)
        self.low3 = _PrincetonResidual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return _hourglass_level(x, self.up1, self.low1, self.low2, self.low3)


def _princeton_merge(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=_PrincetonConv(channels_in, channels_out, 1)))


class PrincetonHourglass(StackedHourglass):
    """The network under the parameter names of princeton-vl/pytorch_stacked_hourglass; one residual at each place."""

    layout = "princeton"
    mean_rgb = (0.0, 0.0, 0.0)

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int = 1) -> None:
        """Build the modules with fresh parameters."""
        super().__init__(stacks, width, joints, blocks)
        stem = _STEM_CHANNELS
        self.pre = nn.Sequential(
            _PrincetonConv(3, stem, 7, stride=2, norm=True),
            _PrincetonResidual(stem, 2 * stem),
            nn.MaxPool2d(2),
            _PrincetonResidual(2 * stem, 2 * stem),
            _PrincetonResidual(2 * stem, width),
        )
        each, between = range(stacks), range(stacks - 1)
        self.hgs = nn.ModuleList(nn.Sequential(_PrincetonHourglass(_DEPTH, width)) for _ in each)
        self.features = nn.ModuleList(
            nn.Sequential(_PrincetonResidual(width, width), _PrincetonConv(width, width, 1, norm=True)) for _ in each
        )
        self.outs = nn.ModuleList(_PrincetonConv(width, len(joints), 1) for _ in each)
        self.merge_features = nn.ModuleList(_princeton_merge(width, width) for _ in between)
        self.merge_preds = nn.ModuleList(_princeton_merge(len(joints), width) for _ in between)

    def _stem(self, images: Tensor) -> Tensor:
        return self.pre(images)

    def _features_and_score(self, stack: int, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features[stack](self.hgs[stack](x))
        return features, self.outs[stack](features)

    def _merge(self, stack: int, features: Tensor, score: Tensor) -> Tensor:
        return self.merge_features[stack](features) + self.merge_preds[stack](score)


class _BearpawResidual(_PreactResidual):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out)
        self.downsample = None if self.same_width else nn.Sequential(_conv(channels_in, channels_out, 1))

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


def _bearpaw_residuals(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_BearpawResidual(width, width) for _ in range(blocks)))


class _BearpawHourglass(nn.Module):
    """Levels are kept in a list from the coarsest (0), which alone has a fourth entry: the bottom of the hourglass."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.hg = nn.ModuleList(
            nn.ModuleList(_bearpaw_residuals(width, blocks) for _ in range(4 if level == 0 else 3))
            for level in range(_DEPTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._from_level(_DEPTH - 1, x)

    def _from_level(self, level: int, x: Tensor) -> Tensor:
        skip, before, after, *bottom = cast(nn.ModuleList, self.hg[level])
        inner = bottom[0] if bottom else partial(self._from_level, level - 1)
        return _hourglass_level(x, skip, before, inner, after)


class BearpawHourglass(StackedHourglass):
    """The network under the parameter names of `hg` in bearpaw/pytorch-pose; any number of residuals at each place."""

    layout = "bearpaw"
    mean_rgb = (0.4404, 0.4440, 0.4327)

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int = 1) -> None:
        """Build the modules with fresh parameters."""
        super().__init__(stacks, width, joints, blocks)
        stem = _STEM_CHANNELS
        self.conv1 = _conv(3, stem, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = nn.Sequential(_BearpawResidual(stem, 2 * stem))
        self.layer2 = nn.Sequential(_BearpawResidual(2 * stem, 4 * stem))
        self.layer3 = nn.Sequential(_BearpawResidual(4 * stem, width))
        each, between = range(stacks), range(stacks - 1)
        self.hg = nn.ModuleList(_BearpawHourglass(width, blocks) for _ in each)
        self.res = nn.ModuleList(_bearpaw_residuals(width, blocks) for _ in each)
        self.fc = nn.ModuleList(nn.Sequential(_conv(width, width, 1), nn.BatchNorm2d(width), nn.ReLU()) for _ in each)
        self.score = nn.ModuleList(_conv(width, len(joints), 1) for _ in each)
        self.fc_ = nn.ModuleList(_conv(width, width, 1) for _ in between)
        self.score_ = nn.ModuleList(_conv(len(joints), width, 1) for _ in between)

    def _stem(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(functional.max_pool2d(self.layer1(x), 2)))

    def _features_and_score(self, stack: int, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.fc[stack](self.res[stack](self.hg[stack](x)))
        return features, self.score[stack](features)

    def _merge(self, stack: int, features: Tensor, score: Tensor) -> Tensor:
        return self.fc_[stack](features) + self.score_[stack](score)


_NETWORKS: dict[Layout, type[StackedHourglass]] = {"princeton": PrincetonHourglass, "bearpaw": BearpawHourglass}
# What tells the layouts apart, and where each keeps the score of a stack (shape: joints, width, 1, 1).
_FIRST_RESIDUAL = {"princeton": "hgs.0.0.up1.conv1.conv.weight", "bearpaw": "hg.0.hg.0.0.0.conv1.weight"}
_SCORE_OF_STACK = {"princeton": r"outs\.\d+\.conv\.weight", "bearpaw": r"score\.\d+\.weight"}
_BLOCK_OF_FIRST = r"hg\.0\.hg\.0\.0\.\d+\.conv1\.weight"


def build_hourglass(
    layout: Layout, stacks: int, width: int, joints: Sequence[str] = MPII_JOINTS, blocks: int = 1
) -> StackedHourglass:
    """A network with fresh parameters, in training mode.

    Args:
        layout: whose parameter names (and stem) it has.
        stacks, width, blocks: hourglasses, channels, residuals at each place; published: 1, 2 or 8 stacks of 256, 1.
        joints: names of the heat maps, in order.
    Raises:
        UserError: a size that no network has.
    """
    if layout not in _NETWORKS:
        raise UserError(f"hourglass layout {layout!r} is unknown; choose one of {', '.join(_NETWORKS)}")
    if stacks < 1 or width < 2 or width % 2 or not joints or blocks < 1 or (layout == "princeton" and blocks > 1):
        raise UserError(
            f"no {layout} hourglass has {stacks} stacks of {blocks} blocks, width {width} and {len(joints)} joints; "
            "give an even width and at least one of the others (princeton: exactly one block)"
        )
    return _NETWORKS[layout](stacks, width, joints, blocks)


def save_hourglass(network: StackedHourglass, path: str | os.PathLike[str], joints: Sequence[str] | None = None) -> None:
    """Write the weights as safetensors, with the layout and the joint names in the header; the file appears whole.

    Args:
        joints: names to write instead of `network.joints`, as many.
    Raises:
        UserError: another suffix than .safetensors, no such folder, or another number of names than heat maps.
    """
    path = Path(path)
    names = network.joints if joints is None else tuple(joints)
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise UserError(f"cannot save weights to {path}; give a .safetensors name in a folder that exists")
    if len(names) != len(network.joints):
        raise UserError(f"{len(names)} joint names for {len(network.joints)} heat maps in {path}; give one name for each")
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    partial_path = path.with_name(path.name + ".partial")
    save_file(weights, partial_path, metadata={"layout": network.layout, "joints": json.dumps(names)})
    os.replace(partial_path, path)


def load_hourglass(path: str | os.PathLike[str]) -> StackedHourglass:
    """The network of a weights file, in eval mode on the CPU, float32; its sizes are read from the file.

    Args:
        path: .pth, .pt, .tar (a state dict, or a dict that holds one under 'state_dict') or .safetensors, with the
            parameter names of either layout, bare or after `module.`, `model.` or `model.module.`. Joint names come
            from a file of `save_hourglass`; elsewhere 16 heat maps are taken to be MPII's.
    Raises:
        UserError: no such file, not weights, not an hourglass, or not all of one.
    """
    path = Path(path)
    weights, header = _read_weights(path)
    for prefix in ("model.module.", "module.", "model."):
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    network = _network_for(path, weights, header)
    own = network.state_dict()
    # Checkpoints older than PyTorch 0.4.1 have no batch counters, and inference does not read them.
    weights = {key: value for key, value in own.items() if key.endswith(_COUNTER)} | weights
    reshaped = [key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape]
    wrong = {"missing": own.keys() - weights.keys(), "unknown": weights.keys() - own.keys(), "misshapen": reshaped}
    if any(wrong.values()):
        found = "; ".join(f"{len(keys)} {how} ({min(keys)!r} first)" for how, keys in wrong.items() if keys)
        sizes = f"{network.layout} hourglass of {network.stacks} stacks, {network.blocks} blocks, width {network.width}"
        raise UserError(f"{path} is not a whole {sizes}: parameters {found}; download or save the weights again")
    network.load_state_dict(weights)
    return network.eval()


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name as the file has them, and the text header of a safetensors file."""
    needed = "give the .pth, .pt, .tar or .safetensors weights of a stacked hourglass"
    if path.suffix not in (".pth", ".pt", ".tar", ".safetensors") or not path.is_file():
        raise UserError(f"no weights in {path}: {'unknown suffix' if path.is_file() else 'no such file'}; {needed}")
    header: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt", device="cpu") as file:
                header = file.metadata() or {}
                found = {key: file.get_tensor(key) for key in file.keys()}
        else:
            found = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than plain tensors (or is no checkpoint) and is not unpickled, for safety; where you "
            "trust it, save its state dict alone with torch.save"
        ) from error
    except Exception as error:  # what a broken file raises is not part of either reader's contract
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}); {needed}") from error
    weights = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not weights or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
    ):
        raise UserError(f"{path} holds no state dict (tensors by parameter name); {needed}")
    return dict(weights), header


def _network_for(path: Path, weights: Mapping[str, Tensor], header: Mapping[str, str]) -> StackedHourglass:
    """A fresh network of the layout and sizes that the parameter names and shapes tell."""
    layout = next((name for name in _NETWORKS if _FIRST_RESIDUAL[name] in weights), None)
    scores = [key for key in weights if layout and re.fullmatch(_SCORE_OF_STACK[layout], key)]
    if layout is None or not scores or weights[scores[0]].ndim != 4:
        raise UserError(
            f"{path} has not the parameters of a princeton-vl or bearpaw hourglass (it begins with "
            f"{min(weights)!r}); give the weights of one of these networks"
        )
    count, width = weights[scores[0]].shape[:2]
    names = json.loads(header["joints"]) if "joints" in header else MPII_JOINTS
    if len(names) != count:
        raise UserError(
            f"{path} has {count} heat maps for {len(names)} joint names; load weights of MPII's 16 joints, "
            "or save yours with save_hourglass and their names"
        )
    blocks = sum(re.fullmatch(_BLOCK_OF_FIRST, key) is not None for key in weights)
    return build_hourglass(layout, len(scores), width, names, max(blocks, 1))


class HourglassDetector:
    """Heat maps of joints in square crops, by a stacked hourglass network.

    Attributes:
        joints: names of the heat maps, in order.
        input_px, heatmap_px: sides of a crop and of a heat map.
        crop_from_heatmap: (2, 3) float64, crop pixel of a cell: (x + 0.5) * 4 - 0.5.
        fingerprint: names the weights; the file's sha256 from `from_file`.
    """

    input_px = INPUT_PX
    heatmap_px = HEATMAP_PX

    def __init__(
        self, network: StackedHourglass, fingerprint: str, *, flip_test: bool = False, bf16: bool = False
    ) -> None:
        """Take a network, and put it in eval mode.

        Args:
            flip_test: average with the maps of the mirrored crop, left and right joints exchanged by name (l_, r_).
            bf16: compute in bfloat16, channels last: faster where the processor has it, about three digits.
        Raises:
            UserError: flip_test, and a joint without its other side.
        """
        self.network = network.eval().to(memory_format=torch.channels_last if bf16 else torch.contiguous_format)
        self.joints = network.joints
        self.fingerprint = fingerprint
        self.crop_from_heatmap = np.array([[STRIDE, 0, (STRIDE - 1) / 2], [0, STRIDE, (STRIDE - 1) / 2]], np.float64)
        self.bf16 = bf16
        self._mirrored = _mirrored_joints(network.joints) if flip_test else None

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, flip_test: bool = False, bf16: bool = False
    ) -> "HourglassDetector":
        """A detector of the weights in a file (see `load_hourglass`)."""
        network = load_hourglass(path)
        with open(path, "rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(network, fingerprint, flip_test=flip_test, bf16=bf16)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Heat maps of the last stack, negative values (and those of the flip average) set to 0.

        Args:
            crops: (B, 256, 256, 3) uint8 RGB, B may be 0.
        Returns:
            (B, J, 64, 64) float32.
        Raises:
            ValueError: crops of another shape or dtype.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (INPUT_PX, INPUT_PX, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}; need uint8 (B, {INPUT_PX}, {INPUT_PX}, 3)")
        with torch.inference_mode():
            images = self.network.images_from_crops(crops)
            scores = self._last_stack(images)
            if self._mirrored is not None:
                # Mirrored, cell x of 64 becomes cell 63 - x exactly, so that flipping back needs no shift.
                scores = (scores + self._last_stack(images.flip(-1)).flip(-1)[:, self._mirrored]) / 2
            return scores.clamp_min(0).cpu().numpy()

    def _last_stack(self, images: Tensor) -> Tensor:
        if self.bf16:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(images)[:, -1].float()


def _mirrored_joints(joints: Sequence[str]) -> list[int]:
    """For each joint, the place of the joint that a mirror turns into it."""
    other = {"l_": "r_", "r_": "l_"}
    names = [other.get(name[:2], name[:2]) + name[2:] for name in joints]
    alone = [name for name in joints if other.get(name[:2], name[:2]) + name[2:] not in joints]
    if alone:
        raise UserError(f"flip_test needs both sides of a joint, and {alone[0]!r} has none; leave flip_test off")
    return [list(joints).index(name) for name in names]

"""Stacked hourglass networks, filled from published checkpoints, and the heat maps they give for a crop.

One network (Newell, Yang and Deng 2016, "Stacked hourglass networks for human pose estimation") was published with
two sets of parameter names. They differ in three places only: how modules are named, how wide the stem is (64-128-128
or 64-128-256 channels), and whether a residual that keeps its width also carries a skip convolution, which it then
never uses. `StackedHourglass` holds the network; its two subclasses hold the names, so that a checkpoint loads as is.
"""

import hashlib
import json
import math
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from harvest.detect2d.features import MEAN, PhotoStem
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.errors import UserError
from harvest.skeleton import load_skeleton, mirror_name

Layout = Literal["princeton", "bearpaw", "harvest"]
PathLike = str | os.PathLike[str]
_Step = Callable[[Tensor], Tensor]

MPII_JOINTS = load_skeleton("mpii16").joints
_POOLINGS = 4  # inside an hourglass: 64 cells down to 4 (section 3.1)
_STEM = 64  # channels after the first convolution
EVERYWHERE = -math.log(64 * 64)  # logit of a cell if a joint may as well be in any cell as elsewhere
SIGMA_CELLS = 1.0  # of the Gaussian that a network is taught at a joint (section 3.3)
PEAK = 2 * math.pi * SIGMA_CELLS**2  # makes the largest probability of that Gaussian 1


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)


class _Residual(nn.Module):
    """1x1, 3x3, 1x1 convolutions at half width, each after batch norm and ReLU, added to the input (section 3.2)."""

    skip_name: ClassVar[str]

    def __init__(self, channels_in: int, channels_out: int, conv: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        half = channels_out // 2
        self.bn1, self.conv1 = nn.BatchNorm2d(channels_in), conv(channels_in, half, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), conv(half, half, 3)
        self.bn3, self.conv3 = nn.BatchNorm2d(half), conv(half, channels_out, 1)
        self.same_width = channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.bn1(x)))
        y = self.conv2(functional.relu(self.bn2(y)))
        y = self.conv3(functional.relu(self.bn3(y)))
        return y + (x if self.same_width else self.get_submodule(self.skip_name)(x))


def _hourglass_level(x: Tensor, skip: _Step, before: _Step, inner: _Step, after: _Step) -> Tensor:
    """One scale of an hourglass: the branch at full size plus the branch at half size, brought back (section 3.1)."""
    low = after(inner(before(functional.max_pool2d(x, 2))))
    return skip(x) + functional.interpolate(low, scale_factor=2, mode="nearest")


class StackedHourglass(nn.Module):
    """A stacked hourglass network; `build_hourglass` or `load_hourglass` makes one.

    Attributes:
        layout: whose parameter names it carries; 'harvest' is our own.
        mean_rgb: what its published weights expect to be subtracted from RGB in 0..1.
        stacks, width, blocks: hourglasses in a row, channels, residuals at each place.
        joints: names of the heat maps, in order.
    Source: Newell et al. 2016, section 3.
    """

    layout: ClassVar[Layout]
    mean_rgb: ClassVar[tuple[float, float, float]]
    # The layout's names for the parts: the modules in a row of the stem, those of every stack, its heat maps, and
    # what brings features and heat maps back into the next stack.
    _stem: ClassVar[tuple[str, ...]]
    _trunk: ClassVar[tuple[str, ...]]
    _score: ClassVar[str]
    _merge: ClassVar[tuple[str, str]]

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int) -> None:
        """Set the sizes; the subclass adds the modules."""
        super().__init__()
        self.stacks, self.width, self.blocks, self.joints = stacks, width, blocks, tuple(joints)

    def forward(self, images: Tensor) -> Tensor:
        """Heat maps of every stack, neither clipped nor normalised.

        Args:
            images: (B, 3, H, W) float32 RGB in 0..1 less `mean_rgb`; H and W multiples of 64.
        Returns:
            (B, stacks, J, H/4, W/4) float32.
        """
        x = images
        for name in self._stem:
            x = self.get_submodule(name)(x)
        scores = []
        for stack in range(self.stacks):
            features = x
            for name in self._trunk:
                features = self.get_submodule(f"{name}.{stack}")(features)
            scores.append(self.get_submodule(f"{self._score}.{stack}")(features))
            if stack + 1 < self.stacks:
                back_features, back_score = (self.get_submodule(f"{name}.{stack}") for name in self._merge)
                x = x + back_features(features) + back_score(scores[-1])
        return torch.stack(scores, dim=1)

    def maps(self, scores: Tensor) -> Tensor:
        """Heat maps >= 0 of what `forward` gives: of published networks as it is, negative values set to 0."""
        return scores.clamp_min(0)


class _PrincetonConv(nn.Module):
    """A convolution, then batch norm and ReLU if asked for."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.conv = _conv(channels_in, channels_out, kernel, stride)
        self.bn = nn.BatchNorm2d(channels_out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if self.bn is None else functional.relu(self.bn(y))


class _PrincetonResidual(_Residual):
    skip_name = "skip_layer"

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, _PrincetonConv)
        # Published with every residual, so it is kept to load them; where the width stays it takes no part.
        self.skip_layer = _PrincetonConv(channels_in, channels_out, 1)


class _PrincetonLevels(nn.Module):
    def __init__(self, poolings: int, width: int) -> None:
        super().__init__()
        self.up1, self.low1, self.low3 = (_PrincetonResidual(width, width) for _ in range(3))
        self.low2 = _PrincetonLevels(poolings - 1, width) if poolings > 1 else _PrincetonResidual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return _hourglass_level(x, self.up1, self.low1, self.low2, self.low3)


class PrincetonHourglass(StackedHourglass):
    """The network under the parameter names of princeton-vl/pytorch_stacked_hourglass; one residual at each place."""

    layout, mean_rgb = "princeton", (0.0, 0.0, 0.0)
    _stem, _trunk, _score, _merge = ("pre",), ("hgs", "features"), "outs", ("merge_features", "merge_preds")

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int = 1) -> None:
        """Build the modules with fresh parameters."""
        super().__init__(stacks, width, joints, blocks)
        conv, residual, each, between = _PrincetonConv, _PrincetonResidual, range(stacks), range(stacks - 1)
        head = [residual(_STEM, 2 * _STEM), nn.MaxPool2d(2), residual(2 * _STEM, 2 * _STEM), residual(2 * _STEM, width)]
        self.pre = nn.Sequential(conv(3, _STEM, 7, stride=2, norm=True), *head)
        self.hgs = nn.ModuleList(nn.Sequential(_PrincetonLevels(_POOLINGS, width)) for _ in each)
        features = [(residual(width, width), conv(width, width, 1, norm=True)) for _ in each]
        self.features = nn.ModuleList(nn.Sequential(*row) for row in features)
        self.outs = nn.ModuleList(conv(width, len(joints), 1) for _ in each)
        self.merge_features = nn.ModuleList(nn.Sequential(OrderedDict(conv=conv(width, width, 1))) for _ in between)
        self.merge_preds = nn.ModuleList(nn.Sequential(OrderedDict(conv=conv(len(joints), width, 1))) for _ in between)


class _BearpawResidual(_Residual):
    skip_name = "downsample"

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, _conv)
        if not self.same_width:
            self.downsample = nn.Sequential(_conv(channels_in, channels_out, 1))


def _bearpaw_residuals(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_BearpawResidual(width, width) for _ in range(blocks)))


class _BearpawLevels(nn.Module):
    """Levels lie in a list from the coarsest (0), which alone has a fourth entry: the bottom of the hourglass."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        sizes = [4] + [3] * (_POOLINGS - 1)
        self.hg = nn.ModuleList(nn.ModuleList(_bearpaw_residuals(width, blocks) for _ in range(n)) for n in sizes)

    def forward(self, x: Tensor, level: int = _POOLINGS - 1) -> Tensor:
        skip, before, after, *bottom = cast(nn.ModuleList, self.hg[level])
        inner = bottom[0] if bottom else lambda low: self.forward(low, level - 1)
        return _hourglass_level(x, skip, before, inner, after)


class BearpawHourglass(StackedHourglass):
    """The network under the parameter names of `hg` in bearpaw/pytorch-pose; any number of residuals at each place."""

    layout: ClassVar[Layout] = "bearpaw"
    mean_rgb = (0.4404, 0.4440, 0.4327)
    _stem: ClassVar[tuple[str, ...]] = ("conv1", "bn1", "relu", "layer1", "maxpool", "layer2", "layer3")
    _trunk, _score, _merge = ("hg", "res", "fc"), "score", ("fc_", "score_")

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int = 1) -> None:
        """Build the modules with fresh parameters."""
        super().__init__(stacks, width, joints, blocks)
        self.conv1, self.bn1, self.relu = _conv(3, _STEM, 7, stride=2), nn.BatchNorm2d(_STEM), nn.ReLU()
        self.layer1, self.maxpool = nn.Sequential(_BearpawResidual(_STEM, 2 * _STEM)), nn.MaxPool2d(2)
        self.layer2 = nn.Sequential(_BearpawResidual(2 * _STEM, 4 * _STEM))
        self.layer3 = nn.Sequential(_BearpawResidual(4 * _STEM, width))
        each, between = range(stacks), range(stacks - 1)
        self.hg = nn.ModuleList(_BearpawLevels(width, blocks) for _ in each)
        self.res = nn.ModuleList(_bearpaw_residuals(width, blocks) for _ in each)
        self.fc = nn.ModuleList(nn.Sequential(_conv(width, width, 1), nn.BatchNorm2d(width), nn.ReLU()) for _ in each)
        self.score = nn.ModuleList(_conv(width, len(joints), 1) for _ in each)
        self.fc_ = nn.ModuleList(_conv(width, width, 1) for _ in between)
        self.score_ = nn.ModuleList(_conv(len(joints), width, 1) for _ in between)


class _LogitConv(nn.Conv2d):
    """A convolution in float32 even where all else is computed in bfloat16, whose steps a logit of 10 would show."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class HarvestHourglass(BearpawHourglass):
    """Our own: hourglasses under bearpaw's names behind features of photographs, whose maps are probabilities.

    A stack gives for each joint a logit per cell; with one more for "elsewhere", fixed at 0, their softmax says where
    the joint is. Trained by cross-entropy this is an honest probability, as far as the training pictures go.
    """

    layout: ClassVar[Layout] = "harvest"
    mean_rgb = (MEAN, MEAN, MEAN)
    _stem = ("stem",)

    def __init__(self, stacks: int, width: int, joints: Sequence[str], blocks: int = 1) -> None:
        """Build the modules with fresh parameters."""
        super().__init__(stacks, width, joints, blocks)
        del self.conv1, self.bn1, self.relu, self.layer1, self.maxpool, self.layer2, self.layer3
        self.stem = PhotoStem(width)
        self.score = nn.ModuleList(_LogitConv(width, len(joints), 1) for _ in range(stacks))
        for score in cast(list[nn.Conv2d], list(self.score)):
            nn.init.normal_(score.weight, std=1e-3)
            nn.init.constant_(cast(Tensor, score.bias), EVERYWHERE)

    def maps(self, scores: Tensor) -> Tensor:
        """Probability of each cell, times `PEAK`, at most 1."""
        flat = functional.pad(scores.flatten(-2), (0, 1)).softmax(-1)[..., :-1]
        return (PEAK * flat).clamp_max(1.0).reshape(scores.shape)


_NETWORKS: dict[str, type[StackedHourglass]] = {
    "princeton": PrincetonHourglass,
    "bearpaw": BearpawHourglass,
    "harvest": HarvestHourglass,
}
# What tells the layouts apart, and where each keeps the heat maps of a stack (shape: joints, width, 1, 1).
_OWN_PARAMETER = {
    "princeton": "hgs.0.0.up1.conv1.conv.weight",
    "bearpaw": "layer3.0.conv1.weight",
    "harvest": "stem.bring.0.weight",
}
_SCORE_OF_STACK = {
    "princeton": r"outs\.\d+\.conv\.weight",
    "bearpaw": r"score\.\d+\.weight",
    "harvest": r"score\.\d+\.weight",
}
_FEATURES, _BRINGS = "stem.photo.", _OWN_PARAMETER["harvest"]
_NEEDED = "give the .pth, .pt, .tar or .safetensors weights of a princeton-vl or bearpaw stacked hourglass"


def build_hourglass(
    layout: Layout, stacks: int, width: int, joints: Sequence[str] = MPII_JOINTS, blocks: int = 1
) -> StackedHourglass:
    """A network with fresh parameters, in training mode.

    Args:
        layout: whose parameter names (and stem) it has.
        stacks, width, blocks: hourglasses, channels, residuals at each place; published: 1, 2 or 8 stacks of 256, 1.
        joints: names of the heat maps, in order.
    Raises:
        UserError: an unknown layout, or a size that no network has.
    """
    if layout not in _NETWORKS:
        raise UserError(f"hourglass layout {layout!r} is unknown; choose one of {', '.join(_NETWORKS)}")
    if min(stacks, width, len(joints), blocks) < 1 or width % 2 or (layout == "princeton" and blocks > 1):
        given = f"{stacks} stacks of {blocks} blocks, width {width} and {len(joints)} joints"
        raise UserError(f"no {layout} hourglass has {given}; give an even width and 1 or more (princeton: 1 block)")
    return _NETWORKS[layout](stacks, width, joints, blocks)


def save_hourglass(
    network: StackedHourglass, path: PathLike, joints: Sequence[str] | None = None, *, features: bool = True
) -> None:
    """Write the weights as safetensors, with the layout and the joint names in the header; the file appears whole.

    Convolutions of our own layout are kept in float16, half the size, which changes maps by less than bfloat16 does.

    Args:
        joints: names to write instead of `network.joints`, as many.
        features: False leaves out the features of photographs; then those of the shipped detector are taken.
    Raises:
        UserError: another suffix than .safetensors, no such folder, or another number of names than heat maps.
    """
    path, names = Path(path), network.joints if joints is None else tuple(joints)
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise UserError(f"cannot save weights to {path}; give a .safetensors name in a folder that exists")
    if len(names) != len(network.joints):
        raise UserError(f"{len(names)} joint names for {len(network.joints)} heat maps of {path}; give one for each")
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if isinstance(network, HarvestHourglass):
        weights = {key: value.half() if value.ndim == 4 else value for key, value in weights.items()}
        weights = {key: value for key, value in weights.items() if features or not key.startswith(_FEATURES)}
    unfinished = path.with_name(path.name + ".partial")
    save_file(weights, unfinished, metadata={"layout": network.layout, "joints": json.dumps(names)})
    os.replace(unfinished, path)


def load_hourglass(path: PathLike) -> StackedHourglass:
    """The network of a weights file, in eval mode on the CPU, float32; its sizes are read from the file.

    Args:
        path: .pth, .pt, .tar (a state dict, or a dict that holds one under 'state_dict') or .safetensors, with the
            parameter names of either layout, bare or after `module.`, `model.` or `model.module.`. Joint names come
            from a file of `save_hourglass`; elsewhere 16 heat maps are taken to be MPII's.
    Raises:
        UserError: no such file, not weights, not an hourglass, or not all of one.
    """
    path = Path(path)
    weights, joints = read_weights(path)
    for prefix in ("model.module.", "module.", "model."):
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    if _BRINGS in weights and not any(key.startswith(_FEATURES) for key in weights):
        shipped_weights, _ = read_weights(shipped(DETECTOR))
        weights |= {key: value for key, value in shipped_weights.items() if key.startswith(_FEATURES)}
    network = _network_for(path, weights, joints)
    own = network.state_dict()
    # Checkpoints older than PyTorch 0.4.1 have no batch counters, and inference does not read them.
    weights = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")} | weights
    misshapen = {key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape}
    wrong = {"missing": own.keys() - weights.keys(), "unknown": weights.keys() - own.keys(), "misshapen": misshapen}
    if any(wrong.values()):
        found = ", ".join(f"{len(keys)} {how} ({min(keys)!r})" for how, keys in wrong.items() if keys)
        sizes = f"{network.layout} hourglass of {network.stacks} stacks, {network.blocks} blocks, width {network.width}"
        raise UserError(f"{path} is not a whole {sizes}: parameters {found}; download or save the weights again")
    network.load_state_dict(weights)
    return network.eval()


def read_weights(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors by name as the file has them, and the joints it names (MPII's if it names none).

    Raises:
        UserError: no such file, or not weights.
    """
    if not path.is_file() or path.suffix not in (".pth", ".pt", ".tar", ".safetensors"):
        raise UserError(f"no weights in {path} ({'its suffix' if path.is_file() else 'no such file'}); {_NEEDED}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt", device="cpu") as file:
                joints = (file.metadata() or {}).get("joints", json.dumps(MPII_JOINTS))
                return {key: file.get_tensor(key) for key in file.keys()}, tuple(map(str, json.loads(joints)))
        found = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        refused = "holds more than plain tensors, or is no checkpoint, and is not unpickled for safety"
        raise UserError(f"{path} {refused}; if you trust it, save its state dict alone with torch.save") from error
    except Exception as error:  # what a broken file raises is in neither reader's contract
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}); {_NEEDED}") from error
    weights = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} holds no state dict (tensors by parameter name); {_NEEDED}")
    return {str(key): value for key, value in weights.items()}, MPII_JOINTS


def _network_for(path: Path, weights: Mapping[str, Tensor], joints: Sequence[str]) -> StackedHourglass:
    """A fresh network of the layout and sizes that the parameter names and shapes tell."""
    layout = next((name for name in _NETWORKS if _OWN_PARAMETER[name] in weights), None)
    scores = [value for key, value in weights.items() if layout and re.fullmatch(_SCORE_OF_STACK[layout], key)]
    if layout is None or not scores or scores[0].ndim != 4:
        raise UserError(f"{path} lacks the parameters of every layout, it has {min(weights, default='')!r}; {_NEEDED}")
    count, width = scores[0].shape[:2]
    if len(joints) != count:
        given = f"{path} has {count} heat maps but {len(joints)} joint names (MPII's, if it names none)"
        raise UserError(f"{given}; load weights of these joints, or save yours with save_hourglass and their names")
    blocks = [key for key in weights if re.fullmatch(r"hg\.0\.hg\.0\.0\.\d+\.conv1\.weight", key)]
    return build_hourglass(_NETWORKS[layout].layout, len(scores), width, joints, max(len(blocks), 1))


def fast_bf16() -> bool:
    """Whether this processor multiplies in bfloat16 by itself; elsewhere float32 is faster."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


class HourglassDetector:
    """Heat maps of joints in square crops, by a stacked hourglass network.

    Attributes:
        joints: names of the heat maps, in order.
        input_px, heatmap_px: sides of a crop and of a heat map.
        crop_from_heatmap: (2, 3) float64, crop pixel of a cell: (x + 0.5) * 4 - 0.5.
        fingerprint: names the weights; the file's sha256 from `from_file`.
    """

    input_px = 256
    heatmap_px = 64
    sharpness = 1.0

    def __init__(self, network: StackedHourglass, fingerprint: str, *, flip_test: bool = False, bf16: bool = False):
        """Take a network, and put it in eval mode.

        Args:
            flip_test: average with the maps of the mirrored crop, left and right joints exchanged by name (l_, r_).
            bf16: compute in bfloat16, channels last: faster where the processor has it (`fast_bf16`), about three
                digits.
        Raises:
            UserError: flip_test, and a joint without its other side.
        """
        self._memory = torch.channels_last if bf16 else torch.contiguous_format
        self.network = network.eval().to(memory_format=self._memory)  # type: ignore[call-overload]
        self.joints, self.fingerprint, self.bf16 = network.joints, fingerprint, bf16
        self.crop_from_heatmap = np.array([[4, 0, 1.5], [0, 4, 1.5]], np.float64)
        self._mirrored = _mirrored_joints(network.joints) if flip_test else None

    @classmethod
    def from_file(cls, path: PathLike, *, flip_test: bool = False, bf16: bool = False) -> Self:
        """A detector of the weights in a file; raises as `load_hourglass` does."""
        network = load_hourglass(path)
        return cls(network, hashlib.sha256(Path(path).read_bytes()).hexdigest(), flip_test=flip_test, bf16=bf16)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Heat maps of the last stack; with flip_test, of the average.

        Args:
            crops: (B, 256, 256, 3) uint8 RGB, B may be 0.
        Returns:
            (B, J, 64, 64) float32.
        Raises:
            ValueError: crops of another shape or dtype.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.input_px, self.input_px, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}; need uint8 (B, 256, 256, 3)")
        # The copy makes read-only and mirrored views acceptable to torch.
        rgb = torch.from_numpy(np.array(crops, order="C")).to(next(self.network.parameters()).device)
        with torch.inference_mode():
            images = (rgb / 255 - rgb.new_tensor(self.network.mean_rgb, dtype=torch.float32)).permute(0, 3, 1, 2)
            scores = self._last_stack(images)
            if self._mirrored is not None:
                # Mirrored, cell x of 64 becomes cell 63 - x exactly, so that flipping back needs no shift.
                scores = (scores + self._last_stack(images.flip(-1)).flip(-1)[:, self._mirrored]) / 2
            return self.network.maps(scores).cpu().numpy()

    def _last_stack(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(images.contiguous(memory_format=self._memory))[:, -1].float()


def _mirrored_joints(joints: Sequence[str]) -> list[int]:
    """For each joint, the place of the joint that a mirror turns into it."""
    partners = [mirror_name(name, joints) for name in joints]
    if alone := [name for name, partner in zip(joints, partners) if name == partner and name[:2] in ("l_", "r_")]:
        other = ("r" if alone[0][0] == "l" else "l") + alone[0][1:]
        raise UserError(f"flip_test needs both sides of each joint, and there is no {other!r}; leave it off")
    return [list(joints).index(partner) for partner in partners]

"""Weights of hourglasses: networks made, written, and read from published checkpoints and our own files."""

import json
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from harvest.detect2d.hourglass import BearpawHourglass, Layout, PrincetonHourglass, StackedHourglass
from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.errors import UserError
from harvest.skeleton import load_skeleton

PathLike = str | os.PathLike[str]
MPII_JOINTS = load_skeleton("mpii16").joints

_NETWORKS: dict[str, type[StackedHourglass]] = {
    "princeton": PrincetonHourglass,
    "bearpaw": BearpawHourglass,
    "harvest": HarvestHourglass,
}
# What tells the layouts apart, and where each keeps the heat maps of a stack (shape: joints, width, 1, 1).
_OWN_PARAMETER = {
    "princeton": "hgs.0.0.up1.conv1.conv.weight",
    "bearpaw": "layer3.0.conv1.weight",
    "harvest": "bring.0.weight",
}
_SCORE_OF_STACK = {
    "princeton": r"outs\.\d+\.conv\.weight",
    "bearpaw": r"score\.\d+\.weight",
    "harvest": r"score\.\d+\.weight",
}
_FEATURES, _BRINGS = "features.", _OWN_PARAMETER["harvest"]
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
        features: False leaves out the published features; then those of the shipped detector are taken.
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

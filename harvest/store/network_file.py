"""Weights of our networks as safetensors: what they are, and their sizes, in the header."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harvest.errors import UserError

PathLike = str | os.PathLike[str]


def save_network(model: nn.Module, path: PathLike, kind: str, header: dict[str, Any]) -> None:
    """Write a network's weights and header; the file appears whole.

    Convolutions are kept in float16, half the size.

    Raises:
        UserError: another suffix than .safetensors, or no such folder.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise UserError(f"cannot save weights to {path}; give a .safetensors name in a folder that exists")
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    weights = {key: value.half() if value.ndim >= 4 else value for key, value in weights.items()}
    unfinished = path.with_name(path.name + ".partial")
    save_file(weights, unfinished, metadata={kind: json.dumps(header)})
    os.replace(unfinished, path)


def read_network(path: Path, kind: str, needed: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and weights of a file that `save_network` wrote.

    Raises:
        UserError: no such file, or nothing of that kind; it ends with `needed`.
    """
    if not path.is_file():
        raise UserError(f"no weights in {path}, there is no such file; {needed}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = (file.metadata() or {}).get(kind)
            weights = {key: file.get_tensor(key) for key in file.keys()}
    except Exception as error:  # what a broken file raises is not in the reader's contract
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}); {needed}") from error
    if header is None:
        raise UserError(f"{path} holds weights of something else than a {kind}; {needed}")
    return dict(json.loads(header)), weights


def holds_network(path: Path, kind: str) -> bool:
    """Whether a file says that it holds weights of that kind; False where it cannot be read."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return kind in (file.metadata() or {})
    except Exception:  # what a broken file raises is not in the reader's contract; whoever reads it next will tell
        return False


def fill_network(model: nn.Module, weights: dict[str, Tensor], told: str) -> None:
    """Put all of a network's weights into it; `told` names file and network in an error, and ends it.

    Raises:
        UserError: weights that are missing, unknown or of another shape.
    """
    own = model.state_dict()
    misshapen = {key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape}
    wrong = {"missing": own.keys() - weights.keys(), "unknown": weights.keys() - own.keys(), "misshapen": misshapen}
    if any(wrong.values()):
        found = ", ".join(f"{len(keys)} {how} ({min(keys)!r})" for how, keys in wrong.items() if keys)
        where, _, needed = told.partition("; ")
        raise UserError(f"{where}: parameters {found}; {needed}")
    model.load_state_dict(weights)

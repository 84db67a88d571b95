"""Weights of the networks that triangulate heat maps: written, and read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from harvest.errors import UserError
from harvest.triangulate3d.from_maps import MapAlgebraic
from harvest.triangulate3d.map_volume import MapVolumetric

PathLike = str | os.PathLike[str]
Triangulator = MapAlgebraic | MapVolumetric
_HEADER = "triangulator"
_NEEDED = "give a .safetensors that `harvest train triangulation` made"


def save_triangulator(model: Triangulator, path: PathLike) -> None:
    """Write the weights as safetensors, with kind, joints and sizes as JSON in the header; the file appears whole.

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
    save_file(weights, unfinished, metadata={_HEADER: json.dumps(header_of(model))})
    os.replace(unfinished, path)


def header_of(model: Triangulator) -> dict[str, Any]:
    """What `load_triangulator` makes a model of that shape from."""
    if isinstance(model, MapAlgebraic):
        return {"kind": "algebraic", "width": model.width}
    sizes = {name: getattr(model, name) for name in ("width", "levels", "n")}
    return {"kind": "volumetric", "joints": list(model.joints), "how": model.how} | sizes


def load_triangulator(path: PathLike) -> Triangulator:
    """The network of a weights file, in eval mode on the CPU, float32.

    Raises:
        UserError: no such file, no weights of a triangulator, or not all of them.
    """
    path = Path(path)
    header, weights = _read(path)
    try:
        model = _made(header)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} tells no triangulator's sizes ({type(error).__name__}: {error}); {_NEEDED}") from None
    own = model.state_dict()
    misshapen = {key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape}
    wrong = {"missing": own.keys() - weights.keys(), "unknown": weights.keys() - own.keys(), "misshapen": misshapen}
    if any(wrong.values()):
        found = ", ".join(f"{len(keys)} {how} ({min(keys)!r})" for how, keys in wrong.items() if keys)
        raise UserError(f"{path} is not a whole {header['kind']} triangulator: parameters {found}; {_NEEDED}")
    model.load_state_dict(weights)
    return model.eval()


def _made(header: dict[str, Any]) -> Triangulator:
    sizes = dict(header)
    kind = sizes.pop("kind")
    if kind == "algebraic":
        return MapAlgebraic(**sizes)
    if kind != "volumetric":
        raise ValueError(f"kind {kind!r}")
    return MapVolumetric(tuple(map(str, sizes.pop("joints"))), sizes.pop("how"), **sizes)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(f"no weights in {path}, there is no such file; {_NEEDED}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = (file.metadata() or {}).get(_HEADER)
            weights = {key: file.get_tensor(key) for key in file.keys()}
    except Exception as error:  # what a broken file raises is not in the reader's contract
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__}); {_NEEDED}") from error
    if header is None:
        raise UserError(f"{path} holds weights of something else than a triangulator; {_NEEDED}")
    return dict(json.loads(header)), weights

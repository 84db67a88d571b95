"""Weights of the networks that triangulate heat maps: written, and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harvest.errors import UserError
from harvest.store.network_file import PathLike, fill_network, read_network, save_network
from harvest.triangulate3d.from_maps import MapAlgebraic
from harvest.triangulate3d.map_volume import MapVolumetric

Triangulator = MapAlgebraic | MapVolumetric
_HEADER = "triangulator"
_NEEDED = "give a .safetensors that `harvest train triangulation` made"


def save_triangulator(model: Triangulator, path: PathLike) -> None:
    """Write the weights, with kind, joints and sizes in the header; raises as `save_network` does."""
    save_network(model, path, _HEADER, header_of(model))


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
    header, weights = read_network(path, _HEADER, _NEEDED)
    try:
        model = _made(header)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} tells no triangulator's sizes ({type(error).__name__}: {error}); {_NEEDED}") from None
    fill_network(model, weights, f"{path} is not a whole {header['kind']} triangulator; {_NEEDED}")
    return model.eval()


def _made(header: dict[str, Any]) -> Triangulator:
    sizes = dict(header)
    kind = sizes.pop("kind")
    if kind == "algebraic":
        return MapAlgebraic(**sizes)
    if kind != "volumetric":
        raise ValueError(f"kind {kind!r}")
    return MapVolumetric(tuple(map(str, sizes.pop("joints"))), sizes.pop("how"), **sizes)

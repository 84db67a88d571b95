"""Weights of monocular networks, with the limbs of the people they learnt from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harvest.errors import UserError
from harvest.monocular.lift import Limbs
from harvest.monocular.networks import MonocularNetwork, Shape
from harvest.store.network_file import PathLike, fill_network, read_network, save_network

_HEADER = "monocular"
_NEEDED = "give a .safetensors that `harvest train monocular` made"


def save_monocular(network: MonocularNetwork, limbs: Limbs, path: PathLike) -> None:
    """Write the weights, with kind, joints, sizes and limbs in the header; raises as `save_network` does."""
    shape = network.shape
    header = {"model": shape.model, "joints": list(shape.joints), "width": shape.width}
    ends = [[shape.joints[end] for end in pair] for pair in limbs.ends]
    save_network(network, path, _HEADER, header | {"limbs": ends, "length_m": limbs.length_m.round(5).tolist()})


def load_monocular(path: PathLike) -> tuple[MonocularNetwork, Limbs]:
    """Network, in eval mode on the CPU, float32, and limbs of a weights file.

    Raises:
        UserError: no such file, no weights of a monocular network, or not all of them.
    """
    path = Path(path)
    header, weights = read_network(path, _HEADER, _NEEDED)
    try:
        joints = tuple(map(str, header["joints"]))
        network = MonocularNetwork(Shape(str(header["model"]), joints, int(header["width"])))
        ends = np.array([[joints.index(end) for end in pair] for pair in header["limbs"]], np.int64)
        limbs = Limbs(ends, np.array(header["length_m"], np.float64))
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} tells no network's sizes ({type(error).__name__}: {error}); {_NEEDED}") from None
    fill_network(network, weights, f"{path} is not a whole {header['model']} network; {_NEEDED}")
    return network.eval(), limbs

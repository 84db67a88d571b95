"""Weights of lifters, with the limbs of a usual person, which give what they tell a size."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from harvest.errors import UserError
from harvest.monocular.lift import Limbs
from harvest.monocular.lifter import Lifter, LifterShape
from harvest.store.network_file import PathLike, fill_network, read_network, save_network

KIND = "lifter"
_NEEDED = "give a lifter.safetensors that `harvest train monocular` made"


def save_lifter(network: Lifter, limbs: Limbs, path: PathLike) -> None:
    """Write the weights, with sizes and limbs in the header; raises as `save_network` does."""
    joints = network.shape.joints
    ends = [[joints[end] for end in pair] for pair in limbs.ends]
    header = asdict(network.shape) | {"limbs": ends, "length_m": limbs.length_m.round(5).tolist()}
    save_network(network, path, KIND, header)


def load_lifter(path: PathLike) -> tuple[Lifter, Limbs]:
    """Network, in eval mode on the CPU, and limbs of a weights file.

    Raises:
        UserError: no such file, no weights of a lifter, or not all of them.
    """
    path = Path(path)
    header, weights = read_network(path, KIND, _NEEDED)
    try:
        joints = tuple(map(str, header.pop("joints")))
        ends = np.array([[joints.index(end) for end in pair] for pair in header.pop("limbs")], np.int64)
        limbs = Limbs(ends, np.array(header.pop("length_m"), np.float64))
        network = Lifter(LifterShape(joints, **header))
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} tells no lifter's sizes ({type(error).__name__}: {error}); {_NEEDED}") from None
    fill_network(network, weights, f"{path} is not a whole lifter; {_NEEDED}")
    return network.eval(), limbs

"""What this machine has for harvest, and what it lacks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator

import numba

from cuda_kernels.gpu import what_is_missing
from harvest.detect2d.weights import PUBLISHED, weights_folder

NEEDED = ("numpy", "scipy", "numba", "opencv-python", "torch", "av", "zarr", "pyarrow", "pydantic", "typer")


def examine() -> Iterator[tuple[bool, str]]:
    """Pairs of whether something is fine and a line that says what it is, or what to do."""
    for name in NEEDED:
        try:
            yield True, f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield False, f"{name}: run `pip install {name}`"
    litert = importlib.util.find_spec("ai_edge_litert") is not None
    missing = [] if litert else ["`pip install 'harvest-pose[blazepose]'`"]
    for name, published in PUBLISHED.items():
        if not all((weights_folder() / name / file).is_file() for file in published.files):
            missing.append(f"`harvest weights fetch {name}`")
    yield True, "--detector blazepose: " + (f"not needed; would take {' and '.join(missing)}" if missing else "ready")
    yield True, "GPU for 3D inference: " + (f"none ({what_is_missing()}); not needed" if what_is_missing() else "ready")
    yield True, f"{os.cpu_count()} processors, {numba.get_num_threads()} threads for kernels"

"""How far are the networks that load published weights from the outputs of the published code?

The folder of golden numbers holds names and shapes of the parameters of networks of
karfly/learnable-triangulation-pytorch, and what these gave for a fixed input; the parameters follow a rule,
`golden_value` of tests/conftest.py.

    python benchmarks/published_numbers.py --golden golden
"""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harvest.triangulate3d.published import load_published_algebraic, load_published_volumetric
from harvest.triangulate3d.volumetric import Cube, How

golden_value = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "conftest.py"))["golden_value"]
HOW: dict[str, How] = {"sum": "sum", "softmax": "softmax", "conf_norm": "confidence"}
SIDE_M, VOXELS = 2.5, 32


def state_of(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The state dict of a network, of the shapes of its parameters."""
    return {key: golden_value(key, tuple(shape)) for key, shape in shapes.items()}


def apart(found: Tensor, stored: np.ndarray[Any, Any]) -> float:
    """The largest difference of any number."""
    return float(np.abs(found.numpy().astype(np.float64) - stored).max())


def main() -> None:
    """Print one line a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, required=True, help="folder with lt_algebraic.npz and the other files")
    golden: Path = parser.parse_args().golden
    images = torch.from_numpy(np.random.default_rng(11).standard_normal((1, 3, 3, 128, 128)).astype(np.float32))
    stored = np.load(golden / "lt_algebraic.npz")
    network = load_published_algebraic(state_of(json.loads((golden / "lt_algebraic_keys.json").read_text())))
    with torch.inference_mode():
        pose = network(images, torch.from_numpy(stored["projections"])[None])
    far_m, far_px = apart(pose.xyz_m, stored["keypoints_3d"]), apart(pose.crop_px, stored["keypoints_2d"])
    print(f"{'algebraic':>20}: {far_m:.1e} m, {far_px:.1e} px, trust {apart(pose.weight, stored['confidences']):.1e}")
    shapes = json.loads((golden / "lt_volumetric_keys.json").read_text())
    for name, how in HOW.items():
        stored = np.load(golden / f"lt_volumetric_{name}.npz")
        cube = Cube(torch.from_numpy(stored["pelvis"])[None], SIDE_M, VOXELS)
        with torch.inference_mode():
            found = load_published_volumetric(state_of(shapes[name]), how)(
                images, torch.from_numpy(stored["projections"])[None], cube
            )
        print(f"{'volumetric ' + name:>20}: {apart(found.mean_m, stored['keypoints_3d']):.1e} m")


if __name__ == "__main__":
    main()

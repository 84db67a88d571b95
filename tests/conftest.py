"""What many tests share."""

import os
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
GOLDEN = SHARED / "golden"


def harvest(*arguments):
    """The command line, in this process."""
    from harvest.cli import app

    app([str(argument) for argument in arguments], standalone_mode=False)


def keypoint_run(folder, name="out", *more, noise_px=0.5, views=3, frames=6):
    """Make a small synthetic capture in a folder, and run on its keypoints, which but for noise are exact."""
    from harvest.studio.figure import Wrong, write_capture

    write_capture(folder, views=views, frames=frames, wrong=Wrong(noise_px=noise_px, outliers=0.0, flips=0.0))
    options = ["--rig", folder / "rig.yaml", "--videos", folder / "videos", "--detector", "keypoints"]
    torch.set_num_threads(1)
    harvest("run", *options, "--keypoints", folder / "keypoints", *more, "--out", folder / name)


@pytest.fixture(scope="session")
def harvest_command():
    """Runs `harvest ARGS` in a process of its own and gives its exit code and what it printed."""

    def call(*arguments, **environment):
        command = [sys.executable, "-m", "harvest.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)

    return call


@pytest.fixture(scope="session")
def capture_folder(tmp_path_factory):
    """A small synthetic capture: three cameras, twelve frames."""
    from harvest.studio.figure import write_capture

    folder = tmp_path_factory.mktemp("capture")
    write_capture(folder, views=3, frames=12)
    return folder


@pytest.fixture(scope="session")
def figure():
    """A walking figure before four cameras of very different lenses: rig, exact maps, joints (T, J, 3)."""
    from map_scenes import maps_round, rig_of

    from harvest.studio.figure import moving_figure

    rig = rig_of("barrel", "fisheye", "tilted", "none")
    skeleton, xyz = moving_figure(40)
    return rig, maps_round(rig, xyz[::8], skeleton.joints), xyz[::8]


@pytest.fixture
def one_thread():
    """PyTorch on one thread while a test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(seed: int, *shape: int) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@cache
def golden_value(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A parameter by the rule of golden/README.md."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    value = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_mean"):
        value = 0.1 * value
    elif key.endswith("running_var"):
        value = 1 + 0.1 * abs(value)
    elif len(shape) == 1:
        value = 1 + 0.1 * value if key.endswith("weight") else 0.01 * value
    else:
        value = value / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))

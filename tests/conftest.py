"""What many tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


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

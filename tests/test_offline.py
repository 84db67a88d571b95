"""What works on a machine without network and without any extra: the demonstration, and real footage."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harvest.store.tables import read_poses

SINGLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "pose2sim_demo"
WITHOUT = """
import socket, sys
def refuse(*_, **__):
    raise OSError("there is no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
for extra in ("ai_edge_litert", "mediapipe", "open3d", "OpenEXR", "numba_cuda"):
    sys.modules[extra] = None
from harvest.cli import main
main()
"""


def harvest_alone(*arguments):
    """The command in a process that can reach nothing."""
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.skipif(not (SINGLE / "single" / "videos").is_dir(), reason="the real sample is not beside this checkout")
def test_real_footage_needs_no_network_and_no_extra(tmp_path):
    rig, out = tmp_path / "rig.yaml", tmp_path / "run"
    calibration = SINGLE / "calibration" / "Calib.qca.txt"
    assert harvest_alone("rig", "import", calibration, "--out", rig).returncode == 0
    result = harvest_alone(
        "run",
        "--rig",
        rig,
        "--videos",
        SINGLE / "single" / "videos",
        "--out",
        out,
        "--frames",
        "0:8:4",
    )
    assert result.returncode == 0, result.stderr
    poses = read_poses(out / "30_poses.parquet")
    assert len(poses.frames) == 2 and np.isfinite(poses.xyz_m).all()
    head, ankles = poses.xyz_m[:, poses.joints.index("head_top")], poses.xyz_m[:, poses.joints.index("l_ankle")]
    assert 1.0 < (head - ankles)[:, 2].min() < 2.0  # the person stands


def test_what_an_extra_would_bring_is_said_where_it_is_missing(tmp_path):
    result = harvest_alone("weights", "fetch", "blazepose")
    assert result.returncode in (0, 2)  # 0: fetched before
    assert "Traceback" not in result.stderr

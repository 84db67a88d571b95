"""Make a synthetic capture, run the whole pipeline on it from Python, and compare the poses with the known truth.

    python examples/01_offline_run.py --out /tmp/offline

The folder then holds the capture (rig.yaml, videos/, keypoints/, truth.npz) and the run (run/report.html and the rest).
The grid and the tolerance are coarser than the defaults, so that it takes seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from harvest.metrics.pose import joint_errors, summary
from harvest.store.tables import read_poses, read_selection
from harvest.studio.figure import write_capture
from pipelines.capture import open_capture
from pipelines.run import Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import load_settings


def run_on_capture(out: Path, frames: int, voxels: int) -> RunFolder:
    """The folder of a run on a synthetic capture, which is made first where it is missing."""
    if not (out / "truth.npz").exists():
        write_capture(out, views=4, frames=frames)
    overrides: dict[str, dict[str, Any]] = {
        "detect": {"detector": "keypoints", "keypoints": out / "keypoints"},
        "reconstruct": {"voxels": voxels, "floor": 1e-3, "tolerance": 0.05},
    }
    capture = open_capture(out / "rig.yaml", out / "videos", frames=None, views=None)
    run = Run(capture, RunFolder(out / "run"), load_settings(None, overrides))
    execute(run)
    return run.folder


def main() -> None:
    """Run, then print the error of kept and of dropped joints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--voxels", type=int, default=32)
    args = parser.parse_args()
    folder = run_on_capture(args.out, args.frames, args.voxels)
    poses, selection = read_poses(folder.file("reconstruct")), read_selection(folder.file("select"))
    error_mm = 1000 * joint_errors(poses.xyz_m, np.load(args.out / "truth.npz")["xyz_m"])
    for name, chosen in (("kept", selection.keep), ("dropped", ~selection.keep & poses.found)):
        figures = summary(error_mm[chosen])
        print(f"{name:8} {figures['n']:4d} joints, error mean {figures['mean']:.1f} mm, p90 {figures['p90']:.1f} mm")


if __name__ == "__main__":
    main()

"""Errors against exact truth, and whether the ellipsoids tell them, of every method on one synthetic capture.

python benchmarks/known_truth.py --out known_truth
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from harvest.metrics.pose import joint_errors
from harvest.store.tables import read_poses, read_selection
from harvest.studio.figure import write_capture
from pipelines.capture import open_capture
from pipelines.run import Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import load_settings


def main() -> None:
    """Make the capture of `harvest demo --offline`, run each method on it, print one line a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    write_capture(out)
    truth = np.load(out / "truth.npz")["xyz_m"]
    print(f"{'mm':10}{'mean':>7}{'median':>8}{'p95':>7}{'kept':>7}{'dropped':>9}{'Mahalanobis^2 (3)':>19}{'flips':>7}")
    for method in ("pictorial", "ransac", "dlt"):
        chosen = {
            "detect": {"detector": "keypoints", "keypoints": out / "keypoints"},
            "reconstruct": {"method": method},
        }
        capture = open_capture(out / "rig.yaml", out / "videos", None, None)
        run = Run(capture, RunFolder(out / method), load_settings(None, chosen))
        execute(run)
        poses, keep = read_poses(run.folder.file("reconstruct")), read_selection(run.folder.file("select")).keep
        error = 1000 * joint_errors(poses.xyz_m, truth)
        offset, good = poses.xyz_m - truth, np.isfinite(poses.cov_m2).all(axis=(2, 3))
        squared = np.einsum("ni,nij,nj->n", offset[good], np.linalg.inv(poses.cov_m2[good]), offset[good])
        figures = f"{np.nanmean(error):7.1f}{np.nanmedian(error):8.1f}{np.nanpercentile(error, 95):7.1f}"
        halves = f"{np.nanmean(error[keep]):7.1f}{np.nanmean(error[~keep]):9.1f}"
        print(f"{method:10}{figures}{halves}{squared.mean():19.2f}{int((poses.flip > 0.5).sum()):7d}", flush=True)


if __name__ == "__main__":
    main()

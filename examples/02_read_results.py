"""Read a finished run: one line a joint, with its uncertainty and the share that was kept.

    python examples/02_read_results.py demo/run

Everything is in arrays after three lines of `main`; any Parquet reader shows the same numbers as tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from harvest.select import position_sigma_m
from harvest.store.tables import read_poses, read_selection


def main() -> None:
    """Print the table and the shapes of the arrays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    folder = parser.parse_args().run
    poses = read_poses(folder / "30_poses.parquet")  # xyz_m (T, J, 3), NaN where not found; cov_m2 (T, J, 3, 3)
    selection = read_selection(folder / "40_selection.parquet")  # keep (T, J), reason (T, J)
    sigma_mm = 1000 * position_sigma_m(poses.cov_m2)  # (T, J)

    print(f"{'joint':14}{'found':>8}{'kept':>8}{'sigma mm':>10}{'kept: mm':>10}{'views':>8}")
    for j, joint in enumerate(poses.joints):
        found, keep = poses.found[:, j], selection.keep[:, j]
        shares, views = f"{found.mean():8.0%}{keep.mean():8.0%}", poses.n_views[:, j].mean()
        print(f"{joint:14}{shares}{_median(sigma_mm[found, j])}{_median(sigma_mm[keep, j])}{views:8.1f}")

    kept_xyz_m = np.where(selection.keep[..., None], poses.xyz_m, np.nan)  # what is not trusted becomes NaN
    print(f"\npositions {kept_xyz_m.shape} (frames, joints, xyz) in metres, {selection.keep.sum()} of them kept")
    print(f"first frame {poses.frames[0]} at {poses.time_s[0]:.3f} s, views {', '.join(poses.views)}")


def _median(values: np.ndarray) -> str:
    return f"{np.median(values):10.1f}" if len(values) else f"{'-':>10}"


if __name__ == "__main__":
    main()

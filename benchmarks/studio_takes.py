"""Errors against exact truth on takes of the studio, and whether ellipsoids tell them, by method and number of views.

    harvest studio make --preset bench-4cam --takes 4 --out sets/bench
    python benchmarks/studio_takes.py --set sets/bench --out runs/bench --methods pictorial ransac dlt --views 2 3 4

Joints are those of MPII that the run has. Absolute errors; 'relative' puts pelvis on pelvis; PCK counts joints within
150 mm of the truth, those not found as wrong. All methods of a take and number of views get the same heat maps. Where
some takes show several people, a second line leaves these out: there it is the finder who may choose the wrong one.

A method may be given as NAME=METHOD:WEIGHTS, to compare weights of one method.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harvest.metrics.coverage import LEVELS, coverage, squared_mahalanobis
from harvest.metrics.pose import joint_errors, take_joints
from harvest.skeleton import load_skeleton
from harvest.store.tables import read_poses, read_selection
from pipelines.capture import open_capture
from pipelines.run import Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import load_settings

Floats = NDArray[np.float64]
JOINTS = load_skeleton("mpii16").joints
PELVIS = JOINTS.index("pelvis")
PCK_MM = 150.0


@dataclass(frozen=True)
class Errors:
    """Of one take: absolute and relative (T, J) mm, squared Mahalanobis distances (T, J), which are kept (T, J); and
    how many people it shows.
    """

    absolute: Floats
    relative: Floats
    squared: Floats
    keep: NDArray[np.bool_]
    people: int


def judge(take: Path, run: Run, every: slice) -> Errors:
    """A finished run against the take's truth."""
    stored = np.load(take / "truth" / "joints.npz")
    truth = stored["mpii16_xyz_m"][0][every][: len(run.capture.times_s)]
    poses, keep = read_poses(run.folder.file("reconstruct")), read_selection(run.folder.file("select")).keep
    pelvis = take_joints(poses.xyz_m, poses.joints, ["pelvis"])
    both = [joint for joint in JOINTS if joint in poses.joints]  # a joint that a detector lacks is no error of its own
    columns = [poses.joints.index(joint) for joint in both]
    xyz, centred = poses.xyz_m[:, columns], poses.xyz_m[:, columns] - pelvis
    right = truth - truth[:, PELVIS, None]
    truth, right = (points[:, [JOINTS.index(joint) for joint in both]] for points in (truth, right))
    return Errors(
        1000 * joint_errors(xyz, truth),
        1000 * joint_errors(centred, right),
        squared_mahalanobis(xyz - truth, poses.cov_m2[:, columns]),
        keep[:, columns],
        len(stored["mpii16_xyz_m"]),
    )


def line(name: str, found: list[Errors]) -> str:
    """One method's figures over all takes."""
    absolute, relative, squared = (
        np.concatenate([getattr(one, part).ravel() for one in found]) for part in ("absolute", "relative", "squared")
    )
    keep = np.concatenate([one.keep.ravel() for one in found])
    inside = " ".join(f"{100 * share:3.0f}" for share in coverage(squared))
    return (
        f"{name:36}{np.nanmean(absolute):8.1f}{np.nanmedian(absolute):8.1f}{np.nanpercentile(absolute, 95):8.1f}"
        f"{np.nanmean(relative):10.1f}{np.nanmean(absolute[keep]):8.1f}{np.nanmean(absolute[~keep]):9.1f}"
        f"{np.nan_to_num(absolute < PCK_MM).mean():8.3f}{np.isfinite(absolute).mean():8.3f}   {inside}"
    )


def reconstruction(method: str) -> dict[str, str | Path]:
    """Settings of a method as it is given on the command line."""
    name, _, weights = method.rpartition("=")[2].partition(":")
    return {"method": name} | ({"weights": Path(weights)} if weights else {})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="folder of `harvest studio make`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--methods", nargs="+", default=["pictorial", "ransac", "dlt"])
    parser.add_argument("--views", nargs="+", type=int, default=[4], help="so many of the cameras, the first ones")
    parser.add_argument("--detector", default="hourglass")
    parser.add_argument("--weights", type=Path, help="of the hourglass")
    parser.add_argument("--every", type=int, default=3, help="use every n-th frame")
    parser.add_argument("--config", type=Path, help="settings file")
    args = parser.parse_args()
    takes = sorted(path.parent for path in args.set.glob("*/rig.yaml"))
    inside = " ".join(f"{100 * level:3.0f}" for level in LEVELS)
    head = (
        f"{'mm':36}{'mean':>8}{'median':>8}{'95 %':>8}{'relative':>10}{'kept':>8}{'dropped':>9}{'PCK':>8}{'found':>8}"
    )
    print(f"{len(takes)} takes\n{head}   inside {inside} %")
    for count in args.views:
        table: dict[str, list[Errors]] = {method: [] for method in args.methods}
        for take in takes:
            names = open_capture(take / "rig.yaml", take / "videos", None, None).rig.names
            for method in args.methods:
                capture = open_capture(take / "rig.yaml", take / "videos", f"::{args.every}", ",".join(names[:count]))
                chosen = {
                    "detect": {"detector": args.detector, "weights": args.weights},
                    "reconstruct": reconstruction(method),
                }
                folder = RunFolder(args.out / f"{take.name}_{count}")
                run = Run(capture, folder, load_settings(args.config, chosen))
                execute(run, last="select")
                table[method].append(judge(take, run, slice(None, None, args.every)))
        for method, found in table.items():
            name, alone = f"{method.split('=')[0]}, {count} views", [one for one in found if one.people == 1]
            print(line(name, found), flush=True)
            if 0 < len(alone) < len(found):
                print(line(f"{name}, one person", alone), flush=True)


if __name__ == "__main__":
    main()

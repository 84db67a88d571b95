"""Runs on takes of the studio, and their estimates against exact truth: what other benchmarks share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from studio_takes import JOINTS, reconstruction

from harvest.store.tables import read_poses
from harvest.types import Poses3D
from pipelines.capture import open_capture
from pipelines.run import Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import load_settings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimates:
    """Of one run: its poses, their (T, J, 3) offsets from the truth in metres, NaN for joints that the truth lacks, and
    how many people the take shows.
    """

    poses: Poses3D
    offset_m: Floats
    people: int


def takes_of_set(folder: Path) -> list[Path]:
    """The takes of a set that `harvest studio make` made, in order of their names."""
    return sorted(path.parent for path in folder.glob("*/rig.yaml"))


def against_truth(take: Path, out: Path, method: str, views: int | None, every: int) -> Estimates:
    """One take by one method, by its first cameras (all of them if views is None) and every n-th frame; a run in `out`
    whose settings are the same is reused.
    """
    names = open_capture(take / "rig.yaml", take / "videos", None, None).rig.names[:views]
    capture = open_capture(take / "rig.yaml", take / "videos", f"::{every}", ",".join(names))
    settings = load_settings(None, {"reconstruct": reconstruction(method)})
    run = Run(capture, RunFolder(out / f"{take.name}_{len(names)}"), settings)
    execute(run, last="reconstruct")
    poses, stored = read_poses(run.folder.file("reconstruct")), np.load(take / "truth" / "joints.npz")
    true_m = stored["mpii16_xyz_m"][0][::every][: len(poses.frames)]
    offset = np.full(poses.xyz_m.shape, np.nan)
    for index, joint in enumerate(poses.joints):
        if joint in JOINTS:
            offset[:, index] = poses.xyz_m[:, index] - true_m[:, JOINTS.index(joint)]
    return Estimates(poses, offset, len(stored["mpii16_xyz_m"]))


def joined(found: list[Estimates]) -> tuple[Floats, Floats]:
    """(N, 3) offsets in metres and (N, 3, 3) covariances of all joints, frames and runs."""
    offset = np.concatenate([one.offset_m.reshape(-1, 3) for one in found])
    return offset, np.concatenate([one.poses.cov_m2.reshape(-1, 3, 3) for one in found])


def of_one_person(takes: list[Path], out: Path, method: str, views: int | None, every: int) -> Iterator[Estimates]:
    """The takes that show one person alone: of two, the finder may follow the other one, which no covariance knows."""
    for take in takes:
        found = against_truth(take, out, method, views, every)
        if found.people == 1:
            yield found

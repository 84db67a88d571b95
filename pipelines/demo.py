"""The demonstration: a real four-camera sample, or a synthetic capture made on the spot, and a whole run on it."""

from __future__ import annotations

import logging
from pathlib import Path

from calib.importers import import_rig
from harvest.store.wheel import WheelSource, fetch_members
from harvest.studio.figure import write_capture
from pipelines.capture import open_capture
from pipelines.rig_tools import refine
from pipelines.run import Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import load_settings

_log = logging.getLogger(__name__)

SAMPLE = WheelSource(
    "pose2sim==0.10.49",
    "403e0dc4065898ba6a595e72a8970950310979253d60e24c2e00b16b36bf21e1",
    "BSD-3-Clause, David Pagnon and others",
    ("--only-binary=:all:", "--no-build-isolation"),
)
INSIDE = "Pose2Sim/Demo_SinglePerson"
MEMBERS = {f"{INSIDE}/videos/cam0{i}.mp4": f"videos/cam0{i}.mp4" for i in (1, 2, 3, 4)} | {
    f"{INSIDE}/calibration/Calib.qca.txt": "Calib.qca.txt"
}


def run_demo(out: Path, offline: bool) -> Path:
    """Make or fetch the sample in `out`, run on it, and return the path of the report.

    The real sample's calibration has faults that its own pictures show, so it runs twice: with the rig as given, then
    with the rig refined by the first run's joints.
    """
    return _synthetic(out) if offline else _real(out)


def _synthetic(out: Path) -> Path:
    if not (out / "truth.npz").exists():
        write_capture(out)
    overrides = {"detect": {"detector": "keypoints", "keypoints": out / "keypoints"}}
    return _run(out / "rig.yaml", out / "videos", out / "run", overrides)


def _real(out: Path) -> Path:
    if not all((out / path).exists() for path in MEMBERS.values()):
        _log.info("fetching the sample: %s, %s", SAMPLE.requirement, SAMPLE.licence)
        fetch_members(SAMPLE, MEMBERS, out)
    rig = out / "rig.yaml"
    rig.write_text(import_rig(out / "Calib.qca.txt").to_yaml(), encoding="utf-8")
    _run(rig, out / "videos", out / "run_as_calibrated", {})
    refined = out / "rig_refined.yaml"
    for line in refine(out / "run_as_calibrated", refined):
        _log.info("%s", line)
    return _run(refined, out / "videos", out / "run", {})


def _run(rig: Path, videos: Path, out: Path, overrides: dict[str, dict[str, object]]) -> Path:
    capture = open_capture(rig, videos, None, None)
    run = Run(capture, RunFolder(out), load_settings(None, overrides))
    execute(run)
    return run.folder.file("report")

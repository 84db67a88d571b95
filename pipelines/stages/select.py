"""Stage 4: the joints that are certain enough."""

from pathlib import Path

from calib.rig import Rig
from harvest.pose_groups import pose_groups
from harvest.select import SelectionRule, select
from harvest.store.tables import read_poses, write_selection
from harvest.uncertainty import Calibration, probability_within
from pipelines.settings import SelectSettings


def run_select(
    settings: SelectSettings, poses_path: Path, rig: Rig, calibration: Calibration, out: Path, key: str
) -> str:
    """Write 40_selection.parquet; a line for the log."""
    poses = read_poses(poses_path)
    rule = SelectionRule(settings.rule, settings.keep, settings.within_mm / 1000, settings.at_least)
    probability = probability_within(poses.cov_m2, rule.within_m, calibration)
    selection = select(poses, rule, probability, pose_groups(poses, settings.pose_groups, rig.up))
    write_selection(out, poses, selection, key)
    return f"{selection.keep.mean():.1%} of all joints kept"

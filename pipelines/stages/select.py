"""Stage 4: the joints that are certain enough."""

from pathlib import Path

from harvest.select import select_by_determinant
from harvest.store.tables import read_poses, write_selection
from pipelines.settings import SelectSettings


def run_select(settings: SelectSettings, poses_path: Path, out: Path, key: str) -> str:
    """Write 40_selection.parquet; a line for the log."""
    poses = read_poses(poses_path)
    selection = select_by_determinant(poses, settings.keep)
    write_selection(out, poses, selection, key)
    return f"{selection.keep.mean():.1%} of all joints kept"

"""Published layouts of multi-view footage with true joints, each read into `Footage`."""

from pathlib import Path

from harvest.learn.layouts.footage import Footage, maps_of_footage
from harvest.learn.layouts.human36m import is_human36m, read_human36m_footage
from harvest.learn.layouts.panoptic import is_panoptic, read_panoptic_footage

__all__ = ["Footage", "footage_of", "maps_of_footage"]


def footage_of(path: Path) -> Footage | None:
    """The footage of a published layout, recognised by what a folder holds; None if it is none.

    Raises:
        UserError, CalibrationError: one that is incomplete or cannot be read.
    """
    if is_panoptic(path):
        return read_panoptic_footage(path)
    return read_human36m_footage(path) if is_human36m(path) else None

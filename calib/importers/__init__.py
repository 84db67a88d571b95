"""Foreign calibration files, each read into a Rig."""

from pathlib import Path

from calib.errors import CalibrationError
from calib.importers.human36m import read_human36m
from calib.importers.panoptic import read_panoptic
from calib.importers.qualisys import read_qualisys
from calib.importers.toml import read_toml
from calib.rig import Rig

__all__ = ["import_rig", "read_human36m", "read_panoptic", "read_qualisys", "read_toml"]


def import_rig(path: Path) -> Rig:
    """The rig of a foreign calibration file; the reader is chosen by the file's name.

    Raises:
        CalibrationError: an unknown kind of file, or one that its reader cannot use.
    """
    name = path.name.lower()
    if name.endswith((".qca.txt", ".qca", ".xml")):
        return read_qualisys(path)
    if name.endswith(".toml"):
        return read_toml(path)
    if name.endswith(".json"):
        return read_panoptic(path)
    raise CalibrationError(
        f"cannot tell what kind of calibration {path} is; known: Qualisys .qca.txt, aniposelib .toml, Panoptic .json"
    )

"""What a report is made of: the values of one run, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from harvest.skeleton import Skeleton
from harvest.types import PersonBoxes, Poses3D, Selection


@dataclass(frozen=True)
class ReportContent:
    """One run, as the report shows it.

    rig: holds every view of `poses`; skeleton: its joints are those of `poses`, in that order. limb_length_m (J,) from
    each joint to its parent, NaN at the root. peaks_px (V, T, J, 2) and peaks_confidence (V, T, J): what each view's
    detector said, views in the order of `poses`, NaN where missing. stage_seconds: stage, seconds, and a note such as
    "computed" or "reused because ...". notes: warnings in plain sentences. settings: shown as YAML.

    Raises:
        ValueError: shapes or names that do not agree.
        CalibrationError: a view that the rig does not hold.
    """

    title: str
    rig: Rig
    skeleton: Skeleton
    poses: Poses3D
    selection: Selection
    boxes: PersonBoxes | None
    limb_length_m: NDArray[np.floating] | None
    peaks_px: NDArray[np.floating] | None
    peaks_confidence: NDArray[np.floating] | None
    stage_seconds: list[tuple[str, float, str]]
    notes: list[str]
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        """Check that the parts agree, and bring the rig into the order of the poses' views."""
        t, v, j = len(self.poses.frames), len(self.poses.views), len(self.poses.joints)
        if self.skeleton.joints != self.poses.joints:
            raise ValueError(
                f"the skeleton's joints {self.skeleton.joints} are not those of the poses {self.poses.joints}"
            )
        expected = {
            "selection.keep": (self.selection.keep, (t, j)),
            "limb_length_m": (self.limb_length_m, (j,)),
            "peaks_px": (self.peaks_px, (v, t, j, 2)),
            "peaks_confidence": (self.peaks_confidence, (v, t, j)),
        }
        for name, (array, shape) in expected.items():
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
        object.__setattr__(self, "rig", self.rig.select(self.poses.views))

    def image_from_crop(self, frame: int, view: str) -> NDArray[np.floating] | None:
        """(2, 3) affine of the person's box in a view at a frame number, or None where there is none."""
        if self.boxes is None or view not in self.boxes.views:
            return None
        rows = np.flatnonzero(self.boxes.frames == frame)
        if not len(rows):
            return None
        affine: NDArray[np.floating] = self.boxes.image_from_crop[rows[0], self.boxes.views.index(view)]
        return affine if np.isfinite(affine).all() and abs(np.linalg.det(affine[:, :2])) > 1e-6 else None

"""Boxes that users bring: one CSV row a frame, view and person."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harvest.detect2d.candidates import PersonCandidates
from harvest.errors import UserError

COLUMNS = ("frame", "view", "x_px", "y_px", "width_px", "height_px")


def read_box_file(
    path: Path, views: Sequence[str], frames: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[list[PersonCandidates]]]:
    """Places in `frames` that have boxes, and for each the boxes of every view as candidates.

    The file's header names `frame, view, x_px, y_px, width_px, height_px` (top-left corner and size); further columns
    are passed over. A box's middle stands for the hips and half its longer side for the body's radius.

    Raises:
        UserError: no such file, a missing column, a value that is no number, no box for these frames and views.
    """
    rows: dict[tuple[int, str], list[list[float]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} has no column '{missing[0]}'; a boxes file needs {', '.join(COLUMNS)}")
            for row in reader:
                rows[int(row["frame"]), row["view"]].append([float(row[name]) for name in COLUMNS[2:]])
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the boxes file {path} ({error}); give a CSV file") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; every value must be a number") from None
    places = [place for place, frame in enumerate(frames) if any((int(frame), view) in rows for view in views)]
    if not places:
        raise UserError(
            f"{path} has no box for views {', '.join(views)} in the chosen frames; check the names in 'view'"
        )
    found = [[_candidates(rows.get((int(frames[place]), view), [])) for view in views] for place in places]
    return np.array(places), found


def _candidates(boxes: list[list[float]]) -> PersonCandidates:
    box = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return PersonCandidates(
        box[:, :2] + box[:, 2:] / 2 - 0.5, box[:, 2:].max(axis=1, initial=0.0) / 2, np.ones(len(box))
    )

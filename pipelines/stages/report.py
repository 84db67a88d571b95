"""Stage 6: the page on which every result can be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harvest.reconstruct.methods import for_skeleton
from harvest.reconstruct.peaks import peak_points
from harvest.report import ReportContent, write_report
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_boxes, read_poses, read_selection
from pipelines.capture import Capture
from pipelines.settings import ReportSettings
from pipelines.stages.reconstruct import BLOCK_FRAMES, read_limbs


def run_report(
    capture: Capture, settings: ReportSettings, inputs: dict[str, Path], story: dict[str, Any], out: Path, key: str
) -> str:
    """Write report.html; a line for the log. `inputs` by name; `story`: title, stages' seconds, settings."""
    skeleton, lengths = read_limbs(inputs["limbs"])
    store = HeatmapStore(inputs["heatmaps"])
    points, values = [], []
    for first in range(0, len(store), BLOCK_FRAMES):
        maps = for_skeleton(store.read(first, min(first + BLOCK_FRAMES, len(store))), skeleton)
        block = peak_points(maps)
        points.append(block[0])
        values.append(block[1])
    content = ReportContent(
        title=story["title"],
        rig=capture.rig,
        skeleton=skeleton,
        poses=read_poses(inputs["poses"]),
        selection=read_selection(inputs["selection"]),
        boxes=read_boxes(inputs["boxes"]),
        limb_length_m=lengths,
        peaks_px=np.concatenate(points).transpose(1, 0, 2, 3),
        peaks_confidence=np.concatenate(values).transpose(1, 0, 2),
        stage_seconds=story["stages"],
        notes=list(capture.warnings),
        settings=story["settings"],
    )
    write_report(out, content, capture.pictures, settings.frames_shown)
    with out.open("a", encoding="utf-8") as file:
        file.write(f"<!-- harvest_fingerprint: {key} -->\n")
    return f"report of {out.stat().st_size / 1e6:.1f} MB"

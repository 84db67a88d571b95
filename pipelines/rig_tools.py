"""Checking a rig against videos, and refining it with the 2D joints of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calib.checks import Finding, check_rig
from calib.refine import describe, refine_rig
from calib.rig import load_rig, read_entries
from harvest.errors import UserError
from harvest.reconstruct.peaks import peak_points
from harvest.store.heatmaps import HeatmapStore
from harvest.video import pair_videos, probe
from pipelines.run_folder import RunFolder

REFINE_FRAMES = 60


def check(rig: Path, videos: Path | None) -> list[Finding]:
    """What is wrong with a rig.yaml, camera by camera; with videos, also whether their pictures fit."""
    if videos is None:
        return check_rig(rig, None)
    _, entries = read_entries(rig)
    explicit = {str(entry["name"]): entry.get("video") for entry in entries}
    paths, _ = pair_videos(list(explicit), videos, explicit)
    files = {name: probe(path) for name, path in paths.items()}
    return check_rig(rig, {name: (file.width_px, file.height_px) for name, file in files.items()})


def refine(run: Path, out: Path) -> list[str]:
    """Write a rig whose cameras fit the 2D joints of a finished run better; sentences about what changed.

    Raises:
        UserError, CalibrationError: no finished run, too few joints that views agree on, or a result that is not to be
            trusted.
    """
    folder = RunFolder(run)
    if folder.stored_fingerprint("detect") is None:
        raise UserError(f"{run} holds no finished run (no {folder.file('detect').name}); run `harvest run` first")
    rig, store = load_rig(run / "rig.yaml"), HeatmapStore(folder.file("detect"))
    places = np.unique(np.linspace(0, len(store) - 1, min(REFINE_FRAMES, len(store))).round().astype(int))
    blocks = [peak_points(store.read(place, place + 1)) for place in places]
    points = np.concatenate([block[0] for block in blocks]).transpose(1, 0, 2, 3)
    values = np.concatenate([block[1] for block in blocks]).transpose(1, 0, 2)
    refined = refine_rig(rig, points.reshape(len(rig), -1, 2), values.reshape(len(rig), -1))
    if refined.doubt is not None:
        raise UserError(f"the rig was not refined: {refined.doubt}")
    out.write_text(refined.rig.to_yaml(), encoding="utf-8")
    return [*describe(refined), f"written to {out}"]

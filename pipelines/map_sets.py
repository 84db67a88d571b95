"""Sets of multi-view heat maps to train triangulation on: out of rendered views, footage with true joints, or runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.rig import load_rig
from harvest.detect2d.detectors import make_detector
from harvest.errors import UserError
from harvest.learn.layouts import footage_of, maps_of_footage
from harvest.learn.map_sets import MapSet, MultiViewMaps, maps_of_multiviews, read_header, write_map_set
from harvest.learn.samples import LABEL_SETS, rows_of
from harvest.learn.training import train
from harvest.learn.triangulation import WEIGHTS, TriangulationSettings, TriangulationTraining, build_triangulator
from harvest.store.fingerprint import file_fingerprint, fingerprint
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_poses, read_selection
from harvest.triangulate3d.lenses import optics_of
from pipelines.run_folder import RunFolder

Floats = NDArray[np.float64]
FEWEST_VIEWS, NEEDED_SHARE = 2, 0.5  # of the views and of the joints that a moment must have


@dataclass(frozen=True)
class Given:
    """What triangulation is trained on: folders as `map_set_of` takes them, to learn from and to measure on, and the
    weights of the hourglass that looks at pictures, None for the package's.
    """

    learn: Path
    measure: Path | None = None
    weights: Path | None = None


def train_on(
    given: Given,
    out: Path,
    settings: TriangulationSettings,
    processes: int = 1,
    most_seconds: float = float("inf"),
) -> Path:
    """Train triangulation in a folder, or go on with it; heat maps that have to be made first lie in it too. Gives the
    file of weights.

    Raises:
        UserError: as `map_set_of`, `TriangulationTraining` and `train`.
    """
    build_triangulator(settings, ("any",))  # refuses what no network has, before the heat maps are made
    measure = map_set_of(given.measure, out / "validation_maps", given.weights) if given.measure else None
    learn = map_set_of(given.learn, out / "maps", given.weights)
    train(partial(TriangulationTraining, learn, out, settings, measure), processes, most_seconds)
    return out / WEIGHTS


def map_set_of(data: Path, out: Path, weights: Path | None = None) -> MapSet:
    """The set of heat maps in `data`; one made of it in `out` where it is a finished run, or a folder of rendered
    multi-view samples or of footage in a published layout, which the hourglass looks at first.

    Args:
        weights: of that hourglass, instead of the package's.
    Raises:
        UserError: `data` is none of these, or cannot be used, or `out` holds something else.
        CalibrationError: footage whose cameras cannot be read.
    """
    if read_header(data) is not None:
        return MapSet(data)
    if (data / "run.yaml").is_file():
        return maps_of_run(data, out)
    footage = footage_of(data)
    if footage is None and not data.is_dir():
        raise UserError(
            f"{data} is no folder; give one of `harvest studio views`, of footage with joints (docs/formats.md), a "
            "finished run, or a set of heat maps"
        )
    detector = make_detector("hourglass", weights, flip_test=False)
    return maps_of_footage(footage, detector, out) if footage else maps_of_multiviews(data, detector, out)


def maps_of_run(run: Path, out: Path, truth: Path | None = None) -> MapSet:
    """The maps of a finished run, with the joints that it kept as truth, or the exact truth of a studio take.

    Moments count that two views or more have maps of, with at least half of the joints known.

    Args:
        truth: folder of the take that was filmed, or its joints.npz (docs/formats.md).
    Raises:
        UserError: no finished run, or a truth that is not of its frames.
    """
    folder = RunFolder(run)
    if folder.stored_fingerprint("select") is None:
        raise UserError(f"{run} holds no finished run (no {folder.file('select').name}); run `harvest run` first")
    store = HeatmapStore(folder.file("detect"))
    rig = load_rig(run / "rig.yaml").select(store.views)
    optics, up = optics_of(rig), np.array(rig.up)
    xyz = _kept_joints(folder, store) if truth is None else _exact_joints(truth, store)
    present = np.array([store.read(place, place + 1).present[0] for place in range(len(store))])
    known = np.isfinite(xyz).all(axis=2).mean(axis=1) >= NEEDED_SHARE
    rows = np.flatnonzero(known & (present.sum(axis=1) >= FEWEST_VIEWS))

    def item(index: int) -> MultiViewMaps:
        row = int(rows[index])
        maps = store.read(row, row + 1)
        return MultiViewMaps(store.joints, maps.score[0], maps.image_from_heatmap[0], optics, up, xyz[row])

    beside = folder.stored_fingerprint("select") if truth is None else file_fingerprint(_truth_file(truth))
    return write_map_set(out, store.joints, len(rows), item, fingerprint("run", store.fingerprint, beside))


def _kept_joints(folder: RunFolder, store: HeatmapStore) -> Floats:
    """(T, J, 3) of the maps' joints, NaN where the run did not keep them."""
    poses, keep = read_poses(folder.file("reconstruct")), read_selection(folder.file("select")).keep
    kept = np.where(keep[..., None], poses.xyz_m, np.nan)
    xyz = np.full((len(store), len(store.joints), 3), np.nan)
    for index, joint in enumerate(store.joints):
        if joint in poses.joints:
            xyz[:, index] = kept[:, poses.joints.index(joint)]
    return xyz


def _exact_joints(truth: Path, store: HeatmapStore) -> Floats:
    """(T, J, 3) of the maps' joints, of the person that was filmed."""
    path = _truth_file(truth)
    try:
        with np.load(path) as file:
            sets: dict[str, Any] = {name: {"names": file[f"{name}_names"].tolist()} for name in LABEL_SETS}
            exact = {name: file[f"{name}_xyz_m"][0] for name in LABEL_SETS}
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"cannot read the truth {path} ({error}); give a take's folder, or its joints.npz") from None
    times = len(exact[LABEL_SETS[0]])
    if store.frames.max() >= times:
        raise UserError(f"{path} has {times} frames and the run goes to frame {store.frames.max()}; give its own take")
    xyz = np.full((len(store), len(store.joints), 3), np.nan)
    for index, (name, row) in enumerate(rows_of(store.joints, sets)):
        if name:
            xyz[:, index] = exact[name][store.frames, row]
    return xyz


def _truth_file(truth: Path) -> Path:
    return truth / "truth" / "joints.npz" if truth.is_dir() else truth

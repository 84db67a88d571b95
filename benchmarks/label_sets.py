"""What should a detector be fine-tuned on? Table 4 of Pavlakos et al. 2017, on takes with exact truth.

Takes come in pairs of one person: the detector is fine-tuned on labels that a run harvested from the first, and judged
on the second: the error of pictorial structures with its maps, by all views, by every second and by every third of
them; and its own peaks in 2D, by their distance from the truth over the crop's side, and PCP. Truth judges and takes no
other part; frames held out to end a fine-tuning early are the last ones of the first take. What is done stands in
OUT/results.csv, one line a fine-tuning; a stopped command goes on.

    harvest studio make --preset bench-gap --out sets/bench-gap
    python benchmarks/label_sets.py --set sets/bench-gap --out runs/gap
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from results import Results
from studio_takes import JOINTS, judge
from unseen_view import part, reconstruct

from harvest.detect2d.weights import DETECTOR, shipped
from harvest.labels import TEACHERS
from harvest.learn.personal import PersonalSettings
from harvest.metrics.pose import PARTS, correct_parts, joint_errors, take_joints
from harvest.reconstruct.methods import for_skeleton
from harvest.reconstruct.peaks import peak_points
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_boxes
from harvest.types import Heatmaps, PersonBoxes
from pipelines.capture import open_capture
from pipelines.personalize import Order, learn_round, rerun
from pipelines.run import Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import ReconstructSettings, load_settings
from pipelines.stages.reconstruct import skeleton_for

COLUMNS = ("subject", "labels", "seed", "mean_mm", "second_mm", "third_mm", "off_share", "far_share", *PARTS, "seconds")
FAR = 0.05  # of the crop's side


def run_take(take: Path, out: Path, every: int) -> Run:
    """A take's run with the detector that everybody gets."""
    run = Run(
        open_capture(take / "rig.yaml", take / "videos", f"::{every}", None), RunFolder(out), load_settings(None, {})
    )
    execute(run, last="label")
    return run


def figures(take: Path, folder: Path, every: int) -> dict[str, float]:
    """Errors of a finished run on a take, and shares of parts that are right in 2D."""
    run = Run(
        open_capture(folder / "rig.yaml", take / "videos", f"::{every}", None),
        RunFolder(folder),
        load_settings(None, {}),
    )
    errors = judge(take, run, slice(None, None, every))
    stored, store = np.load(take / "truth" / "joints.npz"), HeatmapStore(run.folder.file("detect"))
    places = [list(stored["views"]).index(view) for view in store.views]
    truth = stored["mpii16_uv_px"][places, 0][:, ::every].transpose(1, 0, 2, 3)[: len(store)]
    maps = store.read(0, len(store))
    side = np.sqrt(np.abs(np.linalg.det(maps.image_from_heatmap[..., :2]))) * maps.score.shape[-1]
    peaks = take_joints(peak_points(maps)[0], store.joints, JOINTS)
    off = np.linalg.norm(peaks - truth, axis=3) / side[..., None]
    parts = correct_parts(peaks, truth, JOINTS)
    few = [by_some(run, maps, stored["mpii16_xyz_m"][0][::every], step) for step in (2, 3)]
    return {
        "mean_mm": float(np.nanmean(errors.absolute)),
        **dict(zip(("second_mm", "third_mm"), few, strict=True)),
        "off_share": float(np.nanmean(off)),
        "far_share": float(np.nanmean(off > FAR)),
        **{kind: float(np.nanmean(right)) for kind, right in parts.items()},
    }


def by_some(run: Run, maps: Heatmaps, truth: NDArray[np.float64], step: int) -> float:
    """Mean error in mm of pictorial structures by every so many of the views, of every second frame."""
    views, frames = list(range(0, len(maps.views), step)), slice(None, None, 2)
    skeleton, boxes = skeleton_for(maps.joints, None), read_boxes(run.folder.file("locate"))
    some = for_skeleton(part(maps, views), skeleton)
    some = Heatmaps(some.frames[frames], some.views, some.joints, some.score[frames], some.image_from_heatmap[frames])
    arrays = (boxes.centre_m, boxes.radius_m, boxes.image_from_crop)
    there = PersonBoxes(boxes.frames[frames], boxes.views, *(array[frames] for array in arrays))
    settings = ReconstructSettings(sharpness=HeatmapStore(run.folder.file("detect")).sharpness)
    rig = run.capture.rig.select([maps.views[view] for view in views])
    poses = reconstruct(rig, some, there, skeleton, "pictorial", settings)
    xyz = take_joints(poses.xyz_m, poses.joints, JOINTS)
    return float(1000 * np.nanmean(joint_errors(xyz, truth[frames][: len(xyz)])))


@dataclass(frozen=True)
class How:
    """What is alike in all fine-tunings of a table: which frames, how much of the start stays, how many epochs."""

    every: int
    start_share: float
    epochs: int


def fine_tuned(pair: tuple[Path, Path], out: Path, labels: str, seed: int, how: How) -> dict[str, float]:
    """Fine-tune on the first take's run, run on the second with the result; figures of that."""
    first, second = (out / "generic" / take.name for take in pair)
    place, begin = out / f"{pair[0].name}_{labels}_{seed}", time.monotonic()
    settings = PersonalSettings(start=str(shipped(DETECTOR)), start_share=how.start_share, seed=seed, checkpoint_s=60.0)
    order = Order(first, pair[0] / "videos", place, labels)
    weights = learn_round(order, place / "round", first, settings, epochs=how.epochs)
    assert weights is not None
    seconds = time.monotonic() - begin
    rerun(second, pair[1] / "videos", place / "judged", weights, last="select")
    found = figures(pair[1], place / "judged", how.every) | {"seconds": seconds}
    for name in ("crops", "held_out"):
        shutil.rmtree(place / "round" / name)
    shutil.rmtree(place / "judged")
    return found


def result(pair: tuple[Path, Path], out: Path, labels: str, seed: int, how: How) -> dict[str, float]:
    """Figures of the second take, by the detector that everybody gets, or after fine-tuning on the first one."""
    for take in pair:
        run_take(take, out / "generic" / take.name, how.every)
    if labels == "generic":
        return figures(pair[1], out / "generic" / pair[1].name, how.every) | {"seconds": 0.0}
    return fine_tuned(pair, out, labels, seed, how)


def told(rows: list[dict[str, str]]) -> None:
    """Print the table: means over subjects and seeds, the spread over seeds (standard deviation), and gains."""
    heads = ("all views mm", "every 2nd", "every 3rd", "off %", "far %", *PARTS)
    print(f"{'':10}" + "".join(f"{name:>22}" for name in heads[:5]) + "".join(f"{name:>12}" for name in heads[5:]))
    scale = dict.fromkeys(COLUMNS, 1.0) | dict.fromkeys(("off_share", "far_share", *PARTS), 100.0)
    base: dict[str, float] = {}
    for labels in ("generic", "hm", "hm+sel", "ps", "ps+sel"):
        some = [row for row in rows if row["labels"] == labels]
        cells = []
        for name in COLUMNS[3:-1] if some else ():
            seeds = sorted({row["seed"] for row in some})
            means = [np.mean([scale[name] * float(row[name]) for row in some if row["seed"] == seed]) for seed in seeds]
            mean, spread = float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
            base.setdefault(name, mean)
            gain = f"{mean:.2f} ±{spread:.2f} ({100 * (1 - mean / base[name]):+.1f} %)"
            cells.append(f"{mean:12.1f}" if name in PARTS else f"{gain:>22}")
        print(f"{labels:10}" + "".join(cells))


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", default=["ps+sel", "ps", "hm", "hm+sel"], choices=TEACHERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--every", type=int, default=2, help="use every n-th frame")
    parser.add_argument("--start-share", type=float, default=PersonalSettings.start_share)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    takes = sorted(path.parent for path in args.set.glob("*/rig.yaml"))
    pairs = list(zip(takes[::2], takes[1::2], strict=True))
    results = Results(args.out / "results.csv", COLUMNS[:3], COLUMNS[3:])
    how = How(args.every, args.start_share, args.epochs)
    todo = [("generic", 0), *((labels, seed) for seed in args.seeds for labels in args.labels)]
    for labels, seed in todo:
        for number, pair in enumerate(pairs):
            results.add((number, labels, seed), partial(result, pair, args.out, labels, seed, how))
    told(results.rows())


if __name__ == "__main__":
    main()

"""What should a detector be fine-tuned on? Table 4 of Pavlakos et al. 2017, on takes with exact truth.

Takes come in pairs of one person: the detector is fine-tuned on labels that a run harvested from the first, and judged
on the second: the error of pictorial structures with its maps, and PCP of its own peaks in 2D, in all views. Truth
judges and takes no other part; frames held out to end a fine-tuning early are the last ones of the first take. What is
done stands in OUT/results.csv, one line a fine-tuning; a stopped command goes on.

    harvest studio make --preset bench-gap --out sets/bench-gap
    python benchmarks/label_sets.py --set sets/bench-gap --out runs/gap
"""

from __future__ import annotations

import argparse
import csv
import shutil
import time
from pathlib import Path

import numpy as np
from studio_takes import JOINTS, judge

from harvest.detect2d.hourglass_detector import fast_bf16
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.labels import TEACHERS
from harvest.learn.personal import PersonalSettings
from harvest.metrics.pose import PARTS, correct_parts, take_joints
from harvest.reconstruct.peaks import peak_points
from harvest.store.heatmaps import HeatmapStore
from pipelines.capture import open_capture
from pipelines.personalize import Order, learn_round, rerun
from pipelines.run import Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import load_settings

COLUMNS = ("subject", "labels", "seed", "mean_mm", "median_mm", "kept_mm", *PARTS, "seconds")


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
    peaks = np.concatenate([peak_points(store.read(i, i + 1))[0] for i in range(len(store))])
    parts = correct_parts(take_joints(peaks, store.joints, JOINTS), truth, JOINTS)
    return {
        "mean_mm": float(np.nanmean(errors.absolute)),
        "median_mm": float(np.nanmedian(errors.absolute)),
        "kept_mm": float(np.nanmean(errors.absolute[errors.keep])),
        **{kind: float(np.nanmean(right)) for kind, right in parts.items()},
    }


def fine_tuned(pair: tuple[Path, Path], out: Path, labels: str, seed: int, every: int) -> dict[str, float]:
    """Fine-tune on the first take's run, run on the second with the result; figures of that."""
    first, second = (out / "generic" / take.name for take in pair)
    place, begin = out / f"{pair[0].name}_{labels}_{seed}", time.monotonic()
    settings = PersonalSettings(start=str(shipped(DETECTOR)), seed=seed, bf16=fast_bf16(), checkpoint_s=60.0)
    order = Order(first, pair[0] / "videos", place, labels)
    weights = learn_round(order, place / "round", first, settings, epochs=4)
    assert weights is not None
    seconds = time.monotonic() - begin
    rerun(second, pair[1] / "videos", place / "judged", weights, last="select")
    found = figures(pair[1], place / "judged", every) | {"seconds": seconds}
    for name in ("crops", "held_out"):
        shutil.rmtree(place / "round" / name)
    shutil.rmtree(place / "judged")
    return found


def told(rows: list[dict[str, str]]) -> None:
    """Print the table: over subjects, mean and spread over seeds."""
    means: dict[str, np.ndarray] = {}
    print(
        f"{'':10}{'mean mm':>16}{'gain':>8}{'median mm':>11}{'kept mm':>9}   "
        + "".join(f"{kind:>12}" for kind in PARTS)
    )
    for labels in ("generic", *(name for name in ("hm", "hm+sel", "ps", "ps+sel"))):
        some = [row for row in rows if row["labels"] == labels]
        if not some:
            continue
        seeds = sorted({row["seed"] for row in some})
        by_seed = [
            {key: np.mean([float(row[key]) for row in some if row["seed"] == seed]) for key in COLUMNS[3:]}
            for seed in seeds
        ]
        mean = {key: np.array([one[key] for one in by_seed]) for key in COLUMNS[3:]}
        means[labels] = mean["mean_mm"]
        gain = 1 - means[labels].mean() / means["generic"].mean()
        spread = f"{mean['mean_mm'].mean():8.2f} ± {mean['mean_mm'].std(ddof=1) if len(seeds) > 1 else 0:4.2f}"
        parts = "".join(f"{100 * mean[kind].mean():12.1f}" for kind in PARTS)
        others = f"{mean['median_mm'].mean():11.2f}{mean['kept_mm'].mean():9.2f}"
        print(f"{labels:10}{spread:>16}{100 * gain:7.1f}%{others}   {parts}")


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", default=["ps+sel", "ps", "hm", "hm+sel"], choices=TEACHERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--every", type=int, default=2, help="use every n-th frame")
    args = parser.parse_args()
    takes = sorted(path.parent for path in args.set.glob("*/rig.yaml"))
    pairs = list(zip(takes[::2], takes[1::2], strict=True))
    table = args.out / "results.csv"
    args.out.mkdir(parents=True, exist_ok=True)
    if not table.is_file():
        table.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    todo = [("generic", 0), *((labels, seed) for seed in args.seeds for labels in args.labels)]
    for labels, seed in todo:
        for number, pair in enumerate(pairs):
            with table.open(encoding="utf-8", newline="") as file:
                done = {(row["subject"], row["labels"], row["seed"]) for row in csv.DictReader(file)}
            if (str(number), labels, str(seed)) in done:
                continue
            for take in pair:
                run_take(take, args.out / "generic" / take.name, args.every)
            judged = args.out / "generic" / pair[1].name
            found = (
                figures(pair[1], judged, args.every) | {"seconds": 0.0}
                if labels == "generic"
                else fine_tuned(pair, args.out, labels, seed, args.every)
            )
            row = [number, labels, seed, *(f"{found[key]:.5g}" for key in COLUMNS[3:])]
            with table.open("a", encoding="utf-8") as file:
                file.write(",".join(map(str, row)) + "\n")
    with table.open(encoding="utf-8", newline="") as file:
        told(list(csv.DictReader(file)))


if __name__ == "__main__":
    main()

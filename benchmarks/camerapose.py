"""CameraPose step by step, where it was trained and on other people who do other things (tables 4 and 5 of its paper).

3D is known of some people of split train alone; others of it are known in 2D. Judged: the same people before other
cameras, and the people and motions of val and test. Once with exact joints in 2D, and once as a detector finds them.

    harvest studio poses --split train --n 32000 --out sets/poses/train.npz
    harvest studio poses --split train --n 7000 --seed 1 --out sets/poses/again.npz
    harvest studio poses --split val --n 7000 --out sets/poses/val.npz
    harvest studio poses --split test --n 7000 --out sets/poses/test.npz
    python benchmarks/camerapose.py --poses sets/poses --out runs/camerapose
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import Results, mean_and_spread

from harvest.learn.camerapose_training import CameraPoseSettings, CameraPoseTraining
from harvest.learn.lifting import PoseSets, lifted, pose_errors_mm, prepared
from harvest.learn.pose_sets import PoseSet, join, read_pose_set

SKELETON, STEPS = "mpii16", 3000
KNOWN = ("06", "07", "09", "10")  # subjects whose 3D is known: basketball, walking, running, football
NONE = {"augment": False, "camera": False, "refine": False}
ROWS: dict[str, dict[str, Any]] = {
    "baseline": NONE,
    "+ augmented": NONE | {"augment": True},
    "+ camera, 2D": NONE | {"augment": True, "camera": True},
    "+ refined": {},
}
JUDGED = ("there", "across")
NUMBERS = (*(f"{where}_{kind}" for where in JUDGED for kind in ("mm", "scaled", "aligned")), "seconds")


def subject_of(clip: str) -> str:
    """Who moves in a clip of the bundle."""
    return clip.removeprefix("cmu_").split("_")[0]


def trained(name: str, seed: int, sets: dict[str, PoseSet], out: Path) -> dict[str, float]:
    """Errors of a training, where it was trained and elsewhere."""
    settings = CameraPoseSettings(skeleton=SKELETON, width=512, batch=128, steps=STEPS, seed=seed, **ROWS[name])
    training = CameraPoseTraining(PoseSets(sets["known"], None, sets["seen"]), out, settings)
    begin = time.monotonic()
    training.run()
    found = {"seconds": time.monotonic() - begin}
    lifter = training.lifter_of(training.averaged())
    for where in JUDGED:
        errors = pose_errors_mm(lifted(lifter, training.limbs, sets[where]), sets[where], training.root)
        found |= dict(zip((f"{where}_{kind}" for kind in ("mm", "scaled", "aligned")), errors, strict=True))
    return found


def told(rows: list[dict[str, str]]) -> None:
    """The tables: means and spread over seeds."""
    for seen in ("exact", "found"):
        print(f"\n{seen:14}" + "".join(f"{name:>16}" for name in NUMBERS))
        for name in ROWS:
            some = [row for row in rows if (row["name"], row["seen"]) == (name, seen)]
            if some:
                print(f"{name:14}" + "".join(f"{cell:>16}" for cell in mean_and_spread(some, NUMBERS)[1]))


def main() -> None:
    """Do what is not done yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--joints", nargs="+", default=["exact", "found"], choices=["exact", "found"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(args.out / "results.csv", ("name", "seen", "seed"), NUMBERS)
    train, again, val, test = (
        prepared(read_pose_set(args.poses / f"{name}.npz"), SKELETON) for name in ("train", "again", "val", "test")
    )
    known, same = (np.isin([subject_of(clip) for clip in those.action.tolist()], KNOWN) for those in (train, again))
    sets = {
        "known": train.take(known),
        "seen": train.take(~known),
        "there": again.take(same),
        "across": join([val, test]),
    }
    print({name: len(those) for name, those in sets.items()})
    for seed in args.seeds:
        for seen in args.joints:
            given = {name: those.exact() for name, those in sets.items()} if seen == "exact" else sets
            for name in ROWS:
                if seen == "found" or name != "+ refined":  # exact joints need no refining
                    place = args.out / f"{name.strip('+ ').replace(', ', '_')}_{seen}_{seed}"
                    results.add((name, seen, seed), partial(trained, name, seed, given, place))
    told(results.rows())


if __name__ == "__main__":
    main()

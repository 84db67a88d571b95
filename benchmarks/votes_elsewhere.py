"""What people's votes on other footage add to a lifter that learns in a lab (section 5.3 of Ronchi et al. 2018).

The lab is some people of split train, known in 3D. Of all others of it joints are known in 2D, and five simulated
annotators voted on one pair of each picture. Judged on val and test: the share of pairs of joints in the wrong order
(the paper: 34.3 % from the lab, 27.1 % from votes, 24.1 % from both), and errors. Where the lab takes part, nothing but
2D and votes is told of the others; votes alone get their mean proportions too. Data as for relative_depth.py.

    python benchmarks/votes_elsewhere.py --poses sets/poses --out runs/votes
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from camerapose import KNOWN, subject_of
from relative_depth import SKELETON, STEPS, votes_of
from results import Results, mean_and_spread

from harvest.learn.lifting import PoseSets, lifted, pose_errors_mm, prepared
from harvest.learn.pairs import draw_pairs, labels_of
from harvest.learn.pose_sets import PoseSet, join, read_pose_set
from harvest.learn.relative import RelativeSettings, RelativeTraining

WAYS = ("lab", "votes", "lab, then votes", "lab + 2D", "lab + votes")  # the third as in the paper
NUMBERS = ("wrong", "mpjpe_mm", "scaled_mm", "aligned_mm")


def judged(training: RelativeTraining, judge: PoseSet) -> dict[str, float]:
    """Percent of one pair a picture in the wrong order, and errors in mm."""
    found = lifted(training.averaged(), training.limbs, judge)
    row, one, other = draw_pairs(np.isfinite(judge.xyz_m).all(-1), 1, np.random.default_rng(0))
    ours, true = (np.sign(xyz[row, one, 2] - xyz[row, other, 2]) for xyz in (found, judge.xyz_m))
    numbers = 100 * float(np.mean(ours != true)), *pose_errors_mm(found, judge, training.root)
    return dict(zip(NUMBERS, numbers, strict=True))


def trained(way: str, seed: int, sets: dict[str, PoseSet], out: Path) -> RelativeTraining:
    """The training of one of WAYS, gone through."""
    settings = RelativeSettings(skeleton=SKELETON, width=512, batch=128, steps=STEPS, seed=seed)
    place, lab, others = out / "_".join([*re.findall(r"\w+", way), str(seed)]), sets["lab"], sets["elsewhere"]
    if way == "lab":
        training = RelativeTraining(PoseSets(lab), place, replace(settings, supervised=True))
    else:
        labels = labels_of(votes_of(others, seed), others)
        flat = replace(others, xyz_m=np.full_like(others.xyz_m, np.nan))
        if way == "votes":
            training = RelativeTraining(PoseSets(others), place, settings, labels)
        elif way == "lab, then votes":
            before = trained("lab", seed, sets, out)
            start = before.averaged(), before.limbs
            training = RelativeTraining(PoseSets(flat), place, replace(settings, rate=3e-4), labels, start)
        else:
            told = labels if way == "lab + votes" else None
            training = RelativeTraining(PoseSets(lab, None, flat), place, settings, told)
    training.run()
    return training


def main() -> None:
    """Print means and spread over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, val, test = (
        prepared(read_pose_set(args.poses / f"{name}.npz").exact(), SKELETON) for name in ("train", "val", "test")
    )
    known = np.isin([subject_of(clip) for clip in train.action.tolist()], KNOWN)
    sets = {"lab": train.take(known), "elsewhere": train.take(~known), "judge": join([val, test])}
    results = Results(args.out / "results.csv", ("way", "seed"), NUMBERS)
    for seed in args.seeds:
        for way in WAYS:
            results.add((way, seed), lambda w=way, s=seed: judged(trained(w, s, sets, args.out), sets["judge"]))  # type: ignore[misc]
    print(f"{'':16}{'wrong order %':>16}{'MPJPE mm':>16}{'scale mm':>16}{'Procrustes mm':>16}")
    for way in WAYS:
        cells = mean_and_spread([row for row in results.rows() if row["way"] == way], NUMBERS)[1]
        print(f"{way:16}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()

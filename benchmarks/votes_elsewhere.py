"""What people's votes on other footage add to a lifter that learnt in a lab (section 5.3 of Ronchi et al. 2018).

The lab is some people of split train, known in 3D. Of all others of it joints are known in 2D, and five simulated
annotators voted on one pair of each picture. Judged on val and test: the share of pairs of joints in the wrong order
(the paper: 34.3 % from the lab, 27.1 % from votes, 24.1 % from both), and errors. Data as for relative_depth.py.

    python benchmarks/votes_elsewhere.py --poses sets/poses --out runs/votes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from camerapose import KNOWN, subject_of
from relative_depth import SKELETON, STEPS, votes_of

from harvest.learn.lifting import PoseSets, lifted, pose_errors_mm, prepared
from harvest.learn.pairs import draw_pairs, labels_of
from harvest.learn.pose_sets import PoseSet, join, read_pose_set
from harvest.learn.relative import RelativeSettings, RelativeTraining
from harvest.learn.training import Training
from harvest.monocular.lifter import Lifter

WAYS = ("lab", "votes", "lab + votes")


def judged(training: RelativeTraining, judge: PoseSet) -> tuple[float, ...]:
    """Percent of one pair a picture in the wrong order, and errors in mm."""
    found = lifted(training.averaged(), training.limbs, judge)
    row, one, other = draw_pairs(np.isfinite(judge.xyz_m).all(-1), 1, np.random.default_rng(0))
    ours, true = (np.sign(xyz[row, one, 2] - xyz[row, other, 2]) for xyz in (found, judge.xyz_m))
    return 100 * float(np.mean(ours != true)), *pose_errors_mm(found, judge, training.root)


def learn(sets: dict[str, PoseSet], seed: int, out: Path) -> dict[str, tuple[float, ...]]:
    """What each of WAYS comes to."""
    common = {"skeleton": SKELETON, "width": 512, "batch": 128, "steps": STEPS, "seed": seed}
    flat = sets["elsewhere"]
    labels = labels_of(votes_of(flat, seed), flat)
    lab = RelativeTraining(
        PoseSets(sets["lab"]),
        out / f"lab_{seed}",
        RelativeSettings(supervised=True, **common),  # type: ignore[arg-type]
    )
    lab.run()
    result = {"lab": judged(lab, sets["judge"])}
    ways: list[tuple[str, Lifter | None, float]] = [("votes", None, 1e-3), ("lab + votes", lab.averaged(), 3e-4)]
    for way, start, rate in ways:
        settings = RelativeSettings(rate=rate, **common)  # type: ignore[arg-type]
        place = out / f"{way.replace(' ', '')}_{seed}"
        training: Training[Lifter] = RelativeTraining(PoseSets(flat), place, settings, labels, start)
        training.run()
        assert isinstance(training, RelativeTraining)
        result[way] = judged(training, sets["judge"])
    return result


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
    found = [learn(sets, seed, args.out) for seed in args.seeds]
    print(f"{'':12}{'wrong order %':>16}{'MPJPE mm':>16}{'scale mm':>16}{'Procrustes mm':>16}")
    for way in WAYS:
        values = np.array([one[way] for one in found])
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
        cells = (f"{mean:.1f} ±{wide:.1f}" for mean, wide in zip(values.mean(axis=0), spread, strict=True))
        print(f"{way:12}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()

"""Lifting learnt from which of two joints is nearer: table 1 of Ronchi et al. 2018 as ratios to learning from 3D.

All rows share network, steps and data; each is the mean of some seeds with their spread. Also: labels of which a share
is wrong, and those of simulated annotators, whose votes are taken as they are or merged.

    harvest studio poses --split train --n 32000 --out sets/poses/train.npz
    harvest studio poses --split val --n 7000 --out sets/poses/val.npz
    harvest studio poses --split test --n 7000 --out sets/poses/test.npz
    python benchmarks/relative_depth.py --poses sets/poses --out runs/relative
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

from harvest.labels.merge import merge_votes
from harvest.labels.votes import Votes
from harvest.learn.lifting import PoseSets, lifted, pose_errors_mm, prepared
from harvest.learn.pairs import PairLabels, draw_pairs, labels_of, right_share, simulated_votes
from harvest.learn.pose_sets import PoseSet, join, read_pose_set
from harvest.learn.relative import RelativeSettings, RelativeTraining, RelativeWeights

ORTHOGRAPHIC: dict[str, Any] = {"perspective": False, "weights": RelativeWeights(gamma=0.5)}  # most of the paper's rows
SKELETON, STEPS, ANNOTATORS, EACH = "mpii16", 3000, 150, 5
ROWS: dict[str, dict[str, Any]] = {
    "supervised": {"supervised": True},
    "relative": {},
    "perspective": {"perspective": True},
    "perspective merged votes": {"perspective": True},
    "typical bones": {"bones": "typical"},
    "no bones": {"bones": "none"},
    "all pairs": {"pairs": 0},
    "tolerance": {"tolerance_m": 0.1},
    **{f"flipped {share} %": {"perspective": True, "flipped": share / 100} for share in (10, 20, 30, 40, 50)},
    "one vote": {},
    "five votes": {},
    "merged votes": {},
}
KINDS = {  # of labels, in the picture, and how many of them a pose or pair takes
    "supervised": ("poses in 3D", 1),
    "perspective": ("pairs, exact", 1),
    "perspective merged votes": ("votes, five a pair", EACH),
}
VARIANTS = ("typical bones", "no bones", "all pairs", "tolerance")
HIGHEST_MM = 100.0  # in the picture
FEWER = (500, 2000, 8000)  # poses, of which a set without this says all
ROWS |= {f"perspective, {name}": {"perspective": True} | ROWS[name] for name in VARIANTS}
ROWS |= {f"{kind} {few}": ROWS[kind] | {"poses": few} for few in FEWER for kind in KINDS}
NUMBERS = ("scaled_mm", "aligned_mm", "seconds")  # after the best scale and the best similarity
PAPER = {"supervised": (49.62, 36.54), "relative": (64.58, 48.97), "perspective": (65.22, 48.54)}
PAPER |= {"typical bones": (73.26, 55.27), "no bones": (118.34, 89.81), "all pairs": (63.96, 48.90)}
PAPER |= {"tolerance": (63.45, 47.54)}


def votes_of(poses: PoseSet, seed: int) -> Votes:
    """What EACH annotators say of one pair of each picture."""
    rng = np.random.default_rng([seed, 43])
    pairs = draw_pairs(np.isfinite(poses.xyz_m).all(-1), 1, rng)
    return simulated_votes(poses.xyz_m[..., 2], pairs, (poses.name, poses.joints), EACH, ANNOTATORS, rng)


def annotated(name: str, votes: Votes, poses: PoseSet) -> PairLabels:
    """Votes as labels: the first of each pair, each by itself, or merged."""
    if "merged votes" in name:
        return labels_of(votes, poses)
    some = slice(None, None, EACH) if name == "one vote" else slice(None)
    place = {str(sample): row for row, sample in enumerate(poses.name)}
    row = np.array([place[sample] for sample in votes.sample[some].tolist()])
    one, other = (
        np.array([poses.joints.index(joint) for joint in those[some].tolist()]) for those in (votes.one, votes.other)
    )
    return PairLabels(row, one, other, votes.nearer[some].astype(np.int64), np.ones(len(row)))


def tell_votes(votes: Votes, poses: PoseSet) -> None:
    """How often votes are right, one by one, by majority, and merged."""
    merged = merge_votes(votes)
    place = {str(sample): row for row, sample in enumerate(poses.name)}
    row = [place[sample] for sample in merged.sample.tolist()]
    one, other = ([poses.joints.index(joint) for joint in those.tolist()] for those in (merged.one, merged.other))
    apart = poses.xyz_m[row, one, 2] - poses.xyz_m[row, other, 2]
    true = dict(zip(zip(merged.sample, merged.one, merged.other, strict=True), np.sign(apart), strict=True))
    swap = votes.one > votes.other
    keys = zip(
        votes.sample, np.where(swap, votes.other, votes.one), np.where(swap, votes.one, votes.other), strict=True
    )
    said = np.where(swap, -votes.nearer, votes.nearer)
    truth = np.array([true[key] for key in keys])
    majority = np.sign(said.reshape(-1, EACH).sum(1)) == truth[::EACH]
    right = (merged.nearer > 0.5) == (apart < 0)
    sure = np.abs(merged.nearer - 0.5) > 0.4
    print(
        f"votes right {100 * np.mean(said == truth):.1f} %, majority {100 * majority.mean():.1f} %, "
        f"merged {100 * right.mean():.1f} %; of the {100 * sure.mean():.0f} % surest {100 * right[sure].mean():.1f} %; "
        f"a usual annotator at 20 cm {100 * float(right_share(np.array(0.2))):.0f} %"
    )


def trained(name: str, seed: int, sets: tuple[PoseSet, PoseSet], out: Path) -> dict[str, float]:
    """NUMBERS of a training."""
    learn, judge = sets
    chosen = ORTHOGRAPHIC | ROWS[name] if not ROWS[name].get("perspective") else dict(ROWS[name])
    if few := chosen.pop("poses", 0):
        learn = learn.take(np.random.default_rng([seed, 47]).permutation(len(learn))[:few])
    settings = RelativeSettings(skeleton=SKELETON, width=512, batch=128, steps=STEPS, seed=seed, **chosen)
    labels = annotated(name, votes_of(learn, seed), learn) if "vote" in name else None
    training = RelativeTraining(PoseSets(learn), out / f"{name.replace(' ', '_')}_{seed}", settings, labels)
    begin = time.monotonic()
    training.run()
    found = lifted(training.averaged(), training.limbs, judge)
    _, scaled, aligned = pose_errors_mm(found, judge, training.root)
    return {"scaled_mm": scaled, "aligned_mm": aligned, "seconds": time.monotonic() - begin}


def told(rows: list[dict[str, str]]) -> None:
    """The table: means and spread over seeds, and ratios to the supervised row beside the paper's."""
    base: tuple[float, float] | None = None
    print(f"{'':28}{'scale':>14}{'Procrustes':>14}{'ratios':>14}{'the paper':>14}{'seconds':>9}")
    for name in ROWS:
        some = [row for row in rows if row["name"] == name]
        if not some:
            continue
        mean, cells = mean_and_spread(some, NUMBERS)
        base = base or (mean[0], mean[1])
        ratios = f"{mean[0] / base[0]:.2f}  {mean[1] / base[1]:.2f}"
        paper = ""
        if (asked := name.removeprefix("perspective, ")) in PAPER:
            paper = "  ".join(
                f"{ours / theirs:.2f}" for ours, theirs in zip(PAPER[asked], PAPER["supervised"], strict=True)
            )
        print(f"{name:28}{cells[0]:>14}{cells[1]:>14}{ratios:>14}{paper:>14}{mean[2]:9.0f}")


def draw(rows: list[dict[str, str]], poses: int, path: Path) -> None:
    """What a number of labels of each kind buys: errors over the number of labels, and over that of wrong ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    by_number, by_wrong = figure.subplots(1, 2, sharey=True)
    for kind, (label, each) in KINDS.items():
        some = [(count, f"{kind} {count}") for count in FEWER] + [(poses, kind)]
        points = [(each * count, _aligned(rows, name)) for count, name in some]
        _curve(by_number, [point for point in points if len(point[1])], label)
    flips = [(0, "perspective"), *((share, f"flipped {share} %") for share in (10, 20, 30, 40, 50))]
    wrong = [(x, values) for x, name in flips if len(values := _aligned(rows, name))]
    _curve(by_wrong, wrong, "pairs")
    for x, values in wrong:
        if values.mean() > HIGHEST_MM:
            by_wrong.text(x, 0.97 * HIGHEST_MM, f"{values.mean():.0f} mm ", ha="right", va="top")
    by_number.set(xscale="log", xlabel="labels", ylabel="error after Procrustes, mm", ylim=(0, HIGHEST_MM))
    by_wrong.set(xlabel="wrong labels, %")
    by_number.legend()
    figure.savefig(path, dpi=120)


def _aligned(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row["aligned_mm"]) for row in rows if row["name"] == name])


def _curve(axes: Any, points: list[tuple[int, np.ndarray]], label: str) -> None:
    axes.errorbar(
        [x for x, _ in points], [v.mean() for _, v in points], [v.std() for _, v in points], label=label, marker="o"
    )


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(args.out / "results.csv", ("name", "seed"), NUMBERS)
    learn, val, test = (
        prepared(read_pose_set(args.poses / f"{split}.npz").exact(), SKELETON) for split in ("train", "val", "test")
    )
    tell_votes(votes_of(learn, 0), learn)
    for seed in args.seeds:
        for name in args.rows:
            results.add((name, seed), partial(trained, name, seed, (learn, join([val, test])), args.out))
    told(results.rows())
    draw(results.rows(), len(learn), args.out / "labels.png")


if __name__ == "__main__":
    main()

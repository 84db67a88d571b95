"""How well each selection rule tells good estimates from bad ones, and whether calibrated ellipsoids hold their share.

    harvest studio make --preset bench-rigs --out sets/bench-rigs
    python benchmarks/selection_quality.py --set sets/bench-rigs --out runs/rigs --views 2 3 4 8 --plot areas.png

Estimates are ranked joint by joint, within each run, as the stage does. Area: the mean error in mm of what is kept,
over all shares from 0 to 1. random: any order; oracle: by the error itself, which nothing can beat. 'kept 70 %': the
mean error of the 70 % that rank first. 'together': all runs of a row ranked together, joint by joint. Takes with one
person.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from against_truth import Estimates, joined, of_one_person, takes_of_set
from numpy.typing import NDArray

from harvest.metrics.coverage import LEVELS, calibrated_coverage
from harvest.metrics.selection import area_under, places, risk_coverage
from harvest.select import doubt
from harvest.uncertainty import load_calibration, probability_within

Floats = NDArray[np.float64]
RULES = ("determinant", "spread", "heat", "probability")
COLUMNS = (*RULES, "random", "oracle")
KEPT = 0.7
STEPS = (0.5, 0.7, 0.8, 0.9, 0.95)  # between ranges of probabilities


def scores(one: Estimates, method: str, within_m: float) -> dict[str, Floats]:
    """(T, J) scores by rule, least doubtful first; that of the oracle is the error, that of random is drawn."""
    probability = probability_within(one.poses.cov_m2, within_m, load_calibration(method))
    by_rule = {rule: doubt(one.poses, rule, probability) for rule in RULES}
    return by_rule | {"oracle": errors_mm(one)}


def errors_mm(one: Estimates) -> Floats:
    """(T, J) lengths of the offsets; NaN where nothing was found, or fewer than two views support it."""
    return np.where(one.poses.n_views >= 2, 1000 * np.linalg.norm(one.offset_m, axis=2), np.nan)


def curves(found: list[Estimates], method: str, within_m: float, together: bool) -> dict[str, tuple[Floats, Floats]]:
    """Shares and mean errors by rule; ranked within each run, or all runs together."""
    error = [errors_mm(one) for one in found]
    every = [scores(one, method, within_m) for one in found]
    if together:
        every = [{name: np.concatenate([each[name] for each in every]) for name in every[0]}]
        error = [np.concatenate(error)]
    place = {name: [places(each[name], e) for each, e in zip(every, error, strict=True)] for name in every[0]}
    out = {name: risk_coverage(np.concatenate(error), np.concatenate(place[name])) for name in place}
    return out | {"random": (np.array([1.0]), np.array([float(np.nanmean(np.concatenate(error)))]))}


def row(name: str, by_rule: dict[str, tuple[Floats, Floats]]) -> str:
    """Areas, then mean errors of what is kept at the usual share."""
    areas = [area_under(*by_rule[column]) for column in COLUMNS]
    kept = [float(np.interp(KEPT, *by_rule[column])) for column in COLUMNS]
    return f"{name:32}" + "".join(f"{value:13.1f}" for value in areas) + " |" + "".join(f"{v:6.1f}" for v in kept)


def inside(name: str, found: list[Estimates], method: str) -> str:
    """Shares of errors inside ellipsoids, as stated and calibrated."""
    offset, cov = joined(found)
    shares = calibrated_coverage(offset, cov), calibrated_coverage(offset, cov, load_calibration(method))
    return f"{name:32}" + "   ".join(" ".join(f"{100 * share:5.1f}" for share in each) for each in shares)


def reliability(method: str, found: list[Estimates], within_m: float) -> str:
    """How many errors are below a distance, among those for which the probability of it was said to lie in a range."""
    offset, cov = joined(found)
    known = np.isfinite(offset).all(axis=1)
    said = probability_within(cov[known], within_m, load_calibration(method))
    true = np.linalg.norm(offset[known], axis=1) < within_m
    bins = np.digitize(said, STEPS)
    cells = [
        f"{said[bins == i].mean():.2f} {true[bins == i].mean():.2f} {(bins == i).sum():5}" for i in np.unique(bins)
    ]
    return f"{method:12}" + "   ".join(cells)


def plot(path: Path, all_curves: dict[str, dict[str, tuple[Floats, Floats]]], across: int) -> None:
    """One panel a method (downwards) and number of views (across): mean error by share kept."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    down = len(all_curves) // across
    figure, axes = pyplot.subplots(down, across, figsize=(4 * across, 3.2 * down), squeeze=False)
    for axis, (title, by_rule) in zip(axes.ravel(), all_curves.items(), strict=True):
        for name in (*RULES, "oracle"):
            axis.plot(*by_rule[name], label=name, linestyle=":" if name == "oracle" else "-")
        axis.axhline(by_rule["random"][1][0], color="grey", linewidth=0.8, label="random")
        axis.set(title=title, xlabel="share kept", ylim=(0, None))
    axes[0, 0].set_ylabel("mean error of what is kept, mm")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="folder of `harvest studio make`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--methods", nargs="+", default=["pictorial", "ransac", "dlt", "algebraic", "volumetric"])
    parser.add_argument("--views", nargs="+", type=int, default=[4], help="so many of the cameras, the first ones")
    parser.add_argument("--every", type=int, default=1, help="use every n-th frame")
    parser.add_argument("--within", type=float, default=50.0, help="mm, of the rule probability")
    parser.add_argument("--plot", type=Path, help="picture of the curves")
    args = parser.parse_args()
    takes, ranks, together, coverages, reliable, drawn = takes_of_set(args.set), [], [], [], [], {}
    for method in args.methods:
        of_method: list[Estimates] = []
        for views in args.views:
            found = list(of_one_person(takes, args.out, method, views, args.every))
            name, of_method = f"{method}, {views} views", of_method + found
            drawn[name] = curves(found, method, args.within / 1000, together=False)
            ranks.append(row(name, drawn[name]))
            together.append(row(name + ", together", curves(found, method, args.within / 1000, together=True)))
            coverages.append(inside(name, found, method))
        coverages.append(inside(f"{method}, all", of_method, method))
        reliable.append(reliability(method, of_method, args.within / 1000))
    print(f"{'area, mm':32}" + "".join(f"{column:>13}" for column in COLUMNS) + f" | the same, kept {100 * KEPT:.0f} %")
    print("\n".join([*ranks, *together]))
    levels = " ".join(f"{100 * level:5.0f}" for level in LEVELS)
    print(f"\n{'inside, %':32}{levels}   {levels}: as stated, calibrated")
    print("\n".join(coverages))
    print(f"\nbelow {args.within:g} mm: said, true, number of errors")
    print("\n".join(reliable))
    if args.plot:
        plot(args.plot, drawn, len(args.views))


if __name__ == "__main__":
    main()

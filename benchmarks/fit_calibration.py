"""How large errors are where a method states a covariance: fitted on takes of the studio, and written for the package.

    harvest studio make --preset calibrate --out sets/calibrate
    python benchmarks/fit_calibration.py --set sets/calibrate --out runs/calibrate \\
        --write harvest/models/calibration.yaml

All cameras of each take, by the default detector. Takes of several people are left out. Also printed: what share of
the errors lies in the ellipsoids as stated, calibrated, and calibrated on the other four fifths of the people, each
fifth left out in turn. That of other sets: benchmarks/selection_quality.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from against_truth import Estimates, Floats, joined, of_one_person, takes_of_set

from harvest.detect2d.detectors import weights_fingerprint
from harvest.metrics.calibration import fit_calibration
from harvest.metrics.coverage import LEVELS, calibrated_coverage
from harvest.store.atomic import write_text_atomically
from harvest.uncertainty import Calibration

METHODS = ("pictorial", "ransac", "dlt", "algebraic", "volumetric")
FOLDS = 5
HEADER = """\
# What errors are like where a method states the covariance S (harvest/uncertainty.py): Student's t with the scale
# matrix stretch^2 S + floor_m^2 I and `freedom` degrees of freedom.
# Made by benchmarks/fit_calibration.py from {takes} takes of people of the studio's split val (harvest studio make
# --preset calibrate), 2 to 6 cameras, the detector hourglass with the weights {weights}.
# For another detector, or weights of your own for a method, they are a guess.
"""


def left_out(found: list[Estimates]) -> Floats:
    """(L,) shares of errors inside ellipsoids calibrated without the takes that they are of."""
    shares = np.zeros(len(LEVELS))
    folds = np.arange(len(found)) * FOLDS // len(found)  # takes in a row: kinds of rigs alternate
    for fold in range(FOLDS):
        inside, rest = ([one for one, its in zip(found, folds) if (its == fold) == left] for left in (True, False))
        shares += calibrated_coverage(*joined(inside), fit_calibration(*joined(rest))) * len(inside) / len(found)
    return shares


def line(method: str, calibration: Calibration) -> str:
    """One method's calibration in YAML, rounded to what the fit can tell."""
    freedom = ".inf" if np.isinf(calibration.freedom) else f"{calibration.freedom:.2f}"
    return f"{method}: {{stretch: {calibration.stretch:.3f}, floor_m: {calibration.floor_m:.5f}, freedom: {freedom}}}\n"


def main() -> None:
    """Fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="folder of `harvest studio make`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--every", type=int, default=1, help="use every n-th frame")
    parser.add_argument("--write", type=Path, help="the YAML file to write")
    args = parser.parse_args()
    takes, text = takes_of_set(args.set), ""
    levels = " ".join(f"{100 * level:3.0f}" for level in LEVELS)
    print(f"{len(takes)} takes\n{'':12}{'errors':>8}   inside {levels} % as stated, calibrated, on others")
    for method in args.methods:
        found = list(of_one_person(takes, args.out, method, None, args.every))
        offset, cov = joined(found)
        calibration = fit_calibration(offset, cov)
        stated, calibrated = calibrated_coverage(offset, cov), calibrated_coverage(offset, cov, calibration)
        shares = (stated, calibrated, left_out(found))
        inside = "   ".join(" ".join(f"{100 * share:3.0f}" for share in each) for each in shares)
        print(f"{method:12}{np.isfinite(offset).all(axis=1).sum():8}          {inside}", flush=True)
        text += line(method, calibration)
    header = HEADER.format(takes=len(found), weights=weights_fingerprint("hourglass", None))
    print(header + text, end="")
    if args.write:
        write_text_atomically(args.write, header + text)


if __name__ == "__main__":
    main()

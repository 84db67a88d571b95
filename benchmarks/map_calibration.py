"""Are the hourglass's maps honest? Likelihood of the true cell for powers and floors of a map, and coverage.

A map, to a power, with a floor, divided by its sum, is a distribution over the cells. Its honest power is the one under
which the truth of held-out crops is likeliest. Coverage: share of truths inside the smallest set of cells that holds a
half, or nine tenths, of the distribution.

    python benchmarks/map_calibration.py --crops sets/val
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harvest.detect2d.detectors import make_detector
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.learn.samples import find_samples, read_sample
from harvest.memory import keep_memory

POWERS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)
FLOORS = (1e-5, 1e-4, 1e-3, 1e-2)


def truths(maps: NDArray[np.float32], uv: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Maps (N, 4096) whose joint lies in the crop, and its cell (N,)."""
    cell = np.floor((uv + 0.5) / 4)
    inside = ((cell >= 0) & (cell < 64)).all(-1)
    cell = cell[inside].astype(np.int64)
    return maps[inside].reshape(len(cell), -1).astype(np.float64), cell[:, 1] * 64 + cell[:, 0]


def coverage(share: NDArray[np.float64], at: NDArray[np.int64], held: float) -> float:
    """Share of truths in the smallest sets of cells that hold so much."""
    own = share[np.arange(len(at)), at]
    return float((np.where(share > own[:, None], share, 0).sum(1) < held).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=shipped(DETECTOR))
    parser.add_argument("--n", type=int, default=512)
    args = parser.parse_args()
    keep_memory()
    detector = make_detector("hourglass", args.weights, flip_test=False)
    found = []
    places = find_samples(args.crops)[: args.n]
    for first in range(0, len(places), 16):
        loaded = [read_sample(place, detector.joints) for place in places[first : first + 16]]
        found.append(truths(detector(np.stack([row[0] for row in loaded])), np.stack([row[1] for row in loaded])))
    maps, at = np.concatenate([row[0] for row in found]), np.concatenate([row[1] for row in found])
    print(
        f"{len(at)} joints of {len(places)} crops; mean logarithm of the true cell's share (coverage of a half, of 0.9)"
    )
    print(f"{'power':>8}" + "".join(f"{f'floor {floor:g}':>26}" for floor in FLOORS))
    for power in POWERS:
        row = []
        for floor in FLOORS:
            share = maps**power + floor
            share /= share.sum(1, keepdims=True)
            log = float(np.log(share[np.arange(len(at)), at]).mean())
            row.append(f"{log:12.3f} ({coverage(share, at, 0.5):.2f}, {coverage(share, at, 0.9):.2f})")
        print(f"{power:8.2f}" + "".join(f"{text:>26}" for text in row))


if __name__ == "__main__":
    main()

"""How far are fast marginals from the definition's, and how much sooner are they there? Over easy and hard cases.

The definition: plain NumPy and SciPy in double precision, every voxel (`plain.py`). The fast way: float32 likelihoods,
pruning with its certificate, tolerance as given. The measured total variation must stay below the certified bound, that
below the tolerance, and the whole fast inference must not take longer than the definition's messages by dense FFT alone
(kernels transformed beforehand; both on all cores).

    python benchmarks/exactness.py --tolerance 1e-4 [--hard]
"""

from __future__ import annotations

import argparse
import itertools
import os
import time

import numpy as np
import plain
from frame_time import on_all_cores
from numpy.typing import NDArray
from scenes import SIDE_M, model, scene, unprojection

from cuda_kernels.moments import moments
from harvest.reconstruct.pictorial import Inference, PictorialSettings

VIEWS, FLOORS, KINDS = (2, 3, 4, 6, 8), (0.0, 1e-6, 1e-4, 1e-3, 1e-2), ("clean", "outlier", "missing")
HARD = [(2, 1e-3, "clean"), (2, 1e-2, "clean"), (3, 1e-3, "outlier"), (4, 1e-2, "outlier"), (5, 1e-4, "outlier")]


def distance(exact: NDArray[np.float64], fast: Inference, n: int) -> float:
    """Largest total-variation distance of any joint's marginal."""
    largest = 0.0
    for joint, marginal in enumerate(exact):
        difference, rows = marginal.ravel().copy(), fast.active.rows(joint)
        difference[fast.active.place[rows]] -= fast.marginals.marginal[rows]
        largest = max(largest, 0.5 * float(np.abs(difference).sum()))
    return largest


def main() -> None:
    """Print one line a case and the worst of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--voxels", type=int, default=64)
    parser.add_argument("--hard", action="store_true", help="only the hard set")
    args = parser.parse_args()
    n, worst, cores = args.voxels, np.zeros(5), len(os.sched_getaffinity(0))
    print(f"{'views':>5} {'floor':>7} {'kind':8} {'distance':>9} {'bound':>9} {'mean mm':>8} {'cov':>8}", end=" ")
    print(f"{'kept':>8} {'fast ms':>8} {'FFT ms':>8} {'ratio':>6}")
    every = [(views, floor, kind) for views, floor, kind in itertools.product(VIEWS, FLOORS, KINDS)]
    for views, floor, kind in HARD if args.hard else every:
        rig, maps, affine, xyz = scene(views, kind, seed=views)
        body = model(PictorialSettings(voxels=n, floor=floor, tolerance=args.tolerance))
        grid = (xyz.min(0) + xyz.max(0)) / 2, SIDE_M, n
        dense = plain.DenseTree(body.tree(SIDE_M / n), n)
        likelihood = plain.likelihood(rig, maps, unprojection(rig, affine)[0], grid, floor)
        start = time.perf_counter()
        exact = dense.marginals(likelihood)
        slow = 1e3 * (time.perf_counter() - start)
        fast_ms, _, poses = on_all_cores([(rig, maps, affine, grid[0], SIDE_M)] * 2 * cores, body, cores, 2)
        fast = body.inference(rig, maps, affine, grid)
        head = f"{views:5d} {floor:7.0e} {kind:8}"
        if exact is None or fast is None:
            print(f"{head} no pose has any weight: definition {exact is None}, fast {fast is None}")
            continue
        mean, cov = plain.moments(exact, grid)
        got = moments(fast.marginals.marginal, fast.active.place, fast.active.starts, grid)
        off = 1e3 * float(np.linalg.norm(got[0] - mean, axis=1).max())
        share = float((np.linalg.norm(got[1] - cov, axis=(1, 2)) / np.linalg.norm(cov, axis=(1, 2))).max())
        row = np.array([distance(exact, fast, n), fast.bound, off, share, fast_ms / slow])
        numbers = f"{row[0]:9.1e} {row[1]:9.1e} {off:8.1e} {share:8.1e} {fast.active.counts.mean():8.0f}"
        print(f"{head} {numbers} {fast_ms:8.1f} {slow:8.0f} {row[4]:6.2f}", flush=True)
        worst = np.maximum(worst, row)
    print(f"worst: distance {worst[0]:.1e}, bound {worst[1]:.1e} (tolerance {args.tolerance:.0e}),")
    print(f"mean {worst[2]:.1e} mm, covariance {worst[3]:.1e} of itself, time {worst[4]:.2f} of the dense FFT's")


if __name__ == "__main__":
    main()

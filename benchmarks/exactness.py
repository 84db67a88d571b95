"""How far are fast marginals from the definition's? Total variation, over views, floors, lying and missing views.

The definition: every voxel counts, messages in double precision. The fast way: pruning with its certificate, tolerance
as given. The measured distance must stay below the certified bound, and that below the tolerance.

    python benchmarks/exactness.py --tolerance 1e-3
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from scenes import SIDE_M, model, scene, unprojection

from cuda_kernels.unproject import unproject
from harvest.reconstruct.pictorial import PictorialSettings, infer_marginals
from harvest.reconstruct.sum_product import SumProduct

VIEWS, FLOORS, KINDS = (2, 3, 4, 6, 8), (0.0, 1e-6, 1e-4, 1e-3, 1e-2), ("clean", "outlier", "missing")


def distance(exact: SumProduct, fast: SumProduct, n: int) -> float:
    """Largest total-variation distance of any joint's marginal."""
    largest = 0.0
    for joint in range(len(exact.marginal)):
        difference = np.zeros((n, n, n))
        difference[tuple(exact.active.voxels[joint].T)] += exact.marginal[joint]
        difference[tuple(fast.active.voxels[joint].T)] -= fast.marginal[joint]
        largest = max(largest, 0.5 * float(np.abs(difference).sum()))
    return largest


def main() -> None:
    """Print one line a case and the worst of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--voxels", type=int, default=64)
    args = parser.parse_args()
    n, worst = args.voxels, {"distance": 0.0, "bound": 0.0}
    print(
        f"{'views':>5} {'floor':>7} {'kind':8} {'distance':>9} {'bound':>9} {'kept':>8} {'fast ms':>8} {'dense ms':>9}"
    )
    for views, floor, kind in itertools.product(VIEWS, FLOORS, KINDS):
        rig, maps, affine, xyz = scene(views, kind, seed=views)
        centre = (xyz.min(0) + xyz.max(0)) / 2
        likelihood = unproject(maps, *unprojection(rig, affine), (centre, SIDE_M, n), floor)
        tree = model(PictorialSettings()).tree(SIDE_M / n)
        start = time.perf_counter()
        fast, bound = infer_marginals(tree, likelihood, PictorialSettings(tolerance=args.tolerance))
        middle = time.perf_counter()
        exact, _ = infer_marginals(tree, likelihood, PictorialSettings(tolerance=0.0))
        end = time.perf_counter()
        head = f"{views:5d} {floor:7.0e} {kind:8}"
        if exact is None or fast is None:
            print(f"{head} no pose has any weight: definition {exact is None}, fast {fast is None}")
            continue
        apart = distance(exact, fast, n)
        kept = np.mean([len(voxels) for voxels in fast.active.voxels])
        times = f"{1e3 * (middle - start):8.0f} {1e3 * (end - middle):9.0f}"
        print(f"{head} {apart:9.1e} {bound:9.1e} {kept:8.0f} {times}", flush=True)
        worst = {"distance": max(worst["distance"], apart), "bound": max(worst["bound"], bound)}
    print(f"worst distance {worst['distance']:.1e}, worst bound {worst['bound']:.1e}, tolerance {args.tolerance:.0e}")


if __name__ == "__main__":
    main()

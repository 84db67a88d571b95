"""Where the time of one frame goes, beside dense messages by FFT, in one run on one machine.

    python benchmarks/inference_time.py [--run demo/run] [--views 4] [--voxels 64]

Without --run: made-up maps of 16 joints. With it: the maps of a finished run, which disagree as real ones do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scenes import SIDE_M, model, scene, unprojection

from calib.rig import load_rig
from cuda_kernels.active import blocks_a_side, peaks, split_by_likelihood
from cuda_kernels.limb_message import limb_message
from cuda_kernels.moments import moments
from cuda_kernels.unproject import unproject
from harvest.reconstruct.certificate import missed_by_block
from harvest.reconstruct.methods import for_skeleton
from harvest.reconstruct.pictorial import FIRST_CUT, PictorialSettings, infer_marginals
from harvest.reconstruct.sum_product import SumProduct, Tree
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_boxes
from pipelines.settings import ReconstructSettings
from pipelines.stages.reconstruct import measure_body

Case = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def made_up(views: int) -> tuple[list[Case], Callable[[float], Tree], float]:
    """Cases (maps, cells, cameras, centre), the tree for a voxel size, and the box's side."""
    cases = []
    for frame in range(0, 40, 4):
        rig, maps, affine, xyz = scene(views, "clean", frame, frame)
        cases.append((maps, *unprojection(rig, affine), (xyz.min(0) + xyz.max(0)) / 2))
    return cases, model(PictorialSettings()).tree, SIDE_M


def from_run(run: Path) -> tuple[list[Case], Callable[[float], Tree], float]:
    """The same of a finished run: every tenth frame."""
    from harvest.reconstruct.pictorial import PictorialModel

    rig, store = load_rig(run / "rig.yaml"), HeatmapStore(run / "20_heatmaps.zarr")
    boxes = read_boxes(run / "10_boxes.parquet")
    body = measure_body(rig, store, boxes, ReconstructSettings())
    cases = []
    for place in range(0, len(store), max(len(store) // 10, 1)):
        maps = for_skeleton(store.read(place, place + 1), body.skeleton)
        score = np.ascontiguousarray(maps.score[0].transpose(0, 2, 3, 1)) ** np.float32(store.sharpness)
        cases.append((score, *unprojection(rig, maps.image_from_heatmap[0]), boxes.centre_m[place]))
    return cases, PictorialModel(body.skeleton, body.lengths, PictorialSettings()).tree, body.side_m


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of a call, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def main() -> None:
    """Print the medians over the cases, and the ratio to dense messages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--voxels", type=int, default=64)
    parser.add_argument("--floor", type=float, default=PictorialSettings().floor)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    cases, tree_of, side = from_run(args.run) if args.run else made_up(args.views)
    n, settings = args.voxels, PictorialSettings(floor=args.floor)
    tree = tree_of(side / n)
    rows: dict[str, list[float]] = {}
    for maps, cells, cameras, centre in cases:
        grid = (centre, side, n)
        likelihood = unproject(maps, cells, cameras, grid, args.floor)
        memory = np.empty_like(likelihood)
        peak = peaks(likelihood)
        cut = np.full((maps.shape[3],) + (blocks_a_side(n),) * 3, FIRST_CUT)
        active = split_by_likelihood(likelihood, peak, cut)
        run = SumProduct(tree, active, n)
        run.run()
        calls = {
            "unproject": lambda: unproject(maps, cells, cameras, grid, args.floor, out=memory),  # noqa: B023
            "peaks": lambda: peaks(likelihood),  # noqa: B023
            "prune": lambda: split_by_likelihood(likelihood, peak, cut),  # noqa: B023
            "messages": lambda: SumProduct(tree, active, n).run(),  # noqa: B023
            "certificate": lambda: missed_by_block(run),  # noqa: B023
            "moments": lambda: [moments(m, v, grid) for m, v in zip(run.marginal, active.voxels, strict=True)],  # noqa: B023
            "all but unproject, to tolerance": lambda: infer_marginals(tree, likelihood, settings),  # noqa: B023
        }
        for name, call in calls.items():
            rows.setdefault(name, []).append(median_ms(call, args.repeats))
        rows.setdefault("voxels a joint (not ms)", []).append(float(np.mean([len(v) for v in active.voxels])))
    maps, cells, cameras, centre = cases[0]
    every = np.stack(np.unravel_index(np.arange(n**3), (n, n, n)), -1).astype(np.int16)
    shell = next(shell for shell in tree.shells if shell is not None)
    for route in ("fft", "columns"):
        one = median_ms(lambda: limb_message(np.ones(n**3), every, every, shell, n, route=route), 3)  # noqa: B023
        rows[f"dense messages by {route} ({2 * (maps.shape[3] - 1)} of {one:.1f})"] = [2 * (maps.shape[3] - 1) * one]
    print(f"{len(cases)} frames, {maps.shape[0]} views, {maps.shape[3]} joints, {n}^3 voxels, floor {args.floor:g}; ms")
    print(f"{'':42}{'median':>9}{'worst':>9}")
    for name, values in rows.items():
        print(f"{name:42}{np.median(values):9.2f}{np.max(values):9.2f}")


if __name__ == "__main__":
    main()

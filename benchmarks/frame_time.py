"""Milliseconds a frame of whole inference on all cores, kernel by kernel, beside plain NumPy and SciPy in one run.

    python benchmarks/frame_time.py [--run demo/run] [--views 4] [--voxels 64] [--tolerance 1e-4]

Without --run: made-up maps of 16 joints. With it: the maps of a finished run, which disagree as real ones do.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import plain
from numpy.typing import NDArray
from scenes import SIDE_M, model, scene, unprojection

from calib.rig import Rig, load_rig
from cuda_kernels.active import blocks_a_side
from cuda_kernels.block_bound import weight_bound
from cuda_kernels.moments import moments
from cuda_kernels.sum_product import sum_product
from cuda_kernels.unproject import unproject, unproject_active
from harvest.reconstruct.methods import for_skeleton
from harvest.reconstruct.pictorial import FIRST_CUT, PictorialModel, PictorialSettings
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_boxes
from pipelines.settings import ReconstructSettings
from pipelines.stages.reconstruct import measure_body

Frame = tuple[Rig, NDArray[np.float32], NDArray[np.float64], NDArray[np.float64], float]


def made_up(views: int, settings: PictorialSettings) -> tuple[list[Frame], PictorialModel]:
    """Frames (rig, maps, image_from_heatmap, centre, side) and the model."""
    frames: list[Frame] = []
    for number in range(40):
        rig, maps, affine, xyz = scene(views, "clean", number, number)
        frames.append((rig, maps, affine, (xyz.min(0) + xyz.max(0)) / 2, SIDE_M))
    return frames, model(settings)


def from_run(run: Path, settings: PictorialSettings) -> tuple[list[Frame], PictorialModel]:
    """The same of a finished run: forty frames, sharpened beforehand."""
    rig, store = load_rig(run / "rig.yaml"), HeatmapStore(run / "20_heatmaps.zarr")
    boxes = read_boxes(run / "10_boxes.parquet")
    body = measure_body(rig, store, boxes, ReconstructSettings())
    frames: list[Frame] = []
    for place in np.linspace(0, len(store) - 1, 40).astype(int):
        maps = for_skeleton(store.read(place, place + 1), body.skeleton)
        score = np.ascontiguousarray(maps.score[0].transpose(0, 2, 3, 1)) ** np.float32(store.sharpness)
        frames.append((rig, score, maps.image_from_heatmap[0], boxes.centre_m[place], body.side_m))
    return frames, PictorialModel(body.skeleton, body.lengths, settings)


def best_ms(call: Callable[[], object], repeats: int) -> float:
    """Least milliseconds of a call, after one that does not count: others on this machine only ever add."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def on_all_cores(frames: list[Frame], model: PictorialModel, cores: int, repeats: int) -> tuple[float, float, Any]:
    """Least and median milliseconds a frame with so many threads over frames, and the poses."""
    times: list[float] = []
    with ThreadPoolExecutor(cores) as threads:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            poses = list(threads.map(lambda frame: model.infer(*frame), frames))
            times.append(1e3 * (time.perf_counter() - start) / len(frames))
    return min(times[1:]), float(np.median(times[1:])), poses


def by_kernel(frames: list[Frame], model: PictorialModel, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each kernel on one core, frame by frame, at the first cut."""
    settings, rows = model.settings, {}
    for rig, maps, affine, centre, side in frames[::8]:
        views, grid = (maps, *unprojection(rig, affine)), (centre, side, settings.voxels)
        tree, n = model.tree(side / settings.voxels), settings.voxels
        cut = np.full((maps.shape[3],) + (blocks_a_side(n),) * 3, FIRST_CUT * settings.tolerance)
        active = unproject_active(*views, grid, settings.floor, cut)
        found = sum_product(tree, active, n)
        memory = unproject(*views, grid, settings.floor)
        calls = {
            "unproject and prune": lambda: unproject_active(*views, grid, settings.floor, cut),  # noqa: B023
            "all messages, both ways": lambda: sum_product(tree, active, n),  # noqa: B023
            "certificate": lambda: weight_bound(tree, active, found, n),  # noqa: B023
            "moments": lambda: moments(found.marginal, active.place, active.starts, grid),  # noqa: B023
            "(unproject every voxel)": lambda: unproject(*views, grid, settings.floor, out=memory),  # noqa: B023
        }
        for name, call in calls.items():
            rows.setdefault(name, []).append(best_ms(call, repeats))
        rows.setdefault("(voxels a joint, not ms)", []).append(float(active.counts.mean()))
    return rows


def plainly(frame: Frame, model: PictorialModel) -> dict[str, float]:
    """Milliseconds of the plain version on one frame, all cores, kernels transformed beforehand."""
    rig, maps, affine, centre, side = frame
    n, grid = model.settings.voxels, (centre, side, model.settings.voxels)
    cells, dense = unprojection(rig, affine)[0], plain.DenseTree(model.tree(side / n), n)
    times, start = {}, time.perf_counter()
    likelihood = plain.likelihood(rig, maps, cells, grid, model.settings.floor)
    times["plain: unproject"] = time.perf_counter() - start
    marginals = dense.marginals(likelihood)
    times["plain: messages by FFT"] = time.perf_counter() - start - sum(times.values())
    if marginals is not None:
        plain.moments(marginals, grid)
    times["plain: moments"] = time.perf_counter() - start - sum(times.values())
    return {name: 1e3 * seconds for name, seconds in times.items()}


def main() -> None:
    """Print the times and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--voxels", type=int, default=64)
    parser.add_argument("--floor", type=float, default=PictorialSettings().floor)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    settings = PictorialSettings(voxels=args.voxels, floor=args.floor, tolerance=args.tolerance)
    frames, body = from_run(args.run, settings) if args.run else made_up(args.views, settings)
    maps, cores = frames[0][1], len(os.sched_getaffinity(0))
    print(f"{len(frames)} frames, {maps.shape[0]} views, {maps.shape[3]} joints, {args.voxels}^3 voxels,", end=" ")
    print(f"floor {args.floor:g}, tolerance {args.tolerance:g}; milliseconds")
    whole = 0.0
    for threads in (1, cores):
        whole, median, poses = on_all_cores(frames, body, threads, args.repeats)
        print(f"whole inference, {threads} thread(s): {whole:.2f} a frame (median of repeats {median:.2f})")
    bounds, found = [pose.error_bound for pose in poses if pose.found], sum(pose.found for pose in poses)
    print(f"found in {found} frames; largest certified bound {max(bounds):.1e}")
    slow: dict[str, list[float]] = {}
    for frame in frames[::13]:
        for name, ms in plainly(frame, body).items():
            slow.setdefault(name, []).append(ms)
    print(f"{'on one core':32}{'median':>9}{'worst':>9}")
    for name, values in {**by_kernel(frames, body, args.repeats), **slow}.items():
        print(f"{name:32}{np.median(values):9.2f}{np.max(values):9.2f}")
    plain_ms = sum(float(np.median(values)) for values in slow.values())
    print(f"plain NumPy and SciPy {plain_ms:.0f} ms a frame, all cores: {plain_ms / whole:.0f} times as long")


if __name__ == "__main__":
    main()

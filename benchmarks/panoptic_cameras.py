"""Real cameras and real motion, corrupted 2D: error of each method by the number of views, 2 to 31.

The truth of a Panoptic sequence is projected into its HD cameras and spoilt as a detector's joints are: noise of
NOISE_PX, more or less by a factor drawn for each; OUTLIERS of them far off; MISSING of them not there. Confidence falls
with the noise that was drawn, and outliers have a low one as a rule, not always. Crops and places come from the spoilt
points. Every method gets the same heat maps, made of points and confidences as of any other tool's.

    python benchmarks/panoptic_cameras.py --truth gt_171026_pose3.npz --calibration calibration_171026_pose3_hd.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn
from unseen_view import reconstruct

from calib.importers import import_rig
from calib.rig import Rig
from harvest.detect2d.keypoints import gaussian_heatmaps
from harvest.detect2d.weights import shipped
from harvest.metrics.pose import joint_errors
from harvest.reconstruct.methods import triangulated_peaks
from harvest.skeleton import Skeleton, load_skeleton
from harvest.triangulate3d.infer_maps import triangulate_learned
from harvest.triangulate3d.map_files import load_triangulator
from harvest.types import Heatmaps, PersonBoxes, Poses3D
from pipelines.settings import ReconstructSettings
from pipelines.stages.learnt import LEARNT

Floats = NDArray[np.float64]
CELLS = 64
NOISE_PX, SPREAD, OUTLIERS, FAR_PX, MISSING = 6.0, 0.6, 0.08, (40.0, 200.0), 0.05
ALIKE = "alike"  # algebraic, with all maps trusted alike
METHODS = ("ransac", "dlt", "pictorial", "algebraic", ALIKE)
RADIUS_M = 1.1  # round the middle of the joints that the views agree on
CROP = 1.5  # sides over the extent of the middle four fifths of the points


def spoilt(uv: Floats, rng: np.random.Generator, noisy: int | None = None) -> tuple[Floats, Floats]:
    """Points (V, J, 2) as a detector might see them, and its confidences (V, J), 0 for what is not there.

    noisy: a view all of whose points err five times as much, with confidences that do not tell.
    """
    factor = np.exp(rng.normal(0, SPREAD, uv.shape[:2]))
    sigma = NOISE_PX * factor
    if noisy is not None:
        sigma[noisy] *= 5
    seen = uv + sigma[..., None] * rng.normal(size=uv.shape)
    sure = np.clip(1.0 - 0.25 * factor + rng.normal(0, 0.1, factor.shape), 0.05, 0.98)
    out = rng.random(factor.shape) < OUTLIERS
    way, far = rng.uniform(0, 2 * np.pi, factor.shape), rng.uniform(*FAR_PX, factor.shape)
    seen[out] += (far[..., None] * np.stack([np.cos(way), np.sin(way)], axis=-1))[out]
    sure[out] = rng.uniform(0.1, 0.7, out.sum())
    gone = (rng.random(factor.shape) < MISSING) | ~np.isfinite(uv).all(axis=2)
    return np.where(gone[..., None], np.nan, seen), np.where(gone, 0.0, sure)


def crops_of(uv: Floats) -> Floats:
    """(V, 2, 3) image_from_heatmap of squares round points (V, J, 2), NaN where a view has fewer than three."""
    affine = np.full((len(uv), 2, 3), np.nan)
    for view, points in enumerate(uv):
        given = points[np.isfinite(points).all(axis=1)]
        if len(given) >= 3:
            low, high = np.percentile(given, [10, 90], axis=0)
            cell = CROP * float((high - low).max()) / CELLS
            affine[view] = np.column_stack([cell * np.eye(2), (low + high) / 2 - cell * (CELLS - 1) / 2])
    return affine


def maps_of(
    rig: Rig, xyz: Floats, joints: tuple[str, ...], rng: np.random.Generator, noisy: bool
) -> tuple[Heatmaps, PersonBoxes]:
    """Heat maps of spoilt projections of joints (T, J, 3), and where the person is, told by these maps."""
    score, affine = [], []
    for points in xyz:
        uv, sure = spoilt(rig.project(points), rng, int(rng.integers(len(rig))) if noisy else None)
        crop = crops_of(uv)
        score.append(gaussian_heatmaps(uv, np.where(np.isfinite(crop[:, :1, 0]), sure, 0.0), crop, CELLS))
        affine.append(crop)
    maps = Heatmaps(np.arange(len(xyz)), rig.names, joints, np.stack(score), np.stack(affine))
    centre = np.nanmedian(triangulated_peaks(rig, maps)[0], axis=1)
    nobody = np.full((len(xyz), len(rig), 2, 3), np.nan)
    return maps, PersonBoxes(maps.frames, rig.names, centre, np.full(len(xyz), RADIUS_M), nobody)


def poses_by(method: str, rig: Rig, maps: Heatmaps, boxes: PersonBoxes, skeleton: Skeleton) -> Poses3D:
    """Poses of all frames by one method."""
    if method != ALIKE:
        return reconstruct(rig, maps, boxes, skeleton, method, ReconstructSettings(sharpness=1.0))
    network = load_triangulator(shipped(LEARNT["algebraic"]))
    for part in (network.trust.layers[2].weight, network.trust.layers[2].bias):
        nn.init.zeros_(part)
    return triangulate_learned(network, rig, maps, maps.frames / 60.0, boxes.centre_m, RADIUS_M)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, help="npz of xyz_cm (T, 19, 3) and joint_names")
    parser.add_argument("--calibration", type=Path, required=True, help="calibration_<sequence>.json")
    parser.add_argument("--views", nargs="+", type=int, default=[2, 3, 4, 8, 16, 31])
    parser.add_argument("--frames", type=int, default=100, help="evenly spread over the sequence")
    parser.add_argument("--draws", type=int, default=3, help="of cameras, each with its own frames")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--noisy", action="store_true", help="one view of each frame errs five times as much")
    args = parser.parse_args()
    stored, skeleton = np.load(args.truth), load_skeleton("cmu19")
    assert tuple(stored["joint_names"]) == skeleton.joints
    rig, truth = import_rig(args.calibration), stored["xyz_cm"].astype(np.float64) / 100
    print(f"{'':18}" + "".join(f"{method:>31}" for method in args.methods))
    print(f"{'views':18}" + f"{'mean':>9}{'95 %':>7}{'found':>7}{'ms/fr.':>8}" * len(args.methods))
    for views in args.views:
        errors: dict[str, list[Floats]] = {method: [] for method in args.methods}
        seconds = dict.fromkeys(args.methods, 0.0)
        for draw in range(args.draws):
            rng = np.random.default_rng([draw, views])
            names = [rig.names[v] for v in np.sort(rng.permutation(len(rig))[:views])]
            rows = np.linspace(draw, len(truth) - 1, args.frames).astype(int)
            chosen = rig.select(names)
            maps, boxes = maps_of(chosen, truth[rows], skeleton.joints, rng, args.noisy)
            for method in args.methods:
                begin = time.perf_counter()
                poses = poses_by(method, chosen, maps, boxes, skeleton)
                seconds[method] += time.perf_counter() - begin
                errors[method].append(1000 * joint_errors(poses.xyz_m, truth[rows]))
        line = f"{views:<18}"
        for method, found in errors.items():
            error = np.concatenate([one.ravel() for one in found])
            known = error[np.isfinite(error)]
            ms = 1000 * seconds[method] / (args.draws * args.frames)
            line += f"{known.mean():9.1f}{np.percentile(known, 95):7.1f}{len(known) / len(error):7.3f}{ms:8.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()

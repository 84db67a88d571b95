"""3D from pictures with weak labels: ablations of Zhou et al. 2017 (geometry) and Iqbal et al. 2020 (several views).

Geometry: a few people with labels in space, others with labels in 2D alone, and the test shows yet others, in other
clothes, rooms and motions. Views: moments in several views, without extrinsics and labels in space; bones are those of
the second set's people. All rows of a part share network, steps and data; each is the mean of some seeds with their
spread. The frozen features of a picture cost four times what a network of this width does, so every picture is seen in
few augmentations, and features are computed once (the first rows take longer).

    harvest studio crops --split train --n 400 --out sets/weak/in_space
    harvest studio crops --split val --n 1200 --out sets/weak/in_plane
    harvest studio crops --split test --n 400 --out sets/weak/test
    harvest studio views --split train --n 600 --cameras 2:3 --out sets/weak/views
    python benchmarks/weak_pictures.py --data sets/weak --out runs/weak
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import Results, mean_and_spread
from tqdm import tqdm

from calib.camera import Camera
from calib.rig import camera_from_entry
from harvest.detect2d.hourglass_detector import HourglassDetector, fast_bf16
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.learn.detector import Folders
from harvest.learn.geometric import GeometricSettings, GeometricTraining
from harvest.learn.mapped import FeatureStore, MappedTraining
from harvest.learn.monocular import poses_told, some_poses
from harvest.learn.multiview import find_multiviews, read_multiview
from harvest.learn.multiview_loss import Bones, measured_bones
from harvest.learn.samples import CROP_PX, decode_picture, files_of_samples, find_samples, read_parts
from harvest.learn.views_training import ViewsSettings, ViewsTraining, ViewsWeights
from harvest.metrics.pose import PARTS, asymmetry_mm, joint_errors, similar, summary
from harvest.reconstruct.methods import for_skeleton
from harvest.select import select_by_determinant
from harvest.skeleton import load_skeleton
from harvest.triangulate3d.infer_maps import triangulate_learned
from harvest.triangulate3d.map_files import load_triangulator
from harvest.types import Heatmaps, Poses3D
from pipelines.harvested_crops import Shards

SKELETON = "mpii16"
SHARED: dict[str, Any] = {"skeleton": SKELETON, "width": 64, "bf16": False, "versions": 4, "warm": 50, "rate": 2e-3}
SHARED |= {"validate_every": 100_000}
GEOMETRY: dict[str, dict[str, Any]] = {
    "3D": {"lambda_geo": 0.0},
    "3D, geometry": {"geo_in_space": True},
    "3D + 2D": {"lambda_geo": 0.0},
    "3D + 2D, geometry": {},
}
VIEWS: dict[str, dict[str, Any]] = {
    "views": {},
    "views, no consistency": {"weights": ViewsWeights(alpha=0.0)},
    "views, no bones": {"weights": ViewsWeights(beta=0.0)},
    "views, no 2D labels": {"labelled": "none"},
    "views, one bone's scale": {"scale": "bone"},
}
EXACT, HARVESTED = "views, exact 3D", "views, harvested 3D"  # of the same pictures, with the same network
ROWS = (*GEOMETRY, *VIEWS, HARVESTED, EXACT)
KEEP = 0.7
OF_JOINTS = ("xyz_m", "cov_m2", "confidence", "n_views")
PAPER = {"3D": "82.4", "3D, geometry": "81.0", "3D + 2D": "65.7", "3D + 2D, geometry": "64.9"}
NUMBERS = ("mpjpe_mm", "aligned_mm", *(f"{kind.replace(' ', '_')}_mm" for kind in PARTS), "seconds")


def crops_of_views(folder: Path, out: Path, harvest: bool) -> Path:
    """The pictures of multi-view samples as crops with labels in space, if they do not stand already.

    harvest: labels are the surest 70 % of what the package's detector and algebraic triangulation tell, by the
    determinant as a run selects, projected into each view; otherwise they are exact.
    """
    if out.is_dir():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    kept = harvested(folder) if harvest else None
    with Shards(partial) as shards:
        for number, (index, shard, files) in enumerate(files_of_samples(folder)):
            label = json.loads(read_parts(shard, [files["json"]])[0])
            for view, entry in enumerate(label["cameras"]):
                camera = camera_from_entry(entry)
                exact = {
                    name: those["views"][view] | {"xyz_m": those["xyz_m"]} for name, those in label["joints"].items()
                }
                sets = exact if kept is None else {SKELETON: seen_by(camera, kept[number])}
                for those in sets.values():
                    points = those.pop("xyz_m")
                    those["xyz_cam_m"] = [None if p is None else camera.cam_from_world(p).tolist() for p in points]
                (jpg,) = read_parts(shard, [files[f"{view}.jpg"]])
                picture = decode_picture(jpg, shard, "views")
                shards.add(f"{index}-{view}", picture, {"joints": sets, "camera": entry})
    os.replace(partial, out)
    return out


def harvested(folder: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N, J, 3) joints of SKELETON that are kept of multi-view samples, NaN where none is. No label is looked at."""
    detector = HourglassDetector.from_file(shipped(DETECTOR), bf16=fast_bf16())
    network, skeleton = load_triangulator(shipped("algebraic-s")), load_skeleton(SKELETON)
    found = []
    for place in tqdm(find_multiviews(folder), desc="harvest", unit="moment"):
        sample = read_multiview(place, skeleton.joints)
        affine = np.tile(np.asarray(detector.crop_from_heatmap, np.float64), (1, len(sample.rig), 1, 1))
        score = detector(sample.pictures)[None]
        maps = Heatmaps(np.zeros(1, np.int64), sample.rig.names, tuple(detector.joints), score, affine)
        maps = for_skeleton(maps, skeleton)
        found.append(triangulate_learned(network, sample.rig, maps, np.zeros(1), np.full((1, 3), np.nan), 0.0))
    all_of = {name: np.concatenate([getattr(one, name) for one in found]) for name in OF_JOINTS}
    frames = np.arange(len(found))
    poses = Poses3D(frames, frames / 1.0, (), skeleton.joints, **all_of, flip=np.empty((len(found), 0)))
    return np.where(select_by_determinant(poses, KEEP).keep[..., None], poses.xyz_m, np.nan)


def seen_by(camera: Camera, xyz_m: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    """Joints (J, 3) of the world as a crop's label tells them, of those that lie in its picture."""
    uv = camera.project(xyz_m)
    with np.errstate(invalid="ignore"):
        inside = np.asarray(((uv > -0.5) & (uv < CROP_PX - 0.5)).all(axis=1))
    return {
        "uv_px": [at.tolist() if there else None for at, there in zip(uv, inside, strict=True)],
        "visibility": np.where(inside, 2, 0).tolist(),
        "xyz_m": [at.tolist() if np.isfinite(at).all() else None for at in xyz_m],
    }


def training_of(name: str, seed: int, args: argparse.Namespace, bones: Bones) -> MappedTraining:
    """The training of a row."""
    shared = SHARED | {"seed": seed, "steps": args.steps}
    out = args.out / "_".join([*re.findall(r"\w+", name), str(seed)])
    if name in VIEWS:
        folders = Folders(args.data / "views")
        return ViewsTraining(folders, out, ViewsSettings(**shared | {"batch": 8} | VIEWS[name]), bones)
    if name in (EXACT, HARVESTED):
        crops = args.out / ("harvested_crops" if name == HARVESTED else "exact_crops")
        folders = Folders(crops_of_views(args.data / "views", crops, name == HARVESTED))
        return GeometricTraining(folders, out, GeometricSettings(**shared | {"batch": 16, "model": "planar"}))
    folders = Folders(args.data / "in_space", None, args.data / "in_plane" if "2D" in name else None)
    return GeometricTraining(folders, out, GeometricSettings(**shared | {"batch": 16} | GEOMETRY[name]))


def result(name: str, seed: int, args: argparse.Namespace, bones: Bones) -> dict[str, float]:
    """NUMBERS of a row, trained or gone on with, on the test set."""
    training = training_of(name, seed, args, bones)
    training.store = FeatureStore(args.out / "features")
    training.run()
    network = training.averaged()
    ours, theirs = poses_told(network, training.limbs, find_samples(args.data / "test"))
    errors = [1000 * summary(joint_errors(points, theirs))["mean"] for points in (ours, similar(ours, theirs))]
    numbers = (*errors, *asymmetry_mm(ours, network.shape.joints).values(), training.seconds)
    return dict(zip(NUMBERS, numbers, strict=True))


def told(rows: list[dict[str, str]]) -> None:
    """The table: means and spread over seeds."""
    kinds = "".join(f"{kind:>13}" for kind in PARTS)
    print(f"{'':24}{'MPJPE mm':>14}{'aligned mm':>14}  left-right mm:{kinds}{'the paper':>11}{'seconds':>9}")
    for name in ROWS:
        some = [row for row in rows if row["name"] == name]
        if not some:
            continue
        mean, cells = mean_and_spread(some, NUMBERS)
        errors = "".join(f"{cell:>14}" for cell in cells[:2])
        apart = "".join(f"{cell:>13}" for cell in cells[2 : 2 + len(PARTS)])
        print(f"{name:24}{errors}{'':16}{apart}{PAPER.get(name, ''):>11}{mean[-1]:9.0f}")


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(args.out / "results.csv", ("name", "seed"), NUMBERS)
    skeleton = load_skeleton(SKELETON)
    bones = measured_bones(some_poses(args.data / "in_plane", skeleton.joints), skeleton)
    for seed in args.seeds:
        for name in args.rows:
            results.add((name, seed), partial(result, name, seed, args, bones))
    told(results.rows())


if __name__ == "__main__":
    main()

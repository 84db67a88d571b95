"""Which method puts joints where a camera that took no part sees them?

Three views reconstruct, the fourth judges: the distance between the projected joint and what *another* detector saw
there. Every method gets the same heat maps, those of a finished run. Nothing of the judge enters any method.

    python benchmarks/unseen_view.py --run demo/run --judge openpose.npz [--trc reference.trc]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig, load_rig
from calib.triangulate import triangulate_ransac
from harvest.detect2d.weights import shipped
from harvest.metrics.pose import joint_errors, summary, take_joints
from harvest.reconstruct.batch import infer_block
from harvest.reconstruct.limb_lengths import estimate_limb_lengths
from harvest.reconstruct.methods import collect, for_skeleton, triangulate, triangulated_peaks
from harvest.reconstruct.pictorial import PictorialModel
from harvest.reconstruct.volume import box_centres, box_side_m
from harvest.select import select_by_determinant
from harvest.skeleton import Skeleton
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_boxes
from harvest.triangulate3d.infer_maps import triangulate_learned
from harvest.triangulate3d.map_files import load_triangulator
from harvest.types import Heatmaps, PersonBoxes, Poses3D
from pipelines.settings import ReconstructSettings
from pipelines.stages.learnt import LEARNT, poses_of_joints
from pipelines.stages.reconstruct import pictorial_settings, skeleton_for

METHODS = ("dlt", "ransac", "algebraic", "volumetric", "pictorial")
LIMB_JOINTS = tuple(f"{side}_{part}" for part in "shoulder elbow wrist hip knee ankle".split() for side in "lr")


def read_judge(path: Path, views: int, frames: NDArray[np.int64], least: float) -> NDArray[np.float64]:
    """(V, T, 12, 2) pixels of the limb joints as the other detector saw them; NaN below the least confidence."""
    stored = np.load(path)
    names = [str(name) for name in stored["joint_names"]]
    out = np.full((views, len(frames), len(names), 2), np.nan)
    for frame, view, points in zip(stored["frame"], stored["cam"], stored["kpts"], strict=True):
        for t in np.flatnonzero(frames == frame):
            out[view, t] = np.where(points[:, 2:] >= least, points[:, :2], np.nan)
    return take_joints(out, names, LIMB_JOINTS)


def reconstruct(
    rig: Rig, maps: Heatmaps, boxes: PersonBoxes, skeleton: Skeleton, method: str, settings: ReconstructSettings
) -> Poses3D:
    """Poses of all frames by one method, everything estimated from these views alone.

    A learnt method takes the package's weights; a volumetric one gives the joints that it shares with the maps.
    """
    times = maps.frames / 60.0
    if method in ("ransac", "dlt"):
        return triangulate(rig, maps, times, method)
    joints = triangulated_peaks(rig, maps)[0]
    side = box_side_m(joints, boxes.centre_m, boxes.radius_m)
    centres = box_centres(joints, boxes.centre_m, boxes.radius_m)
    if method in LEARNT:
        network = load_triangulator(shipped(LEARNT[method]))
        return poses_of_joints(triangulate_learned(network, rig, maps, times, centres, side), maps.joints)
    lengths = estimate_limb_lengths(skeleton, joints)
    model = PictorialModel(skeleton, lengths, pictorial_settings(settings, 1.0))
    boxes_of_frames = [(centre, side) for centre in centres]
    return collect(maps, times, infer_block(model, rig, maps, boxes_of_frames, settings.flip_prior))


def part(maps: Heatmaps, views: list[int]) -> Heatmaps:
    """The maps of some views."""
    names = tuple(maps.views[v] for v in views)
    return Heatmaps(maps.frames, names, maps.joints, maps.score[:, views], maps.image_from_heatmap[:, views])


def limb_spread_mm(poses: Poses3D, skeleton: Skeleton) -> float:
    """Median over bones of half the 16-84 % range of a bone's length over the frames, millimetres."""
    spread = []
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0 and skeleton.limb_of(joint).slack == 0:
            length = np.linalg.norm(poses.xyz_m[:, joint] - poses.xyz_m[:, parent], axis=1)
            low, high = np.nanpercentile(length, [16, 84])
            spread.append(500 * (high - low))
    return float(np.median(spread))


def read_trc(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Joint names and (T, J, 3) metres, z up, of the other tool's TRC file (its axes: y up)."""
    rows = [line.rstrip("\n").split("\t") for line in path.read_text().splitlines()]
    names = [name for name in rows[3][2:] if name]
    values = [[float(x) for x in row[2 : 2 + 3 * len(names)]] for row in rows[5:] if len(row) > 10]
    short = {"R": "r_", "L": "l_"}
    joints = tuple(short[n[0]] + n[1:].lower() if n[0] in short and n[1].isupper() else n.lower() for n in names)
    return joints, np.array(values).reshape(len(values), -1, 3)[:, :, [2, 0, 1]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--trc", type=Path)
    parser.add_argument("--every", type=int, default=1, help="use every n-th frame")
    parser.add_argument("--least", type=float, default=0.3, help="least confidence of a judge's point")
    parser.add_argument("--floor", type=float, default=ReconstructSettings().floor)
    parser.add_argument("--sharpness", type=float, help="power of a heat map; default: the detector's")
    args = parser.parse_args()
    rig, store = load_rig(args.run / "rig.yaml"), HeatmapStore(args.run / "20_heatmaps.zarr")
    settings = ReconstructSettings(floor=args.floor, sharpness=args.sharpness or store.sharpness)
    boxes = read_boxes(args.run / "10_boxes.parquet")
    chosen = np.arange(0, len(store), args.every)
    skeleton = skeleton_for(store.joints, None)
    everything = for_skeleton(store.read(0, len(store)), skeleton)
    maps = Heatmaps(
        everything.frames[chosen],
        everything.views,
        everything.joints,
        everything.score[chosen],
        everything.image_from_heatmap[chosen],
    )
    boxes = PersonBoxes(
        boxes.frames[chosen], boxes.views, boxes.centre_m[chosen], boxes.radius_m[chosen], boxes.image_from_crop[chosen]
    )
    judge = read_judge(args.judge, len(rig), maps.frames, args.least)
    unseen_table(rig, maps, boxes, skeleton, judge, settings)
    all_views_table(rig, maps, boxes, skeleton, judge, settings, args.trc)


def unseen_table(rig, maps, boxes, skeleton, judge, settings):  # type: ignore[no-untyped-def]
    """Three views reconstruct, the fourth judges."""
    errors: dict[str, list[NDArray[np.float64]]] = {method: [] for method in METHODS}
    kept: dict[str, list[NDArray[np.bool_]]] = {method: [] for method in METHODS}
    own = []
    for held in range(len(rig)):
        views = [v for v in range(len(rig)) if v != held]
        sub = rig.select([rig.names[v] for v in views])
        for method in METHODS:
            poses = reconstruct(sub, part(maps, views), boxes, skeleton, method, settings)
            xyz = take_joints(poses.xyz_m, poses.joints, LIMB_JOINTS)
            errors[method].append(joint_errors(rig.cameras[held].project(xyz), judge[held]))
            index = [poses.joints.index(name) for name in LIMB_JOINTS]
            kept[method].append(select_by_determinant(poses, 0.7).keep[:, index])
        points = judge[views].reshape(len(views), -1, 2)
        xyz, _ = triangulate_ransac(sub, points, np.isfinite(points[..., 0]).astype(float), 40.0)
        xyz = xyz.reshape(*judge.shape[1:3], 3)
        own.append(joint_errors(rig.cameras[held].project(xyz), judge[held]))
    print(f"unseen view, {len(maps.frames)} frames, {len(LIMB_JOINTS)} limb joints, pixels")
    print(
        f"{'method':12}{'median':>8}{'mean':>8}{'p90':>8}{'n':>7}"
        f"{'kept: median':>14}{'mean':>8}{'dropped: median':>17}{'mean':>8}"
    )
    for method in METHODS:
        e, k = np.stack(errors[method]), np.stack(kept[method])
        s, a, b = summary(e), summary(e[k]), summary(e[~k])
        line = f"{method:12}{s['median']:8.1f}{s['mean']:8.1f}{s['p90']:8.1f}{s['n']:7d}"
        print(line + f"{a['median']:14.1f}{a['mean']:8.1f}{b['median']:17.1f}{b['mean']:8.1f}")
    s = summary(np.stack(own))
    print(
        f"{'judge itself':12}{s['median']:8.1f}{s['mean']:8.1f}{s['p90']:8.1f}{s['n']:7d}   (its own points, RANSAC)\n"
    )


def all_views_table(rig, maps, boxes, skeleton, judge, settings, trc):  # type: ignore[no-untyped-def]
    """All views reconstruct: reprojection, limb spread, distance to the other tool."""
    reference = read_trc(trc) if trc else None
    print(
        f"all views{'':3}{'reproj. median px':>18}{'limb spread mm':>16}"
        + (f"{'to the other tool mm':>22}" if trc else "")
    )
    per_joint = {}
    for method in METHODS:
        poses = reconstruct(rig, maps, boxes, skeleton, method, settings)
        xyz = take_joints(poses.xyz_m, poses.joints, LIMB_JOINTS)
        error = joint_errors(np.stack([camera.project(xyz) for camera in rig.cameras]), judge)
        per_joint[method] = np.nanmedian(error, axis=(0, 1))
        line = f"{method:12}{np.nanmedian(error):18.1f}{limb_spread_mm(poses, skeleton):16.1f}"
        if reference is not None:
            other = take_joints(reference[1][maps.frames], reference[0], LIMB_JOINTS)
            line += f"{1000 * np.nanmean(joint_errors(xyz, other)):22.1f}"
        print(line)
    print("\nreprojection against the judge by joint, median px")
    print(f"{'':12}" + "".join(f"{name.replace('shoulder', 'should.'):>11}" for name in LIMB_JOINTS))
    for method, values in per_joint.items():
        print(f"{method:12}" + "".join(f"{value:11.1f}" for value in values))


if __name__ == "__main__":
    main()

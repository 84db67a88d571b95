"""Are harvested labels worth as much as truth? Table 5 of Pavlakos et al. 2017, as a ratio on takes with exact truth.

The same network is trained on the same pictures: with exact joints; with those that a run harvested, of which 40, 70 or
100 % are selected; and with exact joints in the places of those 40 or 70 %, which shows what is lost because fewer
teach, not because they err. It is tested on exact joints of takes that it was not trained on, the last quarter. Takes
of one person take part. Everything that is done stands in OUT; a stopped command goes on.

    harvest studio make --preset bench-rigs --takes 40 --seed 40 --out sets/mono
    python benchmarks/harvested_against_truth.py --set sets/mono --out runs/mono --steps 600
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from calib.rig import load_rig
from harvest.labels import labels_by
from harvest.learn.detector import Folders
from harvest.learn.monocular import WEIGHTS, MonocularSettings, MonocularTraining, pose_errors_mm
from harvest.learn.peers import fitting
from harvest.learn.samples import find_samples
from harvest.learn.training import train
from harvest.metrics.pose import take_joints
from harvest.monocular.files import load_monocular
from harvest.select import select_by_determinant
from harvest.skeleton import load_skeleton
from harvest.store.tables import read_boxes
from harvest.types import LabelSet
from pipelines.capture import open_capture
from pipelines.harvested_crops import Shards, samples_of
from pipelines.run import Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import load_settings
from pipelines.stages.label import evidence_of

JOINTS = load_skeleton("harvest21").joints
SHARES = (0.4, 0.7, 1.0)
Labels = Callable[[Path, Path], LabelSet]  # of a take and its run


def kept(share: float, take: Path, run: Path) -> LabelSet:
    """What a run harvested, if so large a share is selected."""
    evidence = evidence_of(load_rig(run / "rig.yaml"), RunFolder(run).inputs())
    chosen = dataclasses.replace(evidence, selection=select_by_determinant(evidence.poses, share))
    return labels_by("ps+sel", chosen, {})


def exact(take: Path, run: Path) -> LabelSet:
    """Exact joints, in all pictures of a run, of those that lie in the picture."""
    rig, boxes = load_rig(run / "rig.yaml"), read_boxes(RunFolder(run).file("locate"))
    with np.load(take / "truth" / "joints.npz") as file:
        sets = [(file[f"{name}_names"].tolist(), file[f"{name}_xyz_m"][0]) for name in ("mpii16", "coco17")]
    both = [take_joints(xyz[boxes.frames], names, JOINTS) for names, xyz in sets]
    xyz = np.where(np.isfinite(both[0]), both[0], both[1])
    uv = np.stack([camera.project(xyz) for camera in rig.cameras], axis=1)
    cam = np.stack([camera.cam_from_world(xyz) for camera in rig.cameras], axis=1)
    size = np.array([camera.size_px for camera in rig.cameras])[None, :, None]
    with np.errstate(invalid="ignore"):
        inside = ((uv > -0.5) & (uv < size - 0.5)).all(axis=3)
    frame, view = (index.ravel() for index in np.indices(inside.shape[:2]))
    flat = inside.reshape(-1, len(JOINTS))
    uv, cam = (points.reshape(-1, *points.shape[2:]) for points in (uv, cam))
    return LabelSet(
        boxes.frames[frame], view, rig.names, JOINTS, np.where(flat[..., None], uv, np.nan), np.where(flat, 2, 0),
        flat.astype(float), cam, {},
    )  # fmt: skip


def exact_where_kept(share: float, take: Path, run: Path) -> LabelSet:
    """Exact joints in the places of those that a run harvested, if so large a share is selected."""
    truth, chosen = exact(take, run), kept(share, take, run)
    row_of = {place: row for row, place in enumerate(zip(truth.frame.tolist(), truth.view.tolist(), strict=True))}
    rows = [row_of[place] for place in zip(chosen.frame.tolist(), chosen.view.tolist(), strict=True)]
    here = chosen.visibility > 0
    return dataclasses.replace(
        chosen,
        uv_px=np.where(here[..., None], truth.uv_px[rows], np.nan),
        visibility=np.where(here, truth.visibility[rows], 0),
        weight=np.where(here, truth.weight[rows], 0.0),
        xyz_cam_m=np.where(here[..., None], truth.xyz_cam_m[rows], np.nan),
    )


def write(takes: list[Path], runs: Path, labels: Labels, out: Path) -> Path:
    """Crops of some takes with labels of one kind, if they do not stand already."""
    if not out.is_dir():
        partial_folder = out.with_name(out.name + ".partial")
        shutil.rmtree(partial_folder, ignore_errors=True)
        with Shards(partial_folder) as shards:
            for take in takes:
                run = runs / take.name
                for sample in samples_of(run, take / "videos", labels(take, run)):
                    name = f"{take.name}-{sample.frame:08d}-{sample.camera.name}"
                    shards.add(name, sample.picture, sample.label())
        os.replace(partial_folder, out)
    return out


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["volumetric", "regression"])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    takes = [path.parent for path in sorted(args.set.glob("*/rig.yaml"))]
    takes = [take for take in takes if len(np.load(take / "truth" / "joints.npz")["mpii16_xyz_m"]) == 1]
    for take in takes:
        capture = open_capture(take / "rig.yaml", take / "videos", None, None)
        execute(Run(capture, RunFolder(args.out / "runs" / take.name), load_settings(None, {})), last="label")
    learn, test = takes[: 3 * len(takes) // 4], takes[3 * len(takes) // 4 :]
    kinds: dict[str, Labels] = {"truth": exact} | {f"keep {share:.0%}": partial(kept, share) for share in SHARES}
    kinds |= {f"truth, {share:.0%}": partial(exact_where_kept, share) for share in SHARES[:2]}
    judged = find_samples(write(test, args.out / "runs", exact, args.out / "test"))
    print(f"{len(learn)} takes to learn from, {len(judged)} pictures of {len(test)} others to test on")
    print(f"{'':24}{'MPJPE mm':>10}{'ratio':>8}{'aligned mm':>12}{'ratio':>8}")
    for model in args.models:
        base: tuple[float, ...] = ()
        for kind, labels in kinds.items():
            data = write(learn, args.out / "runs", labels, args.out / re.sub(r"\W+", "_", kind).strip("_"))
            errors = []
            for seed in args.seeds:
                settings = MonocularSettings(model=model, steps=args.steps, seed=seed, warm=50, ema=0.99)
                place = args.out / f"{model}_{data.name}_{seed}"
                train(partial(MonocularTraining, Folders(data), place, settings), fitting(settings.batch))
                found = pose_errors_mm(*load_monocular(place / WEIGHTS), judged)
                errors.append([float(np.nanmean(error)) for error in found])
            mean = tuple(np.mean(errors, axis=0))
            base = base or mean
            cells = "".join(f"{value:10.1f}{value / first:8.2f}  " for value, first in zip(mean, base, strict=True))
            print(f"{model:12}{kind:12}{cells}", flush=True)


if __name__ == "__main__":
    main()

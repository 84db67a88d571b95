"""A pseudo-3D training set out of finished runs: shards of crops, arrays for lifters, a data card, checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from harvest import __version__
from harvest.errors import UserError
from harvest.labels import TEACHERS
from harvest.metrics.pose import take_joints
from harvest.skeleton import load_skeleton
from pipelines.harvested_crops import SHARD, Harvested, Shards, finished_run, harvested, need_empty

SPLITS = ("train", "val", "test")
LIFTERS, CARD, SUMS = "lifters", "README.md", "SHA256SUMS"
SKELETON = "h36m17"
INSIDE_HEAD = ("nose", "head_top")  # of Human3.6M, up to a decimetre from what detectors call so
SCALE_PX = 200.0  # mmpose's scale is the crop's side over this


@dataclass(frozen=True)
class Take:
    """A finished run, its videos, whom it shows, and the split that it belongs to."""

    run: Path
    videos: Path
    subject: str
    split: str = "train"

    @property
    def name(self) -> str:
        """As in names of files: without dots, which end a sample's name."""
        return without_dots(self.run.resolve().name)


def without_dots(name: str) -> str:
    """A name of letters, digits, _ and -."""
    return re.sub(r"[^\w-]", "_", name)


@dataclass
class Rows:
    """What a split's samples are to lifters, one entry a sample."""

    imgname: list[str] = field(default_factory=list)
    center: list[NDArray[np.float64]] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    part: list[NDArray[np.float64]] = field(default_factory=list)
    S: list[NDArray[np.float64]] = field(default_factory=list)
    S_cov: list[NDArray[np.float64]] = field(default_factory=list)
    xy: list[NDArray[np.float64]] = field(default_factory=list)
    K: list[NDArray[np.float64]] = field(default_factory=list)
    size_px: list[tuple[int, int]] = field(default_factory=list)
    subject: list[str] = field(default_factory=list)
    action: list[str] = field(default_factory=list)
    moment: list[str] = field(default_factory=list)

    def add(self, sample: Harvested, take: Take) -> None:
        """A sample as one of SKELETON's joints."""
        joints = load_skeleton(SKELETON).joints
        uv = sample.uv_px @ sample.image_from_crop[:, :2].T + sample.image_from_crop[:, 2]
        uv, xyz = (take_joints(points, sample.joints, joints) for points in (uv, sample.xyz_cam_m))
        cov = take_joints(sample.cov_cam_m2.reshape(-1, 9), sample.joints, joints).reshape(-1, 3, 3)
        hidden = [joints.index(joint) for joint in INSIDE_HEAD]
        uv[hidden], xyz[hidden], cov[hidden] = np.nan, np.nan, np.nan
        seen = sample.camera.image_from_normalised(xyz[:, 0] / xyz[:, 2], xyz[:, 1] / xyz[:, 2])
        uv = np.where(np.isfinite(seen), seen, uv)  # a middle in the picture is not the picture of the middle
        rays = sample.camera.undistort(uv)
        corners = np.array([[0, 0], [255, 255]]) @ sample.image_from_crop[:, :2].T + sample.image_from_crop[:, 2]
        self.imgname.append(f"{take.name}/{sample.camera.name}/{sample.frame:06d}.jpg")
        self.center.append(corners.mean(axis=0))
        self.scale.append(float(np.linalg.norm(corners[1] - corners[0])) / np.sqrt(2) / SCALE_PX)
        self.part.append(_with_confidence(uv))
        self.S.append(_with_confidence(xyz))
        self.S_cov.append(cov)
        self.xy.append(_with_confidence(rays))
        self.K.append(sample.camera.K)
        self.size_px.append(sample.camera.size_px)
        self.subject.append(take.subject)
        self.action.append(take.name)
        self.moment.append(f"{take.name}-{sample.frame:06d}")

    def write(self, path: Path) -> None:
        """As one .npz of plain arrays."""
        arrays = {one.name: np.array(getattr(self, one.name)) for one in fields(self)}
        np.savez_compressed(path, allow_pickle=False, **arrays)


def _with_confidence(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(J, D + 1) points with 1, zeros where they are unknown."""
    known = np.isfinite(points).all(axis=1, keepdims=True)
    return np.hstack([np.where(known, points, 0.0), known])


def export_training_set(takes: Sequence[Take], out: Path, labels: str = TEACHERS[0]) -> str:
    """Write a set out of some takes; gives a line about it.

    `out` gets a folder a split with tar files of SHARD samples each, <take>-<frame>-<view>.jpg and .json (WebDataset);
    lifters/<split>.npz, keys as mmpose's h36m_train.npz has them; README.md, what it is; SHA256SUMS. It appears whole.

    Raises:
        UserError: no takes, two of one name, one subject in several splits, no finished runs, or `out` holds something.
    """
    _check(takes)
    need_empty(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    counts: dict[str, int] = {}
    for split in SPLITS:
        chosen, rows = [take for take in takes if take.split == split], Rows()
        if not chosen:
            continue
        with Shards(partial / split) as shards:
            for take in chosen:
                before = shards.count
                for sample in harvested(take.run, take.videos, labels):
                    name = f"{take.name}-{sample.frame:08d}-{without_dots(sample.camera.name)}"
                    shards.add(name, sample.picture, sample.label() | {"subject": take.subject, "take": take.name})
                    rows.add(sample, take)
                counts[take.name] = shards.count - before
        (partial / LIFTERS).mkdir(exist_ok=True)
        rows.write(partial / LIFTERS / f"{split}.npz")
    (partial / CARD).write_text(data_card(takes, counts, labels), encoding="utf-8")
    _write_sums(partial)
    if out.exists():
        out.rmdir()
    os.replace(partial, out)
    return f"{sum(counts.values())} samples of {len(takes)} takes in {out}; look at {out / CARD}"


def _check(takes: Sequence[Take]) -> None:
    if not takes:
        raise UserError("a training set needs at least one --run with its --videos and --subject")
    names = [take.name for take in takes]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two runs are called '{doubled[0]}', and samples are named by that; rename a run's folder")
    for subject in {take.subject for take in takes}:
        splits = sorted({take.split for take in takes if take.subject == subject})
        if len(splits) > 1:
            raise UserError(
                f"subject '{subject}' is in {' and '.join(splits)}; a test on people who were learnt from says little, "
                "so give all takes of a subject the same split"
            )
    for take in takes:
        finished_run(take.run)


def data_card(takes: Sequence[Take], counts: dict[str, int], labels: str) -> str:
    """What the set is, in Markdown, with a table of the takes; for a person to go on writing."""
    origin: dict[str, Any] = {}
    rows = []
    for take in takes:
        folder = finished_run(take.run)
        origin[take.name] = json.loads((folder.file("label") / "fingerprint.json").read_text(encoding="utf-8"))[
            "origin"
        ]
        select = folder.read_record()["settings"]["select"]
        rows.append(f"| {take.name} | {take.subject} | {take.split} | {counts[take.name]} | {select.get('keep')} |")
    return CARD_TEXT.format(
        version=__version__,
        labels=labels,
        total=sum(counts.values()),
        shard=SHARD,
        skeleton=SKELETON,
        rows="\n".join(rows),
        origin=yaml.safe_dump(origin, sort_keys=False),
    )


CARD_TEXT = """# Training set

{total} crops of 256 x 256 px with 2D and pseudo-3D joints, harvested from several calibrated views by harvest
{version}. Nobody clicked these labels, and no truth was at hand: they are what all views together say ({labels}).

| take | subject | split | samples | share kept |
|---|---|---|---|---|
{rows}

Splits are by subject: nobody appears in two of them.

## Contents

- `<split>/<number>.tar`: WebDataset shards of up to {shard} samples, `<take>-<frame>-<view>.jpg` and `.json`. The JSON
  holds `joints`: of the set `run`, `names`, `uv_px` (pixels of the crop; null: no label), `visibility` (COCO's),
  `weight`, `xyz_cam_m` (metres in the camera's frame: x right, y down, z forward), `cov_cam_m2` (xx xy xz yy yz zz of
  its covariance); `camera`, as in rig.yaml; `image_from_crop`, 2 x 3, from pixels of the crop to those of the camera's
  picture; `frame`, `subject`, `take`.
- `lifters/<split>.npz`: joints of {skeleton} in plain arrays, one entry a sample: `imgname`; `center`, `scale` (the
  crop's middle, and its side over 200 px); `part` (x, y in the camera's picture, and 1 where known); `S` (x, y, z in
  metres in the camera's frame, and 1 where known); `S_cov` (3, 3); `xy` (`part` as it is seen at depth 1 through a lens
  without distortion, and 1 where known); `K`, `size_px` of the camera; `subject`, `action` (the take), `moment`. Spine,
  and joints inside the head, are unknown.
- `SHA256SUMS`: `sha256sum -c SHA256SUMS` checks all files.

## To be filled in by who gives it away

- Whose footage it is, its licence, and what the people in it agreed to:
- What it should not be used for:

## Limits

Labels err where the detector errs alike in all views, and by what the calibration is off. The covariance is the spread
that heat maps and limb lengths leave; it ranks labels, and is no measured error.

## Origin

```yaml
{origin}```
"""


def _write_sums(folder: Path) -> None:
    lines = []
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder).as_posix()}")
    (folder / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")

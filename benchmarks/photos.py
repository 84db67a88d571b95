"""Detectors on photographs that people labelled: share of joints found, by joint, ours against BlazePose.

Every labelled person of photos_2d, and of the Human3.6M and MPI-INF-3DHP samples, is cut out as a square around the
labelled box (the same crop for every detector), and of each joint's map the peak is taken. Found: within 0.1 of the
longer side of the box (of the labelled joints where there is no box). "Sides free" also takes a joint's
counterpart of the other side. A gallery shows the people on whom the first detector errs most.

    python benchmarks/photos.py --data ../shared/data --detectors hourglass.safetensors blazepose --gallery worst.jpg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.detect2d.detectors import Detector, crop_picture, image_from_pixels, make_detector
from harvest.memory import keep_memory
from harvest.reconstruct.peaks import peak_points
from harvest.skeleton import load_skeleton, mirror_name
from harvest.types import Heatmaps

Floats = NDArray[np.float64]
LIMBS = [f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in "lr"]
FACE = ["nose", "l_eye", "r_eye", "l_ear", "r_ear"]
JOINTS = LIMBS + FACE
NEAR = 0.1  # of the box's longer side
MARGIN = 1.25
TILE, WORST, COLUMNS = 256, 50, 10
BONES = ["shoulder elbow", "elbow wrist", "hip knee", "knee ankle", "shoulder hip"]


@dataclass(frozen=True)
class Labelled:
    """A person: where from, the picture, joints (17, 2) in JOINTS' order (NaN where unlabelled), and the box's
    (x, y, width, height).
    """

    source: str
    picture: NDArray[np.uint8]
    uv: Floats
    box: Floats

    @property
    def square(self) -> Floats:
        """(2, 3) affine of the crop."""
        half = MARGIN * self.box[2:].max() / 2
        middle = self.box[:2] + self.box[2:] / 2
        return np.array([[2 * half, 0, middle[0] - half], [0, 2 * half, middle[1] - half]])

    @property
    def crop(self) -> NDArray[np.uint8]:
        """(256, 256, 3) of the square."""
        return crop_picture(self.picture, self.square, TILE)


def read(path: Path) -> NDArray[np.uint8]:
    """A picture as RGB."""
    found = cv2.imread(str(path))
    if found is None:
        raise SystemExit(f"cannot read {path}")
    return np.asarray(found[..., ::-1], np.uint8)


def photos(folder: Path) -> Iterator[Labelled]:
    """The people of photos_2d."""
    coco = load_skeleton("coco17").joints
    for entry in json.loads((folder / "annotations.json").read_text(encoding="utf-8"))["images"]:
        picture = read(folder / "images" / Path(entry["file"]).name)
        for person in entry["persons"]:
            points = np.array(person["coco17"], np.float64)
            points[points[:, 2] == 0, :2] = np.nan
            uv = points[[coco.index(joint) for joint in JOINTS], :2]
            given = person["bbox_xywh"]
            yield Labelled(entry["dataset"], picture, uv, np.array(given, np.float64) if given else around(uv))


def samples(path: Path, source: str) -> Iterator[Labelled]:
    """The people of a file of samples with `kpts2d`."""
    found = np.load(path)
    names = [str(name) for name in found["joint_names"]]
    for image, points in zip(found["image"], found["kpts2d"].astype(np.float64), strict=True):
        uv = np.array([points[names.index(joint), :2] if joint in names else (np.nan, np.nan) for joint in JOINTS])
        yield Labelled(source, read(path.parent / "images" / str(image)), uv, around(points[:, :2]))


def around(uv: Floats) -> Floats:
    """(x, y, width, height) of the box round points (N, 2)."""
    low, high = np.nanmin(uv, axis=0), np.nanmax(uv, axis=0)
    return np.concatenate([low, high - low])


def peaks(detector: Detector, person: Labelled) -> Floats:
    """(17, 2) image pixels of JOINTS; NaN for those that the detector does not have."""
    maps = detector(person.crop[None])[:, None]
    affine = detector.crop_from_heatmap[None, None]
    in_crop, _ = peak_points(Heatmaps(np.zeros(1, np.int64), ("crop",), detector.joints, maps, affine))
    to_image = image_from_pixels(person.square, TILE)
    in_image = in_crop[0, 0] @ to_image[:, :2].T + to_image[:, 2]
    rows = [detector.joints.index(joint) if joint in detector.joints else -1 for joint in JOINTS]
    return np.array([in_image[row] if row >= 0 else (np.nan, np.nan) for row in rows])


def found_of(points: Floats, person: Labelled, sides_free: bool = False) -> Floats:
    """(17,) 1 where a joint is found, 0 where not, NaN where it is not labelled."""
    error = np.linalg.norm(points - person.uv, axis=1)
    if sides_free:
        other = [JOINTS.index(mirror_name(joint, JOINTS)) for joint in JOINTS]
        error = np.fmin(error, np.linalg.norm(points[other] - person.uv, axis=1))
    near = error < NEAR * person.box[2:].max()
    return np.where(np.isfinite(person.uv[:, 0]), near, np.nan)


def sheet(people: list[Labelled], points: list[Floats], score: Floats) -> NDArray[np.uint8]:
    """Crops with skeletons, least found joints first."""
    order = np.argsort(score, kind="stable")[:WORST]
    tiles = [draw(people[index], points[index], float(score[index])) for index in order]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    return np.vstack([np.hstack(tiles[row : row + COLUMNS]) for row in range(0, len(tiles), COLUMNS)])


def draw(person: Labelled, points: Floats, score: float) -> NDArray[np.uint8]:
    """One crop: right limbs orange, left ones blue; labels as white dots."""
    tile = person.crop.copy()
    to_crop = np.linalg.inv(np.vstack([image_from_pixels(person.square, TILE), [0, 0, 1]]))[:2]

    def at(uv: Floats) -> tuple[int, int]:
        u, v = np.round(to_crop[:, :2] @ uv + to_crop[:, 2]).astype(int)
        return int(u), int(v)

    for side, colour in (("r", (255, 140, 0)), ("l", (40, 120, 255))):
        for bone in BONES:
            a, b = (points[JOINTS.index(f"{side}_{joint}")] for joint in bone.split())
            cv2.line(tile, at(a), at(b), colour, 2, cv2.LINE_AA)
    for uv in person.uv[np.isfinite(person.uv[:, 0])]:
        cv2.circle(tile, at(uv), 2, (255, 255, 255), -1)
    cv2.putText(tile, f"{person.source} {score:.0%}", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1)
    return tile


def main() -> None:
    """Print the tables, write the gallery."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--detectors", nargs="+", required=True, help="blazepose, or weights files of hourglasses")
    parser.add_argument("--flip-test", action="store_true")
    parser.add_argument("--gallery", type=Path)
    args = parser.parse_args()
    keep_memory()
    people = list(photos(args.data / "photos_2d"))
    many = len(people)
    people += samples(args.data / "h36m_sample" / "samples.npz", "h36m")
    for name in ("samples_train.npz", "samples_test.npz"):
        people += samples(args.data / "mpi_inf_3dhp_sample" / name, "3dhp")
    print(f"{many} people of photos_2d, {len(people) - many} of Human3.6M and MPI-INF-3DHP; near is {NEAR} of the box")
    limbs = slice(0, len(LIMBS))
    table, first = {}, None
    for name in args.detectors:
        kind = ("blazepose", None) if name == "blazepose" else ("hourglass", Path(name))
        detector = make_detector(*kind, flip_test=args.flip_test)
        points = [peaks(detector, person) for person in people]
        found = np.array([found_of(p, person) for p, person in zip(points, people, strict=True)])
        free = np.array([found_of(p, person, True) for p, person in zip(points, people, strict=True)])
        label = name if name == "blazepose" else "/".join(Path(name).parts[-2:])
        table[label] = found
        print(f"{label}: 12 joints of the limbs, photos_2d {np.nanmean(found[:many, limbs]):.3f}", end="")
        print(f" (sides free {np.nanmean(free[:many, limbs]):.3f})", end="")
        print(f", the others {np.nanmean(found[many:, limbs]):.3f}; faces {np.nanmean(found[:many, len(LIMBS) :]):.3f}")
        first = first or (points, np.nanmean(found[:, limbs], axis=1))
    kinds = {"shoulder": 2, "elbow": 2, "wrist": 2, "hip": 2, "knee": 2, "ankle": 2, "nose": 1, "eye": 2, "ear": 2}
    print(f"{'photos_2d':32}" + "".join(f"{kind:>9}" for kind in kinds))
    for name, found in table.items():
        ends = np.cumsum([0, *kinds.values()])
        columns = [np.nanmean(found[:many, a:b]) for a, b in pairwise(ends)]
        print(f"{name:32}" + "".join(f"{value:9.2f}" for value in columns))
    sources = sorted({person.source for person in people})
    print(f"{'by source':32}" + "".join(f"{source[:8]:>9}" for source in sources))
    for name, found in table.items():
        means = [np.nanmean(found[[p.source == source for p in people]][:, limbs]) for source in sources]
        print(f"{name:32}" + "".join(f"{value:9.2f}" for value in means))
    if args.gallery and first:
        cv2.imwrite(str(args.gallery), sheet(people, *first)[..., ::-1])


if __name__ == "__main__":
    main()

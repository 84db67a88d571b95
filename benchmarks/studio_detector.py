"""How real do the people of the studio look? BlazePose, trained on photographs, has to find them and their joints.

Crops of split `test`. Found: the person finder's best candidate lies on the person. Joints: the peaks of the landmark
network's heat maps in a square around that candidate, against COCO's joints of the truth, those that can be seen;
distances over the diagonal of the person's box. `--hard` with everything that training crops have: occluders, other
people, turns, cut bodies, bad cameras. Writes a sheet of the crops on which it errs most.

    python benchmarks/studio_detector.py --n 500 [--hard] --out studio_detector.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harvest.detect2d.blazepose import JOINTS, BlazePoseDetector, BlazePosePersonFinder
from harvest.detect2d.detectors import chain, crop_picture, image_from_pixels
from harvest.reconstruct.peaks import peak_points
from harvest.studio.assets import Assets, find_assets
from harvest.studio.crops import EASY, Crop, CropStudio, Hardship
from harvest.studio.sheet import draw_joints
from harvest.studio.truth import VISIBLE, names_of
from harvest.types import Heatmaps

SHARED = [joint for joint in names_of("coco17") if joint in JOINTS]
WORST = 24


class Judge:
    """BlazePose's two networks on one crop."""

    def __init__(self) -> None:
        """Load them."""
        self.finder, self.detector = BlazePosePersonFinder(), BlazePoseDetector()

    def joints(self, picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """(J, 2) pixels of SHARED joints of the person on the mask; None where the finder finds nobody there."""
        candidates = self.finder(picture)
        for centre, radius in zip(candidates.centre_px, candidates.radius_px, strict=True):
            low, high = (centre - 0.35 * radius).astype(int), (centre + 0.35 * radius).astype(int) + 1
            if mask[max(low[1], 0) : high[1], max(low[0], 0) : high[0]].any():
                return self._in_square(picture, centre, 1.25 * radius)
        return None

    def _in_square(self, picture: NDArray[np.uint8], centre: NDArray[Any], half: float) -> NDArray[np.float64]:
        affine = np.array([[2 * half, 0, centre[0] - half], [0, 2 * half, centre[1] - half]])
        maps = self.detector(crop_picture(picture, affine, 256)[None])[:, None].transpose(1, 0, 2, 3, 4)
        from_map = chain(image_from_pixels(affine, 256), self.detector.crop_from_heatmap)[None, None]
        points, _ = peak_points(Heatmaps(np.zeros(1, np.int64), ("crop",), JOINTS, maps, from_map))
        return points[0, 0, [JOINTS.index(joint) for joint in SHARED]]


def picture_of(crop: Crop, hard: bool) -> NDArray[np.uint8]:
    """The crop's picture, with the camera's faults if `hard`."""
    return crop.effects.apply(crop.picture, np.random.default_rng(crop.index)) if hard else crop.picture


def main() -> None:
    """Print the detection rate and errors by joint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    folder = find_assets()
    if folder is None:
        raise SystemExit("no studio assets; run `harvest studio assets build`")
    studio, judge = CropStudio(Assets(folder), 7, "test", Hardship() if args.hard else EASY), Judge()
    places, found, errors, bad = [names_of("coco17").index(joint) for joint in SHARED], 0, [], []
    for index in tqdm(range(args.n), desc="crops"):
        crop = studio.crop(index)
        picture, truth = picture_of(crop, args.hard), crop.joints["coco17"]
        joints = judge.joints(picture, crop.mask)
        if joints is None:
            bad.append((np.inf, picture, crop))
            continue
        found += 1
        box = np.linalg.norm(np.nanmax(truth.uv_px, 0) - np.nanmin(truth.uv_px, 0))
        error = np.linalg.norm(joints - truth.uv_px[places], axis=1) / box
        errors.append(np.where(truth.visibility[places] == VISIBLE, error, np.nan))
        bad.append((float(np.nanmean(errors[-1])), picture, crop))
    table = np.array(errors)
    print(f"{found} of {args.n} found: {found / args.n:.1%}")
    print(
        f"error over the box's diagonal: median {np.nanmedian(table):.2%}, 90 % below {np.nanquantile(table, 0.9):.1%}"
    )
    for joint, column in zip(SHARED, table.T, strict=True):
        print(f"  {joint:12}{np.nanmedian(column):8.2%}{np.nanquantile(column, 0.9):8.1%}")
    if args.out:
        bad.sort(key=lambda row: -row[0])
        tiles = []
        for _, picture, crop in bad[:WORST]:
            truth = crop.joints["coco17"]
            tiles += [picture, draw_joints(picture, truth.uv_px, truth.visibility, "coco17")]
        rows = [np.hstack(tiles[i : i + 12]) for i in range(0, len(tiles) - 11, 12)]
        cv2.imwrite(str(args.out), np.vstack(rows)[..., ::-1])


if __name__ == "__main__":
    main()

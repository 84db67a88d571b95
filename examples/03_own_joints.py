"""Inference on heat maps of your own, for joints of your own, without any file: an arm of three joints.

    python examples/03_own_joints.py

Here the maps are Gaussians; put the maps of your own network in their place. They need not be normalised, but must be
non-negative, and `floor` is on their scale.
"""

from __future__ import annotations

import argparse

import numpy as np

from calib.rig import Rig
from harvest.reconstruct.limb_lengths import LimbLengths
from harvest.reconstruct.pictorial import PictorialModel, PictorialSettings
from harvest.select import position_sigma_m
from harvest.skeleton import Limb, Skeleton
from harvest.studio.figure import ring_rig

CELLS = 48
JOINTS = ("shoulder", "elbow", "wrist")
SKELETON = Skeleton("arm", JOINTS, (Limb("elbow", "shoulder", 0.166), Limb("wrist", "elbow", 0.146)))
# From each joint to its parent, NaN at the root; here known from a tape measure.
LENGTHS = LimbLengths(np.array([np.nan, 0.30, 0.26]), np.zeros(3), 1.8, np.zeros(3, np.int64))
TRUTH_M = np.array([[0.1, 0.0, 1.4], [0.1, 0.3, 1.4], [0.256, 0.3, 1.192]])


def heat_maps(rig: Rig) -> tuple[np.ndarray, np.ndarray]:
    """Scores (V, h, w, J) float32, joints last, and for every view the affine (2, 3) from cells to image pixels."""
    y, x = np.mgrid[:CELLS, :CELLS]
    score, affines = np.zeros((len(rig), CELLS, CELLS, len(TRUTH_M)), np.float32), []
    for view, uv in enumerate(rig.project(TRUTH_M)):
        px_per_cell, corner = 3.0, uv.mean(axis=0) - 3.0 * CELLS / 2
        affines.append(np.column_stack([np.eye(2) * px_per_cell, corner]))
        for joint, (cx, cy) in enumerate((uv - corner) / px_per_cell):
            score[view, :, :, joint] = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.5**2))
    return score, np.stack(affines)


def main() -> None:
    """Infer the pose and print it beside the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=48)
    rig = ring_rig(3)
    score, image_from_heatmap = heat_maps(rig)
    model = PictorialModel(SKELETON, LENGTHS, PictorialSettings(voxels=parser.parse_args().voxels))
    pose = model.infer(rig, score, image_from_heatmap, centre_m=TRUTH_M.mean(axis=0), side_m=1.2)
    print(f"found {pose.found}, certified error of any probability at most {pose.error_bound:.1e}")
    for name, mean, cov, truth in zip(JOINTS, pose.mean_m, pose.cov_m2, TRUTH_M):
        place = ", ".join(f"{value:.3f}" for value in mean)
        error, sigma = 1000 * np.linalg.norm(mean - truth), 1000 * position_sigma_m(cov)
        print(f"{name:10} ({place}) m, sigma {sigma:.1f} mm, error {error:.1f} mm")


if __name__ == "__main__":
    main()

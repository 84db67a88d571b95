"""Made-up scenes of several cameras and the heat maps that a detector would give of them, with exact truth."""

import numpy as np
import torch

from calib.camera import Camera
from calib.rig import Rig
from harvest.detect2d.keypoints import gaussian_heatmaps
from harvest.learn.map_sets import MultiViewMaps
from harvest.studio.figure import ring_rig
from harvest.triangulate3d.infer_maps import triangulate_learned
from harvest.triangulate3d.lenses import optics_of
from harvest.triangulate3d.map_volume import MapVolumetric
from harvest.types import Heatmaps, Poses3D

CELLS = 64
JOINTS = ("pelvis", "head_top", "l_wrist", "r_wrist")
LENSES = {
    "none": ("pinhole", []),
    "barrel": ("pinhole", [-0.2, 0.24, -0.0009, -0.0016, 0.0]),
    "folding": ("pinhole", [-0.35, 0.0, 0.0, 0.0]),
    "rational": ("pinhole", [0.3, -0.1, 1e-3, -2e-3, 0.02, 0.35, -0.05, 0.01]),
    "prism": ("pinhole", [-0.1, 0.05, 1e-3, -5e-4, 0.0, 0.0, 0.0, 0.0, 1e-3, -2e-3, 3e-3, 1e-3]),
    "tilted": ("pinhole", [-0.1, 0.05, 1e-3, -5e-4, 0.0, 0.0, 0.0, 0.0, 1e-3, -2e-3, 3e-3, 1e-3, 0.03, -0.02]),
    "fisheye": ("fisheye", [0.02, -0.01, 0.003, -0.001]),
}


def rig_of(*lenses: str) -> Rig:
    """A ring of cameras 4 m from the middle, each with its own lens."""
    cameras = []
    for camera, name in zip(ring_rig(len(lenses)).cameras, lenses, strict=True):
        model, dist = LENSES[name]
        pose = camera.R_cam_from_world, camera.t_cam_from_world_m
        cameras.append(Camera(camera.name, camera.size_px, camera.K, np.array(dist), *pose, model))
    return Rig(tuple(cameras))


def crops_round(rig: Rig, xyz: np.ndarray) -> np.ndarray:
    """(V, 2, 3) image_from_heatmap of square crops round joints (J, 3)."""
    affine = np.zeros((len(rig), 2, 3))
    for view, uv in enumerate(rig.project(xyz)):
        side = 1.3 * float(np.ptp(uv, axis=0).max()) + 20
        corner = (uv.min(axis=0) + uv.max(axis=0) - side) / 2
        affine[view] = [[side / CELLS, 0, corner[0]], [0, side / CELLS, corner[1]]]
    return affine


def maps_round(rig: Rig, xyz: np.ndarray, joints: tuple[str, ...]) -> Heatmaps:
    """Exact maps of joints (T, J, 3): Gaussians of one cell where the joints are seen."""
    affine = np.stack([crops_round(rig, points) for points in xyz])
    sure = np.full((len(rig), xyz.shape[1]), 0.98)
    pairs = zip(xyz, affine, strict=True)
    score = np.stack([gaussian_heatmaps(rig.project(points), sure, crop, CELLS) for points, crop in pairs])
    return Heatmaps(np.arange(len(xyz)), rig.names, joints, score.astype(np.float32), affine)


def blurred(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A wrong map (h, w) as detectors give them: wide, low, and somewhere else."""
    x, y = rng.uniform(8, CELLS - 8, 2)
    cells = np.arange(CELLS)
    wide = np.exp(-((cells - x) ** 2 + (cells[:, None] - y) ** 2) / (2 * 4.0**2))
    return (0.35 * wide + 0.1 * score).astype(np.float32)


def scene(number: int, rig: Rig | None = None, joints: tuple[str, ...] = JOINTS, wrong_view: bool = False):
    """Item `number` of an endless set: random joints round a random place; perhaps with one view all wrong, and which
    one that is.
    """
    rng = np.random.default_rng([7, number])
    rig = rig or ring_rig(4)
    xyz = rng.normal(0, 0.3, 3) * [1, 1, 0.2] + [0, 0, 1.0] + rng.uniform(-0.6, 0.6, (len(joints), 3))
    maps = maps_round(rig, xyz[None], joints)
    score, wrong = maps.score[0], int(rng.integers(len(rig)))
    if wrong_view:
        score[wrong] = [blurred(grid, rng) for grid in score[wrong]]
    item = MultiViewMaps(joints, score, maps.image_from_heatmap[0], optics_of(rig), np.array(rig.up), xyz)
    return item, wrong


def tiny(joints: tuple[str, ...] = JOINTS, how: str = "softmax") -> MapVolumetric:
    """A small volumetric network, always the same."""
    torch.manual_seed(0)
    return MapVolumetric(joints, how, width=4, levels=2, n=16)


def answer(network, rig: Rig, maps: Heatmaps, xyz: np.ndarray, side_m: float = 2.2) -> Poses3D:
    """The poses of maps whose person stands round the middle of joints (T, J, 3)."""
    return triangulate_learned(network.eval(), rig, maps, np.arange(len(xyz)) / 30, xyz.mean(axis=1), side_m)

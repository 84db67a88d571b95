"""Made-up maps of the hard kinds: few or many views, any floor, views that lie, views that are missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from harvest.reconstruct.limb_lengths import typical_lengths
from harvest.reconstruct.pictorial import PictorialModel, PictorialSettings, invert_affine
from harvest.studio.figure import moving_figure, ring_rig

HEIGHT_M, SIDE_M, CELLS = 1.75, 2.2, 64


def scene(
    views: int, kind: str, seed: int, frame: int = 0
) -> tuple[Rig, NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Rig, maps (V, 64, 64, 16), image_from_heatmap (V, 2, 3) and the true joints of one frame.

    kind: 'clean'; 'outlier' (in one view in five, at least one, every joint lies elsewhere); 'missing' (one view in
    five, at least one, shows nothing).
    """
    rng = np.random.default_rng(seed)
    rig, (skeleton, joints) = ring_rig(views), moving_figure(frame + 1, HEIGHT_M)
    xyz = joints[frame]
    y, x = np.mgrid[:CELLS, :CELLS]
    maps = np.zeros((views, CELLS, CELLS, len(skeleton.joints)), np.float32)
    affine = np.zeros((views, 2, 3))
    spoilt = rng.permutation(views)[: max(1, views // 5)] if kind != "clean" else []
    for view, camera in enumerate(rig.cameras):
        uv = camera.project(xyz)
        scale = 1.25 * (uv.max(0) - uv.min(0)).max() / CELLS
        start = (uv.max(0) + uv.min(0)) / 2 - scale * (CELLS - 1) / 2
        affine[view] = np.column_stack([np.eye(2) * scale, start])
        cells = (uv - start) / scale + rng.normal(0, 0.8, uv.shape)
        if view in spoilt and kind == "outlier":
            cells = rng.uniform(8, CELLS - 8, cells.shape)
        if view in spoilt and kind == "missing":
            continue
        for joint, (cx, cy) in enumerate(cells):
            maps[view, :, :, joint] = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.2**2))
    return rig, maps, affine, xyz


def model(settings: PictorialSettings) -> PictorialModel:
    """The figure's own skeleton with its true limb lengths."""
    skeleton, _ = moving_figure(1, HEIGHT_M)
    return PictorialModel(skeleton, typical_lengths(skeleton, HEIGHT_M), settings)


def unprojection(rig: Rig, affine: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the unprojection kernel takes of cameras: (V, 2, 3) cells from image, (V, 36) packed."""
    cameras = np.stack([camera.packed for camera in rig.cameras])
    return np.stack([invert_affine(a) for a in affine]), cameras

"""From a block of pictures to poses, by the published networks, which see pictures and no heat maps.

They know no lens: each picture is cut to what an ideal pinhole camera would show of the person
(harvest/detect2d/rectify.py), and their projections are those of these cameras, in pixels of the crops. They were
trained on crops of Human3.6M, of people who stand upright in a cube of 2.5 m round the pelvis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib.camera import Camera
from calib.covariance import fit_covariance
from calib.rig import Rig
from harvest.detect2d.hourglass_detector import fast_bf16
from harvest.detect2d.rectify import ideal_camera, rectified_crop
from harvest.errors import UserError
from harvest.triangulate3d.algebraic import triangulate_weighted
from harvest.triangulate3d.folded import folded
from harvest.triangulate3d.from_maps import upright
from harvest.triangulate3d.infer_maps import heat_at, maps_of_joints, supported_poses, views_of
from harvest.triangulate3d.published import (
    PublishedAlgebraic,
    PublishedVolumetric,
    load_published_algebraic,
    load_published_volumetric,
    read_state,
    renamed,
)
from harvest.triangulate3d.volumetric import Cube, How
from harvest.types import Heatmaps, Poses3D

Floats = NDArray[np.float64]
Pictures = Mapping[str, NDArray[np.uint8] | None]
CROP_PX = 384
CUBE_M, VOXELS = 2.5, 64  # of the published volumetric weights
# Their joints by the names of the skeleton h36m17. In Human3.6M's recordings these are joints 3 2 1 6 7 8 0 12 13 15 27
# 26 25 17 18 19 14: 12 is the middle of the spine, 13 where the neck begins, 14 the joint of the head, 15 its top.
JOINTS = (
    *("r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "pelvis", "spine", "neck", "head_top"),
    *("r_wrist", "r_elbow", "r_shoulder", "l_shoulder", "l_elbow", "l_wrist", "nose"),
)
# Of the channels blue, green and red, in this order: red's numbers for blue, as the weights were trained.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FEWEST = 2  # views


@dataclass(frozen=True, eq=False)
class PictureTriangulator:
    """A published network of JOINTS, which looks at pictures."""

    network: PublishedAlgebraic | PublishedVolumetric
    joints: tuple[str, ...] = JOINTS

    @property
    def kind(self) -> Literal["algebraic", "volumetric"]:
        """The method that it serves."""
        return "volumetric" if isinstance(self.network, PublishedVolumetric) else "algebraic"


@dataclass(frozen=True, eq=False)
class Crops:
    """What views show of a person in one frame: images (V, S, S, 3) uint8 RGB, and the ideal cameras that show it."""

    images: NDArray[np.uint8]
    cameras: tuple[Camera, ...]

    @property
    def projections(self) -> Floats:
        """(V, 3, 4) from the world to pixels of the crops."""
        poses = (np.column_stack([c.R_cam_from_world, c.t_cam_from_world_m]) for c in self.cameras)
        return np.stack([camera.K @ pose for camera, pose in zip(self.cameras, poses, strict=True)])


def load_picture_triangulator(path: Path, how: How | None = None) -> PictureTriangulator:
    """The published network of a .pth file, folded, on the CPU; its 3D network computes in bfloat16 where the processor
    does.

    Args:
        how: views of a volumetric network come together, which the weights do not tell; None: by confidence where there
            are volumetric confidences, else by softmax.
    Raises:
        UserError: as `load_published_algebraic`; other joints than JOINTS; `how` for an algebraic network.
    """
    state = read_state(path)
    known = renamed(state).keys()
    network: PublishedAlgebraic | PublishedVolumetric
    if "volume.out.weight" in known:
        confident = "backbone.volumetric_head.layers.4.bias" in known
        network = load_published_volumetric(state, how or ("confidence" if confident else "softmax"))
        joints = network.volume.out.out_channels
    elif how is None:
        network = load_published_algebraic(state)
        joints = len(network.state_dict()["backbone.score.weight"])
    else:
        raise UserError(f"reconstruct.how goes with volumetric weights, and {path} holds algebraic ones; leave it out")
    if joints != len(JOINTS):
        raise UserError(
            f"{path} knows {joints} joints, and names are known only for the {len(JOINTS)} of Human3.6M; give weights "
            "that were trained on these"
        )
    if isinstance(network, PublishedVolumetric):
        network.bf16 = fast_bf16()
    return PictureTriangulator(folded(network))


def triangulate_pictures(
    model: PictureTriangulator,
    rig: Rig,
    maps: Heatmaps,
    times_s: Floats,
    image_from_crop: Floats,
    centres_m: Floats,
    pictures: Callable[[Sequence[int]], Iterator[tuple[int, Pictures]]],
) -> Poses3D:
    """Poses of a block of frames, of the published networks' joints.

    All joints are found in frames of which two views or more show a crop: by the algebraic network, where the rays
    meet; by the volumetric one, where the person has a place. The covariance is that of the volume, or that of the
    least-squares fit with the learnt weights, whose pixels err by the residual or by a cell's width over sqrt(12),
    whichever is larger. Confidence and `n_views` come from the run's heat maps at the projections, as for the methods
    that see these: the networks do not say where they are lost, and a joint that the maps do not have stays without
    support. The network runs where its parameters are, frame by frame.

    Args:
        maps: of any joints. image_from_crop: (T, V, 2, 3) of the person's boxes, NaN where there is none.
        centres_m: (T, 3) of the pelvis, NaN where it has no place. The algebraic network does not look at them.
        pictures: of frame numbers, which increase, each number and the views' RGB pictures (None where there is none).
    """
    rig, maps = rig.select(maps.views), maps_of_joints(maps, model.joints)
    t, v, j = maps.score.shape[:3]
    xyz, cov, heat = np.full((t, j, 3), np.nan), np.full((t, j, 3, 3), np.nan), np.zeros((t, v, j))
    shown = np.isfinite(image_from_crop).all(axis=(2, 3)).sum(axis=1) >= _FEWEST
    if model.kind == "volumetric":
        shown &= np.isfinite(centres_m).all(axis=1)
    rows = np.flatnonzero(shown)
    for row, (_, images) in zip(rows, pictures(maps.frames[rows].tolist()), strict=True):
        crops = crops_of(rig, images, image_from_crop[row])
        if crops is not None:
            with torch.inference_mode():
                xyz[row], cov[row] = _answer(model.network, crops, centres_m[row], rig.up)
    if len(rows):
        with torch.inference_mode():
            heat[rows] = heat_at(views_of(rig, maps, rows, torch.device("cpu")), torch.from_numpy(xyz[rows])).numpy()
    return supported_poses(maps, times_s, xyz, cov, heat)


def crops_of(rig: Rig, images: Pictures, image_from_crop: Floats) -> Crops | None:
    """The crops of one frame, of the views with a picture and a box (V, 2, 3); None where these are fewer than two."""
    found, cameras = [], []
    for camera, box in zip(rig.cameras, image_from_crop, strict=True):
        image = images[camera.name]
        ideal = ideal_camera(camera, box, CROP_PX) if image is not None and np.isfinite(box).all() else None
        if image is not None and ideal is not None:
            found.append(rectified_crop(image, camera, ideal))
            cameras.append(ideal)
    return Crops(np.stack(found), tuple(cameras)) if len(found) >= _FEWEST else None


def network_input(images: NDArray[np.uint8]) -> Tensor:
    """(V, 3, S, S) float32 as the published networks expect crops (V, S, S, 3) RGB: BGR in 0..1, less MEAN, over
    DEVIATION.
    """
    bgr = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).permute(0, 3, 1, 2)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (bgr / 255 - mean) / deviation


def _answer(
    network: PublishedAlgebraic | PublishedVolumetric, crops: Crops, centre_m: Floats, up: tuple[float, float, float]
) -> tuple[Floats, Floats]:
    device = next(network.parameters()).device
    images = network_input(crops.images).to(device)[None]
    if isinstance(network, PublishedVolumetric):
        return _from_volume(network, images, crops.projections, centre_m, up)
    crop_px, weight = network.observe(images)
    projections = torch.from_numpy(crops.projections).to(device)[None]
    xyz = triangulate_weighted(crop_px.double(), projections, weight.double()).xyz_m[0].cpu().numpy()
    # In pixels of the crops: these, and not the pictures', are alike for all views, and err alike.
    uv, w = (value[0].cpu().numpy().astype(np.float64) for value in (crop_px, weight))
    return xyz, fit_covariance(Rig(crops.cameras), xyz, uv, w, network.backbone.stride / np.sqrt(12.0))


def _from_volume(
    network: PublishedVolumetric, images: Tensor, projections: Floats, centre_m: Floats, up: tuple[float, float, float]
) -> tuple[Floats, Floats]:
    """In coordinates of its own, from the cube's middle and with z up: the network knows what is up by the axis."""
    turn = upright(torch.tensor(up, dtype=torch.float64)).numpy()
    world_from_own = np.vstack([np.column_stack([turn.T, centre_m]), [0.0, 0.0, 0.0, 1.0]])
    given = torch.from_numpy(projections @ world_from_own).to(images.device)[None]
    cube = Cube(images.new_zeros(1, 3), CUBE_M, VOXELS)
    pose = network(images, given, cube, covariance=True)
    assert pose.covariance_m2 is not None
    mean, cov = (value[0].cpu().numpy().astype(np.float64) for value in (pose.mean_m, pose.covariance_m2))
    return mean @ turn + centre_m, turn.T @ cov @ turn

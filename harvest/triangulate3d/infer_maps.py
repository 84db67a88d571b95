"""From a block of heat maps to poses, by a network that triangulates maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calib.covariance import fit_covariance
from calib.rig import Rig
from harvest.detect2d.hourglass_detector import fast_bf16
from harvest.errors import UserError
from harvest.triangulate3d.from_maps import CubePlace, MapAlgebraic, MapViews, inverse_affine, upright
from harvest.triangulate3d.lenses import Lenses, optics_of
from harvest.triangulate3d.map_files import Triangulator
from harvest.triangulate3d.map_volume import VOXELS, MapVolumetric
from harvest.triangulate3d.volumetric import sample
from harvest.types import Heatmaps, Poses3D

Floats = NDArray[np.float64]
BATCH = 8  # frames of the volumetric model's usual size that are held at a time
NEEDED_SHARE = 0.5  # of the volumetric model's joints, that maps must be there of
SUPPORT = 0.1  # heat at the projection from which a view counts as supporting a joint, as for pictorial structures
_FEWEST = 2  # views


def triangulate_learned(
    model: Triangulator, rig: Rig, maps: Heatmaps, times_s: Floats, centres_m: Floats, side_m: float
) -> Poses3D:
    """Poses of a block of frames: of the maps' joints by an algebraic model, of its own by a volumetric one.

    Joints are found in frames of which two views or more show something: by the algebraic model, those of which two or
    more have heat, whose rays meet; by the volumetric one all, where the person has a place. The confidence is the mean
    heat at the projections, over the views with maps; `n_views` counts those with heat of SUPPORT or more there. The
    covariance is that of the volume, or that of the least-squares fit with the learnt weights, whose pixels err by the
    residual or by a cell's width over sqrt(12), whichever is larger. The network runs where its parameters are.

    Args:
        centres_m: (T, 3) of the person, NaN where there is none. side_m: of a cube that holds the person. The algebraic
            model does not look at them.
    Raises:
        UserError: maps of fewer than half of the volumetric model's joints.
    """
    rig = rig.select(maps.views)
    if isinstance(model, MapVolumetric):
        _need_joints(model, maps)
        maps = maps_of_joints(maps, model.joints)
    t, v, j = maps.score.shape[:3]
    xyz, cov = np.full((t, j, 3), np.nan), np.full((t, j, 3, 3), np.nan)
    heat = np.zeros((t, v, j))
    showing = maps.present & (maps.score.max(axis=(2, 3, 4)) > 0)
    frames = np.flatnonzero(showing.sum(axis=1) >= _FEWEST)
    if isinstance(model, MapVolumetric):
        frames = frames[np.isfinite(centres_m[frames]).all(axis=1)]
    least_px = _cell_px(maps) / np.sqrt(12.0)
    device = next(model.parameters()).device
    for part in np.array_split(frames, -(-len(frames) // _batch(model))) if len(frames) else []:
        views = views_of(rig, maps, part, device)
        with torch.inference_mode():
            if isinstance(model, MapVolumetric):
                xyz[part], cov[part] = _from_volume(model, rig, views, centres_m[part], side_m)
            else:
                xyz[part], cov[part] = _from_rays(model, rig, views, least_px)
            heat[part] = heat_at(views, torch.from_numpy(xyz[part]).to(device)).cpu().numpy()
    return supported_poses(maps, times_s, xyz, cov, heat)


def supported_poses(maps: Heatmaps, times_s: Floats, xyz_m: Floats, cov_m2: Floats, heat: Floats) -> Poses3D:
    """Poses at places (T, J, 3) with covariances, by the heat (T, V, J) of each view's map at the projections: its mean
    over the views with maps is the confidence, and views with SUPPORT or more support the joint. A place without a
    covariance, behind a view or too far away to tell a distance, is none: that joint is not found.
    """
    known: NDArray[np.bool_] = np.asarray(np.isfinite(cov_m2).all(axis=(2, 3)))
    heat = heat * known[:, None]
    present = np.maximum(maps.present.sum(axis=1), 1)[:, None]
    return Poses3D(
        frames=maps.frames,
        time_s=times_s,
        views=maps.views,
        joints=maps.joints,
        xyz_m=np.where(known[..., None], xyz_m, np.nan),
        cov_m2=cov_m2,
        confidence=np.clip(heat.sum(axis=1) / present, 0.0, 1.0),
        n_views=(heat >= SUPPORT).sum(axis=1),
        flip=np.full(heat.shape[:2], np.nan),
    )


def _need_joints(model: MapVolumetric, maps: Heatmaps) -> None:
    shown = len(set(model.joints) & set(maps.joints))
    if shown < NEEDED_SHARE * len(model.joints):
        raise UserError(
            f"the volumetric model knows {len(model.joints)} joints ({', '.join(model.joints[:4])}, ...), and the "
            f"detector has {shown} of them; train one with this detector's maps, or take --method algebraic"
        )


def maps_of_joints(maps: Heatmaps, joints: Sequence[str]) -> Heatmaps:
    """The maps of those joints, by name, in that order; empty ones of joints that there are no maps of."""
    t, v, _, h, w = maps.score.shape
    score = np.zeros((t, v, len(joints), h, w), np.float32)
    for place, joint in enumerate(joints):
        if joint in maps.joints:
            score[:, :, place] = maps.score[:, :, maps.joints.index(joint)]
    return Heatmaps(maps.frames, maps.views, tuple(joints), score, maps.image_from_heatmap)


def _cell_px(maps: Heatmaps) -> float:
    """The median width of a cell in the pictures."""
    linear = maps.image_from_heatmap[maps.present][:, :, :2]
    return float(np.median(np.sqrt(np.abs(np.linalg.det(linear))))) if len(linear) else 1.0


def _batch(model: Triangulator) -> int:
    return max(int(BATCH * (VOXELS / model.n) ** 3), 1) if isinstance(model, MapVolumetric) else BATCH


def views_of(rig: Rig, maps: Heatmaps, part: NDArray[np.int64], device: torch.device) -> MapViews:
    """What the maps of those frames show; the rig's cameras are those of the maps, in order."""
    optics = torch.from_numpy(optics_of(rig)).to(device)
    given = maps.score[part], maps.image_from_heatmap[part], maps.present[part]
    score, affine, seen = (torch.from_numpy(value).to(device) for value in given)
    return MapViews(score, affine, Lenses.from_optics(optics.expand(len(part), *optics.shape)), seen)


def _from_rays(model: MapAlgebraic, rig: Rig, views: MapViews, least_px: float) -> tuple[Floats, Floats]:
    pose = model(views)
    xyz, weight, uv = (value.cpu().numpy().astype(np.float64) for value in (pose.xyz_m, pose.weight, pose.image_px))
    b, v, j = weight.shape
    uv, weight = (value.swapaxes(0, 1).reshape(v, b * j, *value.shape[3:]) for value in (uv, weight))
    cov = fit_covariance(rig, xyz.reshape(-1, 3), uv, weight, least_px)
    return xyz, cov.reshape(b, j, 3, 3)


def _from_volume(
    model: MapVolumetric, rig: Rig, views: MapViews, centres_m: Floats, side_m: float
) -> tuple[Floats, Floats]:
    centre = torch.from_numpy(centres_m).to(views.lenses.t)
    turn = upright(centre.new_tensor(rig.up)).expand(len(centre), 3, 3)
    place = CubePlace(centre, centre.new_full((len(centre),), side_m), turn)
    device = views.score.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda" or fast_bf16()):
        pose, _ = model(views, place, covariance=True)
    assert pose.covariance_m2 is not None
    xyz, cov = place.out_of(pose.mean_m.to(centre), pose.covariance_m2.to(centre))
    return xyz.cpu().numpy(), cov.cpu().numpy()


def heat_at(views: MapViews, xyz_m: Tensor) -> Tensor:
    """(B, V, J) what each view's map of a joint shows where the joint (B, J, 3) projects; 0 where it is not seen."""
    uv = views.lenses.project(xyz_m[:, None].expand(-1, views.seen.shape[1], -1, -1))
    to_cells = inverse_affine(views.image_from_heatmap)[:, :, None]
    cells = (to_cells[..., :2] * uv[..., None, :]).sum(-1) + to_cells[..., 2]
    flat = sample(views.score.flatten(0, 2)[:, None], cells.flatten(0, 2)[:, None].to(views.score))
    return flat.reshape(views.score.shape[:3])

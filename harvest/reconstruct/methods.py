"""Ways from heat maps to 3D joints, behind one function each: pictorial structures, RANSAC, weighted DLT."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.covariance import fit_covariance
from calib.rig import Rig
from calib.triangulate import triangulate_dlt, triangulate_ransac
from harvest.reconstruct.evidence import SUPPORT, flip_log_odds, sample_maps
from harvest.reconstruct.peaks import peak_points
from harvest.reconstruct.pictorial import FramePose, PictorialModel, invert_affine
from harvest.skeleton import Skeleton
from harvest.types import Heatmaps, Poses3D

Floats = NDArray[np.float64]
Question = tuple[Rig, NDArray[np.float32], Floats, Floats, float]  # what `PictorialModel.infer` takes
RANSAC_PER_CROP = 0.04  # of the crop's side: how far a view may lie off and still count as agreeing
FLIP_ROUNDS = 2


def for_skeleton(maps: Heatmaps, skeleton: Skeleton) -> Heatmaps:
    """The maps of the skeleton's joints, in its order; latent joints and those the detector lacks get empty ones."""
    t, v, _, h, w = maps.score.shape
    score = np.zeros((t, v, len(skeleton.joints), h, w), np.float32)
    for index, joint in enumerate(skeleton.joints):
        if joint in maps.joints and joint not in skeleton.latent:
            score[:, :, index] = maps.score[:, :, maps.joints.index(joint)]
    return Heatmaps(maps.frames, maps.views, skeleton.joints, score, maps.image_from_heatmap)


def triangulated_peaks(rig: Rig, maps: Heatmaps) -> tuple[Floats, Floats, Floats]:
    """Joints (T, J, 3) on which views agree by RANSAC, the peaks (V, T, J, 2) in pixels and their values (V, T, J).

    The threshold is RANSAC_PER_CROP of the median crop's side, in pixels.
    """
    points, value = peak_points(maps)
    points, value = points.transpose(1, 0, 2, 3), value.transpose(1, 0, 2)
    v, t, j, _ = points.shape
    xyz, _ = triangulate_ransac(rig, points.reshape(v, -1, 2), value.reshape(v, -1), threshold_px(maps))
    return xyz.reshape(t, j, 3), points, value


def threshold_px(maps: Heatmaps) -> float:
    """The RANSAC threshold for maps of this scale, pixels."""
    linear = maps.image_from_heatmap[..., :2]
    scale = np.sqrt(np.abs(np.linalg.det(linear[np.isfinite(linear).all(axis=(2, 3))])))
    return RANSAC_PER_CROP * maps.score.shape[-1] * float(np.median(scale)) if scale.size else 1.0


def triangulate(rig: Rig, maps: Heatmaps, times_s: Floats, method: str) -> Poses3D:
    """Poses by 'ransac' or 'dlt' from the maps' peaks, joint by joint.

    The covariance is that of the least-squares fit whose pixels err by the larger of the residual and a cell's width
    over sqrt(12). The confidence is the mean value of the peaks that took part. A point behind a view that took part,
    or so far away that the views tell no distance, has no covariance: that joint is not found.
    """
    points, value = peak_points(maps)
    t, v, j = value.shape
    uv, weight = points.transpose(1, 0, 2, 3).reshape(v, -1, 2), value.transpose(1, 0, 2).reshape(v, -1)
    if method == "dlt":
        xyz, used = triangulate_dlt(rig, uv, weight), weight > 0
    else:
        xyz, used = triangulate_ransac(rig, uv, weight, threshold_px(maps))
    used &= np.isfinite(xyz).all(axis=1)
    cell_px = threshold_px(maps) / RANSAC_PER_CROP / maps.score.shape[-1]
    cov = fit_covariance(rig, xyz, uv, used, cell_px / np.sqrt(12.0))
    known: NDArray[np.bool_] = np.asarray(np.isfinite(cov).all(axis=(1, 2)))
    xyz, used = np.where(known[:, None], xyz, np.nan), used & known
    counted = np.maximum(used.sum(axis=0), 1)
    confidence = np.clip((weight * used).sum(axis=0) / counted, 0.0, 1.0)
    return Poses3D(
        frames=maps.frames,
        time_s=times_s,
        views=maps.views,
        joints=maps.joints,
        xyz_m=xyz.reshape(t, j, 3),
        cov_m2=cov.reshape(t, j, 3, 3),
        confidence=np.where(np.isfinite(xyz[:, 0]), confidence, 0.0).reshape(t, j),
        n_views=used.sum(axis=0).reshape(t, j),
        flip=np.full((t, v), np.nan),
    )


@dataclass(frozen=True)
class FrameResult:
    """One frame's pose with what the views say about it: confidence (J,), n_views (J,), flip (V,)."""

    pose: FramePose
    confidence: Floats
    n_views: NDArray[np.int64]
    flip: Floats


def infer_frame(
    model: PictorialModel, rig: Rig, maps: Heatmaps, frame: int, box: tuple[Floats, float], flip_prior: float
) -> FrameResult:
    """The pictorial pose of one frame of `maps`, with each view's probability that it exchanged left and right.

    `box`: centre (3,) and side in metres. What is done with `flip_prior`: see `steps_of_frame`.
    """
    steps = steps_of_frame(model, rig, maps, frame, box, flip_prior)
    try:
        question = next(steps)
        while True:
            question = steps.send(model.infer(*question))
    except StopIteration as end:
        result: FrameResult = end.value
        return result


def steps_of_frame(
    model: PictorialModel, rig: Rig, maps: Heatmaps, frame: int, box: tuple[Floats, float], flip_prior: float
) -> Generator[Question, FramePose, FrameResult]:
    """The same step by step: whoever goes through it is asked for inferences, and sends back poses.

    The pose is inferred as the maps stand; then every view whose maps fit the pose better with sides exchanged is
    exchanged, and the exchange stays if the evidence of the whole frame, prior included, has grown. At most
    FLIP_ROUNDS times. `flip_prior` = 0 leaves the maps alone. Views without maps get NaN.
    """
    present = np.flatnonzero(maps.present[frame])
    joints, views = len(model.skeleton.joints), len(maps.views)
    flip = np.full(views, np.nan)
    if present.size < 2 or not np.isfinite(box[0]).all():
        return FrameResult(model.not_found(), np.zeros(joints), np.zeros(joints, np.int64), flip)
    sub = rig.select([maps.views[v] for v in present])
    score = np.ascontiguousarray(maps.score[frame, present].transpose(0, 2, 3, 1))
    affine = np.asarray(maps.image_from_heatmap[frame, present], dtype=np.float64)
    cells = np.stack([invert_affine(a) for a in affine])
    mirror, sharpness, floor = model.skeleton.mirror, model.settings.sharpness, model.settings.floor
    swapped = np.zeros(present.size, np.bool_)
    pose = yield sub, score, affine, box[0], box[1]
    for _ in range(FLIP_ROUNDS if flip_prior > 0 and pose.found else 0):
        odds = flip_log_odds(sample_maps(sub, score, cells, pose.mean_m) ** sharpness, mirror, floor)
        odds += np.log(flip_prior / (1 - flip_prior))
        proposal = odds > 0
        if (proposal == swapped).all():
            break
        other = yield sub, _exchange(score, proposal, mirror), affine, box[0], box[1]
        prior = (int(proposal.sum()) - int(swapped.sum())) * np.log(flip_prior / (1 - flip_prior))
        if not other.found or other.log_evidence + prior <= pose.log_evidence:
            break
        pose, swapped = other, proposal
    if not pose.found:
        return FrameResult(pose, np.zeros(joints), np.zeros(joints, np.int64), flip)
    sampled = sample_maps(sub, score, cells, pose.mean_m)
    if flip_prior > 0:
        odds = flip_log_odds(sampled**sharpness, mirror, floor) + np.log(flip_prior / (1 - flip_prior))
        flip[present] = 1.0 / (1.0 + np.exp(-np.clip(odds, -500, 500)))
    own = np.arange(joints)
    heat = np.where(swapped[:, None], sampled[:, own, mirror], sampled[:, own, own])
    confidence = np.clip(heat.mean(axis=0), 0.0, 1.0)
    return FrameResult(pose, confidence, (heat >= SUPPORT).sum(axis=0), flip)


def _exchange(score: NDArray[np.float32], swapped: NDArray[np.bool_], mirror: NDArray[np.int64]) -> NDArray[np.float32]:
    out = score.copy()
    out[swapped] = score[swapped][..., mirror]
    return out


def collect(maps: Heatmaps, times_s: Floats, results: list[FrameResult]) -> Poses3D:
    """The poses of a block of frames, one result each."""
    return Poses3D(
        frames=maps.frames,
        time_s=times_s,
        views=maps.views,
        joints=maps.joints,
        xyz_m=np.stack([result.pose.mean_m for result in results]),
        cov_m2=np.stack([result.pose.cov_m2 for result in results]),
        confidence=np.stack([result.confidence for result in results]),
        n_views=np.stack([result.n_views for result in results]),
        flip=np.stack([result.flip for result in results]),
    )

"""Stage 5: labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harvest.labels import make_labels, write_labels
from harvest.labels.write import image_name
from harvest.reconstruct.evidence import SUPPORT, sample_maps
from harvest.reconstruct.methods import for_skeleton
from harvest.reconstruct.pictorial import invert_affine
from harvest.skeleton import Skeleton
from harvest.store.atomic import replace_folder
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_poses, read_selection
from harvest.types import Poses3D
from pipelines.capture import Capture
from pipelines.settings import LabelSettings
from pipelines.stages.reconstruct import BLOCK_FRAMES, read_limbs


def run_label(
    capture: Capture, settings: LabelSettings, inputs: dict[str, Path], origin: dict[str, str], out: Path, key: str
) -> str:
    """Write 50_labels/; a line for the log. `inputs`: heatmaps, poses, limbs, selection by name."""
    poses, selection = read_poses(inputs["poses"]), read_selection(inputs["selection"])
    skeleton, _ = read_limbs(inputs["limbs"])
    seen, shown = seen_joints(capture, HeatmapStore(inputs["heatmaps"]), poses, skeleton)
    labels = make_labels(capture.rig, poses, selection, seen, shown, origin)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_labels(partial, labels, capture.rig, skeleton, key)
    if settings.images:
        _write_images(capture, partial)
    (partial / "fingerprint.json").write_text(json.dumps({"fingerprint": key, "origin": origin}), encoding="utf-8")
    replace_folder(partial, out)
    seen_share = (labels.visibility == 2).sum() / max((labels.visibility > 0).sum(), 1)
    return (
        f"{(labels.visibility > 0).sum()} joint labels in {len(labels.frame)} pictures, {seen_share:.0%} of them seen"
    )


def seen_joints(
    capture: Capture, store: HeatmapStore, poses: Poses3D, skeleton: Skeleton
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each view's map supports each joint where it projects (T, V, J), and whether the view has maps (T, V).

    A view that was found to exchange left and right is asked with sides exchanged.
    """
    t, v, j = len(poses.frames), len(capture.rig), len(poses.joints)
    seen, shown = np.zeros((t, v, j), np.bool_), np.zeros((t, v), np.bool_)
    for first in range(0, t, BLOCK_FRAMES):
        maps = for_skeleton(store.read(first, min(first + BLOCK_FRAMES, t)), skeleton)
        shown[first : first + BLOCK_FRAMES] = maps.present
        for offset, frame in enumerate(range(first, min(first + BLOCK_FRAMES, t))):
            views = np.flatnonzero(maps.present[offset])
            if views.size == 0:
                continue
            cells = np.stack([invert_affine(affine) for affine in maps.image_from_heatmap[offset, views]])
            rig = capture.rig.select([capture.rig.names[view] for view in views])
            heat = sample_maps(rig, maps.score[offset, views].transpose(0, 2, 3, 1), cells, poses.xyz_m[frame])
            crossed = np.nan_to_num(poses.flip[frame, views]) > 0.5
            other = np.where(crossed[:, None], skeleton.mirror[None], np.arange(j)[None])
            seen[frame, views] = np.take_along_axis(heat, other[..., None], axis=2)[..., 0] >= SUPPORT
    return seen, shown


def _write_images(capture: Capture, folder: Path) -> None:
    pictures = capture.pictures(capture.frames.tolist())
    for frame, images in tqdm(pictures, total=len(capture.frames), desc="images", unit="frame"):
        for view, image in images.items():
            if image is not None:
                path = folder / image_name(view, frame)
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])

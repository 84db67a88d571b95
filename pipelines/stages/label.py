"""Stage 5: labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from calib.rig import Rig
from harvest.labels import Evidence, labels_by, write_labels
from harvest.labels.write import image_name
from harvest.reconstruct.evidence import SUPPORT, sample_maps
from harvest.reconstruct.methods import for_skeleton
from harvest.reconstruct.peaks import peak_points
from harvest.reconstruct.pictorial import invert_affine
from harvest.store.atomic import replace_folder
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_poses, read_selection
from pipelines.capture import Capture
from pipelines.settings import LabelSettings
from pipelines.stages.reconstruct import BLOCK_FRAMES, read_limbs


def run_label(
    capture: Capture, settings: LabelSettings, inputs: dict[str, Path], origin: dict[str, str], out: Path, key: str
) -> str:
    """Write 50_labels/; a line for the log. `inputs`: heatmaps, poses, limbs, selection by name."""
    skeleton, _ = read_limbs(inputs["limbs"])
    labels = labels_by("ps+sel", evidence_of(capture.rig, inputs), origin)
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


def evidence_of(rig: Rig, inputs: dict[str, Path]) -> Evidence:
    """What a run's finished stages know; `inputs` as of `run_label`.

    Seen is a joint whose view's map supports it where it projects. A view that was found to exchange left and right is
    asked with sides exchanged.
    """
    poses, store = read_poses(inputs["poses"]), HeatmapStore(inputs["heatmaps"])
    skeleton, _ = read_limbs(inputs["limbs"])
    t, v, j = len(poses.frames), len(rig), len(poses.joints)
    seen, shown = np.zeros((t, v, j), np.bool_), np.zeros((t, v), np.bool_)
    peaks, heat = np.full((t, v, j, 2), np.nan), np.zeros((t, v, j))
    for first in range(0, t, BLOCK_FRAMES):
        block = slice(first, first + BLOCK_FRAMES)
        maps = for_skeleton(store.read(first, min(first + BLOCK_FRAMES, t)), skeleton)
        shown[block] = maps.present
        peaks[block], heat[block] = peak_points(maps)
        for offset, frame in enumerate(range(first, min(first + BLOCK_FRAMES, t))):
            views = np.flatnonzero(maps.present[offset])
            if views.size == 0:
                continue
            cells = np.stack([invert_affine(affine) for affine in maps.image_from_heatmap[offset, views]])
            some = rig.select([rig.names[view] for view in views])
            there = sample_maps(some, maps.score[offset, views].transpose(0, 2, 3, 1), cells, poses.xyz_m[frame])
            crossed = np.nan_to_num(poses.flip[frame, views]) > 0.5
            other = np.where(crossed[:, None], skeleton.mirror[None], np.arange(j)[None])
            seen[frame, views] = np.take_along_axis(there, other[..., None], axis=2)[..., 0] >= SUPPORT
    return Evidence(rig, poses, read_selection(inputs["selection"]), peaks, heat, seen, shown)


def _write_images(capture: Capture, folder: Path) -> None:
    pictures = capture.pictures(capture.frames.tolist())
    for frame, images in tqdm(pictures, total=len(capture.frames), desc="images", unit="frame"):
        for view, image in images.items():
            if image is not None:
                path = folder / image_name(view, frame)
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])

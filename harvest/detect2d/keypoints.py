"""2D keypoints found by other tools: read into one type, and turned into heat maps for the reconstruction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harvest.detect2d.keypoint_files import (
    KNOWN_LAYOUTS,
    LAYOUTS,
    ViewKeypoints,
    read_coco,
    read_deeplabcut,
    read_openpose,
)
from harvest.errors import UserError
from harvest.types import Floats
from harvest.video import named

_TOOL_SUFFIX = re.compile(r"(DLC_.*|_json|_keypoints)$")  # what tools append to a video's name
_LARGEST_CONFIDENCE = 2.0  # peaks of a network overshoot 1 by a little; larger numbers are on another scale
_NEEDED = "a folder of OpenPose JSON files, a COCO keypoints .json or a DeepLabCut .csv"


@dataclass(frozen=True)
class Keypoints:
    """Detections of all views, one row a person in a view at a frame, by frame, then view, then order in the file.

    frames (N,) frame numbers; view (N,) index into views; uv_px (N, J, 2), (0, 0) the centre of the top-left pixel, NaN
    where missing; confidence (N, J) in 0..1, 0 where missing and only there. Rows of one view and frame are different
    people; nothing says which rows of two frames or views show the same person.
    """

    views: tuple[str, ...]
    joints: tuple[str, ...]
    frames: NDArray[np.int64]
    view: NDArray[np.int64]
    uv_px: Floats
    confidence: Floats

    def __post_init__(self) -> None:
        """Check that the shapes agree and that a keypoint has a position where it has confidence, and only there."""
        n, j = len(self.frames), len(self.joints)
        shapes = self.view.shape, self.uv_px.shape, self.confidence.shape
        if shapes != ((n,), (n, j, 2), (n, j)):
            raise ValueError(f"view, uv_px and confidence of {n} detections of {j} joints have shapes {shapes}")
        if not ((self.confidence >= 0) & (self.confidence <= 1)).all():
            raise ValueError("confidence must lie in 0..1")
        if (np.isfinite(self.uv_px).all(axis=2) != (self.confidence > 0)).any():
            raise ValueError("keypoints need a position where their confidence is above 0, and NaN elsewhere")

    def rows(self, view: int, frame: int) -> NDArray[np.int64]:
        """The rows of one view and frame, one a person."""
        first, last = np.searchsorted(self.frames, [frame, frame + 1])
        return first + np.flatnonzero(self.view[first:last] == view)


def read_keypoints(directory: Path, views: Sequence[str], layout: str | None = None) -> Keypoints:
    """The detections of each view, from the folder or file in the directory that is named after the view.

    Sources: a folder of OpenPose JSON files, a COCO keypoints .json, or a DeepLabCut .csv (see `keypoint_files`); views
    may differ in kind but not in joints. Names match as those of videos do (exactly, else but for case, '_', '-' and
    spaces), failing that without what tools append: `_json`, `_keypoints`, `DLC_` and all after it. Confidence from 1
    to 2 becomes 1, a person without any keypoint is left out, and a view may be empty.

    Args:
        layout: joint order, a name of `keypoint_files.LAYOUTS`, where files do not name their joints; by default told
            from their number. BODY_25B must be named: it has as many joints as BODY_25.
    Raises:
        UserError: an unknown layout, a view with no source or with several, one source for two views, a file that
            cannot be read, values that do not fit, views of different joints, or no detection at all.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UserError(f"unknown keypoint layout '{layout}'; known are {KNOWN_LAYOUTS}")
    sources = _sources(directory, views)
    found = {view: _read(source, layout) for view, source in sources.items()}
    # A view without detections has no say in what the joints are: its files may not name them.
    joints_of = {view: keypoints.joints for view, keypoints in found.items() if len(keypoints.frames)}
    if not joints_of:
        raise UserError(f"{directory}: its keypoint files hold no detection at all; run the detector again")
    first, joints = next(iter(joints_of.items()))
    other = next((view for view in joints_of if joints_of[view] != joints), None)
    if other is not None:
        raise UserError(f"{directory}: views {first} and {other} have different joints; use one detector for all views")
    filled = [view for view in sources if view in joints_of]
    frames = np.concatenate([found[view].frames for view in filled])
    view_index = np.concatenate([np.full(len(found[view].frames), list(sources).index(view)) for view in filled])
    cleaned = [_cleaned(found[view].uvc, sources[view]) for view in filled]
    uv_px, confidence = (np.concatenate(parts) for parts in zip(*cleaned))
    order = np.lexsort((view_index, frames))
    order = order[(confidence[order] > 0).any(axis=1)]
    if not len(order):
        raise UserError(f"{directory}: none of its keypoints has confidence above 0; run the detector again")
    return Keypoints(tuple(sources), joints, frames[order], view_index[order], uv_px[order], confidence[order])


def gaussian_heatmaps(
    uv_px: Floats,
    confidence: Floats,
    image_from_heatmap: Floats,
    size: int = 64,
    sigma_cells: float = 1.0,
    outlier_density: float | None = None,
) -> NDArray[np.float32]:
    """Heat maps of one person's keypoints: a bump where each lies, over a floor that rises as its confidence falls.

    A detector that is sure of a keypoint with probability c leaves 1 - c for the joint to be anywhere, so its map is
    the mixture c * exp(-d^2 / (2 sigma^2)) + (1 - c) * outlier_density, with d the distance in cells. The less sure
    the keypoint, the less it constrains the joint. At c = 1 there is no floor: a keypoint outside the map leaves it
    all but zero. At c = 0 (missing) the map is flat, at outlier_density: the view says nothing about where the joint
    is, nor against any place. A view whose affine is not finite has no map: zeros, as `Heatmaps` has it.

    Args:
        uv_px: (V, J, 2) image pixels, of no matter where confidence is 0.
        confidence: (V, J) in 0..1.
        image_from_heatmap: (V, 2, 3) affine from cells to image pixels, NaN where the view is missing.
        size: cells along each side of a map.
        sigma_cells: standard deviation of the bump, cells.
        outlier_density: height of the floor at no confidence, where the bump's at full confidence is 1. None: the
            height at which floor and bump hold the same mass, 2 pi sigma^2 / size^2, as a joint that may lie anywhere
            in the crop with equal probability asks for.
    Returns:
        (V, J, size, size) float32 in 0..1, indexed [.., row, column].
    Raises:
        ValueError: shapes that do not fit, confidence outside 0..1 or without a position, an affine that cannot be
            inverted, sigma_cells not above 0, or outlier_density outside 0..1.
    """
    if outlier_density is None:
        outlier_density = 2 * np.pi * sigma_cells**2 / size**2
    _check_heatmap_arguments(uv_px, confidence, image_from_heatmap, sigma_cells, outlier_density)
    present: NDArray[np.bool_] = np.isfinite(image_from_heatmap.sum(axis=(1, 2), keepdims=True))
    affine = np.where(present, image_from_heatmap, np.eye(2, 3))
    placed = np.where((confidence > 0)[..., None], uv_px, 0.0)
    cells = np.einsum("vab,vjb->vja", np.linalg.inv(affine[:, :, :2]), placed - affine[:, None, :, 2])
    # The bump is a product of one factor a column and one a row.
    factors = np.exp(-0.5 * ((np.arange(size) - cells[..., None]) / sigma_cells) ** 2)
    bump = factors[:, :, 1, :, None] * factors[:, :, 0, None, :]
    sure = confidence[:, :, None, None]
    maps = sure * bump + (1 - sure) * outlier_density
    return np.where(present[..., None], maps, 0.0).astype(np.float32)


def _check_heatmap_arguments(
    uv_px: Floats, confidence: Floats, image_from_heatmap: Floats, sigma_cells: float, outlier_density: float
) -> None:
    if uv_px.shape != (*confidence.shape, 2) or image_from_heatmap.shape != (len(confidence), 2, 3):
        shapes = f"{uv_px.shape}, {confidence.shape} and {image_from_heatmap.shape}"
        raise ValueError(
            f"uv_px, confidence and image_from_heatmap must be (V, J, 2), (V, J) and (V, 2, 3), got {shapes}"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all() or not np.isfinite(uv_px[confidence > 0]).all():
        raise ValueError("confidence must lie in 0..1, and keypoints need a position where it is above 0")
    if not sigma_cells > 0 or not 0 <= outlier_density <= 1:
        raise ValueError(f"need sigma_cells > 0 and outlier_density in 0..1, got {sigma_cells} and {outlier_density}")


def _sources(directory: Path, views: Sequence[str]) -> dict[str, Path]:
    """Each view's folder or file."""
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such directory of keypoints; give the one that holds, for each view, {_NEEDED}"
        )
    stems = {path: path.name if path.is_dir() else path.stem for path in sorted(directory.iterdir()) if _readable(path)}
    sources: dict[str, Path] = {}
    for view in views:
        sources[view] = _source_of(view, directory, stems)
        rival = next((other for other in sources if other != view and sources[other] == sources[view]), None)
        if rival is not None:
            raise UserError(
                f"views {rival} and {view} both take {sources[view].name} in {directory}; rename one source"
            )
    return sources


def _readable(path: Path) -> bool:
    return any(path.glob("*.json")) if path.is_dir() else path.suffix.lower() in (".json", ".csv")


def _source_of(view: str, directory: Path, stems: Mapping[Path, str]) -> Path:
    found = named(view, stems) or named(view, {path: _TOOL_SUFFIX.sub("", stem) for path, stem in stems.items()})
    if len(found) == 1:
        return found[0]
    several = f"keypoints more than once ({', '.join(path.name for path in found)}); keep one of them"
    there = ", ".join(path.name for path in stems) or "none"
    nothing = f"no keypoints, among {there}; name after it {_NEEDED}"
    raise UserError(f"view {view} has in {directory} {several if found else nothing}")


def _read(source: Path, layout: str | None) -> ViewKeypoints:
    if source.is_dir():
        return read_openpose(source, layout)
    return read_deeplabcut(source) if source.suffix.lower() == ".csv" else read_coco(source, layout)


def _cleaned(uvc: NDArray[np.float64], source: Path) -> tuple[Floats, Floats]:
    """Positions and confidences, NaN and 0 where either is missing."""
    found = np.isfinite(uvc).all(axis=2) & (uvc[..., 2] > 0)
    if found.any() and (largest := float(uvc[..., 2][found].max())) > _LARGEST_CONFIDENCE:
        raise UserError(f"{source}: has a confidence of {largest:g}; bring its confidences to 0..1 first")
    return np.where(found[..., None], uvc[..., :2], np.nan), np.where(found, np.minimum(uvc[..., 2], 1.0), 0.0)

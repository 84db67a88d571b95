"""Figures of a run that the report prints and plots: errors, uncertainties, limb lengths, flips."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.rig import Rig
from calib.zoom import describe_zoom, fit_zoom
from harvest.report.content import ReportContent
from harvest.select import position_sigma_m

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

UNKNOWN = "–"
FLIP_BELIEVED = 0.5
ZOOM_FRAMES = 2000
REASONS_SHOWN = 5
OTHER_REASONS = "other reasons"


@dataclass(frozen=True)
class Measures:
    """Arrays behind the figures.

    found, keep (T, J), keep only where found; uv_px (V, T, J, 2) the joints projected; error_px (V, T, J) their
    distance from the detector's peak; sigma_mm (T, J) radius of a ball of the covariance's volume; limb_mm (T, J) from
    joint to parent; limb_kept (T, J) whether both ends are kept. NaN where not known.
    """

    found: Bools
    keep: Bools
    uv_px: Floats
    error_px: Floats
    sigma_mm: Floats
    limb_mm: Floats
    limb_kept: Bools


def measure(content: ReportContent) -> Measures:
    """The arrays from which all figures of the report follow."""
    poses, parents = content.poses, content.skeleton.parents
    found, root = poses.found, parents < 0
    keep = content.selection.keep & found
    uv = content.rig.project(poses.xyz_m)
    if content.peaks_px is None:
        error = np.full(uv.shape[:3], np.nan)
    else:
        error = np.linalg.norm(uv - content.peaks_px, axis=-1)
    sigma = np.where(found, position_sigma_m(poses.cov_m2), np.inf) * 1000.0
    limb = np.linalg.norm(poses.xyz_m - poses.xyz_m[:, parents], axis=-1) * 1000.0
    return Measures(
        found=found,
        keep=keep,
        uv_px=uv,
        error_px=error,
        sigma_mm=np.where(np.isfinite(sigma), sigma, np.nan),
        limb_mm=np.where(root, np.nan, limb),
        limb_kept=keep & keep[:, parents] & ~root,
    )


def quantile(values: ArrayLike, share: float = 0.5) -> float:
    """The quantile (the median if none is named) of the finite ones among the values; NaN if there are none."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    return float(np.quantile(finite, share)) if finite.size else float("nan")


def quantity(value: float, unit: str) -> str:
    """A number with its unit and about three digits, or a dash where it is not known."""
    if not np.isfinite(value):
        return UNKNOWN
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f} {unit}"


def percent(part: float, whole: float) -> str:
    """A share in per cent, or a dash of an empty whole."""
    return f"{100 * part / whole:.1f} %" if whole else UNKNOWN


def limb_spread_mm(measures: Measures) -> Floats:
    """(J,) width of the 5 to 95 % range of each limb's length where both ends are kept; NaN where that never is."""
    joints = range(measures.limb_mm.shape[1])
    kept = [measures.limb_mm[measures.limb_kept[:, j], j] for j in joints]
    return np.array([quantile(length, 0.95) - quantile(length, 0.05) for length in kept])


def key_figures(content: ReportContent, measures: Measures) -> list[tuple[str, str, str]]:
    """The figures at the top of the page: a short key, the value with its unit, and the rest of the sentence."""
    poses, keep, found = content.poses, measures.keep, measures.found
    n, dropped = found.size, measures.found & ~measures.keep
    spread = limb_spread_mm(measures)
    span = f" (numbers {poses.frames[0]} to {poses.frames[-1]})" if len(poses.frames) else ""
    views = f"{len(poses.views)} view{'' if len(poses.views) == 1 else 's'}"
    frames = f"{len(poses.frames)} frame{'' if len(poses.frames) == 1 else 's'}"
    against = "median reprojection error of {} joints, against the detectors' peaks"
    against += " (none were given)" if content.peaks_px is None else ""
    return [
        ("frames", frames, f"in {views}{span}, {len(poses.joints)} joints each ({content.skeleton.name})"),
        ("found", percent(found.sum(), n), f"of {n} joints found"),
        ("kept", percent(keep.sum(), n), f"kept; {percent(dropped.sum(), n)} found but dropped"),
        ("error-kept", quantity(quantile(measures.error_px[:, keep]), "px"), against.format("kept")),
        ("error-dropped", quantity(quantile(measures.error_px[:, dropped]), "px"), against.format("dropped")),
        (
            "uncertainty",
            quantity(quantile(measures.sigma_mm[keep]), "mm"),
            "median position uncertainty of kept joints (standard deviation along one axis)",
        ),
        (
            "limb-spread",
            quantity(quantile(spread), "mm"),
            "between the 5 and 95 % points of a limb's length over the frames, both ends kept (median of "
            f"{np.isfinite(spread).sum()} limbs)",
        ),
        ("speed", *_speed(content)),
    ]


def _speed(content: ReportContent) -> tuple[str, str]:
    computed = [seconds for _, seconds, note in content.stage_seconds if not note.startswith("reused")]
    total = sum(computed)
    if not total > 0:
        return UNKNOWN, "frames per second: no stage was computed in this run"
    reused = len(content.stage_seconds) - len(computed)
    left_out = f"; {reused} reused, not counted" if reused else ""
    stages = f"{len(computed)} computed stage{'' if len(computed) == 1 else 's'}"
    return quantity(len(content.poses.frames) / total, "frames/s"), f"in {stages} ({total:.1f} s{left_out})"


def flip_frames(content: ReportContent) -> list[int | None]:
    """Per view, in how many frames left and right are believed exchanged; None where that was never weighed."""
    flip = content.poses.flip.T
    return [int((view > FLIP_BELIEVED).sum()) if np.isfinite(view).any() else None for view in flip]


def pictures_used(content: ReportContent) -> list[int | None]:
    """Per view, the frames with a detector's peak (or, without peaks, with a box); None if neither was given."""
    if content.peaks_px is not None:
        return [int(seen) for seen in np.isfinite(content.peaks_px).all(-1).any(-1).sum(1)]
    if content.boxes is None:
        return [None] * len(content.poses.views)
    boxes = content.boxes
    boxed: Bools = np.asarray(np.isfinite(boxes.image_from_crop).all(axis=(2, 3)))
    seen = {view: boxes.frames[boxed[:, v]] for v, view in enumerate(boxes.views)}
    return [int(np.isin(content.poses.frames, seen.get(view, ())).sum()) for view in content.poses.views]


def zoom_finding(rig: Rig, view: int, measures: Measures, peaks_px: Floats | None) -> str | None:
    """A sentence about a view zoomed or shifted against its calibration, from kept joints of up to 2000 frames."""
    if peaks_px is None:
        return None
    camera = rig.cameras[view]
    some = slice(None, None, max(1, -(-len(measures.keep) // ZOOM_FRAMES)))
    keep = measures.keep[some]
    centre = (np.array(camera.size_px) - 1) / 2
    return describe_zoom(camera.name, fit_zoom(measures.uv_px[view, some][keep], peaks_px[view, some][keep], centre))


def drop_reasons(content: ReportContent) -> tuple[list[str], NDArray[np.int64]]:
    """The most frequent reasons, and how often each joint was dropped for each (J, reasons); rare ones are merged."""
    reason = content.selection.reason
    ranked = [str(text) for text, _ in Counter(reason[reason != ""].tolist()).most_common()]
    shown = ranked if len(ranked) <= REASONS_SHOWN else ranked[: REASONS_SHOWN - 1]
    counts = np.array([(reason == text).sum(axis=0) for text in shown], dtype=np.int64)
    counts = counts.reshape(len(shown), reason.shape[1])
    if len(shown) < len(ranked):
        rest = (reason != "").sum(axis=0) - counts.sum(axis=0)
        return [*shown, OTHER_REASONS], np.vstack([counts, rest]).T
    return shown, counts.T

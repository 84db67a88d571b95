"""The plots of the report, each a figure with a heading and a sentence on how to read it."""

from __future__ import annotations

from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from harvest.report.content import ReportContent
from harvest.report.measures import (
    FLIP_BELIEVED,
    UNKNOWN,
    Measures,
    drop_reasons,
    limb_spread_mm,
    percent,
    quantile,
    quantity,
)
from harvest.report.rowplot import Row, curve, dots, frame_axis, linear_axis, log_axis, ranges, row_plot, runs

Floats = NDArray[np.floating]

ROW_PX = 18
STRIP_PX, MARK_PX = 12, 3
VIEW_PX = 48
MAX_COLUMNS = 240
SIGMA_CLASSES_MM = (2.0, 4.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
SIGMA_COLOURS = (  # viridis
    *("#440154", "#482878", "#3e4989", "#31688e", "#26828e"),
    *("#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
)


def all_plots(content: ReportContent, measures: Measures) -> str:
    """The plots (a) to (f) as HTML."""
    return "".join(
        [
            _error_per_joint(content, measures),
            _confidence_per_joint(content, measures),
            _limb_lengths(content, measures),
            _kept_table(content, measures),
            _uncertainty_over_time(content, measures),
            _error_over_time(content, measures),
        ]
    )


def _figure(heading: str, caption: str, body: str, wide: bool = False) -> str:
    size = ' class="wide"' if wide else ""
    return f"<figure{size}><h3>{escape(heading)}</h3>{body}<figcaption>{caption}</figcaption></figure>"


def _key(kind: str, text: str) -> str:
    return f'<span class="key"><i class="{kind}"></i>{escape(text)}</span> '


def _error_per_joint(content: ReportContent, measures: Measures) -> str:
    groups = {"kept": measures.keep, "dropped": measures.found & ~measures.keep}
    joints = content.poses.joints
    figures = {
        name: np.array(
            [[quantile(measures.error_px[:, chosen[:, j], j], q) for q in (0.5, 0.9)] for j in range(len(joints))]
        )
        for name, chosen in groups.items()
    }
    axis = log_axis(np.concatenate(list(figures.values())))
    heights = np.arange(len(joints)) * ROW_PX + ROW_PX / 2
    marks, told = "", list(joints)
    for shift, (name, values) in zip((-3, 3), figures.items(), strict=True):
        marks += ranges(axis, values[:, 0], values[:, 1], heights + shift, name)
        marks += dots(axis, values[:, 0], heights + shift, name)
        told = [
            f"{text}; {name}: median {quantity(m, 'px')}, 90 % below {quantity(q, 'px')}"
            for text, (m, q) in zip(told, values, strict=True)
        ]
    rows = [Row(joint, text) for joint, text in zip(joints, told, strict=True)]
    caption = (
        f"{_key('kept', 'kept')}{_key('dropped', 'dropped')}<br>Dot: median over frames and views; the line ends where "
        "90 % of the errors lie below. Distance from the detector's peak, as the detector named it."
    )
    return _figure("Reprojection error per joint", caption, row_plot(rows, ROW_PX, marks, axis, "px (logarithmic)"))


def _confidence_per_joint(content: ReportContent, measures: Measures) -> str:
    joints = content.poses.joints
    confidence = np.where(measures.found, content.poses.confidence, np.nan)
    low, median, high = (np.array([quantile(c, q) for c in confidence.T]) for q in (0.1, 0.5, 0.9))
    axis = linear_axis(0.0, 1.0)
    heights = np.arange(len(joints)) * ROW_PX + ROW_PX / 2
    marks = ""
    caption = _key("kept", "the 3D joint: median, 10 to 90 % of the frames")
    if content.peaks_confidence is not None:
        views = np.array([[quantile(c) for c in view.T] for view in content.peaks_confidence])
        marks += dots(axis, views, np.broadcast_to(heights, views.shape), "faint")
        caption += _key("faint", "the detector's peak, per view: median")
    marks += ranges(axis, low, high, heights, "kept") + dots(axis, median, heights, "kept")
    rows = [
        Row(joint, f"{joint}: median confidence {quantity(m, '').strip()}")
        for joint, m in zip(joints, median, strict=True)
    ]
    return _figure("Confidence per joint", caption, row_plot(rows, ROW_PX, marks, axis, "confidence"))


def _limb_lengths(content: ReportContent, measures: Measures) -> str:
    parents, joints = content.skeleton.parents, content.poses.joints
    limbs = np.flatnonzero(parents >= 0)
    kept = [measures.limb_mm[measures.limb_kept[:, j], j] for j in limbs]
    anyhow = [measures.limb_mm[:, j] for j in limbs]
    if content.limb_length_m is None:
        centre, about = np.array([quantile(length) for length in anyhow]), "the limb's median length"
    else:
        centre, about = 1000.0 * content.limb_length_m[limbs], "the length estimated for this person"
    low, mid, high = (np.array([quantile(length, q) for length in kept]) - centre for q in (0.05, 0.5, 0.95))
    least, most = (np.array([quantile(length, q) for length in anyhow]) - centre for q in (0.05, 0.95))
    reach = float(np.nanmax([quantile(np.abs([low, high]), 0.9), quantile(np.abs([least, most])), 1.0]))
    axis = linear_axis(-1.25 * reach, 1.25 * reach)
    heights = np.arange(len(limbs)) * ROW_PX + ROW_PX / 2
    marks = ranges(axis, least, most, heights, "dropped thin") + ranges(axis, low, high, heights, "kept")
    marks += dots(axis, mid, heights, "kept")
    spread = limb_spread_mm(measures)[limbs]
    rows = [
        Row(
            f"{joints[j]} – {joints[parents[j]]}",
            f"{quantity(c, 'mm')} long; kept: 5 to 95 % within {quantity(s, 'mm')}",
        )
        for j, c, s in zip(limbs, centre, spread, strict=True)
    ]
    caption = (
        f"{_key('kept', 'both ends kept')}{_key('dropped', 'all found')}<br>5 to 95 % of the frames, less {about}; "
        "dot: median of the kept. Ranges are cut at the plot's edge."
    )
    return _figure("Limb lengths over the frames", caption, row_plot(rows, ROW_PX, marks, axis, "mm off"))


def _kept_table(content: ReportContent, measures: Measures) -> str:
    reasons, counts = drop_reasons(content)
    n = len(content.poses.frames)
    head = "".join(f'<th scope="col" class="reason">{escape(reason)}</th>' for reason in reasons)
    rows = []
    for j, joint in enumerate(content.poses.joints):
        kept, found = int(measures.keep[:, j].sum()), int(measures.found[:, j].sum())
        bar = (
            f'<span class="bar"><i class="kept" style="width:{100 * kept / max(n, 1):.1f}%"></i>'
            f'<i class="dropped" style="width:{100 * (found - kept) / max(n, 1):.1f}%"></i></span>'
        )
        cells = "".join(f'<td class="number">{count or ""}</td>' for count in counts[j])
        share = f'<td>{bar}</td><td class="number">{percent(kept, n)}</td>'
        rows.append(f'<tr><th scope="row">{escape(joint)}</th>{share}{cells}</tr>')
    table = (
        '<div class="scroll"><table class="dense"><thead><tr><th scope="col">joint</th>'
        f'<th scope="col" colspan="2">kept</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
    caption = (
        f"{_key('kept', 'kept')}{_key('dropped', 'found but dropped')}{_key('missing', 'not found')}"
        f"<br>Numbers: frames (of {n}) dropped for each reason."
    )
    return _figure("Share kept, and why the rest was dropped", caption, table)


def time_bins(n: int) -> list[slice]:
    """Up to 240 equal stretches of n frames."""
    edges = np.linspace(0, n, min(n, MAX_COLUMNS) + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def _uncertainty_over_time(content: ReportContent, measures: Measures) -> str:
    joints, bins = content.poses.joints, time_bins(len(content.poses.frames))
    row_px, marks = STRIP_PX + MARK_PX + 1, ""
    for j in range(len(joints)):
        top = j * row_px
        sigma = np.array([quantile(measures.sigma_mm[b, j]) for b in bins])
        dropped = measures.found[:, j] & ~measures.keep[:, j]
        mostly = np.array([dropped[b].sum() > measures.keep[b, j].sum() for b in bins], dtype=np.bool_)
        classes = np.searchsorted(SIGMA_CLASSES_MM, sigma, side="right")
        for index, colour in enumerate(SIGMA_COLOURS):
            marks += runs(np.isfinite(sigma) & (classes == index), top, STRIP_PX, colour)
        marks += runs(mostly, top + STRIP_PX, MARK_PX, "dropped")
    medians = [quantile(measures.sigma_mm[:, j]) for j in range(len(joints))]
    rows = [Row(joint, f"{joint}: median {quantity(m, 'mm')}") for joint, m in zip(joints, medians, strict=True)]
    bounds = ["0", *(f"{bound:g}" for bound in SIGMA_CLASSES_MM)]
    words = [f"{a}–{b}" for a, b in pairwise(bounds)] + [f"over {bounds[-1]}"]
    scale = "".join(
        f'<span class="class"><i style="background:{colour}"></i>{word}</span>'
        for colour, word in zip(SIGMA_COLOURS, words, strict=True)
    )
    caption = (
        f'<span class="scale">{scale} mm</span> {_key("dropped", "underlined: mostly dropped")}<br>Empty: not found. '
        f"Standard deviation of the position along one axis{_binned(len(content.poses.frames), bins)}."
    )
    axis = frame_axis(content.poses.frames)
    body = row_plot(rows, row_px, marks, axis, "frame")
    return _figure("Position uncertainty over time", caption, body, wide=True)


def _binned(n: int, bins: list[slice]) -> str:
    return f", median of each {n / len(bins):.3g} frames" if len(bins) < n else ""


def _error_over_time(content: ReportContent, measures: Measures) -> str:
    poses, bins = content.poses, time_bins(len(content.poses.frames))
    axis = frame_axis(poses.frames)
    middle = np.array([(b.start + b.stop) / 2 for b in bins])
    medians = np.array([[quantile(error[b]) for b in bins] for error in measures.error_px])
    top = quantile(medians, 0.98)
    top = max(float(np.ceil(1.1 * top)), 1.0) if np.isfinite(top) else 1.0
    marks, rows = "", []
    for v, view in enumerate(poses.views):
        floor = (v + 1) * VIEW_PX - 5
        marks += curve(axis, middle, floor - np.minimum(medians[v] / top, 1.0) * (VIEW_PX - 9), "kept")
        flipped = np.array([(poses.flip[b, v] > FLIP_BELIEVED).any() for b in bins], dtype=np.bool_)
        marks += runs(flipped, floor + 1, MARK_PX, "dropped")
        median = quantile(measures.error_px[v])
        rows.append(Row(view, f"{view}: median {quantity(median, 'px')}"))
    caption = (
        f"Median over the joints found{_binned(len(poses.frames), bins)}. Each strip is 0 to {top:g} px high, higher "
        f"values are cut. {_key('dropped', 'underlined: left and right believed exchanged')}"
    )
    if not np.isfinite(medians).any():
        caption = f"{UNKNOWN} No error is known: no detector's peaks were given, or no joint was found."
    body = row_plot(rows, VIEW_PX, marks, axis, "frame")
    return _figure("Reprojection error over time, per view", caption, body, wide=True)

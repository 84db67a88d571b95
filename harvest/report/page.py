"""The page itself: its sections put into the template, written in one piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from harvest.report.content import ReportContent
from harvest.report.frame import html_table, resource, write_page
from harvest.report.measures import (
    UNKNOWN,
    Measures,
    flip_frames,
    key_figures,
    measure,
    percent,
    pictures_used,
    quantile,
    quantity,
    zoom_finding,
)
from harvest.report.overlays import contact_sheet
from harvest.report.plots import all_plots
from harvest.report.viewer import as_script, embedded_frames, viewer_data


def write_report(
    path: Path,
    content: ReportContent,
    pictures: Callable[[Sequence[int]], Iterator[tuple[int, dict[str, NDArray[np.uint8] | None]]]],
    frames_shown: int = 6,
) -> None:
    """Write report.html: one file that needs no network and opens from disk.

    Args:
        pictures: for frame numbers that increase, yields each with its picture per view: (H, W, 3) uint8 RGB at the
            camera's full size, or None; views and frames it leaves out are shown as "no picture".
        frames_shown: rows of the contact sheet, spread evenly over the frames.
    """
    write_page(path, "run.html", _parts(content, pictures, frames_shown))


def _parts(
    content: ReportContent,
    pictures: Callable[[Sequence[int]], Iterator[tuple[int, dict[str, NDArray[np.uint8] | None]]]],
    frames_shown: int,
) -> dict[str, str]:
    measures = measure(content)
    return {
        "title": escape(content.title),
        "script": resource("viewer.js"),
        "warnings": _warnings(content),
        "figures": _figures(content, measures),
        "flips": _flips(content),
        "sheet": contact_sheet(content, measures, pictures, frames_shown),
        "viewer_note": _viewer_note(len(content.poses.frames)),
        "viewer_data": as_script(viewer_data(content, measures)),
        "plots": all_plots(content, measures),
        "views": _views(content, measures),
        "stages": _stages(content),
        "settings": escape(_settings_yaml(content)),
    }


def _warnings(content: ReportContent) -> str:
    if not content.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in content.notes)
    count = f"{len(content.notes)} warning{'' if len(content.notes) == 1 else 's'}"
    return f'<aside class="warnings"><h2>{count}</h2><ul>{items}</ul></aside>'


def _figures(content: ReportContent, measures: Measures) -> str:
    return "".join(
        f'<li data-figure="{key}"><strong>{escape(value)}</strong> {escape(sentence)}</li>'
        for key, value, sentence in key_figures(content, measures)
    )


def _flips(content: ReportContent) -> str:
    """A sentence on views whose detector is believed to have exchanged left and right, empty if there are none."""
    counts = zip(content.poses.views, flip_frames(content), strict=True)
    n = len(content.poses.frames)
    told = [f"{escape(view)} in {count} frames ({percent(count, n)})" for view, count in counts if count]
    return (
        f'<p class="flips">Left and right are believed exchanged by the detector: {", ".join(told)}.</p>'
        if told
        else ""
    )


def _viewer_note(n: int) -> str:
    shown = len(embedded_frames(n))
    if shown == n:
        return ""
    return f"1 in {-(-n // shown)} frames is embedded here, {shown} of {n}."


def _views(content: ReportContent, measures: Measures) -> str:
    head = (
        "camera",
        "pictures used",
        "median error, kept joints",
        "median error, all found",
        "left-right exchanged",
        "zoom or shift",
    )
    n = len(content.poses.frames)
    rows, findings = [], []
    for v, (view, used, flips) in enumerate(
        zip(content.poses.views, pictures_used(content), flip_frames(content), strict=True)
    ):
        zoom = zoom_finding(content.rig, v, measures, content.peaks_px)
        findings += [zoom] if zoom else []
        rows.append(
            [
                ("", view),
                ("number", UNKNOWN if used is None else f"{used} of {n}"),
                ("number", quantity(quantile(measures.error_px[v, measures.keep]), "px")),
                ("number", quantity(quantile(measures.error_px[v, measures.found]), "px")),
                ("number", "not weighed" if flips is None else f"{flips} frame{'' if flips == 1 else 's'}"),
                ("", "see below" if zoom else "none found" if content.peaks_px is not None else UNKNOWN),
            ]
        )
    return html_table(head, rows) + "".join(f'<p class="finding">{escape(sentence)}.</p>' for sentence in findings)


def _stages(content: ReportContent) -> str:
    rows = [
        [("", stage), ("number", f"{seconds:.1f} s"), ("sentence", note)]
        for stage, seconds, note in content.stage_seconds
    ]
    total = sum(seconds for _, seconds, _ in content.stage_seconds)
    rows.append([("", "together"), ("number", f"{total:.1f} s"), ("sentence", "")])
    return html_table(("stage", "time", "note"), rows)


def _settings_yaml(content: ReportContent) -> str:
    """Settings as YAML; what YAML has no word for (paths, array scalars) as text."""
    plain = json.loads(json.dumps(content.settings, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)

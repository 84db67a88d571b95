"""The page of a personalised detector: the same pictures before and after, and what changed in figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.report.frame import html_table, write_page
from harvest.report.overlays import JPEG_QUALITY, side_of
from harvest.skeleton import Skeleton

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class HeldOutCrop:
    """A crop (S, S, 3) that was not learnt from, with joints (J, 2) in its pixels: harvested labels, NaN where there is
    none, and the peaks of the detector before and after.
    """

    name: str
    picture: NDArray[np.uint8]
    label_px: Floats
    before_px: Floats
    after_px: Floats


@dataclass(frozen=True)
class PersonalPage:
    """What the page shows.

    lines: sentences on top. skeleton: all joints are in its order. before, after (T, V, J): errors on unseen views in
    held-out frames, shares of the crop's side, NaN where not known. curves: pictures of the trainings' curves.
    """

    title: str
    lines: Sequence[str]
    skeleton: Skeleton
    before: Floats
    after: Floats
    crops: Sequence[HeldOutCrop]
    curves: Sequence[Path]


def write_personal_page(path: Path, page: PersonalPage) -> None:
    """Write one HTML file that needs no network."""
    parts = {
        "title": escape(page.title),
        "lines": "".join(f"<p>{escape(line)}</p>" for line in page.lines),
        "sheet": f'<div class="sheet" style="--views:4">{"".join(_tiles(page))}</div>',
        "joints": _joints(page),
        "curves": "".join(_curve(curve) for curve in page.curves if curve.is_file()),
    }
    write_page(path, "personal.html", parts)


def _tiles(page: PersonalPage) -> list[str]:
    out = []
    for crop in page.crops:
        for when, points in (("before", crop.before_px), ("after", crop.after_px)):
            out.append(
                f'<figure class="tile">{_tile(page.skeleton, crop, points)}'
                f"<figcaption>{escape(crop.name)}, {when}</figcaption></figure>"
            )
    return out


def _tile(skeleton: Skeleton, crop: HeldOutCrop, points: Floats) -> str:
    """A crop as JPEG with a skeleton over it; rings are labels, and joints far from theirs are red."""
    side = crop.picture.shape[0]
    picture = cv2.cvtColor(crop.picture, cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()
    limbs, dots = [], []
    for j, joint in enumerate(skeleton.joints):
        parent = skeleton.parents[j]
        if parent >= 0 and np.isfinite(points[[j, parent]]).all():
            (x1, y1), (x2, y2) = points[j], points[parent]
            place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
            limbs.append(f'<line class="limb {side_of(joint)}" {place}/>')
        if np.isfinite(crop.label_px[j]).all():
            off = float(np.linalg.norm(points[j] - crop.label_px[j])) / side
            kind, (x, y) = "kept" if off < 0.05 else "dropped", crop.label_px[j]
            told = f"<title>{escape(joint)}: {100 * off:.1f} % of the crop's side from its label</title>"
            dots.append(f'<circle class="joint {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3">{told}</circle>')
    image = f'<image href="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" width="{side}" height="{side}"/>'
    return f'<svg viewBox="0 0 {side} {side}" role="img">{image}{"".join(limbs + dots)}</svg>'


def _joints(page: PersonalPage) -> str:
    """Mean error on unseen views, joint by joint."""
    if not np.isfinite(page.before).any():
        return "<p>How well views agree takes three or more of them to tell.</p>"
    both = np.isfinite(page.before) & np.isfinite(page.after)
    rows = []
    for j, joint in enumerate(page.skeleton.joints):
        told = both[..., j]
        if told.any():
            before, after = (100 * float(values[..., j][told].mean()) for values in (page.before, page.after))
            rows.append([("", joint), *(("number", f"{value:.2f} %") for value in (before, after))])
    means = [100 * float(values[both].mean()) for values in (page.before, page.after)]
    rows.append([("", "all"), *(("number", f"{value:.2f} %") for value in means)])
    return html_table(("joint", "before", "after"), rows)


def _curve(picture: Path) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    return f'<figure><img alt="curve of {escape(picture.parent.name)}" src="data:image/png;base64,{data}"></figure>'

"""Plots made of rows: text as HTML at its own size, marks as inline SVG that stretches to the width there is.

A plot is 1000 units wide whatever its width on the screen; strokes do not scale, so dots (strokes of no length with
round caps) stay round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH = 1000.0
MAX_TICKS = 8


@dataclass(frozen=True)
class Axis:
    """A number line from low to high across the plot, linear or logarithmic, and its ticks (value, text)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Where values lie, 0 to 1000; beyond the ends they lie on them, NaN stays NaN."""
        array = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            array, low, high = np.log10(np.maximum(array, 1e-12)), np.log10(low), np.log10(high)
        return np.clip((array - low) / (high - low), 0.0, 1.0) * WIDTH


def nice_step(span: float, ticks: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that makes at most so many steps of a span."""
    rough = max(span, 1e-9) / max(ticks, 1)
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9)))


def linear_axis(low: float, high: float) -> Axis:
    """An axis with round ticks between two numbers."""
    high = high if high > low else low + 1.0
    step = nice_step(high - low, MAX_TICKS - 1)
    first = np.ceil(low / step - 1e-9)
    values = [float(step * k) for k in np.arange(first, np.floor(high / step + 1e-9) + 1)]
    return Axis(low, high, tuple((value, f"{value + 0.0:g}") for value in values))


def log_axis(values: ArrayLike) -> Axis:
    """A logarithmic axis that holds the finite positive values, ticks at powers of ten (and 3, if few)."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array) & (array > 0)]
    lowest, highest = (float(array.min()), float(array.max())) if array.size else (1.0, 10.0)
    low, high = np.floor(np.log10(lowest * 0.999)), np.ceil(np.log10(highest * 1.001))
    low, high = max(low, high - 5), max(high, low + 1)
    decades = 10.0 ** np.arange(low, high + 1)
    ticks = decades if len(decades) > 3 else np.sort(np.concatenate([decades, 3 * decades[:-1]]))
    return Axis(float(decades[0]), float(decades[-1]), tuple((float(v), f"{v:g}") for v in ticks), log=True)


def frame_axis(frames: NDArray[np.int64]) -> Axis:
    """An axis over the indices of frames, each in the middle of its place, with ticks at round indices."""
    n = len(frames)
    step = max(1, round(nice_step(n, MAX_TICKS)))
    ticks = tuple((i + 0.5, str(int(frames[i]))) for i in range(0, n, step))
    return Axis(0.0, float(max(n, 1)), ticks)


@dataclass(frozen=True)
class Row:
    """One row: its label and what it says when the mouse rests on it."""

    label: str
    told: str = ""


def dots(axis: Axis, values: ArrayLike, y_px: ArrayLike, kind: str) -> str:
    """One path of dots at values and heights; NaN are left out."""
    x, y = np.broadcast_arrays(axis.place(values), np.asarray(y_px, dtype=np.float64))
    marks = "".join(f"M{a:.0f} {b:g}h0" for a, b in zip(x.flat, y.flat, strict=True) if np.isfinite(a))
    return f'<path class="dot {kind}" d="{marks}"/>' if marks else ""


def ranges(axis: Axis, low: ArrayLike, high: ArrayLike, y_px: ArrayLike, kind: str) -> str:
    """One path of horizontal lines from low to high at given heights; those with a NaN are left out."""
    a, b, y = np.broadcast_arrays(axis.place(low), axis.place(high), np.asarray(y_px, dtype=np.float64))
    lines = [f"M{p:.0f} {h:g}H{q:.0f}" for p, q, h in zip(a.flat, b.flat, y.flat, strict=True) if np.isfinite(p + q)]
    return f'<path class="range {kind}" d="{"".join(lines)}"/>' if lines else ""


def runs(cells: NDArray[np.bool_], top_px: float, height_px: float, kind: str) -> str:
    """One path that fills, in a row of cells across the plot, each run of true ones; kind: a class, or a colour #..."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], cells, [False]]).astype(np.int8))).reshape(-1, 2)
    x = edges * WIDTH / max(len(cells), 1)
    marks = "".join(f"M{a:.1f} {top_px:g}H{b:.1f}v{height_px:g}H{a:.1f}z" for a, b in x)
    look = f'class="mark" style="fill:{kind}"' if kind.startswith("#") else f'class="mark {kind}"'
    return f'<path {look} d="{marks}"/>' if marks else ""


def curve(axis: Axis, x_values: NDArray[np.floating], y_px: NDArray[np.floating], kind: str) -> str:
    """A line through points, broken at NaN; a point alone between gaps is a dot."""
    marks, before = [], False
    for x, y in zip(axis.place(x_values), y_px, strict=True):
        if np.isfinite(y):
            marks.append(f"{'L' if before else 'M'}{x:.1f} {y:.1f}{'' if before else 'h0'}")
        before = bool(np.isfinite(y))
    return f'<path class="curve {kind}" d="{"".join(marks)}"/>' if marks else ""


def row_plot(rows: Sequence[Row], row_px: int, marks: str, axis: Axis, unit: str) -> str:
    """The plot as HTML: labels to the left, marks (in units of 1000 across, pixels down) to the right, ticks below."""
    height = max(len(rows) * row_px, 1)
    labels = "".join(
        f'<div style="height:{row_px}px;line-height:{row_px}px" title="{escape(row.told or row.label)}">'
        f"{escape(row.label)}</div>"
        for row in rows
    )
    x = axis.place([value for value, _ in axis.ticks])
    grid = "".join(f"M{a:.0f} 0V{height}" for a in x)
    lines = "".join(f"M0 {k * row_px}H1000" for k in range(1, len(rows)))
    ticks = "".join(
        f'<span style="left:{a / 10:.1f}%">{escape(text)}</span>' for a, (_, text) in zip(x, axis.ticks, strict=True)
    )
    return (
        f'<div class="rowplot"><div class="labels">{labels}</div><div class="field">'
        f'<svg viewBox="0 0 1000 {height}" preserveAspectRatio="none" style="height:{height}px" aria-hidden="true">'
        f'<path class="rule" d="{lines}"/><path class="grid" d="{grid}"/>{marks}</svg>'
        f'<div class="ticks">{ticks}</div><div class="unit">{escape(unit)}</div></div></div>'
    )

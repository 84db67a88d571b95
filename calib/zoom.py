"""Whether a video is zoomed or shifted against its calibration, from points projected and points observed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MIN_POINTS = 10
HUBER_STEPS, TUKEY_STEPS = 20, 30
HUBER_SIGMAS, TUKEY_SIGMAS = 1.345, 4.685
SIGMA_OF_MEDIAN_RADIUS = 1.1774
NOTED_SCALE, NOTED_SHIFT_PX, NOTED_FALL = 0.002, 3.0, 0.1


@dataclass(frozen=True)
class ZoomFit:
    """observed = centre + scale * (projected - centre) + shift_px; residuals are median distances in pixels.

    NaN everywhere but in `n`, the number of point pairs, where they were too few or all in one place.
    """

    scale: float
    shift_px: Floats
    residual_px_before: float
    residual_px_after: float
    n: int


def fit_zoom(projected_px: ArrayLike, observed_px: ArrayLike, centre_px: ArrayLike | None = None) -> ZoomFit:
    """The zoom about a centre and the shift that best turn projected into observed points, outliers set aside.

    Iteratively reweighted least squares: Huber's weights first, which have one minimum, then Tukey's from there, which
    give gross outliers no weight at all. Pairs with a NaN are left out; at least 10 must remain.

    Args:
        projected_px, observed_px: (N, 2) pixels of the same points by the calibration and in the video.
        centre_px: (2,) fixed point of the zoom, the picture's centre as a rule; default: the median projected point.
    Raises:
        ValueError: arrays of another shape.
    Source: Holland and Welsch 1977 (weights and their constants); the scale is the median's, for 2D normal errors.
    """
    projected, observed = np.asarray(projected_px, dtype=np.float64), np.asarray(observed_px, dtype=np.float64)
    if projected.shape != observed.shape or projected.ndim != 2 or projected.shape[1] != 2:
        raise ValueError(f"needs two arrays (N, 2) of pixels, got {projected.shape} and {observed.shape}")
    complete = np.isfinite(projected).all(axis=1) & np.isfinite(observed).all(axis=1)
    projected, observed = projected[complete], observed[complete]
    n = len(projected)
    if n < MIN_POINTS or np.ptp(projected, axis=0).max() < 1.0:
        return ZoomFit(np.nan, np.full(2, np.nan), np.nan, np.nan, n)
    centre = np.median(projected, axis=0) if centre_px is None else np.asarray(centre_px, dtype=np.float64)
    arm = projected - centre
    scale, shift = 1.0, np.median(observed - projected, axis=0)
    for step in range(HUBER_STEPS + TUKEY_STEPS):
        size = np.linalg.norm(observed - centre - scale * arm - shift, axis=1)
        sigma = max(float(np.median(size)) / SIGMA_OF_MEDIAN_RADIUS, 1e-9)
        scale, shift = _weighted(arm, observed - centre, _weights(size / sigma, step < HUBER_STEPS))
    before = float(np.median(np.linalg.norm(observed - projected, axis=1)))
    after = float(np.median(np.linalg.norm(observed - centre - scale * arm - shift, axis=1)))
    return ZoomFit(scale, shift, before, after, n)


def _weights(sigmas: Floats, huber: bool) -> Floats:
    if huber:
        return np.minimum(1.0, HUBER_SIGMAS / np.maximum(sigmas, 1e-9))
    return np.clip(1.0 - (sigmas / TUKEY_SIGMAS) ** 2, 0.0, None) ** 2


def _weighted(arm: Floats, target: Floats, weight: Floats) -> tuple[float, Floats]:
    """Scale and shift of the weighted least-squares fit target = scale * arm + shift."""
    share = weight[:, None] / weight.sum()
    arm_mean, target_mean = (share * arm).sum(axis=0), (share * target).sum(axis=0)
    spread = arm - arm_mean
    scale = float((share * spread * (target - target_mean)).sum() / max((share * spread**2).sum(), 1e-12))
    return scale, target_mean - scale * arm_mean


def describe_zoom(camera_name: str, fit: ZoomFit) -> str | None:
    """A sentence about a video that is zoomed or shifted against its calibration, or None if there is no such thing.

    It takes a zoom over 0.2 % or a shift over 3 px, and a residual that falls by over 10 % when they are allowed for.
    """
    shift = float(np.linalg.norm(fit.shift_px))
    moved = abs(fit.scale - 1) > NOTED_SCALE or shift > NOTED_SHIFT_PX
    if not moved or not fit.residual_px_after < (1 - NOTED_FALL) * fit.residual_px_before:
        return None
    before, after = f"{fit.residual_px_before:.1f} px", f"{fit.residual_px_after:.1f} px"
    return (
        f"camera '{camera_name}': the video is zoomed by {fit.scale:.4f} and shifted by ({fit.shift_px[0]:+.1f}, "
        f"{fit.shift_px[1]:+.1f}) px against its calibration (median error of {fit.n} points {before}, {after} without "
        "that); calibrate again with the settings and size of this video"
    )

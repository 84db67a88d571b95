"""How well a score tells good estimates from bad ones: mean error of what is kept, by the share that is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def places(score: ArrayLike, error: ArrayLike) -> Floats:
    """(T, J) the place of each estimate among those of its joint by a score (T, J), lowest first, as a share: the
    smallest share that keeps it. Of equal scores the earlier comes first, as in selection; NaN comes last. NaN where
    the error (T, J) is not known, which then does not count.
    """
    score, error = np.asarray(score, np.float64), np.asarray(error, np.float64)
    out = np.full(error.shape, np.nan)
    for joint in range(error.shape[1]):
        known = np.flatnonzero(np.isfinite(error[:, joint]))
        order = known[np.argsort(score[known, joint], kind="stable")]
        out[order, joint] = (np.arange(len(order)) + 1) / max(len(order), 1)
    return out


def risk_coverage(error: ArrayLike, place: ArrayLike) -> tuple[Floats, Floats]:
    """(N,) shares kept, up to 1, and the (N,) mean errors of what is then kept, both in order of place.

    error and place (...,) as of `places`, of any number of joints and takes; estimates of one place are kept together,
    so the order of joints does not matter. NaN does not count.
    Source: Geifman and El-Yaniv 2017, section 2 (risk and coverage of a selective predictor).
    """
    error, place = np.asarray(error, np.float64).ravel(), np.asarray(place, np.float64).ravel()
    known = np.isfinite(error) & np.isfinite(place)
    levels, index, count = np.unique(place[known], return_inverse=True, return_counts=True)
    total = np.cumsum(np.bincount(index, weights=error[known], minlength=len(levels)))
    kept = np.cumsum(count)
    return kept / max(int(count.sum()), 1), total / kept


def area_under(share: ArrayLike, risk: ArrayLike) -> float:
    """The mean of a risk over all shares from 0 to 1, in the error's unit: each risk counts for the step that leads to
    its share. The mean error is what a score without any knowledge has; NaN where there are no errors.
    """
    share, risk = np.asarray(share, np.float64), np.asarray(risk, np.float64)
    return float((np.diff(share, prepend=0.0) * risk).sum()) if share.size else float("nan")

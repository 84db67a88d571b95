"""Whether uncertainties tell the truth: how often errors lie inside their own ellipsoids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

Floats = NDArray[np.float64]
LEVELS = (0.5, 0.68, 0.9, 0.95)


def squared_mahalanobis(offset: ArrayLike, cov: ArrayLike) -> Floats:
    """(...,) squared lengths of offsets (..., D) in units of their covariances (..., D, D); NaN where either is."""
    offset, cov = np.asarray(offset, np.float64), np.asarray(cov, np.float64)
    good = np.isfinite(offset).all(-1) & np.isfinite(cov).all((-2, -1))
    out = np.full(good.shape, np.nan)
    solved = np.linalg.solve(cov[good], offset[good][..., None])[..., 0]
    out[good] = (offset[good] * solved).sum(-1)
    return out


def coverage(squared: ArrayLike, dimensions: int = 3, levels: Sequence[float] = LEVELS) -> Floats:
    """(L,) shares of squared Mahalanobis distances inside the ellipsoids that should hold shares `levels` of them.

    Normal errors with these covariances give the levels themselves; more says that ellipsoids are too wide.
    """
    values = np.asarray(squared, np.float64)
    values = values[np.isfinite(values)]
    return np.array([(values <= chi2.ppf(level, dimensions)).mean() if values.size else np.nan for level in levels])

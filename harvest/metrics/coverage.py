"""Whether uncertainties tell the truth: how often errors lie inside their own ellipsoids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harvest.uncertainty import AS_STATED, Calibration, scale_matrix, squared_radius

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


def coverage(
    squared: ArrayLike, dimensions: int = 3, levels: Sequence[float] = LEVELS, freedom: float = math.inf
) -> Floats:
    """(L,) shares of squared Mahalanobis distances inside the ellipsoids that should hold shares `levels` of them.

    Normal errors with these covariances give the levels themselves (t-distributed ones with `freedom` degrees of
    freedom, if the distances are by their scale matrices); more says that ellipsoids are too wide.
    """
    values = np.asarray(squared, np.float64)
    values = values[np.isfinite(values)]
    radii = squared_radius(levels, freedom, dimensions)
    return np.array([(values <= radius).mean() if values.size else np.nan for radius in radii])


def calibrated_coverage(
    offset: ArrayLike, cov: ArrayLike, calibration: Calibration = AS_STATED, levels: Sequence[float] = LEVELS
) -> Floats:
    """(L,) shares of errors (..., 3), metres, inside the calibrated ellipsoids of their covariances (..., 3, 3) that
    should hold shares `levels`; NaN does not count.
    """
    squared = squared_mahalanobis(offset, scale_matrix(cov, calibration))
    return coverage(squared, 3, levels, calibration.freedom)

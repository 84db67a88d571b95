"""Fitting what errors are like where covariances are stated, from errors against truth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import gammaln

from harvest.errors import UserError
from harvest.uncertainty import Calibration

Floats = NDArray[np.float64]
LEAST = 30  # errors that a fit needs
LOG_LOWEST, LOG_HIGHEST = (-8.0, -10.0, -1.0), (6.0, 3.0, 6.0)  # of stretch, floor in metres, degrees of freedom
STARTS = ((0.0, -4.5, 1.4), (-1.5, -4.0, 1.0), (1.5, -6.0, 2.0))
NORMAL_ABOVE = 300.0  # degrees of freedom that no set of errors tells from infinitely many


def fit_calibration(error_m: ArrayLike, cov_m2: ArrayLike) -> Calibration:
    """The calibration under which errors (..., 3), metres, with covariances (..., 3, 3) are likeliest.

    Errors and covariances that are not finite do not count. All errors weigh alike, whatever their joint; those of one
    take are alike, so the fit is surer of itself than it should be: fit to many people.

    Raises:
        UserError: fewer than LEAST errors that are known.
    Source: maximum likelihood of the t distribution, Lange, Little and Taylor 1989, section 3.
    """
    own, squared = _along_axes(error_m, cov_m2)
    if len(own) < LEAST:
        raise UserError(f"a calibration needs at least {LEAST} errors with covariances, got {len(own)}")

    def cost(log_values: Floats) -> float:
        stretch, floor_m, freedom = np.exp(log_values)
        return -float(_log_density(own, squared, Calibration(stretch, floor_m, freedom)).mean())

    bounds = list(zip(LOG_LOWEST, LOG_HIGHEST, strict=True))
    fits = [minimize(cost, start, method="L-BFGS-B", bounds=bounds) for start in STARTS]
    stretch, floor_m, freedom = np.exp(min(fits, key=lambda fit: float(fit.fun)).x)
    return Calibration(float(stretch), float(floor_m), math.inf if freedom > NORMAL_ABOVE else float(freedom))


def log_density(error_m: ArrayLike, cov_m2: ArrayLike, calibration: Calibration) -> Floats:
    """(N,) natural logarithm of the density, per cubic metre, of each error (..., 3) given its covariance
    (..., 3, 3), in order; those that are not finite are left out.
    """
    return _log_density(*_along_axes(error_m, cov_m2), calibration)


def _along_axes(error_m: ArrayLike, cov_m2: ArrayLike) -> tuple[Floats, Floats]:
    """(N, 3) variances along each ellipsoid's axes and the (N, 3) squared parts of the errors along these."""
    error, cov = np.asarray(error_m, np.float64), np.asarray(cov_m2, np.float64)
    good = np.isfinite(error).all(axis=-1) & np.isfinite(cov).all(axis=(-2, -1))
    variance, axes = np.linalg.eigh(cov[good])
    return np.maximum(variance, 0.0), np.einsum("nij,ni->nj", axes, error[good]) ** 2


def _log_density(variance: Floats, squared: Floats, calibration: Calibration) -> Floats:
    scale = calibration.stretch**2 * variance + calibration.floor_m**2
    distance, log_volume, nu = (squared / scale).sum(axis=1), np.log(scale).sum(axis=1) / 2, calibration.freedom
    if math.isinf(nu):
        return np.asarray(-distance / 2 - log_volume - 1.5 * math.log(2 * math.pi))
    factor = float(gammaln((nu + 3) / 2) - gammaln(nu / 2)) - 1.5 * math.log(nu * math.pi)
    return np.asarray(factor - log_volume - (nu + 3) / 2 * np.log1p(distance / nu))

"""Uncertainties that tell the truth: how large errors are, given the covariance that a method states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtr, fdtr
from scipy.stats import chi2, f

from harvest.errors import UserError

Floats = NDArray[np.float64]
NODES = {count: np.polynomial.legendre.leggauss(count) for count in (12, 16)}  # round and along the longest axis
CHUNK = 4096  # covariances at a time, which bounds memory


@dataclass(frozen=True)
class Calibration:
    """What errors are like where a method states the covariance S: Student's t in three dimensions with the scale
    matrix a^2 S + b^2 I and nu degrees of freedom.

    stretch: a; floor_m: b, metres, what no covariance knows of; freedom: nu, small where a few errors are far larger
    than the rest, infinite for a normal distribution.

    Raises:
        UserError: a stretch or floor below 0 or both 0, or a freedom that is not above 0.
    Source: Lange, Little and Taylor 1989, section 2 (the t distribution for robust models).
    """

    stretch: float
    floor_m: float
    freedom: float = math.inf

    def __post_init__(self) -> None:
        """Check the ranges."""
        sizes = (self.stretch, self.floor_m)
        if not (all(math.isfinite(size) and size >= 0 for size in sizes) and max(sizes) > 0 and self.freedom > 0):
            raise UserError(
                f"a calibration needs a stretch and a floor_m of at least 0, one of them above, and a freedom above 0, "
                f"got {self.stretch}, {self.floor_m} and {self.freedom}"
            )


AS_STATED = Calibration(1.0, 0.0)  # normal errors with the covariance itself


def load_calibration(method: str) -> Calibration:
    """The calibration of a method's covariances that ships, from harvest/models/calibration.yaml.

    Raises:
        UserError: there is none for that method.
    """
    text = (resources.files("harvest") / "models" / "calibration.yaml").read_text(encoding="utf-8")
    known = yaml.safe_load(text)
    if method not in known:
        raise UserError(f"no calibration for method '{method}', there are those of {', '.join(known)}")
    return Calibration(**{name: float(value) for name, value in known[method].items()})


def scale_matrix(cov_m2: ArrayLike, calibration: Calibration) -> Floats:
    """(..., 3, 3) a^2 S + b^2 I of covariances S (..., 3, 3), square metres; NaN stays NaN."""
    cov = np.asarray(cov_m2, np.float64)
    return calibration.stretch**2 * cov + calibration.floor_m**2 * np.eye(3)


def calibrated_covariance(cov_m2: ArrayLike, calibration: Calibration) -> Floats:
    """(..., 3, 3) covariance of the errors, nu / (nu - 2) times the scale matrix; infinite if nu is not above 2."""
    nu = calibration.freedom
    widening = 1.0 if math.isinf(nu) else nu / (nu - 2) if nu > 2 else math.inf
    with np.errstate(invalid="ignore"):  # infinity times an exact 0
        return widening * scale_matrix(cov_m2, calibration)


def squared_radius(level: ArrayLike, freedom: float = math.inf, dimensions: int = 3) -> Floats:
    """(...,) the d^2 below which a share `level` of squared Mahalanobis distances lies, d^2 = e^T (scale matrix)^-1 e:
    d^2 / D has the distribution F(D, nu); for nu infinite d^2 has chi2(D).
    """
    if math.isinf(freedom):
        return np.asarray(chi2.ppf(level, dimensions))
    return np.asarray(dimensions * f.ppf(level, dimensions, freedom))


def probability_within(cov_m2: ArrayLike, radius_m: float, calibration: Calibration) -> Floats:
    """(...,) probability that an error is shorter than a radius in metres, given covariances (..., 3, 3).

    An error is r A u with A A^T the scale matrix, u evenly on the sphere and r^2 / 3 of F(3, nu). So the answer is the
    mean over u of F's distribution function at radius^2 / (3 u^T (scale matrix) u), by a quadrature that is off by less
    than 1e-4 where the longest axis of the ellipsoid is up to 100 times the shortest (1e-5 up to 30 times).
    Eigenvalues of a covariance below 0 count as 0. NaN where a covariance is not finite.
    """
    cov = np.asarray(cov_m2, np.float64)
    finite = np.isfinite(cov).all(axis=(-2, -1))
    out = np.full(finite.shape, np.nan)
    stated = np.maximum(np.linalg.eigvalsh(cov[finite]), 0.0)
    axes_m2 = calibration.stretch**2 * stated + calibration.floor_m**2
    axes_m2 = np.maximum(axes_m2, 1e-8 * axes_m2[..., 2:] + 1e-30)  # no axis is exactly 0
    parts = [_within(axes_m2[i : i + CHUNK], radius_m, calibration.freedom) for i in range(0, len(axes_m2), CHUNK)]
    out[finite] = np.minimum(np.concatenate(parts), 1.0) if parts else 0.0
    return out


def _within(axes_m2: Floats, radius_m: float, freedom: float) -> Floats:
    """(N,) the mean over an octant of the sphere, which stands for all; squared axes (N, 3) ascend.

    The direction is u = (sqrt(1 - c^2) cos e, sqrt(1 - c^2) sin e, c) along the shortest, middle and longest axis. What
    is averaged has a narrow peak at c = 0, as wide as the other axes are short, and one at e = 0. Both are made broad
    by c = k sinh(s) and e = (pi / 2) k sinh(s), k being the ratio of the axes, before Gauss-Legendre nodes are laid.
    """
    short, middle, longest = (axes_m2[:, i, None, None] for i in range(3))
    angle, angle_weight = _clustered(np.sqrt(short / middle), 12)
    angle, angle_weight = angle.swapaxes(1, 2), angle_weight.swapaxes(1, 2)
    across = short * np.cos(np.pi / 2 * angle) ** 2 + middle * np.sin(np.pi / 2 * angle) ** 2
    c, c_weight = _clustered(np.sqrt(across / longest), 16)
    squared = radius_m**2 / (across + (longest - across) * c**2)
    share = chdtr(3.0, squared) if math.isinf(freedom) else fdtr(3.0, freedom, squared / 3)
    return np.asarray((share * angle_weight * c_weight).sum(axis=(1, 2)))


def _clustered(ratio: Floats, count: int) -> tuple[Floats, Floats]:
    """Nodes in 0..1 and weights along the last axis that resolve a peak at 0 as wide as `ratio`, for all (..., 1)."""
    node, weight = NODES[count]
    stretch = np.arcsinh(1 / ratio)
    s = stretch * (node + 1) / 2
    return ratio * np.sinh(s), ratio * stretch * np.cosh(s) * weight / 2

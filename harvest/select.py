"""Selection: which 3D joints are certain enough to become labels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.types import Poses3D, Selection

NOT_FOUND = "not found"
NO_EVIDENCE = "fewer than two views support it"


def select_by_determinant(poses: Poses3D, keep_share: float) -> Selection:
    """The share of each joint's estimates whose covariance has the smallest determinant.

    Per joint type, all its estimates that were found are ranked; the smallest ceil(share * number) determinants are
    kept. Joints not found, or that fewer than two views support, are never kept and do not count.

    Raises:
        UserError: a share outside (0, 1].
    Source: Pavlakos et al. 2017, section 3.3 (share 0.7).
    """
    if not 0 < keep_share <= 1:
        raise UserError(f"--keep must lie between 0 and 1 (a share of each joint's estimates), got {keep_share}")
    reason = np.full(poses.found.shape, "", dtype=object)
    reason[~poses.found] = NOT_FOUND
    reason[poses.found & (poses.n_views < 2)] = NO_EVIDENCE
    keep = np.zeros(poses.found.shape, dtype=np.bool_)
    determinant = log_determinant(poses.cov_m2)
    for joint in range(len(poses.joints)):
        usable = np.flatnonzero(reason[:, joint] == "")
        order = usable[np.argsort(determinant[usable, joint], kind="stable")]
        count = math.ceil(keep_share * len(order) - 1e-9)
        keep[order[:count], joint] = True
        reason[order[count:], joint] = f"uncertainty above the {100 * keep_share:g} % quantile of this joint"
    return Selection(keep, reason)


def log_determinant(cov_m2: NDArray[np.floating]) -> NDArray[np.float64]:
    """(...,) natural logarithm of the determinant of covariances (..., 3, 3); +inf where one is missing."""
    finite = np.isfinite(cov_m2).all(axis=(-2, -1))
    sign, value = np.linalg.slogdet(np.where(finite[..., None, None], cov_m2, np.eye(3)))
    return np.where(finite & (sign > 0), value, np.inf)


def position_sigma_m(cov_m2: NDArray[np.floating]) -> NDArray[np.float64]:
    """(...,) one figure for the size of covariances, in metres: the standard deviation of a ball of equal volume."""
    return np.exp(log_determinant(cov_m2) / 6.0)

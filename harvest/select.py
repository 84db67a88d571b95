"""Selection: which 3D joints are certain enough to become labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.types import Poses3D, Selection

Floats = NDArray[np.float64]
NOT_FOUND = "not found"
NO_EVIDENCE = "fewer than two views support it"
MORE_IS_BETTER = {"probability": "probability", "heat": "heat"}  # rules, and what they look at
LESS_IS_BETTER = {"determinant": "uncertainty", "spread": "spread"}


@dataclass(frozen=True)
class SelectionRule:
    """How estimates of a joint are ranked, and how many are kept.

    name: determinant (of the covariance; ranks as the differential entropy of a normal distribution does), spread (root
    of the covariance's trace: the root mean square error that it states), heat (the confidence, mean heat at the
    projections), probability (that the error is below within_m, calibrated). keep_share: of each joint's estimates.
    at_least: what is less probable than that to be within within_m is dropped too, whatever the rule; None: nothing.

    Raises:
        UserError: an unknown rule, a share outside (0, 1], a distance that is not above 0, a probability outside 0..1.
    """

    name: str = "determinant"
    keep_share: float = 0.7
    within_m: float = 0.05
    at_least: float | None = None

    def __post_init__(self) -> None:
        """Check name and ranges."""
        known = {**LESS_IS_BETTER, **MORE_IS_BETTER}
        if self.name not in known:
            raise UserError(f"unknown selection rule '{self.name}'; known: {', '.join(known)}")
        if not 0 < self.keep_share <= 1:
            raise UserError(
                f"--keep must lie between 0 and 1 (a share of each joint's estimates), got {self.keep_share}"
            )
        if not self.within_m > 0 or not 0 <= (self.at_least or 0) <= 1:
            raise UserError(
                f"a selection needs within_mm above 0 and at_least from 0 to 1, "
                f"got {1000 * self.within_m:g} and {self.at_least}"
            )


def select_by_determinant(poses: Poses3D, keep_share: float) -> Selection:
    """The share of each joint's estimates whose covariance has the smallest determinant.

    Per joint type, all its estimates that were found are ranked; the smallest ceil(share * number) determinants are
    kept. Joints not found, or that fewer than two views support, are never kept and do not count.

    Raises:
        UserError: a share outside (0, 1].
    Source: Pavlakos et al. 2017, section 3.3 (share 0.7).
    """
    return select(poses, SelectionRule("determinant", keep_share))


def select(
    poses: Poses3D, rule: SelectionRule, probability: Floats | None = None, group: NDArray[np.int64] | None = None
) -> Selection:
    """The share of each joint's estimates that a rule ranks first.

    As `select_by_determinant`, by any rule. probability (T, J) is the calibrated one of an error below rule.within_m,
    kept in the selection, NaN where a joint was not found. group (T,): frames of one group (of like poses) are
    ranked among themselves, so that each group keeps its share, and at least one estimate where any is usable.

    Raises:
        UserError: a rule that needs probabilities, without them.
    """
    if probability is None and (rule.name == "probability" or rule.at_least is not None):
        raise UserError("selection by probability needs the calibrated probabilities of the estimates")
    reason = np.full(poses.found.shape, "", dtype=object)
    reason[~poses.found] = NOT_FOUND
    reason[poses.found & (poses.n_views < 2)] = NO_EVIDENCE
    group = np.zeros(len(poses.frames), np.int64) if group is None else group
    score = doubt(poses, rule.name, probability)
    below = _below_share(rule, len(np.unique(group)) > 1)
    for joint in range(len(poses.joints)):
        for one in np.unique(group):
            usable = np.flatnonzero((reason[:, joint] == "") & (group == one))
            order = usable[np.argsort(score[usable, joint], kind="stable")]
            count = math.ceil(rule.keep_share * len(order) - 1e-9)
            reason[order[count:], joint] = below
    if probability is not None:
        probability = np.where(poses.found, probability, np.nan)
        if rule.at_least is not None:
            unsure = (reason == "") & ~(probability >= rule.at_least)
            reason[unsure] = f"less than {rule.at_least:g} probable to be within {1000 * rule.within_m:g} mm"
    return Selection(reason == "", reason, probability)


def doubt(poses: Poses3D, rule: str, probability: Floats | None = None) -> Floats:
    """(T, J) what a rule ranks by, least doubtful first; +inf where it is not known.

    probability (T, J): needed by the rule of that name.
    """
    if rule == "probability":
        assert probability is not None
        value = -probability
    elif rule == "heat":
        value = -poses.confidence
    else:
        value = log_determinant(poses.cov_m2) if rule == "determinant" else np.trace(poses.cov_m2, axis1=2, axis2=3)
    return np.where(np.isnan(value), np.inf, value)


def _below_share(rule: SelectionRule, grouped: bool) -> str:
    of = "of this joint in poses of its kind" if grouped else "of this joint"
    if rule.name in MORE_IS_BETTER:
        return f"{MORE_IS_BETTER[rule.name]} below the {100 * (1 - rule.keep_share):g} % quantile {of}"
    return f"{LESS_IS_BETTER[rule.name]} above the {100 * rule.keep_share:g} % quantile {of}"


def log_determinant(cov_m2: NDArray[np.floating]) -> NDArray[np.float64]:
    """(...,) natural logarithm of the determinant of covariances (..., 3, 3); +inf where one is missing."""
    finite = np.isfinite(cov_m2).all(axis=(-2, -1))
    sign, value = np.linalg.slogdet(np.where(finite[..., None, None], cov_m2, np.eye(3)))
    return np.where(finite & (sign > 0), value, np.inf)


def position_sigma_m(cov_m2: NDArray[np.floating]) -> NDArray[np.float64]:
    """(...,) one figure for the size of covariances, in metres: the standard deviation of a ball of equal volume."""
    return np.exp(log_determinant(cov_m2) / 6.0)

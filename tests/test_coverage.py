"""Coverage: whether errors lie inside their ellipsoids as often as these say."""

import numpy as np
import pytest
from scipy.stats import chi2

from harvest.metrics.coverage import LEVELS, coverage, squared_mahalanobis


def drawn(stretch):
    """20,000 offsets, each normal with a covariance of its own, and that covariance times a square of `stretch`."""
    rng = np.random.default_rng(0)
    root = rng.normal(0, 1, (20_000, 3, 3)) + 2 * np.eye(3)
    offset = (root @ rng.normal(0, 1, (20_000, 3, 1)))[..., 0]
    return offset, stretch**2 * root @ root.transpose(0, 2, 1)


def test_errors_as_large_as_they_are_said_to_be_fill_their_ellipsoids():
    squared = squared_mahalanobis(*drawn(1.0))
    assert squared.mean() == pytest.approx(3, abs=0.06)
    np.testing.assert_allclose(coverage(squared), LEVELS, atol=0.012)


@pytest.mark.parametrize("stretch", [0.5, 2.0])
def test_ellipsoids_of_the_wrong_size_hold_another_share(stretch):
    expected = [chi2.cdf(chi2.ppf(level, 3) * stretch**2, 3) for level in LEVELS]
    np.testing.assert_allclose(coverage(squared_mahalanobis(*drawn(stretch))), expected, atol=0.012)


def test_what_is_not_known_does_not_count():
    offset, cov = np.zeros((2, 3, 3)), np.tile(np.eye(3), (2, 3, 1, 1))
    offset[0, 0], cov[1, 2] = np.nan, np.nan
    squared = squared_mahalanobis(offset, cov)
    np.testing.assert_array_equal(np.isnan(squared), [[True, False, False], [False, False, True]])
    assert coverage(squared).tolist() == [1, 1, 1, 1] and np.isnan(coverage(np.full(3, np.nan))).all()

"""Calibrated uncertainty: probabilities and ellipsoids that follow from a covariance, and the fit of what errors do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, f

from harvest.errors import UserError
from harvest.metrics.calibration import fit_calibration, log_density
from harvest.metrics.coverage import LEVELS, calibrated_coverage
from harvest.studio.rotations import about
from harvest.uncertainty import (
    Calibration,
    calibrated_covariance,
    load_calibration,
    probability_within,
    scale_matrix,
    squared_radius,
)

BOUND = 1e-4  # as docstring of probability_within
METHODS = ("pictorial", "ransac", "dlt", "algebraic", "volumetric")


def drawn(calibration, count, seed=0):
    """Covariances of many shapes and sizes, and errors that are as the calibration says."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(count, 3, 3)) * rng.uniform(0.002, 0.05, (count, 3, 1))
    cov = root @ root.swapaxes(1, 2)
    normal = rng.normal(size=(count, 3, 1))
    if math.isfinite(calibration.freedom):
        normal /= np.sqrt(rng.chisquare(calibration.freedom, (count, 1, 1)) / calibration.freedom)
    return (np.linalg.cholesky(scale_matrix(cov, calibration)) @ normal)[..., 0], cov


def slowly(axes_m, radius_m, freedom):
    """The probability by a trapezium in cos and angle of 2,000 x 500 directions."""
    c = (np.arange(2000)[:, None] + 0.5) / 2000
    e = (np.arange(500) + 0.5) / 500 * np.pi / 2
    squared = (1 - c**2) * ((axes_m[0] * np.cos(e)) ** 2 + (axes_m[1] * np.sin(e)) ** 2) + (axes_m[2] * c) ** 2
    values = radius_m**2 / squared
    return (chi2.cdf(values, 3) if math.isinf(freedom) else f.cdf(values / 3, 3, freedom)).mean()


@pytest.mark.parametrize("freedom", [1.5, 4.0, math.inf])
@pytest.mark.parametrize("radius_m", [0.01, 0.05, 0.3])
def test_within_a_ball_that_is_as_round_as_the_errors_the_probability_is_that_of_f(freedom, radius_m):
    calibration = Calibration(1.5, 0.01, freedom)
    squared = radius_m**2 / (1.5**2 * 0.03**2 + 0.01**2)
    expected = chi2.cdf(squared, 3) if math.isinf(freedom) else f.cdf(squared / 3, 3, freedom)
    assert probability_within(0.03**2 * np.eye(3), radius_m, calibration) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("freedom", [2.0, 5.0, math.inf])
@pytest.mark.parametrize("axes_mm", [(10, 10, 300), (3, 100, 300), (5, 200, 200), (10, 20, 40)])
def test_the_probability_is_within_its_bound_of_the_exact_one(freedom, axes_mm):
    axes = np.array(axes_mm) / 1000
    for radius in (0.005, 0.02, 0.1, 0.4):
        fast = probability_within(np.diag(axes**2), radius, Calibration(1.0, 0.0, freedom))
        assert fast == pytest.approx(slowly(axes, radius, freedom), abs=BOUND)


def test_the_probability_is_the_share_of_drawn_errors_that_are_shorter():
    calibration = Calibration(0.6, 0.01, 3.0)
    error, cov = drawn(calibration, 10_000)
    for radius in (0.02, 0.05, 0.15):
        share = (np.linalg.norm(error, axis=1) < radius).mean()
        assert probability_within(cov, radius, calibration).mean() == pytest.approx(share, abs=0.012)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 4.0), st.floats(0.0, 0.03), st.floats(1.0, 60.0))
def test_the_probability_grows_with_the_radius_and_is_the_same_however_the_world_is_turned(
    seed, stretch, floor, freedom
):
    rng = np.random.default_rng(seed)
    calibration = Calibration(stretch, floor, freedom)
    root = rng.normal(size=(3, 3)) * rng.uniform(0.005, 0.1, 3)
    cov = root @ root.T + 1e-6 * np.eye(3)
    values = [float(probability_within(cov, radius, calibration)) for radius in (0.01, 0.03, 0.1, 0.3, 1e6)]
    assert (np.diff(values) >= -1e-9).all() and values[0] > 0 and values[-1] == pytest.approx(1, abs=1e-5)
    turn = about(rng.normal(size=3), 2.0)
    turned = probability_within(turn @ cov @ turn.T, 0.05, calibration)
    assert turned == pytest.approx(float(probability_within(cov, 0.05, calibration)), abs=1e-9)


def test_what_has_no_covariance_has_no_probability_and_one_of_nought_is_not_nothing():
    cov = np.tile(1e-4 * np.eye(3), (2, 3, 1, 1))
    cov[0, 1], cov[1, 2] = np.nan, 0.0
    within = probability_within(cov, 0.05, Calibration(1.0, 0.01, 4.0))
    assert within.shape == (2, 3) and np.isnan(within[0, 1]) and np.isfinite(within).sum() == 5
    assert within[1, 2] == pytest.approx(f.cdf(25 / 3, 3, 4)) and within[1, 2] > within[0, 0]
    assert probability_within(cov, 0.05, Calibration(1.0, 0.0))[1, 2] == pytest.approx(1)


@pytest.mark.parametrize("truth", [Calibration(0.5, 0.012, 3.5), Calibration(1.4, 0.004, 8.0), Calibration(2.0, 0.002)])
def test_the_fit_finds_what_the_errors_were_drawn_with(truth):
    error, cov = drawn(truth, 20_000)
    error[:5], cov[5:9] = np.nan, np.inf
    found = fit_calibration(error, cov)
    assert found.stretch == pytest.approx(truth.stretch, rel=0.03)
    assert found.floor_m == pytest.approx(truth.floor_m, rel=0.05, abs=2e-4)
    assert found.freedom == pytest.approx(truth.freedom, rel=0.1) or found.freedom > 100 < truth.freedom
    inside = calibrated_coverage(*drawn(truth, 20_000, seed=1), found)
    np.testing.assert_allclose(inside, LEVELS, atol=0.012)
    assert log_density(error, cov, found).sum() >= log_density(error, cov, truth).sum()


def test_a_density_integrates_to_the_probability_of_its_ball():
    calibration, cov = Calibration(0.8, 0.01, 4.0), np.diag([1e-4, 4e-4, 9e-4])
    rng = np.random.default_rng(0)
    inside = rng.uniform(-0.05, 0.05, (400_000, 3))
    density = np.exp(log_density(inside, np.broadcast_to(cov, (len(inside), 3, 3)), calibration))
    total = (density * (np.linalg.norm(inside, axis=1) < 0.05)).mean() * 0.1**3
    assert total == pytest.approx(float(probability_within(cov, 0.05, calibration)), rel=0.01)


def test_too_few_errors_are_refused():
    with pytest.raises(UserError, match="at least 30 errors with covariances, got 3"):
        fit_calibration(np.zeros((3, 3)), np.tile(np.eye(3), (3, 1, 1)))


@pytest.mark.parametrize("values", [(-1, 0.01, 4), (0, 0, 4), (1, 0.01, 0), (math.nan, 0.01, 4), (1, math.inf, 4)])
def test_a_calibration_that_is_none_is_refused(values):
    with pytest.raises(UserError, match="a calibration needs"):
        Calibration(*values)


def test_the_calibrated_covariance_is_that_of_the_drawn_errors():
    calibration, cov = Calibration(0.7, 0.01, 12.0), np.diag([1e-4, 4e-4, 2.5e-3])
    rng = np.random.default_rng(3)
    heavy = rng.normal(size=(400_000, 3)) / np.sqrt(rng.chisquare(12, (400_000, 1)) / 12)
    error = heavy * np.sqrt(np.diag(scale_matrix(cov, calibration)))
    np.testing.assert_allclose(calibrated_covariance(cov, calibration), np.cov(error.T), rtol=0.03, atol=1e-5)
    assert np.isinf(np.diag(calibrated_covariance(cov, Calibration(1.0, 0.01, 2.0)))).all()


def test_radii_of_normal_errors_are_those_of_chi_squared_and_heavy_tails_need_larger_ones():
    np.testing.assert_allclose(squared_radius(LEVELS), chi2.ppf(LEVELS, 3))
    np.testing.assert_allclose(squared_radius(LEVELS, 1e7), chi2.ppf(LEVELS, 3), rtol=1e-4)
    assert (squared_radius(LEVELS, 3.0) > squared_radius(LEVELS)).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_calibration_that_ships(method):
    calibration = load_calibration(method)
    assert 0.1 < calibration.stretch < 2 and 0.001 < calibration.floor_m < 0.03 and calibration.freedom > 1


def test_a_method_without_a_calibration_is_told_in_one_line():
    with pytest.raises(UserError, match="no calibration for method 'guess', there are those of pictorial"):
        load_calibration("guess")

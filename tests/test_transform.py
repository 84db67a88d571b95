"""The dense route of a limb message gives what its definition gives, at every size and for every shell."""

import numpy as np
import pytest
import scipy.fft

from cuda_kernels.limb_message import reference_
from cuda_kernels.limb_message.transform_ import convolve, limb_message, spectrum
from cuda_kernels.shell import gaussian_shell, interval_shell

SHELLS = {
    "interval": interval_shell(4.2, 1.0),
    "ball": interval_shell(0.5, 1.0),
    "neighbours": interval_shell(1.0, 0.01),
    "self": interval_shell(0.0, 0.5),
    "gaussian": gaussian_shell(3.0, 0.8),
    "gaussian around itself": gaussian_shell(0.0, 1.0),
    "longer than the grid": interval_shell(19.0, 4.0),
    "out of the grid": interval_shell(60.0, 1.0),
}


def definition(belief, shell, target):
    """The message of a dense belief at some voxels."""
    n = len(belief)
    return reference_.limb_message(belief.ravel(), np.arange(n**3, dtype=np.int32), target, shell, n)


def by_fft(belief, shell):
    """The same message by fast Fourier transforms in double precision, on a period that no offset can wrap round."""
    n = len(belief)
    period = scipy.fft.next_fast_len(2 * n - 1, real=True)
    offset = np.fft.fftfreq(period, 1.0 / period).astype(np.int64) ** 2
    squared = offset[:, None, None] + offset[:, None] + offset
    inside = (squared >= shell.lowest) & (squared <= shell.highest)
    weights = shell.weights.astype(np.float64)[np.clip(squared - shell.lowest, 0, shell.weights.size - 1)]
    kernel = np.where(inside, weights, 0.0)
    shape = (period,) * 3
    product = scipy.fft.rfftn(belief, shape) * scipy.fft.rfftn(kernel, shape)
    return scipy.fft.irfftn(product, shape)[:n, :n, :n]


@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 11, 16, 24])
def test_the_transform_equals_the_definition(name, n):
    rng = np.random.default_rng(n)
    belief, target = rng.random((n, n, n)), rng.permutation(n**3)[:100].astype(np.int32)
    expected = definition(belief, SHELLS[name], target)
    got = convolve(belief, spectrum(SHELLS[name], n)).ravel()[target]
    assert abs(got - expected).max() <= 1e-13 * max(expected.max(), belief.max())


@pytest.mark.parametrize(("n", "length"), [(33, 9.0), (48, 40.0), (64, 5.0), (64, 13.0), (64, 19.0)])
def test_large_grids_agree_with_fourier_transforms_in_double_precision(n, length):
    belief, shell = np.random.default_rng(n).random((n, n, n)) ** 8, interval_shell(length, 1.0)
    expected = by_fft(belief, shell)
    assert abs(convolve(belief, spectrum(shell, n)) - expected).max() <= 1e-13 * expected.max()


@pytest.mark.parametrize("n", [7, 20])
def test_active_voxels_are_scattered_and_gathered_and_nothing_falls_below_zero(n):
    rng, shell = np.random.default_rng(n), interval_shell(3.0, 0.6)
    source, target = (rng.permutation(n**3)[:200].astype(np.int32) for _ in range(2))
    belief = rng.random(200) ** 20
    expected = reference_.limb_message(belief, source, target, shell, n)
    got = limb_message(belief, source, target, shell, n)
    assert got.shape == expected.shape and got.dtype == np.float64 and got.min() >= 0
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * expected.max())


@pytest.mark.parametrize("n", [6, 15])
def test_a_belief_of_zero_says_nothing(n):
    assert not convolve(np.zeros((n, n, n)), spectrum(interval_shell(3.0, 1.0), n)).any()


@pytest.mark.parametrize("n", [12, 17])
@pytest.mark.parametrize("shell", [interval_shell(5.0, 0.5), interval_shell(14.0, 6.0)])
def test_a_spike_in_a_corner_says_its_shell_and_does_not_wrap_round(n, shell):
    belief = np.zeros((n, n, n))
    belief[0, n - 1, 0] = 2.0
    x, y, z = np.indices((n, n, n))
    squared = x**2 + (y - n + 1) ** 2 + z**2
    expected = np.where((squared >= shell.lowest) & (squared <= shell.highest), 2.0, 0.0)
    np.testing.assert_allclose(convolve(belief, spectrum(shell, n)), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [13, 64])
def test_the_same_belief_gives_the_same_bits_whatever_came_before(n):
    belief, shell = np.random.default_rng(n).random((n, n, n)), gaussian_shell(6.0, 1.5)
    first = convolve(belief, spectrum(shell, n))
    assert np.isnan(convolve(np.full((n, n, n), np.nan), spectrum(shell, n))).all()  # fills the memory that comes next
    np.testing.assert_array_equal(convolve(belief, spectrum(shell, n)), first)


def test_a_turned_belief_gives_a_turned_message():
    belief, shell = np.random.default_rng(0).random((10, 10, 10)), interval_shell(4.0, 1.0)
    message = convolve(belief, spectrum(shell, 10))
    turned = convolve(np.ascontiguousarray(belief.transpose(1, 2, 0)[::-1]), spectrum(shell, 10))
    np.testing.assert_allclose(turned, message.transpose(1, 2, 0)[::-1], rtol=1e-13)


def test_a_spectrum_is_computed_once_for_equal_shells():
    assert spectrum(interval_shell(4.0, 1.0), 9) is spectrum(interval_shell(4.0, 1.0), 9)
    assert spectrum(interval_shell(4.0, 1.0), 9) is not spectrum(interval_shell(4.0, 1.0), 10)

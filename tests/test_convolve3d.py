"""Convolutions of volumes by tiles give what the definition gives, and the folded network what it gave before."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from cuda_kernels.convolve3d import convolve3d, prepare
from cuda_kernels.convolve3d.plan import FILTERS
from cuda_kernels.convolve3d.toom_cook import toom_cook
from harvest.triangulate3d.folded import folded
from harvest.triangulate3d.tiled import TiledConvolution, fits
from harvest.triangulate3d.volume_network import VolumeNetwork


def drawn(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("one", FILTERS, ids=str)
def test_filters_by_points_are_exact_in_fractions(one):
    taps, inputs = [Fraction(3 * k - 2, 5) for k in range(one.r)], [Fraction(k * k - 3, 7) for k in range(one.n)]
    at_points = [
        sum(a * x for a, x in zip(row, inputs, strict=True)) * sum(b * g for b, g in zip(tap, taps, strict=True))
        for row, tap in zip(one.inputs, one.taps, strict=True)
    ]
    found = [sum(c * p for c, p in zip(row, at_points, strict=True)) for row in one.outputs]
    assert found == [sum(taps[k] * inputs[i + k] for k in range(one.r)) for i in range(one.m)]


def test_points_must_differ_and_suffice():
    with pytest.raises(ValueError, match="3 different points"):
        toom_cook(2, 3, (0, 1, 1))


@pytest.mark.parametrize(("kernel", "tile"), [(1, 4), (3, 2), (3, 4), (5, 4), (7, 4)])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 5, 9, 3), (2, 4, 4, 8), (1, 13, 6, 17)])
@pytest.mark.parametrize("channels", [(4, 8), (12, 20), (32, 16), (8, 44)])
def test_tiles_give_what_the_definition_gives(kernel, tile, shape, channels):
    ins, outs = channels
    volume, weight = drawn(0, *shape, ins), drawn(1, outs, ins, kernel, kernel, kernel)
    bias, added = drawn(2, outs), drawn(3, *shape, outs)
    prepared = prepare(weight, bias, tile)
    for more, relu in ((None, False), (added, True)):
        expected = convolve3d(volume, prepared, added=more, relu=relu, backend="reference")
        found = convolve3d(volume, prepared, added=more, relu=relu)
        assert abs(found - expected).max() < (3e-5 if kernel < 5 else 1e-4) * np.sqrt(ins * kernel**3)


def test_the_definition_is_pytorchs_convolution():
    volume, weight, bias = drawn(0, 1, 6, 5, 7, 4), drawn(1, 8, 4, 3, 3, 3), drawn(2, 8)
    tensors = (torch.from_numpy(part) for part in (volume.transpose(0, 4, 1, 2, 3).copy(), weight, bias))
    expected = torch.conv3d(*(part.double() for part in tensors), padding=1).permute(0, 2, 3, 4, 1)
    found = convolve3d(volume, prepare(weight, bias), backend="reference")
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_bits_depend_on_no_number_of_threads_and_volumes_may_lie_anyhow():
    volume, prepared = drawn(0, 1, 20, 21, 22, 32), prepare(drawn(1, 32, 32, 3, 3, 3))
    alone = convolve3d(volume, prepared)
    for threads in (2, 3):
        np.testing.assert_array_equal(convolve3d(volume, prepared, threads=threads), alone)
    turned = np.asfortranarray(volume)
    np.testing.assert_array_equal(convolve3d(turned, prepared), alone)


def test_what_does_not_fit_is_refused():
    prepared = prepare(drawn(0, 8, 4, 3, 3, 3))
    for wrong, told in (
        (lambda: prepare(drawn(0, 7, 4, 3, 3, 3)), "multiples of 4"),
        (lambda: prepare(drawn(0, 8, 4, 2, 2, 2)), "k odd"),
        (lambda: prepare(drawn(0, 8, 4, 3, 3, 3), drawn(0, 4)), "a bias for each of 8"),
        (lambda: prepare(drawn(0, 8, 4, 7, 7, 7), None, 2), "tiles of 4"),
        (lambda: convolve3d(drawn(0, 1, 2, 2, 2, 8), prepared), r"need a volume \(B, D, H, W, 4\)"),
        (lambda: convolve3d(drawn(0, 1, 2, 2, 2, 4), prepared, added=drawn(0, 1, 2, 2, 2, 4)), "to be added"),
        (lambda: convolve3d(drawn(0, 1, 2, 2, 2, 4), prepared, backend="magic"), "got 'magic'"),
    ):
        with pytest.raises(ValueError, match=told):
            wrong()


def network():
    torch.manual_seed(0)
    made = VolumeNetwork(8, 5, levels=2, width=16).eval()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.uniform_(part.weight, 0.8, 1.2)
            nn.init.normal_(part.bias, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return made


def test_the_folded_network_says_the_same_with_tiles_in_it():
    plain, x = network(), torch.from_numpy(drawn(4, 2, 8, 16, 16, 16))
    quick = folded(plain)
    assert sum(isinstance(part, TiledConvolution) for part in quick.modules()) > 10
    with torch.inference_mode():
        expected = plain(x)
        torch.testing.assert_close(quick(x), expected, rtol=1e-4, atol=1e-4 * float(expected.std()))
        with torch.autocast("cpu", torch.bfloat16):
            off = (quick(x).float() - expected).abs().max()
        assert off < 0.2 * expected.std(), "in autocast PyTorch does it"
    torch.testing.assert_close(quick(x), expected.clone(), rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_only_layers_that_can_be_tiled_are():
    assert fits(nn.Conv3d(8, 8, 3, padding=1)) and fits(nn.Conv3d(32, 16, 7, padding=3))
    for layer in (
        nn.Conv3d(8, 8, 1),
        nn.Conv3d(8, 6, 3, padding=1),
        nn.Conv3d(8, 8, 3),
        nn.Conv3d(8, 8, 3, 2, 1),
        nn.Conv2d(8, 8, 3, padding=1),
    ):
        assert not fits(layer)


def test_folding_leaves_what_it_is_given_as_it_is():
    x = torch.from_numpy(drawn(5, 1, 4, 3, 3, 3))
    kept = x.clone()
    folded(nn.Sequential(nn.ReLU(), nn.Conv3d(4, 4, 1), nn.ReLU()))(x)
    torch.testing.assert_close(x, kept)

"""Convolutions of volumes of voxels with zeros around them, and what networks do right after them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.convolve3d import numba_, reference_
from cuda_kernels.convolve3d.plan import SPARE, Plan, boxed, on_large_page, plan_for, transformed
from cuda_kernels.convolve3d.simd import FEWEST
from cuda_kernels.memory import of_this_thread

Floats = NDArray[np.float32]
BACKENDS = ("reference", "numba")
LEAST_PRODUCTS = 10_000_000  # for which a thread is worth waking


class Prepared(NamedTuple):
    """Weights ready for `convolve3d`: weight (O, C, k, k, k) and bias (O,) float32, how to cut volumes into tiles, and
    the weights as products need them.
    """

    weight: Floats
    bias: Floats
    plan: Plan
    points: Floats


def prepare(weight: Floats, bias: Floats | None = None, tile: int = 4) -> Prepared:
    """Weights that many volumes are convolved with.

    Args:
        weight: (O, C, k, k, k) float32, O and C multiples of FEWEST, k odd. bias: (O,) float32; None: zeros.
        tile: voxels a side of the tiles that a volume is cut into, 4, or 2 for kernels of 3: more exact by five times,
            and at rest of a volume's side of less work, but of 2.4 times as many products.
    Raises:
        ValueError: shapes that do not fit.
    """
    outs, ins, *sides = weight.shape if weight.ndim == 5 else (0, 0)
    if not outs or outs % FEWEST or ins % FEWEST or len(set(sides)) != 1 or not sides[0] % 2:
        raise ValueError(f"need weights (O, C, k, k, k), O and C multiples of {FEWEST}, k odd, got {weight.shape}")
    if bias is not None and bias.shape != (outs,):
        raise ValueError(f"need a bias for each of {outs} channels, got {bias.shape}")
    if (tile, sides[0] <= 3) not in ((2, True), (4, True), (4, False)):
        raise ValueError(f"need tiles of 4, or of 2 with kernels up to 3, got {tile} and {sides[0]}")
    weight = np.ascontiguousarray(weight, np.float32)
    bias = np.zeros(outs, np.float32) if bias is None else np.ascontiguousarray(bias, np.float32)
    plan = plan_for(weight.shape, tile)
    return Prepared(weight, bias, plan, transformed(weight, plan))


def convolve3d(
    volume: Floats,
    prepared: Prepared,
    *,
    added: Floats | None = None,
    relu: bool = False,
    threads: int = 1,
    backend: str = "numba",
) -> Floats:
    """(B, D, H, W, O) float32 the volume convolved, plus bias, plus `added`; of that, with `relu`, what is above 0.

    A convolution as networks say it: output voxel v is the sum over taps t of weight t times voxel v + t - k // 2,
    voxels outside counting as 0.

    Args:
        volume: (B, D, H, W, C) float32, channels of a voxel beside each other. added: (B, D, H, W, O) float32.
        threads: at most so many share the volume; the bits do not depend on how many there are.
        backend: 'reference', in float64, or 'numba', whose rounding error is, of random volumes and weights of 4 to 32
            channels, 1e-6 of the outputs' standard deviation (3e-5 at most) for kernels up to 3 and 3e-6 to 9e-6 (8e-5
            at most) for 5 and 7. On a GPU the same is PyTorch's convolution.
    Raises:
        ValueError: shapes that do not fit, no thread, or an unknown backend.
    Source: Winograd 1980; Lavin & Gray 2016, section 4, in three dimensions.
    """
    outs, channels = prepared.weight.shape[:2]
    if volume.ndim != 5 or volume.shape[4] != channels:
        raise ValueError(f"need a volume (B, D, H, W, {channels}) for these weights, got {volume.shape}")
    if added is not None and added.shape != (*volume.shape[:4], outs):
        raise ValueError(f"need {(*volume.shape[:4], outs)} to be added, got {added.shape}")
    if backend not in BACKENDS or threads < 1:
        raise ValueError(f"need one of {BACKENDS} and a thread or more, got '{backend}' and {threads}")
    volume = np.ascontiguousarray(volume, np.float32)
    if added is not None:
        added = np.ascontiguousarray(added, np.float32)
    if backend == "reference":
        return reference_.convolve3d(volume, prepared.weight, prepared.bias, added, relu)
    out = np.empty((*volume.shape[:4], outs), np.float32)
    shape = volume.shape[1:4]
    threads = max(min(threads, prepared.plan.products(shape) // LEAST_PRODUCTS), 1)
    plan = boxed(prepared.plan, shape, threads)
    boxes = plan.boxes(shape)
    lowest = np.float32(0 if relu else -np.inf)

    def fill(job: tuple[int, tuple[int, int]]) -> None:
        row, span = job
        room = on_large_page(of_this_thread().array("convolve3d", plan.room + SPARE, np.float32))
        after = prepared.bias, np.empty(0, np.float32) if added is None else added[row].reshape(-1), lowest
        given = volume[row].reshape(-1), shape, (plan, prepared.points), after
        numba_.convolve(*given, (*span, boxes), room, out[row].reshape(-1))

    pieces = min(4 * threads, prod(boxes)) if threads > 1 else 1  # so that none waits long for one that was held up
    ends = np.linspace(0, prod(boxes), pieces + 1).astype(int).tolist()
    jobs = [(row, span) for row in range(len(volume)) for span in pairwise(ends)]
    list(map(fill, jobs) if threads == 1 else _pool(threads).map(fill, jobs))
    return out


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="convolve3d")

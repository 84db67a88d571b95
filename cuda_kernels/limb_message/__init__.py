"""What one end of a limb tells the other: one sum-product message."""

import math

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.gpu import gpu_body
from cuda_kernels.limb_message import pairs_, reference_, transform_
from cuda_kernels.shell import Shell

Voxels = NDArray[np.int32]
Floats = NDArray[np.floating]

# Seconds of one unit of work (one pair; one point of a transform) on one core with AVX-512, from
# benchmarks/kernel_table.py. Only their ratios matter, and only for the choice of route.
SECONDS_PER_PAIR = 8.0e-11
SECONDS_PER_WEIGHTED_PAIR = 4.0e-10  # shells that are no interval look each weight up
SECONDS_PER_POINT = 4.0e-9
BACKENDS = ("reference", "numba", "cuda")
ROUTES = ("pairs", "transform", "auto")

_on_gpu = gpu_body("cuda_kernels.limb_message.cuda_", "limb_message")


def limb_message(
    belief: Floats, source: Voxels, target: Voxels, shell: Shell, n: int, backend: str = "numba", route: str = "auto"
) -> NDArray[np.float64]:
    """For each target voxel, the belief summed over the source voxels one limb away, weighted by the shell.

    Args:
        belief: (S,) non-negative, any scale, at the voxels of `source`.
        source, target: (S,) and (N,) int32 flat indices (x * n + y) * n + z of voxels, none twice; voxels left out
        count
            as zero.
        shell: the limb prior by squared voxel distance.
        n: voxels a side of the grid.
        route: 'pairs' sums over pairs of voxels, 'transform' works on the dense grid; 'auto' takes the one of least
            predicted cost. Both are exact but for rounding: pairs to about 1e-13 of each value, the transform to about
            1e-14 of the largest.
    Returns:
        (N,) float64 on belief's scale.
    Raises:
        ValueError: shapes that do not fit, an unknown backend or route.
    Source: Pavlakos et al. 2017, eq. 2 and the sum-product step of section 3.2.
    """
    if belief.ndim != 1 or belief.shape != source.shape or target.ndim != 1:
        raise ValueError(f"belief {belief.shape}, source {source.shape} and target {target.shape} do not fit")
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BACKENDS)}")
    if route not in ROUTES:
        raise ValueError(f"unknown route '{route}', known: {', '.join(ROUTES)}")
    if len(source) == 0 or len(target) == 0:
        return np.zeros(len(target))
    if backend == "reference":
        return reference_.limb_message(belief, source, target, shell, n)
    if backend == "cuda":
        message: NDArray[np.float64] = _on_gpu(belief, source, target, shell, n, route)
        return message
    if route == "auto":
        route = cheapest_route(len(source), len(target), shell, n)
    if route == "pairs":
        return pairs_.limb_message(belief, source, target, shell, n)
    return transform_.limb_message(belief, source, target, shell, n)


def cheapest_route(n_source: int, n_target: int, shell: Shell, n: int) -> str:
    """The route of least predicted time for so many voxels at either end."""
    pairs = pair_seconds(n_source, n_target, shell.interval)
    return "pairs" if pairs <= transform_seconds(n, shell.highest) else "transform"


def pair_seconds(n_source: int, n_target: int, interval: bool) -> float:
    """Predicted seconds of the sum over pairs on one core, if every tile of voxels is in reach of every other."""
    return (SECONDS_PER_PAIR if interval else SECONDS_PER_WEIGHTED_PAIR) * n_source * n_target


def transform_seconds(n: int, highest: int) -> float:
    """Predicted seconds of the dense route on one core, for a shell of that largest squared distance."""
    period = n + min(int(math.sqrt(highest)), n - 1)
    return SECONDS_PER_POINT * period**3

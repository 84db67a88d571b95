"""What one end of a limb tells the other: one sum-product message."""

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.limb_message import fft_, numba_, reference_
from cuda_kernels.shell import Shell

Voxels = NDArray[np.int16]
Floats = NDArray[np.floating]

# Seconds of one unit of work (one pair; one z-run of one column; one point of a transform) on a 2-core AVX-512 machine,
# from benchmarks/inference_time.py. Only their ratios matter, and only for the choice of route.
SECONDS_PER_PAIR = 1.0e-10
SECONDS_PER_WEIGHTED_PAIR = 1.1e-9  # shells that are no interval look each weight up
SECONDS_PER_RUN = 1.7e-9
SECONDS_PER_FFT_POINT = 3.6e-8
BACKENDS = ("reference", "numba")


def limb_message(
    belief: Floats, source: Voxels, target: Voxels, shell: Shell, n: int, backend: str = "numba", route: str = "auto"
) -> NDArray[np.float64]:
    """For each target voxel, the belief summed over the source voxels one limb away, weighted by the shell.

    Args:
        belief: (S,) non-negative, any scale, at the voxels of `source`.
        source, target: (S, 3) and (N, 3) int16 voxel indices in 0 .. n-1, none twice; voxels left out count as zero.
        shell: the limb prior by squared voxel distance.
        n: voxels a side of the grid.
        route: 'pairs' sums over pairs of voxels; 'columns' (interval shells) and 'fft' work on the dense grid; 'auto'
            takes the one of least predicted cost. All are exact but for rounding: pairs to about 1e-13 of each value,
            the dense routes to about 1e-14 of the largest.
    Returns:
        (N,) float64 on belief's scale.
    Raises:
        ValueError: shapes that do not fit, an unknown backend or route, columns asked for a shell that is no interval.
    Source: Pavlakos et al. 2017, eq. 2 and the sum-product step of section 3.2.
    """
    if belief.shape != (len(source),) or source.shape[1:] != (3,) or target.shape[1:] != (3,):
        raise ValueError(f"belief {belief.shape}, source {source.shape} and target {target.shape} do not fit")
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend '{backend}', known: {', '.join(BACKENDS)}")
    if len(source) == 0 or len(target) == 0:
        return np.zeros(len(target))
    if backend == "reference":
        return reference_.limb_message(belief, source, target, shell, n)
    if route == "auto":
        route = cheapest_route(len(source), len(target), shell, n)
    if route == "pairs":
        return numba_.pairs(belief, source, target, shell)
    if route == "columns" and shell.interval:
        return numba_.columns(belief, source, target, shell, n)
    if route == "fft":
        return fft_.limb_message(belief, source, target, shell, n)
    raise ValueError(f"route '{route}' does not exist or does not serve this shell; use pairs, columns or fft")


def cheapest_route(n_source: int, n_target: int, shell: Shell, n: int) -> str:
    """The route of least predicted time for so many voxels at either end."""
    cost = predicted_seconds(n_source, n_target, shell, n)
    return min(cost, key=lambda name: cost[name])


def predicted_seconds(n_source: int, n_target: int, shell: Shell, n: int) -> dict[str, float]:
    """Predicted seconds of every route that serves this shell."""
    pair = SECONDS_PER_PAIR if shell.interval else SECONDS_PER_WEIGHTED_PAIR
    cost = {"pairs": pair * n_source * n_target, "fft": SECONDS_PER_FFT_POINT * (n + shell.reach) ** 3}
    if shell.interval:
        runs = np.pi * shell.reach**2 * (1.0 + max(shell.lowest, 0) / max(shell.highest, 1))
        cost["columns"] = SECONDS_PER_RUN * runs * n * n * n / 8
    return cost

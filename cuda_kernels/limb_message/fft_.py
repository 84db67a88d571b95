"""A limb message as a convolution of dense grids, by FFT in double precision."""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cuda_kernels.shell import Shell


def limb_message(  # type: ignore[no-untyped-def]
    belief, source, target, shell: Shell, n: int
) -> NDArray[np.float64]:
    """See the contract in the folder's `__init__`."""
    padded = scipy.fft.next_fast_len(n + shell.reach, real=True)
    dense = np.zeros(n**3)
    dense[flat_index(source, n)] = belief
    shape = (padded,) * 3
    spectrum = scipy.fft.rfftn(dense.reshape(n, n, n), shape, workers=-1)
    spectrum *= scipy.fft.rfftn(kernel(shell, padded), workers=-1)
    message = scipy.fft.irfftn(spectrum, shape, workers=-1, overwrite_x=True)[:n, :n, :n]
    return np.maximum(message.ravel()[flat_index(target, n)], 0.0)


def flat_index(voxels, n: int) -> NDArray[np.int64]:  # type: ignore[no-untyped-def]
    """(N,) place of voxels (N, 3) in a flat grid of n a side."""
    wide = voxels.astype(np.int64)
    return np.asarray((wide[:, 0] * n + wide[:, 1]) * n + wide[:, 2])


def kernel(shell: Shell, padded: int) -> NDArray[np.float64]:
    """(padded,)*3 weights of every offset, negative offsets wrapped round."""
    offset = np.fft.fftfreq(padded, 1.0 / padded).astype(np.int64) ** 2
    squared = offset[:, None, None] + offset[None, :, None] + offset[None, None, :]
    inside = (squared >= shell.lowest) & (squared <= shell.highest)
    weights = shell.weights[np.clip(squared - shell.lowest, 0, shell.weights.size - 1)]
    return np.where(inside, weights.astype(np.float64), 0.0)

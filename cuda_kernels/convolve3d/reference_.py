"""The definition of a convolution of volumes, in float64."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def convolve3d(volume: Floats, weight: Floats, bias: Floats, added: Floats | None, relu: bool) -> Floats:
    """(B, D, H, W, O) of a volume (B, D, H, W, C) and weights (O, C, k, k, k)."""
    k = weight.shape[2]
    framed = np.pad(volume.astype(np.float64), [(0, 0), *[(k // 2, k // 2)] * 3, (0, 0)])
    out = np.zeros((*volume.shape[:4], len(weight))) + bias
    for z, y, x in product(range(k), repeat=3):
        moved = framed[:, z : z + volume.shape[1], y : y + volume.shape[2], x : x + volume.shape[3]]
        out += moved @ weight[:, :, z, y, x].T.astype(np.float64)
    if added is not None:
        out += added
    return (np.maximum(out, 0) if relu else out).astype(np.float32)

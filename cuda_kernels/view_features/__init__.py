"""Feature maps of several views -> what they show together at points, such as the voxels of a cube."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.view_features import numba_, reference_

BODIES: dict[str, Callable[..., Any]] = {"reference": reference_.view_features, "numba": numba_.view_features}
HOW = ("sum", "softmax")

Floats = NDArray[np.float32]


def view_features(maps: Floats, cells: Floats, how: str, backend: str = "numba") -> Floats:
    """What V views show at N points, (N, C) float32: the sum over views, or the mean weighted by their softmax.

    A view shows its map at the point's cell, bilinearly between cells, cells outside the map counting as 0. Where a
    point lies a whole cell outside, or its cell is not finite, the view shows 0, and takes part in the softmax so.

    Args:
        maps: (V, h, w, C) float32, features of a cell beside each other. cells: (V, N, 2) float32 (x, y) where each
            view sees the points, whole numbers at centres of cells.
        how: 'sum' or 'softmax'; the latter is taken channel by channel.
        backend: 'reference' or 'numba', which takes one thread. On a GPU the same is done by PyTorch's operations
            (harvest/triangulate3d/volumetric.py, `aggregate`).
    Raises:
        ValueError: shapes that do not fit, no view, an unknown `how` or backend.
    Source: Iskakov et al. 2019, eq. 7; eq. 8 for sum, 10 and 11 for softmax.
    """
    if maps.ndim != 4 or cells.ndim != 3 or cells.shape[2] != 2 or len(maps) != len(cells) or not len(maps):
        raise ValueError(
            f"need maps (V, h, w, C) and cells (V, N, 2) of the same views, got {maps.shape}, {cells.shape}"
        )
    if how not in HOW or backend not in BODIES:
        raise ValueError(f"need one of {HOW} and of {tuple(BODIES)}, got '{how}' and '{backend}'")
    given = (np.ascontiguousarray(part, np.float32) for part in (maps, cells))
    found: Floats = BODIES[backend](*given, how == "softmax")
    return found

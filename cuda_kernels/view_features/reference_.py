"""The definition of what views show together at points, in float64."""

import numpy as np
from numpy.typing import NDArray


def view_features(maps, cells, softmax):  # type: ignore[no-untyped-def]
    """What V views show at N points (N, C)."""
    shown = np.stack([_at(grid, places) for grid, places in zip(maps.astype(np.float64), cells, strict=True)])
    if not softmax:
        return shown.sum(axis=0).astype(np.float32)
    share = np.exp(shown - shown.max(axis=0))
    return ((share * shown).sum(axis=0) / share.sum(axis=0)).astype(np.float32)


def _at(grid: NDArray[np.float64], places: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, C) a map (h, w, C) at cells (N, 2)."""
    h, w, channels = grid.shape
    framed = np.zeros((h + 2, w + 2, channels))
    framed[1:-1, 1:-1] = grid
    out = np.zeros((len(places), channels))
    for row, (x, y) in enumerate(places.astype(np.float64)):
        if -1 < x < w and -1 < y < h:
            left, top = int(np.floor(x)), int(np.floor(y))
            for column, across in ((left, left + 1 - x), (left + 1, x - left)):
                for line, down in ((top, top + 1 - y), (top + 1, y - top)):
                    out[row] += across * down * framed[line + 1, column + 1]
    return out

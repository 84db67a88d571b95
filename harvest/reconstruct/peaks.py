"""Heat maps -> one point and one confidence per joint and view, for the methods that triangulate."""

import numba
import numpy as np
from numpy.typing import NDArray

from harvest.types import Heatmaps

WINDOW = 3


@numba.njit(cache=True)
def _peaks(score, cells, value):  # type: ignore[no-untyped-def]
    for index in range(len(score)):
        grid = score[index]
        h, w = grid.shape
        top = np.argmax(grid)
        y0, x0 = top // w, top % w
        value[index] = grid[y0, x0]
        total, sx, sy = 0.0, 0.0, 0.0
        for y in range(max(y0 - WINDOW, 0), min(y0 + WINDOW + 1, h)):
            for x in range(max(x0 - WINDOW, 0), min(x0 + WINDOW + 1, w)):
                total += grid[y, x]
                sx += grid[y, x] * x
                sy += grid[y, x] * y
        cells[index, 0] = sx / total if total > 0 else np.nan
        cells[index, 1] = sy / total if total > 0 else np.nan


def peak_points(maps: Heatmaps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Image pixels (T, V, J, 2) of each map's peak, NaN where the map is empty or missing, and its value (T, V, J).

    The place is the centroid of the 7 x 7 cells round the largest one, which is finer than a cell.
    """
    t, v, j, h, w = maps.score.shape
    cells, value = np.empty((t * v * j, 2)), np.empty(t * v * j)
    _peaks(np.ascontiguousarray(maps.score).reshape(-1, h, w), cells, value)
    cells, value = cells.reshape(t, v, j, 2), value.reshape(t, v, j)
    affine = maps.image_from_heatmap[:, :, None]
    points = (affine[..., :2] @ cells[..., None])[..., 0] + affine[..., 2]
    return points, np.where(np.isfinite(points[..., 0]), value, 0.0)

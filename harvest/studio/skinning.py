"""Vertices that follow bones, and the normals of what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True, error_model="numpy")
def skin(vertices, weights, bones, transforms, out):  # type: ignore[no-untyped-def]
    """Fill `out` (N, 3) with vertices moved by the weighted mean of their bones' transforms (B, 3, 4); all float32.

    Weights of a vertex come largest first, and those after a zero are zeros. Linear blend skinning.
    """
    flat = transforms.reshape(transforms.shape[0], 12)
    zero = np.float32(0)
    for n in range(vertices.shape[0]):
        x, y, z = vertices[n, 0], vertices[n, 1], vertices[n, 2]
        ox, oy, oz = zero, zero, zero
        for k in range(weights.shape[1]):
            w = weights[n, k]
            if w == zero:
                break
            t = bones[n, k]
            ox += w * (flat[t, 0] * x + flat[t, 1] * y + flat[t, 2] * z + flat[t, 3])
            oy += w * (flat[t, 4] * x + flat[t, 5] * y + flat[t, 6] * z + flat[t, 7])
            oz += w * (flat[t, 8] * x + flat[t, 9] * y + flat[t, 10] * z + flat[t, 11])
        out[n, 0], out[n, 1], out[n, 2] = ox, oy, oz


def normals(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> Any:
    """(N, 3) float32 unit normals, those of the faces around weighted by their area; up where there is no face."""
    out = np.zeros_like(vertices)
    _add_faces(vertices, faces, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _add_faces(vertices, faces, out):  # type: ignore[no-untyped-def]
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, z0 = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        x1, y1, z1 = vertices[b, 0] - x0, vertices[b, 1] - y0, vertices[b, 2] - z0
        x2, y2, z2 = vertices[c, 0] - x0, vertices[c, 1] - y0, vertices[c, 2] - z0
        nx, ny, nz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        for i in range(3):
            v = faces[f, i]
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(out.shape[0]):
        x, y, z = out[v, 0], out[v, 1], out[v, 2]
        length = np.sqrt(x * x + y * y + z * z)
        if length > np.float32(1e-20):
            out[v, 0], out[v, 1], out[v, 2] = x / length, y / length, z / length
        else:
            out[v, 0], out[v, 1], out[v, 2] = np.float32(0), np.float32(0), np.float32(1)

"""The mesh that all bodies share, hm08: 19158 vertices, of which the first 13380 are skin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
VISIBLE = ("body", "helper-l-eye", "helper-r-eye", "helper-tongue")  # in this order; all else only carries clothes

# Two discs of skin on the chest are closed flat, so that no body shows them: vertices that go, and the ring of 16
# around each, bridged by seven quads that are numbered along the ring.
CLOSED = (
    (8450, 8434, ((3, 4, 5, 6), (2, 3, 6, 7), (1, 2, 7, 8), (0, 1, 8, 9), (15, 0, 9, 10), (14, 15, 10, 11),
                  (13, 14, 11, 12))),
    (1778, 1762, ((0, 9, 8, 1), (1, 8, 7, 2), (2, 7, 6, 3), (3, 6, 5, 4), (0, 15, 10, 9), (15, 14, 11, 10),
                  (14, 13, 12, 11))),
)  # fmt: skip
RING = 16


@dataclass(frozen=True)
class BaseMesh:
    """vertices (N, 3) in metres, studio axes; uv (U, 2), origin bottom left; quads of each group (F, 4, 2): of every
    corner its vertex and its uv.
    """

    vertices: Floats
    uv: Floats
    groups: dict[str, Ints]

    def of_group(self, name: str) -> Ints:
        """Vertices of a group, each once, in order."""
        return np.unique(self.groups[name][..., 0])


def to_studio(points: Floats) -> Floats:
    """Points (..., 3) in metres, z up, facing -y, of points in decimetres with y up that face +z."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1) * 0.1


def read_base_mesh(text: str) -> BaseMesh:
    """The mesh of a Wavefront OBJ file whose faces are quads with uv, in groups."""
    points: list[list[float]] = []
    uv: list[list[float]] = []
    groups: dict[str, list[list[list[int]]]] = {}
    group: list[list[list[int]]] = []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            points.append([float(word) for word in rest.split()])
        elif kind == "vt":
            uv.append([float(word) for word in rest.split()])
        elif kind == "g":
            group = groups.setdefault(rest.strip(), [])
        elif kind == "f":
            group.append([[int(index) - 1 for index in corner.split("/")[:2]] for corner in rest.split()])
    quads = {name: np.array(faces, np.int64) for name, faces in groups.items() if faces}
    return BaseMesh(to_studio(np.array(points)), np.array(uv), quads)


def visible_quads(mesh: BaseMesh) -> Ints:
    """Quads (F, 4, 2) that can be seen: skin with the chest closed flat, eyes and tongue."""
    quads = np.concatenate([mesh.groups[name] for name in VISIBLE])
    discs = np.concatenate([np.arange(first, first + RING) for first, _, _ in CLOSED])
    keep = ~np.isin(quads[..., 0], discs).any(axis=1)
    uv_of = dict(quads[~keep].reshape(-1, 2).tolist())
    caps = np.concatenate([ring + np.array(bridge) for _, ring, bridge in CLOSED])
    corners = np.stack([caps, np.vectorize(uv_of.__getitem__)(caps)], axis=-1)
    return np.concatenate([quads[keep], corners])


def split_quads(vertices: Floats, quads: Ints) -> tuple[Ints, Ints]:
    """Triangles (2F, 3) by vertex and by uv: each quad cut along its shorter diagonal, its two halves in a row."""
    a, b, c, d = (vertices[quads[:, corner, 0]] for corner in range(4))
    first = np.linalg.norm(a - c, axis=1) < np.linalg.norm(b - d, axis=1)
    halves = np.where(
        first[:, None, None, None], quads[:, [[0, 1, 2], [2, 3, 0]]], quads[:, [[0, 1, 3], [3, 1, 2]]]
    ).reshape(-1, 3, 2)
    return halves[..., 0], halves[..., 1]

"""Surfaces that can be drawn: triangles, what they are made of, and where they stand in a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.studio.skinning import normals, skin

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SIZE = 512  # texels a side of a texture
LEVELS = 7  # of a texture, each half as wide as the one before, down to 8 texels
OFFSETS = np.cumsum([0] + [(SIZE >> level) ** 2 for level in range(LEVELS)])


class Surface(NamedTuple):
    """F triangles as compiled code takes them: faces (F, 3) int32 of vertices; uv (U, 2) float32, origin at a texture's
    lower left; face_uv (F, 3) int32; material (F,) int32; open (N,) float32, share of the sky that a vertex sees.
    """

    faces: Any
    uv: Any
    face_uv: Any
    material: Any
    open: Any


class Looks(NamedTuple):
    """M materials: textures (M, texels, 4) uint8 sRGB and opacity with all levels, see `pyramid`; bumps like it,
    normals in tangent space; bump (M,) int32 row of bumps or -1; holes (M,) bool: what is not opaque is not there;
    one_sided (M,) bool; gloss (M, 2) float32 strength and exponent of highlights; tint (M, 3) float32 times the linear
    colour.
    """

    textures: Any
    bumps: Any
    bump: Any
    holes: Any
    one_sided: Any
    gloss: Any
    tint: Any


@dataclass(frozen=True)
class Mesh:
    """A surface at rest: vertices (N, 3) float32 metres, moved by bones with weights (N, K)."""

    vertices: Floats32
    surface: Surface
    looks: Looks
    weights: Floats32
    bones: NDArray[np.int32]

    def placed(self, transforms: Floats) -> Thing:
        """This mesh with its bones at transforms (B, 3, 4) from rest to the world."""
        vertices = np.empty_like(self.vertices)
        skin(self.vertices, self.weights, self.bones, transforms.astype(np.float32), vertices)
        return Thing(self, vertices, normals(vertices, self.surface.faces))


@dataclass(frozen=True)
class Thing:
    """A mesh as it stands in the world: vertices and unit normals (N, 3) float32."""

    mesh: Mesh
    vertices: Floats32
    normals: Floats32


def pyramid(picture: Bytes) -> Bytes:
    """(texels, 4) all levels of a texture, SIZE a side first, from a picture (h, w, 3 or 4) uint8."""
    if picture.shape[2] == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA), np.uint8)
    if picture.shape[:2] != (SIZE, SIZE):
        picture = np.asarray(cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)
    levels = [picture]
    for _ in range(LEVELS - 1):
        levels.append(np.asarray(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8))
    return np.concatenate([level.reshape(-1, 4) for level in levels])


def join(parts: list[tuple[Floats32, Surface]]) -> tuple[Floats32, Surface]:
    """One mesh of several, materials numbered one after the other."""
    vertices, uv, materials = 0, 0, 0
    faces, face_uv, material = [], [], []
    for points, part in parts:
        faces.append(part.faces + vertices)
        face_uv.append(part.face_uv + uv)
        material.append(part.material + materials)
        vertices, uv, materials = vertices + len(points), uv + len(part.uv), materials + int(part.material.max()) + 1
    return np.concatenate([points for points, _ in parts]), Surface(
        np.concatenate(faces).astype(np.int32),
        np.concatenate([part.uv for _, part in parts]).astype(np.float32),
        np.concatenate(face_uv).astype(np.int32),
        np.concatenate(material).astype(np.int32),
        np.concatenate([part.open for _, part in parts]).astype(np.float32),
    )

"""Clothed people: a body in an outfit, painted, as one mesh that moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harvest.studio.assets import Assets
from harvest.studio.body import Body
from harvest.studio.colours import HAIR, dye, fabric, plain_skin, repaint
from harvest.studio.mesh import Looks, Mesh, Surface, join, pyramid
from harvest.studio.raster import draw_depth
from harvest.studio.render import FAR, sun_matrix
from harvest.studio.skinning import normals
from harvest.studio.wardrobe import Garment, Outfit, Wardrobe, draw_outfit

Floats32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
GLOSS = {"skin": (0.06, 20.0), "hair": (0.10, 12.0), "shoes": (0.06, 14.0)}
CLOTH_GLOSS = (0.02, 10.0)
REPAINTED = 0.55  # share of suits and shoes in another cloth
SKY_DIRECTIONS, SKY_CELLS, SKY_REACH_M = 28, 128, 0.6
DARKEST = 0.15  # share of the sky that even a fold sees, by light from its own sides


@dataclass(frozen=True)
class Person:
    """Somebody: id, split and traits of the character, its body, its mesh at rest, what it wears."""

    id: str
    split: str
    traits: dict[str, float]
    body: Body
    mesh: Mesh
    outfit: Outfit


class Casting:
    """Makes people out of a bundle."""

    def __init__(self, assets: Assets) -> None:
        """Take the bundle."""
        self.assets, self.wardrobe = assets, Wardrobe(assets)
        self._pyramids: dict[str, Bytes] = {}

    def person(self, split: str, rng: np.random.Generator, loud: bool = False) -> Person:
        """A random person of a split; `loud`: in colours and patterns that others never wear."""
        known = [character for character in self.assets.characters if character["split"] == split]
        who = known[int(rng.integers(len(known)))]
        outfit = draw_outfit(self.wardrobe, who["female"], who["skin_group"], split, rng)
        if self.assets.only_cc0:
            outfit = Outfit(tuple(key for key in outfit.garments if key.startswith("clothes/")), "")
        body = self.assets.body.shape(who["phenotype"])
        garments = [self.wardrobe.garment(key) for key in outfit.garments]
        looks = self._looks(garments, outfit.skin, who["skin_group"], rng, loud)
        return Person(who["id"], split, who["phenotype"], body, dress(body, garments, looks), outfit)

    def _looks(
        self, garments: list[Garment], skin: str, skin_group: str, rng: np.random.Generator, loud: bool
    ) -> Looks:
        """Materials: the skin's, then each garment's."""
        textures = [self._pyramid(skin) if skin else pyramid(plain_skin(rng, skin_group))]
        hair = HAIR[int(rng.integers(len(HAIR)))]
        for garment in garments:
            textures.append(self._painted(garment, hair, rng, loud))
        bumped = [None, *(None if self.assets.only_cc0 else garment.bumps for garment in garments)]
        bumps = [self._pyramid(name) for name in bumped if name]
        number = np.cumsum([name is not None for name in bumped]) - 1
        kinds = ["skin", *(garment.kind for garment in garments)]
        tint = np.ones((len(kinds), 3), np.float32)
        tint[0] = rng.uniform(0.75, 1.15) * np.array([1, rng.uniform(0.92, 1.04), rng.uniform(0.88, 1.06)])
        return Looks(
            np.stack(textures),
            np.stack(bumps) if bumps else np.zeros((1, 1, 4), np.uint8),
            np.where([name is not None for name in bumped], number, -1).astype(np.int32),
            np.array([False, *(garment.holes for garment in garments)]),
            np.array([True] + [False] * len(garments)),
            np.array([GLOSS.get(kind, CLOTH_GLOSS) for kind in kinds], np.float32),
            tint,
        )

    def _painted(self, garment: Garment, hair: tuple[int, int, int], rng: np.random.Generator, loud: bool) -> Bytes:
        if self.assets.only_cc0:
            return pyramid((255 * fabric(rng, loud)).astype(np.uint8))
        if garment.kind == "hair":
            return pyramid(dye(self.assets.picture(garment.texture), hair))
        if garment.kind in ("suit", "shoes") and (loud or rng.random() < REPAINTED):
            return pyramid(repaint(self.assets.picture(garment.texture), fabric(rng, loud)))
        return self._pyramid(garment.texture)

    def _pyramid(self, name: str) -> Bytes:
        if name not in self._pyramids:
            self._pyramids[name] = pyramid(self.assets.picture(name))
        return self._pyramids[name]


def dress(body: Body, garments: list[Garment], looks: Looks) -> Mesh:
    """A body and what it wears as one mesh at rest; skin that garments hide, and vertices of no face, are left out."""
    model = body.model
    hidden = np.any([garment.hides for garment in garments], axis=0)
    shown = ~hidden[model.faces].all(axis=1)
    parts: list[tuple[Floats32, Any]] = [
        (body.vertices, _plain(body.vertices, model.faces[shown], model.face_uv[shown], model.uv))
    ]
    skins = [model.skin]
    for garment in garments:
        vertices = garment.fit(body)
        parts.append((vertices, _plain(vertices, garment.faces, garment.face_uv, garment.uv)))
        skins.append((garment.weights, garment.bones))
    vertices, surface = join(parts)
    used = np.zeros(len(vertices), np.bool_)
    used[surface.faces] = True
    vertices, faces = vertices[used].copy(), (np.cumsum(used) - 1)[surface.faces].astype(np.int32)
    surface = surface._replace(faces=faces, open=open_sky(vertices, faces))
    weights, bones = (np.concatenate([skin[i] for skin in skins])[used] for i in range(2))
    return Mesh(vertices, surface, looks, weights, bones)


def _plain(vertices: Floats32, faces: NDArray[np.int32], face_uv: NDArray[np.int32], uv: Floats32) -> Surface:
    return Surface(faces, uv, face_uv, np.zeros(len(faces), np.int32), np.ones(len(vertices), np.float32))


def open_sky(vertices: Floats32, faces: NDArray[np.int32]) -> Floats32:
    """(N,) share of the sky that each vertex of a mesh sees past the rest of it, not below DARKEST.

    Depth maps from SKY_DIRECTIONS evenly spread directions; what lies SKY_REACH_M away hides nothing any more.
    """
    turns = np.arange(SKY_DIRECTIONS) + 0.5
    height = 1 - 2 * turns / SKY_DIRECTIONS
    angle, wide = turns * np.pi * (3 - np.sqrt(5)), np.sqrt(1 - height**2)
    directions = np.column_stack([wide * np.cos(angle), wide * np.sin(angle), height]).astype(np.float32)
    outward = normals(vertices, faces)
    seen, total = np.zeros(len(vertices), np.float32), np.zeros(len(vertices), np.float32)
    depth = np.empty((SKY_CELLS, SKY_CELLS), np.float32)
    for direction in directions:
        matrix = sun_matrix([vertices], direction, SKY_CELLS)
        depth[:] = FAR
        draw_depth(np.ascontiguousarray(vertices @ matrix[:, :3].T + matrix[:, 3]), faces, depth)
        _add_sky(vertices, outward, direction, matrix, depth, seen, total)
    return np.asarray(DARKEST + (1 - DARKEST) * seen / np.maximum(total, 1e-6), np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_sky(vertices, outward, direction, matrix, depth, seen, total):  # type: ignore[no-untyped-def]
    """Add to `seen` what each vertex receives from one direction, to `total` what it would in the open, both (N,)."""
    last = depth.shape[0] - 1
    for n in range(vertices.shape[0]):
        nx, ny, nz = outward[n, 0], outward[n, 1], outward[n, 2]
        facing = nx * direction[0] + ny * direction[1] + nz * direction[2]
        if facing <= 0:
            continue
        raised = np.float32(0.006)
        x, y, z = vertices[n, 0] + raised * nx, vertices[n, 1] + raised * ny, vertices[n, 2] + raised * nz
        column = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]
        row = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]
        away = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
        i, j = min(max(int(column + 0.5), 0), last), min(max(int(row + 0.5), 0), last)
        gap = (away - depth[j, i] - np.float32(0.012)) / np.float32(SKY_REACH_M)
        open_here = np.float32(1)
        if gap > 0:
            open_here = min(gap, np.float32(1)) ** 2
        seen[n] += facing * open_here
        total[n] += facing

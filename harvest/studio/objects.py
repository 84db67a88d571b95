"""Furniture and things to hold, made of boxes, tubes and balls: what stands in the way of a view."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from harvest.studio.body import Body
from harvest.studio.colours import fabric
from harvest.studio.mesh import Looks, Mesh, Surface, join, pyramid
from harvest.studio.rotations import about

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Solid = tuple[Floats32, Surface]
PATCH_M = 0.12  # longest side of a patch, so that none is lost for touching the camera's plane
UP = (0.0, 0.0, 1.0)
PAINTS = 40  # their textures take 1.4 MB each


def _patch(corner: Floats, along: Floats, across: Floats) -> Solid:
    """A parallelogram in patches, its texture once over it; seen from where along x across points."""
    rows, columns = (max(1, int(np.ceil(np.linalg.norm(side) / PATCH_M))) for side in (across, along))
    v, u = np.mgrid[: rows + 1, : columns + 1]
    uv = np.stack([u / columns, v / rows], axis=-1).reshape(-1, 2)
    first = (v[:-1, :-1] * (columns + 1) + u[:-1, :-1]).ravel()
    right, up = first + 1, first + columns + 1
    faces = np.concatenate([np.stack([first, right, up + 1], 1), np.stack([first, up + 1, up], 1)])
    return _solid(corner + uv[:, :1] * along + uv[:, 1:] * across, faces, uv)


def _solid(points: Floats, faces: NDArray[np.int64], uv: Floats) -> Solid:
    faces = faces.astype(np.int32)
    surface = Surface(
        faces, uv.astype(np.float32), faces, np.zeros(len(faces), np.int32), np.ones(len(points), np.float32)
    )
    return points.astype(np.float32), surface


def box(size_m: tuple[float, float, float], centre_m: tuple[float, float, float]) -> Solid:
    """A box with its sides along the axes."""
    size, middle = np.array(size_m), np.array(centre_m)
    sides = []
    for axis in range(3):
        along, across = np.zeros(3), np.zeros(3)
        along[(axis + 1) % 3], across[(axis + 2) % 3] = size[(axis + 1) % 3], size[(axis + 2) % 3]
        out = np.zeros(3)
        out[axis] = size[axis] / 2
        sides.append(_patch(middle + out - (along + across) / 2, along, across))
        sides.append(_patch(middle - out - (along + across) / 2, across, along))
    return _one(sides)


def tube(radius_m: float, length_m: float, start_m: tuple[float, float, float], around: int = 14) -> Solid:
    """An upright closed tube that begins at a point."""
    return _turned([(0.0, 0.0), (radius_m, 0.0), (radius_m, length_m), (0.0, length_m)], start_m, around)


def ball(radius_m: float, centre_m: tuple[float, float, float], around: int = 18) -> Solid:
    """A ball."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, around // 2 + 1)
    return _turned([(radius_m * np.cos(a), radius_m * np.sin(a)) for a in angles], centre_m, around)


def capsule(radii_m: tuple[float, float], length_m: float, around: int = 16) -> Solid:
    """An upright tube with round ends from the origin up; its thickness goes from one radius to the other."""
    low = [(radii_m[0] * np.cos(a), radii_m[0] * np.sin(a)) for a in np.linspace(-np.pi / 2, 0, around // 4 + 1)]
    high = [
        (radii_m[1] * np.cos(a), length_m + radii_m[1] * np.sin(a)) for a in np.linspace(0, np.pi / 2, around // 4 + 1)
    ]
    return _turned([*low, *high], (0.0, 0.0, 0.0), around)


def _turned(outline: list[tuple[float, float]], start_m: tuple[float, float, float], around: int) -> Solid:
    """An outline of radii and heights, lowest first, turned about the vertical; long pieces are divided."""
    fine = [outline[0]]
    for (r0, z0), (r1, z1) in pairwise(outline):
        parts = max(1, int(np.ceil(np.hypot(r1 - r0, z1 - z0) / PATCH_M)))
        fine += [(r0 + (r1 - r0) * i / parts, z0 + (z1 - z0) * i / parts) for i in range(1, parts + 1)]
    radius, z = np.array(fine).T
    angle = np.linspace(0, 2 * np.pi, around + 1)
    ring = np.stack([np.outer(radius, np.cos(angle)), np.outer(radius, np.sin(angle)), np.tile(z[:, None], around + 1)])
    v, u = np.mgrid[: len(fine), : around + 1]
    uv = np.stack([u / around, v / max(len(fine) - 1, 1)], axis=-1).reshape(-1, 2)
    first = (v[:-1, :-1] * (around + 1) + u[:-1, :-1]).ravel()
    right, up = first + 1, first + around + 1
    faces = np.concatenate([np.stack([first, right, up + 1], 1), np.stack([first, up + 1, up], 1)])
    points = ring.reshape(3, -1).T
    a, b, c = (points[faces[:, i]] for i in range(3))
    wide = np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-12  # at a pole, every other triangle is a line
    return _solid(points + np.array(start_m), faces[wide], uv)


def _one(solids: list[Solid]) -> Solid:
    """Solids as one, of one material."""
    vertices, surface = join(solids)
    return vertices, surface._replace(material=np.zeros_like(surface.material))


def chair(rng: np.random.Generator) -> Solid:
    """A chair with four legs, perhaps with a back."""
    wide, high = rng.uniform(0.38, 0.55), rng.uniform(0.4, 0.75)
    parts = [box((wide, wide, 0.05), (0, 0, high))]
    parts += [tube(0.02, high, (x * wide * 0.42, y * wide * 0.42, 0.0)) for x in (-1, 1) for y in (-1, 1)]
    if rng.random() < 0.8:
        parts.append(box((wide, 0.04, rng.uniform(0.3, 0.6)), (0, wide * 0.48, high + 0.3)))
    return _one(parts)


def table(rng: np.random.Generator) -> Solid:
    """A table or a desk."""
    x, y, high = rng.uniform(0.6, 1.6), rng.uniform(0.5, 0.9), rng.uniform(0.45, 1.05)
    legs = [tube(0.03, high, (i * x * 0.45, j * y * 0.45, 0.0)) for i in (-1, 1) for j in (-1, 1)]
    return _one([box((x, y, 0.05), (0, 0, high)), *legs])


def cupboard(rng: np.random.Generator) -> Solid:
    """A crate, a cupboard or a screen."""
    x, y, z = rng.uniform(0.3, 1.0), rng.uniform(0.06, 0.6), rng.uniform(0.4, 1.4)
    return box((x, y, z), (0, 0, z / 2))


def pillar(rng: np.random.Generator) -> Solid:
    """A post, a lamp or a plant pot's outline."""
    high, radius = rng.uniform(0.8, 2.4), rng.uniform(0.02, 0.14)
    parts = [tube(radius, high, (0.0, 0.0, 0.0))]
    if rng.random() < 0.5:
        parts.append(ball(rng.uniform(0.12, 0.3), (0.0, 0.0, high)))
    return _one(parts)


FURNITURE: tuple[Callable[[np.random.Generator], Solid], ...] = (chair, table, cupboard, pillar)


def furniture(rng: np.random.Generator, place_m: tuple[float, float]) -> Mesh:
    """A random piece of furniture on the floor (z = 0) at a place, turned at random; it does not move."""
    vertices, surface = FURNITURE[int(rng.integers(len(FURNITURE)))](rng)
    turned = vertices @ about(UP, rng.uniform(0, 2 * np.pi)).T + np.array([*place_m, 0.0])
    return _still(turned.astype(np.float32), surface, 0, rng)


def held(rng: np.random.Generator, body: Body, side: str) -> Mesh:
    """A random thing in a body's hand (side 'L' or 'R'), at rest; it moves with the wrist."""
    kind = int(rng.integers(4))
    if kind == 0:  # a stick, racket or umbrella
        length = rng.uniform(0.3, 1.2)
        vertices, surface = tube(rng.uniform(0.01, 0.025), length, (0.0, 0.0, -0.2 * length))
    elif kind == 1:
        vertices, surface = ball(rng.uniform(0.03, 0.13), (0.0, 0.0, 0.0))
    elif kind == 2:  # a book, a box, a phone
        size = rng.uniform(0.06, 0.36, 3)
        vertices, surface = box((float(size[0]), float(size[1]), 0.3 * float(size[2])), (0.0, 0.0, 0.0))
    else:  # a bag that hangs down
        wide = rng.uniform(0.15, 0.4)
        bag, strap = box((wide, 0.12, 0.8 * wide), (0.0, 0.0, -0.5 * wide - 0.18)), tube(0.012, 0.2, (0.0, 0.0, -0.2))
        vertices, surface = _one([bag, strap])
    model = body.model
    wrist = model.bone(f"wrist.{side}")
    palm = (body.heads[wrist] + 2 * body.heads[model.bone(f"finger3-1.{side}")]) / 3
    tilt = about(rng.standard_normal(3), rng.uniform(0, 0.6 if kind == 3 else np.pi))
    return _still((vertices @ tilt.T + palm).astype(np.float32), surface, wrist, rng)


@lru_cache(maxsize=PAINTS)
def _paint(number: int) -> NDArray[np.uint8]:
    """One of PAINTS surfaces that things are made of, the same in every scene."""
    rng = np.random.default_rng([number, 5])
    return pyramid((255 * fabric(rng, loud=number % 5 == 0)).astype(np.uint8))


def _still(vertices: Floats32, surface: Surface, bone: int, rng: np.random.Generator) -> Mesh:
    """A solid of one cloth or paint, all of it moved by one bone."""
    looks = Looks(
        _paint(int(rng.integers(PAINTS)))[None],
        np.zeros((1, 1, 4), np.uint8),
        np.full(1, -1, np.int32),
        np.zeros(1, np.bool_),
        np.zeros(1, np.bool_),
        np.array([[rng.uniform(0, 0.15), rng.uniform(5, 40)]], np.float32),
        np.ones((1, 3), np.float32),
    )
    weights, bones = np.ones((len(vertices), 1), np.float32), np.full((len(vertices), 1), bone, np.int32)
    return Mesh(vertices, surface, looks, weights, bones)

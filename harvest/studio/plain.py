"""A person of tubes in an empty room: what the studio shows without any asset, its truth as exact as ever."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harvest.skeleton import Skeleton
from harvest.studio.light import Room
from harvest.studio.mesh import SIZE, Looks, Mesh, Thing, join, pyramid
from harvest.studio.objects import capsule
from harvest.studio.render import Light
from harvest.studio.rotations import about, smallest_turn

Floats = NDArray[np.float64]
UP = np.array([0.0, 0.0, 1.0])
# Half the thickness in metres of the limb that ends in a joint, at its two ends.
THICK_M = {
    **{"knee": (0.085, 0.055), "ankle": (0.055, 0.04), "hip": (0.09, 0.09), "thorax": (0.13, 0.12)},
    **{"upper_neck": (0.06, 0.055), "head_top": (0.085, 0.09), "shoulder": (0.06, 0.055)},
    **{"elbow": (0.05, 0.04), "wrist": (0.04, 0.03)},
}
LEFT, RIGHT, MIDDLE = (38, 104, 168), (176, 84, 44), (92, 92, 96)
ROOM_M, EYE_M, TILE_M = (6.0, 6.0, 3.2), 1.6, 0.8


class TubePerson:
    """A skeleton's limbs as tubes of fixed length."""

    def __init__(self, skeleton: Skeleton, lengths_m: Floats) -> None:
        """Take the skeleton and (J,) the length of the limb that ends in each joint."""
        self._ends = [(skeleton.index(limb.child), skeleton.index(limb.parent)) for limb in skeleton.limbs]
        parts, colours, bones = [], [], []
        for bone, limb in enumerate(skeleton.limbs):
            thick = THICK_M[limb.child if limb.child in THICK_M else limb.child.split("_", 1)[-1]]
            parts.append(capsule(thick, float(lengths_m[skeleton.index(limb.child)])))
            colours.append({"l_": LEFT, "r_": RIGHT}.get(limb.child[:2], MIDDLE))
            bones.append(np.full((len(parts[-1][0]), 1), bone, np.int32))
        vertices, surface = join(parts)
        looks = Looks(
            np.stack([pyramid(np.full((SIZE, SIZE, 3), colour, np.uint8)) for colour in colours]),
            np.zeros((1, 1, 4), np.uint8),
            np.full(len(colours), -1, np.int32),
            np.zeros(len(colours), np.bool_),
            np.ones(len(colours), np.bool_),
            np.tile(np.array([0.05, 12.0], np.float32), (len(colours), 1)),
            np.ones((len(colours), 3), np.float32),
        )
        joined = np.concatenate(bones)
        self._mesh = Mesh(vertices, surface, looks, np.ones(joined.shape, np.float32), joined)

    def placed(self, joints_m: Floats) -> Thing:
        """The person with its joints at joints_m (J, 3)."""
        transforms = np.empty((len(self._ends), 3, 4))
        for bone, (child, parent) in enumerate(self._ends):
            along = joints_m[child] - joints_m[parent]
            upside_down = along[2] < -0.999 * np.linalg.norm(along)
            turn = about([1, 0, 0], np.pi) if upside_down else smallest_turn(UP, along)
            transforms[bone, :, :3], transforms[bone, :, 3] = turn, joints_m[parent]
        return self._mesh.placed(transforms)


def plain_light() -> Light:
    """Soft light from above and a low lamp."""
    sky = np.zeros((9, 3), np.float32)
    sky[0], sky[2] = 0.55, 0.12
    sun = np.array([0.45, -0.35, 0.82], np.float32)
    return Light(sky, sun / np.linalg.norm(sun), np.full(3, 0.5, np.float32), 0.9, 0.45)


def plain_room() -> Room:
    """A tiled floor between striped walls, so that every view of it looks different."""
    rows, columns = 256, 512
    polar = (np.arange(rows) + 0.5) / rows * np.pi
    azimuth = (np.arange(columns) + 0.5) / columns * 2 * np.pi
    z = np.cos(polar)[:, None] * np.ones(columns)
    x, y = (np.sin(polar)[:, None] * turn(azimuth) for turn in (np.cos, np.sin))
    floor = EYE_M / np.maximum(-z, 1e-3)
    tiles = (np.floor(x * floor / TILE_M) + np.floor(y * floor / TILE_M)) % 2
    stripes = 0.5 + 0.5 * np.sin(11 * azimuth)[None, :] * np.ones((rows, 1))
    ground = np.stack([0.26 + 0.07 * tiles, 0.23 + 0.07 * tiles, 0.20 + 0.06 * tiles], axis=-1)
    wall = np.stack([0.50 + 0.05 * stripes, 0.47 + 0.03 * stripes, 0.42 + 0.06 * (1 - stripes)], axis=-1)
    # Where a ray from the eye falls on the floor before it meets a wall.
    low = (z < 0) & (np.maximum(abs(x), abs(y)) * floor < ROOM_M[0])
    panorama = np.where(low[..., None], ground, wall).astype(np.float32)
    return Room(panorama, 0.0, *ROOM_M, (0.0, 0.0, 0.0), EYE_M, 1.0)

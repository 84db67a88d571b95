"""Scenes and their pictures: things in a lit room, seen by a camera, with what each pixel truly shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from harvest.studio.light import Room, paint_room
from harvest.studio.mesh import Thing
from harvest.studio.raster import Lens, bounds, draw, draw_depth, make_lens, project, share_of_pixels
from harvest.studio.shade import UNDEVELOPED, Lighting, develop, shade

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
FAR = np.float32(1e9)
MARGIN = 4  # cells of a shadow map around what it covers


@dataclass(frozen=True)
class Light:
    """Light before it meets a scene: sky (9, 3), sun_from (3,) unit vector, sun_colour (3,), exposure, and how much
    darker (0 to 1) the floor is where the sun does not reach it.
    """

    sky: Floats32
    sun_from: Floats32
    sun_colour: Floats32
    exposure: float
    floor_shadow: float


@dataclass
class Scene:
    """Things in a room, or before a photograph that a camera's picture is filled with (h, w, 3) uint8 sRGB.

    `shadow` is made once and serves all cameras.
    """

    things: list[Thing]
    light: Light
    room: Room | None = None
    photograph: NDArray[np.uint8] | None = None
    shadow_cells: int = 512
    _shadow: tuple[Floats32, Floats32, Floats32] | None = field(default=None, repr=False)

    @property
    def shadow(self) -> tuple[Floats32, Floats32, Floats32]:
        """Depths (S, S) of what the sun sees, (3, 4) from the world to its columns, rows and depths, and how dark the
        floor is (S, S).
        """
        if self._shadow is None:
            to_shadow = sun_matrix([thing.vertices for thing in self.things], self.light.sun_from, self.shadow_cells)
            depth = np.full((self.shadow_cells, self.shadow_cells), FAR, np.float32)
            for thing in self.things:
                points = thing.vertices @ to_shadow[:, :3].T + to_shadow[:, 3]
                draw_depth(np.ascontiguousarray(points, np.float32), thing.mesh.surface.faces, depth)
            dark = cv2.GaussianBlur((depth < FAR).astype(np.float32), (0, 0), self.shadow_cells / 128)
            self._shadow = depth, to_shadow, np.asarray(dark, np.float32)
        return self._shadow


def sun_matrix(clouds: list[Floats32], sun_from: Floats32, cells: int) -> Floats32:
    """(3, 4) from the world to the columns and rows of a map of cells x cells that holds all points, and to metres."""
    z = -np.asarray(sun_from, np.float64)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x = np.array([1.0, 0.0, 0.0]) if np.linalg.norm(x) < 1e-3 else x / np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    seen = [cloud @ R.T.astype(np.float32) for cloud in clouds]
    ends = [bounds(cloud) for cloud in seen]
    low, high = np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)
    scale = (cells - 2 * MARGIN) / max(high[0] - low[0], high[1] - low[1], 1e-3)
    matrix = np.zeros((3, 4))
    matrix[:2, :3], matrix[2, :3] = R[:2] * scale, R[2]
    matrix[:2, 3] = MARGIN - low[:2] * scale
    return matrix.astype(np.float32)


@dataclass(frozen=True)
class View:
    """A camera's picture (H, W, 3) uint8 RGB and the truth of its samples, `over` x `over` a pixel.

    shown (H over, W over) int32: number of the triangle, counted through all things, or -1; first (things + 1,): number
    of each thing's first triangle; near (H over, W over) float32 one over the depth along the camera's axis, in metres,
    zero where nothing is.
    """

    picture: NDArray[np.uint8]
    shown: NDArray[np.int32]
    first: NDArray[np.int64]
    near: Floats32
    over: int

    def mask(self, thing: int) -> NDArray[np.uint8]:
        """(H, W) share of each pixel that shows a thing, 0 to 255."""
        return np.asarray(share_of_pixels(self.shown, self.first[thing], self.first[thing + 1], self.over))

    def depth(self) -> Floats32:
        """(H, W) depth of each pixel's nearest sample, metres; inf where nothing is."""
        height, width = (size // self.over for size in self.near.shape)
        with np.errstate(divide="ignore"):
            return np.asarray(1 / self.near.reshape(height, self.over, width, self.over).max(axis=(1, 3)), np.float32)


class Renderer:
    """Draws scenes; keeps memory and lenses from picture to picture. Not for two threads at once."""

    def __init__(self, over: int = 2) -> None:
        """Draw with `over` x `over` samples a pixel."""
        self.over = over
        self._rooms: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._lenses: dict[int, tuple[Camera, Lens]] = {}

    def draw(self, scene: Scene, camera: Camera, keep_lens: bool = True) -> View:
        """The picture of a scene, and what it shows; `keep_lens` where a camera will be used again."""
        lens = self._lens(camera, keep_lens)
        width, height = camera.size_px
        near, shown, picture, covered, behind = self._buffers(width, height)
        near[:], shown[:], picture[:], covered[:] = 0, -1, 0, 0
        first = np.cumsum([0] + [len(thing.mesh.surface.faces) for thing in scene.things])
        points = [np.empty((len(thing.vertices), 5)) for thing in scene.things]
        extents = []
        for thing, place, start in zip(scene.things, points, first, strict=False):
            project(thing.vertices, lens, place)
            extents.append(draw(place, thing.mesh.surface, thing.mesh.looks, lens, start, near, shown))
        depth, to_shadow, dark = scene.shadow
        light = Lighting(
            scene.light.sky, scene.light.sun_from, scene.light.sun_colour, depth, to_shadow, scene.light.exposure
        )
        eye = camera.centre_m.astype(np.float32)
        for thing, place, start, ends in zip(scene.things, points, first, extents, strict=False):
            placed, buffers = (thing.vertices, thing.normals, place, eye), (shown, picture, covered)
            top, bottom, left, right = (int(end) // self.over for end in ends)
            part = int(start), top, bottom + 1, left, right + 1
            shade(placed, thing.mesh.surface, thing.mesh.looks, lens, buffers, light, part)
        if scene.room is not None:
            paint_room(scene.room, lens, covered, self.over**2, (dark, to_shadow, scene.light.floor_shadow), behind)
        if scene.photograph is not None:
            behind[:] = UNDEVELOPED[cv2.resize(scene.photograph, (width, height), interpolation=cv2.INTER_AREA)]
        out = np.empty((height, width, 3), np.uint8)
        develop(picture, covered, behind, self.over**2, out)
        return View(out, shown.copy(), first, near.copy(), self.over)

    def _lens(self, camera: Camera, keep: bool) -> Lens:
        if id(camera) in self._lenses:
            return self._lenses[id(camera)][1]
        lens = make_lens(camera, self.over)
        if keep:
            self._lenses[id(camera)] = camera, lens  # the camera too, so that its id stays its own
        return lens

    def _buffers(self, width: int, height: int) -> tuple[Any, ...]:
        if (width, height) not in self._rooms:
            fine = height * self.over, width * self.over
            self._rooms[width, height] = (
                np.empty(fine, np.float32),
                np.empty(fine, np.int32),
                np.empty((height, width, 3), np.float32),
                np.empty((height, width), np.uint8),
                np.zeros((height, width, 3), np.float32),
            )
        return self._rooms[width, height]

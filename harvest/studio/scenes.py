"""Random scenes: who stands where, before what, in which light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harvest.studio.assets import Assets
from harvest.studio.light import Room
from harvest.studio.mesh import Thing
from harvest.studio.motion import Clip
from harvest.studio.people import Person
from harvest.studio.render import Light, Scene
from harvest.studio.rotations import about
from harvest.studio.splits import belongs

Floats = NDArray[np.float64]
UP = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Setting:
    """Surroundings of a scene: light, and a room or a photograph."""

    light: Light
    room: Room | None
    photograph: NDArray[np.uint8] | None
    name: str

    def scene(self, things: list[Thing], shadow_cells: int) -> Scene:
        """A scene of these things here."""
        return Scene(things, self.light, self.room, self.photograph, shadow_cells)


def draw_setting(
    assets: Assets, split: str, middle_m: Floats, half_m: float, rng: np.random.Generator, photographs: float = 0.0
) -> Setting:
    """A random light with its room around `middle_m` (x, y, floor), no wall nearer than `half_m`; or, with probability
    `photographs`, the light with a photograph behind.
    """
    places = [place for place in assets.surroundings if place.shown and belongs(place.name, split)]
    place = places[int(rng.integers(len(places)))]
    azimuth, level = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.75)
    sky, sun, gain = place.turned(azimuth, level)
    warmth = np.array([1, rng.uniform(0.88, 1), rng.uniform(0.75, 1)])
    colour = (rng.uniform(0, 1.3) * warmth).astype(np.float32)
    light = Light(sky, sun, colour, rng.uniform(0.55, 1.0), rng.uniform(0.25, 0.65))
    if assets.photographs and rng.random() < photographs:
        chosen = assets.photographs[int(rng.integers(len(assets.photographs)))]
        return Setting(light, None, _part(assets.picture(chosen)[..., :3], rng), chosen.name)
    half_x, half_y = (max(size * rng.uniform(0.9, 1.2), half_m) for size in place.room_m[:2])
    x, y, floor = (float(number) for number in middle_m)
    height, eye = max(place.room_m[2], 2.6), rng.uniform(1.2, 2.0)
    room = Room(place.backdrop(), azimuth, half_x, half_y, height, (x, y, floor), eye, gain * rng.uniform(0.5, 0.8))
    return Setting(light, room, None, place.name)


def _part(photograph: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random square of a picture, at least a third of it."""
    height, width = photograph.shape[:2]
    side = int(rng.uniform(0.34, 1.0) * min(height, width))
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return photograph[y : y + side, x : x + side]


def strike(
    assets: Assets, person: Person, clip: Clip, frames: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Turns (T, B, 3, 3) and roots (T, 3) of a person in some frames of a clip, facing any way, above the origin in the
    first of them.
    """
    turns, root = assets.motion.perform(person.body, clip, frames, rng.uniform(0, 1))
    yaw = about(UP, rng.uniform(0, 2 * np.pi))
    root = (root - [root[0, 0], root[0, 1], 0]) @ yaw.T
    return yaw @ turns, root

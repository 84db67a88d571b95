"""Light out of photographed surroundings, and the room that they make behind people.

Sky: nine coefficients s_i a colour such that light from all sides on a surface with normal (x, y, z), over pi, is
s_0 + s_1 y + s_2 z + s_3 x + s_4 xy + s_5 yz + s_6 (3 z^2 - 1) + s_7 xz + s_8 (x^2 - y^2).
Source: Ramamoorthi and Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]
BRIGHT_PERCENTILE, BRIGHT_FACTOR = 97, 1.5  # what is brighter in a panorama is cut off where it is seen directly
LOWEST_SUN = 0.35  # sine of its height over the horizon: flatter light would throw shadows out of every room


@dataclass(frozen=True)
class Surroundings:
    """One photographed place: panorama (h, w, 3) float16 linear, first row up, columns from +x to +y; sky (9, 3);
    sun_from (3,) unit vector; half_x, half_y, height in metres of a box that it may be painted on.
    """

    name: str
    panorama: NDArray[np.float16]
    sky: Floats32
    sun_from: Floats32
    room_m: tuple[float, float, float]
    indoor: bool
    shown: bool

    def turned(self, azimuth: float, level: float) -> tuple[Floats32, Floats32, float]:
        """Sky and sun (3,) turned about z by `azimuth`, brightened to a mean light of `level`; and by how much."""
        c, s = math.cos(azimuth), math.sin(azimuth)
        c2, s2 = math.cos(2 * azimuth), math.sin(2 * azimuth)
        m, sky = self.sky, self.sky.copy()
        sky[3], sky[1] = c * m[3] - s * m[1], s * m[3] + c * m[1]
        sky[7], sky[5] = c * m[7] - s * m[5], s * m[7] + c * m[5]
        sky[8], sky[4] = c2 * m[8] - s2 * m[4] / 2, 2 * s2 * m[8] + c2 * m[4]
        x, y, z = (float(number) for number in self.sun_from)
        sun = np.array([c * x - s * y, s * x + c * y, max(z, LOWEST_SUN)])
        gain = level / max(float(m[0].mean()), 1e-3)
        return (sky * gain).astype(np.float32), (sun / np.linalg.norm(sun)).astype(np.float32), gain

    def backdrop(self) -> Floats32:
        """The panorama as it is seen directly, without its glare, whose surroundings the file's compression spoiled."""
        return _without_glare(self.panorama.tobytes(), self.panorama.shape)


@lru_cache(maxsize=32)
def _without_glare(content: bytes, shape: tuple[int, ...]) -> Floats32:
    panorama = np.frombuffer(content, np.float16).reshape(shape).astype(np.float32)
    most = np.percentile(panorama, BRIGHT_PERCENTILE) * BRIGHT_FACTOR
    low = np.minimum(panorama, np.float32(most))
    near = cv2.dilate((panorama.max(axis=-1) >= most).astype(np.uint8), np.ones((7, 7)))[..., None]
    closed = cv2.morphologyEx(low, cv2.MORPH_CLOSE, np.ones((5, 5)))
    return np.ascontiguousarray(np.where(near, closed, low), np.float32)


def load_surroundings(arrays: Mapping[str, NDArray[Any]]) -> list[Surroundings]:
    """All places of the bundle's envmaps.npz."""
    return [
        Surroundings(
            str(arrays["names"][i]),
            arrays["panorama"][i],
            arrays["sh9"][i].astype(np.float32),
            arrays["sun_direction"][i].astype(np.float32),
            tuple(float(size) for size in arrays["room_half_x_half_y_height_m"][i]),
            bool(arrays["indoor"][i]),
            bool(arrays["use_as_background"][i]),
        )
        for i in range(len(arrays["names"]))
    ]


class Room(NamedTuple):
    """A box |x| <= half_x, |y| <= half_y, 0 <= z <= height around `middle` (x, y, floor), on whose walls a panorama is
    painted as it is seen from `eye` metres above the floor's middle, turned by `azimuth`. gain: its brightness.
    """

    panorama: Any
    azimuth: float
    half_x: float
    half_y: float
    height: float
    middle: tuple[float, float, float]
    eye: float
    gain: float


@njit(cache=True, nogil=True)
def paint_room(room, lens, covered, samples, cast, out):  # type: ignore[no-untyped-def]
    """Fill `out` (H, W, 3) with a room's linear light in every pixel that is not covered by all its samples.

    cast: the floor's shadows: dark (S, S) float32 from 0 to 1, to_shadow (3, 4) from the world to its columns and rows,
    and how much a shadow takes away. A wall's point has the same colour for all cameras.
    """
    dark, to_shadow, strength = cast
    p, ideal, rays, over = lens.optics, lens.ideal, lens.rays, lens.over
    bent = rays.shape[0] > 0
    ox = -(p[0] * p[9] + p[3] * p[10] + p[6] * p[11]) - room.middle[0]
    oy = -(p[1] * p[9] + p[4] * p[10] + p[7] * p[11]) - room.middle[1]
    oz = -(p[2] * p[9] + p[5] * p[10] + p[8] * p[11]) - room.middle[2]
    shift = 0.5 * (over - 1)
    for v in range(out.shape[0]):
        for u in range(out.shape[1]):
            if covered[v, u] >= samples:
                continue
            px, py = over * u + shift, over * v + shift
            if bent:
                low_y, low_x = int(py), int(px)
                high_y, high_x = int(math.ceil(py)), int(math.ceil(px))
                px = 0.5 * (rays[low_y, low_x, 0] + rays[high_y, high_x, 0])
                py = 0.5 * (rays[low_y, low_x, 1] + rays[high_y, high_x, 1])
                if not px == px:  # the lens sees nothing here
                    out[v, u, 0] = out[v, u, 1] = out[v, u, 2] = 0
                    continue
            a, b = (px - ideal[1]) / ideal[0], (py - ideal[3]) / ideal[2]
            dx, dy, dz = p[0] * a + p[3] * b + p[6], p[1] * a + p[4] * b + p[7], p[2] * a + p[5] * b + p[8]
            tx = ((room.half_x if dx > 0 else -room.half_x) - ox) / dx if abs(dx) > 1e-9 else 1e9
            ty = ((room.half_y if dy > 0 else -room.half_y) - oy) / dy if abs(dy) > 1e-9 else 1e9
            tz = ((room.height if dz > 0 else 0.0) - oz) / dz if abs(dz) > 1e-9 else 1e9
            hit = min(tx, ty, tz)
            x, y, z = ox + dx * hit, oy + dy * hit, oz + dz * hit
            light = room.gain
            if tz <= hit and dz < 0:
                wx, wy, wz = x + room.middle[0], y + room.middle[1], room.middle[2]
                i = int(to_shadow[0, 0] * wx + to_shadow[0, 1] * wy + to_shadow[0, 2] * wz + to_shadow[0, 3] + 0.5)
                j = int(to_shadow[1, 0] * wx + to_shadow[1, 1] * wy + to_shadow[1, 2] * wz + to_shadow[1, 3] + 0.5)
                if 0 <= i < dark.shape[1] and 0 <= j < dark.shape[0]:
                    light *= 1.0 - strength * dark[j, i]
            _look_up(room.panorama, room.azimuth, x, y, z - room.eye, light, out[v, u])


@njit(cache=True, nogil=True)
def _look_up(panorama, azimuth, x, y, z, light, out):  # type: ignore[no-untyped-def]
    """Fill `out` (3,) with a panorama's colour in direction (x, y, z), bilinear."""
    rows, columns = panorama.shape[0], panorama.shape[1]
    turn = (math.atan2(y, x) - azimuth) / (2 * math.pi)
    column = (turn - math.floor(turn)) * columns - 0.5
    row = math.acos(min(1.0, max(-1.0, z / math.sqrt(x * x + y * y + z * z)))) / math.pi * rows - 0.5
    i, j = int(math.floor(column)), int(math.floor(row))
    fx, fy = np.float32(column - i), np.float32(row - j)
    left, right = i % columns, (i + 1) % columns
    top, bottom = min(max(j, 0), rows - 1), min(max(j + 1, 0), rows - 1)
    one = np.float32(1)
    for c in range(3):
        upper = (one - fx) * panorama[top, left, c] + fx * panorama[top, right, c]
        lower = (one - fx) * panorama[bottom, left, c] + fx * panorama[bottom, right, c]
        out[c] = np.float32(light) * ((one - fy) * upper + fy * lower)

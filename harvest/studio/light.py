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
TORN = 0.05  # share of its brightest colour below which another one has been lost
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
    bright = panorama.max(axis=-1) >= most
    near = cv2.dilate(bright.astype(np.uint8), np.ones((7, 7)))[..., None]
    closed = cv2.morphologyEx(low, cv2.MORPH_CLOSE, np.ones((5, 5)))
    # Around the sun the file's compression leaves one colour and takes the others: a lamp is white.
    torn = (near[..., 0] > 0) & (closed.min(axis=-1) < TORN * closed.max(axis=-1))
    closed[torn] = most
    return np.ascontiguousarray(np.where(near, closed, low), np.float32)


def load_surroundings(arrays: Mapping[str, NDArray[Any]]) -> list[Surroundings]:
    """All places of the bundle's envmaps.npz."""
    room = arrays["room_half_x_half_y_height_m"]
    return [
        Surroundings(
            str(arrays["names"][i]),
            arrays["panorama"][i],
            arrays["sh9"][i].astype(np.float32),
            arrays["sun_direction"][i].astype(np.float32),
            (float(room[i][0]), float(room[i][1]), float(room[i][2])),
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


@njit(cache=True, nogil=True, error_model="numpy")
def paint_room(room, lens, covered, samples, cast, out):  # type: ignore[no-untyped-def]
    """Fill `out` (H, W, 3) with a room's linear light in every pixel that is not covered by all its samples.

    cast: the floor's shadows: dark (S, S) float32 from 0 to 1, to_shadow (3, 4) from the world to its columns and rows,
    and how much a shadow takes away. A wall's point has the same colour for all cameras. Row by row: first what can be
    computed for many pixels at a time, then what has to be looked up.
    """
    dark, to_shadow, strength = cast
    panorama, middle, gain = room.panorama, room.middle, room.gain
    rows, columns = panorama.shape[0], panorama.shape[1]
    width, one = out.shape[1], np.float32(1)
    hits, turns, where = np.empty((3, width), np.float32), np.empty((2, width), np.float32), np.empty((2, width))
    eye = _seen_from(lens.optics, middle)
    for v in range(out.shape[0]):
        _rays_of_row(lens, v, where)
        _hits_of_row(room, lens, where, eye, hits)
        _turns_of_row(room, hits, turns)
        for u in range(width):
            if covered[v, u] >= samples:
                continue
            if not where[0, u] == where[0, u]:  # the lens sees nothing here
                out[v, u, 0] = out[v, u, 1] = out[v, u, 2] = 0
                continue
            light = gain
            if hits[2, u] <= np.float32(1e-4):
                wx, wy, wz = hits[0, u] + middle[0], hits[1, u] + middle[1], middle[2]
                i = int(to_shadow[0, 0] * wx + to_shadow[0, 1] * wy + to_shadow[0, 2] * wz + to_shadow[0, 3] + 0.5)
                j = int(to_shadow[1, 0] * wx + to_shadow[1, 1] * wy + to_shadow[1, 2] * wz + to_shadow[1, 3] + 0.5)
                if 0 <= i < dark.shape[1] and 0 <= j < dark.shape[0]:
                    light *= 1.0 - strength * dark[j, i]
            column = turns[0, u] * np.float32(columns) - np.float32(0.5)
            row = turns[1, u] * np.float32(rows) - np.float32(0.5)
            i, j = int(np.floor(column)), int(np.floor(row))
            fx, fy, bright = column - np.float32(i), row - np.float32(j), np.float32(light)
            left, right = (i if i >= 0 else columns - 1), (i + 1 if i + 1 < columns else 0)
            top, bottom = min(max(j, 0), rows - 1), min(max(j + 1, 0), rows - 1)
            for c in range(3):
                upper = (one - fx) * panorama[top, left, c] + fx * panorama[top, right, c]
                lower = (one - fx) * panorama[bottom, left, c] + fx * panorama[bottom, right, c]
                out[v, u, c] = bright * ((one - fy) * upper + fy * lower)


@njit(inline="always", error_model="numpy")
def _seen_from(p, middle):  # type: ignore[no-untyped-def]
    """Where a camera is, counted from the middle of the room's floor."""
    return (
        -(p[0] * p[9] + p[3] * p[10] + p[6] * p[11]) - middle[0],
        -(p[1] * p[9] + p[4] * p[10] + p[7] * p[11]) - middle[1],
        -(p[2] * p[9] + p[5] * p[10] + p[8] * p[11]) - middle[2],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _rays_of_row(lens, v, where):  # type: ignore[no-untyped-def]
    """Fill `where` (2, W) with the ideal places that the middles of a row's pixels see, normalised."""
    ideal, rays, over = lens.ideal, lens.rays, lens.over
    shift = 0.5 * (over - 1)
    low, high = int(over * v + shift), int(math.ceil(over * v + shift))
    for u in range(where.shape[1]):
        px, py = over * u + shift, over * v + shift
        if rays.shape[0] > 0:
            near, far = int(px), int(math.ceil(px))
            px = 0.5 * (np.float64(rays[low, near, 0]) + np.float64(rays[high, far, 0]))
            py = 0.5 * (np.float64(rays[low, near, 1]) + np.float64(rays[high, far, 1]))
        where[0, u], where[1, u] = (px - ideal[1]) / ideal[0], (py - ideal[3]) / ideal[2]


@njit(cache=True, nogil=True, error_model="numpy")
def _hits_of_row(room, lens, where, eye, hits):  # type: ignore[no-untyped-def]
    """Fill `hits` (3, W) float32 with where rays meet the room, metres from the middle of its floor."""
    p, (ox, oy, oz) = lens.optics, eye
    r0, r1, r2, r3, r4, r5, r6, r7, r8 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
    half_x, half_y, height = room.half_x, room.half_y, room.height
    for u in range(where.shape[1]):
        a, b = where[0, u], where[1, u]
        dx, dy, dz = r0 * a + r3 * b + r6, r1 * a + r4 * b + r7, r2 * a + r5 * b + r8
        # A direction along a wall never meets it: one over nothing is far enough.
        tx = ((half_x if dx > 0 else -half_x) - ox) / (dx if abs(dx) > 1e-9 else 1e-9)
        ty = ((half_y if dy > 0 else -half_y) - oy) / (dy if abs(dy) > 1e-9 else 1e-9)
        tz = ((height if dz > 0 else 0.0) - oz) / (dz if abs(dz) > 1e-9 else 1e-9)
        tx, ty, tz = abs(tx), abs(ty), abs(tz)
        t = tx if tx < ty else ty
        t = t if t < tz else tz
        hits[0, u], hits[1, u], hits[2, u] = ox + dx * t, oy + dy * t, oz + dz * t


@njit(cache=True, nogil=True, error_model="numpy")
def _turns_of_row(room, hits, turns):  # type: ignore[no-untyped-def]
    """Fill `turns` (2, W) float32 with shares of a full turn to the right and of half a turn down, as a panorama's."""
    eye, azimuth = np.float32(room.eye), np.float32(room.azimuth)
    for u in range(hits.shape[1]):
        x, y, z = hits[0, u], hits[1, u], hits[2, u] - eye
        share = (turn_of(y, x) - azimuth) * np.float32(0.5 / math.pi)
        turns[0, u] = share - np.floor(share)
        turns[1, u] = turn_of(np.sqrt(x * x + y * y), z) * np.float32(1 / math.pi)


@njit(inline="always", error_model="numpy")
def turn_of(y, x):  # type: ignore[no-untyped-def]
    """The angle atan2(y, x), float32, to 3e-6 radians: an odd minimax polynomial of degree 11, and symmetry; without a
    branch, so that many are computed at a time.
    """
    high, low = abs(y), abs(x)
    steep = high > low
    t = (low if steep else high) / ((high if steep else low) + np.float32(1e-30))
    s = t * t
    angle = np.float32(0.05265332) - s * np.float32(0.01172120)
    angle = np.float32(-0.11643287) + s * angle
    angle = np.float32(0.19354346) + s * angle
    angle = np.float32(-0.33262347) + s * angle
    angle = t * (np.float32(0.99997726) + s * angle)
    angle = np.float32(0.5 * math.pi) - angle if steep else angle
    angle = np.float32(math.pi) - angle if x < np.float32(0) else angle
    return -angle if y < np.float32(0) else angle

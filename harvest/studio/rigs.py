"""Cameras around a stage, in the arrangements that people really build."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.rig import Rig
from harvest.studio.rotations import look_at

Floats = NDArray[np.float64]
Places = list[tuple[Floats, Floats, float]]  # where a camera is, where it looks, its roll
TARGET_M = (0.0, 0.0, 0.95)
STAGE_M = np.array([[x, y, z] for x in (-0.45, 0.45) for y in (-0.45, 0.45) for z in (0.0, 1.9)])
MARGIN = 1.12  # around the stage, for what lenses bend and for centres that are off


def _around(angle: float, radius_m: float, height_m: float) -> Floats:
    return np.array([radius_m * np.cos(angle), radius_m * np.sin(angle), height_m])


def _aim(rng: np.random.Generator, spread_m: float = 0.1) -> Floats:
    return np.array(TARGET_M) + rng.normal(0, spread_m, 3)


def ring(views: int, rng: np.random.Generator) -> Places:
    """All around, at one height more or less."""
    radius, height, first = rng.uniform(3.2, 5.5), rng.uniform(1.0, 2.6), rng.uniform(0, 2 * np.pi)
    angles = first + 2 * np.pi * (np.arange(views) + rng.normal(0, 0.08, views)) / views
    return [
        (_around(a, radius * rng.uniform(0.9, 1.1), height + rng.normal(0, 0.25)), _aim(rng), rng.normal(0, 0.02))
        for a in angles
    ]


def corners(views: int, rng: np.random.Generator) -> Places:
    """In the corners of a room, high up; more cameras go to the middles of its walls, then lower down."""
    x, y, high = rng.uniform(2.6, 4.0), rng.uniform(2.6, 4.0), rng.uniform(2.0, 3.0)
    spots = [(x, y), (-x, y), (-x, -y), (x, -y), (x, 0), (0, y), (-x, 0), (0, -y)]
    places: Places = []
    for view in range(views):
        at, level = spots[view % len(spots)], view // len(spots)
        height = max(0.5, high - 0.9 * level) + rng.normal(0, 0.1)
        places.append((np.array([*at, height]) + rng.normal(0, 0.12, 3), _aim(rng), rng.normal(0, 0.02)))
    return places


def arc(views: int, rng: np.random.Generator) -> Places:
    """Phones held by people who stand in an arc: at chest height, askew."""
    radius, middle, wide = rng.uniform(2.8, 4.5), rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(60, 180))
    angles = middle + wide * (np.arange(views) / max(views - 1, 1) - 0.5)
    return [
        (_around(a, radius * rng.uniform(0.85, 1.15), rng.uniform(1.1, 1.8)), _aim(rng, 0.2), rng.normal(0, 0.08))
        for a in angles
    ]


def stereo(views: int, rng: np.random.Generator) -> Places:
    """Side by side on a bar, looking the same way."""
    radius, middle, height = rng.uniform(3.0, 4.5), rng.uniform(0, 2 * np.pi), rng.uniform(1.1, 1.9)
    apart = rng.uniform(0.3, 1.0)
    across = np.array([-np.sin(middle), np.cos(middle), 0.0])
    return [
        (
            _around(middle, radius, height) + (view - (views - 1) / 2) * apart * across,
            np.array(TARGET_M) + 0.3 * (view - (views - 1) / 2) * apart * across,
            0.0,
        )
        for view in range(views)
    ]


def dome(views: int, rng: np.random.Generator) -> Places:
    """Evenly over the upper half of a sphere, as in large studios."""
    radius, turns = rng.uniform(3.5, 4.5), np.arange(views) + 0.5
    height = np.sin(np.radians(70)) * turns / views  # none straight above, from where a camera has no up
    angle = turns * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)
    low = radius * np.sqrt(1 - height**2)
    return [
        (np.array([r * np.cos(a), r * np.sin(a), 0.5 + radius * h]), _aim(rng, 0.05), rng.normal(0, 0.02))
        for r, a, h in zip(low, angle, height, strict=True)
    ]


KINDS: dict[str, Callable[[int, np.random.Generator], Places]] = {
    "ring": ring,
    "corners": corners,
    "arc": arc,
    "stereo": stereo,
    "dome": dome,
}


def draw_rig(kind: str, views: int, size_px: tuple[int, int], rng: np.random.Generator) -> Rig:
    """A rig of that kind with random places and lenses; every camera sees a person in the middle whole.

    Lenses: from 38 to 65 degrees across the longer side, or as wide as it takes to see STAGE_M whole; principal points
    off by up to 3 %, most with some distortion.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of rig '{kind}', known: {', '.join(KINDS)}")
    cameras = []
    for index, (eye, target, roll) in enumerate(KINDS[kind](views, rng)):
        R, t = look_at(eye, target, roll)
        seen = STAGE_M @ R.T + t
        needed = MARGIN * float((2 * abs(seen[:, :2] / seen[:, 2:]) / size_px).max()) * max(size_px)
        wide = max(2 * np.tan(np.radians(rng.uniform(38, 65)) / 2), needed)
        cameras.append(Camera(f"cam{index + 1:02d}", size_px, *draw_lens(wide, size_px, rng), R, t))
    return Rig(tuple(cameras))


def draw_lens(wide: float, size_px: tuple[int, int], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """K and distortion of a lens that sees `wide` metres across the picture's longer side, one metre away."""
    width, height = size_px
    focal = max(size_px) / wide
    cx, cy = (width - 1) / 2 + rng.normal(0, 0.01) * width, (height - 1) / 2 + rng.normal(0, 0.01) * height
    K = np.array([[focal, 0, cx], [0, focal * rng.uniform(0.998, 1.002), cy], [0, 0, 1]])
    if rng.random() < 0.2:
        return K, np.zeros(0)
    # Barrel distortion grows with the angle; the fourth-order term takes part of it back, so that the corners stay.
    k1 = rng.uniform(-0.12, 0.03) if wide > 1.3 else rng.uniform(-0.25, 0.08)
    return K, np.array([k1, -0.3 * k1 * rng.uniform(0.5, 1.5), rng.normal(0, 5e-4), rng.normal(0, 5e-4)])

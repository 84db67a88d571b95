"""Colours and patterns of cloth, skin and hair, drawn at random the way streets look and not the way palettes do."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.studio.mesh import SIZE

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
HAIR = ((25, 20, 18), (60, 42, 30), (120, 85, 50), (150, 140, 130), (35, 28, 24), (95, 50, 30), (170, 140, 95))
SKIN = {"light": (214, 172, 148), "dark": (112, 76, 58)}
PATTERNS = {"plain": 0.52, "columns": 0.1, "rows": 0.13, "checks": 0.12, "dots": 0.05, "print": 0.08}
WEAVE = 64  # texels after which the threads of a cloth repeat
FOLD_BLUR = SIZE / 20  # texels: what is smoother than this in a painted texture is its colour, the rest its folds
DARKEST_FOLD, BRIGHTEST_FOLD = 0.35, 1.6


def cloth_colour(rng: np.random.Generator) -> Floats:
    """(3,) sRGB from 0 to 1: mostly dull, often bluish, seldom bright."""
    hue = rng.normal(0.6, 0.08) if rng.random() < 0.4 else rng.random()
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.beta(1.1, 3.2), 0.04 + 0.9 * rng.beta(1.3, 1.5)))


def loud_colour(rng: np.random.Generator) -> Floats:
    """(3,) sRGB from 0 to 1: saturated and bright, as sportswear and costumes are."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.6, 1.0), rng.uniform(0.5, 1.0)))


def fabric(rng: np.random.Generator, loud: bool = False) -> Floats32:
    """(SIZE, SIZE, 3) float32 sRGB from 0 to 1 of a cloth: plain, striped, checked, dotted or printed."""
    colour = loud_colour if loud else cloth_colour
    kind = str(rng.choice(list(PATTERNS), p=list(PATTERNS.values())))
    if loud and kind == "plain" and rng.random() < 0.6:
        kind = "print"
    side = SIZE // 2  # drawn in half the size: the eye of a camera is far away
    place = np.arange(side, dtype=np.float32) / side
    repeats, share = int(rng.integers(6, 45)), rng.uniform(0.2, 0.6)
    phase = (place * repeats) % 1
    columns, rows = np.broadcast_arrays((phase < share)[None, :], (phase < share)[:, None])
    if kind == "plain":
        mix = np.zeros((side, side), np.float32)
    elif kind == "dots":
        square = (phase - 0.5) ** 2
        mix = (square[:, None] + square < (share / 2) ** 2).astype(np.float32)
    elif kind == "print":
        coarse = rng.random((int(rng.integers(4, 24)),) * 2, np.float32)
        mix = (cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC) > 1 - share).astype(np.float32)
    else:
        mix = {"columns": columns, "rows": rows, "checks": 0.5 * columns + 0.5 * rows}[kind].astype(np.float32)
    thread = np.tile(rng.standard_normal((WEAVE, WEAVE), np.float32), (side // WEAVE, side // WEAVE))
    one, other = colour(rng).astype(np.float32), colour(rng).astype(np.float32)
    drawn = (one + (other - one) * mix[..., None]) * (1 + np.float32(0.03) * thread[..., None])
    whole = cv2.resize(drawn, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return np.clip(whole, 0, 1, out=whole)


def repaint(texture: Bytes, cloth: Floats32) -> Bytes:
    """A garment's texture (h, w, 3 or 4) in another cloth (SIZE, SIZE, 3), its folds, seams and opacity kept."""
    if texture.shape[:2] != (SIZE, SIZE):
        texture = np.asarray(cv2.resize(texture, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)
    grey = _grey(texture)
    # The blur is smooth enough to be found in a picture of a quarter the size.
    small = cv2.resize(grey, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    wide = cv2.resize(cv2.GaussianBlur(small, (0, 0), FOLD_BLUR / 4), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    folds = np.clip(grey / (wide + 8), DARKEST_FOLD, BRIGHTEST_FOLD)
    painted = np.clip(255 * cloth * folds[..., None], 0, 255).astype(np.uint8)
    return painted if texture.shape[2] == 3 else np.dstack([painted, texture[..., 3]])


def dye(texture: Bytes, colour: tuple[int, int, int]) -> Bytes:
    """Hair (h, w, 4) in another colour, its strands kept."""
    grey, opaque = _grey(texture), texture[..., 3] > 0
    strands = grey / np.float32(max(float(grey[opaque].mean()) if opaque.any() else 1.0, 1.0))
    out = np.empty_like(texture)
    for channel in range(3):
        out[..., channel] = np.minimum(strands * np.float32(colour[channel]), 255)
    out[..., 3] = texture[..., 3]
    return out


def _grey(texture: Bytes) -> Floats32:
    """(h, w) mean of a texture's colours."""
    third = np.float32(1 / 3)
    return np.asarray((texture[..., 0].astype(np.float32) + texture[..., 1] + texture[..., 2]) * third, np.float32)


def plain_skin(rng: np.random.Generator, group: str) -> Bytes:
    """(SIZE, SIZE, 3) a skin of one colour with faint mottles, where no photograph of one may be used."""
    mottle = cv2.resize(rng.standard_normal((64, 64)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    base = np.array(SKIN.get(group, SKIN["light"]), np.float64)
    return np.clip(base * (1 + 0.03 * mottle[..., None]), 0, 255).astype(np.uint8)

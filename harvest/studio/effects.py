"""What a real camera adds to a picture: wrong exposure and colour, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
NOISE_SIDE = 701  # a prime, so that shifted copies of the one noise field repeat late


@dataclass(frozen=True)
class Effects:
    """gain (3,) of red, green, blue in sRGB; gamma; blur_px standard deviation; shake (length in px, direction in
    radians) of the camera's own movement; noise standard deviation of 255; jpeg quality; grey: sees no colours.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    blur_px: float = 0.0
    shake: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0
    jpeg: int = 95
    grey: bool = False

    def apply(self, picture: Bytes, rng: np.random.Generator) -> Bytes:
        """A picture (H, W, 3) as this camera gives it; `rng` for the noise's place."""
        out: NDArray[Any] = picture
        if self.shake[0] >= 1:
            out = cv2.filter2D(out, -1, _line(*self.shake), borderType=cv2.BORDER_REPLICATE)
        if self.blur_px > 0.2:
            out = cv2.GaussianBlur(out, (0, 0), self.blur_px)
        if self.grey:
            out = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        tone = (np.arange(256) / 255)[:, None] ** self.gamma * np.array(self.gain)
        out = cv2.LUT(out, np.clip(255 * tone + 0.5, 0, 255).astype(np.uint8)[None])
        if self.noise > 0:
            # Dark parts are noisier: sRGB stretches them.
            strength = (self.noise * (1.5 - np.arange(256) / 255)).astype(np.float32)
            out = _add_noise(out, strength, _field(), int(rng.integers(NOISE_SIDE)), int(rng.integers(NOISE_SIDE)))
        return np.asarray(out, np.uint8)


def draw_effects(rng: np.random.Generator) -> Effects:
    """A random camera: most are good, some are out of focus, shaken, dark or noisy."""
    warm = rng.normal(0, 0.05)
    level = np.exp(rng.normal(0, 0.14))
    return Effects(
        gain=(float(level * (1 + warm)), float(level), float(level * (1 - warm))),
        gamma=float(np.exp(rng.normal(0, 0.1))),
        blur_px=float(abs(rng.normal(0, 0.45)) if rng.random() < 0.8 else rng.uniform(0.5, 2.0)),
        shake=(float(rng.uniform(2, 9)), float(rng.uniform(0, np.pi))) if rng.random() < 0.12 else (0.0, 0.0),
        noise=float(rng.gamma(1.5, 2.0)),
        jpeg=int(rng.integers(55, 97)),
    )


def draw_night(rng: np.random.Generator) -> Effects:
    """A random camera that watches in the dark: grey, dim, noisy, a little out of focus."""
    level = float(rng.uniform(0.28, 0.42))
    return Effects(
        gain=(level, level, level), noise=float(rng.uniform(3, 5)), blur_px=float(rng.uniform(0.3, 0.7)), grey=True
    )


def _line(length: float, direction: float) -> NDArray[np.float32]:
    """A kernel whose weight lies along a line through its middle."""
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for t in np.linspace(-length / 2, length / 2, 4 * half + 1):
        kernel[int(round(half + t * np.sin(direction))), int(round(half + t * np.cos(direction)))] += 1
    return kernel / kernel.sum()


@cache
def _field() -> NDArray[np.float32]:
    """One fixed field of normal numbers, parts of which are the noise of all pictures."""
    return np.random.default_rng(0).standard_normal((NOISE_SIDE, NOISE_SIDE, 3)).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_noise(picture, strength, field, row, column):  # type: ignore[no-untyped-def]
    """A picture and the field from (row, column) on, wrapped around, times the strength (256,) that each byte has."""
    out = np.empty_like(picture)
    for y in range(picture.shape[0]):
        j = (y + row) % field.shape[0]
        for x in range(picture.shape[1]):
            i = (x + column) % field.shape[1]
            for c in range(3):
                byte = picture[y, x, c]
                value = np.float32(byte) + strength[byte] * field[j, i, c] + np.float32(0.5)
                out[y, x, c] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))
    return out

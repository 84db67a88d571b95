"""What a real camera adds to a picture: wrong exposure and colour, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
NOISE_SIDE = 701  # a prime, so that shifted copies of the one noise field repeat late
_noise: list[NDArray[np.float32]] = []


@dataclass(frozen=True)
class Effects:
    """gain (3,) of red, green, blue in sRGB; gamma; blur_px standard deviation; shake (length in px, direction in
    radians) of the camera's own movement; noise standard deviation of 255; jpeg quality.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    blur_px: float = 0.0
    shake: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0
    jpeg: int = 95

    def apply(self, picture: Bytes, rng: np.random.Generator) -> Bytes:
        """A picture (H, W, 3) as this camera gives it; `rng` for the noise's place."""
        out = picture
        if self.shake[0] >= 1:
            out = cv2.filter2D(out, -1, _line(*self.shake), borderType=cv2.BORDER_REPLICATE)
        if self.blur_px > 0.2:
            out = cv2.GaussianBlur(out, (0, 0), self.blur_px)
        tone = (np.arange(256) / 255)[:, None] ** self.gamma * np.array(self.gain)
        out = cv2.LUT(out, np.clip(255 * tone + 0.5, 0, 255).astype(np.uint8)[None])
        if self.noise > 0:
            # Dark parts are noisier: sRGB stretches them.
            strength = (self.noise * (1.5 - np.arange(256) / 255)).astype(np.float32)[out]
            out = np.clip(out + strength * _noise_like(out.shape, rng) + 0.5, 0, 255).astype(np.uint8)
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


def _line(length: float, direction: float) -> NDArray[np.float32]:
    """A kernel whose weight lies along a line through its middle."""
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for t in np.linspace(-length / 2, length / 2, 4 * half + 1):
        kernel[int(round(half + t * np.sin(direction))), int(round(half + t * np.cos(direction)))] += 1
    return kernel / kernel.sum()


def _noise_like(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """A part of one fixed field of normal numbers, wrapped around where a picture is larger."""
    if not _noise:
        _noise.append(np.random.default_rng(0).standard_normal((NOISE_SIDE, NOISE_SIDE, 3)).astype(np.float32))
    rows = (np.arange(shape[0]) + rng.integers(NOISE_SIDE)) % NOISE_SIDE
    columns = (np.arange(shape[1]) + rng.integers(NOISE_SIDE)) % NOISE_SIDE
    return _noise[0][rows][:, columns]

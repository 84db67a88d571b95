"""envmaps.npz: panoramas of real places, and the light that falls from them, from @pmndrs/assets (CC0, Poly Haven)."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError

Floats = NDArray[np.float64]
FOLDER, ENDING, PREFIX = "package/hdri/", ".exr.js", "base64,"
HEIGHT_PX, WIDTH_PX = 256, 512
GLARE_PERCENTILE, GLARE_FACTOR = 99.5, 2.0  # light is summed without what is brighter: the sun is handled apart
SUN_BLUR_PX = 3.0
LARGE, MIDDLE, SMALL = (9.0, 9.0, 7.0), (6.0, 6.0, 4.5), (4.5, 4.5, 3.4)  # half width, half depth, height in metres
# A box to paint each place on. Sky and night show no ground, and the studio shows its lamps: they light, unseen.
ROOMS = {
    **{"apartment": SMALL, "bridge": LARGE, "city": LARGE, "dawn": LARGE, "esplanade": LARGE, "forest": LARGE},
    **{"hall": MIDDLE, "lab": SMALL, "lobby": MIDDLE, "night": LARGE, "park": LARGE, "sky": LARGE, "studio": SMALL},
    **{"sunrise": LARGE, "sunset": LARGE, "venice": LARGE, "warehouse": MIDDLE, "workshop": SMALL},
}
ONLY_LIGHT = ("night", "sky", "studio")

# Of the nine polynomials below: squared factors that make them orthonormal, and what a matt surface keeps of each.
# Source: Ramamoorthi and Hanrahan 2001, equations 3 and 8.
NORMS = np.array([0.282095, *[0.488603] * 3, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274]) ** 2
MATT = np.array([1.0, *[2 / 3] * 3, *[1 / 4] * 5])


def wanted(name: str) -> bool:
    """Whether a file of the package is one of the panoramas."""
    return name.startswith(FOLDER) and name.endswith(ENDING) and name[len(FOLDER) : -len(ENDING)] in ROOMS


def check_decoder() -> None:
    """Nothing, if the panoramas can be decoded.

    Raises:
        UserError: OpenEXR is not installed. OpenCV does not decode DWA, which these files are compressed with.
    """
    try:
        import OpenEXR  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the panoramas are OpenEXR files with DWA compression; run `pip install OpenEXR`, then build again"
        ) from error


def build_envmaps(files: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    """The arrays of envmaps.npz from the package's files."""
    names = sorted(ROOMS)
    panoramas = np.stack([read_panorama(files[f"{FOLDER}{name}{ENDING}"].decode("ascii")) for name in names])
    suns = [sun(panorama.astype(np.float64)) for panorama in panoramas]
    return {
        "names": np.array(names),
        "panorama": panoramas,
        "sh9": np.stack([harmonics(panorama.astype(np.float64)) for panorama in panoramas]).astype(np.float32),
        "sun_direction": np.stack([direction for direction, _ in suns]).astype(np.float32),
        "sun_peak_ratio": np.array([ratio for _, ratio in suns], np.float32),
        "indoor": np.array([ROOMS[name] != LARGE for name in names]),
        "use_as_background": np.array([name not in ONLY_LIGHT for name in names]),
        "room_half_x_half_y_height_m": np.array([ROOMS[name] for name in names], np.float32),
    }


def read_panorama(script: str) -> NDArray[np.float16]:
    """(HEIGHT_PX, WIDTH_PX, 3) linear RGB of a script that holds an OpenEXR file in base64; the script is not run."""
    import OpenEXR

    content = base64.b64decode(script.partition(PREFIX)[2].split("'")[0].split('"')[0])
    with tempfile.TemporaryDirectory() as folder:  # the decoder reads files alone
        path = os.path.join(folder, "panorama.exr")
        Path(path).write_bytes(content)
        with OpenEXR.File(path) as file:
            pixels = np.array(file.channels()["RGB"].pixels, np.float32)
    if pixels.shape[:2] != (HEIGHT_PX, WIDTH_PX):
        pixels = np.asarray(cv2.resize(pixels, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA), np.float32)
    # The compression rings around lamps, down to below zero.
    return np.clip(pixels, 0, np.finfo(np.float16).max).astype(np.float16)


def directions(height: int, width: int) -> tuple[Floats, Floats]:
    """Unit vectors (h, w, 3) of a panorama's pixels and their solid angles (h, w).

    The first row looks up, +z; columns go round from +x to +y.
    """
    polar = (np.arange(height)[:, None] + 0.5) / height * np.pi
    azimuth = (np.arange(width)[None] + 0.5) / width * 2 * np.pi
    vectors = np.stack(
        [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar) + 0 * azimuth], axis=-1
    )
    return vectors, np.sin(polar) * (np.pi / height) * (2 * np.pi / width) + 0 * azimuth


def polynomials(n: Floats) -> Floats:
    """(..., 9) terms 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2 of unit vectors (..., 3)."""
    x, y, z = np.moveaxis(n, -1, 0)
    return np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], axis=-1)


def without_glare(panorama: Floats) -> Floats:
    """The panorama with its brightest spots, lamps and sun, cut off."""
    return np.minimum(panorama, GLARE_FACTOR * np.percentile(panorama, GLARE_PERCENTILE))


def harmonics(panorama: Floats) -> Floats:
    """(9, 3) factors s such that irradiance over pi on a surface with normal n is s . polynomials(n), without glare."""
    vectors, solid_angle = directions(*panorama.shape[:2])
    light = np.einsum("hwi,hwc,hw->ic", polynomials(vectors), without_glare(panorama), solid_angle)
    return (NORMS * MATT)[:, None] * light


def sun(panorama: Floats) -> tuple[Floats, float]:
    """Direction (3,) of the brightest spot over the horizon, and how much brighter than the whole it is."""
    height, width = panorama.shape[:2]
    light, rim = panorama.mean(axis=-1), width // 8  # the panorama closes: what is blurred over its edge comes back
    wrapped = np.concatenate([light[:, -rim:], light, light[:, :rim]], axis=1)
    spot = np.asarray(cv2.GaussianBlur(wrapped, (0, 0), SUN_BLUR_PX))[: height // 2, rim:-rim]
    row, column = np.unravel_index(spot.argmax(), spot.shape)
    return directions(height, width)[0][row, column], float(spot.max() / without_glare(panorama).mean())

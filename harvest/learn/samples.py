"""Training samples of a 2D detector: crops of people, turned, scaled, mirrored, and the heat maps they should give."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.skeleton import load_skeleton

Floats = NDArray[np.float64]
CELLS, CROP_PX = 64, 256
SIGMA_CELLS = 1.0  # Newell et al. 2016, section 3.3
TURN_SHARE, TURN_DEG, SCALE, SHIFT = 0.4, 30.0, 0.25, 0.06


@dataclass(frozen=True)
class Place:
    """Where a sample lies: its shard, and offset and size of picture and label in it."""

    shard: Path
    picture: tuple[int, int]
    label: tuple[int, int]


def find_samples(folder: Path) -> list[Place]:
    """All samples of a folder of crops, in the order of their index.

    Raises:
        UserError: there is none.
    """
    places = []
    for shard in sorted(folder.glob("*.tar")):
        parts: dict[str, dict[str, tuple[int, int]]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                index, _, kind = member.name.partition(".")
                parts.setdefault(index, {})[kind] = member.offset_data, member.size
        places += [Place(shard, part["jpg"], part["json"]) for part in parts.values() if {"jpg", "json"} <= part.keys()]
    if not places:
        raise UserError(f"{folder} holds no crops; make some with `harvest studio crops --out {folder}`")
    return places


def read_sample(place: Place, joint_set: str) -> tuple[NDArray[np.uint8], Floats, NDArray[np.int8]]:
    """Picture (256, 256, 3) RGB, joints uv (J, 2) in its pixels, NaN where unknown, and their visibility (J,)."""
    with place.shard.open("rb") as file:
        picture, label = (_part(file, *part) for part in (place.picture, place.label))
    found = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise UserError(f"{place.shard} holds a broken picture; delete it and run `harvest studio crops` again")
    truth = json.loads(label)["joints"][joint_set]
    uv = np.array([(np.nan, np.nan) if point is None else point for point in truth["uv_px"]])
    return np.asarray(found[..., ::-1], np.uint8), uv, np.array(truth["visibility"], np.int8)


def _part(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    content: bytes = file.read(size)
    return content


def augmentation(rng: np.random.Generator) -> tuple[Floats, bool]:
    """(2, 3) from a crop's pixels to those of a turned, scaled and shifted one; and whether that is mirrored last."""
    turn = np.radians(np.clip(rng.normal(0, TURN_DEG), -2 * TURN_DEG, 2 * TURN_DEG)) * (rng.random() < TURN_SHARE)
    scale = np.clip(rng.normal(1, SCALE), 1 - 2 * SCALE, 1 + 2 * SCALE)
    middle, shift = (CROP_PX - 1) / 2, rng.normal(0, SHIFT, 2) * CROP_PX
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, middle + shift - linear @ [middle, middle]]), bool(rng.random() < 0.5)


def augment(
    picture: NDArray[np.uint8], uv: Floats, joint_set: str, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Floats]:
    """A picture and its joints after a random augmentation; mirrored joints exchange names, and light changes."""
    affine, mirrored = augmentation(rng)
    out = np.asarray(cv2.warpAffine(picture, affine, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR), np.uint8)
    moved = uv @ affine[:, :2].T + affine[:, 2]
    if mirrored:
        out = np.ascontiguousarray(out[:, ::-1])
        moved[:, 0] = CROP_PX - 1 - moved[:, 0]
        moved = moved[load_skeleton(joint_set).mirror]
    gain = np.exp(rng.normal(0, 0.12, 3))
    tone = np.clip(255 * (np.arange(256) / 255)[:, None] ** np.exp(rng.normal(0, 0.15)) * gain, 0, 255)
    return np.asarray(cv2.LUT(out, tone.astype(np.uint8)[None]), np.uint8), moved


def heat_maps(uv: Floats) -> NDArray[np.float32]:
    """(J, CELLS, CELLS) a Gaussian of height 1 and SIGMA_CELLS at each joint; empty where that is outside or unknown.

    Cell x has its centre at crop pixel 4 x + 1.5.
    """
    stride = CROP_PX / CELLS
    cells = (uv + 0.5) / stride - 0.5
    grid = np.arange(CELLS)
    with np.errstate(invalid="ignore"):
        inside = np.all((cells > -0.5) & (cells < CELLS - 0.5), axis=1, keepdims=True)[:, :, None]
    x, y = (np.exp(-((grid - cells[:, i, None]) ** 2) / (2 * SIGMA_CELLS**2)) for i in (0, 1))
    maps = np.where(inside, y[:, :, None] * x[:, None, :], 0.0)
    return maps.astype(np.float32)

"""Clothes, shoes and hair: how they fit a body, what of the body they hide, and who wears what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.studio.assets import Assets
from harvest.studio.body import Body, strongest
from harvest.studio.splits import belongs

Floats32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
WHOLE_SUIT = 0.25  # share of people who wear top and bottom of one suit
BARE_HEAD = 0.05


@dataclass(frozen=True)
class Garment:
    """One thing to wear, or one half of a suit, for bodies of any shape.

    faces, face_uv (F, 3) int32 and uv (U, 2); ref (N, 3) vertices of the body that each of its vertices hangs on, with
    ref_weights, and offsets (N, 3) from there on a body of usual size; scale (3, 3): for x, y, z two vertices of the
    body and their distance on that body, or zeros; hides (body's vertices,) bool; weights and bones (N, K) as for a
    mesh.
    """

    kind: str
    faces: NDArray[np.int32]
    face_uv: NDArray[np.int32]
    uv: Floats32
    ref: NDArray[np.int64]
    ref_weights: Floats32
    offsets: Floats32
    scale: Floats32
    hides: NDArray[np.bool_]
    weights: Floats32
    bones: NDArray[np.int32]
    holes: bool
    texture: str
    bumps: str | None

    def fit(self, body: Body) -> Floats32:
        """(N, 3) this garment's vertices on a body at rest, metres."""
        rest = body.vertices
        size = np.ones(3, np.float32)
        for row, axis in enumerate((0, 2, 1)):  # a garment's axes are x, up, front; offsets are in decimetres
            one, other, usual = self.scale[row]
            if usual:
                size[row] = abs(rest[int(one), axis] - rest[int(other), axis]) * 10 / usual
        offset = self.offsets * size / 10
        hung = (self.ref_weights[:, :, None] * rest[self.ref]).sum(axis=1)
        return np.asarray(hung + np.stack([offset[:, 0], -offset[:, 2], offset[:, 1]], axis=1), np.float32)


class Wardrobe:
    """All garments of a bundle."""

    def __init__(self, assets: Assets) -> None:
        """Take the bundle's garments."""
        self.assets = assets
        self.items = {item["key"]: item for item in assets.garments["items"]}
        self.garment = cache(self._load)

    def _load(self, key: str) -> Garment:
        """A garment; key: '<group>/<name>', with ':top' or ':bottom' for half of a suit."""
        name, _, half = key.partition(":")
        item, model = self.items[name], self.assets.body

        def array(kind: str) -> NDArray[Any]:
            return self.assets.garment_arrays[f"{name}/{kind}"]

        faces, face_uv = array("faces").astype(np.int32), array("face_uv").astype(np.int32)
        hides = np.zeros(len(model.dense_weights), np.bool_)
        hides[array("delete_body_vertices")] = True
        if half:
            kept = array("face_component") == (1 if half == "bottom" else 0)
            faces, face_uv = faces[kept], face_uv[kept]
            hides &= model.is_lower == (half == "bottom")
        ref, mix = array("ref_vertices").astype(np.int64), np.clip(array("ref_weights"), 0, None)
        mix = mix / (mix.sum(axis=1, keepdims=True) + 1e-9)
        weights, bones = strongest((mix[:, :, None] * model.dense_weights[ref]).sum(axis=1))
        arrays = ref, array("ref_weights"), array("offsets"), array("scale"), hides, weights, bones
        return Garment(
            item["kind"], faces, face_uv, array("uv"), *arrays, item["alpha_test"], item["diffuse"], item["normal"]
        )


@dataclass(frozen=True)
class Outfit:
    """What one person wears: keys of garments, and the file of the skin."""

    garments: tuple[str, ...]
    skin: str


def draw_outfit(wardrobe: Wardrobe, female: bool, skin_group: str, split: str, rng: np.random.Generator) -> Outfit:
    """A random outfit of a split: a suit or two halves of different ones, shoes, eyebrows, nearly always hair; no one
    goes without clothes and shoes.
    """
    sex, garments = ("female" if female else "male"), wardrobe.assets.garments
    items = [item for item in garments["items"] if item["kind"] == "eyebrow" or belongs(item["key"], split)]
    suits = [item for item in items if item["kind"] == "suit"]
    own = [item for item in suits if item["sex"] == sex]
    tops = [item["key"] for item in own if item["splittable"] and item["use_top"]]
    bottoms = [item["key"] for item in (suits if female else own) if item["splittable"]]
    if rng.random() < WHOLE_SUIT:
        keys = [_one(rng, [item["key"] for item in own if item["use_top"]])]
    else:
        keys = [f"{_one(rng, tops)}:top", f"{_one(rng, bottoms)}:bottom"]
    for kind in ("shoes", "eyebrow"):
        keys.append(_one(rng, [item["key"] for item in items if item["kind"] == kind]))
    if rng.random() >= BARE_HEAD:
        keys.append(_one(rng, [key for key in garments[f"hair_{sex}"] if belongs(key, split)]))
    skins = [skin["file"] for skin in garments["skins"] if skin["sex"] == sex and skin["group"] == skin_group]
    return Outfit(tuple(keys), _one(rng, skins))


def _one(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]

"""characters.json: adults drawn at random, split into people to train on and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harvest.studio.body import ANCESTRIES, TRAITS, BodyModel

COUNTS = {"train": 240, "val": 30, "test": 30}  # half of each are women
SEED = 7
STATURES_M = {True: (1.48, 1.84), False: (1.58, 2.02)}  # women, men
HEIGHTS = {True: 0.40, False: 0.42}  # middles of the trait that give usual statures; 0.09 around them
NOTE = (
    "300 adults (age 2/3 young .. 1 old), statures of 1.48-1.84 m (women) and 1.58-2.02 m (men). Split by character, "
    "240/30/30, half of each women. Any other traits of adults may be drawn too."
)


def draw_characters(model: BodyModel, seed: int = SEED) -> dict[str, Any]:
    """The content of characters.json: the same for the same seed and shapes."""
    rng = np.random.default_rng(seed)
    characters: list[dict[str, Any]] = []
    for split, count in COUNTS.items():
        for index in range(count):
            female = index % 2 == 0
            traits, stature_m = _adult(model, female, rng)
            character = {"id": f"c{len(characters):03d}", "split": split, "female": female, "phenotype": traits}
            group = "dark" if traits["african"] > 0.5 else "light"
            characters.append(character | {"stature_m": stature_m, "skin_group": group})
    return {"note": NOTE, "characters": characters}


def _adult(model: BodyModel, female: bool, rng: np.random.Generator) -> tuple[dict[str, float], float]:
    low, high = STATURES_M[female]
    while True:
        traits = random_traits(female, rng)
        stature_m = stature(model, traits)
        if low <= stature_m <= high:
            return traits, stature_m


def random_traits(female: bool, rng: np.random.Generator) -> dict[str, float]:
    """Traits of one adult: builds around the middle, ancestries often mixed."""
    drawn = {
        "gender": rng.uniform(0.75, 1.0) if female else rng.uniform(0.0, 0.25),
        "age": rng.uniform(2 / 3, 1.0),
        "muscle": rng.beta(3.0, 3.0),
        "weight": rng.beta(2.5, 2.5),
        "height": np.clip(rng.normal(HEIGHTS[female], 0.09), 0.0, 1.0),
        "proportions": rng.uniform(0.4, 1.0),
        "cupsize": rng.uniform(0.2, 0.8),
        "firmness": rng.uniform(0.4, 0.8),
        **dict(zip(ANCESTRIES, rng.dirichlet((0.75, 0.75, 0.75)))),
    }
    return {name: round(float(drawn[name]), 4) for name in (*TRAITS, *ANCESTRIES)}


def stature(model: BodyModel, traits: Mapping[str, float]) -> float:
    """Metres from sole to top, to the millimetre."""
    skin = model.shape(traits).vertices[: model.skin_vertices, 2]
    return round(float(skin.max() - skin.min()), 3)

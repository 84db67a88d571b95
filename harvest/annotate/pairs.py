"""Pairs of joints to ask about: random ones, the same for a seed on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.labels.votes import Pair
from harvest.learn.samples import CROP_PX, Place, find_samples, read_joints
from harvest.skeleton import BUILT_IN, load_skeleton


@dataclass(frozen=True)
class Question:
    """A pair of joints, the sample that shows them, and where: uv_px (2, 2), `one` first, in pixels of the crop."""

    pair: Pair
    place: Place
    uv_px: NDArray[np.float64]


def draw_questions(crops: Path, skeleton: str, pairs: int, seed: int) -> list[Question]:
    """Up to so many pairs of each sample of a folder of crops, in random order.

    All pairs of joints that are known and lie in the crop are equally probable, and so are both orders of a pair. The
    first pairs do not change when more are asked for.

    Raises:
        UserError: an unknown skeleton, no samples, two of one name, or none that shows two joints.
    """
    if skeleton not in BUILT_IN:
        raise UserError(f"no skeleton '{skeleton}'; give one of {', '.join(BUILT_IN)}")
    joints = load_skeleton(skeleton).joints
    questions: list[Question] = []
    names: set[str] = set()
    for place in find_samples(crops):
        if place.name in names:
            raise UserError(f"{crops} holds two crops named {place.name}; votes could not tell them apart: part them")
        names.add(place.name)
        uv = read_joints(place, joints)
        with np.errstate(invalid="ignore"):
            inside = np.all((uv > -0.5) & (uv < CROP_PX - 0.5), axis=1)
        where = {joint: point for joint, point, known in zip(joints, uv, inside, strict=True) if known}
        for pair in draw_pairs(place.name, tuple(where), pairs, seed):
            questions.append(Question(pair, place, np.stack([where[pair.one], where[pair.other]])))
    if not questions:
        raise UserError(f"no crop in {crops} shows two joints of {skeleton}; choose another --skeleton")
    return sorted(questions, key=lambda question: _number(seed, "order", *question.pair))


def draw_pairs(sample: str, joints: Sequence[str], most: int, seed: int) -> list[Pair]:
    """Up to so many random pairs of a sample's joints, each in random order.

    They follow from names and seed alone, by a hash: generators of random numbers may change with their libraries.
    """
    ranked = sorted((_number(seed, "pair", sample, *pair), pair) for pair in combinations(sorted(joints), 2))
    turned = [pair[::-1] if _number(seed, "turn", sample, *pair) % 2 else pair for _, pair in ranked[:most]]
    return [Pair(sample, *pair) for pair in turned]


def _number(seed: int, *names: str) -> int:
    return int.from_bytes(sha256("\0".join((str(seed), *names)).encode()).digest()[:8], "big")

"""A compact space of adult shapes: a few numbers from a person's traits, and a basis that makes a body of them.

A full body is a template plus 336 offsets, each weighed by a product of mixing weights (of "female, young, much muscle,
little weight", say). Few directions of those matter; principal components of random adults find them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.studio.body import ANCESTRIES, TRAITS

Floats = NDArray[np.float64]
GENDERS, AGES = TRAITS["gender"][0], TRAITS["age"][0]
EXTREMES = (*ANCESTRIES, *(name for names, _ in TRAITS.values() for name in names))
MEANS = ("averagecup", "averagefirmness")  # together they are the body as it is: no offset


def terms() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of each offset its file below the targets, without ending, and the extremes whose weights are multiplied."""
    builds = list(product(GENDERS, AGES, TRAITS["muscle"][0], TRAITS["weight"][0]))
    for build in builds:
        yield f"macrodetails/universal-{'-'.join(build)}", build
    for people in product(ANCESTRIES, GENDERS, AGES):
        yield f"macrodetails/{'-'.join(people)}", people
    for trait in ("height", "proportions"):
        for sized in product(builds, TRAITS[trait][0]):
            names = (*sized[0], sized[1])
            yield f"macrodetails/{trait}/{'-'.join(names)}", names
    for build in builds:
        for chest in product(TRAITS["cupsize"][0], TRAITS["firmness"][0]):
            if build[0] == "female" and chest != MEANS:
                yield f"breast/{'-'.join((*build, *chest))}", (*build, *chest)


def product_mask() -> NDArray[np.bool_]:
    """(336, 23) which extremes each offset's weight is a product of."""
    return np.array([[name in names for name in EXTREMES] for _, names in terms()])


def mixing_weights(traits: dict[str, Floats]) -> Floats:
    """(N, 23) weights of the extremes for N people whose traits are arrays (N,)."""
    columns = [traits[name] / sum(traits[other] for other in ANCESTRIES) for name in ANCESTRIES]
    for trait, (names, anchors) in TRAITS.items():
        columns += [np.interp(traits[trait], anchors, np.eye(len(anchors))[i]) for i in range(len(names))]
    return np.stack(columns, axis=1)


def products(weights: Floats, mask: NDArray[np.bool_]) -> Floats:
    """(N, P) products of mixing weights (N, E) over each row of the mask (P, E)."""
    return np.stack([weights[:, row].prod(axis=1) for row in mask], axis=1)


def random_traits(count: int, seed: int) -> dict[str, Floats]:
    """Traits of `count` adults anywhere between the extremes, to fit the space to."""
    rng = np.random.default_rng(seed)
    traits = {name: rng.random(count) for name in TRAITS}
    traits["age"] = 2 / 3 + traits["age"] / 3
    return traits | dict(zip(ANCESTRIES, rng.dirichlet((1, 1, 1), count).T))


@dataclass(frozen=True)
class ShapeSpace:
    """Body = mean + z . basis, with z = products @ from_products - z0.

    mean (N, 3) and basis (K, N, 3) in metres; rounded (K, N, 3): the basis as it is stored.
    """

    mean: Floats
    basis: Floats
    rounded: NDArray[np.float16]
    from_products: Floats
    z0: Floats

    def bodies(self, weights: Floats) -> Floats:
        """(M, N, 3) bodies of M rows of products (M, P), made as a reader of the bundle makes them."""
        z = weights @ self.from_products - self.z0
        return self.mean + np.einsum("mk,knc->mnc", z, self.rounded.astype(np.float64))


def fit_shape_space(
    template: Floats, offsets: NDArray[np.floating[Any]], sampled: Floats, size: int, repaired: int = 1
) -> ShapeSpace:
    """The space of at most `size` numbers that is nearest to sampled bodies.

    Args:
        template: (N, 3) metres.
        offsets: (P, N, 3) metres.
        sampled: (M, P) products of the bodies that the space is fitted to.
        repaired: how many of the first directions get a second one that carries what rounding the first took away. The
            first alone is stature, decimetres long: its rounding would be the largest error of all.
    Returns:
        A ShapeSpace whose directions are scaled so that the largest entry of each is one metre.
    """
    flat = offsets.reshape(len(offsets), -1).astype(np.float64)
    middle = sampled.mean(axis=0)
    basis = _principal(sampled - middle, flat, size - repaired)
    from_products = flat @ basis.T
    scale = np.abs(basis).max(axis=1)
    basis, from_products = basis / scale[:, None], from_products * scale
    rounded = basis.astype(np.float16)
    lost = basis[:repaired] - rounded[:repaired]
    lost_scale = np.maximum(np.abs(lost).max(axis=1), 1e-12)
    rounded = np.concatenate([rounded, (lost / lost_scale[:, None]).astype(np.float16)])
    basis = np.concatenate([basis, np.zeros_like(lost)])  # unrounded, the first directions lack nothing
    from_products = np.concatenate([from_products, from_products[:, :repaired] * lost_scale], axis=1)
    mean = template + (middle @ flat).reshape(template.shape)
    shape = (len(basis), *template.shape)
    return ShapeSpace(mean, basis.reshape(shape), rounded.reshape(shape), from_products, middle @ from_products)


def _principal(away: Floats, flat: Floats, size: int) -> Floats:
    """(K, 3N) orthonormal directions of most variance of the bodies away (M, P) @ flat (P, 3N), K at most `size`.

    They are found among the products, far fewer than coordinates: bodies are never made.
    """
    variance, axes = np.linalg.eigh(away.T @ away / len(away))
    spread = (axes * np.sqrt(np.clip(variance, 0, None))).T @ flat
    power, turn = np.linalg.eigh(spread @ spread.T)
    first = np.argsort(-power)[:size]
    first = first[power[first] > power.max() * 1e-14]  # further directions would be rounding's
    return (turn[:, first] / np.sqrt(power[first])).T @ spread

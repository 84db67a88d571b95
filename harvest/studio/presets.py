"""Standard sets, each defined by its seed: the same names mean the same pictures everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harvest.studio.rigs import KINDS
from harvest.studio.takes import TakeSettings


def demo(takes: int, seed: int) -> list[TakeSettings]:
    """One person, four cameras in a ring: a quick look."""
    first = TakeSettings(seed=seed, frames=60, size_px=(640, 480))
    return [replace(first, subject=take) for take in range(takes)]


def bench_4cam(takes: int, seed: int) -> list[TakeSettings]:
    """Held-out people, clothes, rooms and motions before four cameras, every other take with an obstacle."""
    first = TakeSettings(seed=seed, split="test", frames=90, size_px=(1000, 1000))
    kinds = ("ring", "corners", "ring", "arc")
    return [
        replace(
            first,
            subject=take // 2,
            take=take,
            kind=kinds[take % len(kinds)],
            people=2 if take % 4 == 3 else 1,
            objects=2 if take % 4 == 1 else 0,
        )
        for take in range(takes)
    ]


def bench_gap(takes: int, seed: int) -> list[TakeSettings]:
    """A domain gap: held-out people in unusual clothes, seen for 12 s by six cameras from high corners, by night; takes
    come in pairs of the same person, the first to adapt to and the second to be judged by.
    """
    first = TakeSettings(
        seed=seed, split="test", fps=10.0, views=6, kind="corners", size_px=(800, 800), loud=True, night=True
    )
    return [replace(first, frames=120, subject=take // 2, take=take, objects=take % 2) for take in range(takes)]


def bench_rigs(takes: int, seed: int) -> list[TakeSettings]:
    """Held-out people, clothes, rooms and motions before eight cameras of rigs of every kind that nothing learnt from,
    a few moments of each, some with obstacles: how methods fare by the number of views.
    """
    first = TakeSettings(seed=seed, split="test", frames=12, fps=3.0, views=8, size_px=(800, 800))
    return [
        replace(
            first,
            subject=take,
            take=take,
            kind=list(KINDS)[take % len(KINDS)],
            people=2 if take % 4 == 3 else 1,
            objects=2 if take % 3 == 1 else 0,
        )
        for take in range(takes)
    ]


def calibrate(takes: int, seed: int) -> list[TakeSettings]:
    """People of the validation split, whom no detector was trained on and no benchmark shows, before every kind of rig
    with each of two to six cameras, a few moments of each, some with obstacles: what uncertainties are calibrated on.
    """
    first = TakeSettings(seed=seed, split="val", frames=10, fps=3.0, size_px=(800, 800))
    kinds = list(KINDS)
    return [
        replace(
            first,
            subject=take,
            take=take,
            views=2 + (take + take // len(kinds)) % 5,
            kind=kinds[take % len(kinds)],
            objects=2 if take % 3 == 1 else 0,
        )
        for take in range(takes)
    ]


def train(takes: int, seed: int) -> list[TakeSettings]:
    """Short takes before rigs of every kind with two to eight cameras, to train what looks at several views at once."""
    settings = []
    for take in range(takes):
        rng = np.random.default_rng([seed, take, 11])
        people, objects = (int(rng.choice(n, p=p)) for n, p in ((2, (0.75, 0.25)), (4, (0.5, 0.25, 0.15, 0.1))))
        settings.append(
            TakeSettings(
                seed=seed,
                subject=take,
                take=take,
                frames=12,
                fps=3.0,
                views=int(rng.integers(2, 9)),
                kind=list(KINDS)[int(rng.integers(len(KINDS)))],
                people=1 + people,
                objects=objects,
                loud=bool(rng.random() < 0.1),
            )
        )
    return settings


PRESETS: dict[str, tuple[Callable[[int, int], list[TakeSettings]], int, int]] = {
    "demo": (demo, 1, 1),
    "bench-4cam": (bench_4cam, 8, 20),
    "bench-gap": (bench_gap, 6, 21),
    "bench-rigs": (bench_rigs, 10, 23),
    "calibrate": (calibrate, 50, 24),
    "train": (train, 200, 22),
}


def takes_of(preset: str, takes: int | None = None, seed: int | None = None) -> list[TakeSettings]:
    """The takes of a preset; fewer or more than it has by itself, and of another seed, if asked for.

    Raises:
        KeyError: no such preset.
    """
    make, usual, standard = PRESETS[preset]
    return make(usual if takes is None else takes, standard if seed is None else seed)

"""Results of many trainings in one table that a stopped benchmark goes on with; means and spread of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, str]


class Results:
    """A file with a row a training: what it is called by `keys`, and numbers."""

    def __init__(self, path: Path, keys: Sequence[str], numbers: Sequence[str]) -> None:
        """Begin a table, or take the one that stands there."""
        self.path, self._keys, self._numbers = path, tuple(keys), tuple(numbers)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            self._write([*keys, *numbers])

    def rows(self) -> list[Row]:
        """All of it, as text."""
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def add(self, named: Sequence[Any], find: Callable[[], Mapping[str, float]]) -> None:
        """Find the numbers of a training and write them down, unless it stands there already."""
        name = tuple(map(str, named))
        if all(tuple(row[key] for key in self._keys) != name for row in self.rows()):
            found = find()
            self._write([*name, *(f"{found[key]:.5g}" for key in self._numbers)])

    def _write(self, row: Sequence[str]) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


def mean_and_spread(rows: Sequence[Row], columns: Sequence[str]) -> tuple[list[float], list[str]]:
    """Of each column the mean over rows, and it as text with the standard deviation of one row."""
    values = np.array([[float(row[key]) for key in columns] for row in rows])
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(columns))
    means = values.mean(axis=0)
    return means.tolist(), [f"{mean:.1f} ±{wide:.1f}" for mean, wide in zip(means, spread, strict=True)]

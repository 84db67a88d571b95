"""Votes of people on which of two joints is nearer to the camera, in an SQLite file that survives a kill."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError

ANSWERS = (-1, 0, 1)
COLUMNS = ["sample", "one", "other", "annotator", "nearer", "at", "seconds"]
TABLE = """CREATE TABLE IF NOT EXISTS votes (
    sample TEXT NOT NULL, one TEXT NOT NULL, other TEXT NOT NULL, annotator TEXT NOT NULL,
    nearer INTEGER NOT NULL CHECK (nearer IN (-1, 0, 1)), at TEXT NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (sample, one, other, annotator), CHECK (one <> other)
)"""
BUSY_S = 20.0  # to wait for another process that writes


class Pair(NamedTuple):
    """Two joints of a sample, by name."""

    sample: str
    one: str
    other: str


@dataclass(frozen=True)
class Votes:
    """N votes, in the order in which they were given.

    sample, one, other, annotator: (N,) names, str. nearer: (N,) int8, -1 where `one` is nearer to the camera, 1 where
    `other` is, 0 where neither is or it cannot be told.
    Source: Ronchi et al. 2018, section 3; `nearer` is its r of the pair (one, other).
    """

    sample: NDArray[np.str_]
    one: NDArray[np.str_]
    other: NDArray[np.str_]
    annotator: NDArray[np.str_]
    nearer: NDArray[np.int8]

    def __post_init__(self) -> None:
        """Check shapes, types and values, and that nobody voted twice on a pair."""
        names = {key: getattr(self, key) for key in ("sample", "one", "other", "annotator")}
        for key, array in {**names, "nearer": self.nearer}.items():
            if array.shape != (len(self.nearer),):
                raise ValueError(f"{key} must have shape ({len(self.nearer)},), got {array.shape}")
        for key, array in names.items():
            if array.dtype.kind != "U" or (array == "").any():
                raise ValueError(f"{key} must hold names")
        if self.nearer.dtype != np.int8 or not np.isin(self.nearer, ANSWERS).all():
            raise ValueError("nearer must be -1, 0 or 1, as int8")
        if (self.one == self.other).any():
            raise ValueError("a vote must compare two different joints")
        if len(set(zip(*names.values(), strict=True))) != len(self.nearer):
            raise ValueError("an annotator may vote on a pair once")

    def __len__(self) -> int:
        """N."""
        return len(self.nearer)


def read_votes(path: Path) -> Votes:
    """The votes of a file, also of one that is being written or whose writer was killed.

    Raises:
        UserError: there is no such file, or it is no database of votes.
    """
    if not path.is_file():
        raise UserError(f"no file {path}; `harvest annotate depth --votes {path}` makes one")
    with _told(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as file:
        _check(file, path)
        return _read(file, path)


class VoteStore:
    """A file of votes that is open for writing; may be used by several threads, and by several processes at once."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Take a database that holds the table; see `open`."""
        self._file, self._path = connection, path
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> VoteStore:
        """The store in a file, which is made, with its folder, where there is none.

        Raises:
            UserError: the file is no database of votes, or cannot be written.
        """
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    _check(connection, path)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")  # on disk before it counts as stored
                connection.execute(TABLE)
                _read(connection, path)
            except BaseException:
                connection.close()
                raise
        return cls(connection, path)

    def add(self, pair: Pair, annotator: str, nearer: int, seconds: float) -> bool:
        """Store a vote, on disk when this returns; False, and nothing is changed, if the annotator has one on the pair.

        Args:
            nearer: -1: `one`, 1: `other`, 0: neither, or it cannot be told.
            seconds: that the annotator looked at the picture.
        """
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            done = self._file.execute(
                f"INSERT INTO votes ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (sample, one, other, annotator) DO NOTHING",
                (*pair, annotator, nearer, at, seconds),
            )
        return done.rowcount == 1

    def undo(self, pair: Pair, annotator: str) -> bool:
        """Remove the annotator's vote on the pair; False if there is none."""
        with self._lock:
            done = self._file.execute(
                "DELETE FROM votes WHERE sample = ? AND one = ? AND other = ? AND annotator = ?", (*pair, annotator)
            )
        return done.rowcount == 1

    def counts(self) -> dict[Pair, int]:
        """How many votes each pair has that has any."""
        with self._lock:
            rows = self._file.execute("SELECT sample, one, other, count(*) FROM votes GROUP BY sample, one, other")
            return {Pair(sample, one, other): count for sample, one, other, count in rows}

    def read(self) -> Votes:
        """All votes."""
        with self._lock:
            return _read(self._file, self._path)

    def close(self) -> None:
        """Close the file; what was stored stays."""
        with self._lock:
            self._file.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What SQLite and the system say about a file, as an error of the user's."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"{path} cannot be used as a file of votes ({error}); give another to --votes") from None


def _check(file: sqlite3.Connection, path: Path) -> None:
    if [row[1] for row in file.execute("PRAGMA table_info(votes)")] != COLUMNS:
        raise UserError(f"{path} holds no votes of `harvest annotate depth`; give another file")


def _read(file: sqlite3.Connection, path: Path) -> Votes:
    # rowid is the order of insertion, which clocks that are set back do not change
    rows = file.execute("SELECT sample, one, other, annotator, nearer FROM votes ORDER BY rowid").fetchall()
    answers = [row[4] for row in rows]
    try:
        if not all(isinstance(name, str) for row in rows for name in row[:4]) or not set(answers) <= set(ANSWERS):
            raise ValueError("names must be text, and nearer -1, 0 or 1")
        sample, one, other, annotator = (np.array([row[column] for row in rows], np.str_) for column in range(4))
        return Votes(sample, one, other, annotator, np.array(answers, np.int8))
    except ValueError as error:
        raise UserError(f"{path} holds a vote that no annotator gave ({error}); was it edited by hand?") from None

"""Who is asked what: the pair with the fewest votes that an annotator has not answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harvest.annotate.pairs import Question
from harvest.labels.votes import Pair, VoteStore

HELD_S = 60.0  # so long a pair that somebody looks at counts as answered


@dataclass(frozen=True)
class State:
    """What an annotator is shown.

    question: None when nothing is left, or when others look at all that is (`waiting`). last: the annotator's last vote
    that can be undone. done, left: pairs that the annotator has answered, and may still. votes, wanted: of all.
    """

    question: Question | None
    waiting: bool
    last: Pair | None
    done: int
    left: int
    votes: int
    wanted: int


class Desk:
    """Hands out questions and takes votes; may be used by several threads.

    Of the votes in the store only those on the questions count; all of them are there to stay.
    """

    def __init__(
        self, questions: Sequence[Question], store: VoteStore, each: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take questions, first ones first where nothing else decides; the store; and how many votes each shall get."""
        self._questions, self._store, self._each, self._clock = questions, store, each, clock
        self._index = {question.pair: index for index, question in enumerate(questions)}
        counts = store.counts()
        self._votes = np.array([counts.get(question.pair, 0) for question in questions])
        self._answered: dict[str, list[int]] = {}  # by annotator, in the order of the votes
        self._held: dict[str, tuple[int, float]] = {}  # by annotator: what was handed out last, and when
        self._lock = threading.Lock()
        given = store.read()
        for *names, annotator in zip(given.sample, given.one, given.other, given.annotator, strict=True):
            if (index := self._index.get(Pair(*map(str, names)))) is not None:
                self._answered.setdefault(str(annotator), []).append(index)

    def question(self, pair: Pair) -> Question | None:
        """The question about a pair, or None if it is not among them."""
        index = self._index.get(pair)
        return None if index is None else self._questions[index]

    def next(self, annotator: str) -> State:
        """What to ask the annotator."""
        with self._lock:
            return self._next(annotator)

    def vote(self, pair: Pair, annotator: str, nearer: int, seconds: float) -> State:
        """Store a vote on a known pair, and then what to ask next; a second vote on a pair changes nothing."""
        index = self._index[pair]
        with self._lock:
            self._store.add(pair, annotator, nearer, seconds)
            answered = self._answered.setdefault(annotator, [])
            if index not in answered:
                answered.append(index)
                self._votes[index] += 1
            return self._next(annotator)

    def undo(self, pair: Pair, annotator: str) -> State:
        """Remove a vote on a known pair, and ask about it again; the same if there is none."""
        index = self._index[pair]
        with self._lock:
            self._store.undo(pair, annotator)
            answered = self._answered.setdefault(annotator, [])
            if index in answered:
                answered.remove(index)
                self._votes[index] -= 1
            return self._hand(annotator, index, self._open(annotator))

    def _open(self, annotator: str) -> NDArray[np.bool_]:
        """Of each question whether the annotator may answer it."""
        still = self._votes < self._each
        still[self._answered.get(annotator, [])] = False
        return still

    def _next(self, annotator: str) -> State:
        still, now = self._open(annotator), self._clock()
        taken = self._votes.copy()
        for other, (index, since) in self._held.items():
            taken[index] += other != annotator and now - since < HELD_S
        free = still & (taken < self._each)
        best = int(np.argmin(np.where(free, taken, self._each))) if free.any() else None
        return self._hand(annotator, best, still)

    def _hand(self, annotator: str, index: int | None, still: NDArray[np.bool_]) -> State:
        answered = self._answered.get(annotator, [])
        self._held.pop(annotator, None)
        if index is not None:
            self._held[annotator] = index, self._clock()
        return State(
            question=None if index is None else self._questions[index],
            waiting=index is None and bool(still.any()),
            last=self._questions[answered[-1]].pair if answered else None,
            done=len(answered),
            left=int(still.sum()),
            votes=int(self._votes.sum()),
            wanted=self._each * len(self._questions),
        )

"""One label a pair of joints out of several people's votes, by how often each of them is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harvest.labels.votes import Votes

Floats = NDArray[np.float64]
Names = NDArray[np.str_]
# What is known of an annotator before the first vote: as after so many right and wrong ones.
PRIOR_RIGHT, PRIOR_WRONG = 7.0, 3.0
ROUNDS, CLOSE = 200, 1e-6


@dataclass(frozen=True)
class Merged:
    """P pairs. sample, one, other: (P,) as in `Votes`. nearer: (P,) probability that `one` is the nearer joint. who:
    (W,) annotators; right: (W,) how often each says what is so.
    """

    sample: Names
    one: Names
    other: Names
    nearer: Floats
    who: Names
    right: Floats


def merge_votes(votes: Votes) -> Merged:
    """The probability of each pair's order by expectation maximisation over how skilled annotators are.

    An annotator w is right with the same chance a_w whatever the order (Dawid and Skene 1979 with symmetric errors), by
    a prior of Beta(PRIOR_RIGHT, PRIOR_WRONG). Given a, each pair's order has a posterior; given these, a_w is the
    largest of its own. Votes for neither count half for each: they say nothing.

    Pairs that were asked in the other order, of the same picture, are one pair here.
    """
    swap = votes.one > votes.other
    one, other = np.where(swap, votes.other, votes.one), np.where(swap, votes.one, votes.other)
    said = np.where(swap, -votes.nearer, votes.nearer)  # -1: `one` is nearer
    keys, first, pair = np.unique(np.stack([votes.sample, one, other]), axis=1, return_index=True, return_inverse=True)
    who, person = np.unique(votes.annotator, return_inverse=True)
    pair, told = pair.ravel(), said != 0
    nearer, right = np.full(len(first), 0.5), np.full(len(who), PRIOR_RIGHT / (PRIOR_RIGHT + PRIOR_WRONG))
    for _ in range(ROUNDS):
        logit = np.log(right / (1 - right))
        score = np.bincount(pair, np.where(told, -said, 0) * logit[person], len(first))
        before, nearer = nearer, 1 / (1 + np.exp(-score))
        agree = np.where(said < 0, nearer[pair], 1 - nearer[pair])
        good = np.bincount(person, np.where(told, agree, 0.0), len(who)) + PRIOR_RIGHT - 1
        count = np.bincount(person, told, len(who)) + PRIOR_RIGHT + PRIOR_WRONG - 2
        right = good / count
        if np.abs(nearer - before).max() < CLOSE:
            break
    return Merged(keys[0], keys[1], keys[2], nearer, who, right)

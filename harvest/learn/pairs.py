"""Which of two joints is nearer to the camera: labels out of 3D poses, and what annotators would have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.labels.merge import merge_votes
from harvest.labels.votes import Votes
from harvest.learn.pose_sets import PoseSet

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# How often people are right about two joints so far apart in depth (Ronchi et al. 2018, figure 2): by chance at 0, over
# 90 % beyond 20 cm.
BEST, REACH_M = 0.94, 0.1


@dataclass(frozen=True)
class PairLabels:
    """A labels: row (A,) of the pose in its set; one, other (A,) places of its joints; r (A,): -1 if `one` is nearer,
    +1 if `other` is, 0 if they are about as far; weight (A,) from 0 to 1.
    """

    row: Ints
    one: Ints
    other: Ints
    r: Ints
    weight: Floats


_NONE = np.empty(0, np.int64)
NO_LABELS = PairLabels(_NONE, _NONE, _NONE, _NONE, np.empty(0))


def draw_pairs(known: NDArray[np.bool_], count: int | None, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """(A,) rows, and one and other joint, of `count` different pairs of each pose's known joints (N, J), or of all.

    A pose with fewer pairs gives those that it has.
    """
    j = known.shape[1]
    one, other = np.triu_indices(j, 1)
    rank = rng.random((len(known), len(one)))
    rank[~(known[:, one] & known[:, other])] = np.inf
    most = len(one) if count is None else min(count, len(one))
    chosen = np.argpartition(rank, most - 1, axis=1)[:, :most]
    row = np.repeat(np.arange(len(known)), most)
    chosen = chosen.ravel()
    told = np.isfinite(rank[row, chosen])
    row, chosen = row[told], chosen[told]
    swap = rng.random(len(row)) < 0.5
    return row, np.where(swap, other[chosen], one[chosen]), np.where(swap, one[chosen], other[chosen])


def true_labels(
    depth_m: Floats, pairs: tuple[Ints, Ints, Ints], tolerance_m: float = 0.0, flipped: float = 0.0, seed: int = 0
) -> PairLabels:
    """What depths (N, J) say of pairs; r = 0 within the tolerance; of the others a share, by the seed, is wrong."""
    row, one, other = pairs
    apart = depth_m[row, one] - depth_m[row, other]
    r = np.where(np.abs(apart) < tolerance_m, 0, np.where(apart < 0, -1, 1))
    wrong = np.random.default_rng([seed, 41]).random(len(r)) < flipped
    return PairLabels(row, one, other, np.where(wrong, -r, r), np.ones(len(r)))


def right_share(apart_m: Floats) -> Floats:
    """(...,) how often a usual annotator is right about joints whose depths differ by so many metres."""
    return np.asarray(0.5 + (BEST - 0.5) * (1 - np.exp(-np.abs(apart_m) / REACH_M)))


def simulated_votes(
    depth_m: Floats,
    pairs: tuple[Ints, Ints, Ints],
    names: tuple[NDArray[np.str_], Sequence[str]],
    each: int,
    annotators: int,
    rng: np.random.Generator,
) -> Votes:
    """What `each` of so many simulated annotators say of pairs of joints with depths (N, J).

    Annotators differ in how much better than chance they are: from a third of the usual one to a third more, the best
    as good as can be.

    Args:
        names: (N,) of the pictures, and J of the joints.
    """
    row, one, other = pairs
    apart = depth_m[row, one] - depth_m[row, other]
    skill = rng.uniform(0.33, 1.33, annotators)
    who = np.argsort(rng.random((len(row), annotators)), axis=1)[:, :each]
    right = np.minimum(0.5 + (right_share(apart)[:, None] - 0.5) * skill[who], 1.0)
    truth = np.where(apart < 0, -1, 1)[:, None]
    nearer = np.where(rng.random(who.shape) < right, truth, -truth)
    pictures, joints = names[0], np.array(names[1])
    repeat = np.repeat(np.arange(len(row)), each)
    return Votes(
        pictures[row[repeat]],
        joints[one[repeat]],
        joints[other[repeat]],
        np.array([f"annotator-{number:03d}" for number in who.ravel()]),
        nearer.ravel().astype(np.int8),
    )


def labels_of(votes: Votes, poses: PoseSet) -> PairLabels:
    """Votes, merged, as labels of a set's pictures; a pair counts by how sure its order is.

    Raises:
        UserError: no vote is about a picture and joints of the set.
    """
    merged = merge_votes(votes)
    rows = {str(name): row for row, name in enumerate(poses.name)}
    places = {name: place for place, name in enumerate(poses.joints)}
    known = [
        (rows[sample], places[one], places[other], nearer)
        for sample, one, other, nearer in zip(
            merged.sample.tolist(), merged.one.tolist(), merged.other.tolist(), merged.nearer, strict=True
        )
        if sample in rows and one in places and other in places
    ]
    if not known:
        raise UserError(
            "no vote is about a picture of the set and joints of the skeleton; give the crops that were shown"
        )
    row, one, other, nearer = (np.array(column) for column in zip(*known, strict=True))
    return PairLabels(row, one, other, np.where(nearer > 0.5, -1, 1), np.abs(2 * nearer - 1))

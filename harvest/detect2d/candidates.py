"""What a person finder says about one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PersonCandidates:
    """People that one picture may show: centre_px (N, 2) of the hips, radius_px (N,) of a circle round the body, and
    score (N,) in 0..1.
    """

    centre_px: NDArray[np.float64]
    radius_px: NDArray[np.float64]
    score: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        n = len(self.score)
        if self.centre_px.shape != (n, 2) or self.radius_px.shape != (n,):
            raise ValueError(f"{n} scores need centres ({n}, 2) and radii ({n},), got {self.centre_px.shape}")

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self.score)


def no_candidates() -> PersonCandidates:
    """Nobody."""
    return PersonCandidates(np.zeros((0, 2)), np.zeros(0), np.zeros(0))

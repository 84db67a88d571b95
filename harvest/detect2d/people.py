"""Our own finder of people in whole pictures: the same hourglass with two maps, a person's centre and its size."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harvest.detect2d.candidates import PersonCandidates
from harvest.detect2d.hourglass import StackedHourglass
from harvest.detect2d.hourglass_files import load_hourglass
from harvest.errors import UserError

PEOPLE_MAPS = ("person", "radius")
RADIUS_PX = 64.0  # circle whose second map is 0; the map is a logarithm
LONGEST_PX, STEP_PX = 448, 64  # of the picture that the network sees; its sides are multiples
STRIDE = 4
SAME_PERSON = 0.35  # of the radius: two centres nearer than this are one person's
MIN_SCORE = 0.25
CROP_OVER_JOINTS = 1.15  # the circle reaches beyond the farthest joint, to hands, feet and hair


class HourglassPersonFinder:
    """People in a whole picture: for each the middle of the hips, and the radius of a circle round the whole body."""

    def __init__(
        self, network: StackedHourglass, fingerprint: str, *, min_score: float = MIN_SCORE, bf16: bool = False
    ) -> None:
        """Take a network of PEOPLE_MAPS; candidates below `min_score` are left out.

        Raises:
            UserError: a network of other maps.
        """
        if network.joints != PEOPLE_MAPS:
            raise UserError(f"these weights find {', '.join(network.joints)}; give those of `harvest train people`")
        self._memory = torch.channels_last if bf16 else torch.contiguous_format
        self.network = network.eval().to(memory_format=self._memory)  # type: ignore[call-overload]
        self.fingerprint, self.min_score, self.bf16 = fingerprint, min_score, bf16

    @classmethod
    def from_file(cls, path: Path, *, min_score: float = MIN_SCORE, bf16: bool = False) -> Self:
        """A finder of the weights in a file."""
        fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(load_hourglass(path), fingerprint, min_score=min_score, bf16=bf16)

    def __call__(self, image: NDArray[np.uint8]) -> PersonCandidates:
        """The people found in an RGB picture (H, W, 3) uint8, best first."""
        height, width = image.shape[:2]
        scale = LONGEST_PX / max(height, width)
        small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        sides = [-(-side // STEP_PX) * STEP_PX for side in small.shape[:2]]
        canvas = np.zeros((*sides, 3), np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small
        rgb = torch.from_numpy(canvas).permute(2, 0, 1)[None] / 255
        x = rgb - torch.tensor(self.network.mean_rgb)[:, None, None]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            scores = self.network(x.contiguous(memory_format=self._memory))[0, -1].float()
        centre, radius, score = people_of(scores, self.min_score)
        return PersonCandidates((centre + 0.5) / scale - 0.5, radius / scale, score)


def people_of(scores: Tensor, min_score: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centres (N, 2) and radii (N,) in pixels of the network's picture, and scores (N,), best first.

    Args:
        scores: (2, h, w) of one picture: the logit of a centre in each cell, the logarithm of radius over RADIUS_PX.
    """
    chance = scores[0].sigmoid()
    highest = functional.max_pool2d(chance[None, None], 3, stride=1, padding=1)[0, 0]
    rows, columns = torch.nonzero((chance == highest) & (chance > min_score), as_tuple=True)
    order = torch.argsort(chance[rows, columns], descending=True, stable=True)
    found: list[tuple[NDArray[np.float64], float, float]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        radius = RADIUS_PX * float(scores[1, row, column].clamp(-5, 5).exp())
        centre = _middle(chance, row, column)
        if all(np.linalg.norm(centre - other) > SAME_PERSON * max(radius, large) for other, large, _ in found):
            found.append((centre, radius, float(chance[row, column])))
    places = np.array([centre for centre, _, _ in found], np.float64).reshape(-1, 2)
    return places, np.array([radius for _, radius, _ in found]), np.array([score for _, _, score in found])


def _middle(chance: Tensor, row: int, column: int) -> NDArray[np.float64]:
    """Pixel of a peak: the mean of the 3 x 3 cells round it."""
    top, left = max(row - 1, 0), max(column - 1, 0)
    near = chance[top : row + 2, left : column + 2].double()
    y, x = near.sum(1), near.sum(0)
    cell = [left + (x * torch.arange(len(x))).sum() / x.sum(), top + (y * torch.arange(len(y))).sum() / y.sum()]
    return (np.array([float(value) for value in cell]) + 0.5) * STRIDE - 0.5

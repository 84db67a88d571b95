"""Learning where joints are: what a detector is trained for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harvest.detect2d.detectors import Detector
from harvest.detect2d.hourglass_detector import HourglassDetector
from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.learn.map_loss import map_loss
from harvest.learn.samples import Place, augment, read_sample
from harvest.reconstruct.peaks import peak_points
from harvest.skeleton import load_skeleton
from harvest.types import Heatmaps


class JointsTask:
    """Heat maps of a skeleton's joints in crops of one person."""

    measures: tuple[str, ...] = ("pckh_0.2", "pckh_0.5")

    def __init__(self, skeleton: str = "harvest21") -> None:
        """Take a built-in skeleton."""
        self._skeleton = load_skeleton(skeleton)
        self.maps = self._skeleton.joints

    def prepare(self, network: HarvestHourglass) -> None:
        """Nothing: the network begins with joints that may be anywhere."""

    def sample(self, place: Place, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A crop, and its joints (J, 2) in pixels, NaN where unknown."""
        picture, uv, _ = read_sample(place, self.maps)
        picture, uv = augment(picture, uv, self._skeleton.mirror, rng)
        return picture, uv.astype(np.float32)

    def loss(self, scores: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy of the maps."""
        return map_loss(scores, truth)

    def measure(self, network: HarvestHourglass, places: list[Place], bf16: bool) -> tuple[float, float]:
        """Mean PCKh at 0.2 and 0.5 over the joints."""
        near, far = (float(np.nanmean(share)) for share in pckh(HourglassDetector(network, "", bf16=bf16), places))
        return near, far


def pckh(detector: Detector, places: list[Place]) -> NDArray[np.float64]:
    """(2, J) shares of the joints inside the picture found within 0.2 and 0.5 of the way from neck to head top.

    Source: Andriluka et al. 2014 (PCKh); their head size, 0.6 of the diagonal of a box round it, is about this long.
    """
    neck_and_head = ("upper_neck", "head_top")
    right, total = np.zeros((2, len(detector.joints))), np.zeros(len(detector.joints))
    for first in range(0, len(places), 32):
        loaded = [read_sample(place, (*detector.joints, *neck_and_head)) for place in places[first : first + 32]]
        found = peaks_in_crops(detector, np.stack([picture for picture, _, _ in loaded]))
        for uv, (_, truth, visibility) in zip(found, loaded, strict=True):
            head = np.linalg.norm(truth[-1] - truth[-2])
            error = np.linalg.norm(uv - truth[:-2], axis=1)
            inside = visibility[:-2] > 0
            right += [(error < share * head) & inside for share in (0.2, 0.5)]
            total += inside
    with np.errstate(invalid="ignore"):
        return right / total


def peaks_in_crops(detector: Detector, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(B, J, 2) pixels of crops (B, S, S, 3) where each joint's map is highest."""
    return peaks_in_maps(detector(crops), detector.joints, detector.crop_from_heatmap)


def peaks_in_maps(
    maps: NDArray[np.float32], joints: tuple[str, ...], crop_from_heatmap: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(B, J, 2) pixels of crops where each of maps (B, J, h, w) is highest."""
    affine = np.tile(crop_from_heatmap, (len(maps), 1, 1, 1))
    return peak_points(Heatmaps(np.arange(len(maps)), ("crop",), joints, maps[:, None], affine))[0][:, 0]

"""The one interface of every detector that works on pictures, and the choice of one by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.detect2d.candidates import PersonCandidates
from harvest.detect2d.weights import DETECTOR, PEOPLE, PUBLISHED, shipped
from harvest.errors import UserError
from harvest.store.wheel import sha256_of

Engine = Literal["torch", "openvino"]


class Detector(Protocol):
    """Square RGB crops in, heat maps out.

    joints: names of the maps; input_px, heatmap_px: sides of crop and map; crop_from_heatmap (2, 3): from cells to
    pixels of the crop; sharpness: power of a map that is a likelihood; fingerprint: names the weights.
    """

    joints: tuple[str, ...]
    input_px: int
    heatmap_px: int
    crop_from_heatmap: NDArray[np.float64]
    sharpness: float
    fingerprint: str

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, J, h, w) scores >= 0 of crops (B, input_px, input_px, 3)."""
        ...


class PersonFinder(Protocol):
    """Whole RGB pictures in, people out."""

    fingerprint: str

    def __call__(self, image: NDArray[np.uint8]) -> PersonCandidates:
        """The people a picture (H, W, 3) shows, best first."""
        ...


def make_detector(name: str, weights: Path | None, flip_test: bool, engine: Engine = "torch") -> Detector:
    """The detector of that name: hourglass (by default with the weights that come with the package), or blazepose.

    Raises:
        UserError: an unknown name, or weights that are missing, given in vain or unusable.
    """
    if name == "blazepose":
        if weights is not None:
            raise UserError("--weights goes with --detector hourglass; blazepose brings its own")
        from harvest.detect2d.blazepose import BlazePoseDetector

        return BlazePoseDetector(flip_test=flip_test)
    if name == "hourglass":
        from harvest.detect2d.hourglass_detector import HourglassDetector, fast_bf16

        path = weights or shipped(DETECTOR)
        return HourglassDetector.from_file(path, flip_test=flip_test, bf16=fast_bf16(), engine=engine)
    raise UserError(f"unknown detector '{name}'; known: hourglass, blazepose, keypoints")


def make_finder(name: str, weights: Path | None, min_score: float | None) -> PersonFinder:
    """The finder of people of that name: hourglass (by default with the package's weights), or blazepose.

    Raises:
        UserError: weights that are missing or unusable.
    """
    score = {} if min_score is None else {"min_score": min_score}
    if name == "blazepose":
        from harvest.detect2d.blazepose import BlazePosePersonFinder

        return BlazePosePersonFinder(**score)
    from harvest.detect2d.hourglass_detector import fast_bf16
    from harvest.detect2d.people import HourglassPersonFinder

    return HourglassPersonFinder.from_file(weights or shipped(PEOPLE), bf16=fast_bf16(), **score)


def crop_picture(image: NDArray[np.uint8], image_from_crop: NDArray[np.floating], size_px: int) -> NDArray[np.uint8]:
    """The square crop (size_px, size_px, 3) that an affine from the unit square to image pixels frames; black outside.

    Pictures much larger than the crop are first halved, so that no detail is lost to coarse sampling.
    """
    affine = image_from_pixels(image_from_crop, size_px)
    picture = image
    while np.sqrt(abs(np.linalg.det(affine[:, :2]))) >= 2.0 and min(picture.shape[:2]) > 1:
        picture, affine = halved(picture), affine / 2.0
        affine[:, 2] -= 0.25  # pixel centres: (u + 0.5) / 2 - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, affine, (size_px, size_px), flags=flags), dtype=np.uint8)


def halved(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) at half its size, each pixel the mean of four: u becomes (u + 0.5) / 2 - 0.5."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    even = picture[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def image_from_pixels(image_from_crop: NDArray[np.floating], size_px: int) -> NDArray[np.float64]:
    """(2, 3) from pixels of a crop of that size to image pixels, for an affine from the unit square."""
    linear = np.asarray(image_from_crop[:, :2], dtype=np.float64) / size_px
    return np.column_stack([linear, image_from_crop[:, 2] + linear @ [0.5, 0.5]])


def chain(outer: NDArray[np.floating], inner: NDArray[np.floating]) -> NDArray[np.float64]:
    """(2, 3) affine that applies `inner`, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def weights_fingerprint(name: str, weights: Path | None) -> str:
    """What names the weights of a detector without loading it; 'none' for keypoints of another tool."""
    if name == "blazepose":
        return "+".join(sha[:16] for _, sha in PUBLISHED["blazepose"].files.values())
    path = weights or shipped(DETECTOR)
    return sha256_of(path)[:16] if name == "hourglass" and path.is_file() else "none"


def finder_fingerprint(name: str, weights: Path | None) -> str:
    """What names the weights of a finder of people without loading it."""
    if name == "blazepose":
        return weights_fingerprint(name, None)
    path = weights or shipped(PEOPLE)
    return sha256_of(path)[:16] if path.is_file() else "none"

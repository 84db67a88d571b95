"""The values that flow between stages: frozen, checked when made, arrays named with their units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _shape(name: str, array: NDArray[Any], expected: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(expected) and all(e is None or e == s for e, s in zip(expected, array.shape, strict=False))
    if not fits:
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}")


@dataclass(frozen=True)
class PersonBoxes:
    """Where the person is: a sphere in the world per frame, and the square crop that shows it in each view.

    frames (T,) frame numbers; centre_m (T, 3) and radius_m (T,) NaN where no person was found; image_from_crop
    (T, V, 2, 3) affine from a unit crop, (0, 0) its top-left corner and (1, 1) its bottom-right one, to image pixels,
    NaN where the view does not show the person.
    """

    frames: NDArray[np.int64]
    views: tuple[str, ...]
    centre_m: Floats
    radius_m: Floats
    image_from_crop: Floats

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        t, v = len(self.frames), len(self.views)
        _shape("centre_m", self.centre_m, (t, 3))
        _shape("radius_m", self.radius_m, (t,))
        _shape("image_from_crop", self.image_from_crop, (t, v, 2, 3))


@dataclass(frozen=True)
class Heatmaps:
    """Heat maps of one block of frames.

    score (T, V, J, h, w) float32 >= 0; image_from_heatmap (T, V, 2, 3) affine from cells to image pixels, NaN where the
    view is missing (its scores are then zero).
    """

    frames: NDArray[np.int64]
    views: tuple[str, ...]
    joints: tuple[str, ...]
    score: NDArray[np.float32]
    image_from_heatmap: Floats

    def __post_init__(self) -> None:
        """Check that the shapes agree and no score is negative."""
        t, v, j = len(self.frames), len(self.views), len(self.joints)
        _shape("score", self.score, (t, v, j, None, None))
        _shape("image_from_heatmap", self.image_from_heatmap, (t, v, 2, 3))
        if self.score.size and not float(self.score.min()) >= 0:
            raise ValueError("heat-map scores must be non-negative numbers")

    @property
    def present(self) -> NDArray[np.bool_]:
        """(T, V) whether the view has a map at that frame."""
        return np.asarray(np.isfinite(self.image_from_heatmap).all(axis=(2, 3)))


@dataclass(frozen=True)
class Poses3D:
    """Joints of one person in the world.

    frames (T,); time_s (T,); xyz_m (T, J, 3) NaN where not found; cov_m2 (T, J, 3, 3); confidence (T, J) in 0..1;
    n_views (T, J) views whose evidence supports the joint; flip (T, V) probability that the view's detector exchanged
    left and right, NaN where the method does not weigh it.
    """

    frames: NDArray[np.int64]
    time_s: Floats
    views: tuple[str, ...]
    joints: tuple[str, ...]
    xyz_m: Floats
    cov_m2: Floats
    confidence: Floats
    n_views: NDArray[np.int64]
    flip: Floats

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        t, v, j = len(self.frames), len(self.views), len(self.joints)
        _shape("time_s", self.time_s, (t,))
        _shape("xyz_m", self.xyz_m, (t, j, 3))
        _shape("cov_m2", self.cov_m2, (t, j, 3, 3))
        _shape("confidence", self.confidence, (t, j))
        _shape("n_views", self.n_views, (t, j))
        _shape("flip", self.flip, (t, v))

    @property
    def found(self) -> NDArray[np.bool_]:
        """(T, J) whether the joint has a position."""
        return np.asarray(np.isfinite(self.xyz_m).all(axis=2))


@dataclass(frozen=True)
class Selection:
    """Which joints are trusted: keep (T, J) and, for every joint dropped, the reason (T, J), empty where kept.

    probability (T, J): the calibrated one that a joint's error is below the distance of the settings, NaN where it was
    not found; None where nobody asked.
    """

    keep: NDArray[np.bool_]
    reason: NDArray[np.object_]
    probability: Floats | None = None

    def __post_init__(self) -> None:
        """Check that every dropped joint has a reason and no kept one has, and that the shapes agree."""
        if self.probability is not None:
            _shape("probability", self.probability, self.keep.shape)
        if self.keep.shape != self.reason.shape or (self.keep == (self.reason != "")).any():
            raise ValueError("every dropped joint needs a reason, and only those")


@dataclass(frozen=True)
class LabelSet:
    """2D labels, one row a person, frame and view, each with the 3D joint behind it.

    frame (N,), view (N,) index into views; uv_px (N, J, 2) NaN where there is no label; visibility (N, J) COCO's 0 not
    labelled, 1 labelled but not seen, 2 seen; weight (N, J) 0..1; xyz_cam_m (N, J, 3) in the view's camera frame;
    origin: what made the labels, by name and fingerprint.
    """

    frame: NDArray[np.int64]
    view: NDArray[np.int64]
    views: tuple[str, ...]
    joints: tuple[str, ...]
    uv_px: Floats
    visibility: NDArray[np.int64]
    weight: Floats
    xyz_cam_m: Floats
    origin: dict[str, str]

    def __post_init__(self) -> None:
        """Check that the shapes agree and that visibility is COCO's."""
        n, j = len(self.frame), len(self.joints)
        _shape("view", self.view, (n,))
        _shape("uv_px", self.uv_px, (n, j, 2))
        _shape("visibility", self.visibility, (n, j))
        _shape("weight", self.weight, (n, j))
        _shape("xyz_cam_m", self.xyz_cam_m, (n, j, 3))
        if not np.isin(self.visibility, (0, 1, 2)).all():
            raise ValueError("visibility must be 0, 1 or 2")

"""Footage of several views with the true joints of its people, and the heat maps that a detector gives of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from harvest.detect2d.detectors import Detector, chain, crop_picture, image_from_pixels
from harvest.detect2d.locate import upright_crop
from harvest.detect2d.people import CROP_OVER_JOINTS
from harvest.errors import UserError
from harvest.learn.map_sets import MapSet, MultiViewMaps, write_map_set
from harvest.learn.samples import rows_of
from harvest.store.fingerprint import fingerprint
from harvest.triangulate3d.lenses import optics_of
from harvest.video import VideoFile, read_frames

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]
Found = TypeVar("Found")
MOMENTS_A_SECOND = 5.0  # of all that are labelled: frames that follow each other show the same
FEWEST_VIEWS = 2
KNOWN_SHARE, SEEN_SHARE = 0.5, 0.5  # of a person's joints that must be known, and of those, inside a view's picture
SHIFT = 0.05  # of the sphere's radius, standard deviation each way: finders do not hit the hips exactly
STRETCH = (0.92, 1.3)  # of that radius: a run has one for all frames, the median
PADDING_PX = 8  # more or fewer, on the right or at the bottom, of codecs; some of Human3.6M's videos have 2 rows more
_SEED, _LAYOUT = 36, "layout"


class Shot(NamedTuple):
    """One view's picture: a file, or a video and the number of its frame."""

    source: Path | VideoFile
    frame: int = 0


@dataclass(frozen=True)
class Moment:
    """What V views show at one moment: their rig, a shot of each, and people_m (P, J, 3), NaN where unknown. `name`
    tells it from the other moments.
    """

    name: str
    rig: Rig
    shots: tuple[Shot, ...]
    people_m: Floats


@dataclass(frozen=True)
class Footage:
    """The labelled moments of a folder; joints: J names of those of its people."""

    folder: Path
    joints: tuple[str, ...]
    moments: tuple[Moment, ...]


@dataclass(frozen=True, eq=False)
class Item:
    """A person of a moment: joints xyz_m (J, 3) and their names; `views` of the moment's that show the person."""

    moment: Moment
    joints: tuple[str, ...]
    xyz_m: Floats
    views: tuple[int, ...]

    @cached_property
    def rig(self) -> Rig:
        """Of those views."""
        names = self.moment.rig.names
        return self.moment.rig.select(names[view] for view in self.views)

    @cached_property
    def sphere(self) -> tuple[Floats, float]:
        """Centre (3,) and radius in metres of the person as finders give them: round the hips, or round the middle of
        all joints where both hips are unknown, and beyond the farthest joint.
        """
        known = self.xyz_m[np.isfinite(self.xyz_m).all(axis=1)]
        hips = self.xyz_m[[self.joints.index(name) for name in ("l_hip", "r_hip") if name in self.joints]]
        hips = hips[np.isfinite(hips).all(axis=1)]
        centre = hips.mean(axis=0) if len(hips) else (known.min(axis=0) + known.max(axis=0)) / 2
        return centre, CROP_OVER_JOINTS * float(np.linalg.norm(known - centre, axis=1).max())

    def crops(self, number: int) -> Floats:
        """(V, 2, 3) `upright_crop` of each view, as those of a run may lie; item `number` always gets the same."""
        rng = np.random.default_rng([_SEED, number])
        centre, radius = self.sphere
        centre = centre + SHIFT * radius * rng.normal(size=3).clip(-2, 2)
        radius = radius * rng.uniform(*STRETCH)
        return np.stack([upright_crop(self.rig, view, centre, radius) for view in range(len(self.rig))])


class Pictures:
    """Reads the pictures of items. Those of a video are decoded once if items are asked for in their order."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Note which frames will be wanted of each video."""
        wanted: dict[VideoFile, set[int]] = {}
        for item in items:
            for source, frame in (item.moment.shots[view] for view in item.views):
                if isinstance(source, VideoFile):
                    wanted.setdefault(source, set()).add(frame)
        self._wanted = {video: sorted(frames) for video, frames in wanted.items()}
        self._next: dict[VideoFile, int] = {}  # place among the wanted that the reader gives next
        self._readers: dict[VideoFile, Generator[tuple[int, Picture | None]]] = {}
        self._moment, self._read = "", dict[int, Picture | None]()  # people of one moment share its pictures

    def of(self, item: Item) -> list[Picture | None]:
        """A picture (H, W, 3) RGB of each view, None where a video's frame is damaged.

        Raises:
            UserError: a broken picture, or one whose size is not its camera's.
        """
        if item.moment.name != self._moment:
            self._moment, self._read = item.moment.name, {}
        for view in item.views:
            if view not in self._read:
                self._read[view] = self._shot(item.moment, view)
        return [self._read[view] for view in item.views]

    def _shot(self, moment: Moment, view: int) -> Picture | None:
        (source, frame), camera = moment.shots[view], moment.rig.cameras[view]
        if isinstance(source, VideoFile):
            path, picture = source.path, self._frame(source, frame)
        else:
            path, picture = source, _picture(source)
        if picture is not None and np.abs(np.subtract(picture.shape[1::-1], camera.size_px)).max() > PADDING_PX:
            have, need = ("x".join(map(str, size)) for size in (picture.shape[1::-1], camera.size_px))
            raise UserError(f"{path} is {have} px and its camera {need}; give the pictures as they were calibrated")
        return picture

    def _frame(self, video: VideoFile, frame: int) -> Picture | None:
        wanted = self._wanted[video]
        place = wanted.index(frame)
        if self._next.get(video) != place:
            self._readers[video] = read_frames(video, wanted[place:])
        picture = next(self._readers[video])[1]
        self._next[video] = place + 1
        if place + 1 == len(wanted):
            self._readers.pop(video).close()
            del self._next[video]
        return picture


def at_intervals(
    frames: Iterable[int], rate: float, read: Callable[[int], Found | None]
) -> Iterator[tuple[int, Found]]:
    """What `read` gives of increasing frames recorded at a rate, 1/s: of no more than MOMENTS_A_SECOND, and of another
    one instead where it gives None.
    """
    step, last = round(rate / MOMENTS_A_SECOND), None
    for frame in frames:
        if last is None or frame - last >= step:
            found = read(frame)
            if found is not None:
                last = frame
                yield frame, found


def known_people(people_m: Floats) -> Floats | None:
    """Those people of (P, J, 3) of whom at least half of the joints are known; None if there is nobody."""
    enough = np.isfinite(people_m).all(axis=2).mean(axis=1) >= KNOWN_SHARE
    return people_m[enough] if enough.any() else None


def items_of(moment: Moment, joints: tuple[str, ...]) -> list[Item]:
    """The people of a moment whom two views or more show, each in the views that have half of the known joints."""
    found = []
    for xyz in moment.people_m:
        uv = moment.rig.project(xyz[np.isfinite(xyz).all(axis=1)])
        size = np.array([camera.size_px for camera in moment.rig.cameras])[:, None]
        with np.errstate(invalid="ignore"):
            inside = ((uv > -0.5) & (uv < size - 0.5)).all(axis=2)
        views = np.flatnonzero(inside.mean(axis=1) >= SEEN_SHARE)
        if len(views) >= FEWEST_VIEWS:
            found.append(Item(moment, joints, xyz, tuple(views.tolist())))
    return found


def maps_of_footage(footage: Footage, detector: Detector, out: Path) -> MapSet:
    """The maps that a detector gives of everybody in some footage (`items_of`), in crops round the true joints.

    Joints are matched by name; one that the footage does not have is unknown.

    Raises:
        UserError: no joint or nobody to be used, pictures that are broken or of another size, or an `out` that holds
            something else.
    """
    if not set(detector.joints) & set(footage.joints):
        has, finds = ", ".join(footage.joints), ", ".join(detector.joints)
        raise UserError(f"{footage.folder} has the joints {has}, the detector finds {finds}; give other --weights")
    items = [item for moment in footage.moments for item in items_of(moment, footage.joints)]
    if not items:
        raise UserError(
            f"{footage.folder}: no person of its {len(footage.moments)} moments is in the pictures of two cameras; "
            "give the pictures of more cameras"
        )
    pictures = Pictures(items)

    def item(index: int) -> MultiViewMaps:
        return _maps_of_item(items[index], index, pictures.of(items[index]), detector)

    made_of = [(item.moment.name, item.views) for item in items]
    made_from = fingerprint("footage", str(footage.folder.resolve()), made_of, detector.fingerprint)
    return write_map_set(out, detector.joints, len(items), item, made_from)


def _maps_of_item(item: Item, number: int, pictures: Sequence[Picture | None], detector: Detector) -> MultiViewMaps:
    crops, taken = item.crops(number), list[Picture]()
    affine = np.full((len(pictures), 2, 3), np.nan)
    for view, (picture, crop) in enumerate(zip(pictures, crops, strict=True)):
        if picture is not None and np.isfinite(crop).all():
            taken.append(crop_picture(picture, crop, detector.input_px))
            affine[view] = chain(image_from_pixels(crop, detector.input_px), detector.crop_from_heatmap)
    shown = np.isfinite(affine).all(axis=(1, 2))
    score = np.zeros((len(pictures), len(detector.joints)) + (detector.heatmap_px,) * 2, np.float32)
    if taken:
        score[shown] = detector(np.stack(taken))
    rows = rows_of(detector.joints, {_LAYOUT: {"names": item.joints}})
    xyz = np.array([item.xyz_m[row] if name else np.full(3, np.nan) for name, row in rows])
    return MultiViewMaps(tuple(detector.joints), score, affine, optics_of(item.rig), np.array(item.rig.up), xyz)


def _picture(path: Path) -> Picture:
    found = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise UserError(f"{path} is a broken picture; unpack it again, or delete it")
    return np.ascontiguousarray(found[..., ::-1], np.uint8)

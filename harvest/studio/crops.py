"""Pictures of single people for training: every sample drawn from a seed of its own, with its exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from harvest.studio.assets import Assets
from harvest.studio.body import Pose
from harvest.studio.effects import Effects, draw_effects
from harvest.studio.mesh import Thing
from harvest.studio.objects import furniture, held
from harvest.studio.people import Casting, Person
from harvest.studio.raster import bounds
from harvest.studio.render import Renderer, View
from harvest.studio.rigs import draw_lens
from harvest.studio.rotations import about, look_at
from harvest.studio.scenes import draw_setting, strike
from harvest.studio.truth import VISIBLE, JointTruth, joint_truth

Floats = NDArray[np.float64]
SIZE_PX = 256
GROUP = 64  # neighbouring samples share two people, because dressing one costs as much as drawing many
LEAST_SEEN = 4  # joints; a picture of fewer teaches nothing
FRAME_PX = (1280, 960)  # of the whole picture that a crop is cut from
SHADOW_CELLS = 256


@dataclass(frozen=True)
class Hardship:
    """Shares of crops: with somebody else beside the person, with a thing in a hand, with so many pieces of furniture
    (none, one, ...), before a photograph instead of in a room, turned by up to 60 degrees, cutting the person off.
    companions: at most so many others. frame: smallest and largest side of a picture over the person's.
    """

    companion: float = 0.2
    holds: float = 0.2
    furniture: tuple[float, ...] = (0.55, 0.3, 0.15)
    photograph: float = 0.25
    rolled: float = 0.25
    cut: float = 0.15
    companions: int = 1
    frame: tuple[float, float] = (1.08, 1.7)


SCENE = Hardship(companion=0.6, photograph=0.15, rolled=0.1, companions=3, frame=(1.2, 7.0))  # for a finder of people
EASY = Hardship(0.0, 0.0, (1.0,), 0.25, 0.0, 0.0)


@dataclass(frozen=True)
class Crop:
    """One sample: picture (S, S, 3) uint8 RGB before `effects`; the camera whose whole picture it is; joints by set;
    others: of each other person the joints of MPII; box_px (4,): left, top, right, bottom of what can be seen of the
    person; mask (S, S) uint8; and where it comes from.
    """

    index: int
    picture: NDArray[np.uint8]
    effects: Effects
    camera: Camera
    joints: dict[str, JointTruth]
    others: tuple[JointTruth, ...]
    box_px: Floats
    mask: NDArray[np.uint8]
    character: str
    clip: str
    frame: int
    setting: str


class CropStudio:
    """Makes crops of a split from a seed: sample i is the same whenever, wherever and in whatever order it is made."""

    def __init__(self, assets: Assets, seed: int, split: str = "train", hardship: Hardship | None = None) -> None:
        """Take the bundle; `split` says which bodies, motions, clothes and rooms may appear."""
        self.assets, self.seed, self.split, self.hardship = assets, seed, split, hardship or Hardship()
        self._casting, self._renderer = Casting(assets), Renderer(over=2)
        self._clips = assets.motion.of_split(split)
        self._group = -1
        self._people: tuple[Person, Person]

    def crops(self, first: int, last: int) -> Iterator[Crop]:
        """Samples first to last - 1."""
        for index in range(first, last):
            yield self.crop(index)

    def crop(self, index: int) -> Crop:
        """One sample."""
        if index // GROUP != self._group:
            self._group = index // GROUP
            rng = np.random.default_rng([self.seed, self._group])
            self._people = self._casting.person(self.split, rng), self._casting.person(self.split, rng)
        return self._draw(index, np.random.default_rng([self.seed, index // GROUP, index]))

    def _draw(self, index: int, rng: np.random.Generator) -> Crop:
        person, other = self._people if index % 2 == 0 else self._people[::-1]
        clip = self._clips[int(rng.integers(len(self._clips)))]
        frame = int(rng.integers(len(clip)))
        turns, root = strike(self.assets, person, clip, np.array([frame]), rng)
        pose = person.body.pose(turns, root)
        things = [person.mesh.placed(pose.transforms[0])]
        if rng.random() < self.hardship.holds:
            things.append(held(rng, person.body, "LR"[int(rng.integers(2))]).placed(pose.transforms[0]))
        camera = self._camera(things[0], rng)
        others: list[tuple[int, Pose]] = []  # where among the things, and how they stand
        for _ in range(self.hardship.companions):
            if rng.random() < self.hardship.companion:
                posed = self._companion(other, camera, rng)
                others.append((len(things), posed))
                things.append(other.mesh.placed(posed.transforms[0]))
        pieces = self.hardship.furniture
        for _ in range(int(rng.choice(len(pieces), p=pieces))):
            things.append(_between(camera, rng))
        floor = min(0.0, float(bounds(things[0].vertices)[0][2]))
        away = float(np.linalg.norm(camera.centre_m[:2]))
        middle = np.array([0.0, 0.0, floor])
        setting = draw_setting(self.assets, self.split, middle, 1.15 * away, rng, self.hardship.photograph)
        while True:
            view = self._renderer.draw(setting.scene(things, SHADOW_CELLS), camera, keep_lens=False)
            joints = joint_truth(view, camera, pose, 0)
            if (joints["mpii16"].visibility == VISIBLE).sum() >= LEAST_SEEN or len(things) == 1:
                break
            things.pop()  # whatever came last stood in the way
        near = [joint_truth(view, camera, posed, at)["mpii16"] for at, posed in others if at < len(things)]
        origin = person.id, clip.name, frame, setting.name
        return self._record(index, view, camera, (joints, tuple(near)), draw_effects(rng), origin)

    @staticmethod
    def _record(
        index: int,
        view: View,
        camera: Camera,
        joints: tuple[dict[str, JointTruth], tuple[JointTruth, ...]],
        effects: Effects,
        origin: tuple[str, str, int, str],
    ) -> Crop:
        mask = view.mask(0)
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        box = np.full(4, np.nan)
        if rows.size:
            box = np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])
        own, near = joints
        return Crop(index, view.picture, effects, camera, own, near, box, mask, *origin)

    def _companion(self, other: Person, camera: Camera, rng: np.random.Generator) -> Pose:
        """Somebody else beside, behind or before the person, seldom in the camera's face."""
        clip = self._clips[int(rng.integers(len(self._clips)))]
        turns, root = strike(self.assets, other, clip, rng.integers(len(clip), size=1), rng)
        towards = camera.centre_m[:2] / np.linalg.norm(camera.centre_m[:2])
        across = np.array([-towards[1], towards[0]])
        spread = self.hardship.companions  # many stand further apart
        place = rng.uniform(-0.9, 0.4) * towards + rng.choice([-1, 1]) * rng.uniform(0.45, 1.1) * across
        place *= rng.uniform(1, spread) if spread > 1 else 1
        return other.body.pose(turns, root + [*place, 0.0])

    def _camera(self, thing: Thing, rng: np.random.Generator) -> Camera:
        """A camera somewhere around a person, and of its picture the square in which the person stands."""
        low, high = bounds(thing.vertices)
        centre = ((low + high) / 2).astype(np.float64)
        wide = 2 * np.tan(np.radians(rng.uniform(35, 80)) / 2)
        away = float(np.exp(rng.uniform(np.log(2.0), np.log(8.0))))
        up, azimuth = np.radians(np.clip(rng.normal(8, 13), -12, 65)), rng.uniform(0, 2 * np.pi)
        eye = centre + away * np.array([np.cos(azimuth) * np.cos(up), np.sin(azimuth) * np.cos(up), np.sin(up)])
        eye[2] = max(eye[2], 0.2)
        roll = np.radians(rng.uniform(-60, 60) if rng.random() < self.hardship.rolled else rng.normal(0, 5))
        R, t = look_at(eye, centre)
        aside = about([0, 1, 0], rng.uniform(-0.35, 0.35) * wide) @ about([1, 0, 0], rng.uniform(-0.2, 0.2) * wide)
        R, t = about([0, 0, 1], roll) @ aside @ R, about([0, 0, 1], roll) @ aside @ t
        K, dist = draw_lens(wide, FRAME_PX, rng)
        uv = Camera("whole", FRAME_PX, K, dist, R, t).project(thing.vertices[::7])
        uv = uv[np.isfinite(uv).all(axis=1)]
        return _cut_out(K, dist, (R, t), _window(uv, rng.random() < self.hardship.cut, self.hardship.frame, rng))


def _window(uv: Floats, cut: bool, frame: tuple[float, float], rng: np.random.Generator) -> tuple[Floats, float]:
    """Middle (2,) and side in pixels of a square around points uv (N, 2); or, to `cut`, around part of them."""
    low, high = uv.min(axis=0), uv.max(axis=0)
    side, middle = float((high - low).max()), (low + high) / 2
    if cut:
        return low + (high - low) * rng.uniform(0.15, 0.85, 2), side * rng.uniform(0.45, 1.0)
    if frame[1] <= 2:
        larger = rng.uniform(*frame)
        return middle + rng.uniform(-0.12, 0.12, 2) * side * larger, side * larger
    larger = float(np.exp(rng.uniform(*np.log(frame))))
    return middle + rng.uniform(-0.5, 0.5, 2) * side * (larger - 0.9), side * larger


def _cut_out(K: Floats, dist: Floats, place: tuple[Floats, Floats], window: tuple[Floats, float]) -> Camera:
    """The camera whose picture, SIZE_PX wide, is a square window of a whole picture."""
    middle, side = window
    scale, start = SIZE_PX / side, middle - side / 2
    # Pixel u of the whole picture is pixel (u + 0.5 - start) scale - 0.5 of the crop.
    cut = np.array([[scale, 0, (0.5 - start[0]) * scale - 0.5], [0, scale, (0.5 - start[1]) * scale - 0.5], [0, 0, 1]])
    return Camera("crop", (SIZE_PX, SIZE_PX), cut @ K, dist, *place)


def _between(camera: Camera, rng: np.random.Generator) -> Thing:
    """Furniture near the person, or between it and the camera."""
    share = rng.uniform(0.25, 0.85) if rng.random() < 0.5 else rng.uniform(-0.3, 0.15)
    towards = camera.centre_m[:2]
    across = np.array([-towards[1], towards[0]]) / np.linalg.norm(towards)
    place = share * towards + rng.choice([-1, 1]) * rng.uniform(0.35, 0.9) * (1 - 0.6 * max(share, 0)) * across
    mesh = furniture(rng, (float(place[0]), float(place[1])))
    return mesh.placed(np.eye(4)[None, :3])

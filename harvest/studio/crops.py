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
from harvest.studio.own_motion import low_clips
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
MIDDLE = np.zeros(2)  # of the floor, metres


@dataclass(frozen=True)
class Hardship:
    """Shares of crops: with somebody else beside the person, with a thing in a hand, with so many pieces of furniture
    (none, one, ...), before a photograph instead of in a room, turned by up to 60 degrees, cutting the person off.
    companions: at most so many others. frame: smallest and largest side of a picture over the person's. low: share of
    people who sit, crouch, crawl, lie or stand on their hands, which recordings hardly have.
    """

    companion: float = 0.2
    holds: float = 0.2
    furniture: tuple[float, ...] = (0.55, 0.3, 0.15)
    photograph: float = 0.25
    rolled: float = 0.25
    cut: float = 0.15
    companions: int = 1
    frame: tuple[float, float] = (1.08, 1.7)
    low: float = 0.15

    def pieces(self, rng: np.random.Generator) -> int:
        """How many pieces of furniture there are."""
        return int(rng.choice(len(self.furniture), p=self.furniture))


SCENE = Hardship(companion=0.6, photograph=0.15, rolled=0.1, companions=3, frame=(1.2, 7.0))  # for a finder of people
EASY = Hardship(0.0, 0.0, (1.0,), 0.25, 0.0, 0.0, low=0.0)


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


@dataclass(frozen=True)
class Act:
    """One person at one moment: pose, of a single frame; things, the person before what a hand holds; frame of clip."""

    person: Person
    pose: Pose
    things: tuple[Thing, ...]
    clip: str
    frame: int


class Cast:
    """Two people of a split at a time, kept for a group of neighbouring samples, and what they do."""

    def __init__(self, assets: Assets, split: str, low: float) -> None:
        """Take the bundle; `low` is that of `Hardship`."""
        self.assets, self.split = assets, split
        self._casting, self._clips = Casting(assets), assets.motion.of_split(split)
        self._low, self._low_clips = low, low_clips(split) if low > 0 else []
        self._seeds: list[int] = []
        self._people: tuple[Person, Person]

    def people(self, seeds: list[int], index: int) -> tuple[Person, Person]:
        """Of the two people whom these seeds give, whose turn it is in a sample, and the other one."""
        if seeds != self._seeds:
            rng = np.random.default_rng(seeds)
            self._people = self._casting.person(self.split, rng), self._casting.person(self.split, rng)
            self._seeds = seeds
        one, other = self._people
        return (one, other) if index % 2 == 0 else (other, one)

    def act(self, person: Person, at_m: Floats, holds: float, rng: np.random.Generator) -> Act:
        """A person above at_m (2,) at a random moment, facing any way; `holds`: how likely a hand holds something."""
        turns, root, clip, frame = self._moment(person, rng)
        pose = person.body.pose(turns, root + [*at_m, 0.0])
        things = [person.mesh.placed(pose.transforms[0])]
        if rng.random() < holds:
            things.append(held(rng, person.body, "LR"[int(rng.integers(2))]).placed(pose.transforms[0]))
        return Act(person, pose, tuple(things), clip, frame)

    def companion(
        self, other: Person, camera: Camera, at_m: Floats, spread: float, rng: np.random.Generator
    ) -> tuple[Pose, Thing]:
        """Somebody beside, behind or before who stands at at_m (2,), up to `spread` times as far away as usual; seldom
        in the camera's face.
        """
        turns, root, _, _ = self._moment(other, rng)
        towards = camera.centre_m[:2] - at_m
        towards = towards / np.linalg.norm(towards)
        across = np.array([-towards[1], towards[0]])
        place = rng.uniform(-0.9, 0.4) * towards + rng.choice([-1, 1]) * rng.uniform(0.45, 1.1) * across
        place *= rng.uniform(1, spread) if spread > 1 else 1
        pose = other.body.pose(turns, root + [*(at_m + place), 0.0])
        return pose, other.mesh.placed(pose.transforms[0])

    def _moment(self, person: Person, rng: np.random.Generator) -> tuple[Floats, Floats, str, int]:
        """Turns (1, B, 3, 3) and root (1, 3), above the origin, in a random frame of a random clip, and which."""
        clips = self._low_clips if self._low_clips and rng.random() < self._low else self._clips
        clip = clips[int(rng.integers(len(clips)))]
        frame = int(rng.integers(len(clip)))
        return *strike(self.assets, person, clip, np.array([frame]), rng), clip.name, frame


class CropStudio:
    """Makes crops of a split from a seed: sample i is the same whenever, wherever and in whatever order it is made."""

    def __init__(self, assets: Assets, seed: int, split: str = "train", hardship: Hardship | None = None) -> None:
        """Take the bundle; `split` says which bodies, motions, clothes and rooms may appear."""
        self.assets, self.seed, self.split, self.hardship = assets, seed, split, hardship or Hardship()
        self._cast, self._renderer = Cast(assets, split, self.hardship.low), Renderer(over=2)

    def crops(self, first: int, last: int) -> Iterator[Crop]:
        """Samples first to last - 1."""
        for index in range(first, last):
            yield self.crop(index)

    def crop(self, index: int) -> Crop:
        """One sample."""
        people = self._cast.people([self.seed, index // GROUP], index)
        return self._draw(index, people, np.random.default_rng([self.seed, index // GROUP, index]))

    def _draw(self, index: int, people: tuple[Person, Person], rng: np.random.Generator) -> Crop:
        act = self._cast.act(people[0], MIDDLE, self.hardship.holds, rng)
        things, camera = list(act.things), self._camera(act.things[0], rng)
        others: list[tuple[int, Pose]] = []  # where among the things, and how they stand
        spread = self.hardship.companions  # many stand further apart
        for _ in range(self.hardship.companions):
            if rng.random() < self.hardship.companion:
                posed, thing = self._cast.companion(people[1], camera, MIDDLE, spread, rng)
                others.append((len(things), posed))
                things.append(thing)
        for _ in range(self.hardship.pieces(rng)):
            things.append(in_the_way(camera, MIDDLE, rng))
        away = float(np.linalg.norm(camera.centre_m[:2]))
        middle = np.array([0.0, 0.0, floor_under(things[0])])
        setting = draw_setting(self.assets, self.split, middle, 1.15 * away, rng, self.hardship.photograph)
        while True:
            view = self._renderer.draw(setting.scene(things, SHADOW_CELLS), camera, keep_lens=False)
            joints = joint_truth(view, camera, act.pose, 0)
            if shows_person(joints) or len(things) == 1:
                break
            things.pop()  # whatever came last stood in the way
        near = [joint_truth(view, camera, posed, at)["mpii16"] for at, posed in others if at < len(things)]
        origin = act.person.id, act.clip, act.frame, setting.name
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
        whole = Camera("whole", FRAME_PX, K, dist, R, t)
        return cut_out(whole, window(whole, thing, rng.random() < self.hardship.cut, self.hardship.frame, rng), "crop")


def shows_person(joints: dict[str, JointTruth]) -> bool:
    """Whether a picture with these joints shows enough of the person to teach anything."""
    return bool((joints["mpii16"].visibility == VISIBLE).sum() >= LEAST_SEEN)


def floor_under(thing: Thing) -> float:
    """Height of the floor, metres: 0, or lower where somebody reaches below."""
    return min(0.0, float(bounds(thing.vertices)[0][2]))


def window(
    camera: Camera, thing: Thing, cut: bool, frame: tuple[float, float], rng: np.random.Generator
) -> tuple[Floats, float]:
    """Middle (2,) and side in pixels of a square of a camera's picture around a thing; or, to `cut`, around part of it.

    frame: smallest and largest side over the thing's. The square may reach beyond the picture.
    """
    uv = camera.project(thing.vertices[::7])
    uv = uv[np.isfinite(uv).all(axis=1)]
    low, high = uv.min(axis=0), uv.max(axis=0)
    side, middle = float((high - low).max()), (low + high) / 2
    if cut:
        return low + (high - low) * rng.uniform(0.15, 0.85, 2), side * rng.uniform(0.45, 1.0)
    if frame[1] <= 2:
        larger = rng.uniform(*frame)
        return middle + rng.uniform(-0.12, 0.12, 2) * side * larger, side * larger
    larger = float(np.exp(rng.uniform(*np.log(frame))))
    return middle + rng.uniform(-0.5, 0.5, 2) * side * (larger - 0.9), side * larger


def cut_out(camera: Camera, window: tuple[Floats, float], name: str) -> Camera:
    """The camera, called `name`, whose picture, SIZE_PX wide, is a square window of a camera's picture."""
    middle, side = window
    scale, start = SIZE_PX / side, middle - side / 2
    # Pixel u of the whole picture is pixel (u + 0.5 - start) scale - 0.5 of the crop.
    cut = np.array([[scale, 0, (0.5 - start[0]) * scale - 0.5], [0, scale, (0.5 - start[1]) * scale - 0.5], [0, 0, 1]])
    size, place = (SIZE_PX, SIZE_PX), (camera.R_cam_from_world, camera.t_cam_from_world_m)
    return Camera(name, size, cut @ camera.K, camera.dist_opencv, *place)


def in_the_way(camera: Camera, at_m: Floats, rng: np.random.Generator) -> Thing:
    """Furniture near who stands at at_m (2,), or between there and the camera."""
    share = rng.uniform(0.25, 0.85) if rng.random() < 0.5 else rng.uniform(-0.3, 0.15)
    towards = camera.centre_m[:2] - at_m
    across = np.array([-towards[1], towards[0]]) / np.linalg.norm(towards)
    place = share * towards + rng.choice([-1, 1]) * rng.uniform(0.35, 0.9) * (1 - 0.6 * max(share, 0)) * across
    mesh = furniture(rng, (float(at_m[0] + place[0]), float(at_m[1] + place[1])))
    return mesh.placed(np.eye(4)[None, :3])

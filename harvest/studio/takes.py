"""Takes: people who move in a room, filmed by all cameras of a rig, frame by frame, with everything that is true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from harvest.errors import UserError
from harvest.studio.assets import Assets
from harvest.studio.body import Pose
from harvest.studio.effects import Effects, draw_night
from harvest.studio.grounding import grounded
from harvest.studio.mesh import Mesh, Thing
from harvest.studio.motion import Clip
from harvest.studio.objects import furniture, held
from harvest.studio.people import Casting, Person
from harvest.studio.render import Renderer, View
from harvest.studio.rigs import draw_rig
from harvest.studio.rotations import about
from harvest.studio.scenes import Setting, draw_setting

Floats = NDArray[np.float64]
UP = (0.0, 0.0, 1.0)
STAGE_M = 1.2  # from the middle, within which the filmed person stays
FREE_M = 0.75  # around furniture, which is up to 0.8 m from its middle to a corner
APART_M = 0.7  # between the paths of two people
TRIES = 200
HOLDS = 0.3  # share of people with something in a hand
SHADOW_CELLS = 512
STILL = np.eye(4)[None, :3]


@dataclass(frozen=True)
class TakeSettings:
    """What a take is like; everything else is drawn from its seed.

    split: of bodies, motions, clothes and rooms. fps: pictures a second. kind: of rig. people: the first is filmed,
    others pass by. objects: pieces of furniture. blur: moments of each exposure that are averaged, over half the time
    between two pictures. loud: unusual clothes. night: cameras that see little. seed and subject: takes with both alike
    show the same person alike.
    """

    seed: int
    subject: int = 0
    take: int = 0
    split: str = "train"
    frames: int = 60
    fps: float = 30.0
    views: int = 4
    kind: str = "ring"
    size_px: tuple[int, int] = (640, 480)
    people: int = 1
    objects: int = 0
    blur: int = 1
    loud: bool = False
    night: bool = False


@dataclass(frozen=True)
class Actor:
    """A person with its pose at every moment of a take, and what it holds."""

    person: Person
    pose: Pose
    prop: Mesh | None
    clip: str
    clip_frames: Floats


class Take:
    """A take as its settings say: the same one whenever and wherever it is made."""

    def __init__(self, assets: Assets, settings: TakeSettings) -> None:
        """Draw who acts what where, and the rig."""
        self.settings, self._assets = settings, assets
        casting, rng = Casting(assets), np.random.default_rng([settings.seed, settings.subject, settings.take])
        self.rig: Rig = draw_rig(settings.kind, settings.views, settings.size_px, rng)
        cast = [
            casting.person(
                settings.split, np.random.default_rng([settings.seed, settings.subject, 7, i]), settings.loud
            )
            for i in range(settings.people)
        ]
        self.actors = [self._act(person, rng, first=index == 0) for index, person in enumerate(cast)]
        self._keep_apart(rng)
        self.furniture = [furniture(rng, self._free_place(rng)).placed(STILL) for _ in range(settings.objects)]
        far = max(float(np.abs(camera.centre_m[:2]).max()) for camera in self.rig.cameras)
        self.setting: Setting = draw_setting(assets, settings.split, np.zeros(3), far + 0.4, rng)
        self._effects = [
            draw_night(rng)
            if settings.night
            else Effects(noise=float(rng.uniform(0.5, 2.5)), blur_px=float(rng.uniform(0, 0.6)))
            for _ in self.rig.cameras
        ]
        self._renderer = Renderer(over=2)

    @property
    def moments_s(self) -> Floats:
        """(T blur,) when the scene is drawn, seconds: each picture's moments one after the other."""
        s = self.settings
        within = (np.arange(s.blur) / max(s.blur, 1)) * 0.5
        return np.asarray(((np.arange(s.frames)[:, None] + within) / s.fps).ravel())

    def _act(self, person: Person, rng: np.random.Generator, first: bool) -> Actor:
        """A stretch of a clip in which the person stays on the stage, standing on the floor."""
        clip, start = self._stretch(person, rng, STAGE_M if first else 2 * STAGE_M)
        frames = start + self.moments_s * clip.fps
        turns, root = self._assets.motion.perform(person.body, clip, frames, rng.uniform(0.1, 0.9))
        yaw = about(UP, rng.uniform(0, 2 * np.pi))
        turns, rate = yaw @ turns, self.settings.fps * self.settings.blur
        root = grounded(person, turns, root @ yaw.T, rate)
        middle = (root[:, :2].min(axis=0) + root[:, :2].max(axis=0)) / 2
        pose = person.body.pose(turns, root - [*middle, 0.0])
        prop = held(rng, person.body, "LR"[int(rng.integers(2))]) if rng.random() < HOLDS else None
        return Actor(person, pose, prop, clip.name, frames)

    def _stretch(self, person: Person, rng: np.random.Generator, radius_m: float) -> tuple[Clip, float]:
        """A clip of the split and the frame to begin with."""
        length = float(self.moments_s[-1])
        clips = [
            clip for clip in self._assets.motion.of_split(self.settings.split) if len(clip) > length * clip.fps + 2
        ]
        if not clips:
            raise UserError(
                f"no clip of split '{self.settings.split}' lasts {length:.1f} s; ask for fewer frames, or add motion"
            )
        best: tuple[float, Clip, float] | None = None
        for _ in range(TRIES):
            clip = clips[int(rng.integers(len(clips)))]
            start = float(rng.integers(int(len(clip) - length * clip.fps - 1)))
            path = clip.root[int(start) : int(start + length * clip.fps) + 1, :2] * person.body.leg_m
            wide = float(np.linalg.norm(path.max(axis=0) - path.min(axis=0))) / 2
            if best is None or wide < best[0]:
                best = wide, clip, start
            if wide <= radius_m:
                return clip, start
        assert best is not None
        return best[1], best[2]

    def _keep_apart(self, rng: np.random.Generator) -> None:
        """Move the others sideways until no two paths come near each other."""
        for index in range(1, len(self.actors)):
            actor = self.actors[index]
            for attempt in range(TRIES):
                away = np.array([*_outside(rng, 0.8 + 0.01 * attempt), 0.0])
                moved = Pose(actor.pose.body, _shifted(actor.pose.transforms, away), actor.pose.heads_m + away)
                if all(_distance(moved, other.pose) > APART_M for other in self.actors[:index]):
                    break
            self.actors[index] = Actor(actor.person, moved, actor.prop, actor.clip, actor.clip_frames)

    def _free_place(self, rng: np.random.Generator) -> tuple[float, float]:
        """A place for furniture that no bone of anybody ever comes near."""
        paths = np.concatenate([actor.pose.heads_m[..., :2].reshape(-1, 2) for actor in self.actors])
        for attempt in range(TRIES):
            place = _outside(rng, 0.8 + 0.01 * attempt)
            if np.linalg.norm(paths - place, axis=1).min() > FREE_M:
                break
        return place

    def things(self, moment: int) -> list[Thing]:
        """Everything that stands in the scene at a moment: first people in their order, then the rest."""
        people = [actor.person.mesh.placed(actor.pose.transforms[moment]) for actor in self.actors]
        props = [actor.prop.placed(actor.pose.transforms[moment]) for actor in self.actors if actor.prop]
        return people + props + self.furniture

    def film(self, frame: int) -> Iterator[tuple[int, NDArray[np.uint8], View]]:
        """For each camera its number, its picture of a frame with all effects, and what it truly shows.

        With motion blur the truth is that of the exposure's first moment.
        """
        blur = self.settings.blur
        scenes = [self.setting.scene(self.things(frame * blur + i), SHADOW_CELLS) for i in range(blur)]
        for number, camera in enumerate(self.rig.cameras):
            views = [self._renderer.draw(scene, camera) for scene in scenes]
            picture = views[0].picture
            if blur > 1:
                picture = np.mean([view.picture for view in views], axis=0).astype(np.uint8)
            rng = np.random.default_rng([self.settings.seed, frame, number])
            yield number, self._effects[number].apply(picture, rng), views[0]


def _outside(rng: np.random.Generator, least: float = 1.0) -> tuple[float, float]:
    """A place on the floor around the stage."""
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(least, least + 0.8)
    return float(radius * np.cos(angle)), float(radius * np.sin(angle))


def _shifted(transforms: Floats, by: Floats) -> Floats:
    out = transforms.copy()
    out[..., 3] += by
    return out


def _distance(one: Pose, other: Pose) -> float:
    """Least horizontal metres between the pelvises of two people at the same moment."""
    return float(np.linalg.norm(one.heads_m[:, 0, :2] - other.heads_m[:, 0, :2], axis=1).min())

"""One person at one moment before several calibrated cameras, for training: crops of all views with the exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from calib.rig import Rig
from harvest.studio.assets import Assets
from harvest.studio.body import JOINT_SETS, Pose
from harvest.studio.crops import (
    FRAME_PX,
    SHADOW_CELLS,
    Cast,
    Hardship,
    cut_out,
    floor_under,
    in_the_way,
    shows_person,
    window,
)
from harvest.studio.effects import Effects, draw_effects
from harvest.studio.mesh import Thing
from harvest.studio.people import Person
from harvest.studio.render import Renderer, Scene, View
from harvest.studio.rigs import KINDS, draw_rig
from harvest.studio.scenes import draw_setting
from harvest.studio.truth import JointTruth, joint_truth

Floats = NDArray[np.float64]
GROUP = 16  # neighbouring samples share two people, who take about as long to dress as two samples to draw
WHOLE = 2  # views of each sample that do not cut the person off, but for jitter: a joint needs two to be found in space
STRAY_M = 0.5  # from the stage's middle, where the cameras look, at most
WALL_M = 0.4  # beyond the farthest camera, at least
PEOPLE, MOMENT, NOISE = 1, 2, 3  # last of four seeds: no two uses of one sample's numbers draw alike
VIEWS = Hardship(companion=0.3, furniture=(0.5, 0.3, 0.2), photograph=0.1, rolled=0.0)


@dataclass(frozen=True)
class MultiView:
    """One sample. Of each of V views: its picture (S, S, 3) uint8 RGB before its `effects`, the camera whose whole
    picture it is, and the joints by set. xyz_m: the same joints (J, 3) in the world, by set. rig: its kind; the rest
    says where the sample comes from.
    """

    index: int
    pictures: tuple[NDArray[np.uint8], ...]
    effects: tuple[Effects, ...]
    cameras: tuple[Camera, ...]
    joints: tuple[dict[str, JointTruth], ...]
    xyz_m: dict[str, Floats]
    rig: str
    character: str
    clip: str
    frame: int
    setting: str

    def developed(self, seed: int) -> Iterator[NDArray[np.uint8]]:
        """The pictures as their cameras give them; `seed` is the studio's."""
        for number, (picture, effects) in enumerate(zip(self.pictures, self.effects, strict=True)):
            yield effects.apply(picture, np.random.default_rng([seed, self.index, number, NOISE]))


class ViewsStudio:
    """Makes multi-view samples of a split from a seed: sample i is the same whenever and in whatever order it is made.

    At least WHOLE views of a sample show the person; another may be blocked by somebody or something.
    """

    def __init__(
        self,
        assets: Assets,
        seed: int,
        split: str = "train",
        cameras: tuple[int, int] = (2, 8),
        hardship: Hardship = VIEWS,
    ) -> None:
        """Take the bundle; `split` says which bodies, motions, clothes and rooms may appear, `cameras` how few and how
        many see a sample. `hardship.rolled` says nothing here: rigs have their own roll.

        Raises:
            ValueError: fewer than two cameras, or none between the least and the most.
        """
        if not WHOLE <= cameras[0] <= cameras[1]:
            raise ValueError(f"cameras must be at least {WHOLE}, the least before the most, got {cameras}")
        self.assets, self.seed, self.split = assets, seed, split
        self.cameras, self.hardship = cameras, hardship
        self._cast, self._renderer = Cast(assets, split, hardship.low), Renderer(over=2)

    def samples(self, first: int, last: int) -> Iterator[MultiView]:
        """Samples first to last - 1."""
        for index in range(first, last):
            yield self.sample(index)

    def sample(self, index: int) -> MultiView:
        """One sample."""
        people = self._cast.people([self.seed, index // GROUP, 0, PEOPLE], index)
        return self._draw(index, people, np.random.default_rng([self.seed, index, 0, MOMENT]))

    def _draw(self, index: int, people: tuple[Person, Person], rng: np.random.Generator) -> MultiView:
        kind = list(KINDS)[int(rng.integers(len(KINDS)))]
        rig = draw_rig(kind, int(rng.integers(self.cameras[0], self.cameras[1] + 1)), FRAME_PX, rng)
        away, angle = STRAY_M * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        at = away * np.array([np.cos(angle), np.sin(angle)])
        act = self._cast.act(people[0], at, self.hardship.holds, rng)
        crops = self._crops(rig, act.things[0], rng)
        things = [*act.things, *self._obstacles(people[1], rig, at, rng)]
        far = max(float(np.abs(camera.centre_m[:2]).max()) for camera in rig.cameras)
        middle = np.array([0.0, 0.0, floor_under(things[0])])
        setting = draw_setting(self.assets, self.split, middle, far + WALL_M, rng, self.hardship.photograph)
        while True:
            views, joints = self._shoot(setting.scene(things, SHADOW_CELLS), crops, act.pose)
            if sum(map(shows_person, joints)) >= WHOLE or len(things) == 1:
                break
            things.pop()  # whatever came last stood in the way
        effects = tuple(draw_effects(rng) for _ in crops)
        xyz_m = {name: act.pose.joints(name)[0] for name in JOINT_SETS}
        origin = act.person.id, act.clip, act.frame, setting.name
        return MultiView(index, tuple(view.picture for view in views), effects, crops, joints, xyz_m, kind, *origin)

    def _shoot(
        self, scene: Scene, cameras: tuple[Camera, ...], pose: Pose
    ) -> tuple[list[View], tuple[dict[str, JointTruth], ...]]:
        """What each camera sees of a scene, and the joints of its first thing in each view."""
        views = [self._renderer.draw(scene, camera, keep_lens=False) for camera in cameras]
        return views, tuple(joint_truth(view, camera, pose, 0) for view, camera in zip(views, cameras, strict=True))

    def _crops(self, rig: Rig, person: Thing, rng: np.random.Generator) -> tuple[Camera, ...]:
        """The cameras whose pictures are squares around a person, some of them around a part only."""
        cut = rng.random(len(rig)) < self.hardship.cut
        cut[rng.permutation(len(rig))[:WHOLE]] = False
        return tuple(
            cut_out(camera, window(camera, person, bool(part), self.hardship.frame, rng), camera.name)
            for camera, part in zip(rig.cameras, cut, strict=True)
        )

    def _obstacles(self, other: Person, rig: Rig, at: Floats, rng: np.random.Generator) -> list[Thing]:
        """Who and what stands about, each near the line from one of the cameras to the person at `at` (2,)."""
        found = []
        for _ in range(self.hardship.companions):
            if rng.random() < self.hardship.companion:
                camera = rig.cameras[int(rng.integers(len(rig)))]
                found.append(self._cast.companion(other, camera, at, self.hardship.companions, rng)[1])
        for _ in range(self.hardship.pieces(rng)):
            found.append(in_the_way(rig.cameras[int(rng.integers(len(rig)))], at, rng))
        return found

"""People in motion before cameras, joints alone, without pictures: what lifters from 2D to 3D learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calib.camera import Camera
from harvest.skeleton import load_skeleton
from harvest.studio.assets import Assets
from harvest.studio.body import JOINT_SETS
from harvest.studio.rigs import KINDS, draw_rig
from harvest.studio.rotations import about

Floats = NDArray[np.float64]
FRAME_PX = (1280, 960)
BODIES = 40  # that all moments of a set are shared among
STRETCH = 16  # moments that one body takes from one clip
STRAY_M = 0.5  # from the stage's middle, at most
BOX = 1.25  # a crop's side over the longest side of the joints' box
# Fitted by eye to our hourglass on rendered people (docs/measurements.md): its peaks are off by 0.8 % of the crop's
# side in the middle, and 2 to 3 % of them are off by more than 5 %.
USUAL, SPREAD = 0.0065, 0.5  # standard deviation over the crop's side: median, and of its logarithm
LOST, LOST_TIMES = 0.05, 6.0  # share of joints that a detector loses, and how much worse these are
SURE = 0.02  # of the crop's side, where confidence has fallen to 1 / e


@dataclass(frozen=True)
class Moments:
    """N pictures' worth of joints, `views` neighbours of the same moment.

    xyz_m: (N, J, 3) in the camera's frame. xy: (N, J, 2) the same at depth 1. found_xy: as a detector would find them,
    with its confidence (N, J). K: (N, 3, 3). person, clip, moment: (N,) names.
    """

    joints: tuple[str, ...]
    xyz_m: Floats
    xy: Floats
    found_xy: Floats
    confidence: Floats
    K: Floats
    person: NDArray[np.str_]
    clip: NDArray[np.str_]
    moment: NDArray[np.str_]


def all_joints() -> dict[str, tuple[str, int]]:
    """Each joint that bodies have, with the first set that gives it and its place there.

    COCO's come before those of Human3.6M, whose nose is no point of the face here but where the neck ends.
    """
    found: dict[str, tuple[str, int]] = {}
    for name in ("mpii16", "coco17", "h36m17"):
        for place, joint in enumerate(load_skeleton(name).joints):
            found.setdefault(joint, (name, place))
    return found


def draw_moments(assets: Assets, n: int, seed: int, split: str, views: int) -> Moments:
    """n moments of people of a split, spread evenly over its clips, each before `views` cameras of a random rig.

    The same for a seed, whenever and wherever it is made.
    """
    rng = np.random.default_rng([seed, n, views, 31])
    clips = assets.motion.of_split(split)
    who = [character for character in assets.characters if character["split"] == split]
    who = [who[index] for index in rng.permutation(len(who))[:BODIES]]
    bodies = [assets.body.shape(one["phenotype"]) for one in who]
    ends = np.cumsum([len(clip) for clip in clips])
    places = np.sort((np.arange(n) + rng.random(n)) * ends[-1] / n).astype(np.int64)  # frame, over all clips in a row
    of_clip = np.searchsorted(ends, places, side="right")
    rows: list[tuple[Floats, Camera]] = []
    origin: list[tuple[str, str, str]] = []
    bar = tqdm(total=n, desc="poses", unit="moment")
    for index in np.unique(of_clip):
        clip, frames = clips[index], places[of_clip == index] - (ends[index] - len(clips[index]))
        for first in range(0, len(frames), STRETCH):
            some, body = frames[first : first + STRETCH], int(rng.integers(len(bodies)))
            turns, root = assets.motion.perform(bodies[body], clip, some)
            pose = bodies[body].pose(turns, root - [*root[:, :2].mean(axis=0), 0.0])
            sets = {name: pose.joints(name) for name in JOINT_SETS}
            world = np.stack([sets[name][:, place] for name, place in all_joints().values()], axis=1)
            for frame, xyz in zip(some, world, strict=True):
                rows += _seen(xyz, views, rng)
                bar.update()
                origin += [(str(who[body]["id"]), clip.name, f"{clip.name}-{frame:06d}-{body:02d}")] * views
    bar.close()
    return _moments(rows, origin, rng)


def _seen(xyz_m: Floats, views: int, rng: np.random.Generator) -> list[tuple[Floats, Camera]]:
    """Joints (J, 3), turned about the vertical and moved a little, in the frame of each camera of a random rig."""
    rig = draw_rig(list(KINDS)[int(rng.integers(len(KINDS)))], views, FRAME_PX, rng)
    middle = np.array([*xyz_m[:, :2].mean(axis=0), 0.0])
    turned = (xyz_m - middle) @ about((0.0, 0.0, 1.0), rng.uniform(0, 2 * np.pi)).T
    away, angle = STRAY_M * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    placed = turned + [away * np.cos(angle), away * np.sin(angle), 0.0]
    return [(camera.cam_from_world(placed), camera) for camera in rig.cameras]


def _moments(
    rows: list[tuple[Floats, Camera]], origin: list[tuple[str, str, str]], rng: np.random.Generator
) -> Moments:
    xyz, K = np.array([row[0] for row in rows]), np.array([row[1].K for row in rows])
    xy = xyz[..., :2] / xyz[..., 2:]
    found, confidence = detected(xy, rng)
    names = [np.array(part) for part in zip(*origin, strict=True)]
    return Moments(tuple(all_joints()), xyz, xy, found, confidence, K, names[0], names[1], names[2])


def detected(xy: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Joints (N, J, 2) as a detector finds them, and its confidence (N, J) in 0..1.

    Errors are normal, with a deviation of each joint's own: log-normal, and LOST_TIMES as much for a few. Confidence
    falls with that deviation, and is itself only right by and large.
    """
    side = BOX * (xy.max(axis=1) - xy.min(axis=1)).max(axis=1)[:, None]
    lost = rng.random(xy.shape[:2]) < LOST
    deviation = USUAL * np.exp(rng.normal(0, SPREAD, xy.shape[:2])) * np.where(lost, LOST_TIMES, 1.0)
    found = xy + (deviation * side)[..., None] * rng.standard_normal(xy.shape)
    told = np.exp(-deviation / SURE * np.exp(rng.normal(0, 0.3, deviation.shape)))
    return found, np.clip(told, 0.02, 1.0)

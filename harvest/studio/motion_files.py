"""Motion files of the user's (BVH, ASF with AMC, DeepMimic) as clips that any body can perform."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from harvest.errors import UserError
from harvest.studio.amc import CMU_FPS, amc_recording
from harvest.studio.bvh import bvh_recording
from harvest.studio.joint_names import SIDES, find_joints
from harvest.studio.motion import CHANNELS, Clip
from harvest.studio.recording import FPS, Floats, Recording, deepmimic_recording, slerp
from harvest.studio.rotations import about, from_quaternions, to_quaternions
from harvest.studio.splits import split_of

log = logging.getLogger(__name__)

# What a channel does whose joint a skeleton lacks: the same as the one before it.
CHAINS = (
    ("root", "spine04", "spine03", "spine01", "neck01", "neck03", "head"),
    *(("spine01", *(f"{part}.{side}" for part in ("clavicle", "upperarm", "lowerarm", "wrist"))) for side in SIDES),
    *(("root", *(f"{part}.{side}" for part in ("upperleg", "lowerleg", "foot"))) for side in SIDES),
)
LIMBS = ("upperarm", "lowerarm", "wrist"), ("upperleg", "lowerleg", "foot")

# The left leg of a grown-up in leg lengths and studio axes: from the root to the hip; thigh and shank; from the ankle
# to heel, outer and inner ball, and tip of the toes.
HIP, THIGH, SHANK = (0.133, 0.010, -0.019), 0.491, 0.509
SOLE = ((0.0, 0.05, -0.085), (0.06, -0.10, -0.078), (-0.03, -0.145, -0.092), (-0.02, -0.24, -0.083))


def subject_of(name: str) -> str:
    """Who performs in a file of this name: the name less the number of the take (02_01 is subject 02)."""
    return re.sub(r"[\s_.-]*\(?\d+\)?$", "", name.removeprefix("cmu_")) or name


def read_bvh(path: Path, subject: str | None = None) -> Clip:
    """The clip of a BVH file of any tool, any axes, any unit; its zero pose is that of the offsets, all angles zero.

    `subject` is by default the file's name less the number of the take.

    Raises:
        UserError: a broken file, a skeleton without legs or arms, or a zero pose that is no standing person.
    """
    return _clip(bvh_recording(path), path, subject or subject_of(path.stem), "bvh")


def read_amc(asf_path: Path, amc_path: Path, fps: float = CMU_FPS, subject: str | None = None) -> Clip:
    """The clip of a motion (AMC) of a skeleton (ASF); the motion's file does not say its rate.

    Raises:
        UserError: as read_bvh, or the motion is of another skeleton.
    """
    return _clip(amc_recording(asf_path, amc_path, fps), amc_path, subject or subject_of(amc_path.stem), "amc")


def read_deepmimic(path: Path, subject: str = "dm") -> Clip:
    """The clip of a motion of DeepMimic's humanoid3d. Nothing tells who performs: by default it is dm, to train on.

    Raises:
        UserError: no such file.
    """
    return _clip(deepmimic_recording(path), path, subject, "deepmimic")


def read_motion_folder(folder: Path) -> list[Clip]:
    """The clips of all motion files in a folder and below, by path: *.bvh; *.amc with the *.asf beside it whose name
    theirs begins with, or the only one there; *.txt and *.json of DeepMimic. A file that cannot be read as what its
    name says is skipped, and the log says why.

    Raises:
        UserError: no folder, or not one file of motion in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; one with .bvh, .asf and .amc, or DeepMimic's .txt files is needed")
    clips = []
    for path, read in _readers(folder):
        try:
            clips.append(read())
        except UserError as error:
            log.warning("skipped %s", str(error) if str(path) in str(error) else f"{path}: {error}")
    if not clips:
        raise UserError(f"{folder}: no motion could be read here; .bvh, .asf with .amc, or DeepMimic's .txt are needed")
    log.info("%d clips of motion, %.0f s, from %s", len(clips), sum(len(clip) / clip.fps for clip in clips), folder)
    return clips


def _readers(folder: Path) -> Iterator[tuple[Path, Callable[[], Clip]]]:
    """Each file that may hold motion, and what reads it."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        kind = path.suffix.lower()
        if kind == ".bvh":
            yield path, partial(read_bvh, path)
        elif kind == ".amc":
            yield path, partial(_read_amc_alone, path)
        elif kind in (".txt", ".json"):
            yield path, partial(read_deepmimic, path)


def _read_amc_alone(amc_path: Path) -> Clip:
    """The clip of a motion (AMC) whose skeleton (ASF) lies beside it."""
    beside = [path for path in sorted(amc_path.parent.iterdir()) if path.suffix.lower() == ".asf"]
    named = [path for path in beside if re.match(re.escape(path.stem) + r"(?![A-Za-z0-9])", amc_path.stem)]
    if not named and len(beside) != 1:
        raise UserError(
            f"{amc_path}: no skeleton, a file such as {amc_path.stem.split('_')[0]}.asf is needed beside it"
        )
    return read_amc(max(named or beside, key=lambda path: len(path.stem)), amc_path)


def _clip(recording: Recording, path: Path, subject: str, source: str) -> Clip:
    """A recording as a clip: studio axes, leg lengths, 30 frames a second."""
    found = find_joints(recording, str(path))
    studio = _studio_from_file(recording, found, path)
    lengths = [float(np.linalg.norm(_limb(recording, found, f"{part}.L"))) for part in ("upperleg", "lowerleg")]
    if min(lengths) <= 0:
        raise UserError(
            f"{path}: a leg needs a length, but nothing says where {recording.joints[found['lowerleg.L']]} ends"
        )
    follows = dict(found)
    for chain in CHAINS:
        for above, channel in pairwise(chain):
            follows.setdefault(channel, follows[above])
    turns = studio @ recording.turns[:, [follows[channel] for channel in CHANNELS]] @ studio.T
    quaternions = to_quaternions(turns)
    if "spine04" not in found:  # the only joint of a spine sits in its middle: below, the back bends half as far
        quaternions[:, 1] = slerp(quaternions[:, 0], quaternions[:, CHANNELS.index("spine01")], np.full(1, 0.5))
    quaternions = unbroken(quaternions)
    root = recording.places[:, [found["upperleg.L"], found["upperleg.R"]]].mean(axis=1) @ studio.T / sum(lengths)
    directions = _zero_directions(recording, found, studio)
    # An ASF file turns each leg out as a whole, foot and all; elsewhere the zero pose stands on flat feet.
    shank = directions[CHANNELS.index("lowerleg.L")]
    roll = float(np.arctan2(shank[0], -shank[2])) if source == "amc" else 0.0
    return Clip(
        name=path.stem,
        subject=subject,
        split=split_of(subject),
        source=source,
        fps=FPS,
        turns=quaternions,
        root=root,
        floor=floor_of(quaternions, root, directions, roll),
        zero_direction=directions,
        foot_roll=roll,
    )


def _limb(recording: Recording, found: Mapping[str, int], channel: str) -> Floats:
    """(3,) from a limb's joint to the next limb's in the zero pose, in file axes; to what hangs on it where there is no
    next limb: for a hand the middle finger. Zeros where nothing does.
    """
    part, _, side = channel.partition(".")
    chain = next(chain for chain in LIMBS if part in chain)
    next_part = chain[chain.index(part) + 1 :][:1]
    joint, rest = found[channel], recording.rest
    if next_part and f"{next_part[0]}.{side}" in found:
        return rest[found[f"{next_part[0]}.{side}"]] - rest[joint]
    ends = recording.children(joint)
    middle = [end for end in ends if "mid" in recording.joints[end].lower()]
    other = [end for end in ends if "thumb" not in recording.joints[end].lower()]
    away: Floats = recording.offsets[middle[:1] or other or ends].mean(axis=0) if ends else np.zeros(3)
    return away


def _studio_from_file(recording: Recording, found: Mapping[str, int], path: Path) -> Floats:
    """(3, 3) from file axes to studio axes, a reflection where the file's are left-handed.

    Up is the file's axis nearest to hips to shoulders in the zero pose, left that nearest to right hip to left hip, or
    just that where none is near; the toes tell whether the axes are left-handed.
    """
    rest = recording.rest
    legs, arms = (rest[[found[f"{part}.L"], found[f"{part}.R"]]] for part in ("upperleg", "upperarm"))
    trunk = _unit(arms.mean(axis=0) - legs.mean(axis=0))
    up = _nearest_axis(trunk)
    across = legs[0] - legs[1]
    left = _unit(across - (across @ up) * up)
    knees = rest[[found["lowerleg.L"], found["lowerleg.R"]]].mean(axis=0)
    thigh = _unit(knees - legs.mean(axis=0))
    if not (trunk @ up > 0.8 and thigh @ up < -0.8 and _unit(across) @ left > 0.8):
        raise UserError(
            f"{path}: its zero pose, all angles zero, is no standing person; export it with one as rest pose"
        )
    if _nearest_axis(left) @ left > np.cos(np.radians(10)):
        left = _nearest_axis(left)
    forward = np.cross(left, up)
    feet = [found[f"foot.{side}"] for side in SIDES if f"foot.{side}" in found]
    toes = [recording.offsets[toe] for foot in feet for toe in recording.children(foot)]
    if toes and _unit(np.mean(toes, axis=0)) @ forward < -0.5:
        forward = -forward
    return np.stack([left, -forward, up])


def _unit(vector: Floats) -> Floats:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _nearest_axis(vector: Floats) -> Floats:
    """(3,) the coordinate axis, or its opposite, nearest to a direction."""
    axis = np.zeros(3)
    axis[np.abs(vector).argmax()] = np.sign(vector[np.abs(vector).argmax()]) or 1.0
    return axis


def _zero_directions(recording: Recording, found: Mapping[str, int], studio: Floats) -> Floats:
    """(21, 3) of the limbs; a limb without an end, a missing hand, goes on as the one before."""
    directions = np.zeros((len(CHANNELS), 3))
    for side in SIDES:
        for chain in (LIMBS[0], LIMBS[1][:2]):
            along = np.zeros(3)
            for part in chain:
                channel = f"{part}.{side}"
                limb = _limb(recording, found, channel) if channel in found else np.zeros(3)
                along = _unit(studio @ limb) if np.linalg.norm(limb) > 0 else along
                directions[CHANNELS.index(channel)] = along
    return directions


def unbroken(quaternions: Floats) -> Floats:
    """Quaternions (T, ..., 4) with signs such that each is the near one of the two beside the frame before."""
    flips = np.sign((quaternions[1:] * quaternions[:-1]).sum(-1, keepdims=True))
    signs = np.cumprod(np.where(flips == 0, 1.0, flips), axis=0)
    return np.concatenate([quaternions[:1], quaternions[1:] * signs])


def floor_of(quaternions: Floats, root: Floats, directions: Floats, roll: float) -> float:
    """Height of the floor, leg lengths: the 5th percentile over frames of the lowest point of a grown-up's two soles.

    The soles are those of a body that performs the clip: the source's own joints lie above its floor by an amount that
    its file does not give. A clip of somebody who only hangs or flies has no floor that means anything.
    """
    lowest = np.full(len(root), np.inf)
    turns = dict(zip(CHANNELS, np.moveaxis(from_quaternions(quaternions), 1, 0)))
    along = dict(zip(CHANNELS, directions))
    for side, sign in (("L", 1.0), ("R", -1.0)):
        mirror = np.array([sign, 1.0, 1.0])
        ankle = root + turns["root"] @ (mirror * HIP)
        for part, length in ((f"upperleg.{side}", THIGH), (f"lowerleg.{side}", SHANK)):
            ankle = ankle + turns[part] @ (length * along[part])
        foot = turns[f"foot.{side}"] @ about([0, 1, 0], -sign * roll)
        sole = ankle[:, None] + (mirror * SOLE) @ np.swapaxes(foot, -1, -2)
        lowest = np.minimum(lowest, sole[..., 2].min(axis=1))
    return float(np.percentile(lowest, 5))

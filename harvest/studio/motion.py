"""Motion clips, and how a body of any shape performs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harvest.studio.body import Body
from harvest.studio.rotations import about, from_quaternions, smallest_turn, to_quaternions
from harvest.studio.splits import split_of

Floats = NDArray[np.float64]
CHANNELS = (
    *("root", "spine04", "spine03", "spine01", "neck01", "neck03", "head"),
    *("clavicle.L", "upperarm.L", "lowerarm.L", "wrist.L", "upperleg.L", "lowerleg.L", "foot.L"),
    *("clavicle.R", "upperarm.R", "lowerarm.R", "wrist.R", "upperleg.R", "lowerleg.R", "foot.R"),
)
KEPT_RESTS = 64


@dataclass(frozen=True)
class Clip:
    """A motion of T frames, free of any body's size.

    turns: (T, 21, 4) quaternions (w, x, y, z), for each of CHANNELS the world rotation of that segment from the
    source's zero pose, studio axes (z up, a rest body faces -y, its left is +x). root: (T, 3) middle of the hips, in
    leg lengths (thigh + shank). floor: height in leg lengths of what the feet stand on. zero_direction: (21, 3)
    directions of the source's limbs in its zero pose, zero where a channel is no limb. foot_roll: radians by which the
    feet of the body's rest pose are turned to stand as the source's do, the left one about -y and the right one about
    +y. split: train, val or test, by subject.
    """

    name: str
    subject: str
    split: str
    source: str
    fps: float
    turns: Floats
    root: Floats
    floor: float
    zero_direction: Floats
    foot_roll: float

    def __len__(self) -> int:
        """Frames."""
        return len(self.turns)

    def at(self, frames: NDArray[np.floating | np.integer]) -> tuple[Floats, Floats]:
        """Quaternions (N, 21, 4) and roots (N, 3) of some frames, or of moments between them, evenly turned and moved.

        Quaternions between two frames are mixed and normalised: off from the even turn by less than 0.1 degrees where
        frames are less than 20 degrees apart.
        """
        early = np.floor(frames).astype(np.int64)
        late, part = np.minimum(early + 1, len(self) - 1), np.asarray(frames - early, np.float64)[:, None]
        same = np.sign((self.turns[early] * self.turns[late]).sum(axis=-1, keepdims=True))
        mixed = (1 - part[..., None]) * self.turns[early] + part[..., None] * same * self.turns[late]
        return mixed, (1 - part) * self.root[early] + part * self.root[late]


@dataclass(frozen=True)
class _Bones:
    """How a body's bones follow channels; arrays over bones, see `MotionLibrary`."""

    channel: NDArray[np.int64]
    blend: NDArray[np.int64]
    limb: NDArray[np.int64]
    foot_sign: NDArray[np.int64]

    def hand(self, bone: int) -> int:
        """The bone of the hand that a forearm's lower half turns with."""
        return int(np.flatnonzero((self.channel == self.blend[bone]) & (self.blend < 0))[0])

    def along(self, body: Body, bone: int) -> Floats:
        """(3,) the direction of a forearm's lower half at rest."""
        direction = body.heads[self.hand(bone)] - body.heads[bone]
        unit: Floats = direction / np.linalg.norm(direction)
        return unit


class MotionLibrary:
    """The clips of the bundle, of which bones follow them, and what a body does with them."""

    def __init__(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take the arrays of motion.npz."""
        limb = np.stack([arrays["bone_limb_from"], arrays["bone_limb_to"]], -1).astype(np.int64)
        columns = [arrays[f"bone_{name}"].astype(np.int64) for name in ("channel", "blend_channel", "foot_sign")]
        self._bones = _Bones(columns[0], columns[1], limb, columns[2])
        self._rests: dict[tuple[int, bytes], tuple[Body, Floats]] = {}
        self.clips = [self._clip(arrays, index) for index in range(len(arrays["clip_names"]))]

    @staticmethod
    def _clip(arrays: Mapping[str, NDArray[np.generic]], index: int) -> Clip:
        first = int(arrays["clip_start"][index])
        rows = slice(first, first + int(arrays["clip_frames"][index]))
        skeleton = int(arrays["clip_skeleton"][index])
        name, subject, source = (str(arrays[f"clip_{kind}"][index]) for kind in ("names", "subject", "source"))
        return Clip(
            name=name,
            subject=subject,
            split=split_of(subject),
            source=source,
            fps=float(arrays["fps"]),
            turns=arrays["quaternions"][rows].astype(np.float64) / 32767,
            root=arrays["root"][rows].astype(np.float64),
            floor=float(arrays["clip_floor"][index]),
            zero_direction=arrays["skeleton_zero_dir"][skeleton].astype(np.float64),
            foot_roll=float(arrays["skeleton_foot_roll"][skeleton]),
        )

    def of_split(self, split: str) -> list[Clip]:
        """The clips of a split, in their order."""
        return [clip for clip in self.clips if clip.split == split]

    def perform(
        self, body: Body, clip: Clip, frames: NDArray[np.floating | np.integer], grip: float = 0.5
    ) -> tuple[Floats, Floats]:
        """What a body does in some frames of a clip: turns (T, B, 3, 3) of its bones and its root (T, 3), metres.

        The root stands where the clip has it, for the floor at height zero. `grip` from 0 (the rest pose's splayed
        fingers) to 1 (a fist).
        """
        quaternions, root = clip.at(frames)
        rest = self._rest_of(body, clip)
        turns = np.empty((len(frames), len(rest), 3, 3))
        parents, channel, blend = body.model.parents, self._bones.channel, self._bones.blend
        of_channel = from_quaternions(quaternions)
        for bone in range(len(rest)):
            if channel[bone] < 0:  # fingers, toes, eyes follow their parents
                turns[:, bone] = turns[:, parents[bone]]
            elif blend[bone] >= 0:  # the lower half of a forearm takes half of the hand's twist
                hand = of_channel[:, blend[bone]] @ rest[self._bones.hand(bone)]
                upper = turns[:, parents[bone]]
                turns[:, bone] = upper @ _half_twist(upper.transpose(0, 2, 1) @ hand, self._bones.along(body, bone))
            else:
                turns[:, bone] = of_channel[:, channel[bone]] @ rest[bone]
        _bend_fingers(body, turns, grip)
        return turns, (root - [0.0, 0.0, clip.floor]) * body.leg_m

    def _rest_of(self, body: Body, clip: Clip) -> Floats:
        """`_from_rest`, which a body needs once for each of the sources' skeletons; the last few are kept."""
        key = id(body), clip.zero_direction.tobytes()
        if key not in self._rests:
            if len(self._rests) >= KEPT_RESTS:
                self._rests.clear()
            self._rests[key] = body, self._from_rest(body, clip)  # the body too, so that its id stays its own
        return self._rests[key][1]

    def _from_rest(self, body: Body, clip: Clip) -> Floats:
        """(B, 3, 3) from the body's rest pose to the clip's zero pose: limbs turn the shortest way, feet roll."""
        out = np.tile(np.eye(3), (len(body.heads), 1, 1))
        for bone, (begin, end) in enumerate(self._bones.limb):
            if begin >= 0:
                out[bone] = smallest_turn(
                    body.heads[end] - body.heads[begin], clip.zero_direction[self._bones.channel[bone]]
                )
            elif self._bones.foot_sign[bone]:
                out[bone] = about([0, 1, 0], float(self._bones.foot_sign[bone]) * clip.foot_roll)
        return out


def _half_twist(turns: Floats, axis: Floats) -> Floats:
    """(T, 3, 3) half of what turns (T, 3, 3) turn about an axis (3,), and nothing of how they bend away from it."""
    q = to_quaternions(turns)
    twist = np.column_stack([q[:, 0], (q[:, 1:] @ axis)[:, None] * axis])
    twist /= np.maximum(np.linalg.norm(twist, axis=1, keepdims=True), 1e-9)
    return from_quaternions(twist + [1.0, 0.0, 0.0, 0.0])


def _bend_fingers(body: Body, turns: Floats, grip: float) -> None:
    """Bend the fingers of both hands, in place, each joint about the axis across the palm."""
    for bones, axis, most in body.fingers:
        bend = about(axis, grip * most)
        for bone in bones:
            turns[:, bone] = turns[:, body.model.parents[bone]] @ bend

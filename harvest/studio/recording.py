"""Recordings of motion as their files hold them: joints, how they hang together, their turns and places frame by frame.

Axes and units are the file's own; harvest.studio.motion_files makes clips of what is read here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.studio.rotations import about, from_quaternions, to_quaternions

Floats = NDArray[np.float64]
FPS = 30.0
RATE_SLACK = 2e-3  # 29.97 counts as 30

# DeepMimic's humanoid3d: joint, parent, offset in metres (x forward, y up, z right), how many numbers turn it. A frame
# holds a duration, the root's place, then the numbers of the joints in this order.
HUMANOID3D: tuple[tuple[str, int, tuple[float, float, float], int], ...] = (
    ("root", -1, (0, 0, 0), 4),
    ("chest", 0, (0, 0.236151, 0), 4),
    ("neck", 1, (0, 0.223894, 0), 4),
    ("right_hip", 0, (0, 0, 0.084887), 4),
    ("right_knee", 3, (0, -0.421546, 0), 1),
    ("right_ankle", 4, (0, -0.409870, 0), 4),
    ("right_shoulder", 1, (-0.02405, 0.24350, 0.18311), 4),
    ("right_elbow", 6, (0, -0.274788, 0), 1),
    ("left_hip", 0, (0, 0, -0.084887), 4),
    ("left_knee", 8, (0, -0.421546, 0), 1),
    ("left_ankle", 9, (0, -0.409870, 0), 4),
    ("left_shoulder", 1, (-0.02405, 0.24350, -0.18311), 4),
    ("left_elbow", 11, (0, -0.274788, 0), 1),
    ("right_wrist", 7, (0, -0.258947, 0), 0),
    ("left_wrist", 12, (0, -0.258947, 0), 0),
)


@dataclass(frozen=True)
class Recording:
    """T frames, 30 a second, of a skeleton of J joints, parents before children, the root's parent -1.

    offsets: (J, 3) from a joint's parent to the joint in the zero pose. turns: (T, J, 3, 3) world rotations from the
    zero pose. places: (T, J, 3) where the joints are.
    """

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Floats
    turns: Floats
    places: Floats

    @property
    def rest(self) -> Floats:
        """(J, 3) where the joints are in the zero pose, the root at its offset."""
        places = self.offsets.copy()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                places[joint] += places[parent]
        return places

    def above(self, joint: int) -> list[int]:
        """The joint, its parent, and so on up to the root."""
        chain = [joint]
        while self.parents[chain[-1]] >= 0:
            chain.append(self.parents[chain[-1]])
        return chain

    def children(self, joint: int) -> list[int]:
        """The joints that hang on one."""
        return [child for child, parent in enumerate(self.parents) if parent == joint]


def assemble(
    skeleton: Sequence[tuple[str, int]], rest_offsets: Floats, offsets: Floats, local: Floats, times_s: Floats
) -> Recording:
    """A recording from each joint's name and parent, its rotations local (T, J, 3, 3) to its parent, and its offsets
    (T, J, 3) from it, the root's its place. Brought to 30 frames a second if the times (T,) are not.
    """
    local, offsets = at_30_fps(times_s, local, offsets)
    turns, places = local.copy(), offsets.copy()
    for joint, (_, parent) in enumerate(skeleton):
        if parent >= 0:
            turns[:, joint] = turns[:, parent] @ local[:, joint]
            places[:, joint] = places[:, parent] + (turns[:, parent] @ offsets[:, joint, :, None])[..., 0]
    joints, parents = zip(*skeleton)
    return Recording(joints, parents, rest_offsets, turns, places)


def step_of(fps: float) -> int:
    """Every how many frames one is taken: fps / 30 where that is whole, else 1."""
    whole = max(1, round(fps / FPS))
    return whole if abs(fps / FPS / whole - 1) < RATE_SLACK else 1


def at_30_fps(times_s: Floats, local: Floats, offsets: Floats) -> tuple[Floats, Floats]:
    """Rotations (T, J, 3, 3) and offsets (T, J, 3) at 30 frames a second, from the first frame to the last.

    Frames that come at that rate are kept. Between others rotations are interpolated on the sphere, the short way, and
    offsets linearly.
    """
    if len(times_s) < 2 or np.allclose(np.diff(times_s) * FPS, 1, rtol=0, atol=RATE_SLACK):
        return local, offsets
    wanted = times_s[0] + np.arange(int((times_s[-1] - times_s[0]) * FPS + 1e-6) + 1) / FPS
    before = np.clip(np.searchsorted(times_s, wanted, side="right") - 1, 0, len(times_s) - 2)
    share = ((wanted - times_s[before]) / (times_s[before + 1] - times_s[before]))[:, None, None]
    quaternions = to_quaternions(local)
    turned = from_quaternions(slerp(quaternions[before], quaternions[before + 1], share))
    return turned, (1 - share) * offsets[before] + share * offsets[before + 1]


def slerp(a: Floats, b: Floats, share: Floats) -> Floats:
    """(..., 4) the unit quaternion a `share` (..., 1) of the short way from a to b, both (..., 4)."""
    cosine = (a * b).sum(-1, keepdims=True)
    b = np.where(cosine < 0, -b, b)
    angle = np.arccos(np.clip(np.abs(cosine), 0, 1))
    still = angle < 1e-6
    sine = np.where(still, 1.0, np.sin(angle))
    parts = [np.where(still, part, np.sin(part * angle) / sine) for part in (1 - share, share)]
    between: Floats = parts[0] * a + parts[1] * b
    return between / np.linalg.norm(between, axis=-1, keepdims=True)


def numbers(words: Sequence[str], count: int, where: str) -> list[float]:
    """`count` finite numbers.

    Raises:
        UserError: other words, or more or fewer of them; `where` says which.
    """
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise UserError(f"{where}: {count} numbers are needed here, found {len(words)} words: {' '.join(words)[:60]!r}")
    return values


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; bytes that are no text become question marks.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def deepmimic_recording(path: Path) -> Recording:
    """What a motion file of DeepMimic's humanoid3d holds; frames may last differently long.

    Source: Peng et al. 2018, DeepMimic, its data/motions and data/characters/humanoid3d.txt.

    Raises:
        UserError: not JSON, or no such frames.
    """
    frames = _deepmimic_frames(path)
    durations_s = frames[:-1, 0]
    if not (durations_s > 0).all():
        raise UserError(f"{path}: every frame but the last needs a duration above zero, its first number")
    times_s = np.concatenate([[0.0], np.cumsum(durations_s)])
    if len(durations_s) and np.ptp(durations_s) < RATE_SLACK * durations_s[0]:
        step = step_of(1 / durations_s[0])
        frames, times_s = frames[::step], times_s[::step]
    rest = np.array([offset for _, _, offset, _ in HUMANOID3D], np.float64)
    offsets = np.tile(rest, (len(frames), 1, 1))
    offsets[:, 0] = frames[:, 1:4]
    local = np.tile(np.eye(3), (len(frames), len(rest), 1, 1))
    column = 4
    for joint, (_, _, _, count) in enumerate(HUMANOID3D):
        if count == 4:
            local[:, joint] = from_quaternions(frames[:, column : column + 4])
        elif count == 1:
            local[:, joint] = about([0, 0, 1], frames[:, column])
        column += count
    return assemble([(name, parent) for name, parent, _, _ in HUMANOID3D], rest, offsets, local, times_s)


def _deepmimic_frames(path: Path) -> Floats:
    """(T, 44) the numbers of each frame."""
    columns = 4 + sum(joint[3] for joint in HUMANOID3D)
    try:
        content: Any = json.loads("\n".join(read_lines(path)))
        frames = np.array(content["Frames"], np.float64)
    except (ValueError, KeyError, TypeError):
        frames = np.zeros(0)
    if frames.ndim != 2 or frames.shape[1] != columns or not np.isfinite(frames).all():
        raise UserError(f'{path}: no motion of DeepMimic\'s humanoid3d, JSON with "Frames" of {columns} numbers each')
    return frames

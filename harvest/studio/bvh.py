"""Biovision hierarchies (BVH), the text format of motion that most tools write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.studio.recording import Floats, Recording, assemble, numbers, read_lines, step_of
from harvest.studio.rotations import about

REST_DEG, JUMP_DEG = 2.0, 10.0
CHANNELS = {f"{axis}{kind}" for axis in "xyz" for kind in ("position", "rotation")}


@dataclass
class _Joint:
    name: str
    parent: int
    offset: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    channels: list[str] = field(default_factory=list)


def bvh_recording(path: Path) -> Recording:
    """What a BVH file holds, less a first frame that only shows the rest pose. End sites are joints `<parent>_end`.

    Rotations multiply in the order of a joint's channels. Position channels stand in for the joint's offset.

    Raises:
        UserError: not a BVH file, a broken or truncated one, or one of several skeletons.
    """
    lines = read_lines(path)
    motion = next((i for i, line in enumerate(lines) if line.strip().upper() == "MOTION"), None)
    if motion is None:
        raise UserError(f"{path}: no BVH file, it has no line MOTION")
    joints = _joints(lines[:motion], path)
    is_angle = np.array([channel.endswith("rotation") for joint in joints for channel in joint.channels], bool)
    values, times_s = _frames(lines, motion, is_angle, path)
    rest = np.array([joint.offset for joint in joints])
    offsets = np.tile(rest, (len(values), 1, 1))
    local = np.tile(np.eye(3), (len(values), len(joints), 1, 1))
    column = 0
    for i, joint in enumerate(joints):
        for channel in joint.channels:
            axis = "xyz".index(channel[0])
            if channel.endswith("position"):
                offsets[:, i, axis] = values[:, column]
            else:
                local[:, i] = local[:, i] @ about(np.eye(3)[axis], np.radians(values[:, column]))
            column += 1
    return assemble([(joint.name, joint.parent) for joint in joints], rest, offsets, local, times_s)


def _statements(lines: Sequence[str], path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a statement stands, and its words; braces are statements of their own."""
    for number, line in enumerate(lines, start=1):
        for part in line.replace("{", "\n{\n").replace("}", "\n}\n").split("\n"):
            if words := part.split():
                yield f"{path}, line {number}", words


def _joints(lines: Sequence[str], path: Path) -> list[_Joint]:
    """The joints of the section HIERARCHY."""
    joints: list[_Joint] = []
    open_joints = [-1]
    for where, words in _statements(lines, path):
        key = words[0].upper()
        if key in ("ROOT", "JOINT", "END"):
            joints.append(_joint(words, joints, open_joints[-1], where))
        elif key == "{":
            open_joints.append(len(joints) - 1)
        elif key == "}":
            open_joints.pop()
        elif key == "OFFSET" and joints:
            joints[-1].offset = numbers(words[1:], 3, where)
        elif key == "CHANNELS" and joints:
            joints[-1].channels = _channels(words, where)
        elif key != "HIERARCHY":
            raise UserError(f"{where}: {' '.join(words)[:60]!r} has no place in a BVH hierarchy")
        if not open_joints:
            raise UserError(f"{where}: a brace closes that was never opened")
    if not joints or open_joints != [-1]:
        raise UserError(f"{path}: the hierarchy has {'a brace that is never closed' if joints else 'no joint'}")
    return joints


def _joint(words: Sequence[str], joints: Sequence[_Joint], parent: int, where: str) -> _Joint:
    is_root = words[0].upper() == "ROOT"
    if is_root != (parent < 0) or (is_root and joints):
        raise UserError(f"{where}: a BVH file of one skeleton with one ROOT is needed, {' '.join(words)!r} breaks that")
    name = f"{joints[parent].name}_end" if words[0].upper() == "END" else " ".join(words[1:])
    return _Joint(name, parent)


def _channels(words: Sequence[str], where: str) -> list[str]:
    channels = [word.lower() for word in words[2:]]
    if words[1:2] != [str(len(channels))] or not set(channels) <= CHANNELS:
        raise UserError(f"{where}: CHANNELS takes a count and that many of {', '.join(sorted(CHANNELS))}")
    return channels


def _frames(lines: Sequence[str], motion: int, is_angle: NDArray[np.bool_], path: Path) -> tuple[Floats, Floats]:
    """Values (T, channels) of the frames that are kept, and their times in seconds (T,)."""
    head, row = {}, motion + 1
    while row < len(lines) and (":" in lines[row] or not lines[row].strip()):
        key, _, value = lines[row].partition(":")
        head[" ".join(key.lower().split())] = value.split()
        row += 1
    (count,) = numbers(head.get("frames", []), 1, f"{path}, 'Frames:'")
    (frame_s,) = numbers(head.get("frame time", []), 1, f"{path}, 'Frame Time:'")
    filled = [i for i in range(row, len(lines)) if lines[i].strip()]
    if frame_s <= 0 or count < 1 or len(filled) != count:
        raise UserError(f"{path}: says {count:g} frames of {frame_s:g} s, holds {len(filled)}: broken or truncated")

    def values_of(line: int) -> Floats:
        return np.array(numbers(lines[line].split(), len(is_angle), f"{path}, line {line + 1}"))

    skipped = int(len(filled) > 1 and _only_shows_rest(*(values_of(i)[is_angle] for i in filled[:2])))
    step = step_of(1 / frame_s)
    kept = range(skipped, len(filled), step)
    return np.array([values_of(filled[i]) for i in kept]), np.array(kept) * frame_s


def _only_shows_rest(first: Floats, second: Floats) -> bool:
    """Whether a first frame, all its angles in degrees, is the rest pose, and the second jumps away from it."""
    a, b = ((angles + 180) % 360 - 180 for angles in (first, second))
    return bool(a.size and np.abs(a).mean() < REST_DEG and np.abs(b - a).max() > JUMP_DEG)

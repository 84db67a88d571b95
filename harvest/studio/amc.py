"""Acclaim skeletons and motions (ASF and AMC), the form of the CMU motion capture database."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harvest.errors import UserError
from harvest.studio.recording import Floats, Recording, assemble, numbers, read_lines, step_of
from harvest.studio.rotations import about

CMU_FPS = 120.0  # of the CMU database; an AMC file does not say
ORDER = ("tx", "ty", "tz", "rx", "ry", "rz")
Statement = tuple[str, list[str]]


@dataclass(frozen=True)
class _Bone:
    """vector: (3,) from the bone's beginning to its end in the zero pose. axes: (3, 3) what its turns are about. dof:
    its degrees of freedom in the order of their numbers in a frame.
    """

    vector: Floats = field(default_factory=lambda: np.zeros(3))
    axes: Floats = field(default_factory=lambda: np.eye(3))
    dof: tuple[str, ...] = ()


def amc_recording(asf_path: Path, amc_path: Path, fps: float = CMU_FPS) -> Recording:
    """A motion (AMC) of a skeleton (ASF). A joint lies where its bone begins and bears the bone's name; a bone that
    none hangs on has one more joint `<bone>_end`.

    Within its parent a bone turns by C R C^T, C its axes and R its degrees of freedom, the first of them first.

    Raises:
        UserError: one of the two is broken, or the motion is of another skeleton.
    """
    bones, parents = _read_skeleton(asf_path)
    frames = _read_motion(amc_path, bones, step_of(fps))
    ends = {f"{bone}_end": bone for bone in bones if bone not in parents.values()}
    names = [*bones, *ends]
    above = parents | ends
    joints = list(bones.values()) + [_Bone()] * len(ends)
    offsets = np.array([np.zeros(3)] + [bones[above[name]].vector for name in names[1:]])
    count = len(frames["root"])
    nothing = np.zeros((count, 0))
    local = np.stack([_turn(bone, frames.get(name, nothing)) for name, bone in zip(names, joints)], axis=1)
    moving = np.tile(offsets, (count, 1, 1))
    for column, freedom in enumerate(bones["root"].dof):
        if freedom[0] == "t":
            moving[:, 0, "xyz".index(freedom[1])] = frames["root"][:, column]
    times_s = np.arange(count) * step_of(fps) / fps
    skeleton = [("root", -1)] + [(name, names.index(above[name])) for name in names[1:]]
    return assemble(skeleton, offsets, moving, local, times_s)


def _turn(bone: _Bone, values: Floats) -> Floats:
    """(T, 3, 3) of a bone's degrees of freedom (T, D), radians; shifts and lengths turn nothing."""
    turn = np.tile(np.eye(3), (len(values), 1, 1))
    for column, freedom in enumerate(bone.dof):
        if freedom[0] == "r":
            turn = about(np.eye(3)["xyz".index(freedom[1])], values[:, column]) @ turn
    return bone.axes @ turn @ bone.axes.T


def _axes(statement: Statement, unit: float) -> Floats:
    """(3, 3) turns about three axes, by default x, y and z, the first first."""
    where, words = statement
    order = words[3].lower() if len(words) > 3 else "xyz"
    if not set(order) <= set("xyz") or len(order) != 3:
        raise UserError(f"{where}: an order of axes like XYZ is needed, found {words[3]!r}")
    angles = np.array(numbers(words[:3], 3, where))[None] * unit
    return _turn(_Bone(dof=tuple(f"r{axis}" for axis in order)), angles)[0]


def _read_skeleton(path: Path) -> tuple[dict[str, _Bone], dict[str, str]]:
    """The bones, the root first and each after the one that it hangs on, and the latter's name for each."""
    sections = _sections(path)
    units = _statements(sections.get(":units", []))
    unit = 1.0 if units.get("angle", ("", ["deg"]))[1][:1] == ["rad"] else math.pi / 180
    root = _statements(sections.get(":root", []))
    order = tuple(word.lower() for word in root["order"][1]) if "order" in root else ORDER
    axes = _axes(root["orientation"], unit) if "orientation" in root else np.eye(3)
    found = {"root": _Bone(axes=axes, dof=_freedoms(order, f"{path}, root"))}
    for block in _blocks(sections.get(":bonedata", [])):
        missing = {key for key in ("name", "direction", "length") if not block.get(key, ("", []))[1]}
        if missing:
            raise UserError(
                f"{path}: a bone without {', '.join(sorted(missing))}, near {next(iter(block.values()))[0]}"
            )
        found[block["name"][1][0]] = _bone(block, unit)
    below: dict[str, list[str]] = {}
    for _, words in sections.get(":hierarchy", []):
        below.setdefault(words[0], []).extend(words[1:])
    parents: dict[str, str] = {}
    reached = ["root"]
    for name in reached:
        new = [bone for bone in below.get(name, []) if bone in found and bone not in reached]
        parents |= dict.fromkeys(new, name)
        reached += new
    if lost := sorted(set(found) - set(reached)):
        raise UserError(f"{path}: the hierarchy does not hang these bones on the root: {', '.join(lost)}")
    if len(found) == 1:
        raise UserError(f"{path}: no ASF file, it has no bones under :bonedata")
    return {name: found[name] for name in reached}, parents


def _bone(block: Mapping[str, Statement], unit: float) -> _Bone:
    where, direction = block["direction"]
    (length,) = numbers(block["length"][1], 1, block["length"][0])
    vector = np.array(numbers(direction, 3, where)) * length
    axes = _axes(block["axis"], unit) if "axis" in block else np.eye(3)
    return _Bone(vector, axes, _freedoms(block.get("dof", ("", []))[1], block["name"][0]))


def _freedoms(words: Sequence[str], where: str) -> tuple[str, ...]:
    freedoms = tuple(word.lower() for word in words)
    if not set(freedoms) <= {*ORDER, "l"}:
        raise UserError(f"{where}: degrees of freedom are {', '.join(ORDER)} and l, found {' '.join(words)}")
    return freedoms


def _sections(path: Path) -> dict[str, list[Statement]]:
    """Statements, each with where it stands, by the section that they stand in."""
    sections: dict[str, list[Statement]] = {}
    section = ""
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split("#")[0].split()
        if words and words[0].startswith(":"):
            section = words[0].lower()
        elif words:
            sections.setdefault(section, []).append((f"{path}, line {number}", words))
    return sections


def _statements(section: Sequence[Statement]) -> dict[str, Statement]:
    """The statements by their first word."""
    return {words[0].lower(): (where, words[1:]) for where, words in section}


def _blocks(section: Sequence[Statement]) -> Iterator[dict[str, Statement]]:
    """What stands between each begin and its end."""
    block: list[Statement] = []
    for statement in section:
        if statement[1][0] == "begin":
            block = []
        elif statement[1][0] == "end":
            yield _statements(block)
        else:
            block.append(statement)


def _read_motion(path: Path, bones: Mapping[str, _Bone], step: int) -> dict[str, Floats]:
    """Numbers (T, D) of each bone that has any, angles in radians, of every step-th frame."""
    columns: dict[str, list[list[float]]] = {name: [] for name, bone in bones.items() if bone.dof}
    unit, frame, seen = math.pi / 180, -1, set(columns)
    for number, line in enumerate(read_lines(path), start=1):
        where, words = f"{path}, line {number}", line.split("#")[0].split()
        if words and words[0].startswith(":"):
            unit = 1.0 if words[0].lower() == ":radians" else unit
        elif len(words) == 1 and words[0].isdigit():
            _check_frame(seen, columns, where)
            frame, seen = frame + 1, set()
        elif words:
            if frame < 0 or words[0] not in columns or words[0] in seen:
                raise UserError(
                    f"{where}: {words[0]!r} is no bone that moves in this skeleton, or comes twice in a frame"
                )
            seen.add(words[0])
            if frame % step == 0:
                columns[words[0]].append(numbers(words[1:], len(bones[words[0]].dof), where))
    _check_frame(seen, columns, f"{path}, its end")
    if frame < 0:
        raise UserError(f"{path}: no AMC file, it has no numbered frame")
    scale = {name: [unit if freedom[0] == "r" else 1.0 for freedom in bones[name].dof] for name in columns}
    return {name: np.array(values) * scale[name] for name, values in columns.items()}


def _check_frame(seen: set[str], columns: Mapping[str, object], where: str) -> None:
    if missing := [name for name in columns if name not in seen]:
        raise UserError(
            f"{where}: the frame before lacks {', '.join(missing)}: broken, truncated, or of another skeleton"
        )

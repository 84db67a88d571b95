"""Which joint of a skeleton is which part of a person, by the names that tools give and by what hangs on what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harvest.errors import UserError
from harvest.studio.recording import Recording

# What tools call a part, the surest name first: a shoulder is an upper arm only where nothing else is.
LIMB_NAMES: dict[str, tuple[str, ...]] = {
    "upperleg": ("upperleg", "upleg", "uleg", "thigh", "femur", "hip"),
    "lowerleg": ("lowerleg", "lowleg", "shin", "calf", "tibia", "shank", "knee", "leg"),
    "foot": ("ankle", "foot"),
    "upperarm": ("upperarm", "uparm", "uarm", "humerus", "shldr", "arm", "shoulder"),
    "lowerarm": ("lowerarm", "lowarm", "forearm", "farm", "radius", "elbow"),
    "wrist": ("hand", "wrist"),
}
REQUIRED = ("upperleg", "lowerleg", "upperarm", "lowerarm")
SIDES = {"L": ("left", "l"), "R": ("right", "r")}


def find_joints(recording: Recording, where: str) -> dict[str, int]:
    """The joint of each channel that the skeleton has a joint for.

    Limbs and head are found by name. Hips and chest are where legs and arms branch off, the spine lies between these
    two, the neck between chest and head, a clavicle between chest and upper arm; of more joints than channels the
    first, the middle one and the last are taken.

    Raises:
        UserError: a leg or an arm is not there, or does not hang together; names `where`.
    """
    found = _named(recording.joints)
    _check_limbs(recording, found, where)
    hips = _branching(recording, found["upperleg.L"], found["upperleg.R"])
    chest = _branching(recording, found["upperarm.L"], found["upperarm.R"])
    if "neck" in recording.joints[chest].lower():  # of bipeds whose clavicles hang on the neck
        chest = max(recording.parents[chest], 0)
    if hips not in recording.above(chest):
        raise UserError(
            f"{where}: the arms hang on {recording.joints[chest]}, which has to hang on {recording.joints[hips]}"
        )
    found["root"] = hips
    if chest != hips:
        spine = [*_between(recording, hips, chest), chest]
        found |= {"spine03": spine[(len(spine) - 1) // 2], "spine01": spine[-1]}
        if len(spine) > 1:
            found["spine04"] = spine[0]
    neck = _between(recording, chest, found.get("head", chest))
    if not neck and "head" in found and "neck" in recording.joints[found["head"]].lower():
        neck = [found["head"]]
    if neck:
        found |= {"neck01": neck[0], "neck03": neck[-1]}
    for side in SIDES:
        if collar := [j for j in _between(recording, chest, found[f"upperarm.{side}"]) if j not in neck]:
            found[f"clavicle.{side}"] = collar[0]
    return found


def plain_names(joints: Sequence[str]) -> list[str]:
    """Small letters and digits of each joint's name, without what a tool puts before every name, and without a 1 at the
    part's end that only numbers it.
    """
    first, last = min(joints[1:], default=""), max(joints[1:], default="")
    same = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), 0)
    shared = re.sub(r"[A-Za-z0-9]*$", "", first[:same])
    plain = []
    for name in joints:
        letters = re.sub(r"[^a-z0-9]", "", name.removeprefix(shared).rsplit(":", 1)[-1].lower())
        letters = re.sub(r"^(mixamorig\d*|bip\d+|def)", "", letters)
        plain.append(re.sub(r"0*1(?=(l|r|left|right)?$)", "", letters))
    return plain


def _named(joints: Sequence[str]) -> dict[str, int]:
    """Limbs and head, as far as they are named."""
    index = {name: joint for joint, name in reversed(list(enumerate(plain_names(joints))))}
    spellings = {"head": ["head", "chead", "neck", "cneck"]}
    for part, names in LIMB_NAMES.items():
        for side, words in SIDES.items():
            spellings[f"{part}.{side}"] = [s for name in names for word in words for s in (word + name, name + word)]
    return {part: index[known[0]] for part, some in spellings.items() if (known := [s for s in some if s in index])}


def _check_limbs(recording: Recording, found: Mapping[str, int], where: str) -> None:
    """Both legs and both arms are there, and the lower half of each hangs on the upper one."""
    missing = [f"{part}.{side}" for part in REQUIRED for side in SIDES if f"{part}.{side}" not in found]
    if missing:
        known = "; ".join(f"{part}: {', '.join(LIMB_NAMES[part])}" for part in REQUIRED if part in " ".join(missing))
        names = ", ".join(name for name in recording.joints if not name.endswith("_end"))
        raise UserError(
            f"{where}: no joint for {', '.join(missing)}; looked for left, right, l or r with ({known}), found {names}"
        )
    for upper, lower in (REQUIRED[:2], REQUIRED[2:]):
        for side in SIDES:
            top, low = found[f"{upper}.{side}"], found[f"{lower}.{side}"]
            if top == low or top not in recording.above(low):
                pair = recording.joints[low], recording.joints[top]
                raise UserError(f"{where}: {pair[0]}, by name the {lower}.{side}, does not hang on {pair[1]}")


def _branching(recording: Recording, one: int, other: int) -> int:
    """The nearest joint that both hang on."""
    above = recording.above(other)
    return next(joint for joint in recording.above(one) if joint in above)


def _between(recording: Recording, upper: int, lower: int) -> list[int]:
    """The joints between two, from the upper one on; none where the lower one does not hang on the upper one."""
    chain = recording.above(lower)
    return chain[chain.index(upper) - 1 : 0 : -1] if upper in chain[1:] else []

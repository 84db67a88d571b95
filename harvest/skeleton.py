"""Skeletons: named joints, the tree that binds them, and typical proportions; read from YAML, mapped by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from harvest.errors import UserError

BUILT_IN = ("mpii16", "harvest21", "blazepose", "coco17", "h36m17", "body25", "halpe26", "cmu19")
LATENT_WORD = "latent"


@dataclass(frozen=True)
class Limb:
    """An edge of the tree: child and parent by name, its typical length as a share of body height, and how far that
    length may change in one person (share of body height; 0 for a bone, more across the trunk and neck).
    """

    child: str
    parent: str
    share_of_height: float
    slack: float = 0.0


@dataclass(frozen=True)
class Skeleton:
    """A tree of named joints.

    joints: names in storage order. limbs: one per joint but the root, any order. latent: joints that no detector
    shows; their place follows from their neighbours alone.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[Limb, ...]
    latent: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check that names are unique and known, that the limbs form one tree, and that they have lengths."""
        if len(set(self.joints)) != len(self.joints) or not self.joints:
            raise UserError(f"skeleton '{self.name}': joint names must be given and differ")
        unknown = ({j for limb in self.limbs for j in (limb.child, limb.parent)} | self.latent) - set(self.joints)
        if unknown:
            raise UserError(f"skeleton '{self.name}': '{sorted(unknown)[0]}' is not among its joints")
        children = [limb.child for limb in self.limbs]
        if (
            len(set(children)) != len(children)
            or len(children) != len(self.joints) - 1
            or len(self.order) != len(self.joints)
        ):
            raise UserError(f"skeleton '{self.name}': limbs must form one tree, each joint but the root once as child")
        for limb in self.limbs:
            if not (0 < limb.share_of_height < np.inf and 0 <= limb.slack < np.inf):
                raise UserError(f"skeleton '{self.name}': '{limb.child}' needs a length above 0 and a slack from 0")

    def index(self, joint: str) -> int:
        """The joint's place in storage order."""
        return self.joints.index(joint)

    @cached_property
    def parents(self) -> NDArray[np.int64]:
        """(J,) index of each joint's parent, -1 for the root."""
        parents = np.full(len(self.joints), -1, dtype=np.int64)
        for limb in self.limbs:
            parents[self.index(limb.child)] = self.index(limb.parent)
        return parents

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Joint indices, each after its parent; shorter than `joints` if the limbs hold a cycle."""
        children = {limb.child for limb in self.limbs}
        found = [index for index, joint in enumerate(self.joints) if joint not in children]
        for index in found:
            found += [self.index(limb.child) for limb in self.limbs if limb.parent == self.joints[index]]
        return tuple(found)

    def limb_of(self, joint: int) -> Limb:
        """The limb from a joint (by index, not the root) to its parent."""
        return next(limb for limb in self.limbs if limb.child == self.joints[joint])

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """(J,) typical length of the limb from each joint to its parent, as a share of body height; NaN at the root."""
        shares = np.full(len(self.joints), np.nan)
        for limb in self.limbs:
            shares[self.index(limb.child)] = limb.share_of_height
        return shares

    @cached_property
    def mirror(self) -> NDArray[np.int64]:
        """(J,) index of each joint's counterpart on the other side; itself for joints of the middle."""
        return np.array([self.index(mirror_name(joint, self.joints)) for joint in self.joints])


def mirror_name(joint: str, among: Sequence[str]) -> str:
    """The name of the joint on the other side (`l_` and `r_` exchanged), or the same name if there is none."""
    swapped = {"l_": "r_", "r_": "l_"}.get(joint[:2], joint[:2]) + joint[2:]
    return swapped if swapped in among else joint


def load_skeleton(name_or_path: str | Path) -> Skeleton:
    """The built-in skeleton of that name, or the one a YAML file describes.

    Raises:
        UserError: an unknown name, an unreadable file, or one whose limbs are no tree.
    """
    if str(name_or_path) in BUILT_IN:
        text = (resources.files("harvest") / "skeletons" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except OSError:
            raise UserError(
                f"no skeleton '{name_or_path}': give one of {', '.join(BUILT_IN)}, or a YAML file (docs/skeletons.md)"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"skeleton file '{name_or_path}' is not UTF-8 text; see docs/skeletons.md") from None
    try:
        return _parse(yaml.safe_load(text), str(name_or_path))
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"skeleton file '{name_or_path}' cannot be read ({reason}); see docs/skeletons.md") from None


def _parse(content: Any, name: str) -> Skeleton:
    missing = [key for key in ("joints", "limbs") if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"key '{missing[0]}' is missing")
    limbs = tuple(Limb(str(row[0]), str(row[1]), *map(float, row[2:])) for row in content["limbs"])
    joints = tuple(str(joint) for joint in content["joints"])
    return Skeleton(str(content.get("name", name)), joints, limbs, frozenset(content.get(LATENT_WORD, ())))


def joint_sources(target: str, available: Sequence[str]) -> tuple[str, ...]:
    """Names among `available` whose mean is the joint `target`: itself, or the two sides it lies between; else empty.

    The middle joints of one convention are the midpoints of another's sides: pelvis of the hips, thorax and neck of
    the shoulders. Nothing else is made up.
    """
    for name in (target, *SYNONYMS.get(target, ())):
        if name in available:
            return (name,)
    sides = MIDPOINTS.get(target, ())
    return sides if sides and all(side in available for side in sides) else ()


SYNONYMS = {
    "pelvis": ("mid_hip", "body_center"),
    "mid_hip": ("pelvis", "body_center"),
    "body_center": ("pelvis", "mid_hip"),
}
MIDPOINTS = {
    "pelvis": ("l_hip", "r_hip"),
    "mid_hip": ("l_hip", "r_hip"),
    "body_center": ("l_hip", "r_hip"),
    "thorax": ("l_shoulder", "r_shoulder"),
    "neck": ("l_shoulder", "r_shoulder"),
}

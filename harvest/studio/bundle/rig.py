"""The skeleton that moves a body, which bone moves which vertex, and the parts of a body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.studio.bundle.base_mesh import BaseMesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Bones of faces and breasts are taken out: a label never looks at them. Their vertices follow the next bone up.
LEFT_OUT = (
    *("breast", "jaw", "special", "oris", "tongue", "levator", "orbicularis", "temporalis", "oculi", "risorius"),
)
PARTS = (
    *("torso", "head", "upperarm_l", "lowerarm_l", "hand_l", "upperarm_r", "lowerarm_r", "hand_r"),
    *("thigh_l", "shank_l", "foot_l", "thigh_r", "shank_r", "foot_r"),
)
PART_OF = {
    **{"neck": "head", "head": "head", "eye": "head"},
    **{"upperarm": "upperarm", "lowerarm": "lowerarm", "wrist": "hand", "finger": "hand", "metacarpal": "hand"},
    **{"upperleg": "thigh", "lowerleg": "shank", "foot": "foot", "toe": "foot"},
}
LEGS = ("thigh", "shank", "foot")
MOST_BONES, LEAST_WEIGHT = 8, 1e-3


@dataclass(frozen=True)
class Rig:
    """Bones with parents first: names, parents (-1: none), weights (N, B) whose rows sum to one, and for each bone the
    vertices whose mean is its head.
    """

    names: tuple[str, ...]
    parents: Ints
    weights: Floats
    head_vertices: tuple[Ints, ...]

    def heads(self, vertices: Floats) -> Floats:
        """(..., B, 3) heads of bones in bodies with vertices (..., N, 3)."""
        return np.stack([vertices[..., at, :].mean(axis=-2) for at in self.head_vertices], axis=-2)


def read_rig(bones: Mapping[str, Any], weights: Mapping[str, Any], mesh: BaseMesh) -> Rig:
    """The skeleton of MPFB's rig and weight files (as JSON reads them), without the bones that are left out.

    The root begins where the pelvis does, its end in the file: nothing of a body lies at its beginning.
    """
    order: list[str] = []

    def add(name: str) -> None:
        order.append(name)
        for child in bones:
            if bones[child].get("parent") == name:
                add(child)

    add(next(name for name in bones if not bones[name].get("parent")))
    names = tuple(name for name in order if not name.startswith(LEFT_OUT))
    index = {name: i for i, name in enumerate(names)}

    def kept(name: str) -> int:
        return index[name] if name in index else kept(bones[name]["parent"])

    dense = np.zeros((len(mesh.vertices), len(names)))
    for name, pairs in weights.items():
        if pairs:
            at, weight = np.array(pairs).T
            np.add.at(dense[:, kept(name)], at.astype(np.int64), weight)
    parents = [-1] + [kept(bones[name]["parent"]) for name in names[1:]]
    ends = [bones[name]["head" if parent >= 0 else "tail"] for name, parent in zip(names, parents)]
    heads = tuple(_vertices_of(end, mesh) for end in ends)
    return Rig(names, np.array(parents), dense / dense.sum(axis=1, keepdims=True), heads)


def _vertices_of(end: Mapping[str, Any], mesh: BaseMesh) -> Ints:
    if end["strategy"] == "CUBE":
        return mesh.of_group(end["cube_name"])
    return np.array([end["vertex_index"]] if end["strategy"] == "VERTEX" else end["vertex_indices"], np.int64)


def packed_weights(weights: Floats) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The eight largest weights of each vertex, largest first, without those under a thousandth, and their bones."""
    large = np.where(weights < LEAST_WEIGHT, 0, weights)
    bones = np.argsort(-large, axis=1, kind="stable")[:, :MOST_BONES]
    chosen = np.take_along_axis(large, bones, axis=1)
    chosen /= chosen.sum(axis=1, keepdims=True)
    return chosen.astype(np.float16), np.where(chosen > 0, bones, 0).astype(np.uint8)


def side_of(bone: str) -> int:
    """+1 left, -1 right, 0 middle."""
    return {"L": 1, "R": -1}.get(bone.rpartition(".")[2], 0)


def mirrored(bone: str) -> str:
    """The bone's partner on the other side, or itself."""
    stem, _, side = bone.rpartition(".")
    return f"{stem}.{'R' if side == 'L' else 'L'}" if side in ("L", "R") else bone


def part_of(bone: str) -> str:
    """The part of the body, one of PARTS, that a bone moves."""
    stem = next((PART_OF[stem] for stem in PART_OF if bone.startswith(stem)), "torso")
    return stem if stem in PARTS else f"{stem}_{'l' if side_of(bone) > 0 else 'r'}"


def labels(rig: Rig, faces: Ints, skin_vertices: int) -> dict[str, NDArray[Any]]:
    """Parts and sides of bones, vertices and faces, as bodies.npz has them."""
    bone_part = np.array([PARTS.index(part_of(name)) for name in rig.names], np.uint8)
    shares = np.stack([rig.weights[:, bone_part == part].sum(axis=1) for part in range(len(PARTS))], axis=1)
    vertex_part = shares.argmax(axis=1).astype(np.uint8)
    votes = (vertex_part[faces][..., None] == np.arange(len(PARTS))).sum(axis=1)
    below = [part_of(name).startswith(LEGS) or name.startswith(("pelvis", "root")) for name in rig.names]
    return {
        "bone_names": np.array(rig.names),
        "bone_parents": rig.parents.astype(np.int16),
        "bone_side": np.array([side_of(name) for name in rig.names], np.int8),
        "bone_mirror": np.array([rig.names.index(mirrored(name)) for name in rig.names], np.int16),
        "bone_part": bone_part,
        "part_names": np.array(PARTS),
        "vertex_part": vertex_part,
        "face_part": votes.argmax(axis=1).astype(np.uint8),
        "face_is_skin": (faces < skin_vertices).all(axis=1),
        "vertex_is_lower": rig.weights[:, below].sum(axis=1) >= 0.5,
    }

"""People's bodies: a shape from a few traits, a skeleton of bones, and where joints are once it is posed.

Axes: metres, z up; a rest body faces -y, its left is +x; the rest pose holds the arms about 45 degrees down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from harvest.errors import UserError

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

# What a trait from 0 to 1 mixes: names of extreme bodies, and the values at which each of them is pure.
TRAITS: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "gender": (("male", "female"), (0, 1)),
    "age": (("young", "old"), (2 / 3, 1)),  # adults alone
    "muscle": (("minmuscle", "averagemuscle", "maxmuscle"), (0, 0.5, 1)),
    "weight": (("minweight", "averageweight", "maxweight"), (0, 0.5, 1)),
    "height": (("minheight", "maxheight"), (0, 1)),
    "proportions": (("idealproportions", "uncommonproportions"), (0, 1)),
    "cupsize": (("mincup", "averagecup", "maxcup"), (0, 0.5, 1)),
    "firmness": (("minfirmness", "averagefirmness", "maxfirmness"), (0, 0.5, 1)),
}
ANCESTRIES = ("african", "asian", "caucasian")  # shares that are divided by their sum
JOINT_SETS = ("mpii16", "h36m17", "coco17")
MOST_BONES = 6  # that move a vertex; the rest weigh next to nothing
LEAST_WEIGHT = 0.01


class BodyModel:
    """What all bodies share: mesh, bones, how traits become a shape. Arrays as in the bundle's bodies.npz."""

    def __init__(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take the arrays of bodies.npz."""
        self.faces = arrays["faces"].astype(np.int32)
        self.face_uv = arrays["face_uv"].astype(np.int32)
        self.uv = arrays["uv"].astype(np.float32)
        self.bones = tuple(str(name) for name in arrays["bone_names"])
        self.parents = arrays["bone_parents"].astype(np.int64)
        self.bone_part = arrays["bone_part"].astype(np.int64)
        self.is_lower = arrays["vertex_is_lower"].astype(bool)
        self.skin_vertices = int(arrays["body_vertex_count"])
        self._mean = arrays["shape_mean_vertices"].astype(np.float32), arrays["shape_mean_heads"].astype(np.float32)
        basis = arrays["shape_basis_vertices"].astype(np.float32), arrays["shape_basis_heads"].astype(np.float32)
        self._basis = basis[0].reshape(len(basis[0]), -1), basis[1].reshape(len(basis[1]), -1)
        self._extremes = tuple(str(name) for name in arrays["shape_variations"])
        mask = np.unpackbits(arrays["shape_product_mask"].astype(np.uint8), axis=1)
        self._products = mask[:, : len(self._extremes)].astype(bool)
        self._from_products = arrays["shape_product_to_z"].astype(np.float64), arrays["shape_z0"].astype(np.float64)
        self.dense_weights = np.zeros((len(arrays["skin_weights"]), len(self.bones)), np.float32)
        weights, rows = arrays["skin_weights"].astype(np.float32), np.arange(len(arrays["skin_weights"]))[:, None]
        np.add.at(self.dense_weights, (rows, arrays["skin_bones"].astype(np.int64)), weights)
        self.dense_weights /= self.dense_weights.sum(axis=1, keepdims=True)
        self._coco = arrays["coco_row"].astype(np.int64), arrays["coco_vertex"].astype(np.int64), arrays["coco_weight"]
        self._joint_bones = {name: [str(bone) for bone in arrays[f"{name}_bones"]] for name in ("mpii16", "h36m17")}

    def bone(self, name: str) -> int:
        """The index of a bone."""
        return self.bones.index(name)

    @cached_property
    def skin(self) -> tuple[Floats32, NDArray[np.int32]]:
        """Weights and bones (N, MOST_BONES) that move each vertex."""
        return strongest(self.dense_weights)

    def shape(self, traits: Mapping[str, float]) -> Body:
        """The rest body of a person with these traits.

        Raises:
            UserError: a trait is missing or lies outside 0 to 1.
        """
        needed = (*TRAITS, *ANCESTRIES)
        wrong = [name for name in needed if not 0 <= traits.get(name, -1.0) <= 1]
        if wrong:
            raise UserError(f"a body needs the traits {', '.join(needed)} from 0 to 1; wrong: {', '.join(wrong)}")
        mix = dict.fromkeys(self._extremes, 0.0)
        total = sum(traits[name] for name in ANCESTRIES)
        for name in ANCESTRIES:
            mix[name] = traits[name] / total
        for trait, (extremes, anchors) in TRAITS.items():
            for i, name in enumerate(extremes):
                mix[name] = float(np.interp(traits[trait], anchors, np.eye(len(anchors))[i]))
        products = np.where(self._products, list(mix.values()), 1.0).prod(axis=1)
        z = (products @ self._from_products[0] - self._from_products[1]).astype(np.float32)
        vertices, heads = (mean + (z @ basis).reshape(mean.shape) for mean, basis in zip(self._mean, self._basis))
        return Body(self, vertices, heads.astype(np.float64))

    def coco_tensor(self, vertices: Floats32) -> Floats:
        """(17, B, 4) that gives COCO's joints of a posed body: sum over bones of the bone's transform times this."""
        rows, at, weight = self._coco
        use = rows < 17
        rows, at, weight = rows[use], at[use], weight[use].astype(np.float64)
        point = np.column_stack([vertices[at].astype(np.float64), np.ones(len(at))])
        tensor = np.zeros((17, len(self.bones), 4))
        for row in range(17):
            here = rows == row
            tensor[row] = (self.dense_weights[at[here]] * weight[here, None]).T.astype(np.float64) @ point[here]
        return tensor


def strongest(weights: Floats32) -> tuple[Floats32, NDArray[np.int32]]:
    """The MOST_BONES largest of dense weights (N, B), largest first, normalised, with the bones that they belong to."""
    bones = np.argsort(-weights, axis=1, kind="stable")[:, :MOST_BONES]
    chosen = np.take_along_axis(weights, bones, axis=1)
    chosen[chosen < LEAST_WEIGHT] = 0
    return (chosen / chosen.sum(axis=1, keepdims=True)).astype(np.float32), bones.astype(np.int32)


@dataclass(frozen=True)
class Body:
    """One person at rest: vertices (N, 3) float32 and where bones begin, heads (B, 3), metres."""

    model: BodyModel
    vertices: Floats32
    heads: Floats

    def length(self, *bones: str) -> float:
        """Metres along a chain of bones, from the first one's head to the last one's."""
        points = self.heads[[self.model.bone(name) for name in bones]]
        return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())

    @cached_property
    def leg_m(self) -> float:
        """Thigh and shank."""
        return self.length("upperleg01.L", "lowerleg01.L", "foot.L")

    @cached_property
    def top(self) -> Floats:
        """The highest point of the skin at rest."""
        skin = self.vertices[: self.model.skin_vertices]
        return skin[skin[:, 2].argmax()].astype(np.float64)

    @cached_property
    def fingers(self) -> list[tuple[list[int], Floats, float]]:
        """Each finger's three bones, the axis (3,) across the palm about which they bend, and how far, in radians."""
        model, found = self.model, []
        for side, sign in (("L", 1.0), ("R", -1.0)):
            wrist, index, little = (
                self.heads[model.bone(f"{name}.{side}")] for name in ("wrist", "finger2-1", "finger5-1")
            )
            palm = sign * np.cross(index - wrist, little - wrist)
            for finger in range(1, 6):
                bones = [model.bone(f"finger{finger}-{joint}.{side}") for joint in (1, 2, 3)]
                axis = np.cross(palm, self.heads[bones[1]] - self.heads[bones[0]])
                found.append((bones, axis, float(np.radians(20.0 if finger == 1 else 75.0))))
        return found

    @cached_property
    def _coco(self) -> Floats:
        return self.model.coco_tensor(self.vertices)

    def pose(self, turns: Floats, root_m: Floats) -> Pose:
        """This body with bones turned in the world by `turns` (T, B, 3, 3) from rest, its root at root_m (T, 3)."""
        return Pose(self, *forward_kinematics(self.model.parents, self.heads, turns, root_m))


@dataclass(frozen=True)
class Pose:
    """A body in T frames: transforms (T, B, 3, 4) from rest to the world, heads_m (T, B, 3) of its bones."""

    body: Body
    transforms: Floats
    heads_m: Floats

    def joints(self, joint_set: str) -> Floats:
        """(T, J, 3) world positions, metres, of 'mpii16', 'h36m17' or 'coco17', in the order of the skeleton so named.

        Joints of the first two are the points about which bones turn, the pelvis lies between the hips and head_top
        moves with the head; COCO's are points of the skin, as its annotators mark them, mixed from many vertices.
        """
        if joint_set not in self._found:
            self._found[joint_set] = self._joints(joint_set)
        return self._found[joint_set]

    @cached_property
    def _found(self) -> dict[str, Floats]:
        return {}

    def _joints(self, joint_set: str) -> Floats:
        model = self.body.model
        if joint_set == "coco17":
            return np.asarray(np.einsum("jba,tbia->tji", self.body._coco, self.transforms))
        found = []
        for name in model._joint_bones[joint_set]:
            if name == "MIDHIP":
                hips = [model.bone("upperleg01.L"), model.bone("upperleg01.R")]
                found.append(self.heads_m[:, hips].mean(axis=1))
            elif name == "HEADTOP":
                head = self.transforms[:, model.bone("head")]
                found.append(head[:, :, :3] @ self.body.top + head[:, :, 3])
            else:
                found.append(self.heads_m[:, model.bone(name)])
        return np.stack(found, axis=1)


@njit(cache=True, nogil=True, error_model="numpy")
def forward_kinematics(parents, heads, turns, root_m):  # type: ignore[no-untyped-def]
    """Transforms (T, B, 3, 4) from rest to the world and heads (T, B, 3), parents before their children.

    A bone's head moves with its parent; the bone turns about it: T = [D | p - D h].
    """
    frames, bones = turns.shape[:2]
    transforms, place = np.empty((frames, bones, 3, 4)), np.empty((frames, bones, 3))
    for t in range(frames):
        for b in range(bones):
            parent = parents[b]
            for i in range(3):
                if parent < 0:
                    place[t, b, i] = root_m[t, i]
                else:
                    moved = place[t, parent, i]
                    for a in range(3):
                        moved += turns[t, parent, i, a] * (heads[b, a] - heads[parent, a])
                    place[t, b, i] = moved
            for i in range(3):
                shift = place[t, b, i]
                for a in range(3):
                    transforms[t, b, i, a] = turns[t, b, i, a]
                    shift -= turns[t, b, i, a] * heads[b, a]
                transforms[t, b, i, 3] = shift
    return transforms, place

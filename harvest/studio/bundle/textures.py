"""Textures: those of clothes as they come, those of skin blurred where nothing needs to be seen, and plain ones.

Bodies in the studio are always clothed; torso and pelvis of the skin are blurred all the same.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.studio.bundle.garments import PROXIES, Item

Picture = NDArray[np.uint8]
Floats32 = NDArray[np.float32]
SIZE_PX, PLAIN_PX = 512, 8
QUALITY = {"diffuse": 85, "normal": 90}  # of WebP
FOLDER = "textures"
SKIN_FOLDER = "package/public/data/skins/"
SKINS = (
    *("young_lightskinned_male_diffuse3", "young_lightskinned_male_diffuse", "young_lightskinned_male_diffuse2"),
    *("middleage_lightskinned_male_diffuse", "middleage_lightskinned_male_diffuse2", "old_lightskinned_male_diffuse"),
    *("young_darkskinned_male_diffuse", "middleage_darkskinned_male_diffuse", "young_lightskinned_female_diffuse3"),
    *("young_lightskinned_female_diffuse", "young_lightskinned_female_diffuse2"),
    *("middleage_lightskinned_female_diffuse", "old_lightskinned_female_diffuse", "young_darkskinned_female_diffuse"),
    "middleage_darkskinned_female_diffuse",
)
# Plain colours for a bundle without textures, blue green red and opacity. Eyebrows are flat patches of skin that show
# hair by opacity alone: without it they are better not seen.
PLAIN = {
    "suit": (150, 150, 150, 255),
    "shoes": (110, 110, 110, 255),
    "hair": (32, 40, 56, 255),
    "eyebrow": (32, 40, 56, 0),
}
PLAIN_SKINS = {
    "light": {"young": (150, 178, 222), "middleage": (136, 166, 212), "old": (140, 164, 205)},
    "dark": {"young": (72, 100, 148), "middleage": (54, 78, 118)},
}
BLUR_PX = 14.0  # wider than any mark on a torso, narrower than a limb
FADE_PX = 6.0  # over which the blurred part gives way to the rest
RIM_PX = 3  # colour reaches this far beyond the mesh, so that filtering at its rim finds skin
BLURRED = ("torso", "thigh_l", "thigh_r")


def wanted(name: str) -> bool:
    """Whether a file of MakeHuman's package may be a texture of the bundle."""
    return name.endswith(".png") and "/textures/" in name and name.startswith((PROXIES, SKIN_FOLDER))


def garment_textures(item: Item, model: Mapping[str, Any], files: Mapping[str, bytes], out: Path) -> dict[str, Any]:
    """Write an item's pictures; what garments.json says of them."""
    material, said = model["materials"][0], {}
    for kind, key in (("diffuse", "mapDiffuse"), ("normal", "mapNormal")):
        inside = posixpath.join(posixpath.dirname(item.path), material[key]) if material.get(key) else None
        said[kind] = f"{FOLDER}/{item.key.replace('/', '__')}_{kind}.webp" if inside else None
        if inside:
            picture = _read(files[inside])
            opaque = kind == "normal" and picture.shape[2] == 4  # one file has an opacity that says nothing
            write_picture(out / str(said[kind]), picture[..., :3] if opaque else picture, QUALITY[kind])
    return said


def plain_textures(item: Item, out: Path) -> dict[str, Any]:
    """Write a plain picture for an item whose texture is left out; what garments.json says of it."""
    name = f"{FOLDER}/plain__{item.kind}.webp"
    write_picture(out / name, np.full((PLAIN_PX, PLAIN_PX, 4), PLAIN[item.kind], np.uint8))
    # Opacity is the picture's alone; what is opaque all over needs no test.
    return {"alpha_test": item.kind == "eyebrow", "diffuse": name, "normal": None, "procedural": True}


def skin_textures(files: Mapping[str, bytes], bodies: Mapping[str, NDArray[Any]], out: Path) -> list[dict[str, Any]]:
    """Write the skins, blurred at torso and pelvis; what garments.json says of them."""
    seen, blurred = skin_masks(bodies)
    paths = {posixpath.basename(name): name for name in files if name.startswith(SKIN_FOLDER)}
    entries = [_skin_entry(picture) for picture in SKINS]
    for entry in entries:
        picture = _read(files[paths[entry["source"]]])[..., :3]
        write_picture(out / entry["file"], blur_skin(picture, seen, blurred))
    return entries


def _skin_entry(picture: str) -> dict[str, Any]:
    """What garments.json says of a skin: the name of its picture says age, tone and sex."""
    age, tone, sex = picture.split("_")[:3]
    file = f"{FOLDER}/skin__{picture.replace('_diffuse', '')}.webp"
    entry = {"file": file, "sex": sex, "group": tone.removesuffix("skinned"), "age": age}
    return entry | {"source": f"{picture}.png", "torso_smoothed": True}


def plain_skins(out: Path) -> list[dict[str, Any]]:
    """Write skins of one colour each, for a bundle without textures; what garments.json says of them."""
    entries = []
    for tone, colours in PLAIN_SKINS.items():
        for age, colour in colours.items():
            name = f"{FOLDER}/plain__skin_{tone}_{age}.webp"
            write_picture(out / name, np.full((PLAIN_PX, PLAIN_PX, 3), colour, np.uint8))
            entry = {"file": name, "group": tone, "age": age, "source": "one colour", "torso_smoothed": True}
            entries += [entry | {"sex": sex, "procedural": True} for sex in ("male", "female")]
    return entries


def skin_masks(bodies: Mapping[str, NDArray[Any]]) -> tuple[Floats32, Floats32]:
    """Where a skin texture is seen, and how far it is blurred there: both (SIZE_PX, SIZE_PX), from 0 to 1."""
    corners = bodies["uv"][bodies["face_uv"].astype(np.int64)]
    parts = [list(bodies["part_names"]).index(name) for name in BLURRED]
    of_parts = np.nonzero(np.isin(bodies["face_part"], parts) & bodies["face_is_skin"])[0]
    rim = np.ones((2 * RIM_PX + 1, 2 * RIM_PX + 1))
    seen = np.asarray(cv2.dilate(painted(corners, range(len(corners))), rim), np.float32)
    blurred = cv2.GaussianBlur(cv2.dilate(painted(corners, of_parts), rim), (0, 0), FADE_PX)
    return seen, np.asarray(blurred * seen, np.float32)


def painted(corners: NDArray[Any], chosen: Iterable[int]) -> Floats32:
    """(SIZE_PX, SIZE_PX) one inside the chosen of the triangles with these uv corners (F, 3, 2), else zero."""
    picture = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    pixels = np.stack([corners[..., 0], 1 - corners[..., 1]], axis=-1) * SIZE_PX - 0.5
    fixed = np.round(pixels * 16).astype(np.int32)  # four binary places, as `shift` says
    for face in chosen:
        cv2.fillConvexPoly(picture, fixed[face], 1.0, shift=4)
    return picture


def blur_skin(picture: Picture, seen: Floats32, blurred: Floats32) -> Picture:
    """A skin texture whose blurred part shows no detail, and whose unseen part is of the mean colour.

    The unseen part also holds what the mesh left out, which is not for a bundle of clothed people.
    """
    share = blurred[..., None]
    around = cv2.GaussianBlur(blurred, (0, 0), BLUR_PX)[..., None] + 1e-6  # mixes with nothing from outside
    colour = low = picture.astype(np.float32)
    for _ in range(2):  # once spreads a dark mark thin, twice hides it
        low = cv2.GaussianBlur(low * share, (0, 0), BLUR_PX) / around
    colour = np.where(share > 0.01, colour + share * (low - colour), colour)
    mean = colour[seen > 0].mean(axis=0)
    return np.round(np.where(seen[..., None] > 0, colour, mean)).astype(np.uint8)


def write_picture(path: Path, picture: Picture, quality: int = QUALITY["diffuse"]) -> None:
    """Write a WebP, without opacity if nothing of it shows.

    Raises:
        OSError: it cannot be written.
    """
    if picture.shape[2] == 4 and picture[..., 3].min() == 255:
        picture = picture[..., :3]
    done, content = cv2.imencode(".webp", np.ascontiguousarray(picture), [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise OSError(f"cannot encode {path.name} as WebP")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.tobytes())


def _read(content: bytes) -> Picture:
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError("a texture of the package is no picture that OpenCV reads")
    if picture.shape[:2] != (SIZE_PX, SIZE_PX):
        picture = cv2.resize(picture, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(picture, np.uint8)

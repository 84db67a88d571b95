"""Contact sheets: pictures of what was made, with its truth drawn over every other one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.skeleton import load_skeleton
from harvest.studio.truth import HIDDEN, OUTSIDE

Bytes = NDArray[np.uint8]
TILE_PX, COLUMNS, ROWS = 256, 8, 8
LEFT, RIGHT, MIDDLE = (60, 140, 255), (255, 90, 60), (250, 240, 90)
UNSEEN = (120, 120, 120)


def draw_joints(picture: Bytes, uv: NDArray[Any], visibility: NDArray[Any], joint_set: str) -> Bytes:
    """A copy of a picture with a skeleton's limbs and joints; left, right and middle in colours, hidden joints grey."""
    skeleton, out = load_skeleton(joint_set), np.ascontiguousarray(picture).copy()
    scale = 16

    def at(joint: int) -> tuple[int, int]:
        return int(round(uv[joint, 0] * scale)), int(round(uv[joint, 1] * scale))

    drawn = np.isfinite(uv).all(axis=1) & (visibility != OUTSIDE)
    width = max(1, out.shape[0] // 200)
    for limb in skeleton.limbs:
        child, parent = skeleton.index(limb.child), skeleton.index(limb.parent)
        if drawn[child] and drawn[parent]:
            cv2.line(out, at(child), at(parent), _colour(limb.child), width, cv2.LINE_AA, 4)
    for joint in np.flatnonzero(drawn):
        colour = UNSEEN if visibility[joint] == HIDDEN else _colour(skeleton.joints[joint])
        cv2.circle(out, at(int(joint)), int(1.6 * width * scale), colour, -1, cv2.LINE_AA, 4)
    return out


def _colour(joint: str) -> tuple[int, int, int]:
    return {"l": LEFT, "r": RIGHT}.get(joint.split("_")[0], MIDDLE)


def sheet_of_crops(shard: Path, out: Path) -> None:
    """Crops of a shard, COCO's joints over every other one."""
    tiles = []
    with tarfile.open(shard) as tar:
        names = [name for name in tar.getnames() if name.endswith(".jpg")]
        for place, name in enumerate(_spread(names, COLUMNS * ROWS)):
            truth = json.loads(_read(tar, name[:-3] + "json"))["joints"]["coco17"] if place % 2 else None
            tiles.append(_crop_tile(_read(tar, name), truth))
    _save(tiles, COLUMNS, out)


def sheet_of_views(shard: Path, out: Path) -> None:
    """Multi-view samples of a shard, a row each of up to COLUMNS views, COCO's joints over every other sample."""
    tiles = []
    with tarfile.open(shard) as tar:
        names = [name for name in tar.getnames() if name.endswith(".json")]
        for place, name in enumerate(_spread(names, ROWS)):
            truths = json.loads(_read(tar, name))["joints"]["coco17"]["views"][:COLUMNS]
            row = [
                _crop_tile(_read(tar, f"{name[:-4]}{view}.jpg"), truth if place % 2 else None)
                for view, truth in enumerate(truths)
            ]
            tiles += row + [np.zeros((TILE_PX, TILE_PX, 3), np.uint8)] * (COLUMNS - len(row))
    _save(tiles, COLUMNS, out)


def _spread(names: list[str], most: int) -> list[str]:
    """At most so many of the names, evenly spread."""
    return names[:: max(len(names) // most, 1)][:most]


def _crop_tile(jpg: bytes, truth: dict[str, Any] | None) -> Bytes:
    """A picture in a square, with COCO's joints over it if a label of them is given."""
    found = cv2.imdecode(np.frombuffer(jpg, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None  # we wrote it
    picture = np.asarray(found[..., ::-1], np.uint8)
    if truth is not None:
        uv = np.array([[np.nan, np.nan] if point is None else point for point in truth["uv_px"]])
        picture = draw_joints(picture, uv, np.array(truth["visibility"]), "coco17")
    return _tile(picture)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member is not None
    return member.read()


def sheet_of_takes(folders: list[Path], out: Path) -> None:
    """Takes of a set: one moment of each seen by up to four cameras, as it is and with MPII's joints over it."""
    tiles = []
    for folder in folders[: 2 * ROWS]:
        with np.load(folder / "truth" / "joints.npz", allow_pickle=False) as truth:
            uv, seen, views = truth["mpii16_uv_px"], truth["mpii16_visibility"], [str(v) for v in truth["views"]]
        frame = uv.shape[2] // 2
        row = []
        for number in range(COLUMNS // 2):
            if number >= len(views):
                row += [np.zeros((TILE_PX, TILE_PX, 3), np.uint8)] * 2
                continue
            picture = _picture(folder / "videos" / f"{views[number]}.mp4", frame)
            drawn = picture
            for person in range(uv.shape[1]):
                drawn = draw_joints(drawn, uv[number, person, frame], seen[number, person, frame], "mpii16")
            row += [_tile(picture), _tile(drawn)]
        tiles += row
    _save(tiles, COLUMNS, out)


def _picture(video: Path, frame: int) -> Bytes:
    with av.open(str(video)) as container:
        for place, picture in enumerate(container.decode(video=0)):
            if place == frame:
                return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
    raise ValueError(f"{video} has no frame {frame}")


def _tile(picture: Bytes) -> Bytes:
    """A picture in a square, black around it."""
    height, width = picture.shape[:2]
    scale = TILE_PX / max(height, width)
    small = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    out = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    y, x = (TILE_PX - small.shape[0]) // 2, (TILE_PX - small.shape[1]) // 2
    out[y : y + small.shape[0], x : x + small.shape[1]] = small
    return out


def _save(tiles: list[Bytes], columns: int, out: Path) -> None:
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns) if len(tiles) >= i + columns]
    if not rows:
        rows = [np.hstack(tiles)]
    cv2.imwrite(str(out), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])

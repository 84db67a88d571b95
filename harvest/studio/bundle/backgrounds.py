"""backgrounds/: photographs without people to stand behind people, from two Debian packages, each with its licence."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from harvest.errors import UserError

LONGEST_PX, QUALITY = 800, 85
WALLPAPERS = "usr/share/backgrounds/"
MONUMENTS = "usr/share/gcompris-qt/rcc/explore_monuments.rcc"
ANIMALS = "usr/share/gcompris-qt/rcc/explore_world_animals.rcc"
COMPRESSED, FOLDER = 1 | 4, 2  # bits of an entry of a Qt resource file
COMMONS = "Wikimedia Commons"
COLUMNS = ("file", "author", "licence", "source", "debian_package")


@dataclass(frozen=True)
class Photograph:
    """One picture: its name in the bundle, without ending, and in the package; who made it, under which licence, and
    where the package has it from.
    """

    name: str
    inside: str
    author: str
    licence: str
    source: str
    package: str

    @property
    def file(self) -> str:
        """Its file below backgrounds/."""
        return f"{self.name}.jpg"


def _wallpaper(name: str, author: str, licence: str) -> Photograph:
    return Photograph(name, f"{WALLPAPERS}{name}.jpg", author, licence, "Lomiri", "lomiri-wallpapers-16.04")


def _monument(name: str, author: str) -> Photograph:
    return Photograph(name, f"{MONUMENTS}/{name}", author, "Public Domain", COMMONS, "gcompris-qt-data")


def _animal(name: str, author: str, licence: str) -> Photograph:
    return Photograph(f"animal_{name}", f"{ANIMALS}/{name}", author, licence, COMMONS, "gcompris-qt-data")


PHOTOGRAPHS = (
    *(
        _monument(name, author)
        for name, author in (
            *(("greatWallofChina", "Nicolas Perrault III"), ("machuPicchu", "Guillaume Pascal")),
            *(("ajantaCave", "Jonathanawhite"), ("goldenTemple", "Jasdeep Singh"), ("greatStupa", "ArnoldBetten")),
            *(("hawaMahal", "Janwiki"), ("konarkSunTemple", "Tetraktys"), ("qutubMinar", "pramadas")),
            *(("rangGhar", "Porikolpok Oxom"), ("arlesAmphitheater", "(WT-fr) OT Arles")),
            *(("chateaudeChenonceau", "Alf van Beem"), ("citedeCarcassonne", "Petitemontagnedujura")),
            *(("montStMichel", "Ali Sabbagh"), ("reimsCathedral", "Mattana"), ("rocamadour", "François Darras")),
        )
    ),
    *(
        _wallpaper(f"{name}_by_Aitzol_Berasategi", "Aitzol Berasategi", "CC-BY-4.0")
        for name in ("aitzgorri", "friends", "life", "picosdeeuropa", "sunset")
    ),
    _wallpaper("seeding_by_Clements_Engelhardt", "Clemens Engelhardt", "CC0-1.0"),
    _wallpaper("Wine_by_Jakkub_Mede", "Jakub Mede", "CC-BY-4.0"),
    _wallpaper("Dragonfly_by_Bolly", "Bolly", "CC-BY-SA-4.0"),
    _wallpaper("Picture_1A_by_freespace", 'Trevor "Freespace"', "CC-BY-4.0"),
    _wallpaper("Picture_0B_by_freespace", 'Trevor "Freespace"', "CC-BY-4.0"),
    _wallpaper("greentock_by_Peter_Nerlich", "Peter Nerlich", "CC-BY-SA-4.0"),
    _animal("koala", "David Iliff", "CC-BY-SA-3.0"),
    _animal("moose", "Ryan Hagerty", "Public Domain"),
    _animal("polar_bear", "Arturo de Frias Marques", "CC-BY-SA-4.0"),
    _animal("crocodile", "Kmanoj", "CC-BY-3.0"),
    _animal("lemur", "Sannse", "CC-BY-SA-3.0"),
)


def wanted(name: str) -> bool:
    """Whether a file of the packages holds photographs."""
    return name.startswith(WALLPAPERS) or name in (MONUMENTS, ANIMALS)


def write_photographs(files: Mapping[str, bytes], out: Path) -> None:
    """Write the photographs that some files of the packages hold."""
    pictures = dict(files)
    for holder in (MONUMENTS, ANIMALS):
        for name, content in read_resources(files[holder]) if holder in files else ():
            pictures[f"{holder}/{name.rpartition('/')[2].partition('.')[0]}"] = content
    out.mkdir(parents=True, exist_ok=True)
    for photograph in PHOTOGRAPHS:
        if photograph.inside in pictures:
            (out / photograph.file).write_bytes(_scaled(pictures[photograph.inside], photograph.name))


def write_attribution(out: Path) -> int:
    """Write whose the photographs in a folder are, if only that there are none; how many they are."""
    out.mkdir(parents=True, exist_ok=True)
    found = [photograph for photograph in PHOTOGRAPHS if (out / photograph.file).is_file()]
    with (out / "attribution.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for photograph in found:
            columns = (photograph.author, photograph.licence, photograph.source, photograph.package)
            table.writerow((photograph.file, *columns))
    return len(found)


def _scaled(content: bytes, name: str) -> bytes:
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise UserError(f"OpenCV cannot read the photograph {name}; build the bundle without Debian's packages")
    factor = min(1.0, LONGEST_PX / max(picture.shape[:2]))
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


def read_resources(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the files in a Qt resource file that are stored as they are.

    Layout, big-endian: 'qres', version, where tree, data and names begin. A node of the tree: where its name is, flags,
    then number and first of a folder's children, or country, language and where a file's data is; from version 2 on a
    time. A name: its length, a hash, UTF-16. Data: its length and itself.
    Source: qresource.cpp of Qt.
    """
    magic, version, tree, data, names = struct.unpack_from(">4sIIII", content)
    if magic != b"qres":
        raise UserError("the package holds a Qt resource file of an unknown kind; build without Debian's packages")
    node_size = 22 if version >= 2 else 14

    def walk(index: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + index * node_size
        name_at, flags = struct.unpack_from(">IH", content, at)
        path = folder
        if index:
            length = struct.unpack_from(">H", content, names + name_at)[0]
            begin = names + name_at + 6
            path = f"{folder}/{content[begin : begin + 2 * length].decode('utf-16-be')}"
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", content, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        elif not flags & COMPRESSED:
            begin = data + struct.unpack_from(">I", content, at + 10)[0]
            size = struct.unpack_from(">I", content, begin)[0]
            yield path, content[begin + 4 : begin + 4 + size]

    yield from walk(0, "")

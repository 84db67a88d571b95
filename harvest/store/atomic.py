"""Writes that either happen or do not: into `name.partial`, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a partial file beside `path`, then put it in place of whatever is there."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    write(partial)
    os.replace(partial, path)


def write_text_atomically(path: Path, text: str) -> None:
    """Put a text file (UTF-8) in place."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def replace_folder(partial: Path, path: Path) -> None:
    """Put a finished folder in place; a former one is moved aside first, so that no mixture can be seen."""
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    os.replace(partial, path)
    shutil.rmtree(old, ignore_errors=True)

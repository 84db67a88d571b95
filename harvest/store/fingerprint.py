"""Fingerprints: short names for exactly these settings, these inputs and this version of a stage."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SAMPLE_BYTES = 1 << 20


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits of a SHA-256 over JSON-like values; equal exactly where the values are."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_fingerprint(path: Path) -> str:
    """Fingerprint of all files below a folder, by relative path and content; of the file itself where it is one."""
    if path.is_file():
        return file_fingerprint(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return fingerprint([(str(file.relative_to(path)), file_fingerprint(file)) for file in files])


def file_fingerprint(path: Path) -> str:
    """Fingerprint of a file's content: its size and three megabytes of it, from the start, the middle and the end.

    Long videos are not read whole. A change that keeps the size and all three samples goes unnoticed.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in sorted({0, max(size // 2 - SAMPLE_BYTES // 2, 0), max(size - SAMPLE_BYTES, 0)}):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]

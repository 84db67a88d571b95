"""Where network weights lie: ours in the package, published ones on this machine, and how they get there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harvest.errors import UserError
from harvest.store.wheel import WheelSource, fetch_members, sha256_of

DETECTOR, PEOPLE = "hourglass-s", "people-s"  # docs/hourglass.md


def shipped(name: str) -> Path:
    """The file of our own weights of that name, part of the package."""
    return Path(__file__).parents[1] / "models" / f"{name}.safetensors"


@dataclass(frozen=True)
class PublishedWeights:
    """Network files inside a wheel: file name here -> (path in the wheel, SHA-256)."""

    source: WheelSource
    files: dict[str, tuple[str, str]]


PUBLISHED = {
    "blazepose": PublishedWeights(
        WheelSource(
            "mediapipe==0.10.14",
            "a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4",
            "Apache-2.0, Google",
            ("--only-binary=:all:", "--platform=manylinux2014_x86_64", "--python-version=311")
            + ("--implementation=cp", "--abi=cp311"),
        ),
        {
            "pose_landmark_full.tflite": (
                "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
            ),
            "pose_detection.tflite": (
                "mediapipe/modules/pose_detection/pose_detection.tflite",
                "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
            ),
        },
    )
}


def weights_folder() -> Path:
    """The folder of fetched weights: HARVEST_WEIGHTS, or `harvest/weights` in the user's cache."""
    if os.environ.get("HARVEST_WEIGHTS"):
        return Path(os.environ["HARVEST_WEIGHTS"])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "harvest" / "weights"


def fetch_weights(name: str) -> list[Path]:
    """Paths of a published network's files, fetched where they are missing and checked.

    Raises:
        UserError: an unknown name, no way to the package index, or files that are not the expected ones.
    """
    if name not in PUBLISHED:
        raise UserError(f"no published weights '{name}'; known: {', '.join(PUBLISHED)}")
    published, folder = PUBLISHED[name], weights_folder() / name
    if not all((folder / file).is_file() for file in published.files):
        fetch_members(published.source, {inside: file for file, (inside, _) in published.files.items()}, folder)
    return [file_of(name, file)[0] for file in published.files]


def file_of(name: str, file: str) -> tuple[Path, str]:
    """Path and SHA-256 of one file of fetched weights.

    Raises:
        UserError: not fetched yet, or damaged.
    """
    path, expected = weights_folder() / name / file, PUBLISHED[name].files[file][1]
    if not path.is_file():
        raise UserError(f"the weights of {name} are not here ({path}); run `harvest weights fetch {name}`")
    if sha256_of(path) != expected:
        raise UserError(f"{path} is damaged (wrong SHA-256); delete it and run `harvest weights fetch {name}`")
    return path, expected

"""Boxes, poses and selections as Parquet tables, one row a joint or a view, with their fingerprint in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.store.atomic import write_atomically
from harvest.types import PersonBoxes, Poses3D, Selection

FINGERPRINT_KEY = b"harvest_fingerprint"
COVARIANCE = (("xx", 0, 0), ("xy", 0, 1), ("xz", 0, 2), ("yy", 1, 1), ("yz", 1, 2), ("zz", 2, 2))
AFFINE = tuple((f"image_from_crop_{row}{column}", row, column) for row in range(2) for column in range(3))
PERSON = 0  # the one person that is followed


def write_table(path: Path, columns: dict[str, Any], fingerprint: str) -> None:
    """Write columns as one Parquet file that carries a fingerprint."""
    table = pa.table(columns).replace_schema_metadata({FINGERPRINT_KEY: fingerprint.encode()})
    write_atomically(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def table_fingerprint(path: Path) -> str | None:
    """The fingerprint that a Parquet file carries, or None where there is no readable file."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    return metadata[FINGERPRINT_KEY].decode() if FINGERPRINT_KEY in metadata else None


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of a Parquet file as arrays; raises UserError where it cannot be read."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"cannot read the table {path} ({error}); run `harvest run` again") from None
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def write_boxes(path: Path, boxes: PersonBoxes, fingerprint: str) -> None:
    """One row a frame and view: frame, view, the sphere, and the crop's affine; NaN where nobody is seen."""
    t, v = len(boxes.frames), len(boxes.views)
    columns: dict[str, Any] = {
        "frame": np.repeat(boxes.frames, v),
        "view": np.tile(np.array(boxes.views), t),
        "person": np.full(t * v, PERSON, np.int32),
        **{f"centre_{axis}_m": np.repeat(boxes.centre_m[:, i], v) for i, axis in enumerate("xyz")},
        "radius_m": np.repeat(boxes.radius_m, v),
        **{name: boxes.image_from_crop[:, :, i, j].ravel() for name, i, j in AFFINE},
    }
    write_table(path, columns, fingerprint)


def read_boxes(path: Path) -> PersonBoxes:
    """The boxes of a table that `write_boxes` made, or a user of the same columns."""
    c = read_columns(path)
    missing = {"frame", "view", "centre_x_m", "radius_m", AFFINE[0][0]} - set(c)
    if missing:
        raise UserError(f"{path} has no column '{sorted(missing)[0]}'; see docs/formats.md for a boxes table")
    views = tuple(str(name) for name in dict.fromkeys(c["view"].tolist()))
    t, v = len(c["frame"]) // max(len(views), 1), len(views)
    if t * v != len(c["frame"]):
        raise UserError(f"{path}: every frame needs one row for each of its {v} views")
    affine = np.stack([c[name] for name, _, _ in AFFINE], -1).reshape(t, v, 2, 3)
    centre = np.stack([c[f"centre_{axis}_m"] for axis in "xyz"], -1).reshape(t, v, 3)[:, 0]
    return PersonBoxes(c["frame"].reshape(t, v)[:, 0], views, centre, c["radius_m"].reshape(t, v)[:, 0], affine)


def write_poses(path: Path, poses: Poses3D, fingerprint: str) -> None:
    """One row a frame, person and joint, in the columns of docs/formats.md; flips beside, one list a frame."""
    t, j = len(poses.frames), len(poses.joints)
    columns: dict[str, Any] = {
        "frame": np.repeat(poses.frames, j),
        "time_s": np.repeat(poses.time_s, j),
        "person": np.full(t * j, PERSON, np.int32),
        "joint": np.tile(np.array(poses.joints), t),
        **{f"{axis}_m": poses.xyz_m[:, :, i].ravel() for i, axis in enumerate("xyz")},
        **{f"cov_{name}_m2": poses.cov_m2[:, :, a, b].ravel() for name, a, b in COVARIANCE},
        "confidence": poses.confidence.ravel(),
        "n_views": poses.n_views.ravel().astype(np.int32),
        "found": poses.found.ravel(),
        **{f"flip_{view}": np.repeat(poses.flip[:, i], j) for i, view in enumerate(poses.views)},
    }
    write_table(path, columns, fingerprint)


def read_poses(path: Path) -> Poses3D:
    """The poses of a table that `write_poses` made."""
    c = read_columns(path)
    joints = tuple(str(name) for name in dict.fromkeys(c["joint"].tolist()))
    views = tuple(name[len("flip_") :] for name in c if name.startswith("flip_"))
    t, j = len(c["frame"]) // len(joints), len(joints)
    cov = np.empty((t, j, 3, 3))
    for name, a, b in COVARIANCE:
        cov[:, :, a, b] = cov[:, :, b, a] = c[f"cov_{name}_m2"].reshape(t, j)
    return Poses3D(
        frames=c["frame"].reshape(t, j)[:, 0],
        time_s=c["time_s"].reshape(t, j)[:, 0],
        views=views,
        joints=joints,
        xyz_m=np.stack([c[f"{axis}_m"] for axis in "xyz"], -1).reshape(t, j, 3),
        cov_m2=cov,
        confidence=c["confidence"].reshape(t, j),
        n_views=c["n_views"].reshape(t, j).astype(np.int64),
        flip=np.stack([c[f"flip_{view}"].reshape(t, j)[:, 0] for view in views], -1),
    )


def write_selection(path: Path, poses: Poses3D, selection: Selection, fingerprint: str) -> None:
    """One row a frame, person and joint: keep, the reason where it is not kept, and the probability, NaN if unknown."""
    t, j = selection.keep.shape
    probability = np.full((t, j), np.nan) if selection.probability is None else selection.probability
    columns = {
        "frame": np.repeat(poses.frames, j),
        "person": np.full(t * j, PERSON, np.int32),
        "joint": np.tile(np.array(poses.joints), t),
        "keep": selection.keep.ravel(),
        "reason": selection.reason.ravel().astype(str),
        "probability": probability.ravel(),
    }
    write_table(path, columns, fingerprint)


def read_selection(path: Path) -> Selection:
    """The selection of a table that `write_selection` made."""
    c = read_columns(path)
    j = len(dict.fromkeys(c["joint"].tolist()))
    probability = c["probability"].reshape(-1, j) if "probability" in c else None
    return Selection(c["keep"].reshape(-1, j), c["reason"].astype(object).reshape(-1, j), probability)

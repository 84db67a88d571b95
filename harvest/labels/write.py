"""Label files: Parquet as the record, COCO keypoints per view, npz for NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from calib.rig import Rig
from harvest.skeleton import Skeleton
from harvest.store.tables import PERSON, write_table
from harvest.types import LabelSet


def write_labels(folder: Path, labels: LabelSet, rig: Rig, skeleton: Skeleton, fingerprint: str) -> None:
    """Fill a folder with labels.parquet, labels.npz and coco_<view>.json for every view."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_parquet(folder / "labels.parquet", labels, fingerprint)
    np.savez_compressed(
        folder / "labels.npz",
        frame=labels.frame,
        view=np.array(labels.views)[labels.view],
        joints=np.array(labels.joints),
        uv_px=labels.uv_px,
        visibility=labels.visibility,
        weight=labels.weight,
        xyz_cam_m=labels.xyz_cam_m,
        origin=np.array(json.dumps(labels.origin)),
    )
    for index, camera in enumerate(rig.cameras):
        content = coco_keypoints(labels, index, camera.size_px, skeleton)
        (folder / f"coco_{camera.name}.json").write_text(json.dumps(content), encoding="utf-8")


def _write_parquet(path: Path, labels: LabelSet, fingerprint: str) -> None:
    n, j = labels.visibility.shape
    columns: dict[str, Any] = {
        "frame": np.repeat(labels.frame, j),
        "person": np.full(n * j, PERSON, np.int32),
        "view": np.repeat(np.array(labels.views)[labels.view], j),
        "joint": np.tile(np.array(labels.joints), n),
        "u_px": labels.uv_px[..., 0].ravel(),
        "v_px": labels.uv_px[..., 1].ravel(),
        "visibility": labels.visibility.ravel().astype(np.int8),
        "weight": labels.weight.ravel(),
        **{f"{axis}_cam_m": labels.xyz_cam_m[..., i].ravel() for i, axis in enumerate("xyz")},
        **{f"origin_{name}": _same_in_all(value, n * j) for name, value in labels.origin.items()},
    }
    write_table(path, columns, fingerprint)


def _same_in_all(value: str, rows: int) -> pa.DictionaryArray:
    """A column that holds one text in every row, kept once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([value]))


def image_name(view: str, frame: int) -> str:
    """The file name under which a frame's picture is listed, relative to the folder of labels."""
    return f"images/{view}/{frame:06d}.jpg"


def coco_keypoints(labels: LabelSet, view: int, size_px: tuple[int, int], skeleton: Skeleton) -> dict[str, Any]:
    """One view's labels as COCO keypoints: images, annotations and one category, as pycocotools reads them.

    Image and annotation ids are frame + 1 (COCO's tools take 0 for none). COCO's keypoints count from the corner of the
    top-left pixel, ours from its centre: half a pixel is added. Joints without a label are 0, 0, 0.
    """
    rows = np.flatnonzero(labels.view == view)
    index = {joint: i + 1 for i, joint in enumerate(labels.joints)}
    edges = [[index[limb.child], index[limb.parent]] for limb in skeleton.limbs]
    name = labels.views[view]
    images, annotations = [], []
    for row in rows:
        frame = int(labels.frame[row])
        images.append(
            {
                "id": frame + 1,
                "file_name": image_name(name, frame),
                "width": size_px[0],
                "height": size_px[1],
                "frame": frame,
            }
        )
        annotations.append({"id": frame + 1, "image_id": frame + 1, **_annotation(labels, int(row))})
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(labels.joints),
        "skeleton": edges,
    }
    info = {"description": f"harvested labels of view {name}", "origin": labels.origin}
    return {"info": info, "images": images, "annotations": annotations, "categories": [category]}


def _annotation(labels: LabelSet, row: int) -> dict[str, Any]:
    visibility = labels.visibility[row]
    uv = np.where(visibility[:, None] > 0, labels.uv_px[row] + 0.5, 0.0)
    used = uv[visibility > 0]
    low, span = used.min(axis=0), np.maximum(used.max(axis=0) - used.min(axis=0), 1.0)
    triplets = np.column_stack([np.round(uv, 2), visibility])
    return {
        "category_id": 1,
        "keypoints": [int(x) if i % 3 == 2 else float(x) for i, x in enumerate(triplets.ravel())],
        "num_keypoints": int((visibility > 0).sum()),
        "bbox": [round(float(x), 2) for x in (*low, *span)],
        "area": round(float(span[0] * span[1]), 2),
        "iscrowd": 0,
        "weight": [round(float(x), 4) for x in labels.weight[row]],
    }

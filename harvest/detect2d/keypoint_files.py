"""Keypoints of one view as other tools store them: OpenPose JSON, COCO keypoints JSON, DeepLabCut CSV.

Coordinates are passed on as the file has them. Some tools count from the corner of the first pixel and some from its
centre, which their files do not tell; the half pixel between the two is well below what these detectors resolve.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.errors import UserError
from harvest.skeleton import load_skeleton

_ARMS = ("r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist")
_LEGS = ("r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle")
_COCO_17 = load_skeleton("coco17").joints
_LEFT_FOOT, _RIGHT_FOOT = ("l_bigtoe", "l_smalltoe", "l_heel"), ("r_bigtoe", "r_smalltoe", "r_heel")

# Joint orders by the names that OpenPose and its relatives give them. Where two have the same length, the first is the
# one taken if none is named.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "BODY_25": load_skeleton("body25").joints,
    "BODY_25B": (*_COCO_17, "neck", "head_top", *_LEFT_FOOT, *_RIGHT_FOOT),
    "HALPE_26": load_skeleton("halpe26").joints,
    "COCO": ("nose", "neck", *_ARMS, *_LEGS, "r_eye", "l_eye", "r_ear", "l_ear"),
    "COCO_17": _COCO_17,
    "MPI": ("head_top", "neck", *_ARMS, *_LEGS, "chest"),
}
KNOWN_LAYOUTS = ", ".join(f"{name} ({len(joints)} joints)" for name, joints in LAYOUTS.items())
_DLC_HEADER_ROWS = 4
_LIKELIHOOD = 2  # its place after x and y


@dataclass(frozen=True)
class ViewKeypoints:
    """The detections of one view, one row a person and frame.

    joints: names, empty if the view has no detection and its files name none. frames (N,). uvc (N, J, 3): pixel
    position and confidence on the file's own scale; any of the three may be NaN, and confidence 0 or NaN is "missing".
    """

    joints: tuple[str, ...]
    frames: NDArray[np.int64]
    uvc: NDArray[np.float64]


def read_openpose(directory: Path, layout: str | None = None) -> ViewKeypoints:
    """The detections in a directory of OpenPose files, one file a frame, one entry of `people` a person.

    Files are those named `*_keypoints.json`, or all `*.json` if none is; the frame number is the last run of digits
    before that. Face, hand and 3D keypoints are left alone.

    Args:
        layout: a name of LAYOUTS; by default the one of as many joints, and BODY_25 rather than BODY_25B.
    Raises:
        UserError: an unreadable file, no number in a name, one number twice, or a number of values that does not fit.
    Source: OpenPose's doc/02_output.md.
    """
    paths = sorted(directory.glob("*_keypoints.json")) or sorted(directory.glob("*.json"))
    by_frame: dict[int, Path] = {}
    people: list[tuple[int, NDArray[np.float64]]] = []
    for path in paths:
        frame = _frame_number(path.stem.removesuffix("_keypoints"), path)
        rival = by_frame.setdefault(frame, path)
        if rival != path:
            raise UserError(f"{directory}: {rival.name} and {path.name} are both frame {frame}; keep one video's files")
        with _structure_of(path, "OpenPose JSON"):
            found = [_triplets(person["pose_keypoints_2d"], path) for person in _json(path)["people"]]
        for triplets in found:
            layout = _layout_of(len(triplets), layout, path)
        people += [(frame, triplets) for triplets in found]
    return _stacked(LAYOUTS[layout] if layout else (), people)


def read_coco(path: Path, layout: str | None = None) -> ViewKeypoints:
    """The detections of a COCO keypoints file, either a data set (`images`, `annotations`) or a list of results.

    An image's frame number is its `frame`, else the last run of digits of its `file_name`; in a list of results it is
    `image_id`. Joints are named by the category, else by `layout` as in `read_openpose`. Third values that are all 0, 1
    or 2 are COCO's visibility: 0 is missing, the others have the person's `score` (1 without) as confidence. Any other
    third values are taken for confidences themselves, as pose estimators write them, and `score` is left alone.

    Raises:
        UserError: an unreadable file, an image without number, or a number of values that does not fit.
    Source: cocodataset.org, "Data format" (keypoint detection) and "Results format".
    """
    content = _json(path)
    with _structure_of(path, "COCO keypoints JSON"):
        images, categories = [], []
        entries = content
        if isinstance(content, dict):
            entries, images, categories = content["annotations"], content["images"], content.get("categories", [])
        frame_of = {image["id"]: _image_frame(image, path) for image in images}
        names = {category["id"]: category.get("keypoints") for category in categories}
        entries = [entry for entry in entries if entry.get("keypoints")]
        people, layouts = [], set()
        for entry in entries:
            image, triplets = entry["image_id"], _triplets(entry["keypoints"], path)
            people.append((frame_of[image] if images else _frame_number(Path(str(image)).stem, path), triplets))
            layouts.add(_coco_joints(names.get(entry.get("category_id")), len(triplets), layout, path))
        scores = np.array([float(entry.get("score", 1.0)) for entry in entries])
    if len(layouts) > 1:
        raise UserError(f"{path}: its people have different joints; give one file with people of one kind")
    view = _stacked(layouts.pop() if layouts else (), people)
    third = view.uvc[..., 2]
    if np.isin(third, (0, 1, 2)).all():
        view.uvc[..., 2] = np.where(third > 0, scores[:, None], 0)
    return view


def read_deeplabcut(path: Path) -> ViewKeypoints:
    """The detections in a DeepLabCut CSV, one a row, or one a row and individual; joints are named by `joint_name`.

    Header rows: scorer, individuals (in multi-animal projects), bodyparts, coords. The last index column is the frame
    number or an image's path, whose last run of digits is the number. Without `likelihood`, as in a file of manual
    labels, the confidence is 1. A body part that an individual does not have is missing.

    Raises:
        UserError: an unreadable file, other header rows, a row of another length, two rows of one frame,
            or two joints of one name.
    Source: DeepLabCut's documentation of its output, "Standard DeepLabCut file formats".
    """
    with _structure_of(path, "DeepLabCut CSV"):
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
        n_header = 1 + [row[0] if row else "" for row in rows[:_DLC_HEADER_ROWS]].index("coords")
        head = {row[0]: row for row in rows[:n_header]}
        first = head["coords"].index("x")
        people = head.get("individuals", head["scorer"])
        columns = list(zip(people, head["bodyparts"], head["coords"], strict=True))[first:]
        axes = [("x", "y", "likelihood").index(coordinate) for _, _, coordinate in columns]
    individuals, parts = (list(dict.fromkeys(names)) for names in list(zip(*columns))[:2])
    joints = _joint_names(parts, path)
    body = [(number, row) for number, row in enumerate(rows[n_header:], n_header + 1) if row]
    for number, row in body:
        if len(row) != len(head["coords"]):
            raise UserError(
                f"{path}: row {number} has {len(row)} values, its header {len(head['coords'])}; complete it"
            )
    with _structure_of(path, "DeepLabCut CSV"):
        cells = np.array([[float(cell or "nan") for cell in row[first:]] for _, row in body]).reshape(-1, len(columns))
    uvc = np.full((len(body), len(individuals), len(joints), 3), np.nan)
    if _LIKELIHOOD not in axes:
        uvc[..., _LIKELIHOOD] = 1
    for (individual, part, _), axis, column in zip(columns, axes, cells.T):
        uvc[:, individuals.index(individual), parts.index(part), axis] = column
    frames = _row_frames([row[first - 1] for _, row in body], path)
    return ViewKeypoints(joints, np.repeat(frames, len(individuals)), uvc.reshape(-1, len(joints), 3))


def joint_name(name: str) -> str:
    """The name as skeleton files write it: lower case, '_' between words, the side in front as `l_` or `r_`.

    `LeftWrist`, `left wrist`, `wrist-left`, `Wrist_L` and `LWrist` all give `l_wrist`; `left_big_toe` gives `l_bigtoe`.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=^[LR])(?=[A-Z][a-z])", "_", name.strip())
    spaced = re.sub(r"^(left|right)(?=[a-z])", r"\1_", re.sub(r"[\s_-]+", "_", spaced).lower())
    words = [word for word in spaced.split("_") if word]
    side = ""
    for place in (0, -1):
        if not side and len(words) > 1 and words[place] in ("left", "right", "l", "r"):
            side = words.pop(place)[0] + "_"
    return side + "_".join(words).replace("big_toe", "bigtoe").replace("small_toe", "smalltoe")


@contextmanager
def _structure_of(path: Path, kind: str) -> Iterator[None]:
    """Turn what a file of another structure makes Python raise into one line about that file."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise UserError(f"{path}: cannot be read as {kind} ({reason}); export it again") from error


def _json(path: Path) -> Any:
    with _structure_of(path, "JSON"):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def _frame_number(text: str, path: Path) -> int:
    runs = re.findall(r"[0-9]+", text)
    if not runs:
        raise UserError(f"{path}: '{text}' holds no frame number; end names with the number of the frame, from 0")
    return int(runs[-1])


def _image_frame(image: dict[str, Any], path: Path) -> int:
    return int(image["frame"]) if "frame" in image else _frame_number(Path(image["file_name"]).stem, path)


def _row_frames(index: Sequence[str], path: Path) -> NDArray[np.int64]:
    frames = [_frame_number(Path(cell.replace("\\", "/")).stem, path) for cell in index]
    repeated = next((frame for frame, count in Counter(frames).items() if count > 1), None)
    if repeated is not None:
        raise UserError(f"{path}: two of its rows are frame {repeated}; keep the rows of one video")
    return np.array(frames, np.int64)


def _triplets(values: Sequence[float], path: Path) -> NDArray[np.float64]:
    if len(values) == 0 or len(values) % 3:
        raise UserError(f"{path}: a person has {len(values)} values; it takes three a joint (x, y, confidence)")
    return np.asarray(values, np.float64).reshape(-1, 3)


def _layout_of(count: int, layout: str | None, path: Path) -> str:
    """The layout named, or else the first with so many joints, if there is one."""
    name = layout or next((name for name, joints in LAYOUTS.items() if len(joints) == count), None)
    if name is None:
        raise UserError(f"{path}: a person has {count} joints, which no known layout has; known are {KNOWN_LAYOUTS}")
    if len(LAYOUTS[name]) != count:
        raise UserError(f"{path}: a person has {count} joints, but layout {name} has not; known are {KNOWN_LAYOUTS}")
    return name


def _coco_joints(names: Sequence[str] | None, count: int, layout: str | None, path: Path) -> tuple[str, ...]:
    if not names:
        return LAYOUTS[_layout_of(count, layout, path)]
    if len(names) != count:
        raise UserError(f"{path}: a person has {count} joints, its category names {len(names)}; make them agree")
    return _joint_names(names, path)


def _joint_names(names: Sequence[str], path: Path) -> tuple[str, ...]:
    joints = tuple(joint_name(name) for name in names)
    twice = next((joint for joint in joints if joints.count(joint) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two of its joints are both '{twice}' once normalised; rename one of them")
    return joints


def _stacked(joints: tuple[str, ...], people: Sequence[tuple[int, NDArray[np.float64]]]) -> ViewKeypoints:
    frames = np.array([frame for frame, _ in people], np.int64)
    uvc = np.array([triplets for _, triplets in people]).reshape(len(people), len(joints), 3)
    return ViewKeypoints(joints, frames, uvc)

"""Stage 1: where the person is, in every view and frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from harvest.detect2d.box_files import read_box_file
from harvest.detect2d.candidates import PersonCandidates, no_candidates
from harvest.detect2d.detectors import make_finder
from harvest.detect2d.keypoints import Keypoints, read_keypoints
from harvest.detect2d.locate import Agreement, agreements, follow_person, person_of_keypoints, spheres, upright_crop
from harvest.errors import UserError
from harvest.store.tables import write_boxes
from harvest.types import PersonBoxes
from pipelines.capture import Capture
from pipelines.settings import DetectSettings, LocateSettings


def locate(capture: Capture, settings: LocateSettings, detect: DetectSettings, boxes: Path | None) -> PersonBoxes:
    """The person's sphere and crops, from people found in pictures, in another tool's joints, or in a box file.

    Raises:
        UserError: no two views ever agree on a person.
    """
    if boxes is not None:
        places, candidates = read_box_file(boxes, capture.rig.names, capture.frames)
    elif detect.detector == "keypoints":
        keypoints = keypoints_of(capture, detect)
        places = np.arange(len(capture.frames))
        candidates = [candidates_of_keypoints(capture, keypoints, int(frame)) for frame in capture.frames]
    else:
        places, candidates = find_people(capture, settings, finder_of(settings, detect))
    path = agree(capture, places, candidates)
    if not any(path):
        raise UserError(
            "no two views agree on where a person is, in any frame; check the calibration with `harvest rig check`, "
            "that the videos start together, or bring boxes with --boxes"
        )
    centre, radius = spheres(capture.times_s[places], capture.times_s, path)
    crops = np.full((len(capture.frames), len(capture.rig), 2, 3), np.nan)
    for t in np.flatnonzero(np.isfinite(radius)):
        for v in range(len(capture.rig)):
            crops[t, v] = upright_crop(capture.rig, v, centre[t], float(radius[t]))
    return PersonBoxes(capture.frames, capture.rig.names, centre, radius, crops)


def agree(capture: Capture, places: np.ndarray, candidates: list[list[PersonCandidates]]) -> list[Agreement | None]:
    """The one person that the views agree on, moment by moment."""
    agreed = [agreements(capture.rig, moment) for moment in candidates]
    return follow_person(capture.times_s[places], agreed, capture.rig.focus_m())


def finder_of(settings: LocateSettings, detect: DetectSettings) -> str:
    """The name of the finder of people: as set, else BlazePose's for BlazePose, else our own."""
    return settings.finder or ("blazepose" if detect.detector == "blazepose" else "hourglass")


def find_people(
    capture: Capture, settings: LocateSettings, name: str
) -> tuple[np.ndarray, list[list[PersonCandidates]]]:
    """Places in the frame list that were looked at, and what each view shows there."""
    finder = make_finder(name, settings.weights, settings.min_score)
    last, places = -np.inf, []
    for place, time_s in enumerate(capture.times_s):
        if time_s - last >= settings.every_s - 1e-9 or place == len(capture.frames) - 1:
            places.append(place)
            last = time_s
    found = []
    pictures = capture.pictures(capture.frames[places].tolist())
    for _, images in tqdm(pictures, total=len(places), desc="locate", unit="frame"):
        views = [images[name] for name in capture.rig.names]
        found.append([no_candidates() if image is None else finder(image) for image in views])
    return np.array(places), found


def keypoints_of(capture: Capture, settings: DetectSettings) -> Keypoints:
    """The other tool's joints that the settings name."""
    if settings.keypoints is None:
        raise UserError("--detector keypoints needs --keypoints DIR, with one folder or file of 2D joints per view")
    return read_keypoints(settings.keypoints, capture.rig.names, settings.layout)


def candidates_of_keypoints(capture: Capture, keypoints: Keypoints, frame: int) -> list[PersonCandidates]:
    """What each view's people of another tool say of where they are."""
    return [person_of_keypoints(keypoints, view, frame) for view in range(len(capture.rig))]


def run_locate(
    capture: Capture, settings: tuple[LocateSettings, DetectSettings, Path | None], out: Path, key: str
) -> str:
    """Write 10_boxes.parquet; a line for the log."""
    boxes = locate(capture, *settings)
    write_boxes(out, boxes, key)
    seen = np.isfinite(boxes.image_from_crop).all(axis=(2, 3))
    return (
        f"person located in {np.isfinite(boxes.radius_m).mean():.0%} of frames, seen by {seen.sum(1).mean():.1f} views"
    )

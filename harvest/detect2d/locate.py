"""Where the person is: one sphere in the world per frame, on which the views agree, and the crops that show it.

No view decides alone. A bystander whom few cameras see, or whom they see elsewhere, finds less agreement than the
person in the volume that the rig was set up for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from calib.triangulate import triangulate_dlt
from harvest.detect2d.candidates import PersonCandidates, no_candidates
from harvest.detect2d.keypoints import Keypoints

Floats = NDArray[np.float64]
NEAR = 0.35  # of the circle's radius: how far a candidate may lie from the projected hips
ALIKE = 1.7  # largest ratio of radii, in metres, that two views may see of one person
TOP_SPEED_M_S = 6.0
CANDIDATES_A_VIEW = 6
FILL_GAP_S = 0.6
CROP_OVER_SPHERE = 1.1


@dataclass(frozen=True)
class Agreement:
    """One place where several views see a person: centre_m (3,), radius_m, score (the sum of the supporting views'
    scores), chosen (V,) index of each view's candidate or -1.
    """

    centre_m: Floats
    radius_m: float
    score: float
    chosen: NDArray[np.int64]


def agreements(rig: Rig, candidates: Sequence[PersonCandidates]) -> list[Agreement]:
    """Places on which at least two views agree at one moment, best first; each set of candidates stands once.

    Every pair of candidates of two views proposes a place by triangulation; a view supports it with the candidate
    nearest to its projection, if that is near and of like size. The place is then triangulated from all supporters.
    """
    found: dict[tuple[int, ...], Agreement] = {}
    tops = [min(len(c), CANDIDATES_A_VIEW) for c in candidates]
    for a, b in combinations(range(len(rig)), 2):
        for i in range(tops[a]):
            for j in range(tops[b]):
                chosen = np.full(len(rig), -1)
                chosen[a], chosen[b] = i, j
                for _ in range(2):
                    place = _place(rig, candidates, chosen)
                    chosen = _supporters(rig, candidates, place) if place else chosen * 0 - 1
                place = _place(rig, candidates, chosen)
                if place is not None:
                    score = sum(float(candidates[v].score[c]) for v, c in enumerate(chosen) if c >= 0)
                    found[tuple(chosen.tolist())] = Agreement(place[0], place[1], score, chosen)
    return sorted(found.values(), key=lambda agreement: -agreement.score)


def _place(rig: Rig, candidates: Sequence[PersonCandidates], chosen: NDArray[np.int64]) -> tuple[Floats, float] | None:
    """Centre and radius in metres that the chosen candidates give together; None for fewer than two or a bad fit."""
    used = np.flatnonzero(chosen >= 0).tolist()
    if len(used) < 2:
        return None
    uv = np.full((len(rig), 1, 2), np.nan)
    for view in used:
        uv[view, 0] = candidates[view].centre_px[chosen[view]]
    centre = triangulate_dlt(rig, uv, np.isfinite(uv[..., 0]))[0]
    radii = [_radius_m(rig, v, candidates[v], int(chosen[v]), centre) for v in used]
    if not np.isfinite(centre).all() or min(radii) <= 0:
        return None
    return centre, float(np.median(radii))


def _radius_m(rig: Rig, view: int, candidates: PersonCandidates, index: int, centre: Floats) -> float:
    camera = rig.cameras[view]
    depth = float(camera.cam_from_world(centre)[2])
    return float(candidates.radius_px[index]) * depth / float(np.sqrt(camera.K[0, 0] * camera.K[1, 1]))


def _supporters(rig: Rig, candidates: Sequence[PersonCandidates], place: tuple[Floats, float]) -> NDArray[np.int64]:
    chosen = np.full(len(rig), -1)
    for view, camera in enumerate(rig.cameras):
        pixel = camera.project(place[0])
        if len(candidates[view]) == 0 or not np.isfinite(pixel).all():
            continue
        distance = np.linalg.norm(candidates[view].centre_px - pixel, axis=1) / candidates[view].radius_px
        radii = np.array([_radius_m(rig, view, candidates[view], i, place[0]) for i in range(len(distance))])
        with np.errstate(divide="ignore", invalid="ignore"):
            unlike = np.abs(np.log(np.maximum(radii, 1e-6) / place[1])) > np.log(ALIKE)
        distance[unlike] = np.inf
        if distance.min() < NEAR:
            chosen[view] = int(np.argmin(distance))
    return chosen


def follow_person(times_s: Floats, agreed: Sequence[Sequence[Agreement]], focus_m: Floats) -> list[Agreement | None]:
    """One agreement per moment, or None: the sequence of most support that no person would have to fly to follow.

    Dynamic programming (Viterbi) over moments: the score of an agreement, less a small share for its distance from the
    rig's focus, less the square of the speed needed between moments over TOP_SPEED_M_S.
    """
    moments = [index for index, options in enumerate(agreed) if options]
    best: list[Floats] = []
    back: list[NDArray[np.int64]] = []
    for order, moment in enumerate(moments):
        own = np.array([a.score - 0.05 * np.linalg.norm(a.centre_m - focus_m) for a in agreed[moment]])
        if order == 0:
            best.append(own)
            back.append(np.zeros(len(own), np.int64))
            continue
        before = agreed[moments[order - 1]]
        gap_s = max(float(times_s[moment] - times_s[moments[order - 1]]), 1e-3)
        distance = np.array([[np.linalg.norm(a.centre_m - b.centre_m) for b in before] for a in agreed[moment]])
        total = best[-1][None, :] - (np.maximum(distance - 0.1, 0.0) / (gap_s * TOP_SPEED_M_S)) ** 2
        back.append(total.argmax(axis=1))
        best.append(own + total.max(axis=1))
    path: list[Agreement | None] = [None] * len(agreed)
    state = int(np.argmax(best[-1])) if best else 0
    for order in range(len(moments) - 1, -1, -1):
        path[moments[order]] = agreed[moments[order]][state]
        state = int(back[order][state])
    return path


def spheres(times_s: Floats, wanted_s: Floats, path: Sequence[Agreement | None]) -> tuple[Floats, Floats]:
    """Centres (T, 3) and radii (T,) at the wanted times, in metres: straight lines between moments, and NaN more than
    FILL_GAP_S from any. The centres pass a running median of three; the radius is the median over its whole track.
    """
    known = np.array([index for index, agreement in enumerate(path) if agreement is not None], dtype=np.int64)
    if known.size == 0:
        return np.full((len(wanted_s), 3), np.nan), np.full(len(wanted_s), np.nan)
    centres = np.stack([path[index].centre_m for index in known])
    if known.size >= 3:
        middle = np.median(np.stack([centres[:-2], centres[1:-1], centres[2:]]), axis=0)
        centres = np.concatenate([centres[:1], middle, centres[-1:]])
    radius = float(np.median([path[index].radius_m for index in known]))
    at = times_s[known]
    out = np.stack([np.interp(wanted_s, at, centres[:, axis]) for axis in range(3)], axis=1)
    right = np.clip(np.searchsorted(at, wanted_s), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    far = np.minimum(np.abs(at[right] - wanted_s), np.abs(at[left] - wanted_s)) > FILL_GAP_S
    out[far] = np.nan
    return out, np.where(far, np.nan, radius)


def upright_crop(rig: Rig, view: int, centre_m: Floats, radius_m: float) -> Floats:
    """(2, 3) affine from a unit crop to image pixels: square, round the sphere, turned so that the rig's up points up.

    The side is CROP_OVER_SPHERE sphere diameters. NaN where the camera does not see the sphere's centre in its picture.
    """
    camera = rig.cameras[view]
    up = np.array(rig.up)
    pixel, above = camera.project(centre_m), camera.project(centre_m + 0.1 * radius_m * up)
    depth = float(camera.cam_from_world(centre_m)[2])
    if not (np.isfinite(pixel).all() and np.isfinite(above).all()):
        return np.full((2, 3), np.nan)
    radius_px = radius_m * float(np.sqrt(camera.K[0, 0] * camera.K[1, 1])) / depth
    width, height = camera.size_px
    if not (-radius_px < pixel[0] < width + radius_px and -radius_px < pixel[1] < height + radius_px):
        return np.full((2, 3), np.nan)
    down = pixel - above
    length = float(np.linalg.norm(down))
    # A camera that looks along `up` sees no direction of it: then the picture's own stays.
    down = down / length if length > 0.02 * radius_px else np.array([0.0, 1.0])
    right = np.array([down[1], -down[0]])
    side = 2.0 * CROP_OVER_SPHERE * radius_px
    axes = np.stack([right, down], axis=1) * side
    return np.column_stack([axes, pixel - axes @ [0.5, 0.5]])


def person_of_keypoints(keypoints: Keypoints, view: int, frame: int) -> PersonCandidates:
    """People that another tool saw in one view and frame, in its order: middle of the hips (or of all joints), a circle
    round all joints, mean confidence.
    """
    rows = keypoints.rows(view, frame)
    if rows.size == 0:
        return no_candidates()
    uv, confidence = keypoints.uv_px[rows], keypoints.confidence[rows]
    hips = [keypoints.joints.index(name) for name in ("l_hip", "r_hip") if name in keypoints.joints]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # people without hips or without any joint give NaN
        middle = np.nanmean(uv[:, hips], axis=1) if hips else np.full((len(rows), 2), np.nan)
        middle = np.where(np.isfinite(middle), middle, np.nanmean(uv, axis=1))
        radius = np.nanmax(np.linalg.norm(uv - middle[:, None], axis=2), axis=1)
    good = np.isfinite(radius) & (radius > 0)
    score = np.where(good, confidence.mean(axis=1), 0.0)
    return PersonCandidates(np.nan_to_num(middle), np.where(good, radius, 1.0), score)

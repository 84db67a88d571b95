"""The views agree on one person, whatever else stands in the room."""

import numpy as np
import pytest

from harvest.detect2d.candidates import PersonCandidates, no_candidates
from harvest.detect2d.locate import agreements, follow_person, spheres, upright_crop
from harvest.studio.figure import ring_rig


def seen_at(rig, places, radius_m=0.9, score=0.8, noise_px=0.0, views=None, rng=None):
    """Candidates of every view for people at the given places; `views` limits who sees them."""
    rng = rng or np.random.default_rng(0)
    out = []
    for view, camera in enumerate(rig.cameras):
        shown = places if views is None or view in views else []
        centre = np.array([camera.project(np.array(p)) for p in shown]).reshape(-1, 2)
        depth = np.array([camera.cam_from_world(np.array(p))[2] for p in shown])
        radius = radius_m * 560.0 / np.maximum(depth, 1e-9)
        out.append(PersonCandidates(centre + rng.normal(0, noise_px, centre.shape), radius, np.full(len(shown), score)))
    return out


def merged(a, b):
    return [
        PersonCandidates(
            np.concatenate([x.centre_px, y.centre_px]),
            np.concatenate([x.radius_px, y.radius_px]),
            np.concatenate([x.score, y.score]),
        )
        for x, y in zip(a, b, strict=True)
    ]


def test_the_person_seen_by_all_beats_a_bystander_seen_by_two():
    rig = ring_rig(4)
    person, bystander = np.array([0.2, -0.1, 0.95]), np.array([2.2, 1.0, 0.95])
    both = merged(seen_at(rig, [bystander], score=0.95, views=(1, 2)), seen_at(rig, [person], score=0.7, noise_px=4))
    best = agreements(rig, both)[0]
    np.testing.assert_allclose(best.centre_m, person, atol=0.05)
    assert (best.chosen >= 0).all()
    assert best.radius_m == pytest.approx(0.9, rel=0.05)


def test_one_view_alone_agrees_with_nobody():
    rig = ring_rig(4)
    assert agreements(rig, seen_at(rig, [np.zeros(3)], views=(2,))) == []
    assert agreements(rig, [no_candidates()] * 4) == []


def test_following_does_not_jump_to_another_person_for_one_better_moment():
    rig = ring_rig(4)
    person, other = np.array([0.0, 0.0, 0.95]), np.array([-2.0, 0.5, 0.95])
    moments = []
    for moment in range(9):
        strong = 0.95 if moment == 4 else 0.5
        moments.append(agreements(rig, merged(seen_at(rig, [person], score=0.7), seen_at(rig, [other], score=strong))))
    path = follow_person(np.arange(9) / 10, moments, rig.focus_m())
    for agreement in path:
        np.testing.assert_allclose(agreement.centre_m, person, atol=0.02)


def test_short_gaps_are_filled_and_long_ones_are_not():
    rig = ring_rig(4)
    times = np.arange(30) / 10
    agreed = [agreements(rig, seen_at(rig, [np.array([0.1 * t, 0, 1.0])])) for t in times]
    for moment in [*range(5, 8), *range(12, 27)]:
        agreed[moment] = []
    path = follow_person(times, agreed, rig.focus_m())
    centre, radius = spheres(times, times, path)
    assert np.isfinite(radius[5:8]).all() and np.isnan(radius[18:21]).all()
    np.testing.assert_allclose(centre[6], [0.06 * 10 * 0.1, 0, 1.0], atol=0.02)


def test_nobody_anywhere_gives_nothing():
    centre, radius = spheres(np.arange(3.0), np.arange(3.0), [None] * 3)
    assert np.isnan(centre).all() and np.isnan(radius).all()


def test_crops_turn_the_worlds_up_to_the_top_and_hold_the_sphere():
    rig = ring_rig(4)
    centre, radius = np.array([0.1, 0.2, 1.0]), 0.9
    for view, camera in enumerate(rig.cameras):
        crop = upright_crop(rig, view, centre, radius)
        linear = np.linalg.inv(crop[:, :2])
        middle = linear @ (camera.project(centre) - crop[:, 2])
        top = linear @ (camera.project(centre + [0, 0, radius]) - crop[:, 2])
        np.testing.assert_allclose(middle, [0.5, 0.5], atol=1e-9)
        assert abs(top[0] - 0.5) < 0.02 and 0.0 < top[1] < 0.12
        assert np.linalg.det(crop[:, :2]) > 0


def test_a_camera_that_cannot_see_the_person_gets_no_crop():
    rig = ring_rig(4)
    behind = 3 * rig.cameras[0].centre_m
    assert np.isnan(upright_crop(rig, 0, behind, 0.9)).all()

"""Each thing that can be wrong with a rig is found, named and explained; a sound rig gets one good line a camera."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from calib import Camera, Rig
from calib.checks import Finding, check_rig, compare_size, millimetre_suspects
from calib.importers import import_rig
from calib.zoom import describe_zoom, fit_zoom

DATA = Path(__file__).resolve().parents[2] / "shared/data"
FOOTAGE_CALIBRATION = DATA / "pose2sim_demo/calibration/Calib.qca.txt"
SIZE = (1088, 1920)


def camera(name: str, centre_m, target_m=(0.0, 0.0, 1.0), up=(0.0, 0.0, 1.0)) -> Camera:
    """A 1088x1920 camera that stands at one point and looks at another, its picture upright with respect to `up`."""
    centre = np.asarray(centre_m, float)
    forward = np.asarray(target_m, float) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    K = np.array([[1000.0, 0.0, 543.5], [0.0, 1000.0, 959.5], [0.0, 0.0, 1.0]])
    return Camera(name, SIZE, K, np.zeros(5), R, -R @ centre)


def four(**fields) -> list[Camera]:
    places = {"south": (0, -3, 1.5), "east": (3, 0, 2), "north": (0.2, 3, 1), "west": (-3, 0.1, 1.2)}
    return [camera(name, place, **fields) for name, place in places.items()]


def written(tmp_path: Path, cameras, change=lambda content, last: None, **rig) -> Path:
    """A rig.yaml of these cameras after `change(content, last camera's entry)`, free to be wrong."""
    content = yaml.safe_load(Rig(tuple(cameras), **rig).to_yaml())
    change(content, content["cameras"][-1])
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def complaints(findings: list[Finding]) -> list[tuple[str | None, str, str]]:
    return [(f.camera, f.level, f.message) for f in findings if f.level != "ok"]


def the_only(findings: list[Finding]) -> tuple[str | None, str, str]:
    found = complaints(findings)
    assert len(found) == 1, found
    return found[0]


def test_a_sound_rig_gets_one_good_line_for_each_camera_in_order(tmp_path):
    findings = check_rig(written(tmp_path, four()), dict.fromkeys(["south", "east", "north", "west"], SIZE))
    assert [(f.camera, f.level) for f in findings] == [(name, "ok") for name in ("south", "east", "north", "west")]
    message = findings[0].message
    assert "(0.00, -3.00, 1.50) m" in message and "1.50 m above the origin" in message
    assert f"{2 * np.degrees(np.arctan(0.544)):.1f} degrees" in message
    assert f"{np.hypot(3, 0.5):.2f} m from the focus" in message


def test_height_is_measured_along_the_rigs_own_up(tmp_path):
    cameras = [camera(f"c{i}", place, (0, 1, 0), (0, 1, 0)) for i, place in enumerate([(3, 1.7, 0), (0, 1.2, 3)])]
    findings = check_rig(written(tmp_path, cameras, up=(0, 1, 0)), None)
    assert [f.level for f in findings] == ["ok", "ok"] and "1.70 m above the origin" in findings[0].message


def test_a_file_that_cannot_be_read_at_all_is_one_error_about_the_rig(tmp_path):
    assert the_only(check_rig(tmp_path / "none.yaml", None))[:2] == (None, "error")
    path = written(tmp_path, four(), lambda content, last: last.update(focal=3))
    name, level, message = the_only(check_rig(path, None))
    assert (name, level) == (None, "error") and "unknown key 'focal'" in message


def test_a_camera_that_is_broken_is_named_and_the_others_are_still_checked(tmp_path):
    mirror = [[1, 0, 0], [0, 1, 0], [0, 0, -1]]
    findings = check_rig(written(tmp_path, four(), lambda _, last: last.update(R_cam_from_world=mirror)), None)
    name, level, message = the_only(findings)
    assert (name, level) == ("west", "error") and message.startswith("R_cam_from_world is not a rotation")
    assert [f.camera for f in findings if f.level == "ok"] == ["south", "east", "north"]


def test_a_name_that_stands_twice_and_an_up_that_is_none_are_told_and_the_rest_is_checked(tmp_path):
    findings = check_rig(written(tmp_path, four(), lambda content, last: last.update(name="east")), None)
    assert the_only(findings)[:2] == ("east", "error") and len(findings) == 3
    name, level, message = the_only(check_rig(written(tmp_path, four(), lambda rig, _: rig.update(up=[0, 0])), None))
    assert (name, level) == (None, "error") and "'up' must be three numbers" in message


def test_a_rig_with_fewer_than_two_usable_cameras_is_an_error(tmp_path):
    findings = check_rig(written(tmp_path, four()[:2], lambda content, last: last.update(K=[1])), None)
    assert findings[0].camera is None and "1 of 2 cameras" in findings[0].message
    assert [(f.camera, f.level) for f in findings[1:]] == [("south", "ok"), ("east", "error")]
    nothing = check_rig(written(tmp_path, four(), lambda content, last: content.update(cameras=[])), None)
    assert the_only(nothing)[:2] == (None, "error")


def scaled(camera_: Camera, factor: float) -> Camera:
    return replace(camera_, t_cam_from_world_m=camera_.t_cam_from_world_m * factor)


def test_a_rig_in_millimetres_is_recognised_and_every_camera_told_to_divide_by_1000(tmp_path):
    cameras = [camera(c.name, c.centre_m, (0, 0, 1)) for c in four()]
    found = complaints(check_rig(written(tmp_path, [scaled(c, 1000) for c in cameras]), None))
    assert [(name, level) for name, level, _ in found] == [(c.name, "error") for c in cameras]
    assert all("divide it by 1000" in message and "m from the point they look at" in message for *_, message in found)


def test_one_camera_in_millimetres_is_told_from_those_in_metres(tmp_path):
    *sound, last = four()
    assert the_only(check_rig(written(tmp_path, [*sound, scaled(last, 1000)]), None))[:2] == ("west", "error")
    assert list(millimetre_suspects(Rig((sound[0], scaled(last, 1000))))) == ["west"]


def test_a_stadium_is_only_a_warning_and_a_rig_far_from_the_origin_is_none(tmp_path):
    stadium = Rig(tuple(camera(c.name, c.centre_m * 25, (0, 0, 1)) for c in four()))
    assert {level for _, level, _ in complaints(check_rig(written(tmp_path, stadium.cameras), None))} == {"warning"}
    surveyed = Rig(tuple(camera(c.name, c.centre_m + [4e5, 5e6, 0], (4e5, 5e6, 1)) for c in four()))
    assert millimetre_suspects(surveyed) == {}


def test_a_camera_that_looks_elsewhere_is_warned_about_while_two_or_more_see_the_volume(tmp_path):
    *sound, last = four()
    findings = check_rig(written(tmp_path, [*sound, camera("west", last.centre_m, (-6, 0.1, 1.4))]), None)
    name, level, message = the_only(findings)
    assert (name, level) == ("west", "warning") and "behind the camera" in message and "3 of 4 cameras" in message
    findings = check_rig(written(tmp_path, [*four(), camera("fifth", (2, -2, 1), (2, 1, 1))]), None)
    name, level, message = the_only(findings)
    assert (name, level) == ("fifth", "warning") and "outside the picture" in message and "4 of 5 cameras" in message


def test_cameras_that_share_no_volume_are_errors_by_name(tmp_path):
    apart = [camera("a", (0, -1, 1), (0.5, -6, 1)), camera("b", (0, 1, 1), (0.5, 6, 1))]
    found = complaints(check_rig(written(tmp_path, apart), None))
    assert [(name, level) for name, level, _ in found] == [("a", "error"), ("b", "error")]
    assert all("0 of 2 cameras see it" in message for *_, message in found)
    one_turned = [camera("a", (0, -3, 1)), camera("b", (3, 0, 1), (6, 0, 1))]
    name, level, message = the_only(check_rig(written(tmp_path, one_turned), None))
    assert (name, level) == ("b", "error") and "1 of 2 cameras see it" in message


def test_a_focus_beyond_the_fold_of_the_lens_counts_as_unseen(tmp_path):
    blind = replace(camera("fifth", (2, -2, 1), (2, 1, 1)), dist_opencv=np.array([-2.0, 0, 0, 0]))
    name, level, message = the_only(check_rig(written(tmp_path, [*four(), blind]), None))
    assert (name, level) == ("fifth", "warning") and "beyond the angle that the lens model covers" in message


def test_parallel_cameras_share_a_volume_that_cannot_be_told(tmp_path):
    parallel = [camera("left", (0, -3, 1), (0, 0, 1)), camera("right", (0.3, -3, 1), (0.3, 0, 1))]
    name, level, message = the_only(check_rig(written(tmp_path, parallel), None))
    assert (name, level) == (None, "warning") and "nearly one line" in message


def test_two_cameras_at_one_place_are_warned_about(tmp_path):
    name, level, message = the_only(check_rig(written(tmp_path, [*four(), camera("copy", (0, -3, 1.505))]), None))
    assert (name, level) == ("copy", "warning") and "5.0 mm from camera 'south'" in message


@pytest.mark.parametrize(
    ("up", "words"), [((0, 0, -1), "4 of 4 cameras are upside down"), ((0, 1, 0), "88 degrees off up")]
)
def test_an_up_that_disagrees_with_the_pictures_is_warned_about_with_a_better_one(tmp_path, up, words):
    name, level, message = the_only(check_rig(written(tmp_path, four(), up=up), None))
    assert (name, level) == (None, "warning") and words in message and ", 0.9" in message.split("nearest to")[1]


def test_one_camera_mounted_upside_down_says_nothing_about_up(tmp_path):
    *sound, last = four()
    assert not complaints(check_rig(written(tmp_path, [*sound, camera("w", last.centre_m, up=(0, 0, -1))]), None))


@pytest.mark.parametrize(
    ("K", "words"),
    [
        ([[1000, 0, 544], [0, 1000, 1930], [0, 0, 1]], "principal point (544.0, 1930.0) px lies outside the 1088x1920"),
        ([[1000, 0, 544], [0, 1060, 960], [0, 0, 1]], "differ by more than 5 %"),
        ([[15000, 0, 544], [0, 15000, 960], [0, 0, 1]], "field of view is 4.2 degrees"),
        ([[40, 0, 544], [0, 40, 960], [0, 0, 1]], "field of view is 171.6 degrees"),
    ],
)
def test_odd_intrinsics_are_warned_about(tmp_path, K, words):
    cameras = [*four(), replace(camera("fifth", (2, -2, 1)), K=np.array(K, float))]
    name, level, message = complaints(check_rig(written(tmp_path, cameras), None))[0]
    assert (name, level) == ("fifth", "warning") and words in message


def test_a_fisheye_may_see_half_the_world(tmp_path):
    wide = replace(camera("fifth", (2, -2, 1)), model="fisheye", dist_opencv=np.zeros(4), K=np.diag([330.0, 330, 1]))
    wide = replace(wide, K=wide.K + np.array([[0, 0, 544], [0, 0, 960], [0, 0, 0]]))
    findings = check_rig(written(tmp_path, [*four(), wide]), None)
    assert not complaints(findings) and "188.9 degrees" in findings[-1].message


@pytest.mark.parametrize(
    ("calibrated", "video", "level", "words"),
    [
        ((1920, 1080), (1920, 1080), "ok", "as calibrated"),
        ((1088, 1920), (1080, 1920), "warning", "codec padding was cut on the right or at the bottom"),
        ((1920, 1088), (1920, 1080), "warning", "the principal point is unaffected"),
        ((1376, 768), (1366, 768), "warning", "a multiple of 16"),
        ((1920, 1080), (1920, 1088), "error", "cropped or belongs to another camera"),
        ((1920, 1085), (1920, 1080), "error", "cropped or belongs to another camera"),
        ((1104, 1920), (1080, 1920), "error", "cropped or belongs to another camera"),
        ((1920, 1080), (1080, 1920), "error", "rotated by a quarter turn"),
        ((1088, 1920), (1920, 1080), "error", "rotated by a quarter turn"),
        ((1920, 1080), (1280, 720), "error", "scaled by a factor of 0.6667; calibrate again"),
        ((1280, 720), (3840, 2160), "error", "re-encode the video at 1280x720"),
        ((1920, 1080), (1440, 1080), "error", "cropped or belongs to another camera"),
    ],
)
def test_the_size_of_a_video_is_compared_with_its_calibration(calibrated, video, level, words):
    found, message = compare_size(calibrated, video)
    assert found == level and words in message
    assert f"{video[0]}x{video[1]}" in message


def test_videos_of_another_size_and_missing_ones_are_told_for_each_camera(tmp_path):
    sizes = {"south": SIZE, "east": (1080, 1920), "north": (544, 960)}
    found = complaints(check_rig(written(tmp_path, four()), sizes))
    assert [f[:2] for f in found] == [("east", "warning"), ("north", "error"), ("west", "error")]
    assert "it has no video" in found[2][2]


@pytest.mark.skipif(not FOOTAGE_CALIBRATION.is_file(), reason="the Pose2Sim sample is not beside this checkout")
def test_the_real_rig_is_sound_and_its_cut_videos_are_accepted_with_a_warning(tmp_path):
    path = tmp_path / "rig.yaml"
    path.write_text(import_rig(FOOTAGE_CALIBRATION).to_yaml(), encoding="utf-8")
    sizes = {"cam01": (1080, 1920), "cam02": (1080, 1920), "cam03": (1088, 1920), "cam04": (1088, 1920)}
    assert [f.level for f in check_rig(path, sizes)] == ["warning", "warning", "ok", "ok"]


def observed_with(scale: float, shift, noise_px: float, outliers: float, n: int = 400):
    """Projected and observed points of a 1080x1920 picture, some of the latter anywhere."""
    rng = np.random.default_rng(7)
    centre = np.array([539.5, 959.5])
    projected = rng.uniform([200, 300], [900, 1700], (n, 2))
    observed = centre + scale * (projected - centre) + shift + rng.normal(0, noise_px, (n, 2))
    wrong = rng.random(n) < outliers
    observed[wrong] += rng.uniform(20, 300, (wrong.sum(), 2))
    return projected, observed, centre


def test_a_zoom_and_shift_are_recovered_despite_outliers_on_one_side():
    projected, observed, centre = observed_with(1.0036, (0, -6.7), 2.0, outliers=0.2)
    fit = fit_zoom(projected, observed, centre)
    assert fit.scale == pytest.approx(1.0036, abs=0.0008)
    np.testing.assert_allclose(fit.shift_px, [0, -6.7], atol=0.4)
    assert fit.n == 400 and fit.residual_px_after < 0.6 * fit.residual_px_before
    message = describe_zoom("cam01", fit)
    assert message is not None and "cam01" in message and f"zoomed by {fit.scale:.4f}" in message and "-6." in message


def test_an_exact_zoom_is_recovered_exactly_and_missing_points_do_not_count():
    projected, observed, centre = observed_with(0.98, (4.0, 2.0), 0.0, outliers=0.0)
    observed[:7] = np.nan
    fit = fit_zoom(projected, observed, centre)
    assert (fit.scale, fit.n) == (pytest.approx(0.98, abs=1e-9), 393)
    np.testing.assert_allclose(fit.shift_px, [4.0, 2.0], atol=1e-6)
    assert fit.residual_px_after < 1e-6


def test_the_centre_moves_the_shift_and_not_the_zoom():
    projected, observed, centre = observed_with(1.01, (0, 0), 1.0, outliers=0.1)
    here, there = fit_zoom(projected, observed, centre), fit_zoom(projected, observed)
    assert here.scale == pytest.approx(there.scale, abs=1e-6)
    expected = here.shift_px + (here.scale - 1) * (np.median(projected, axis=0) - centre)
    np.testing.assert_allclose(there.shift_px, expected, atol=1e-3)


def test_a_video_that_fits_its_calibration_is_not_spoken_of():
    for scale, shift, noise_px in ((1.0, (0, 0), 3.0), (1.0005, (1.0, 0), 3.0), (1.003, (0, 1.0), 20.0)):
        projected, observed, centre = observed_with(scale, shift, noise_px, outliers=0.2)
        assert describe_zoom("a", fit_zoom(projected, observed, centre)) is None


def test_too_few_points_or_all_in_one_place_give_no_fit_and_no_sentence():
    projected, observed, centre = observed_with(1.1, (50, 0), 0.0, outliers=0.0)
    few, heap = fit_zoom(projected[:9], observed[:9], centre), fit_zoom(np.ones((50, 2)), np.zeros((50, 2)))
    for fit, n in ((few, 9), (heap, 50)):
        assert np.isnan(fit.scale) and np.isnan(fit.shift_px).all() and fit.n == n
        assert describe_zoom("a", fit) is None
    with pytest.raises(ValueError, match=r"needs two arrays \(N, 2\)"):
        fit_zoom(np.zeros((20, 2)), np.zeros((20, 3)))

"""Cameras, distortion, rigs and their file, importers, triangulation: synthetic truth and properties."""

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from calib import CalibrationError, Camera, Rig, load_rig
from calib.importers import import_rig, read_qualisys, read_toml
from calib.triangulate import refine_huber, reprojection_error_px, triangulate_dlt, triangulate_ransac

DATA = Path(__file__).resolve().parents[2] / "shared/data"
QUALISYS_AND_TOML = DATA / "pose2sim_demo/calibration"
CHARUCO = DATA / "caliscope_4cam"
FOURTEEN = [-0.21, 0.12, 0.0011, -0.0007, -0.02, 0.03, 0.01, 0.002, 0.0012, -0.0004, 0.0008, 0.0003, 0.02, -0.015]
FISHEYE = [0.05, -0.01, 0.004, -0.001]


def looking_at(
    name: str, centre_m, target_m=(0.0, 0.0, 1.0), dist=(-0.2, 0.05, 0.0008, -0.0005, 0.01), **fields
) -> Camera:
    """A 1280x720 camera that stands at one point, upright, and looks at another."""
    centre = np.asarray(centre_m, float)
    forward = (np.asarray(target_m, float) - centre) / np.linalg.norm(np.asarray(target_m, float) - centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    K = np.array([[900.0, 0.0, 651.3], [0.0, 905.0, 348.2], [0.0, 0.0, 1.0]])
    values = dict(size_px=(1280, 720), K=K, dist_opencv=dist, R_cam_from_world=R, t_cam_from_world_m=-R @ centre)
    return Camera(name=name, **{**values, **fields})


def ring(views: int, **fields) -> Rig:
    """Cameras on a circle of 4 m, 1.5 to 2.5 m up, that look at (0, 0, 1)."""
    angles = np.arange(views) * 2 * np.pi / views + 0.3
    centres = np.stack([4 * np.cos(angles), 4 * np.sin(angles), 1.5 + (np.arange(views) % 3) / 2], axis=-1)
    return Rig(tuple(looking_at(f"cam{i}", centre, **fields) for i, centre in enumerate(centres)))


def people_points(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([-0.6, -0.6, 0.2], [0.6, 0.6, 1.8], (n, 3))


def random_rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("n_terms", [0, 4, 5, 8, 12, 14])
def test_pinhole_projection_is_that_of_opencv(n_terms):
    camera = looking_at("a", (3.0, -2.0, 1.7), dist=FOURTEEN[:n_terms])
    points = people_points(200)
    rvec, _ = cv2.Rodrigues(camera.R_cam_from_world)
    terms = np.array(FOURTEEN[:n_terms]) if n_terms else None
    expected, _ = cv2.projectPoints(points, rvec, camera.t_cam_from_world_m, camera.K, terms)
    np.testing.assert_allclose(camera.project(points), expected[:, 0], rtol=0, atol=1e-9)


def test_fisheye_projection_is_that_of_opencv():
    camera = looking_at("a", (1.0, -0.8, 1.3), dist=FISHEYE, model="fisheye")
    points = people_points(200)
    points = points[camera.cam_from_world(points)[:, 2] > 0.05]
    rvec, _ = cv2.Rodrigues(camera.R_cam_from_world)
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], rvec, camera.t_cam_from_world_m[:, None], camera.K, np.array(FISHEYE)
    )
    np.testing.assert_allclose(camera.project(points), expected[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(camera.project([0.0, 0.0, 1.0]), camera.K[:2, 2], atol=1e-9)  # on the axis: no 0/0


@pytest.mark.parametrize("n_terms", [0, 4, 5, 8, 12, 14, "fisheye"])
def test_undistorting_a_projected_point_gives_its_ray_back(n_terms):
    fisheye = n_terms == "fisheye"
    camera = looking_at(
        "a",
        (3.0, -2.0, 1.7),
        dist=FISHEYE if fisheye else FOURTEEN[:n_terms],
        model="fisheye" if fisheye else "pinhole",
    )
    x, y = np.meshgrid(np.linspace(-0.7, 0.7, 21), np.linspace(-0.4, 0.4, 13))
    world = (np.stack([x, y, np.ones_like(x)], -1) * 3.0 - camera.t_cam_from_world_m) @ camera.R_cam_from_world
    found = camera.undistort(camera.project(world))
    np.testing.assert_allclose(found, np.stack([x, y], -1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("model", ["pinhole", "fisheye"])
def test_every_pixel_of_the_picture_is_its_ray_projected(model):
    camera = looking_at("a", (3.0, 0.0, 1.0), dist=FISHEYE if model == "fisheye" else FOURTEEN, model=model)
    uv = np.stack(np.meshgrid(np.linspace(0, 1279, 33), np.linspace(0, 719, 19)), -1)
    xy = camera.undistort(uv)
    np.testing.assert_allclose(camera.image_from_normalised(xy[..., 0], xy[..., 1]), uv, rtol=0, atol=1e-6)


def test_points_behind_the_camera_are_nan():
    camera = looking_at("a", (0.0, -3.0, 1.0))
    assert np.isnan(camera.project([[0.0, -4.0, 1.0], [0.1, -3.0, 1.0]])).all()


def test_points_beyond_the_radius_where_the_lens_model_folds_are_nan():
    camera = looking_at("a", (0.0, -1.0, 0.0), target_m=(0.0, 0.0, 0.0), dist=(-0.3, 0.0, 0.0, 0.0))
    fold = 1 / np.sqrt(3 * 0.3)  # r (1 - 0.3 r^2) grows no more
    assert camera.valid_radius == pytest.approx(fold, abs=2e-3)
    assert np.isfinite(camera.project([fold - 0.01, 0.0, 0.0])).all()
    assert np.isnan(camera.project([fold + 0.01, 0.0, 0.0])).all()


def test_pixels_that_no_ray_reaches_undistort_to_nan():
    camera = looking_at("a", (0.0, -1.0, 0.0), dist=(-0.3, 0.0, 0.0, 0.0))
    furthest_px = 900 * 2 / 3 / np.sqrt(3 * 0.3)
    assert np.isnan(camera.undistort([651.3 + furthest_px + 1, 348.2])).all()
    assert np.isfinite(camera.undistort([651.3 + furthest_px - 5, 348.2])).all()


def test_missing_pixels_stay_missing_and_leave_their_neighbours_alone():
    camera = looking_at("a", (0.0, -3.0, 1.0))
    found = camera.undistort([[np.nan, 3.0], [100.0, 200.0]])
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], camera.undistort([100.0, 200.0]), atol=1e-12)


def test_a_moved_world_gives_the_same_pixels():
    rig, points = ring(5), people_points(50)
    Q, shift = random_rotation(3), np.array([11.0, -7.0, 3.0])
    moved = Rig(
        tuple(
            replace(
                c, R_cam_from_world=c.R_cam_from_world @ Q.T, t_cam_from_world_m=c.t_cam_from_world_m - turned @ shift
            )
            for c in rig.cameras
            for turned in [c.R_cam_from_world @ Q.T]
        )
    )
    np.testing.assert_allclose(moved.project(points @ Q.T + shift), rig.project(points), rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved.focus_m(), rig.focus_m() @ Q.T + shift, atol=1e-9)


def test_cameras_stand_where_they_were_put_and_the_focus_is_the_point_they_all_look_at():
    np.testing.assert_allclose(looking_at("a", (3.0, -2.0, 1.7)).centre_m, [3.0, -2.0, 1.7], atol=1e-12)
    np.testing.assert_allclose(ring(6).focus_m(), [0, 0, 1], atol=1e-9)


def test_distortion_as_opencv_shapes_it_is_taken_flat():
    np.testing.assert_array_equal(looking_at("a", (3, 0, 1), dist=[FOURTEEN[:5]]).dist_opencv, FOURTEEN[:5])


def test_a_rig_comes_back_from_its_file_exactly(tmp_path):
    odd = [
        looking_at(f"c{n}", people_points(1, n)[0] + [5, 0, 0], dist=1e-5 / 3 * np.array(FOURTEEN[:n]))
        for n in (0, 4, 5, 8, 12, 14)
    ]
    fisheye = looking_at("f", (1.0, 2.0, 3.0), dist=FISHEYE, model="fisheye", video="a/b.mp4")
    for seed in range(20):
        rig = Rig((*odd, fisheye), tuple(random_rotation(seed)[0] * 3))
        path = tmp_path / "rig.yaml"
        path.write_text(rig.to_yaml(), encoding="utf-8")
        again = load_rig(path)
        assert again.up == rig.up
        assert [c.to_dict() for c in again.cameras] == [c.to_dict() for c in rig.cameras]


def broken(tmp_path: Path, change) -> Path:
    content = yaml.safe_load(ring(2).to_yaml())
    change(content, content["cameras"][1])
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


MISTAKES = {
    "unknown key of the rig": (lambda rig, c: rig.update(cameraz=1), "unknown key 'cameraz'; known keys are cameras"),
    "unknown key": (lambda rig, c: c.update(distortion=[0]), "camera 'cam1': unknown key 'distortion'; known keys are"),
    "missing key": (lambda rig, c: c.pop("K"), "camera 'cam1': key 'K' is missing"),
    "millimetres": (lambda rig, c: rig.update(unit="mm"), "unit is 'mm', only 'metre' is supported"),
    "no cameras": (lambda rig, c: rig.update(cameras=None), "has no list 'cameras:'"),
    "empty list": (lambda rig, c: rig.update(cameras=[]), "the rig has no cameras"),
    "camera not a mapping": (lambda rig, c: rig["cameras"].append(3), r"cameras\[2\] is not a mapping"),
    "same name": (lambda rig, c: c.update(name="cam0"), "camera name 'cam0' stands twice"),
    "up is a number": (lambda rig, c: rig.update(up=3), "'up' must be three numbers"),
    "up is words": (lambda rig, c: rig.update(up=["a", "b", "c"]), "'up' must be three numbers"),
    "up is zero": (lambda rig, c: rig.update(up=[0, 0, 0]), "'up' must be three numbers, not all zero"),
    "reflection": (lambda rig, c: c.update(R_cam_from_world=[[1, 0, 0], [0, 1, 0], [0, 0, -1]]), "is not a rotation"),
    "scaled rotation": (lambda rig, c: c.update(R_cam_from_world=[[2, 0, 0], [0, 2, 0], [0, 0, 2]]), "not a rotation"),
    "3 terms": (lambda rig, c: c.update(dist_opencv=[0, 0, 0]), "dist_opencv of a pinhole camera has 3 terms"),
    "fisheye with 5": (lambda rig, c: c.update(model="fisheye"), "dist_opencv of a fisheye camera has 5 terms"),
    "unknown model": (lambda rig, c: c.update(model="omni"), "model must be pinhole or fisheye, got 'omni'"),
    "NaN term": (lambda rig, c: c.update(dist_opencv=[float("nan")] * 14), "dist_opencv must hold finite numbers"),
    "NaN in t": (lambda rig, c: c.update(t_cam_from_world_m=[0, float("nan"), 1]), "finite numbers, got .*nan"),
    "2x2 K": (lambda rig, c: c.update(K=[[1, 0], [0, 1]]), r"K must have shape \(3, 3\), got shape \(2, 2\)"),
    "negative focal": (lambda rig, c: c.update(K=[[-9, 0, 1], [0, 9, 1], [0, 0, 1]]), "with f > 0"),
    "ragged K": (lambda rig, c: c.update(K=[[1, 0, 0], [0, 1], [0, 0, 1]]), "camera 'cam1': a value is not a number"),
    "a word": (lambda rig, c: c.update(t_cam_from_world_m=["one", 2, 3]), "camera 'cam1': a value is not a number"),
    "no height": (lambda rig, c: c.update(size_px=[1280]), "camera 'cam1': a value is not a number or has the wrong"),
    "no width": (lambda rig, c: c.update(size_px=[0, 720]), r"size_px must be \[width, height\] > 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_rig_yaml_is_told_in_one_line(tmp_path, mistake):
    change, message = MISTAKES[mistake]
    with pytest.raises(CalibrationError, match=message) as caught:
        load_rig(broken(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_yaml_or_not_there_is_told_in_one_line(tmp_path):
    path = tmp_path / "rig.yaml"
    with pytest.raises(CalibrationError, match="cannot read the rig file") as absent:
        load_rig(path)
    path.write_text("cameras: [\n  - {", encoding="utf-8")
    with pytest.raises(CalibrationError, match="is not valid YAML") as no_yaml:
        load_rig(path)
    path.write_bytes(b"\xff\xfe\x00cameras")
    with pytest.raises(CalibrationError, match="is not valid YAML") as binary:
        load_rig(path)
    assert not any("\n" in str(caught.value) for caught in (absent, no_yaml, binary))


def test_cameras_are_found_by_name_and_an_unknown_name_lists_the_known_ones():
    rig = ring(3)
    assert rig.select(["cam2", "cam0"]).names == ("cam2", "cam0")
    with pytest.raises(CalibrationError, match="no camera 'x' in the rig; it has cam0, cam1, cam2"):
        rig["x"]


QCA = """<?xml version='1.0'?>
<calibration><cameras>{cameras}</cameras></calibration>"""
QCA_CAMERA = """<camera active="{active}" serial="{serial}">
<fov_video left="{left}" right="1287" top="0" bottom="719"/>
<transform r11="1" r12="0" r13="0" r21="0" r22="0" r23="1" r31="0" r32="-1" r33="0" x="500" y="-3000" z="1200"/>
<intrinsic focalLengthU="64000" focalLengthV="65280" centerPointU="41216" centerPointV="22912" skew="0"
 radialDistortion1="-0.05" radialDistortion2="0.14" radialDistortion3="0.01"
 tangentalDistortion1="0.001" tangentalDistortion2="0.002"/></camera>"""
STRETCHED = QCA_CAMERA.format(active=1, serial="s", left=0).replace('r33="0"', 'r33="1"')
TOML = """[cam_a]
name = "a"
size = [1280.0, 720.0]
matrix = [[1000.0, 0.0, 644.0], [0.0, 1020.0, 358.0], [0.0, 0.0, 1.0]]
distortions = [-0.05, 0.14, 0.001, 0.002]
rotation = [1.5707963267948966, 0.0, 0.0]
translation = [-0.5, 1.2, 3.0]
[cam_b]
size = [1280, 720]
matrix = [[1000.0, 0.0, 644.0], [0.0, 1020.0, 358.0], [0.0, 0.0, 1.0]]
distortions = [0.01, 0.0, 0.0, 0.0]
fisheye = true
rotation = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
translation = [0.7, 1.2, 3.0]
[metadata]
error = 0.0
"""


def written(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_a_qualisys_camera_is_read_with_its_units_and_axes(tmp_path):
    text = QCA_CAMERA.format(active=1, serial="on", left=8) + QCA_CAMERA.format(active=0, serial="off", left=8)
    rig = import_rig(written(tmp_path, "x.qca.txt", QCA.format(cameras=text)))
    assert rig.names == ("on",)
    camera = rig["on"]
    assert camera.size_px == (1280, 720)
    np.testing.assert_allclose(camera.centre_m, [0.5, -3.0, 1.2], atol=1e-12)
    np.testing.assert_allclose(camera.R_cam_from_world, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(camera.K, [[1000, 0, 644 - 8], [0, 1020, 358], [0, 0, 1]])
    np.testing.assert_allclose(camera.dist_opencv, [-0.05, 0.14, 0.001, 0.002, 0.01])
    assert (camera.project([0.5, 0.0, 1.7])[1] < camera.K[1, 2]).all()  # higher in the world, higher in the picture


def test_toml_cameras_are_read_with_vector_or_matrix_rotation_and_fisheye(tmp_path):
    rig = import_rig(written(tmp_path, "x.toml", TOML))
    assert rig.names == ("a", "cam_b")
    assert [c.model for c in rig.cameras] == ["pinhole", "fisheye"]
    np.testing.assert_allclose(rig["a"].R_cam_from_world, rig["cam_b"].R_cam_from_world, atol=1e-12)
    np.testing.assert_allclose(rig["a"].centre_m, [0.5, -3.0, 1.2], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "cannot tell what kind of calibration"),
        ("x.qca.txt", "<calib", "is not a Qualisys calibration"),
        ("x.qca.txt", QCA.format(cameras=""), "holds no active camera"),
        ("x.qca.txt", QCA.format(cameras="<camera serial='s'/>"), "camera 's' lacks a part that is needed"),
        ("x.qca.txt", QCA.format(cameras=STRETCHED), "the transform is not a rotation"),
        ("x.toml", "[cam", "is not a TOML calibration"),
        ("x.toml", "[metadata]\nerror = 0", "no table with a camera 'matrix'"),
        ("x.toml", TOML.replace("translation = [0.7, 1.2, 3.0]", ""), "camera 'cam_b' has no 'translation'"),
        ("x.toml", TOML.replace("rotation = [1.5707963267948966, 0.0, 0.0]", "rotation = [1.0]"), "of the wrong form"),
        ("x.toml", TOML.replace("-0.5, 1.2, 3.0", "-500, 1200, 3000"), "'a' stands 3.* in millimetres; divide"),
    ],
)
def test_a_foreign_calibration_that_cannot_be_used_is_told_in_one_line(tmp_path, name, text, message):
    with pytest.raises(CalibrationError, match=message) as caught:
        import_rig(written(tmp_path, name, text))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not QUALISYS_AND_TOML.is_dir(), reason="the Pose2Sim sample is not beside this checkout")
def test_the_qualisys_and_toml_files_of_one_session_agree_but_for_the_distortion_over_64():
    ours = read_qualisys(QUALISYS_AND_TOML / "Calib.qca.txt")
    theirs = read_toml(QUALISYS_AND_TOML / "Calib_qualisys.toml")
    for a, b in zip(ours.cameras, theirs.cameras, strict=True):
        assert a.name.replace("cam", "cam_") == b.name and a.size_px == b.size_px
        np.testing.assert_allclose(a.K, b.K, atol=1e-9)
        np.testing.assert_allclose(a.R_cam_from_world, b.R_cam_from_world, atol=1e-9)
        np.testing.assert_allclose(a.t_cam_from_world_m, b.t_cam_from_world_m, atol=1e-9)
        np.testing.assert_allclose(a.dist_opencv, [*(64 * b.dist_opencv), 0], atol=1e-12)


@pytest.mark.skipif(not CHARUCO.is_dir(), reason="the Caliscope sample is not beside this checkout")
def test_the_corners_of_a_real_board_triangulate_within_a_pixel():
    rig = read_toml(CHARUCO / "config.toml")
    corners = defaultdict(lambda: np.full((len(rig), 2), np.nan))
    with open(CHARUCO / "extrinsic_charuco_xy.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            pixel = float(row["img_loc_x"]), float(row["img_loc_y"])
            corners[row["sync_index"], row["point_id"]][rig.names.index(f"cam_{row['port']}")] = pixel
    uv = np.stack(list(corners.values()), axis=1)
    points = triangulate_dlt(rig, uv, np.ones(uv.shape[:2]))
    assert np.isfinite(points).all(-1).sum() > 300
    assert np.nanmedian(reprojection_error_px(rig, points, uv)) < 0.6


@pytest.mark.parametrize(("views", "fields"), [(2, {}), (4, {}), (32, {}), (3, {"dist": FISHEYE, "model": "fisheye"})])
def test_noise_free_views_give_the_exact_point_by_both_methods(views, fields):
    rig, points = ring(views, **fields), people_points(30)
    uv = rig.project(points)
    np.testing.assert_allclose(triangulate_dlt(rig, uv, np.ones(uv.shape[:2])), points, rtol=0, atol=1e-8)
    robust, inliers = triangulate_ransac(rig, uv, np.ones(uv.shape[:2]), threshold_px=3.0)
    np.testing.assert_allclose(robust, points, rtol=0, atol=1e-8)
    assert inliers.all()


@pytest.mark.parametrize(("views", "bad"), [(4, 1), (8, 3)])
def test_ransac_finds_which_views_are_right(views, bad):
    rig, points, rng = ring(views), people_points(60), np.random.default_rng(5)
    uv = rig.project(points) + rng.normal(0, 0.5, (views, 60, 2))
    wrong = rng.permuted(np.arange(views)[:, None].repeat(60, 1) < bad, axis=0)
    angle = rng.uniform(0, 2 * np.pi, wrong.sum())
    uv[wrong] += rng.uniform(60, 200, (wrong.sum(), 1)) * np.stack([np.cos(angle), np.sin(angle)], -1)
    found, inliers = triangulate_ransac(rig, uv, np.ones((views, 60)), threshold_px=8.0)
    assert (inliers == ~wrong).mean() > 0.98
    assert np.median(np.linalg.norm(found - points, axis=1)) < 0.003
    plain = triangulate_dlt(rig, uv, np.ones((views, 60)))
    assert np.median(np.linalg.norm(plain - points, axis=1)) > 0.02


def test_huber_refinement_beats_linear_triangulation_on_noisy_views():
    rig, points, rng = ring(6), people_points(300), np.random.default_rng(2)
    uv = rig.project(points) + rng.standard_t(2, (6, 300, 2)) * 2.0
    weight = np.ones((6, 300))
    linear = triangulate_dlt(rig, uv, weight)
    refined = refine_huber(rig, linear, uv, weight, huber_px=3.0)
    error = [np.sqrt(np.mean(np.sum((found - points) ** 2, axis=1))) for found in (linear, refined)]
    assert error[1] < 0.9 * error[0]


def test_views_may_be_missing_and_a_weight_of_zero_is_the_same_as_missing():
    rig, points = ring(5), people_points(40)
    truth, rng = rig.project(points), np.random.default_rng(1)
    keep = rng.permuted(np.arange(5)[:, None].repeat(40, 1) < 3, axis=0)
    missing, spoilt = np.where(keep[..., None], truth, np.nan), np.where(keep[..., None], truth, 5.0)
    for method in (triangulate_dlt, lambda *args: triangulate_ransac(*args, threshold_px=2.0)[0]):
        by_nan, by_weight = method(rig, missing, np.ones((5, 40))), method(rig, spoilt, keep.astype(float))
        np.testing.assert_allclose(by_nan, points, atol=1e-8)
        np.testing.assert_allclose(by_weight, by_nan, atol=1e-9)


def test_fewer_than_two_views_or_fewer_than_asked_for_give_nan():
    rig, points = ring(4), people_points(3)
    uv = rig.project(points)
    weight = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], float)  # point i is seen by i + 1 views
    assert np.isnan(triangulate_dlt(rig, uv, weight)).any(-1).tolist() == [True, False, False]
    for min_views, lost in ((2, [True, False, False]), (3, [True, True, False]), (4, [True, True, True])):
        found, inliers = triangulate_ransac(rig, uv, weight, 3.0, min_views)
        assert np.isnan(found).any(-1).tolist() == lost
        assert (inliers.sum(0) == 0).tolist() == lost


def test_the_order_of_the_views_and_a_further_blank_view_change_nothing():
    rig, points, rng = ring(5), people_points(20), np.random.default_rng(4)
    uv = rig.project(points) + rng.normal(0, 1, (5, 20, 2))
    expected, inliers = triangulate_ransac(rig, uv, np.ones((5, 20)), 6.0)
    order = [3, 0, 4, 2, 1]
    permuted, inliers_permuted = triangulate_ransac(
        rig.select(rig.names[i] for i in order), uv[order], np.ones((5, 20)), 6.0
    )
    np.testing.assert_allclose(permuted, expected, atol=1e-7)
    assert (inliers_permuted == inliers[order]).all()
    more = Rig((*rig.cameras, looking_at("blank", (1, 1, 3))))
    blank = np.concatenate([uv, np.full((1, 20, 2), np.nan)])
    np.testing.assert_allclose(triangulate_ransac(more, blank, np.ones((6, 20)), 6.0)[0], expected, atol=1e-9)


def test_no_points_triangulate_to_no_points():
    rig, none = ring(3), np.zeros((3, 0, 2))
    assert triangulate_dlt(rig, none, np.zeros((3, 0))).shape == (0, 3)
    points, inliers = triangulate_ransac(rig, none, np.zeros((3, 0)), 3.0)
    assert points.shape == (0, 3) and inliers.shape == (3, 0)


def test_a_weight_that_is_nan_counts_as_zero():
    rig, points = ring(4), people_points(10)
    uv, weight = rig.project(points), np.ones((4, 10))
    uv[2] += 300.0
    weight[2] = np.nan
    np.testing.assert_allclose(triangulate_dlt(rig, uv, weight), points, atol=1e-8)
    np.testing.assert_allclose(triangulate_ransac(rig, uv, weight, 3.0)[0], points, atol=1e-8)


def test_a_lens_without_distortion_does_not_bend_and_a_crooked_one_by_what_its_formula_says():
    f, k1 = 800.0, -0.1
    K = np.array([[f, 0, 320.0], [0, f, 240.0], [0, 0, 1]])
    straight, camera = (Camera("c", (640, 480), K, np.array(k), np.eye(3), np.zeros(3)) for k in ((), (k1, 0, 0, 0)))
    assert straight.bend_per_px == 0
    corner = np.linalg.norm(camera.undistort(np.array([-64.0, -48.0])))
    # Along a radius, x (1 + k1 x^2) has the second derivative 6 k1 x and the first one 1 + 3 k1 x^2.
    expected = 1.5 * f * abs(6 * k1 * corner) / (f * (1 + 3 * k1 * corner**2)) ** 2
    assert camera.bend_per_px == pytest.approx(expected, rel=0.1)


def test_what_lies_between_points_strays_no_further_than_the_lens_bends():
    rng = np.random.default_rng(0)
    for dist, model in (((-0.3, 0.12, 1e-3, -1e-3), "pinhole"), ((0.1, -0.05, 0.02, -0.01), "fisheye")):
        K = np.array([[900.0, 0, 640.0], [0, 900.0, 360.0], [0, 0, 1]])
        camera = Camera("c", (1280, 720), K, np.array(dist), np.eye(3), np.zeros(3), model=model)
        for _ in range(200):
            rays = camera.undistort(rng.uniform((100, 100), (1180, 620)) + rng.uniform(-80, 80, (3, 2)))
            share = rng.dirichlet(np.ones(3))
            here = camera.image_from_normalised(*(share @ rays))
            corners = camera.image_from_normalised(*rays.T)
            diagonal = np.linalg.norm(corners.max(0) - corners.min(0))
            assert np.linalg.norm(here - share @ corners) <= camera.bend_per_px * diagonal**2 / 6

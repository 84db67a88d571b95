"""Runs by published networks, which look at pictures: crops without distortion, their cameras, places and errors."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from conftest import harvest
from map_scenes import maps_round, rig_of

from calib.camera import Camera
from calib.rig import Rig
from harvest.detect2d.detectors import crop_picture
from harvest.detect2d.locate import upright_crop
from harvest.detect2d.rectify import ideal_camera, picture_px, rectified_crop
from harvest.errors import UserError
from harvest.reconstruct.volume import pelvis_centres
from harvest.skeleton import load_skeleton
from harvest.store.tables import read_poses, read_selection
from harvest.studio.figure import Wrong, write_capture
from harvest.studio.rotations import look_at
from harvest.triangulate3d import infer_pictures
from harvest.triangulate3d.algebraic import triangulate_weighted
from harvest.triangulate3d.backbone import PoseResNet
from harvest.triangulate3d.from_maps import MapAlgebraic
from harvest.triangulate3d.infer_pictures import (
    JOINTS,
    PictureTriangulator,
    load_picture_triangulator,
    network_input,
    triangulate_pictures,
)
from harvest.triangulate3d.map_files import save_triangulator
from harvest.triangulate3d.published import MULTIPLIER_2D, PublishedAlgebraic, PublishedVolumetric
from harvest.triangulate3d.volumetric import VolumePose
from pipelines.capture import Capture
from pipelines.run import STAGES
from pipelines.settings import ReconstructSettings
from pipelines.stages import reconstruct
from pipelines.stages.learnt import triangulator_of

pytestmark = pytest.mark.usefixtures("one_thread")
WIDE = {
    "barrel": ("pinhole", 420.0, [-0.33, 0.12, 1e-3, -2e-3, -0.02]),
    "tilted": ("pinhole", 420.0, [-0.3, 0.08, 1e-3, -5e-4, 0.0, 0.0, 0.0, 0.0, 1e-3, -2e-3, 3e-3, 1e-3, -0.1, 0.1]),
    "fisheye": ("fisheye", 300.0, [0.05, -0.02, 0.004, -0.001]),
}


def algebraic(joints: int = 17) -> PublishedAlgebraic:
    torch.manual_seed(0)
    return PublishedAlgebraic(PoseResNet(18, joints, algebraic=True, features=8), MULTIPLIER_2D).eval()


def volumetric(joints: int = 17, confidences: int = 0) -> PublishedVolumetric:
    torch.manual_seed(0)
    backbone = PoseResNet(18, joints, volumetric=confidences, features=8)
    how = "confidence" if confidences else "softmax"
    return PublishedVolumetric(backbone, joints, how, channels=4, multiplier=30.0).eval()


def saved(network, path):
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, path)
    return path


def camera_of(lens: str, aim=(0.0, 0.0, 1.0), roll: float = 0.0, over: int = 1) -> Camera:
    """A camera 3 m from the middle with that lens, of 640 x 480 px times `over`."""
    model, focal, dist = WIDE[lens] if lens in WIDE else ("pinhole", 560.0, [])
    R, t = look_at((3.0, 0.4, 1.5), aim, roll)
    K = np.array([[focal * over, 0, 320 * over - 0.5], [0, focal * over, 240 * over - 0.5], [0, 0, 1]])
    return Camera("c", (640 * over, 480 * over), K, np.array(dist), R, t, model)


def spot(camera: Camera, xyz: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """A picture of one red spot where the camera shows a point."""
    (width, height), (u, v) = camera.size_px, camera.project(xyz)
    x, y = (
        np.exp(-((np.arange(width) - u) ** 2) / (2 * sigma**2)),
        np.exp(-((np.arange(height) - v) ** 2) / (2 * sigma**2)),
    )
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.round(250 * y[:, None] * x)
    return picture


def middle_of(shown: np.ndarray) -> np.ndarray:
    """(2,) the centroid (x, y) of a picture (h, w)."""
    weight = np.where(shown > 0.02 * shown.max(), shown, 0.0).astype(np.float64)
    return (
        np.array([(weight.sum(0) * np.arange(weight.shape[1])).sum(), (weight.sum(1) * np.arange(len(weight))).sum()])
        / weight.sum()
    )


# Crops


@pytest.mark.parametrize(
    ("lens", "aim", "roll", "over"),
    [
        ("barrel", (0.0, 1.5, 1.2), 0.0, 1),
        ("barrel", (0.0, -1.2, 0.7), 0.6, 4),
        ("tilted", (0.0, 1.5, 1.2), -1.2, 1),
        ("fisheye", (0.0, 1.6, 1.4), 0.2, 2),
    ],
)
def test_what_a_lens_bends_stands_in_the_crop_where_the_ideal_camera_sees_it(lens, aim, roll, over):
    camera = camera_of(lens, aim, roll, over)
    centre, rng, bent = np.array([0.1, 0.0, 1.0]), np.random.default_rng(1), []
    ideal = ideal_camera(camera, upright_crop(Rig((camera,)), 0, centre, 0.9), 384)
    np.testing.assert_allclose(ideal.centre_m, camera.centre_m, atol=1e-12)
    for xyz in centre + rng.uniform(-0.45, 0.45, (5, 3)):
        shown = rectified_crop(spot(camera, xyz, 2.0 * over), camera, ideal)
        assert np.abs(middle_of(shown[..., 0]) - ideal.project(xyz)).max() < 0.1
        np.testing.assert_allclose(picture_px(camera, ideal, ideal.project(xyz)), camera.project(xyz), atol=1e-6)
        straight = dataclasses.replace(camera, dist_opencv=np.zeros(4), model="pinhole")
        bent.append(np.abs(straight.project(xyz) - camera.project(xyz)).max() / over)
    assert max(bent) > 10  # px: the lens does bend what is looked at


def test_a_person_stands_upright_in_the_crop_and_fills_it_as_in_the_box():
    camera, up = camera_of("barrel", (0.0, 1.3, 1.6), 0.7), np.array([0.0, 0.0, 1.0])
    centre, radius = np.array([0.0, 0.0, 1.0]), 0.5
    ideal = ideal_camera(camera, upright_crop(Rig((camera,)), 0, centre, radius), 384)
    middle, above = ideal.project(centre), ideal.project(centre + 0.05 * up)
    np.testing.assert_allclose(middle, [191.5, 191.5], atol=1e-6)
    assert abs(above[0] - middle[0]) < 0.02 * (middle[1] - above[1])
    way = np.random.default_rng(0).normal(size=(2000, 3))
    ball = ideal.project(centre + radius * way / np.linalg.norm(way, axis=1, keepdims=True))
    assert (np.abs(ball - 191.5) < 192).all() and np.ptp(ball, axis=0).max() > 0.85 * 384


def test_a_camera_without_distortion_gives_the_crop_that_detectors_see():
    centre = np.array([0.0, 0.0, 1.0])
    camera = camera_of("none", centre)
    box = upright_crop(Rig((camera,)), 0, centre, 0.7)
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    rectified = rectified_crop(picture, camera, ideal_camera(camera, box, 128))
    np.testing.assert_allclose(rectified.astype(float), crop_picture(picture, box, 128), atol=12)
    assert np.abs(rectified.astype(float) - crop_picture(picture, box, 128)).mean() < 0.5


def test_a_box_that_no_ray_reaches_gives_no_camera():
    camera = dataclasses.replace(camera_of("none"), dist_opencv=np.array([-0.35, 0.0, 0.0, 0.0]))
    near, far = ([[200.0, 0, x], [0, 200.0, 100.0]] for x in (200.0, 1200.0))
    assert ideal_camera(camera, np.array(near), 64) is not None
    assert ideal_camera(camera, np.array(far), 64) is None


# The library


def looked(images: torch.Tensor) -> torch.Tensor:
    """(1, V, 17, 2) where the red spot is in crops as the network gets them, for every joint; all else is black."""
    deviation, mean = (torch.tensor(n)[:, None, None] for n in ((0.229, 0.224, 0.225), (0.485, 0.456, 0.406)))
    blue, green, red = (images * deviation + mean)[0].unbind(1)
    assert float(blue.abs().max()) < 1e-6 and float(green.abs().max()) < 1e-6 and 0.2 < float(red.max()) <= 1.0
    return torch.stack([torch.from_numpy(middle_of(shown.numpy())) for shown in red])[None, :, None].expand(
        -1, -1, 17, -1
    )


@pytest.fixture(scope="module")
def spots():
    """A rig of bent lenses, a red spot in each of frames 10 to 15, boxes, and the maps of two joints that lie on it."""
    rig = rig_of("barrel", "folding", "fisheye")
    xyz = np.array([0.0, 0.0, 1.0]) + np.random.default_rng(2).uniform(-0.4, 0.4, (6, 3))
    maps = maps_round(rig, xyz[:, None].repeat(2, 1), ("nose", "tail"))
    maps = dataclasses.replace(maps, frames=np.arange(10, 16))
    boxes = np.stack([[upright_crop(rig, v, point, 0.4) for v in range(3)] for point in xyz])

    def pictures(frames):
        for frame in frames:
            shown = {camera.name: spot(camera, xyz[frame - 10]) for camera in rig.cameras}
            if frame == 12:
                shown |= dict.fromkeys(rig.names[:2])
            if frame == 14:
                shown[rig.names[1]] = None
            yield frame, shown

    return rig, xyz, maps, boxes, pictures


def test_crops_and_projections_agree_to_a_millimetre_for_the_algebraic_network(spots, monkeypatch):
    rig, xyz, maps, boxes, pictures = spots
    network = algebraic()
    monkeypatch.setattr(network, "observe", lambda images: (looked(images), torch.ones(1, images.shape[1], 17)))
    boxes = boxes.copy()
    boxes[5, :2] = np.nan
    boxes[3, 0] = np.nan
    nowhere = np.full((6, 3), np.nan)
    poses = triangulate_pictures(PictureTriangulator(network), rig, maps, np.arange(6) / 30, boxes, nowhere, pictures)
    assert poses.joints == JOINTS and poses.found.all(axis=1).tolist() == [True, True, False, True, True, False]
    there = poses.found[:, 0]
    assert not poses.found[~there].any() and np.isnan(poses.cov_m2[~there]).all() and not poses.n_views[~there].any()
    assert np.linalg.norm(poses.xyz_m[there] - xyz[there, None], axis=2).max() < 1e-3
    assert (np.linalg.eigvalsh(poses.cov_m2[there]) > 0).all()
    sigma_mm = 1000 * np.sqrt(np.linalg.eigvalsh(poses.cov_m2[0, 0]))
    assert 0.5 < sigma_mm.min() < sigma_mm.max() < 10  # a cell of the crop is some 9 mm wide here
    nose = JOINTS.index("nose")
    assert (poses.n_views[there, nose] == 3).all() and (poses.confidence[there, nose] > 0.9).all()
    assert not np.delete(poses.n_views, nose, axis=1).any() and np.isnan(poses.flip).all()


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (0.6, 0.0, 0.8)])
def test_the_volumetric_network_gets_a_cube_round_the_pelvis_that_stands_upright(spots, monkeypatch, up):
    rig, xyz, maps, boxes, pictures = spots
    rig, network, cubes = Rig(rig.cameras, up), volumetric(), []

    def answer(images, projections, cube, *, covariance):
        assert covariance
        cubes.append((cube.side_m, cube.n, cube.centre_m.tolist()))
        ones = torch.ones(1, images.shape[1], 17)
        own = triangulate_weighted(looked(images), projections, ones).xyz_m
        return VolumePose(own, torch.zeros(0), torch.diag(torch.tensor([1.0, 1.0, 9.0])).expand(1, 17, 3, 3) * 1e-4)

    monkeypatch.setattr(network, "forward", answer)
    centres = xyz + [0.1, 0.2, -0.1]
    centres[1] = np.nan
    poses = triangulate_pictures(PictureTriangulator(network), rig, maps, np.arange(6) / 30, boxes, centres, pictures)
    there = np.array([True, False, False, True, True, True])
    np.testing.assert_array_equal(poses.found, there[:, None].repeat(17, 1))
    assert np.linalg.norm(poses.xyz_m[there] - xyz[there, None], axis=2).max() < 1e-3
    assert cubes == [(2.5, 64, [[0.0, 0.0, 0.0]])] * 4
    along = np.array(up) @ poses.cov_m2[there] @ np.array(up)
    np.testing.assert_allclose(along, 9e-4, rtol=1e-6)
    np.testing.assert_allclose(np.trace(poses.cov_m2[there], axis1=2, axis2=3), 11e-4, rtol=1e-6)


def test_the_cube_lies_round_the_pelvis_in_the_world(spots):
    """Through the real network: a volume that is as likely everywhere has its mean in the middle of the cube."""
    rig, xyz, maps, boxes, pictures = spots
    network = volumetric()
    torch.nn.init.zeros_(network.volume.out.weight)
    boxes = np.where(np.arange(6)[:, None, None, None] == 0, boxes, np.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer_pictures, "VOXELS", 32)
        patch.setattr(infer_pictures, "CROP_PX", 128)
        poses = triangulate_pictures(PictureTriangulator(network), rig, maps, np.arange(6) / 30, boxes, xyz, pictures)
    np.testing.assert_allclose(poses.xyz_m[0], xyz[0][None].repeat(17, 0), atol=1e-5)
    np.testing.assert_allclose(poses.cov_m2[0, 0], np.eye(3) * (2.5 * 32 / 31) ** 2 / 12, atol=1e-4)


def test_pictures_are_blue_first_and_lose_the_mean_of_the_channels_in_their_order():
    given = network_input(np.full((1, 2, 2, 3), (255, 51, 0), np.uint8))[0, :, 0, 0]
    expected = [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(given, expected, rtol=1e-5)


def test_the_pelvis_is_itself_or_the_middle_of_the_hips_or_the_middle_of_the_sphere():
    xyz = np.zeros((3, 3, 3))
    xyz[:, 1, 0], xyz[:, 2, 0] = 0.4, 0.2
    xyz[2, 1:] = np.nan
    xyz[1, 1] += 9.0
    centre, radius = np.full((3, 3), 0.05), np.ones(3)
    pelvis = pelvis_centres(xyz, ("nose", "l_hip", "r_hip"), centre, radius)
    np.testing.assert_allclose(pelvis, [[0.3, 0, 0], centre[1], centre[2]])
    np.testing.assert_allclose(pelvis_centres(xyz, ("pelvis", "l_hip", "r_hip"), centre, radius), np.zeros((3, 3)))
    np.testing.assert_allclose(pelvis_centres(xyz, ("nose", "l_eye", "r_eye"), centre, radius), centre)


def test_the_published_joints_are_those_of_the_built_in_skeleton_of_their_data_set():
    skeleton = load_skeleton("h36m17")
    assert sorted(JOINTS) == sorted(skeleton.joints)
    # Joints of Human3.6M's recordings, each with what it hangs on there: hips, spine, neck, head, and its top.
    recorded = dict(zip((3, 2, 1, 6, 7, 8, 0, 12, 13, 15, 27, 26, 25, 17, 18, 19, 14), JOINTS, strict=True))
    limbs = {(limb.child, limb.parent) for limb in skeleton.limbs}
    pairs = [(12, 0), (13, 12), (14, 13), (15, 14), (17, 13), (18, 17), (19, 18), (25, 13), (26, 25), (27, 26)]
    pairs += [(1, 0), (2, 1), (3, 2), (6, 0), (7, 6), (8, 7)]
    assert {(recorded[child], recorded[parent]) for child, parent in pairs} == limbs


# Runs


@pytest.fixture(scope="module")
def capture_of_six(tmp_path_factory):
    """A synthetic capture, options for runs on its keypoints, and its truth by the names of JOINTS."""
    folder = tmp_path_factory.mktemp("published")
    write_capture(folder, views=3, frames=6, wrong=Wrong(noise_px=1.0, outliers=0.0, flips=0.0))
    options = ["--rig", folder / "rig.yaml", "--videos", folder / "videos", "--detector", "keypoints"]
    with np.load(folder / "truth.npz") as truth:
        place = dict(zip(truth["joints"].tolist(), truth["xyz_m"].swapaxes(0, 1), strict=True))
    place |= {"neck": place["thorax"], "nose": place["upper_neck"], "spine": (place["pelvis"] + place["thorax"]) / 2}
    return folder, [*options, "--keypoints", folder / "keypoints"], np.stack([place[name] for name in JOINTS], axis=1)


@pytest.fixture
def small(monkeypatch):
    """Crops, volumes and blocks of frames that a test has time for."""
    monkeypatch.setattr(infer_pictures, "CROP_PX", 128)
    monkeypatch.setattr(infer_pictures, "VOXELS", 32)
    monkeypatch.setattr(reconstruct, "BLOCK_FRAMES", 4)
    torch.set_num_threads(1)


def config_of(folder, network, **more):
    kind = "volumetric" if isinstance(network, PublishedVolumetric) else "algebraic"
    weights, settings = saved(network, folder / f"{kind}.pth"), folder / f"{kind}.yaml"
    settings.write_text(f"reconstruct: {dict({'weights': str(weights)} | more)}")
    return ["--config", settings, "--method", kind]


def test_a_run_by_an_exact_network_gives_the_joints_back_and_reads_each_frame_once(
    capture_of_six, small, monkeypatch, capsys
):
    folder, options, truth = capture_of_six
    shown, read, cut, pictures = [], [], infer_pictures.crops_of, Capture.pictures

    def crops_of(*given):
        shown.append(cut(*given))
        return shown[-1]

    def observe(self, images, seen=None):
        cameras, frame = shown[-1].cameras, len(shown) - 1
        places = np.stack([camera.project(truth[frame]) for camera in cameras])
        return torch.from_numpy(places)[None], torch.ones(1, len(cameras), 17)

    def reading(self, frames):
        read.append(list(frames))
        return pictures(self, frames)

    monkeypatch.setattr(infer_pictures, "crops_of", crops_of)
    monkeypatch.setattr(PublishedAlgebraic, "observe", observe)
    monkeypatch.setattr(Capture, "pictures", reading)
    command = [*options, *config_of(folder, algebraic()), "--out", folder / "exact"]
    harvest("run", *command)
    poses = read_poses(folder / "exact" / "30_poses.parquet")
    skeleton = load_skeleton("h36m17")
    assert poses.joints == skeleton.joints and poses.found.all()
    wanted = truth[:, [JOINTS.index(name) for name in skeleton.joints]]
    assert np.linalg.norm(poses.xyz_m - wanted, axis=2).max() < 1e-3
    assert [0, 1, 2, 3] in read and [4, 5] in read
    detected = [name for name in JOINTS if name not in ("spine", "neck", "nose")]
    columns = [poses.joints.index(name) for name in detected]
    assert (poses.n_views[:, columns] == 3).all() and not np.delete(poses.n_views, columns, axis=1).any()
    keep = read_selection(folder / "exact" / "40_selection.parquet").keep
    assert keep[:, columns].mean() > 0.6 and (folder / "exact" / "report.html").is_file()
    harvest("plan", *command)
    assert capsys.readouterr().out.split().count("reuse") == len(STAGES)


@pytest.mark.parametrize("network", [algebraic(), volumetric()], ids=["algebraic", "volumetric"])
def test_a_whole_run_by_weights_that_know_nothing_places_joints_near_the_person(
    capture_of_six, small, network, tmp_path
):
    folder, options, truth = capture_of_six
    harvest("run", *options, *config_of(tmp_path, network), "--frames", "0:6:3", "--out", tmp_path / "out")
    poses = read_poses(tmp_path / "out" / "30_poses.parquet")
    assert poses.frames.tolist() == [0, 3] and poses.found.all() and np.isfinite(poses.cov_m2).all()
    assert np.linalg.norm(poses.xyz_m - truth[[0, 3], JOINTS.index("pelvis")][:, None], axis=2).max() < 2.2
    assert (tmp_path / "out" / "report.html").is_file()


def test_weights_that_do_not_fit_are_told_in_one_line(tmp_path):
    paths = {"a": saved(algebraic(), tmp_path / "a.pth"), "v": saved(volumetric(), tmp_path / "v.pt")}
    paths |= {"many": saved(volumetric(19), tmp_path / "m.pth"), "few": saved(algebraic(16), tmp_path / "f.pth")}
    paths |= {"gone": tmp_path / "gone.pth", "ours": tmp_path / "o.safetensors"}
    save_triangulator(MapAlgebraic(), paths["ours"])
    shutil.copy(paths["ours"], tmp_path / "o.pth")
    loaded = triangulator_of(ReconstructSettings(method="volumetric", weights=paths["v"], how="sum"))
    assert loaded.kind == "volumetric" and loaded.network.how == "sum"
    assert triangulator_of(ReconstructSettings(method="algebraic", weights=paths["a"])).kind == "algebraic"
    mistakes = (
        ({"method": "algebraic", "weights": paths["v"]}, "holds volumetric triangulation; give --method volumetric"),
        ({"method": "volumetric", "weights": paths["a"]}, "holds algebraic triangulation; give --method algebraic"),
        ({"method": "pictorial", "weights": paths["a"]}, "goes with --method algebraic or volumetric, not pictorial"),
        ({"method": "volumetric", "weights": paths["many"]}, "knows 19 joints.* 17 of Human3.6M"),
        ({"method": "algebraic", "weights": paths["few"]}, "knows 16 joints"),
        ({"method": "algebraic", "weights": paths["gone"]}, "there is no such file; give a .pth"),
        ({"method": "algebraic", "weights": tmp_path / "o.pth"}, "cannot be read as weights"),
        ({"method": "algebraic", "weights": paths["a"], "how": "sum"}, "how goes with volumetric weights"),
        ({"method": "algebraic", "weights": paths["ours"], "how": "sum"}, "how goes with published volumetric"),
        ({"method": "pictorial", "how": "sum"}, "how goes with published volumetric"),
        ({"method": "volumetric", "weights": paths["v"], "how": "confidence"}, "no volumetric confidences; choose"),
    )
    for given, message in mistakes:
        with pytest.raises(UserError, match=message) as caught:
            triangulator_of(ReconstructSettings(**given))
        assert "\n" not in str(caught.value)


def test_views_come_together_as_asked_or_as_the_weights_allow(tmp_path):
    plain, confident = saved(volumetric(), tmp_path / "p.pth"), saved(volumetric(confidences=4), tmp_path / "c.pth")
    assert load_picture_triangulator(plain).network.how == "softmax"
    assert load_picture_triangulator(confident).network.how == "confidence"
    assert load_picture_triangulator(confident, "sum").network.how == "sum"

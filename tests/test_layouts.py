"""Published layouts of multi-view footage: their cameras and joints, and maps whose places meet the joints."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from conftest import SHARED
from layout_folders import (
    CAMERA_NAMES,
    CMU,
    FRAMES,
    H36M_JOINTS,
    H36M_SEEN,
    H36M_SPOTS,
    PANOPTIC_FROM_WORLD,
    PEOPLE_SPOTS,
    SEEN,
    Spots,
    bent,
    h36m_person,
    panoptic_rig,
    people_at,
    person,
    picture,
    picture_path,
    places,
    rewrite_cameras,
    save,
    scene_path,
    write_calibration,
    write_human36m,
    write_panoptic,
    write_scene,
)

from calib.camera import Camera
from calib.errors import CalibrationError
from calib.importers import import_rig, read_human36m, read_panoptic
from calib.importers.human36m import opencv_distortion
from harvest.errors import UserError
from harvest.learn.layouts import footage, footage_of, maps_of_footage
from harvest.learn.layouts.footage import PADDING_PX, Pictures, at_intervals, items_of
from harvest.learn.layouts.panoptic import POSES, is_panoptic
from harvest.studio.video import Video
from pipelines import map_sets
from pipelines.map_sets import map_set_of

PANOPTIC, H36M = SHARED / "data" / "panoptic", SHARED / "data" / "h36m_sample"


# Panoptic


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    return write_panoptic(tmp_path_factory.mktemp("panoptic") / "160101_two")


def test_a_panoptic_calibration_is_the_same_cameras_in_metres(tmp_path):
    rig, path = panoptic_rig(), tmp_path / "calibration_x.json"
    write_calibration(path, rig)
    found = import_rig(path)
    assert found.names == rig.names and found.up == (0, -1, 0)  # the VGA camera is passed over
    xyz = person(CMU)
    np.testing.assert_allclose(found.project(xyz @ PANOPTIC_FROM_WORLD.T), rig.project(xyz), atol=1e-9)
    np.testing.assert_allclose(PANOPTIC_FROM_WORLD @ rig.up, found.up)
    assert found.cameras[0].size_px == (640, 480)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not a Panoptic calibration"),
        ('{"cameras": [{"type": "vga"}]}', "holds no camera of type 'hd'"),
        ('{"cameras": [{"type": "hd", "name": "00_07"}]}', "camera '00_07' lacks a part"),
    ],
)
def test_a_panoptic_calibration_that_cannot_be_used_is_told(text, message, tmp_path):
    path = tmp_path / "calibration_x.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=message):
        read_panoptic(path)


def test_everybody_before_panoptic_cameras_becomes_maps_whose_places_meet_at_the_joints(panoptic, tmp_path):
    found = maps_of_footage(footage_of(panoptic), PEOPLE_SPOTS, tmp_path)
    assert len(found) == 6 and found.joints == ("l_wrist", "nose")
    filmed = [panoptic_rig().cameras[view] for view in (1, 3, 4)]  # 00_02 was not, and 00_00 looks away
    read = read_panoptic(panoptic / "calibration_160101_two.json").select(camera.name for camera in filmed)
    for index in range(6):
        item, xyz = found[index], people_at(FRAMES[index // 2])[index % 2]
        np.testing.assert_allclose(item.xyz_m, xyz[SEEN] @ PANOPTIC_FROM_WORLD.T, atol=1e-9)
        np.testing.assert_array_equal(item.optics, [camera.optics for camera in read.cameras])
        assert item.up.tolist() == [0, -1, 0] and item.score.shape == (3, 2, 64, 64)
        assert np.abs(places(item, xyz[SEEN], filmed) - xyz[SEEN]).max() < 0.01  # a pixel is 7 mm there
        for affine, camera in zip(item.image_from_heatmap, filmed, strict=True):
            cells = np.linalg.solve(affine[:, :2], (camera.project(xyz) - affine[:, 2]).T)
            assert -1 < cells.min() and cells.max() < 64  # the crop holds the person
            assert 25 < np.ptp(cells, axis=1).max()  # and fits
            down = np.diff(camera.project(xyz[CMU.index("body_center")] - [[0, 0, 0], [0, 0, 0.1]]), axis=0)[0]
            turned = np.linalg.solve(affine[:, :2], down)
            assert abs(turned[0]) < 0.06 * turned[1]  # down in the world is down in the map


def test_crops_lie_as_those_of_a_run_and_each_item_has_its_own(panoptic):
    moments = footage_of(panoptic).moments
    items = [item for moment in moments for item in items_of(moment, CMU)]
    crops = np.stack([item.crops(number) for number, item in enumerate(items)])
    np.testing.assert_array_equal(crops, [item.crops(number) for number, item in enumerate(items)])
    same = np.array([items[0].crops(number) for number in range(200)])
    size = np.sqrt(np.abs(np.linalg.det(same[:, 0, :, :2])))
    middle = same[:, 0] @ [0.5, 0.5, 1]
    assert 1.25 < size.max() / size.min() < 1.5 and 0.01 < np.std(middle, axis=0).max() / size.mean() < 0.05
    centre, radius = items[0].sphere
    hips = items[0].xyz_m[[CMU.index("l_hip"), CMU.index("r_hip")]]
    np.testing.assert_allclose(centre, hips.mean(axis=0))
    assert radius == pytest.approx(1.15 * np.linalg.norm(items[0].xyz_m - centre, axis=1).max())
    lost = items[0].xyz_m.copy()
    lost[[CMU.index("l_hip"), CMU.index("r_hip")]] = np.nan
    assert np.linalg.norm(dataclasses.replace(items[0], xyz_m=lost).sphere[0] - centre) < 0.3


def test_panoptic_joints_without_confidence_are_unknown_and_people_of_few_joints_are_left_out(panoptic, tmp_path):
    folder = write_panoptic(tmp_path / "160101_two", frames=(6,))
    sure = np.full((2, 19), 0.4)
    sure[0, SEEN[1]], sure[1, :10] = 0.0, -1.0
    write_scene(scene_path(folder, 6), people_at(6), sure)
    found = maps_of_footage(footage_of(folder), PEOPLE_SPOTS, tmp_path / "out")
    assert len(found) == 1
    assert np.isfinite(found[0].xyz_m).all(axis=1).tolist() == [True, False]
    sure[1, 0] = 0.4  # now half of them are known
    write_scene(scene_path(folder, 6), people_at(6), sure)
    assert len(footage_of(folder).moments[0].people_m) == 2


def test_frames_are_taken_five_times_a_second_and_empty_ones_make_room():
    empty = {6, 7, 20}
    found = list(at_intervals(range(33), 29.97, lambda frame: None if frame in empty else str(frame)))
    assert found == [(0, "0"), (8, "8"), (14, "14"), (21, "21"), (27, "27")]
    assert [frame for frame, _ in at_intervals((1, 6, 11, 16, 21), 50.0, str)] == [1, 11, 21]


def test_a_view_counts_where_its_picture_is_and_shows_half_of_the_person(tmp_path):
    folder = write_panoptic(tmp_path / "160101_two", frames=(6, 12, 18, 24))
    picture_path(folder, "00_03", 12).unlink()
    for camera in ("00_03", "00_04"):
        picture_path(folder, camera, 18).unlink()
    for frame, height in ((6, 1.9), (24, -2.6)):  # the legs alone are in the pictures, or the head
        write_scene(scene_path(folder, frame), people_at(frame) + [[[0, 0, 0]], [[0, 0, height]]])
    read = footage_of(folder)
    assert [moment.name for moment in read.moments] == [f"160101_two/{frame:08d}" for frame in (6, 12, 18, 24)]
    views = [[item.rig.names for item in items_of(moment, CMU)] for moment in read.moments]
    everybody = [("00_01", "00_03", "00_04")]
    assert views == [everybody, [("00_01", "00_04")] * 2, [], everybody]
    picture_path(folder, "00_00", 18).unlink()
    assert len(footage_of(folder).moments) == 3


def test_videos_serve_cameras_without_pictures_and_are_decoded_once(tmp_path, monkeypatch):
    folder, rig = write_panoptic(tmp_path / "160101_two", views=(4,)), panoptic_rig()
    for view, length in ((1, 25), (3, 17)):  # which is too short for frame 18
        camera = rig.cameras[view]
        video = Video(folder / "hdVideos" / f"hd_{camera.name}.mp4", camera.size_px, 29.97)
        for frame in range(length):
            video.add(picture(camera.project, people_at(frame)[:, SEEN], camera.size_px))
        video.close()
    (folder / "hdVideos" / "hd_00_04.mp4").write_bytes(b"not looked at, for there are pictures")
    calls, read_frames = [], footage.read_frames
    monkeypatch.setattr(footage, "read_frames", lambda file, frames: calls.append(frames) or read_frames(file, frames))
    found = maps_of_footage(footage_of(folder), PEOPLE_SPOTS, tmp_path / "out")
    assert len(found) == 6 and calls == [[6, 12, 18], [6, 12]]
    for index in range(6):
        xyz = people_at(FRAMES[index // 2])[index % 2]
        filmed = [rig.cameras[view] for view in ((1, 4) if index >= 4 else (1, 3, 4))]
        assert np.abs(places(found[index], xyz[SEEN], filmed) - xyz[SEEN]).max() < 0.012
    items = [item for moment in footage_of(folder).moments for item in items_of(moment, CMU)]
    pictures = Pictures(items)
    for index in (3, 0, 5, 1, 2):  # in any order they are the same
        for one, other in zip(pictures.of(items[index]), Pictures(items[index:]).of(items[index]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_damaged_frame_of_a_video_is_a_view_without_maps(panoptic, tmp_path, monkeypatch):
    read = Pictures.of
    monkeypatch.setattr(Pictures, "of", lambda self, item: [None, *read(self, item)[1:]])
    item = maps_of_footage(footage_of(panoptic), PEOPLE_SPOTS, tmp_path)[0]
    assert np.isfinite(item.image_from_heatmap).all(axis=(1, 2)).tolist() == [False, True, True]
    assert not item.score[0].any() and item.score[1].any()


def test_a_folder_of_sequences_gives_all_of_them_and_a_deeper_folder_of_scenes_is_found(tmp_path):
    for name in ("160102_b", "160101_a"):
        write_panoptic(tmp_path / name, frames=(6,))
    inner = tmp_path / "160102_b" / POSES
    (inner / "hd").mkdir()
    scene_path(tmp_path / "160102_b", 6).rename(inner / "hd" / "body3DScene_00000006.json")
    assert [moment.name for moment in footage_of(tmp_path).moments] == ["160101_a/00000006", "160102_b/00000006"]
    assert is_panoptic(tmp_path) and not is_panoptic(tmp_path / "160101_a" / "hdImgs") and footage_of(inner) is None


def spoil_scene(folder):
    scene_path(folder, 6).write_text('{"bodies": [{"joints15": [0]}]}')


def spoil_picture(folder):
    picture_path(folder, "00_01", 6).write_bytes(b"")


def shrink_picture(folder):
    save(picture_path(folder, "00_01", 6), np.zeros((240, 320, 3), np.uint8))


def move_people(folder):
    write_scene(scene_path(folder, 6), people_at(6) + [0, 0, 9])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "calibration_160101_two.json").unlink(), "holds no calibration; give its own as"),
        (lambda folder: scene_path(folder, 6).unlink(), "body3DScene.* and unpack it there"),
        (
            lambda folder: (folder / "hdImgs" / "00_01").rename(folder / "other"),
            "pictures of 1 HD cameras, two or more",
        ),
        (spoil_scene, "it needs 'bodies' with 19 x 4 numbers"),
        (spoil_picture, "is a broken picture; unpack it again"),
        (shrink_picture, "is 320x240 px and its camera 640x480"),
        (move_people, "no person of its 1 moments is in the pictures of two cameras"),
    ],
)
def test_a_panoptic_folder_that_cannot_be_used_is_told_in_one_line(spoil, message, tmp_path):
    folder = write_panoptic(tmp_path / "160101_two", frames=(6,), views=(1, 3))
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        maps_of_footage(footage_of(folder), PEOPLE_SPOTS, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_detector_that_shares_no_joint_and_a_folder_of_other_maps_are_refused(panoptic, tmp_path):
    with pytest.raises(UserError, match="the detector finds tail, fin; give other"):
        maps_of_footage(footage_of(panoptic), Spots("tail", "fin"), tmp_path)
    folder = write_panoptic(tmp_path / "160101_two", frames=(6,))
    for _ in range(2):
        maps_of_footage(footage_of(folder), PEOPLE_SPOTS, tmp_path / "out")
    picture_path(folder, "00_03", 6).unlink()
    with pytest.raises(UserError, match="heat maps of something else"):
        maps_of_footage(footage_of(folder), PEOPLE_SPOTS, tmp_path / "out")


# Human3.6M


@pytest.fixture(scope="module")
def human36m(tmp_path_factory):
    return write_human36m(tmp_path_factory.mktemp("h36m"))


def test_lenses_of_human36m_are_told_exactly_in_opencvs_terms():
    rng = np.random.default_rng(0)
    for _ in range(20):
        k, p = rng.uniform(-0.05, 0.05, 3), rng.uniform(-0.05, 0.05, 2)
        x, y = rng.uniform(-0.4, 0.4, (2, 50))
        camera = Camera("", (9, 9), np.eye(3), opencv_distortion(k[0], k[1], *p, k[2]), np.eye(3), np.zeros(3))
        np.testing.assert_allclose(camera.project(np.stack([x, y, x * 0 + 1], -1)), np.stack(bent(x, y, k, p), -1))


def test_human36m_becomes_maps_whose_places_meet_at_the_joints(human36m, tmp_path):
    read = footage_of(human36m)
    assert [moment.name.rpartition("_")[2] for moment in read.moments] == ["000001.jpg", "000011.jpg"]
    found = maps_of_footage(read, H36M_SPOTS, tmp_path)
    rig = read_human36m(human36m / "camera-parameters.json", "S1")
    assert rig.names == CAMERA_NAMES and rig.cameras[0].size_px == (1000, 1002) and len(found) == 2
    for index, frame in enumerate((1, 11)):
        item, xyz = found[index], h36m_person(frame)[H36M_SEEN]
        np.testing.assert_allclose(item.xyz_m, xyz, atol=1e-9)
        np.testing.assert_array_equal(item.optics, [camera.optics for camera in rig.cameras])
        assert item.up.tolist() == [0, 0, 1]
        assert np.abs(places(item, xyz, rig.cameras) - xyz).max() < 0.006  # a pixel is 4 mm there


def test_what_human36m_calls_otherwise_or_has_not_is_unknown(human36m, tmp_path):
    spots = Spots("nose", "l_wrist", "head_top", "l_eye")
    item = maps_of_footage(footage_of(human36m), spots, tmp_path)[0]
    assert np.isfinite(item.xyz_m).all(axis=1).tolist() == [False, True, False, False]


def test_the_other_split_is_given_by_its_file_and_the_training_subjects_are_the_default(tmp_path):
    write_human36m(tmp_path, "test", frames=(1,), subject="S9")
    assert footage_of(tmp_path).moments[0].name.startswith("S9/")  # all that there is
    write_human36m(tmp_path, frames=(1,))
    assert footage_of(tmp_path).moments[0].name.startswith("S1/")
    cameras = tmp_path / "camera-parameters.json"
    content = json.loads(cameras.read_text())
    content["extrinsics"]["S9"] = content["extrinsics"]["S1"]
    cameras.write_text(json.dumps(content))
    test = tmp_path / "annotation_body3d" / "fps10" / "h36m_test.npz"
    assert footage_of(test).moments[0].name.startswith("S9/")
    (tmp_path / test.name).write_bytes(test.read_bytes())
    assert footage_of(tmp_path / test.name) is None  # there are no pictures round it


def test_a_moment_of_human36m_has_the_views_whose_pictures_are_there(tmp_path):
    folder = write_human36m(tmp_path, frames=(1, 11, 21))
    for frame, cameras in ((1, CAMERA_NAMES[:2]), (11, CAMERA_NAMES[1:])):
        for camera in cameras:
            (folder / f"images/S1/S1_Walking_1.{camera}/S1_Walking_1.{camera}_{frame:06d}.jpg").unlink()
    assert [moment.rig.names for moment in footage_of(folder).moments] == [CAMERA_NAMES[2:], CAMERA_NAMES]


def repack(folder, **arrays):
    path = folder / "annotation_body3d" / "fps10" / "h36m_train.npz"
    np.savez(path, **(dict(np.load(path)) | arrays))


def leave_the_original(folder):
    (folder / "annotation_body3d").rename(folder / "old")
    (folder / "S1" / "Videos").mkdir(parents=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "camera-parameters.json").unlink(), "holds no camera-parameters.json; put that of"),
        (lambda folder: (folder / "camera-parameters.json").write_text("{}"), "is not Human3.6M's camera-parameters"),
        (lambda folder: write_human36m(folder / "other", subject="S5") and (
            folder / "other" / "camera-parameters.json").rename(folder / "camera-parameters.json"),
            "no cameras of subject S1, it has those of S5"),
        (leave_the_original, "in CDF files or in a pickle; convert the original with mmpose's"),
        (lambda folder: repack(folder, imgname=np.array([{}] * 8, object)), "cannot be read .* plain arrays imgname"),
        (lambda folder: repack(folder, S=np.zeros((8, 16, 4))), r"S is \(8, 16, 4\), and 8 pictures need"),
        (lambda folder: repack(folder, imgname=np.array(["a.jpg"] * 8)), "'a.jpg' is not called <subject>_<action>"),
        (lambda folder: write_human36m(folder, frames=(1, 11), scale=1000.0), "in the world; S must be in metres"),
        (lambda folder: (folder / "images").rename(folder / "pictures"), "no moment of which .* has two pictures"),
    ],
)  # fmt: skip
def test_human36m_that_cannot_be_used_is_told_in_one_line(spoil, message, tmp_path):
    folder = write_human36m(tmp_path, frames=(1, 11))
    spoil(folder)
    with pytest.raises((UserError, CalibrationError), match=message) as caught:
        footage_of(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"54138969": None}, "camera '54138969' lacks a part"),
        ({"1234": {}}, "'1234' is no camera of Human3.6M; those are 54138969,"),
    ],
)
def test_cameras_of_human36m_that_cannot_be_used_are_told(change, message, human36m, tmp_path):
    content = json.loads((human36m / "camera-parameters.json").read_text())
    content["extrinsics"]["S1"] |= change
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=message):
        read_human36m(tmp_path / "x.json", "S1")


# What training takes


def test_training_recognises_both_layouts_by_what_a_folder_holds(panoptic, human36m, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(map_sets, "make_detector", lambda *given, **how: asked.append((given, how)) or PEOPLE_SPOTS)
    assert len(map_set_of(panoptic, tmp_path / "a", tmp_path / "mine.safetensors")) == 6
    assert len(map_set_of(human36m, tmp_path / "b")) == 2
    assert len(map_set_of(tmp_path / "b", tmp_path / "c")) == 2  # which is a set by now
    weights = [tmp_path / "mine.safetensors", None]
    assert asked == [(("hourglass", path), {"flip_test": False}) for path in weights]
    with pytest.raises(UserError, match="is no folder; give one of"):
        map_set_of(human36m / "nothing.npz", tmp_path / "d")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no multi-view samples"):
        map_set_of(tmp_path / "empty", tmp_path / "d")


# Real files


@pytest.mark.skipif(not PANOPTIC.is_dir(), reason="the Panoptic samples are not beside this checkout")
def test_a_real_panoptic_frame_is_read_as_others_read_it(tmp_path):
    folder = tmp_path / "160906_band1"
    scene_path(folder, 168).parent.mkdir(parents=True)
    raw = PANOPTIC / "gt_band" / "raw_sample" / "160906_band1_body3DScene_00000168.json"
    scene_path(folder, 168).write_bytes(raw.read_bytes())
    calibration = PANOPTIC / "gt_band" / "calibration_160906_hd.json"
    (folder / "calibration_160906_band1.json").write_bytes(calibration.read_bytes())
    for camera in ("00_00", "00_12", "00_30"):
        save(picture_path(folder, camera, 168), np.zeros((1080, 1920, 3), np.uint8))
    (moment,) = footage_of(folder).moments
    others = np.load(PANOPTIC / "gt_band" / "gt_160906_band1.npz")
    assert moment.rig.names == ("00_00", "00_12", "00_30") and tuple(others["joint_names"]) == CMU
    xyz = np.where(others["conf"][0][..., None] > 0, others["xyz_cm"][0] / 100, np.nan)
    np.testing.assert_allclose(moment.people_m, xyz, atol=1e-5)
    assert np.isnan(moment.people_m).any()
    neck, hips = CMU.index("neck"), CMU.index("body_center")
    assert ((moment.people_m[:, neck] - moment.people_m[:, hips]) @ moment.rig.up > 0.2).all()  # they sit
    items = items_of(moment, CMU)
    assert len(items) == 3 and all(0.4 < item.sphere[1] < 1.3 for item in items)


@pytest.mark.skipif(not H36M.is_dir(), reason="the Human3.6M sample is not beside this checkout")
def test_real_joints_of_human36m_are_projected_to_a_hundredth_of_a_pixel(tmp_path):
    path = tmp_path / "camera-parameters.json"
    rewrite_cameras(H36M / "cameras_h36m_all_subjects.json", path)
    samples = np.load(H36M / "samples.npz")
    head = slice(H36M_JOINTS.index("neck"), H36M_JOINTS.index("head_top") + 1)  # which has other names there
    for row, names in enumerate(zip(samples["joint_names"], H36M_JOINTS, strict=True)):
        assert names[0] == names[1] or head.start <= row < head.stop
    for name, uv, xyz_cam in zip(samples["image"], samples["kpts2d"], samples["xyz_cam_m"], strict=True):
        camera = read_human36m(path, name.partition("_")[0])[name.split(".")[1].split("_")[0]]
        world = (xyz_cam - camera.t_cam_from_world_m) @ camera.R_cam_from_world
        assert np.abs(camera.project(world) - uv[:, :2]).max() < 0.01
        assert world[:, 2].min() > -0.1 and world[H36M_JOINTS.index("head_top"), 2] > 0.4  # z is up, the floor at 0
        more = np.subtract(cv2.imread(str(H36M / "images" / name)).shape[1::-1], camera.size_px)
        assert 0 <= more.min() and more.max() <= PADDING_PX  # one of them has two rows more

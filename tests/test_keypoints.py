"""Keypoints of other tools: hand-made files of each kind, each mistake, and the heat maps made of them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from harvest.detect2d.keypoint_files import LAYOUTS, joint_name
from harvest.detect2d.keypoints import Keypoints, gaussian_heatmaps, read_keypoints
from harvest.errors import UserError
from harvest.skeleton import BUILT_IN, load_skeleton

DEMO = Path(__file__).resolve().parents[2] / "shared/data/pose2sim_demo"


def person(n_joints, shift=0.0, confidence=0.5):
    """[x, y, c] of each joint: x = 10 j + shift, y = 7 j + shift."""
    return [[10.0 * j + shift, 7.0 * j + shift, confidence] for j in range(n_joints)]


def flat(triplets):
    return [value for triplet in triplets for value in triplet]


def write_openpose(folder, frame, *people, name="walk_{:012d}_keypoints.json"):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"version": 1.3, "people": [{"pose_keypoints_2d": flat(triplets)} for triplets in people]}
    (folder / name.format(frame)).write_text(json.dumps(content))


def write_json(path, content):
    path.write_text(json.dumps(content))


def coco(*annotations, images, names=None):
    category = {"id": 1, "name": "person"} | ({"keypoints": names} if names else {})
    return {"images": images, "annotations": list(annotations), "categories": [category]}


def annotation(image_id, triplets, **extra):
    return {"image_id": image_id, "category_id": 1, "keypoints": flat(triplets)} | extra


def refusal(directory, views=("south",), layout=None):
    """The one line that reading is refused with."""
    with pytest.raises(UserError) as caught:
        read_keypoints(directory, views, layout)
    message = str(caught.value)
    assert "\n" not in message and len(message) > 20
    return message


def test_openpose_people_come_back_by_frame_then_view_then_order_in_the_file(tmp_path):
    write_openpose(tmp_path / "south", 10, person(25, 1), person(25, 2))
    write_openpose(tmp_path / "south", 9)
    write_openpose(tmp_path / "north", 2, person(25, 3))
    write_openpose(tmp_path / "north", 10, person(25, 4))
    found = read_keypoints(tmp_path, ("south", "north"))
    assert found.views == ("south", "north") and found.joints == load_skeleton("body25").joints
    assert found.frames.tolist() == [2, 10, 10, 10] and found.view.tolist() == [1, 0, 0, 1]
    assert found.uv_px[:, 2].tolist() == [[23, 17], [21, 15], [22, 16], [24, 18]]
    assert (found.confidence == 0.5).all()


@pytest.mark.parametrize(
    "n_joints, layout", [(25, "BODY_25"), (18, "COCO"), (15, "MPI"), (26, "HALPE_26"), (17, "COCO_17")]
)
def test_the_number_of_joints_tells_the_layout(tmp_path, n_joints, layout):
    write_openpose(tmp_path / "south", 0, person(n_joints))
    assert read_keypoints(tmp_path, ("south",)).joints == LAYOUTS[layout]


def test_body_25b_is_had_by_name_alone(tmp_path):
    write_openpose(tmp_path / "south", 0, person(25))
    joints = read_keypoints(tmp_path, ("south",), "BODY_25B").joints
    assert joints[:3] == ("nose", "l_eye", "r_eye") and joints[17:20] == ("neck", "head_top", "l_bigtoe")
    assert set(joints) - {"head_top"} == set(LAYOUTS["BODY_25"]) - {"mid_hip"}


def test_layouts_name_joints_as_skeletons_do_but_for_the_chest():
    known = {joint for name in BUILT_IN for joint in load_skeleton(name).joints}
    for joints in LAYOUTS.values():
        assert len(set(joints)) == len(joints) and set(joints) - known <= {"chest"}


def test_what_openpose_writes_as_zeros_is_missing(tmp_path):
    half = person(25)
    half[3] = [0, 0, 0]
    write_openpose(tmp_path / "south", 0, half, [[0, 0, 0]] * 25)
    found = read_keypoints(tmp_path, ("south",))
    assert len(found.frames) == 1  # nobody is left of the second
    assert np.flatnonzero(found.confidence[0] == 0).tolist() == [3] and np.isnan(found.uv_px[0, 3]).all()


def test_a_confidence_just_above_one_is_one_and_one_on_another_scale_is_refused(tmp_path):
    write_openpose(tmp_path / "south", 0, person(25, confidence=1.04))
    assert (read_keypoints(tmp_path, ("south",)).confidence == 1).all()
    write_openpose(tmp_path / "south", 1, person(25, confidence=87))
    assert "87" in refusal(tmp_path)


def test_json_files_of_other_names_are_frames_if_none_has_openposes(tmp_path):
    write_openpose(tmp_path / "south", 4, person(26), name="south_{:06d}.json")
    assert read_keypoints(tmp_path, ("south",)).frames.tolist() == [4]
    write_openpose(tmp_path / "south", 5, person(26))
    assert read_keypoints(tmp_path, ("south",)).frames.tolist() == [5]


def test_an_empty_view_is_allowed_and_nobody_at_all_is_not(tmp_path):
    write_openpose(tmp_path / "south", 0)
    write_openpose(tmp_path / "north", 0, person(18))
    assert read_keypoints(tmp_path, ("south", "north")).view.tolist() == [1]
    assert "no detection at all" in refusal(tmp_path, layout="MPI")
    write_openpose(tmp_path / "south", 0, [[0, 0, 0]] * 25)
    assert "confidence above 0" in refusal(tmp_path)


def test_openposes_own_files_come_back_as_their_table_says(tmp_path):
    if not DEMO.is_dir():
        pytest.skip("the Pose2Sim demo data are not here")
    for clip in ("single", "multi", "static"):
        (tmp_path / clip / "cam01_json").mkdir(parents=True)
        sample = DEMO / f"openpose_body25b_raw_sample/{clip}_cam01_frame0.json"
        shutil.copy(sample, tmp_path / clip / f"cam01_json/{clip}_000000000000_keypoints.json")
        found = read_keypoints(tmp_path / clip, ("cam01",), "BODY_25B")
        with np.load(DEMO / clip / "openpose_body25b.npz") as table:
            assert found.joints == tuple(table["joint_names"])
            expected = table["kpts"][(table["frame"] == 0) & (table["cam"] == 0)]
        missing = expected[..., 2] == 0
        assert (found.frames == 0).all() and ((found.confidence == 0) == missing).all()
        np.testing.assert_allclose(found.confidence, expected[..., 2], atol=1e-6)
        np.testing.assert_allclose(found.uv_px[~missing], expected[~missing][:, :2], atol=1e-3)


def test_a_coco_data_set_is_read_with_its_own_joint_names_frames_and_visibility(tmp_path):
    triplets = [[1, 2, 2], [3, 4, 1], [0, 0, 0]]
    images = [{"id": 7, "file_name": "cam1/frame_0012.jpg"}, {"id": 8, "file_name": "x.jpg", "frame": 3}]
    people = annotation(7, triplets), annotation(8, triplets, score=0.25), {"image_id": 8, "category_id": 1}
    names = ["nose", "left_wrist", "right_big_toe"]
    write_json(tmp_path / "south.json", coco(*people, images=images, names=names))
    found = read_keypoints(tmp_path, ("south",))
    assert found.joints == ("nose", "l_wrist", "r_bigtoe") and found.frames.tolist() == [3, 12]
    assert found.confidence.tolist() == [[0.25, 0.25, 0], [1, 1, 0]]
    assert found.uv_px[0, 1].tolist() == [3, 4] and np.isnan(found.uv_px[:, 2]).all()


def test_coco_results_have_a_frame_as_image_and_a_confidence_for_each_joint(tmp_path):
    people = [annotation(4, person(17, confidence=0.75), score=2.5), annotation("12.jpg", person(17, 1))]
    write_json(tmp_path / "south.json", people)
    found = read_keypoints(tmp_path, ("south",))
    assert found.joints == load_skeleton("coco17").joints and found.frames.tolist() == [4, 12]
    assert found.confidence[:, 0].tolist() == [0.75, 0.5]


@pytest.mark.parametrize(
    "content, reason",
    [
        ({"people": []}, "'annotations'"),
        (["person"], "COCO"),
        (coco(annotation(1, person(17)), images=[{"id": 1, "file_name": "still.jpg"}]), "no frame number"),
        (coco(annotation(2, person(17)), images=[{"id": 1, "frame": 0}]), "KeyError: 2"),
        (coco(annotation(1, person(3)), images=[{"id": 1, "frame": 0}]), "3 joints.*COCO_17 \\(17 joints\\)"),
        (coco(annotation(1, person(3)), images=[{"id": 1, "frame": 0}], names=["a", "b"]), "category names 2"),
        ([annotation(1, person(17)), annotation(1, person(18))], "different joints"),
        ([{"image_id": 1, "keypoints": [1, 2, "high"]}], "high"),
        ([{"image_id": 1, "keypoints": [1, 2, 1, 4]}], "4 values"),
    ],
)
def test_coco_files_that_cannot_be_meant_are_refused(tmp_path, content, reason):
    write_json(tmp_path / "south.json", content)
    message = refusal(tmp_path)
    assert "south.json" in message and re.search(reason, message)


def dlc(parts, rows, coords=("x", "y", "likelihood"), individuals=()):
    """The text of a CSV with a column for each coordinate of each part (of each individual)."""
    people = individuals or ("",)
    columns = [(who, part, coordinate) for who in people for part in parts for coordinate in coords]
    header = [["scorer"] + ["net"] * len(columns)]
    header += [["individuals"] + [who for who, _, _ in columns]] if individuals else []
    header += [["bodyparts"] + [part for _, part, _ in columns], ["coords"] + [name for _, _, name in columns]]
    return "\n".join(",".join(map(str, row)) for row in header + rows) + "\n"


def test_deeplabcuts_tracks_are_read_with_normalised_names(tmp_path):
    text = dlc(["Nose", "LeftWrist"], [[0, 1, 2, 0.9, 3, 4, 0.8], [1, 5, 6, 0.7, "", "", ""]])
    (tmp_path / "southDLC_resnet50_walkJul1shuffle1_500000.csv").write_text(text)
    found = read_keypoints(tmp_path, ("south",))
    assert found.joints == ("nose", "l_wrist") and found.frames.tolist() == [0, 1]
    assert found.confidence.tolist() == [[0.9, 0.8], [0.7, 0]]
    assert found.uv_px[:, 0].tolist() == [[1, 2], [5, 6]] and np.isnan(found.uv_px[1, 1]).all()


def test_deeplabcuts_individuals_are_people_and_its_labels_have_full_confidence(tmp_path):
    rows = [["labeled-data/south/img007.png", 1, 2, 3, 4], ["labeled-data\\south\\img012.png", 5, 6, "", ""]]
    text = dlc(["paw_R"], rows, coords=("x", "y"), individuals=("ann", "bob"))
    (tmp_path / "south.csv").write_text(text)
    found = read_keypoints(tmp_path, ("south",))
    assert found.joints == ("r_paw",) and found.frames.tolist() == [7, 7, 12]
    assert found.uv_px[:, 0].tolist() == [[1, 2], [3, 4], [5, 6]] and (found.confidence == 1).all()


def test_deeplabcuts_image_paths_may_take_several_columns(tmp_path):
    header = "scorer,,,me,me\nbodyparts,,,nose,nose\ncoords,,,x,y\n"
    (tmp_path / "south.csv").write_text(header + "labeled-data,south2,img0031.png,4,5\n")
    found = read_keypoints(tmp_path, ("south",))
    assert found.frames.tolist() == [31] and found.uv_px.tolist() == [[[4, 5]]]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a,b\n1,2\n", "'coords'"),
        ("", "'coords'"),
        ("scorer,a,a\nbodyparts,nose\ncoords,x,y\n0,1,2\n", "zip"),
        (dlc(["nose"], [[0, 1, 2]]), "row 4 has 3 values, its header 4"),
        (dlc(["nose"], [[0, 1, "far", 1]]), "far"),
        (dlc(["nose"], [[0, 1, 2, 1]], coords=("x", "y", "z")), "not in tuple"),
        (dlc(["nose"], [["start", 1, 2, 1]]), "no frame number"),
        (dlc(["nose"], [[3, 1, 2, 1], [3, 1, 2, 1]]), "two of its rows are frame 3"),
        (dlc(["wristL", "left_wrist"], [[0, 1, 2, 1, 1, 2, 1]]), "both 'l_wrist'"),
    ],
)
def test_csv_files_that_are_not_deeplabcuts_are_refused(tmp_path, text, reason):
    (tmp_path / "south.csv").write_text(text)
    message = refusal(tmp_path)
    assert "south.csv" in message and reason in message


@pytest.mark.parametrize(
    "name",
    ["LeftWrist", "left wrist", "wrist-left", "Wrist_L", "wristL", "LWrist", "leftwrist", "l_wrist", " Left-Wrist"],
)
def test_joint_names_put_the_side_in_front(name):
    assert joint_name(name) == "l_wrist"


def test_joint_names_without_a_side_stay_what_they_are():
    names = {"Nose": "nose", "MidHip": "mid_hip", "R": "r", "lower back": "lower_back", "right_small_toe": "r_smalltoe"}
    assert {name: joint_name(name) for name in names} == names
    for skeleton in BUILT_IN:
        assert all(joint_name(joint) == joint for joint in load_skeleton(skeleton).joints)


def test_views_find_their_sources_by_name_whatever_their_kind(tmp_path):
    write_openpose(tmp_path / "Cam 1", 0, person(17))
    write_json(tmp_path / "cam2_keypoints.json", [annotation(0, person(17, 1))])
    (tmp_path / "cam-3DLC_net.csv").write_text(dlc(load_skeleton("coco17").joints, [[0, *flat(person(17, 2))]]))
    write_json(tmp_path / "cam22.json", [annotation(0, person(17, 3))])
    (tmp_path / "cam_3").mkdir()  # holds no JSON: pictures, say
    found = read_keypoints(tmp_path, ("cam_1", "cam_2", "cam_3"))
    assert found.uv_px[:, 0, 0].tolist() == [0, 1, 2] and found.view.tolist() == [0, 1, 2]


def test_a_view_without_a_source_or_with_several_is_refused(tmp_path):
    assert "no such directory" in refusal(tmp_path / "nowhere")
    assert "among none" in refusal(tmp_path)
    write_openpose(tmp_path / "west_", 0, person(25))
    assert "south" in refusal(tmp_path) and "among west_" in refusal(tmp_path)
    (tmp_path / "West.csv").write_text("")
    (tmp_path / "West.txt").write_text("")
    assert "more than once (West.csv, west_)" in refusal(tmp_path, ("WEST",))
    assert read_keypoints(tmp_path, ("west_",)).views == ("west_",)


def test_one_source_cannot_serve_two_views(tmp_path):
    write_openpose(tmp_path / "cam1", 0, person(25))
    assert "cam1 and cam_1" in refusal(tmp_path, ("cam1", "cam_1"))


def test_views_of_different_joints_are_refused(tmp_path):
    write_openpose(tmp_path / "south", 0, person(25))
    write_openpose(tmp_path / "north", 0, person(18))
    assert "south and north have different joints" in refusal(tmp_path, ("south", "north"))


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path):
    message = refusal(tmp_path, layout="BODY_135")
    assert "BODY_135" in message and all(name in message for name in LAYOUTS)


def test_openpose_files_that_cannot_be_meant_are_refused(tmp_path):
    write_openpose(tmp_path / "south", 0, person(19))
    assert "19 joints" in refusal(tmp_path) and "BODY_25B" in refusal(tmp_path)
    write_openpose(tmp_path / "south", 0, person(18))
    assert "layout BODY_25B has not" in refusal(tmp_path, layout="BODY_25B")
    write_openpose(tmp_path / "south", 1, person(25))
    assert "000001_keypoints.json: a person has 25 joints, but layout COCO" in refusal(tmp_path)
    write_openpose(tmp_path / "south", 1, [[1, 2]])
    assert "2 values" in refusal(tmp_path)
    write_openpose(tmp_path / "south", 1, person(18), name="run_{:03d}_keypoints.json")
    assert "both frame 1" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content, reason", [(b'{"people": [', "JSON"), (b"\xff\xfe\x00", "JSON"), (b"[1]", "OpenPose"), (b"{}", "'people'")]
)
def test_a_damaged_file_is_named(tmp_path, content, reason):
    (tmp_path / "south").mkdir()
    (tmp_path / "south/a_000_keypoints.json").write_bytes(content)
    message = refusal(tmp_path)
    assert "a_000_keypoints.json" in message and reason in message


def test_a_file_without_a_number_has_no_frame(tmp_path):
    write_openpose(tmp_path / "south", 0, person(25), name="a_keypoints.json")
    assert "no frame number" in refusal(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"view": np.zeros(2, int)},
        {"confidence": np.full((1, 2), 1.5)},
        {"confidence": np.full((1, 2), np.nan)},
        {"uv_px": np.full((1, 2, 2), np.nan)},
        {"confidence": np.zeros((1, 2))},
    ],
)
def test_keypoints_that_contradict_themselves_cannot_be_made(change):
    sound = {"view": np.zeros(1, int), "uv_px": np.ones((1, 2, 2)), "confidence": np.ones((1, 2))}
    Keypoints(("south",), ("nose", "neck"), np.zeros(1, int), **sound)
    with pytest.raises(ValueError, match=r"shapes|confidence"):
        Keypoints(("south",), ("nose", "neck"), np.zeros(1, int), **(sound | change))


def turned(scale, degrees, shift_px):
    """(2, 3) image from cells: scaled, turned, moved."""
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[cos, -sin, shift_px[0]], [sin, cos, shift_px[1]]])


AFFINES = np.stack([turned(4.0, 0, (1.5, 1.5)), turned(3.3, 30, (410, -20)), turned(7, -115, (900, 640))])


def test_peaks_land_on_the_cell_of_the_keypoint_through_a_turned_and_scaled_affine():
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 64, (3, 16, 2))
    uv_px = np.einsum("vab,vjb->vja", AFFINES[:, :, :2], cells) + AFFINES[:, None, :, 2]
    confidence = rng.uniform(0.1, 1, (3, 16))
    maps = gaussian_heatmaps(uv_px, confidence, AFFINES)
    assert maps.shape == (3, 16, 64, 64) and maps.dtype == np.float32
    row, column = np.unravel_index(maps.reshape(3, 16, -1).argmax(axis=2), (64, 64))
    np.testing.assert_array_equal(np.stack([column, row], axis=2), cells)
    np.testing.assert_allclose(maps.max(axis=(2, 3)), confidence + (1 - confidence) * 2 * np.pi / 64**2, rtol=1e-5)


def test_between_cells_the_mean_of_the_bump_is_the_keypoint():
    cells = np.array([[[20.3, 41.8]]])
    uv_px = np.einsum("vab,vjb->vja", AFFINES[1:2, :, :2], cells) + AFFINES[1:2, None, :, 2]
    bump = gaussian_heatmaps(uv_px, np.ones((1, 1)), AFFINES[1:2], sigma_cells=2.0)[0, 0].astype(float)
    rows, columns = np.indices(bump.shape)
    mean = np.array([(columns * bump).sum(), (rows * bump).sum()]) / bump.sum()
    np.testing.assert_allclose(mean, cells[0, 0], atol=1e-4)
    spread = ((columns - mean[0]) ** 2 * bump).sum() / bump.sum()
    assert spread == pytest.approx(4.0, rel=1e-3)


def test_the_floor_rises_as_confidence_falls_and_a_missing_joint_has_a_flat_map():
    uv_px = np.array([[[130.0, 130.0], [130.0, 130.0], [130.0, 130.0], [np.nan, np.nan]]])
    maps = gaussian_heatmaps(uv_px, np.array([[1.0, 0.9, 0.3, 0.0]]), AFFINES[:1], outlier_density=0.05)[0]
    np.testing.assert_allclose(maps[:, 0, 0], [0, 0.005, 0.035, 0.05], atol=1e-7)
    contrast = maps[1:].max(axis=(1, 2)) / maps[1:].min(axis=(1, 2))
    assert contrast[0] > contrast[1] > 8 and contrast[2] == 1


def test_a_keypoint_outside_its_map_leaves_the_floor():
    maps = gaussian_heatmaps(np.full((1, 1, 2), -900.0), np.full((1, 1), 0.75), AFFINES[:1])
    np.testing.assert_allclose(maps, 0.25 * 2 * np.pi / 64**2, rtol=1e-6)


def test_a_missing_view_has_empty_maps():
    affines = AFFINES.copy()
    affines[1] = np.nan
    maps = gaussian_heatmaps(np.full((3, 2, 2), 100.0), np.full((3, 2), 0.5), affines, size=32)
    assert maps.shape == (3, 2, 32, 32) and not maps[1].any() and maps[0].all() and maps[2].all()


@pytest.mark.parametrize(
    "change",
    [
        {"uv_px": np.ones((2, 2, 2))},
        {"image_from_heatmap": AFFINES},
        {"image_from_heatmap": np.zeros((1, 2, 3))},
        {"confidence": np.full((1, 2), 1.1)},
        {"uv_px": np.full((1, 2, 2), np.nan)},
        {"sigma_cells": 0.0},
        {"outlier_density": -0.1},
    ],
)
def test_heat_maps_of_nonsense_are_refused(change):
    sound = {"uv_px": np.ones((1, 2, 2)), "confidence": np.ones((1, 2)), "image_from_heatmap": AFFINES[:1]}
    with pytest.raises(ValueError):
        gaussian_heatmaps(**(sound | change))

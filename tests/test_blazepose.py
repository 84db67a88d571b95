"""BlazePose on real pictures against another tool's joints, and the arithmetic round its networks."""

from pathlib import Path

import numpy as np
import pytest

from calib.importers import read_qualisys
from calib.triangulate import triangulate_dlt
from harvest.detect2d.blazepose import JOINTS, BlazePoseDetector, BlazePosePersonFinder, merge_overlapping
from harvest.detect2d.detectors import chain, crop_picture, image_from_pixels, make_detector
from harvest.detect2d.locate import upright_crop
from harvest.detect2d.weights import PUBLISHED, fetch_weights, file_of
from harvest.errors import UserError
from harvest.reconstruct.peaks import peak_points
from harvest.skeleton import load_skeleton
from harvest.types import Heatmaps
from harvest.video import read_frames

SAMPLE = Path(__file__).resolve().parents[2] / "shared/data/pose2sim_demo"
FRAME, VIEWS = 50, ("cam01", "cam02", "cam03", "cam04")
LIMB_JOINTS = [f"{side}_{name}" for side in "lr" for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")]
OURS = [JOINTS.index(joint) for joint in LIMB_JOINTS]


@pytest.fixture(scope="session")
def networks():
    """The detector and the finder, where their weights and what runs them are there."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    try:
        for file in PUBLISHED["blazepose"].files:
            file_of("blazepose", file)
    except UserError as error:
        pytest.skip(str(error))
    return BlazePoseDetector(), BlazePosePersonFinder()


@pytest.fixture(scope="session")
def moment():
    """Rig, pictures of four views at one moment, and the 2D joints (V, 12, 2) that OpenPose found there."""
    if not (SAMPLE / "single/videos").is_dir():
        pytest.skip("the Pose2Sim sample is not beside this checkout")
    with np.load(SAMPLE / "single/openpose_body25b_pose2sim_associated.npz") as stored:
        names = stored["joint_names"].tolist()
        rows = [np.flatnonzero((stored["frame"] == FRAME) & (stored["cam"] == view))[0] for view in range(len(VIEWS))]
        uv = stored["kpts"][rows][:, [names.index(joint) for joint in LIMB_JOINTS], :2].astype(float)
    pictures = [next(read_frames(SAMPLE / f"single/videos/{view}.mp4", [FRAME]))[1] for view in VIEWS]
    return read_qualisys(SAMPLE / "calibration/Calib.qca.txt").select(VIEWS), pictures, uv


@pytest.fixture(scope="session")
def crops(moment):
    """Upright crops (V, 256, 256, 3) round the person, and their affines (V, 2, 3) from the unit crop to the image."""
    rig, pictures, uv = moment
    centre = triangulate_dlt(rig, hips(uv)[:, None], np.ones((len(rig), 1)))[0]
    affine = [upright_crop(rig, view, centre, 0.95) for view in range(len(rig))]
    return np.stack([crop_picture(p, a, 256) for p, a in zip(pictures, affine, strict=True)]), np.stack(affine)


@pytest.fixture(scope="session")
def maps(networks, crops):
    """Maps (V, 33, 64, 64) of the crops, and of their mirror images with left and right joints put back."""
    swapped = [JOINTS.index({"l_": "r_", "r_": "l_"}.get(j[:2], j[:2]) + j[2:]) for j in JOINTS]
    mirrored = np.ascontiguousarray(crops[0][:, :, ::-1])
    return networks[0](crops[0]), networks[0](mirrored)[:, swapped]


def hips(uv):
    return uv[:, [LIMB_JOINTS.index("l_hip"), LIMB_JOINTS.index("r_hip")]].mean(axis=1)


def peaks(score, affine):
    """(V, 12, 2) peaks of the limb joints' maps (V, 33, 64, 64), in what the affine leads to."""
    heatmaps = Heatmaps(np.array([FRAME]), VIEWS, JOINTS, score[None], np.asarray(affine, float)[None])
    return peak_points(heatmaps)[0][0][:, OURS]


def test_the_finder_finds_the_subject_in_all_four_views(networks, moment):
    _, pictures, uv = moment
    for picture, hip in zip(pictures, hips(uv), strict=True):
        found = networks[1](picture)
        distance = np.linalg.norm(found.centre_px - hip, axis=1)
        assert distance.min() < 80
        subject = int(np.argmin(distance))
        assert found.score[subject] > 0.5 and 300 < found.radius_px[subject] < 600


def test_the_finder_sees_nobody_in_an_empty_picture(networks):
    assert len(networks[1](np.full((480, 640, 3), 128, np.uint8))) == 0


def test_the_peaks_lie_where_openpose_sees_the_joints(networks, moment, crops, maps):
    detector = networks[0]
    affine = [chain(image_from_pixels(a, detector.input_px), detector.crop_from_heatmap) for a in crops[1]]
    error = np.linalg.norm(peaks(maps[0], affine) - moment[2], axis=2)
    assert np.median(error) < 30
    assert (np.median(error, axis=1) < 40).all()


def test_mirrored_crops_give_peaks_that_add_up_to_64_cells(maps):
    cells = np.tile(np.eye(2, 3), (len(VIEWS), 1, 1))
    plain, mirrored = peaks(maps[0], cells), peaks(maps[1], cells)
    total = plain[..., 0] + mirrored[..., 0]
    assert abs(np.median(total) - 64) < 0.3 and np.median(np.abs(total - 64)) < 0.5  # cells' centres would give 63
    assert np.median(np.abs(plain[..., 1] - mirrored[..., 1])) < 0.5


def test_the_maps_are_probabilities_in_the_shape_that_the_detector_states(networks, maps):
    detector = networks[0]
    assert maps[0].shape == (len(VIEWS), len(detector.joints), detector.heatmap_px, detector.heatmap_px)
    assert maps[0].dtype == np.float32 and maps[0].min() >= 0 and maps[0].max() <= 1
    assert set(load_skeleton("blazepose").joints) <= set(detector.joints)
    assert detector(np.zeros((0, 256, 256, 3), np.uint8)).shape == (0, 33, 64, 64)


def test_flip_test_is_the_mean_of_a_crop_and_its_mirror_image(networks, crops, maps):
    plain, mirrored = maps
    by_hand = plain.copy()
    for column in range(1, 64):
        by_hand[..., column] = (plain[..., column] + mirrored[..., 64 - column]) / 2
    flipped = make_detector("blazepose", None, flip_test=True)
    np.testing.assert_allclose(flipped(crops[0]), by_hand, rtol=0, atol=1e-6)


def box(x, y, size, hip_x=0.0):
    return np.array([x, y, size, size, hip_x, 0.0, 0, 0, 0, 0, 0, 0], float)


def test_boxes_of_one_person_are_averaged_by_their_score():
    boxes = np.stack([box(0.50, 0.5, 0.2, hip_x=1.0), box(0.52, 0.5, 0.2, hip_x=2.0)])
    merged, score = merge_overlapping(boxes, np.array([0.9, 0.3]))
    assert score.tolist() == [0.9]
    np.testing.assert_allclose(merged[0, [0, 4]], [0.505, 1.25])


def test_boxes_apart_stay_apart_and_the_best_comes_first():
    boxes = np.stack([box(0.2, 0.5, 0.1), box(0.8, 0.5, 0.1), box(0.21, 0.5, 0.1)])
    merged, score = merge_overlapping(boxes, np.array([0.5, 0.8, 0.6]))
    assert score.tolist() == [0.8, 0.6]
    np.testing.assert_allclose(merged[:, 0], [0.8, (0.5 * 0.2 + 0.6 * 0.21) / 1.1])


def test_a_chain_of_boxes_is_merged_by_overlap_with_the_best_alone():
    boxes = np.stack(
        [box(0.50, 0.5, 0.2), box(0.58, 0.5, 0.2), box(0.66, 0.5, 0.2)]
    )  # neighbours share 0.43, ends 0.11
    merged, score = merge_overlapping(boxes, np.array([0.9, 0.8, 0.7]))
    assert score.tolist() == [0.9, 0.7]
    np.testing.assert_allclose(merged[:, 0], [(0.9 * 0.5 + 0.8 * 0.58) / 1.7, 0.66])


def test_boxes_without_size_overlap_nothing_and_no_boxes_are_nobody():
    merged, score = merge_overlapping(np.stack([box(0.5, 0.5, 0.0)] * 2), np.array([0.5, 0.6]))
    assert len(merged) == 2 and score.tolist() == [0.6, 0.5]
    merged, score = merge_overlapping(np.zeros((0, 12)), np.zeros(0))
    assert merged.shape == (0, 12) and score.shape == (0,)


def test_weights_that_are_not_there_or_damaged_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HARVEST_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"are not here .*run `harvest weights fetch blazepose`") as absent:
        BlazePoseDetector()
    (tmp_path / "blazepose").mkdir()
    for file in PUBLISHED["blazepose"].files:
        (tmp_path / "blazepose" / file).write_bytes(b"these are no weights")
    for use in (BlazePoseDetector, BlazePosePersonFinder, lambda: fetch_weights("blazepose")):
        with pytest.raises(UserError, match=r"tflite is damaged \(wrong SHA-256\); delete it and run") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert "\n" not in str(absent.value)


def test_published_weights_of_an_unknown_name_list_the_known_ones():
    with pytest.raises(UserError, match="no published weights 'alphapose'; known: blazepose"):
        fetch_weights("alphapose")

"""Training of triangulation: sets of maps, spoilt maps, loss and exact resume."""

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import tarfile

import cv2
import numpy as np
import pytest
import torch
from map_scenes import JOINTS, scene

from harvest.errors import UserError
from harvest.learn import map_samples, map_sets
from harvest.learn.map_samples import MapBatches, batch_of, place_of, spoilt
from harvest.learn.map_sets import HEADER, SHARD, MapSet, MultiViewMaps, maps_of_multiviews, write_map_set
from harvest.learn.peers import Peers
from harvest.learn.training import CURVE
from harvest.learn.triangulation import (
    WEIGHTS,
    TriangulationSettings,
    TriangulationTraining,
    measure,
)
from harvest.studio.figure import ring_rig
from harvest.triangulate3d.from_maps import MapAlgebraic
from harvest.triangulate3d.map_files import load_triangulator
from pipelines.map_sets import Given, map_set_of, train_on

pytestmark = pytest.mark.usefixtures("one_thread")
ALGEBRAIC = TriangulationSettings(
    steps=6, batch=2, warm=2, width=2, seed=3, validate=4, validate_every=3, checkpoint_s=1e9
)
VOLUMETRIC = dataclasses.replace(ALGEBRAIC, model="volumetric", how="confidence", voxels=16, levels=2, width=4, steps=4)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Ten scenes, every third with a view that is wrong."""
    folder = tmp_path_factory.mktemp("maps")
    return write_map_set(folder, JOINTS, 10, lambda i: scene(i, wrong_view=i % 3 == 0)[0], "scenes")


# Sets of maps


def test_a_set_gives_back_what_was_written_in_any_order(maps):
    assert len(maps) == 10 and maps.joints == JOINTS
    for index in (7, 0, 9, 7):
        item, expected = maps[index], scene(index, wrong_view=index % 3 == 0)[0]
        np.testing.assert_allclose(item.score, expected.score, atol=5e-3)
        for name in ("image_from_heatmap", "optics", "up", "xyz_m"):
            np.testing.assert_array_equal(getattr(item, name), getattr(expected, name))
    with pytest.raises(IndexError):
        maps[10]


def test_items_of_other_shapes_are_refused():
    item = scene(0)[0]
    for wrong in ({"optics": item.optics[:2]}, {"joints": JOINTS[:2]}, {"up": np.zeros(2)}, {"score": item.score[0]}):
        with pytest.raises(ValueError, match="do not go with"):
            dataclasses.replace(item, **wrong)


def test_a_stopped_set_goes_on_and_a_finished_one_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(map_sets, "SHARD", 3)
    asked = []

    def item(index: int, stop: int = 99) -> MultiViewMaps:
        asked.append(index)
        if index == stop:
            raise KeyboardInterrupt
        return scene(index, ring_rig(2 + index % 3))[0]  # of different numbers of views

    with pytest.raises(KeyboardInterrupt):
        write_map_set(tmp_path, JOINTS, 7, lambda index: item(index, stop=4), "scenes")
    with pytest.raises(UserError, match="not finished; run the command"):
        MapSet(tmp_path)
    found = write_map_set(tmp_path, JOINTS, 7, item, "scenes")
    assert asked == [0, 1, 2, 3, 4, 3, 4, 5, 6] and len(found) == 7
    asked.clear()
    grown = write_map_set(tmp_path, JOINTS, 8, item, "scenes")
    assert asked == [6, 7] and len(grown) == 8
    for index in range(8):
        expected = scene(index, ring_rig(2 + index % 3))[0]
        np.testing.assert_array_equal(grown[index].optics, expected.optics)
        np.testing.assert_array_equal(grown[index].xyz_m, expected.xyz_m)
    for joints, made_from in ((JOINTS[:3], "scenes"), (JOINTS, "others")):
        with pytest.raises(UserError, match="heat maps of something else"):
            write_map_set(tmp_path, joints, 8, item, made_from)


def test_a_folder_that_is_no_set_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no set of heat maps \(no set.json\)"):
        MapSet(tmp_path)
    with pytest.raises(UserError, match="nothing to make heat maps of"):
        write_map_set(tmp_path, JOINTS, 0, lambda i: scene(i)[0], "")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        write_map_set(tmp_path, JOINTS, 1, lambda i: scene(i)[0], "")
    (tmp_path / HEADER).write_text("[]")
    with pytest.raises(UserError, match="no header"):
        MapSet(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        map_set_of(tmp_path / "nowhere", tmp_path / "out")


class Spots:
    """A detector of two joints: the red spot and the green one."""

    joints, fingerprint = ("l_wrist", "nose"), "spots"
    crop_from_heatmap = np.array([[4, 0, 1.5], [0, 4, 1.5]])

    def __call__(self, crops):
        cells = crops.reshape(len(crops), 64, 4, 64, 4, 3).mean(axis=(2, 4)) / 255
        return np.ascontiguousarray(cells[..., :2].transpose(0, 3, 1, 2), np.float32)


def write_views(path, rig, xyz):
    """A shard of one multi-view sample, whose pictures are their cameras' middle 256 pixels: a spot a joint."""
    files, cameras = {}, []
    for view, camera in enumerate(rig.cameras):
        K = camera.K - [[0, 0, 192], [0, 0, 112], [0, 0, 0]]
        camera = dataclasses.replace(camera, size_px=(256, 256), K=K)
        picture = np.zeros((256, 256, 3), np.uint8)
        for channel, (u, v) in enumerate(camera.project(xyz)):
            spot = np.zeros((256, 256), np.uint8)
            cv2.circle(spot, (round(16 * u), round(16 * v)), 16 * 6, 255, -1, shift=4)
            picture[..., channel] = spot
        files[f"{view}.jpg"] = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
        cameras.append(camera.to_dict())
    seen = {"uv_px": [[0, 0]] * 2, "visibility": [2, 2]}
    joints = {"mine": {"names": ["nose", "l_wrist"], "xyz_m": xyz[::-1].tolist(), "views": [seen] * len(rig)}}
    files["json"] = json.dumps({"cameras": cameras, "joints": joints}).encode()
    with tarfile.open(path, "w") as tar:
        for kind, content in files.items():
            member = tarfile.TarInfo(f"00000000.{kind}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_rendered_views_become_maps_whose_places_meet_at_the_joints(tmp_path):
    xyz = np.array([[0.1, 0.2, 1.2], [-0.2, 0.1, 0.8]])
    (tmp_path / "views").mkdir()
    write_views(tmp_path / "views" / "train-0-1.tar", ring_rig(3), xyz)
    found = maps_of_multiviews(tmp_path / "views", Spots(), tmp_path / "out")
    assert len(found) == 1 and found.joints == Spots.joints
    np.testing.assert_allclose(found[0].xyz_m, xyz)
    assert measure(MapAlgebraic().eval(), found, 9, 4, bf16=False)[0] < 10  # a pixel is 7 mm there
    with pytest.raises(UserError, match="something else"):
        maps_of_multiviews(tmp_path / "views", type("Other", (Spots,), {"fingerprint": "x"})(), tmp_path / "out")


# Samples


def test_spoilt_maps_err_as_detectors_do_and_two_views_always_show_something(monkeypatch):
    score = scene(0)[0].score
    mirror, rng = np.array([0, 1, 3, 2]), np.random.default_rng(0)
    changed, swapped, ghosts, dropped, lost = 0, 0, 0, 0, 0
    for _ in range(300):
        out = spoilt(score, mirror, rng)
        assert out.dtype == np.float32 and out.min() >= 0 and out.max() <= score.max() + 1e-6
        assert (out.max(axis=(1, 2, 3)) > 0).sum() >= 2
        for view in range(4):
            swapped += np.array_equal(out[view, 2], score[view, 3]) and np.array_equal(out[view, 3], score[view, 2])
            lost += not out[view].any()
            for joint in (0, 1):
                same = np.array_equal(out[view, joint], score[view, joint])
                changed += not same
                dropped += out[view].any() and not out[view, joint].any()
                ghosts += bool(not same and out[view, joint].any())
    assert 15 < swapped < 60 and 10 < lost < 60 and 35 < dropped < 120 and 70 < ghosts < 220
    assert score.max() > 0.9  # what was given is left alone
    monkeypatch.setattr(map_samples, "LOST", 1.0)
    monkeypatch.setattr(map_samples, "DROPPED", 0.0)
    assert spoilt(score, mirror, rng).any(axis=(1, 2, 3)).sum() == 2


def test_a_map_that_moves_leaves_the_place_empty_that_it_comes_from():
    grid = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(map_samples._moved(grid, 1, -2), [[0, 9, 10, 11], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(map_samples._moved(grid, -3, 0), [[4, 0, 0, 0], [8, 0, 0, 0], [12, 0, 0, 0]])
    assert not map_samples._moved(grid, 4, 0).any() and not map_samples._moved(grid, 0, 9).any()


def test_cubes_hold_the_person_and_are_turned_about_the_vertical():
    item = dataclasses.replace(scene(2)[0], up=np.array([0.0, -1.0, 0.0]))
    sides, headings = [], []
    for seed in range(60):
        centre, side, turn = place_of(item, np.random.default_rng(seed), augment=True)
        np.testing.assert_allclose(turn @ item.up, [0, 0, 1], atol=1e-12)
        inside = np.abs((item.xyz_m - centre) @ turn.T) < side / 2 * 1.45
        assert inside.all()
        sides.append(side)
        headings.append(np.arctan2(*turn[:2, 0]))
    assert np.ptp(sides) > 0.2 and np.ptp(headings) > 5
    centre, side, turn = place_of(item, np.random.default_rng(0), augment=False)
    middle = (item.xyz_m.min(axis=0) + item.xyz_m.max(axis=0)) / 2
    assert 0 < np.linalg.norm(centre - middle) < 0.25
    np.testing.assert_allclose(side, np.clip(np.ptp(item.xyz_m, axis=0).max() + 0.5, 1.2, 3.2))


def test_batches_hold_some_views_of_each_item_and_fill_up_the_others():
    many, few = scene(0, ring_rig(5))[0], scene(1, ring_rig(3))[0]
    few.image_from_heatmap[1], few.score[1] = np.nan, 0  # a view without maps
    batch = batch_of([many, few], np.random.default_rng(0), augment=False, most_views=4)
    assert batch.seen.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.score.shape == (2, 4, 4, 64, 64) and not batch.score[1, 2:].any()
    np.testing.assert_array_equal(batch.optics[1, :2], few.optics[[0, 2]])
    taken = [int(np.flatnonzero((many.optics == row).all(axis=1))[0]) for row in batch.optics[0].numpy()]
    assert sorted(set(taken)) == taken  # four different ones, in their order
    for slot, view in enumerate(taken):
        np.testing.assert_array_equal(batch.score[0, slot], many.score[view])
        np.testing.assert_array_equal(batch.image_from_heatmap[0, slot], many.image_from_heatmap[view])
    pose = MapAlgebraic()(batch.views)
    assert pose.found.all() and (pose.xyz_m - batch.xyz_m).norm(dim=-1).max() < 5e-3
    whole = batch_of([many], np.random.default_rng(0), augment=False)
    np.testing.assert_array_equal(whole.score[0], many.score)


def test_a_batch_is_the_same_whoever_asks_for_it(maps):
    whole = MapBatches(maps, 4, 9, 0, seed=5)
    later = MapBatches(maps, 4, 9, 6, seed=5)
    assert len(whole) == 9 and len(later) == 3 and len(MapBatches(maps, 4, 9, 11, seed=5)) == 0
    expected, found = whole[7], later[1]
    assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(expected, found, strict=True))
    other = MapBatches(maps, 4, 9, 0, seed=6)[7]
    assert other.score.shape != expected.score.shape or not torch.equal(other.score, expected.score)
    numbers = {whole[index].seen.shape[1] for index in range(9)}
    assert numbers <= {2, 3, 4} and len(numbers) > 1
    with pytest.raises(IndexError):
        later[3]
    halves = [MapBatches(maps, 4, 9, 0, 5, Peers(rank, 2))[7] for rank in range(2)]
    assert torch.equal(torch.cat([half.xyz_m for half in halves]).nan_to_num(9), expected.xyz_m.nan_to_num(9))
    assert not torch.equal(halves[0].centre_m, halves[1].centre_m)


# Training


def state_of(training):
    return {"mean": training.mean, "network": training.network.state_dict()}


@pytest.mark.parametrize("settings", [ALGEBRAIC, VOLUMETRIC], ids=["algebraic", "volumetric"])
def test_a_training_that_was_stopped_ends_at_the_same_numbers(maps, tmp_path, settings):
    whole = TriangulationTraining(maps, tmp_path / "whole", settings)
    whole.run()
    first = TriangulationTraining(maps, tmp_path / "parts", settings)
    first.run(most_seconds=0)
    assert first.step == 1
    second = TriangulationTraining(maps, tmp_path / "parts", settings)
    assert second.step == 1 and second.seconds > 0
    second.run()
    assert second.step == whole.step == settings.steps
    for name, values in state_of(whole).items():
        for key, value in values.items():
            assert torch.equal(value, state_of(second)[name][key]), key
    fresh = TriangulationTraining(maps, tmp_path / "fresh", settings)
    assert any(not torch.equal(value, fresh.mean[key]) for key, value in whole.mean.items())
    third = TriangulationTraining(maps, tmp_path / "parts", settings)
    third.run()  # nothing is left to do
    assert third.step == settings.steps
    saved = load_triangulator(tmp_path / "whole" / WEIGHTS)
    for key, value in saved.state_dict().items():
        torch.testing.assert_close(value, whole.mean[key], rtol=1e-3, atol=1e-6)


def test_the_curve_shows_the_error_in_millimetres(maps, tmp_path):
    TriangulationTraining(maps, tmp_path, ALGEBRAIC, maps).run()
    with (tmp_path / CURVE).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [3, 6] and list(rows[0])[3:] == list(TriangulationTraining.measures)
    exact = [maps[index] for index in range(4)]
    batch = batch_of(exact, np.random.default_rng(0), augment=False)
    off = (MapAlgebraic()(batch.views).xyz_m - batch.xyz_m).norm(dim=-1).mean().item()
    assert float(rows[0]["mpjpe_mm"]) == pytest.approx(1000 * off, rel=0.2)
    assert float(rows[0]["found"]) == 1 and float(rows[0]["median_mm"]) < float(rows[0]["mpjpe_mm"])
    assert cv2.imread(str(tmp_path / "curve.png")) is not None


def test_what_cannot_be_found_is_counted(maps, tmp_path):
    item = scene(0)[0]
    item.score[1:, 2] = 0
    item.xyz_m[3] = np.nan
    one = write_map_set(tmp_path, JOINTS, 1, lambda _: item, "one")
    mean, median, found = measure(MapAlgebraic().eval(), one, 9, 4, bf16=False)
    assert found == pytest.approx(2 / 3) and 0 < median < 5 and 0 < mean < 5
    item.score[1:] = 0
    shutil.rmtree(tmp_path)
    none = measure(MapAlgebraic().eval(), write_map_set(tmp_path, JOINTS, 1, lambda _: item, "one"), 9, 4, bf16=False)
    assert np.isnan(none[0]) and none[2] == 0


def test_training_takes_trust_from_lying_views(tmp_path):
    wrong = write_map_set(tmp_path / "maps", JOINTS, SHARD, lambda i: scene(i, wrong_view=True)[0], "wrong")
    unseen = write_map_set(tmp_path / "val", JOINTS, 8, lambda i: scene(900 + i, wrong_view=True)[0], "wrong")
    settings = dataclasses.replace(ALGEBRAIC, steps=36, batch=6, width=8, rate=4e-3, validate=8, validate_every=36)
    settings = dataclasses.replace(settings, ema=0.8)
    before = measure(MapAlgebraic().eval(), unseen, 8, 8, bf16=False)[0]
    training = TriangulationTraining(wrong, tmp_path / "out", settings, unseen)
    training.run()
    after = measure(training.averaged(), unseen, 8, 8, bf16=False)[0]
    assert after < 1.1 * before < 2  # their votes have made them harmless before
    score = torch.from_numpy(np.stack([unseen[index].score for index in range(8)]))
    with torch.no_grad():
        trust = training.averaged().trust(score).mean(-1)
    wrong_views = torch.tensor([scene(900 + index, wrong_view=True)[1] for index in range(8)])
    lying = torch.nn.functional.one_hot(wrong_views, 4).bool()
    assert trust[lying].max() < 0.6 * trust[~lying].min()


def test_sigterm_saves_and_ends(maps, tmp_path):
    training = TriangulationTraining(maps, tmp_path, dataclasses.replace(ALGEBRAIC, steps=500))
    learn = training._learn

    def once_told(batch, stops):
        if training.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(batch, stops)

    training._learn = once_told
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        training.run()
    assert training.step == 4 and signal.getsignal(signal.SIGTERM) is before
    assert TriangulationTraining(maps, tmp_path, dataclasses.replace(ALGEBRAIC, steps=500)).step == 4


def test_other_settings_and_other_joints_are_no_continuation(maps, tmp_path):
    TriangulationTraining(maps, tmp_path / "out", ALGEBRAIC).save()
    TriangulationTraining(maps, tmp_path / "out", dataclasses.replace(ALGEBRAIC, steps=99))
    with pytest.raises(UserError, match=r"rate 0.001 \(now 0.5\)"):
        TriangulationTraining(maps, tmp_path / "out", dataclasses.replace(ALGEBRAIC, rate=0.5))
    others = write_map_set(
        tmp_path / "others", ("a", "b", "c", "d"), 1, lambda i: scene(i, joints=("a", "b", "c", "d"))[0], ""
    )
    with pytest.raises(UserError, match="maps of other joints"):
        TriangulationTraining(maps, tmp_path / "out2", VOLUMETRIC, others)
    with pytest.raises(UserError, match=r"training with joints \['pelvis'"):
        TriangulationTraining(others, tmp_path / "out", ALGEBRAIC)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "cubic"}, "--model takes algebraic or volumetric, got 'cubic'"),
        ({"how": "mean"}, "views come together by sum, confidence, softmax, got 'mean'"),
        ({"voxels": 18}, "multiple of 8, got 18"),
        ({"width": 3}, "width must be even"),
        ({"voxels": 4, "batch": 1}, "give a larger --batch"),
    ],
)
def test_a_model_that_there_is_not_is_refused_before_the_maps_are_made(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train_on(Given(tmp_path / "nowhere"), tmp_path / "out", dataclasses.replace(VOLUMETRIC, **changes))
    assert not (tmp_path / "out").exists()

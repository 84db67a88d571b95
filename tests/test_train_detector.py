"""Training of a 2D detector: samples stay true under augmentation, a small net learns, and a stop loses nothing."""

import dataclasses
import io
import json
import os
import signal
import tarfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from harvest.detect2d.features import FEATURE_CHANNELS, MEAN
from harvest.detect2d.hourglass_detector import HourglassDetector
from harvest.detect2d.hourglass_files import build_hourglass, load_hourglass, save_hourglass
from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.detect2d.tfjs_file import read_tfjs
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.errors import UserError
from harvest.learn.detector import WEIGHTS, DetectorSettings, DetectorTraining, Folders, Samples, begin
from harvest.learn.joints_task import JointsTask, pckh
from harvest.learn.map_loss import map_loss, target_maps
from harvest.learn.peers import Peers, fitting, joined
from harvest.learn.samples import augment, augmentation, find_samples, read_sample
from harvest.learn.training import CHECKPOINT, CURVE, train
from harvest.skeleton import load_skeleton

SKELETON = load_skeleton("mpii16")
TASK = JointsTask("mpii16")
TINY = DetectorSettings(
    start="", stacks=1, width=16, steps=8, batch=2, warm=2, bf16=False, seed=3, validate=4, validate_every=4
)


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def picture_of(uv):
    """Each joint a spot of its own colour."""
    picture = np.full((256, 256, 3), 90, np.uint8)
    for joint, (u, v) in enumerate(uv):
        colour = tuple(int(c) for c in np.random.default_rng(joint).integers(0, 255, 3))
        cv2.circle(picture, (round(u), round(v)), 9, colour, -1)
    return picture


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Twenty-four crops in two shards."""
    folder, rng = tmp_path_factory.mktemp("crops"), np.random.default_rng(0)
    for shard in range(2):
        with tarfile.open(folder / f"train-{shard}.tar", "w") as tar:
            for row in range(12):
                index, uv = 12 * shard + row, rng.uniform(50, 206, (16, 2))
                jpg = cv2.imencode(".jpg", picture_of(uv)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
                points = [None if joint == 5 and index == 0 else list(p) for joint, p in enumerate(uv.round(3))]
                truth = {"uv_px": points, "visibility": [0 if p is None else 2 for p in points]}
                add(tar, f"{index:08d}.jpg", jpg)
                add(tar, f"{index:08d}.json", json.dumps({"joints": {"mpii16": truth}}).encode())
                add(tar, f"{index:08d}.mask.png", b"")
    return folder


def test_samples_are_found_by_their_place_in_the_shards(crops):
    places = find_samples(crops)
    assert len(places) == 24
    picture, uv, visibility = read_sample(places[0], SKELETON.joints)
    assert picture.shape == (256, 256, 3) and np.isnan(uv[5]).all() and visibility[5] == 0
    for place in places[::7]:
        picture, uv, _ = read_sample(place, SKELETON.joints)
        colour = np.random.default_rng(15).integers(0, 255, 3)
        u, v = np.round(uv[15]).astype(int)
        assert abs(picture[v, u].astype(int) - colour).max() < 40


def test_a_folder_without_crops_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="harvest studio crops"):
        find_samples(tmp_path)


def test_a_joint_comes_from_the_first_set_that_has_it(tmp_path):
    jpg = cv2.imencode(".jpg", np.zeros((256, 256, 3), np.uint8))[1].tobytes()
    sets = {
        name: {"uv_px": [[shift + i, i] for i in range(n)], "visibility": [2] * n}
        for name, shift, n in (("coco17", 100, 17), ("mpii16", 0, 16))
    }
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.jpg", jpg)
        add(tar, "0.json", json.dumps({"joints": sets}).encode())
    _, uv, visibility = read_sample(find_samples(tmp_path)[0], ("l_wrist", "nose", "r_ear", "spine", "pelvis"))
    np.testing.assert_array_equal(uv[[0, 1, 2, 4]], [[15, 15], [100, 0], [104, 4], [6, 6]])
    assert np.isnan(uv[3]).all() and visibility.tolist() == [2, 2, 2, 0, 2]


def test_targets_peak_at_their_joint_and_are_empty_for_what_is_outside_or_unknown():
    uv = torch.tensor([[1.5, 1.5], [129.5, 65.5], [torch.nan, 3.0], [-9.0, 40.0], [40.0, 259.0]])
    maps = target_maps(uv, 64)
    assert maps.shape == (5, 64, 64) and maps[0].argmax() == 0 and maps[1].argmax() == 16 * 64 + 32
    assert not maps[2:].any()
    torch.testing.assert_close(maps[:2].sum((1, 2)), torch.ones(2))
    cells = torch.arange(64.0)
    torch.testing.assert_close((maps[1].sum(0) * cells).sum() * 4 + 1.5, torch.tensor(129.5))
    torch.testing.assert_close((maps[1].sum(1) * cells).sum() * 4 + 1.5, torch.tensor(65.5))


def test_the_loss_is_least_for_the_target_itself_and_ignores_what_is_unknown():
    uv = torch.tensor([[[100.0, 50.0], [30.0, 200.0], [-50.0, 10.0], [torch.nan, torch.nan]]])
    target = target_maps(uv, 64)
    right = torch.where(target > 0, target, 1e-12).log()
    right[0, :2] += 20.0  # certain that it is not elsewhere
    right[0, 2] = -30.0
    at_best = map_loss(right, uv)
    entropy = -(target[0, :2] * target[0, :2].clamp_min(1e-30).log()).sum() / 3
    torch.testing.assert_close(at_best, entropy, rtol=1e-3, atol=1e-3)
    for joint in range(3):
        worse = right.clone()
        worse[0, joint] = right[0, joint].roll(7, -1) + (40.0 if joint == 2 else 0.0)
        assert map_loss(worse, uv) > at_best + 0.1
    unknown = right.clone()
    unknown[0, 3] += 7.0
    torch.testing.assert_close(map_loss(unknown, uv), at_best)


@pytest.mark.parametrize("seed", range(12))
def test_joints_stay_on_their_spots_under_augmentation_and_change_sides_by_name(seed):
    uv = np.random.default_rng(seed).uniform(90, 166, (16, 2))
    _, mirrored = augmentation(np.random.default_rng(seed))
    picture, moved = augment(picture_of(uv), uv, SKELETON.mirror, np.random.default_rng(seed))
    for joint in range(16):
        u, v = np.round(moved[joint]).astype(int)
        if not (4 <= u < 252 and 4 <= v < 252):
            continue
        owner = SKELETON.mirror[joint] if mirrored else joint
        covered = np.linalg.norm(uv[owner + 1 :] - uv[owner], axis=1).min(initial=99) < 12
        if covered:  # a later spot lies over this one
            continue
        colour = np.random.default_rng(int(owner)).integers(0, 255, 3) / 255.0
        seen = picture[v, u] / 255.0
        order = np.argsort(colour)  # light changes, but by little
        assert seen[order[2]] > seen[order[0]] - 0.3


def test_augmentations_turn_scale_and_mirror_within_their_limits():
    drawn = [augmentation(np.random.default_rng(seed)) for seed in range(400)]
    linear = np.array([affine[:, :2] for affine, _ in drawn])
    scale = np.sqrt(np.linalg.det(linear))
    turn = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert 0.49 < scale.min() and scale.max() < 1.51 and abs(turn).max() <= 60.01
    assert 0.5 < (turn == 0).mean() < 0.7 and 0.4 < np.mean([mirrored for _, mirrored in drawn]) < 0.6


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights to begin with; features of chance do for small nets."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_hourglass(HarvestHourglass(1, 16, TASK.maps), path)
    return path


def tiny(start, **changes):
    return dataclasses.replace(TINY, start=str(start), **changes)


def test_a_small_net_learns_and_a_run_can_use_it(crops, start, tmp_path):
    torch.set_num_threads(1)
    settings = tiny(start, steps=24, rate=1e-2, ema=0.9, validate_every=60)
    training = DetectorTraining(TASK, Folders(crops, crops), tmp_path / "t", settings)
    samples = [TASK.sample(place, np.random.default_rng(0)) for place in find_samples(crops)[:3]]
    images = torch.from_numpy(np.stack([picture.transpose(2, 0, 1) for picture, _ in samples]))
    truth = torch.from_numpy(np.stack([uv for _, uv in samples]))
    before = {key: value.clone() for key, value in training.network.state_dict().items()}
    losses = [training._learn((images, truth), False)[0] for _ in range(24)]
    assert losses[-1] < 0.9 * losses[0]
    after = training.network.state_dict()
    still = [key for key in before if torch.equal(before[key], after[key])]
    assert {key for key in still if before[key].ndim == 4} == {
        key for key in before if key.startswith("features.") and before[key].ndim == 4
    }
    training.save()
    detector = HourglassDetector.from_file(tmp_path / "t" / WEIGHTS)
    assert detector.joints == SKELETON.joints
    maps = detector(images.numpy().transpose(0, 2, 3, 1))
    assert maps.shape == (3, 16, 64, 64) and maps.min() >= 0 and maps.max() <= 1


def test_a_stopped_training_goes_on_to_the_same_weights(crops, start, tmp_path):
    torch.set_num_threads(1)
    whole = DetectorTraining(TASK, Folders(crops, crops), tmp_path / "whole", tiny(start))
    whole.run()
    half = DetectorTraining(TASK, Folders(crops, crops), tmp_path / "half", tiny(start))
    for batch in half.batches():
        half._learn(batch, False)
        half.step += 1
        if half.step == 4:
            break
    half.save()
    rest = DetectorTraining(TASK, Folders(crops, crops), tmp_path / "half", tiny(start))
    assert rest.step == 4
    rest.run()
    for key, value in whole.network.state_dict().items():
        torch.testing.assert_close(rest.network.state_dict()[key], value, rtol=0, atol=0)
        torch.testing.assert_close(rest.mean[key], whole.mean[key], rtol=0, atol=0)
    assert (tmp_path / "whole" / CURVE).read_text().count("\n") == 3
    assert (tmp_path / "whole" / "curve.png").stat().st_size > 5000
    with pytest.raises(UserError, match=r"width 16 \(now 24\)"):
        DetectorTraining(TASK, Folders(crops, None), tmp_path / "half", tiny(start, width=24))
    assert DetectorTraining(TASK, Folders(crops, None), tmp_path / "half", tiny(start, steps=99)).step == 8
    assert (tmp_path / "half" / CHECKPOINT).is_file()


def test_a_terminated_training_saves_what_it_has_learnt(crops, start, tmp_path):
    torch.set_num_threads(1)
    training = DetectorTraining(TASK, Folders(crops), tmp_path / "t", tiny(start, steps=1000))
    learn = training._learn

    def learn_and_be_told(batch, stops):
        result = learn(batch, stops)
        if training.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    training._learn = learn_and_be_told
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        training.run()
    assert training.step == 4 and signal.getsignal(signal.SIGTERM) == before
    assert DetectorTraining(TASK, Folders(crops), tmp_path / "t", tiny(start)).step == 4


def test_processes_share_each_batch_and_one_alone_may_end_it(crops):
    places = find_samples(crops)
    task = type("Names", (), {"sample": lambda self, place, rng: (np.zeros((4, 4, 3), np.uint8), place)})()
    settings = dataclasses.replace(TINY, batch=6, steps=9)

    def drawn(peers, step):
        samples = Samples(task, (places, []), settings, step, peers)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "from_numpy", lambda value: value)
            return np.array([places.index(samples[index][1]) for index in range(len(samples))]).reshape(
                -1, samples.batch
            )

    alone, thirds = drawn(Peers(), 0), [drawn(Peers(rank, 3), 0) for rank in range(3)]
    np.testing.assert_array_equal(np.hstack(thirds), alone)
    np.testing.assert_array_equal(drawn(Peers(1, 3), 4), thirds[1][4:])
    assert fitting(6) == 1 and (torch.cuda.is_available() or fitting(64) == min(len(os.sched_getaffinity(0)), 4))


def averaged(folder, peers):
    """What a process knows after two rounds, of which it wants the second to be the last if it is not the first."""
    own = [torch.full((2, 3), float(peers.rank)), torch.arange(4.0) * peers.rank]
    stops = [peers.average(own, False), peers.average([], peers.rank > 0)]
    np.savez(folder / f"{peers.rank}.npz", *own, stops=stops)


def test_processes_average_what_they_have_and_stop_together(tmp_path):
    with joined(2, partial(averaged, tmp_path)) as peers:
        averaged(tmp_path, peers)
    for rank in range(2):
        stored = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_array_equal(stored["arr_0"], np.full((2, 3), 0.5))
        np.testing.assert_array_equal(stored["arr_1"], np.arange(4) / 2)
        assert stored["stops"].tolist() == [False, True]


def test_a_batch_without_equal_parts_is_refused(crops, start, tmp_path):
    with pytest.raises(UserError, match="a batch of 2 has no 3 equal parts"):
        train(partial(DetectorTraining, TASK, Folders(crops), tmp_path / "t", tiny(start)), processes=3)


def test_a_second_folder_gives_its_share_of_the_samples(crops):
    places = find_samples(crops)
    task = type("Names", (), {"sample": lambda self, place, rng: (np.zeros((4, 4, 3), np.uint8), place)})()
    settings = dataclasses.replace(TINY, steps=500, share=0.3)
    drawn = []
    for more in ([], places[:1]):
        samples = Samples(task, (places[1:], more), settings, 0, Peers())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "from_numpy", lambda value: value)
            drawn.append([samples[index][1] for index in range(1000)])
    assert places[0] not in drawn[0] and set(drawn[0]) == set(places[1:])
    assert 0.25 < np.mean([place == places[0] for place in drawn[1]]) < 0.35


def test_a_training_begins_with_what_fits_of_other_weights(start, tmp_path):
    grown = begin(TASK, tiny(start, stacks=2)).state_dict()
    given = begin(TASK, tiny(start)).state_dict()
    assert all(torch.equal(grown[key], value) for key, value in given.items())
    other = tmp_path / "bearpaw.safetensors"
    save_hourglass(build_hourglass("bearpaw", 1, 16), other)
    with pytest.raises(UserError, match="another kind of hourglass"):
        begin(TASK, tiny(other))
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot be read as a TensorFlow\.js model"):
        begin(TASK, tiny(tmp_path / "model.json"))
    write_tfjs(tmp_path / "model.json", {"conv": np.zeros((3, 3, 3, 32), np.float16)})
    with pytest.raises(UserError, match="not the weights of MoveNet Thunder"):
        begin(TASK, tiny(tmp_path / "model.json"))


def write_tfjs(path, arrays):
    """A model.json and its binary file: floats as float16, the rest as it is."""
    entries = []
    for name, array in arrays.items():
        entries.append({"name": name, "shape": list(array.shape), "dtype": str(array.dtype)})
        if array.dtype == np.float16:
            entries[-1] |= {"dtype": "float32", "quantization": {"dtype": "float16"}}
    path.with_name("weights.bin").write_bytes(b"".join(array.tobytes() for array in arrays.values()))
    path.write_text(json.dumps({"weightsManifest": [{"paths": ["weights.bin"], "weights": entries}]}))


def test_tensorflow_files_are_read_tensor_by_tensor(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"shape": np.array([2, 3], np.int32), "a": rng.normal(size=(2, 3)).astype(np.float16), "b": np.float32(7)}
    write_tfjs(tmp_path / "model.json", {name: np.asarray(array) for name, array in arrays.items()})
    found = read_tfjs(tmp_path / "model.json")
    assert set(found) == {"a", "b"} and found["b"] == 7
    np.testing.assert_array_equal(found["a"], arrays["a"].astype(np.float32))


def test_the_features_are_what_the_published_network_computes():
    """Against MoveNet itself, computed by TensorFlow.js on a pattern; of each level the stored cells."""
    stored = np.load(Path(__file__).parent / "movenet_features.npz")
    y, x, c = np.meshgrid(range(256), range(256), range(3), indexing="ij")
    pattern = ((x * (c + 1) + y * y * (3 - c) + x * y // 7) % 256).astype(np.float32) / 255
    features = load_hourglass(shipped(DETECTOR)).features
    with torch.no_grad():
        found = features(torch.from_numpy(pattern.transpose(2, 0, 1) - MEAN)[None])
    assert [maps.shape[1] for maps in found] == list(FEATURE_CHANNELS)
    for level, maps in enumerate(found):
        step = maps.shape[-1] // 2
        expected = stored[f"level_{level}"]
        np.testing.assert_allclose(
            maps[0, :, step // 2 :: step, step // 2 :: step], expected, atol=1e-4 * expected.max()
        )


def test_pckh_counts_joints_within_a_share_of_the_head(crops):
    class Right:
        joints, crop_from_heatmap = SKELETON.joints, np.array([[4.0, 0, 1.5], [0, 4.0, 1.5]])

        def __init__(self, off_px):
            self.off_px, self.row = off_px, 0

        def __call__(self, images):
            places = find_samples(crops)[self.row : self.row + len(images)]
            self.row += len(images)
            uv = [read_sample(place, SKELETON.joints)[1] + [self.off_px, 0] for place in places]
            return target_maps(torch.from_numpy(np.stack(uv)), 64).float().numpy()

    near, far = pckh(Right(0.0), find_samples(crops)).mean(axis=1)
    assert near > 0.95 and far > 0.99
    assert pckh(Right(1000.0), find_samples(crops))[1].mean() < 0.2


def test_the_command_trains_and_goes_on(crops, start, harvest_command, tmp_path):
    command = ("train", "detector", "--crops", crops, "--out", tmp_path / "m", "--stacks", "1", "--width", "16")
    command += ("--start", start)
    result = harvest_command(*command, "--steps", "3", "--batch", "2")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "m" / WEIGHTS).is_file() and WEIGHTS in result.stdout
    together = (*command[:4], "--out", tmp_path / "two", *command[6:], "--processes", "2")
    result = harvest_command(*together, "--steps", "2", "--batch", "4")
    assert result.returncode == 0 and (tmp_path / "two" / WEIGHTS).is_file(), result.stderr
    result = harvest_command(*command, "--steps", "4", "--batch", "4")
    assert result.returncode == 2 and "batch 2 (now 4)" in result.stderr


@pytest.mark.parametrize(("gpu", "cpu"), [(False, False), (False, True), (True, False)])
def test_trainings_compute_in_bfloat16_where_that_is_fast_unless_told(gpu, cpu, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("harvest.learn.training.fast_bf16", lambda: cpu)
    assert DetectorSettings(start="").bf16 == (gpu or cpu)
    assert TINY.bf16 is False

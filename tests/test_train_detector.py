"""Training of a 2D detector: samples stay true under augmentation, a small net learns, and a stop loses nothing."""

import dataclasses
import io
import json
import tarfile

import cv2
import numpy as np
import pytest
import torch

from harvest.detect2d.hourglass import HourglassDetector
from harvest.errors import UserError
from harvest.learn.samples import CELLS, augment, augmentation, find_samples, heat_maps, read_sample
from harvest.learn.train_detector import CHECKPOINT, CURVE, WEIGHTS, Training, TrainSettings, pckh
from harvest.skeleton import load_skeleton

SKELETON = load_skeleton("mpii16")
TINY = TrainSettings(
    stacks=1, width=16, steps=8, batch=2, warm=2, bf16=False, seed=3, validate=4, validate_every=4, checkpoint_s=1e9
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
    picture, uv, visibility = read_sample(places[0], "mpii16")
    assert picture.shape == (256, 256, 3) and np.isnan(uv[5]).all() and visibility[5] == 0
    for place in places[::7]:
        picture, uv, _ = read_sample(place, "mpii16")
        colour = np.random.default_rng(15).integers(0, 255, 3)
        u, v = np.round(uv[15]).astype(int)
        assert abs(picture[v, u].astype(int) - colour).max() < 40


def test_a_folder_without_crops_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="harvest studio crops"):
        find_samples(tmp_path)


def test_heat_maps_peak_at_their_joint_and_are_empty_for_what_is_outside_or_unknown():
    uv = np.array([[1.5, 1.5], [129.5, 65.5], [np.nan, 3.0], [-9.0, 40.0], [40.0, 259.0]])
    maps = heat_maps(uv)
    assert maps.shape == (5, CELLS, CELLS) and maps[0, 0, 0] == 1 and maps[1, 16, 32] == 1
    assert not maps[2:].any()
    rows, columns = np.mgrid[:CELLS, :CELLS]
    np.testing.assert_allclose((maps[1] * columns).sum() / maps[1].sum() * 4 + 1.5, 129.5, atol=1e-4)
    np.testing.assert_allclose((maps[1] * rows).sum() / maps[1].sum() * 4 + 1.5, 65.5, atol=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_joints_stay_on_their_spots_under_augmentation_and_change_sides_by_name(seed):
    uv = np.random.default_rng(seed).uniform(90, 166, (16, 2))
    _, mirrored = augmentation(np.random.default_rng(seed))
    picture, moved = augment(picture_of(uv), uv, "mpii16", np.random.default_rng(seed))
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
        assert seen[order[2]] > seen[order[0]] - 0.15


def test_augmentations_turn_scale_and_mirror_within_their_limits():
    drawn = [augmentation(np.random.default_rng(seed)) for seed in range(400)]
    linear = np.array([affine[:, :2] for affine, _ in drawn])
    scale = np.sqrt(np.linalg.det(linear))
    turn = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert 0.49 < scale.min() and scale.max() < 1.51 and abs(turn).max() <= 60.01
    assert 0.5 < (turn == 0).mean() < 0.7 and 0.4 < np.mean([mirrored for _, mirrored in drawn]) < 0.6


def test_a_small_net_learns_and_a_run_can_use_it(crops, tmp_path):
    torch.set_num_threads(1)
    settings = dataclasses.replace(TINY, steps=24, rate=1e-2, ema=0.9, validate_every=60)
    before = Training(crops, None, tmp_path / "none", settings)
    images = torch.from_numpy(np.stack([read_sample(p, "mpii16")[0].transpose(2, 0, 1) for p in before._places[:3]]))
    targets = torch.from_numpy(np.stack([heat_maps(read_sample(p, "mpii16")[1]) for p in before._places[:3]]))
    training = Training(crops, crops, tmp_path / "t", settings)
    losses = [training._learn(images, targets) for _ in range(24)]
    assert losses[-1] < 0.9 * losses[0]
    training.save()
    detector = HourglassDetector.from_file(tmp_path / "t" / WEIGHTS)
    assert detector.joints == SKELETON.joints
    assert detector(images.numpy().transpose(0, 2, 3, 1)).shape == (3, 16, 64, 64)


def test_a_stopped_training_goes_on_to_the_same_weights(crops, tmp_path):
    torch.set_num_threads(1)
    whole = Training(crops, crops, tmp_path / "whole", TINY)
    whole.run()
    half = Training(crops, crops, tmp_path / "half", TINY)
    for images, targets in half._batches():
        half._learn(images, targets)
        half.step += 1
        if half.step == 4:
            break
    half.save()
    rest = Training(crops, crops, tmp_path / "half", TINY)
    assert rest.step == 4
    rest.run()
    for key, value in whole.network.state_dict().items():
        torch.testing.assert_close(rest.network.state_dict()[key], value, rtol=0, atol=0)
        torch.testing.assert_close(rest.mean[key], whole.mean[key], rtol=0, atol=0)
    assert (tmp_path / "whole" / CURVE).read_text().count("\n") == 3
    assert (tmp_path / "whole" / "curve.png").stat().st_size > 5000
    with pytest.raises(UserError, match=r"width 16 \(now 24\)"):
        Training(crops, None, tmp_path / "half", dataclasses.replace(TINY, width=24))
    assert Training(crops, None, tmp_path / "half", dataclasses.replace(TINY, steps=99)).step == 8
    assert (tmp_path / "half" / CHECKPOINT).is_file()


def test_pckh_counts_joints_within_a_share_of_the_head(crops):
    class Right(torch.nn.Module):
        mean_rgb = (0.0, 0.0, 0.0)

        def __init__(self, off_px):
            super().__init__()
            self.off_px, self.row = off_px, 0

        def forward(self, x):
            places = find_samples(crops)[self.row : self.row + len(x)]
            self.row += len(x)
            maps = [heat_maps(read_sample(place, "mpii16")[1] + [self.off_px, 0]) for place in places]
            return torch.from_numpy(np.stack(maps))[:, None]

    near, far = pckh(Right(0.0), find_samples(crops), TINY)
    assert near > 0.95 and far > 0.99
    assert pckh(Right(1000.0), find_samples(crops), TINY)[1] < 0.2


def test_the_command_trains_and_goes_on(crops, harvest_command, tmp_path):
    command = ("train", "detector", "--crops", crops, "--out", tmp_path / "m", "--stacks", "1", "--width", "16")
    result = harvest_command(*command, "--steps", "3", "--batch", "2")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "m" / WEIGHTS).is_file() and WEIGHTS in result.stdout
    result = harvest_command(*command, "--steps", "4", "--batch", "4")
    assert result.returncode == 2 and "batch 2 (now 4)" in result.stderr

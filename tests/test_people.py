"""The finder of people: what it is taught, what it reads from its maps, and where they lie in the picture."""

import io
import json
import tarfile

import cv2
import numpy as np
import pytest
import torch

from harvest.detect2d.hourglass_files import build_hourglass
from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.detect2d.people import CROP_OVER_JOINTS, PEOPLE_MAPS, RADIUS_PX, HourglassPersonFinder, people_of
from harvest.errors import UserError
from harvest.learn.people_task import MOST, PeopleTask
from harvest.learn.samples import find_samples
from harvest.skeleton import load_skeleton

MPII = load_skeleton("mpii16").joints


def maps_of(people, cells=64, height=6.0):
    """Scores (2, cells, cells) that show circles (x, y, radius) in pixels."""
    y, x = np.mgrid[:cells, :cells] * 4 + 1.5
    scores = np.full((2, cells, cells), -9.0)
    for u, v, radius in people:
        near = np.hypot(x - u, y - v)
        scores[0] = np.maximum(scores[0], height - 2.5 * near)
        scores[1] = np.where(near < 20, np.log(radius / RADIUS_PX), scores[1])
    return torch.from_numpy(scores).float()


def test_people_are_read_from_their_maps_to_a_fraction_of_a_cell():
    people = [(60.0, 101.5, 40.0), (200.3, 51.9, 90.0)]
    centre, radius, score = people_of(maps_of(people), 0.3)
    order = np.argsort(centre[:, 0])
    np.testing.assert_allclose(centre[order], [row[:2] for row in people], atol=0.8)
    np.testing.assert_allclose(radius[order], [40, 90], rtol=1e-4)
    assert (score > 0.7).all() and (np.diff(score) <= 0).all()
    assert len(people_of(maps_of(people, height=-3.0), 0.3)[0]) == 0


def test_one_person_is_not_found_twice_and_two_apart_are():
    twice, _, _ = people_of(maps_of([(100, 100, 60), (113, 100, 60)]), 0.3)
    apart, _, _ = people_of(maps_of([(100, 100, 60), (130, 100, 60)]), 0.3)
    assert len(twice) == 1 and len(apart) == 2


@pytest.mark.parametrize("size", [(480, 640), (1920, 1080), (301, 997)])
def test_centres_are_given_in_pixels_of_the_picture_as_it_came(size):
    """A network that marks bright spots stands in for a trained one."""

    class Spots(torch.nn.Module):
        joints, mean_rgb = PEOPLE_MAPS, (0.0, 0.0, 0.0)

        def forward(self, x):
            assert x.shape[-1] % 64 == 0 and x.shape[-2] % 64 == 0 and max(x.shape[-2:]) == 448
            light = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4)
            return torch.stack([light * 30 - 10, torch.full_like(light, np.log(0.5))], 2)

    picture = np.zeros((*size, 3), np.uint8)
    u, v = 0.61 * size[1], 0.37 * size[0]
    cv2.circle(picture, (round(u), round(v)), max(size) // 110, (255, 255, 255), -1)
    found = HourglassPersonFinder(Spots(), "")(picture)
    assert len(found) == 1
    scale = max(size) / 448
    np.testing.assert_allclose(found.centre_px[0], [u, v], atol=2.5 * scale)
    np.testing.assert_allclose(found.radius_px, 32 * scale, rtol=1e-5)


def test_a_network_of_other_maps_is_refused():
    with pytest.raises(UserError, match="harvest train people"):
        HourglassPersonFinder(build_hourglass("harvest", 1, 16), "")


def scene(tar, index, people):
    """A picture whose people are the given joints (16, 2), and their visibility."""
    jpg = cv2.imencode(".jpg", np.full((256, 256, 3), 120, np.uint8))[1].tobytes()
    rows = [{"uv_px": uv.tolist(), "visibility": seen} for uv, seen in people]
    label = json.dumps({"joints": {"mpii16": rows[0]}, "others": rows[1:]}).encode()
    for name, content in (("jpg", jpg), ("json", label)):
        member = tarfile.TarInfo(f"{index:08d}.{name}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def body(u, v, reach):
    """Joints round (u, v), the pelvis there and the farthest ones `reach` away."""
    angle = np.linspace(0, 2 * np.pi, len(MPII), endpoint=False)
    uv = np.stack([u + reach * np.cos(angle), v + reach * np.sin(angle)], 1)
    uv[MPII.index("pelvis")] = u, v
    return uv


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Eight pictures: one person to find, one whom nobody sees, one whose hips are outside."""
    folder = tmp_path_factory.mktemp("scenes")
    with tarfile.open(folder / "a.tar", "w") as tar:
        for index in range(8):
            people = [(body(80, 90, 30), [2] * 16), (body(180, 150, 20), [1] * 16), (body(-9, 60, 50), [2] * 16)]
            scene(tar, index, people)
    return folder


def test_truth_says_who_has_to_be_found_and_whose_place_does_not_matter(scenes, monkeypatch):
    monkeypatch.setattr("harvest.learn.samples.augmentation", lambda rng: (np.eye(3)[:2], False))
    _, truth = PeopleTask().sample(find_samples(scenes)[0], np.random.default_rng(0))
    assert truth.shape == (MOST, 4) and truth.dtype == np.float32
    np.testing.assert_allclose(truth[0], [80, 90, 30 * CROP_OVER_JOINTS, 1], rtol=1e-5)
    np.testing.assert_allclose(truth[1], [180, 150, 20 * CROP_OVER_JOINTS, 0], rtol=1e-5)
    assert truth[2, 3] == 0 and (truth[3:, 3] == 0).all() and (truth[3:, :2] < -1000).all()


def test_the_loss_wants_the_centre_and_the_size_and_leaves_out_what_does_not_matter():
    task = PeopleTask()
    truth = torch.tensor([[[80.0, 90.0, 40.0, 1.0], [180.0, 150.0, 24.0, 0.0]]])
    right = maps_of([(80, 90, 40)])[None, None]

    def loss(scores):
        return float(task.loss(scores[:, 0], truth))

    both = maps_of([(80, 90, 40), (180, 150, 24)])[None, None]
    assert loss(right) < 0.2 and abs(loss(both) - loss(right)) < 0.05
    assert loss(maps_of([(120, 90, 40)])[None, None]) > 5
    assert loss(maps_of([(80, 90, 40), (30, 200, 24)])[None, None]) > loss(right) + 1
    assert loss(maps_of([(80, 90, 80)])[None, None]) == pytest.approx(loss(right) + 0.2 * np.log(2), abs=1e-4)
    nobody = torch.tensor([[[-1e4, -1e4, 1.0, 0.0]]])
    assert float(task.loss(torch.full((1, 2, 64, 64), -9.0), nobody)) < 1e-3


def test_precision_and_recall_count_whom_a_network_finds(scenes):
    class Answers(torch.nn.Module):
        mean_rgb = (0.0, 0.0, 0.0)

        def __init__(self, people):
            super().__init__()
            self.people = people

        def forward(self, x):
            return maps_of(self.people)[None, None]

    def measure(*people):
        return PeopleTask().measure(Answers(people), find_samples(scenes), False)

    assert measure((80, 90, 35)) == (1.0, 1.0)
    assert measure((80, 90, 35), (180, 150, 24)) == (1.0, 1.0)
    assert measure((80, 90, 35), (30, 200, 24)) == (0.5, 1.0)
    assert measure((180, 150, 24)) == (0.0, 0.0)


def test_a_fresh_network_begins_with_middling_sizes():
    network = HarvestHourglass(1, 16, PEOPLE_MAPS)
    PeopleTask().prepare(network)
    with torch.no_grad():
        scores = network.eval()(torch.rand(1, 3, 64, 64) - 0.5)
    assert scores.shape == (1, 1, 2, 16, 16) and abs(float(scores[0, 0, 1].mean())) < 1
    assert float(scores[0, 0, 0].max()) < -6

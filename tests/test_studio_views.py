"""Multi-view samples: exact, repeatable, the person always seen; what is written is what is read back."""

import io
import json
import tarfile

import cv2
import numpy as np
import pytest

from calib.triangulate import triangulate_dlt
from harvest.errors import UserError
from harvest.learn.multiview import find_multiviews, read_multiview
from harvest.learn.samples import find_samples
from harvest.skeleton import load_skeleton
from harvest.studio.assets import Assets, find_assets
from harvest.studio.body import JOINT_SETS
from harvest.studio.crops import SIZE_PX, Hardship, shows_person
from harvest.studio.rigs import KINDS, draw_rig
from harvest.studio.truth import OUTSIDE, VISIBLE, names_of
from harvest.studio.views import GROUP, ViewsStudio
from pipelines import studio as pipeline

FOLDER = find_assets()
with_assets = pytest.mark.skipif(FOLDER is None, reason="no studio assets; `harvest studio assets build` makes them")
SEED = 5


@pytest.fixture(scope="module")
def assets():
    return Assets(FOLDER)


@pytest.fixture(scope="module")
def some(assets):
    """Samples, and of each what its cameras saw, with masks."""
    studio, seen = ViewsStudio(assets, SEED, cameras=(2, 5)), []
    shoot = studio._shoot
    studio._shoot = lambda *args: seen.append(shoot(*args)) or seen[-1]
    found = []
    for sample in studio.samples(0, 12):
        found.append((sample, seen[-1][0]))
    return found


# --- without assets


def shard_of(path, samples):
    """A shard of samples, each (pictures by what follows the index, label)."""
    with tarfile.open(path, "w") as tar:
        for index, (pictures, label) in enumerate(samples):
            for kind, content in [*pictures.items(), ("json", json.dumps(label).encode())]:
                member = tarfile.TarInfo(f"{index:08d}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def flat(level):
    return cv2.imencode(".jpg", np.full((SIZE_PX, SIZE_PX, 3), (level, 0, 0), np.uint8))[1].tobytes()


def label_of(cameras):
    """Two sets of joints that say different things of the wrist; a missing hip."""
    sets = {}
    for shift, name in ((100, "coco17"), (0, "mpii16")):
        count = len(load_skeleton(name).joints)
        xyz = [[shift + row, row, 0.5] for row in range(count)]
        views = [
            {"uv_px": [[1, 2]] * count, "visibility": [(view + row) % 3 for row in range(count)]} for view in (0, 1)
        ]
        if name == "mpii16":
            xyz[2] = None
        sets[name] = {"xyz_m": xyz, "views": views}
    return {"joints": sets, "cameras": [camera.to_dict() for camera in cameras]}


RIG = draw_rig("ring", 2, (SIZE_PX, SIZE_PX), np.random.default_rng(0))


def test_pictures_joints_and_cameras_come_back_each_in_its_place(tmp_path):
    shard_of(tmp_path / "a.tar", [({"0.jpg": flat(30), "1.jpg": flat(200)}, label_of(RIG.cameras))])
    (place,) = find_multiviews(tmp_path)
    sample = read_multiview(place, ("l_wrist", "nose", "r_hip", "spine", "r_knee"))
    assert sample.pictures.shape == (2, SIZE_PX, SIZE_PX, 3) and sample.rig.names == ("cam01", "cam02")
    np.testing.assert_allclose(sample.pictures[:, 9, 9], [[0, 0, 30], [0, 0, 200]], atol=6)  # imencode took BGR
    for back, camera in zip(sample.rig.cameras, RIG.cameras, strict=True):
        np.testing.assert_array_equal(back.optics, camera.optics)
    unknown = [np.nan] * 3
    np.testing.assert_array_equal(sample.xyz_m, [[15, 15, 0.5], [100, 0, 0.5], unknown, unknown, [1, 1, 0.5]])
    assert sample.visibility.dtype == np.int8
    assert sample.visibility.tolist() == [[0, 0, 0, 0, 1], [1, 1, 0, 0, 2]]


def test_a_folder_without_samples_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="harvest studio views"):
        find_multiviews(tmp_path)
    shard_of(tmp_path / "crops.tar", [({"jpg": flat(0)}, {})])
    with pytest.raises(UserError, match="harvest studio views"):
        find_multiviews(tmp_path)
    assert len(find_samples(tmp_path)) == 1


def test_multi_view_samples_are_not_taken_for_crops(tmp_path):
    shard_of(tmp_path / "a.tar", [({"0.jpg": flat(30), "1.jpg": flat(200)}, label_of(RIG.cameras))])
    with pytest.raises(UserError, match="harvest studio crops"):
        find_samples(tmp_path)


@pytest.mark.parametrize(
    ("pictures", "wrong"),
    [
        ({"0.jpg": flat(1)}, "1 pictures of 2 cameras"),
        ({"0.jpg": flat(1), "1.jpg": b"no picture"}, "broken picture"),
        ({"0.jpg": flat(1), "1.jpg": b""}, "broken picture"),
    ],
)
def test_a_damaged_sample_names_its_shard_and_the_way_out(tmp_path, pictures, wrong):
    shard_of(tmp_path / "a.tar", [(pictures, label_of(RIG.cameras))])
    (place,) = find_multiviews(tmp_path)
    with pytest.raises(UserError, match=wrong) as error:
        read_multiview(place, ("l_wrist",))
    assert "a.tar" in str(error.value) and "harvest studio views" in str(error.value)


# --- with assets


@with_assets
def test_a_sample_is_the_same_in_whatever_order_it_is_made(assets):
    one, other = (ViewsStudio(assets, 11, cameras=(2, 4)) for _ in range(2))
    wanted = [one.sample(index) for index in (3, GROUP + 1)]
    found = [other.sample(index) for index in (GROUP + 1, 3)][::-1]
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(a.pictures, b.pictures)
        np.testing.assert_array_equal(list(a.developed(11)), list(b.developed(11)))
        np.testing.assert_array_equal([c.packed for c in a.cameras], [c.packed for c in b.cameras])
        assert (a.rig, a.clip, a.frame, a.character, a.effects) == (b.rig, b.clip, b.frame, b.character, b.effects)
        for name in JOINT_SETS:
            np.testing.assert_array_equal(a.xyz_m[name], b.xyz_m[name])
    fresh = ViewsStudio(assets, 12, cameras=(2, 4)).sample(3)
    assert fresh.character != wanted[0].character and fresh.clip != wanted[0].clip
    assert not np.array_equal(fresh.cameras[0].centre_m, wanted[0].cameras[0].centre_m)


@with_assets
def test_joints_in_space_project_to_where_each_view_shows_them(some):
    on, seen = 0, 0
    for sample, views in some:
        for camera, joints, view, picture in zip(sample.cameras, sample.joints, views, sample.pictures, strict=True):
            assert picture is view.picture and camera.size_px == picture.shape[:2] == (SIZE_PX, SIZE_PX)
            mask = view.mask(0)
            for name in JOINT_SETS:
                np.testing.assert_allclose(camera.project(sample.xyz_m[name]), joints[name].uv_px, atol=1e-6)
                u, v = np.round(joints[name].uv_px[joints[name].visibility == VISIBLE]).astype(int).clip(0, 255).T
                on, seen = on + (mask[v, u] > 0).sum(), seen + len(u)
    assert seen > 500 and on / seen > 0.98  # a joint at the rim of a thin limb may lie beside it


@with_assets
def test_two_to_many_cameras_of_every_kind_of_rig_stand_around_a_person_near_the_middle(assets, some):
    assert {len(sample.cameras) for sample, _ in some} == {2, 3, 4, 5}
    assert len({sample.rig for sample, _ in some}) >= 4 and {sample.rig for sample, _ in some} <= set(KINDS)
    places = np.array([sample.xyz_m["mpii16"][6, :2] for sample, _ in some])
    assert (np.linalg.norm(places, axis=1) < 0.8).all() and np.linalg.norm(places, axis=1).max() > 0.2
    assert any(camera.dist_opencv.any() for sample, _ in some for camera in sample.cameras)
    for sample, _ in some:
        assert [camera.name for camera in sample.cameras] == [f"cam{i + 1:02d}" for i in range(len(sample.cameras))]
        assert sum(map(shows_person, sample.joints)) >= 2


@with_assets
def test_what_hides_the_person_from_all_but_one_view_is_taken_away(assets):
    cluttered = Hardship(companion=1.0, furniture=(*[0.0] * 24, 1.0))
    studio, shots = ViewsStudio(assets, 3, cameras=(2, 2), hardship=cluttered), []
    shoot = studio._shoot
    studio._shoot = lambda *args: shots.append(shoot(*args)) or shots[-1]
    samples = list(studio.samples(0, 2))
    hidden = [shot for shot in shots if sum(map(shows_person, shot[1])) < 2]
    assert hidden and len(shots) == len(hidden) + len(samples)
    assert all(sum(map(shows_person, sample.joints)) == 2 for sample in samples)


@with_assets
def test_all_but_two_views_may_cut_the_person_off(assets):
    def whole(cut):
        hardship = Hardship(0.0, 0.0, (1.0,), 0.0, 0.0, cut, frame=(1.5, 1.5))
        found = [ViewsStudio(assets, 2, cameras=(5, 5), hardship=hardship).sample(index) for index in range(3)]
        return [sum((view["mpii16"].visibility != OUTSIDE).all() for view in sample.joints) for sample in found]

    assert whole(0.0) == [5, 5, 5]
    assert min(whole(1.0)) >= 2 and max(whole(1.0)) < 5


@with_assets
@pytest.mark.parametrize("cameras", [(1, 4), (5, 4)])
def test_a_rig_needs_two_cameras_and_the_fewest_before_the_most(assets, cameras):
    with pytest.raises(ValueError, match="at least 2"):
        ViewsStudio(assets, 0, cameras=cameras)


@pytest.fixture(scope="module")
def made(harvest_command, tmp_path_factory):
    out = tmp_path_factory.mktemp("views") / "set"
    command = ("studio", "views", "--n", "5", "--split", "val", "--cameras", "2:4", "--workers", "1", "--out", out)
    result = harvest_command(*command)
    assert result.returncode == 0, result.stderr
    assert "5 multi-view samples" in result.stdout and "5/5" in result.stderr
    return out


@with_assets
def test_what_the_command_writes_is_what_the_studio_draws(made, assets):
    joints = (*names_of("mpii16"), "nose", "spine")
    places, studio = find_multiviews(made), ViewsStudio(assets, 0, "val", (2, 4))
    assert len(places) == 5
    for index, place in enumerate(places):
        sample, drawn = read_multiview(place, joints), studio.sample(index)
        assert len(sample.rig) == len(sample.pictures) == len(drawn.pictures)
        for camera, own in zip(sample.rig.cameras, drawn.cameras, strict=True):
            np.testing.assert_array_equal(camera.optics, own.optics)
        xyz = drawn.xyz_m
        wanted = np.vstack([xyz["mpii16"], xyz["coco17"][:1], xyz["h36m17"][names_of("h36m17").index("spine")]])
        np.testing.assert_allclose(sample.xyz_m, wanted, atol=6e-6)
        np.testing.assert_array_equal(sample.visibility[:, :16], [view["mpii16"].visibility for view in drawn.joints])
        for found, picture, effects in zip(sample.pictures, drawn.developed(0), drawn.effects, strict=True):
            quality = [cv2.IMWRITE_JPEG_QUALITY, effects.jpeg]
            as_jpeg = cv2.imdecode(cv2.imencode(".jpg", picture[..., ::-1].copy(), quality)[1], cv2.IMREAD_COLOR)
            np.testing.assert_array_equal(found, as_jpeg[..., ::-1])
        back = triangulate_dlt(sample.rig, sample.rig.project(sample.xyz_m), np.ones((len(sample.rig), len(joints))))
        np.testing.assert_allclose(back, sample.xyz_m, atol=1e-6)


@with_assets
def test_the_label_says_where_joints_are_in_space_and_in_every_view(made):
    (shard,) = made.glob("*.tar")
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        label = json.load(io.BytesIO(tar.extractfile("00000002.json").read()))
    views = len(label["cameras"])
    assert [name for name in names if name.startswith("00000002.")] == [
        *(f"00000002.{view}.jpg" for view in range(views)), "00000002.json"
    ]  # fmt: skip
    assert set(label["joints"]) == set(JOINT_SETS) and label["index"] == 2 and label["clip"] and label["rig"] in KINDS
    rig = read_multiview(find_multiviews(made)[2], ()).rig
    for truth in label["joints"].values():
        uv = np.array([view["uv_px"] for view in truth["views"]])
        np.testing.assert_allclose(rig.project(truth["xyz_m"]), uv, atol=1e-2)
    assert (made / "sheet.jpg").stat().st_size > 10_000


@with_assets
def test_a_stopped_set_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "GROUPS", 1)
    monkeypatch.setattr(pipeline, "VIEWS_GROUP", 2)

    def make(out, count=5):
        return pipeline.views(pipeline.Order(out, FOLDER, workers=1), count, SEED, "train", (2, 3))

    assert "(5 made now)" in make(tmp_path / "whole")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.tar")}
    assert len(whole) == 3

    def stop_at_sample_3(sample):
        if sample.index == 3:
            raise KeyboardInterrupt
        return label_of_views(sample)

    label_of_views = pipeline.label_of_views
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "label_of_views", stop_at_sample_3)
        make(tmp_path / "again")
    (kept,) = (tmp_path / "again").glob("*.tar")
    before = kept.stat().st_mtime_ns
    assert "(3 made now)" in make(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.tar")} == whole
    assert kept.stat().st_mtime_ns == before and len(find_multiviews(tmp_path / "again")) == 5
    with pytest.raises(UserError, match="cameras"):
        pipeline.views(pipeline.Order(tmp_path / "again", FOLDER, workers=1), 5, SEED, "train", (2, 4))


@pytest.mark.parametrize("cameras", ["1:4", "5:4", "four", "2:3:4"])
def test_wrong_numbers_of_cameras_are_one_line(tmp_path, cameras):
    from harvest.cli_studio import studio_views

    with pytest.raises(UserError, match="LEAST:MOST") as error:
        studio_views(cameras=cameras, out=tmp_path / "v")
    assert "\n" not in str(error.value) and f"'{cameras}'" in str(error.value) and not (tmp_path / "v").exists()


def test_the_help_shows_an_example(harvest_command):
    result = harvest_command("studio", "views", "--help")
    assert result.returncode == 0 and "Example: harvest studio views" in result.stdout.replace("\n", " ")

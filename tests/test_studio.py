"""People, motion, crops and takes of the studio: exact, repeatable, always clothed, feet on the floor."""

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT

from calib.rig import Rig, load_rig
from calib.triangulate import triangulate_dlt
from harvest.errors import UserError
from harvest.skeleton import load_skeleton
from harvest.studio.assets import Assets, find_assets
from harvest.studio.body import JOINT_SETS
from harvest.studio.colours import fabric, repaint
from harvest.studio.crops import EASY, GROUP, CropStudio
from harvest.studio.effects import Effects, draw_effects
from harvest.studio.motion import CHANNELS
from harvest.studio.own_motion import KINDS as OWN_KINDS
from harvest.studio.own_motion import LOW_KINDS, low_clips, own_clips
from harvest.studio.people import Casting
from harvest.studio.plain import TubePerson
from harvest.studio.presets import PRESETS, takes_of
from harvest.studio.rigs import KINDS, draw_rig
from harvest.studio.splits import HELD_OUT, SPLITS, belongs
from harvest.studio.takes import Take, TakeSettings
from harvest.studio.truth import FLESH_M, HIDDEN, VISIBLE, flesh_m, names_of
from harvest.studio.video import Video, join_videos

FOLDER = find_assets()
with_assets = pytest.mark.skipif(FOLDER is None, reason="no studio assets; `harvest studio assets build` makes them")


@pytest.fixture(scope="module")
def assets():
    return Assets(FOLDER)


@pytest.fixture(scope="module")
def take(assets):
    return Take(assets, TakeSettings(seed=4, frames=24, views=3, people=2, objects=2, size_px=(320, 240)))


# --- without assets


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("views", [2, 5, 32])
def test_every_camera_of_every_rig_sees_a_person_in_the_middle_whole(kind, views):
    stage = np.array([[x, y, z] for x in (-0.4, 0.4) for y in (-0.4, 0.4) for z in (0.05, 1.85)])
    for seed in range(4):
        rig = draw_rig(kind, views, (640, 480), np.random.default_rng(seed))
        uv = rig.project(stage)
        assert len(rig) == views and ((uv > 0) & (uv < (639, 479))).all()
        assert isinstance(Rig(rig.cameras), Rig)
        again = draw_rig(kind, views, (640, 480), np.random.default_rng(seed))
        np.testing.assert_array_equal(again.project(stage), uv)


@pytest.mark.parametrize("split", SPLITS)
def test_our_own_motion_is_smooth_and_stands_on_its_feet(split):
    clips = own_clips(split)
    assert len(clips) == 6 * len(OWN_KINDS) and {clip.split for clip in clips} == {split}
    for clip in clips:
        assert clip.turns.shape == (len(clip), len(CHANNELS), 4)
        np.testing.assert_allclose(np.linalg.norm(clip.turns, axis=-1), 1, atol=1e-9)
        cosine = abs((clip.turns[1:] * clip.turns[:-1]).sum(-1)).min()
        assert np.degrees(2 * np.arccos(min(cosine, 1))) < 25
        assert abs(np.diff(clip.root, axis=0)).max() < 0.12
        assert 0.3 < clip.root[:, 2].min() and clip.root[:, 2].max() < 1.2
    other = own_clips("val" if split == "train" else "train")
    assert not np.allclose(clips[0].turns[:50], other[0].turns[:50])


@with_assets
@pytest.mark.parametrize("kind", LOW_KINDS)
def test_low_poses_are_low_and_touch_the_floor(assets, kind):
    clips = [clip for clip in low_clips("train") if f"_{kind}_" in clip.name]
    assert len(clips) == len([clip for clip in low_clips("test") if f"_{kind}_" in clip.name]) == 24
    person = Casting(assets).person("train", np.random.default_rng(0))
    below, hips = [], []
    for clip in clips[::6]:
        assert np.degrees(2 * np.arccos(min(abs((clip.turns[1:] * clip.turns[:-1]).sum(-1)).min(), 1))) < 25
        turns, root = assets.motion.perform(person.body, clip, np.array([0, 300]))
        for transforms in person.body.pose(turns, root).transforms:
            below.append(float(person.mesh.placed(transforms).vertices[:, 2].min()))
        hips += list(root[:, 2])
    assert -0.15 < np.median(below) < 0.15 and -0.3 < min(below) and max(below) < 0.35
    assert np.median(hips) < {"sit": 0.65, "crouch": 0.6, "crawl": 0.95, "lie": 0.5, "upside_down": 1.6}[kind]


def test_between_two_frames_a_clip_turns_evenly():
    clip = own_clips("train")[-1]
    frames = np.arange(0, 60, 2)
    between, root = clip.at(frames + 1.0)
    mixed, middle = clip.at(frames + 1.0 + 1e-9)
    np.testing.assert_allclose(mixed, between, atol=1e-6)
    np.testing.assert_allclose(middle, root, atol=1e-6)
    late, _ = clip.at(np.array([len(clip) - 1.0]))
    np.testing.assert_array_equal(late[0], clip.turns[-1])


def test_held_out_things_never_appear_in_training():
    assert not HELD_OUT["val"] & HELD_OUT["test"]
    for name in HELD_OUT["test"]:
        assert belongs(name, "test") and not belongs(name, "train") and not belongs(name, "val")
    assert belongs("anything else", "train") and not belongs("anything else", "test")


def test_every_joint_has_a_share_of_flesh():
    for joint_set in JOINT_SETS:
        assert (flesh_m(names_of(joint_set)) > 0).all()
    assert flesh_m(("l_hip",))[0] == FLESH_M["hip"]


def test_the_standard_sets_are_what_they_were():
    table = {name: len(takes_of(name)) for name in PRESETS}
    assert table == {"demo": 1, "bench-4cam": 8, "bench-gap": 6, "bench-rigs": 10, "calibrate": 50, "train": 200}
    bench = takes_of("bench-4cam")
    assert {take.split for take in bench} == {"test"} and {take.views for take in bench} == {4}
    assert [take.subject for take in bench] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len({(take.subject, take.take) for take in takes_of("train")}) == 200
    assert {take.views for take in takes_of("train")} == set(range(2, 9))
    assert takes_of("demo", takes=3, seed=9)[2].seed == 9
    rigs = {(take.kind, take.views) for take in takes_of("calibrate")}
    assert rigs == {(kind, views) for kind in KINDS for views in range(2, 7)}
    assert {take.split for take in takes_of("calibrate")} == {"val"}


def test_effects_change_what_they_say_and_repeat_themselves():
    picture = np.full((60, 80, 3), 120, np.uint8)
    picture[:, 40:] = 30
    np.testing.assert_array_equal(Effects().apply(picture, np.random.default_rng(0)), picture)
    assert Effects(gain=(1.2, 1.0, 0.8)).apply(picture, np.random.default_rng(0))[5, 5].tolist() == [144, 120, 96]
    noisy = Effects(noise=4.0).apply(picture, np.random.default_rng(0)).astype(float)
    assert 3 < (noisy - picture)[:, :40].std() < 6 < 1.3 * (noisy - picture)[:, 40:].std() * 1.3
    shaken = Effects(shake=(6.0, 0.0)).apply(picture, np.random.default_rng(0))
    assert 30 < shaken[30, 40, 0] < 120 and shaken[30, 10, 0] == 120
    effects = draw_effects(np.random.default_rng(3))
    one, other = (effects.apply(picture, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_a_repainted_garment_keeps_its_folds_and_opacity():
    rng = np.random.default_rng(0)
    texture = np.full((512, 512, 4), 150, np.uint8)
    texture[200:210, :, :3], texture[:50, :, 3] = 40, 0
    painted = repaint(texture, np.full((512, 512, 3), (0.8, 0.2, 0.2), np.float32))
    assert painted[100, 100, 0] > 2 * painted[100, 100, 1]
    assert painted[205, 100, 0] < 0.6 * painted[100, 100, 0]
    np.testing.assert_array_equal(painted[..., 3], texture[..., 3])
    cloth = fabric(rng)
    assert cloth.shape == (512, 512, 3) and cloth.min() >= 0 and cloth.max() <= 1


def test_videos_depend_on_their_pictures_alone_and_can_be_joined(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(6)]
    for name, part in (("whole", pictures), ("again", pictures), ("a", pictures[:3]), ("b", pictures[3:])):
        video = Video(tmp_path / f"{name}.mp4", (64, 48), 29.97)
        for picture in part:
            video.add(picture)
        video.close()
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()
    join_videos([tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path / "joined.mp4")
    capture = cv2.VideoCapture(str(tmp_path / "joined.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    assert abs(capture.get(cv2.CAP_PROP_FPS) - 29.97) < 0.01


def test_a_person_of_tubes_has_its_limbs_between_its_joints():
    skeleton = load_skeleton("mpii16")
    lengths = skeleton.shares * 1.75
    joints = np.zeros((len(skeleton.joints), 3))
    for joint in skeleton.order[1:]:
        limb = skeleton.limb_of(joint)
        down = -1.0 if limb.child.endswith(("knee", "ankle")) else 1.0
        joints[joint] = joints[skeleton.index(limb.parent)] + [0, 0, down * lengths[joint]]
    thing = TubePerson(skeleton, lengths).placed(joints)
    assert thing.vertices[:, 2].max() == pytest.approx(joints[:, 2].max() + 0.03, abs=0.005)
    assert thing.vertices[:, 2].min() == pytest.approx(joints[:, 2].min() - 0.04, abs=0.005)


def test_without_assets_one_line_says_what_to_do(harvest_command, tmp_path):
    (tmp_path / "empty").mkdir()
    result = harvest_command("studio", "make", "--out", tmp_path / "x", HARVEST_STUDIO_ASSETS=str(tmp_path / "empty"))
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "lacks bodies.npz" in result.stderr


# --- with assets


@with_assets
def test_bodies_are_as_tall_as_they_should_be_and_left_is_left(assets):
    for who in assets.characters[::60]:
        body = assets.body.shape(who["phenotype"])
        skin = body.vertices[: assets.body.skin_vertices]
        assert skin[:, 2].max() - skin[:, 2].min() == pytest.approx(who["stature_m"], abs=0.01)
        rest = body.pose(np.tile(np.eye(3), (1, len(body.heads), 1, 1)), body.heads[:1])
        np.testing.assert_allclose(rest.heads_m[0], body.heads, atol=1e-9)
        for joint_set in JOINT_SETS:
            names, xyz = names_of(joint_set), rest.joints(joint_set)[0]
            assert xyz.shape == (len(names), 3)
            for name, place in zip(names, xyz, strict=True):
                assert not name.startswith("l_") or place[0] > 0
                assert not name.startswith("r_") or place[0] < 0
    with pytest.raises(UserError, match="traits"):
        assets.body.shape({"gender": 2.0})


@with_assets
def test_limbs_keep_their_length_whatever_the_motion(assets):
    body, skeleton = assets.body.shape(assets.characters[0]["phenotype"]), load_skeleton("mpii16")
    for clip in assets.motion.clips[::20]:
        xyz = body.pose(*assets.motion.perform(body, clip, np.arange(0, len(clip), 15))).joints("mpii16")
        for child in ("l_knee", "r_ankle", "l_elbow", "r_wrist"):
            limb = skeleton.limb_of(skeleton.index(child))
            length = np.linalg.norm(xyz[:, skeleton.index(child)] - xyz[:, skeleton.index(limb.parent)], axis=1)
            np.testing.assert_allclose(length, length[0], atol=1e-9)


@with_assets
def test_fast_skinning_is_the_weighted_mean_of_transforms(assets):
    person = Casting(assets).person("train", np.random.default_rng(0))
    clip = assets.motion.of_split("train")[5]
    pose = person.body.pose(*assets.motion.perform(person.body, clip, np.array([10])))
    thing = person.mesh.placed(pose.transforms[0])
    mesh = person.mesh
    blended = np.einsum("nk,nkij->nij", mesh.weights, pose.transforms[0][mesh.bones])
    slow = np.einsum("nij,nj->ni", blended, np.column_stack([mesh.vertices, np.ones(len(mesh.vertices))]))
    np.testing.assert_allclose(thing.vertices, slow, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(thing.normals, axis=1), 1, atol=1e-5)


@with_assets
@pytest.mark.parametrize("only_cc0", [False, True])
def test_nobody_is_ever_without_clothes_and_shoes(only_cc0):
    casting = Casting(Assets(FOLDER, only_cc0))
    kinds = {item["key"]: item["kind"] for item in casting.assets.garments["items"]}
    for split in SPLITS:
        for seed in range(12):
            person = casting.person(split, np.random.default_rng(seed))
            worn = [key.partition(":") for key in person.outfit.garments]
            suits = {half for name, _, half in worn if kinds[name] == "suit"}
            assert suits in ({""}, {"top", "bottom"})
            assert any(kinds[name] == "shoes" for name, _, _ in worn)
            assert all(kinds[name] == "eyebrow" or belongs(name, split) for name, _, _ in worn)
            assert person.split == split


@with_assets
def test_a_crop_is_the_same_in_whatever_order_it_is_made(assets):
    one, other = CropStudio(assets, 11), CropStudio(assets, 11)
    wanted = [one.crop(index) for index in (3, GROUP + 1)]
    found = [other.crop(index) for index in (GROUP + 1, 3)][::-1]
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
        np.testing.assert_array_equal(a.joints["coco17"].uv_px, b.joints["coco17"].uv_px)
        assert (a.clip, a.frame, a.character, a.effects) == (b.clip, b.frame, b.character, b.effects)
    assert not np.array_equal(CropStudio(assets, 12).crop(3).picture, wanted[0].picture)


@with_assets
def test_visible_joints_lie_on_the_person_and_match_their_places_in_space(assets):
    studio = CropStudio(assets, 5, hardship=EASY)
    on, seen, hidden = 0, 0, 0
    for index in range(24):
        crop = studio.crop(index)
        for truth in crop.joints.values():
            K, good = crop.camera.K, np.isfinite(truth.uv_px).all(axis=1)
            again = crop.camera.project(
                (truth.xyz_cam_m - crop.camera.t_cam_from_world_m) @ crop.camera.R_cam_from_world
            )
            np.testing.assert_allclose(again[good], truth.uv_px[good], atol=1e-6)
            u, v = np.round(truth.uv_px[truth.visibility == VISIBLE]).astype(int).clip(0, 255).T
            on, seen = on + (crop.mask[v, u] > 0).sum(), seen + len(u)
            hidden += (truth.visibility == HIDDEN).sum()
            assert K[0, 0] > 0
        left, top, right, bottom = crop.box_px
        rows, columns = np.nonzero(crop.mask)
        assert (left, top, right, bottom) == (
            columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5
        )  # fmt: skip
    assert on / seen > 0.985  # a joint at the rim of a thin limb may lie beside it
    assert 0.1 < hidden / seen < 0.6


@with_assets
def test_people_of_a_take_stay_apart_stand_on_the_floor_and_clear_of_furniture(take):
    one, other = (actor.pose.heads_m[:, 0, :2] for actor in take.actors)
    assert np.linalg.norm(one - other, axis=1).min() > 0.6
    for moment in range(0, 24, 6):
        things = take.things(moment)
        for person in things[:2]:
            assert -0.035 < person.vertices[:, 2].min() < 0.25
        for piece in things[-2:]:
            for person in things[:2]:
                apart = np.linalg.norm(piece.vertices[::9, None, :2] - person.vertices[None, ::40, :2], axis=-1)
                assert apart.min() > 0.02


@with_assets
def test_joints_of_a_take_come_back_from_its_pictures(take):
    joints = take.actors[0].pose.joints("h36m17").reshape(-1, 3)
    back = triangulate_dlt(take.rig, take.rig.project(joints), np.ones((len(take.rig), len(joints))))
    np.testing.assert_allclose(back, joints, atol=1e-7)


@with_assets
def test_a_take_is_the_same_in_another_process(take):
    script = (
        "import hashlib; from harvest.studio.assets import *; from harvest.studio.takes import *\n"
        "take = Take(Assets(find_assets()), TakeSettings(seed=4, frames=24, views=3, people=2, objects=2, "
        "size_px=(320, 240)))\n"
        "print([hashlib.sha256(p.tobytes() + v.near.tobytes()).hexdigest() for _, p, v in take.film(7)])"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    from hashlib import sha256

    here = [sha256(picture.tobytes() + view.near.tobytes()).hexdigest() for _, picture, view in take.film(7)]
    assert result.stdout.strip() == str(here)


@with_assets
def test_blur_averages_moments_and_keeps_the_truth_of_the_first(assets):
    sharp, blurred = (
        Take(assets, TakeSettings(seed=6, frames=4, views=2, size_px=(160, 120), blur=blur)) for blur in (1, 4)
    )
    np.testing.assert_allclose(
        sharp.actors[0].pose.heads_m[:, 0, :2], blurred.actors[0].pose.heads_m[::4, 0, :2], atol=0.02
    )
    assert len(blurred.moments_s) == 16 and blurred.moments_s[1] == pytest.approx(0.5 / 30 / 4)


@pytest.fixture(scope="module")
def made(harvest_command, tmp_path_factory):
    out = tmp_path_factory.mktemp("studio") / "set"
    command = ("studio", "make", "--preset", "demo", "--takes", "1", "--masks", "--workers", "1", "--out", out)
    result = harvest_command(*command)
    assert result.returncode == 0, result.stderr
    return out, command


@with_assets
def test_a_set_is_laid_out_like_a_capture_with_its_truth_beside(made):
    out, _ = made
    folder = out / "s000_t000"
    rig = load_rig(folder / "rig.yaml")
    assert sorted(path.stem for path in (folder / "videos").iterdir()) == list(rig.names)
    truth = np.load(folder / "truth" / "joints.npz", allow_pickle=False)
    assert truth["mpii16_xyz_m"].shape == (1, 60, 16, 3) and truth["coco17_uv_px"].shape == (4, 1, 60, 17, 2)
    np.testing.assert_allclose(rig.project(truth["mpii16_xyz_m"][0]), truth["mpii16_uv_px"][:, 0], atol=1e-3)
    story = json.loads((folder / "truth" / "story.json").read_text())
    assert story["people"][0]["garments"] and story["settings"]["split"] == "train"
    mask = cv2.imread(str(folder / "truth" / "mask" / "cam01" / "000030.png"), cv2.IMREAD_UNCHANGED)
    depth = cv2.imread(str(folder / "truth" / "depth" / "cam01" / "000030.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (480, 640) and depth.dtype == np.uint16
    pelvis = rig["cam01"].cam_from_world(truth["mpii16_xyz_m"][0, 30, 6])[2]
    assert abs(np.median(depth[mask == 255]) / 1000 - pelvis) < 0.3
    assert (out / "sheet.jpg").stat().st_size > 10_000


@with_assets
def test_a_set_made_again_is_kept_and_another_one_in_its_place_refused(made, harvest_command):
    out, command = made
    before = {path: path.read_bytes() for path in out.rglob("*.mp4")}
    result = harvest_command(*command)
    assert result.returncode == 0 and "(0 made now)" in result.stdout
    result = harvest_command(*command, "--seed", "77")
    assert result.returncode == 2 and "seed 1 (now 77)" in result.stderr
    assert before == {path: path.read_bytes() for path in out.rglob("*.mp4")}


@with_assets
def test_a_stopped_set_goes_on_to_the_same_bytes(made, tmp_path):
    out, command = made
    again = tmp_path / "again"
    arguments = [str(again) if part == out else str(part) for part in command]
    process = subprocess.Popen([sys.executable, "-m", "harvest.cli", *arguments], stderr=subprocess.DEVNULL)
    partial = again / "s000_t000.partial"
    for _ in range(600):
        if partial.is_dir() and any(path.name.isdigit() for path in partial.glob("*/*")):
            break
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    process.wait()
    subprocess.run([sys.executable, "-m", "harvest.cli", *arguments], check=True, capture_output=True)
    for path in sorted((out / "s000_t000").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again / "s000_t000" / path.relative_to(out / "s000_t000")).read_bytes(), path
    assert not partial.exists()


@with_assets
def test_workers_end_when_the_command_that_started_them_is_killed(tmp_path):
    command = ["studio", "crops", "--n", "4096", "--workers", "2", "--out", str(tmp_path / "c")]
    process = subprocess.Popen([sys.executable, "-m", "harvest.cli", *command], stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not list the children of a process")
    workers: list[str] = []
    for _ in range(300):
        workers = children.read_text().split()
        if len(workers) >= 2 and any((tmp_path / "c").glob("*.partial")):
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            break
        time.sleep(0.1)
    assert workers and not any(Path(f"/proc/{worker}").exists() for worker in workers)


@with_assets
def test_crops_come_in_shards_that_hold_picture_truth_and_mask(harvest_command, tmp_path):
    command = ("studio", "crops", "--n", "6", "--split", "val", "--out", tmp_path / "c", "--workers", "1")
    result = harvest_command(*command)
    assert result.returncode == 0, result.stderr
    (shard,) = (tmp_path / "c").glob("*.tar")
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        label = json.load(io.BytesIO(tar.extractfile("00000002.json").read()))
        picture = cv2.imdecode(np.frombuffer(tar.extractfile("00000002.jpg").read(), np.uint8), cv2.IMREAD_COLOR)
    assert len(names) == 18 and picture.shape == (256, 256, 3)
    assert set(label["joints"]) == set(JOINT_SETS) and len(label["joints"]["mpii16"]["uv_px"]) == 16
    first = shard.read_bytes()
    shard.unlink()
    harvest_command(*command)
    assert shard.read_bytes() == first


@with_assets
def test_any_motion_file_of_the_users_moves_people(harvest_command, tmp_path):
    import motion_writers

    assert motion_writers  # the writers of motion files are tested with their readers
    source = ROOT.parent / "shared" / "data" / "mocap_cmu_bvh" / "raw_bvh"
    files = sorted(source.glob("*.bvh")) if source.is_dir() else []
    if not files:
        pytest.skip("no BVH files beside the checkout")
    (tmp_path / "motion").mkdir()
    (tmp_path / "motion" / "mine_01.bvh").write_bytes(files[0].read_bytes())
    result = harvest_command(
        *("studio", "make", "--motion", tmp_path / "motion", "--takes", "1", "--workers", "1", "--out", tmp_path / "m")
    )
    assert result.returncode == 0, result.stderr
    story = json.loads((tmp_path / "m" / "s000_t000" / "truth" / "story.json").read_text())
    assert story["people"][0]["clip"] == "mine_01"


@with_assets
def test_the_pipeline_takes_a_studio_capture_for_real_footage_and_finds_the_joints(made, harvest_command, tmp_path):
    out, _ = made
    folder = out / "s000_t000"
    result = harvest_command(
        *("run", "--rig", folder / "rig.yaml", "--videos", folder / "videos", "--frames", "0:60:10"),
        *("--out", tmp_path / "run"),
    )
    if "weights fetch" in result.stderr:
        pytest.skip("BlazePose's weights are not there")
    assert result.returncode == 0, result.stderr
    from harvest.store.tables import read_poses

    poses = read_poses(tmp_path / "run" / "30_poses.parquet")
    truth = np.load(folder / "truth" / "joints.npz", allow_pickle=False)
    names = [str(name) for name in truth["coco17_names"]]
    shared = [name for name in poses.joints if name in names and name not in ("nose",)]
    error = np.linalg.norm(
        poses.xyz_m[:, [poses.joints.index(name) for name in shared]]
        - truth["coco17_xyz_m"][0, ::10][:, [names.index(name) for name in shared]],
        axis=-1,
    )
    assert np.nanmedian(error) < 0.045
    assert yaml.safe_load((tmp_path / "run" / "30_limbs.yaml").read_text())["height_m"] > 1.3

"""Motion files of users: made-up ones whose turns are known, the CMU database's own, and broken ones."""

import json
import logging
import lzma
import re

import numpy as np
import pytest
from conftest import SHARED
from motion_writers import (
    FRAMES,
    NAMES,
    PARTS,
    PERSON,
    dance,
    deepmimic_frame,
    degrees_between,
    expected,
    numbers,
    steady,
    write_amc,
    write_asf,
    write_bvh,
    write_deepmimic,
)
from scipy.spatial.transform import Rotation

from harvest.errors import UserError
from harvest.studio.amc import amc_recording
from harvest.studio.bvh import bvh_recording
from harvest.studio.motion import CHANNELS
from harvest.studio.motion_files import (
    read_amc,
    read_bvh,
    read_deepmimic,
    read_motion_folder,
    split_of,
    subject_of,
)
from harvest.studio.recording import slerp
from harvest.studio.rotations import from_quaternions

AMC, BVH, BUNDLE = (SHARED / name for name in ("data/mocap_cmu_amc", "data/mocap_cmu_bvh", "studio_assets"))
RECORDED = pytest.mark.skipif(not (AMC.is_dir() and BVH.is_dir()), reason=f"no motion capture in {SHARED / 'data'}")
BUNDLED = pytest.mark.skipif(
    not (AMC.is_dir() and BVH.is_dir() and (BUNDLE / "motion.npz").is_file()),
    reason=f"no motion capture in {SHARED / 'data'} or no bundle in {BUNDLE}",
)


def channel(clip, name):
    return from_quaternions(clip.turns[:, CHANNELS.index(name)])


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_a_bvh_file_in_any_axes_gives_the_turns_that_it_was_written_with(tmp_path, frame):
    turns, places = dance()
    clip = read_bvh(write_bvh(tmp_path / "dance_01.bvh", (turns, places), frame))
    assert degrees_between(from_quaternions(clip.turns), expected(turns)).max() < 1e-4
    # The middle of the hips lies 0.05 below the joint; one leg is 0.9 long; left, up, forward are x, z, -y.
    hips = places + turns["hips"] @ [0, -0.05, 0]
    np.testing.assert_allclose(clip.root, hips[:, [0, 2, 1]] * [1, -1, 1] / 0.9, atol=1e-6)
    direction = dict(zip(CHANNELS, clip.zero_direction))
    np.testing.assert_allclose(direction["upperarm.L"], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(direction["lowerarm.R"], [-1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(direction["lowerleg.R"], [0, 0, -1], atol=1e-6)
    assert not direction["head"].any() and not direction["foot.L"].any()
    assert (clip.name, clip.subject, clip.source, clip.fps, clip.foot_roll) == ("dance_01", "dance", "bvh", 30.0, 0.0)


@pytest.mark.parametrize("tool", NAMES)
def test_the_names_of_any_tool_give_the_same_turns(tmp_path, tool):
    turns, places = dance(frames=3)
    clip = read_bvh(write_bvh(tmp_path / "dance.bvh", (turns, places), FRAMES["z up, facing x"], tool))
    assert degrees_between(from_quaternions(clip.turns), expected(turns)).max() < 1e-4


def test_a_person_who_faces_between_two_axes_in_the_zero_pose_still_faces_minus_y(tmp_path):
    turns, places = dance(frames=2)
    path = write_bvh(tmp_path / "dance.bvh", (turns, places))
    aside = Rotation.from_euler("y", 30, degrees=True).as_matrix()
    lines = [
        f"OFFSET {numbers(aside @ np.array(line.split()[1:], float))}" if "OFFSET" in line else line
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines))
    turned = {part: aside.T @ matrices @ aside for part, matrices in turns.items()}
    clip = read_bvh(path)
    assert degrees_between(from_quaternions(clip.turns), expected(turned)).max() < 1e-4
    np.testing.assert_allclose(clip.zero_direction[CHANNELS.index("upperarm.L")], [1, 0, 0], atol=1e-6)


def test_each_joint_may_have_its_own_order_of_angles(tmp_path):
    turns, places = dance()
    orders = ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX"]
    mixed = {part: orders[i % 6] for i, part in enumerate(PARTS)}
    clip = read_bvh(write_bvh(tmp_path / "dance.bvh", (turns, places), orders=mixed))
    assert degrees_between(from_quaternions(clip.turns), expected(turns)).max() < 1e-4


def test_angles_multiply_in_the_order_of_their_channels(tmp_path):
    head = (
        "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation\n"
    )
    tail = "JOINT b {\nOFFSET 0 0 2\nCHANNELS 3 Xposition Yposition Zposition\nEnd Site\n{\nOFFSET 0 1 0\n}\n}\n}\n"
    (tmp_path / "two.bvh").write_text(f"{head}{tail}MOTION\nFrames: 1\nFrame Time: 0.1\n1 2 3 90 90 0 0 0 5\n")
    recording = bvh_recording(tmp_path / "two.bvh")
    # z is turned about x first, to -y, then about z, to x. The place of b is its channels', not its offset's.
    np.testing.assert_allclose(recording.places[0], [[1, 2, 3], [6, 2, 3], [6, 2, 4]], atol=1e-12)
    assert recording.joints == ("a", "b", "b_end")
    np.testing.assert_allclose(recording.rest, [[0, 0, 0], [0, 0, 2], [0, 1, 2]])


def test_joints_that_are_missing_do_as_those_above_them(tmp_path):
    turns, places = dance()
    lost = {"clavicle.L": "chest", "clavicle.R": "chest", "belly": "hips"}
    lost |= dict.fromkeys(["neck", "head"] + [f"{part}.{side}" for part in ("hand", "foot", "toes") for side in "LR"])
    person = [(part, lost.get(parent, parent), offset) for part, parent, offset in PERSON if part not in lost]
    clip = read_bvh(write_bvh(tmp_path / "dance.bvh", (turns, places), person=person))
    for missing, does_as in (
        *(("head", "spine01"), ("neck01", "spine01"), ("clavicle.L", "spine01")),
        *(("wrist.R", "lowerarm.R"), ("foot.L", "lowerleg.L")),
    ):
        np.testing.assert_array_equal(channel(clip, missing), channel(clip, does_as))
    half = degrees_between(channel(clip, "spine04"), channel(clip, "root"))
    np.testing.assert_allclose(half, degrees_between(channel(clip, "spine01"), channel(clip, "root")) / 2, atol=1e-4)
    np.testing.assert_allclose(half, degrees_between(channel(clip, "spine04"), channel(clip, "spine01")), atol=1e-4)


def test_a_first_frame_that_only_shows_the_rest_pose_is_dropped_and_no_other(tmp_path):
    turns, places = dance()
    rest = {part: np.concatenate([np.eye(3)[None], matrices]) for part, matrices in turns.items()}
    clip = read_bvh(write_bvh(tmp_path / "a.bvh", (rest, np.concatenate([places[:1], places]))))
    assert len(clip) == len(places)
    assert degrees_between(from_quaternions(clip.turns), expected(turns)).max() < 1e-4
    still = {part: np.tile(np.eye(3), (4, 1, 1)) for part in PARTS}
    assert len(read_bvh(write_bvh(tmp_path / "b.bvh", (still, np.ones((4, 3)))))) == 4


@pytest.mark.parametrize("fps", [24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0, 90.0, 120.0, 16.0])
def test_every_rate_comes_out_at_30_frames_a_second(tmp_path, fps):
    turns, places = steady(fps, 2.0)
    clip = read_bvh(write_bvh(tmp_path / "arm.bvh", (turns, places), fps=fps))
    assert len(clip) in (60, 61)
    times = np.arange(len(clip)) / 30
    angle = degrees_between(channel(clip, "upperarm.L"), np.eye(3))
    # 29.97 and 59.94 count as 30 and 60, a thousandth too fast.
    np.testing.assert_allclose(angle, 70 * times, atol=0.2 if fps in (29.97, 59.94) else 1e-4)
    np.testing.assert_allclose(-clip.root[:, 1] * 0.9, 2 * times, atol=6e-3 if fps in (29.97, 59.94) else 1e-5)


def test_between_two_rotations_the_short_way_is_taken():
    a, b = np.array([1.0, 0, 0, 0]), np.array([-np.cos(0.2), 0, 0, -np.sin(0.2)])
    np.testing.assert_allclose(slerp(a, b, np.array([0.5])), [np.cos(0.1), 0, 0, np.sin(0.1)], atol=1e-12)
    np.testing.assert_allclose(slerp(a, a, np.array([0.3])), a)


def test_quaternions_do_not_jump_while_somebody_turns_round_and_round(tmp_path):
    turns, places = steady(30.0, 12.0)
    turns["hips"] = Rotation.from_rotvec(np.linspace(0, 9 * np.pi, len(places))[:, None] * [0, 1, 0]).as_matrix()
    clip = read_bvh(write_bvh(tmp_path / "spin.bvh", (turns, places)))
    assert (clip.turns[1:] * clip.turns[:-1]).sum(-1).min() > 0.99


def test_somebody_who_stands_still_stands_on_the_floor(tmp_path):
    turns, _ = steady(30.0, 0.5)
    turns = {part: np.tile(np.eye(3), (16, 1, 1)) for part in turns}
    clip = read_bvh(write_bvh(tmp_path / "stand.bvh", (turns, np.tile([0, 3.05, 0], (16, 1)))))
    # Hips 3 high are 3.33 legs; the sole of a grown-up is about 1.11 legs below.
    assert clip.floor == pytest.approx(3 / 0.9 - 1.11, abs=0.01)


def refusal(read, *paths):
    """The one line that reading is refused with."""
    with pytest.raises(UserError) as caught:
        read(*paths)
    message = str(caught.value)
    assert "\n" not in message and str(paths[-1].parent) in message
    return message


def test_a_skeleton_without_a_leg_is_refused_with_what_was_looked_for_and_what_is_there(tmp_path):
    path = write_bvh(tmp_path / "dance.bvh", dance(2))
    path.write_text(path.read_text().replace("LeftLeg", "Elephant"))
    message = refusal(read_bvh, path)
    assert "lowerleg.L" in message and "shin" in message and "Elephant" in message and "RightLeg" in message
    assert "lowerleg.R" not in message and "forearm" not in message


def test_a_leg_that_ends_nowhere_is_refused(tmp_path):
    path = write_bvh(
        tmp_path / "dance.bvh", dance(2), person=[row for row in PERSON if "foot" not in row[0] + str(row[1])]
    )
    path.write_text(re.sub(r"End Site\n\s*{\n\s*OFFSET [^\n]*", "End Site\n{\nOFFSET 0 0 0", path.read_text()))
    assert "LeftLeg" in refusal(read_bvh, path)


def test_a_zero_pose_that_is_no_standing_person_is_refused(tmp_path):
    path = write_bvh(tmp_path / "dance.bvh", dance(2))
    sat = re.sub(r"(JOINT (?:Left|Right)Leg\n\s*{\n\s*)OFFSET [^\n]*", r"\1OFFSET 0 0 0.45", path.read_text())
    path.write_text(sat)
    assert "standing person" in refusal(read_bvh, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "not at all motion", "MOTION"),
        (lambda text: text.replace("Frame Time: 0.0", "Frame Time: zero"), "Frame Time"),
        (lambda text: text.replace("Frame Time: 0.03333333", "Frame Time: 0"), "0 s"),
        (lambda text: text.replace("Frames: 6", "Frames: 7"), "truncated"),
        (lambda text: text[: len(text) - 300], "numbers are needed"),
        (lambda text: text.replace("OFFSET", "OFFSIDE", 1), "OFFSIDE"),
        (lambda text: text.replace("CHANNELS 3", "CHANNELS 4", 1), "CHANNELS"),
        (lambda text: text.replace("Zrotation", "Zrotten", 1), "zrotation"),
        (lambda text: text.replace("MOTION", "}\nMOTION"), "brace"),
        (lambda text: text.replace("}\nMOTION", "MOTION"), "brace"),
        (lambda text: text.replace("MOTION", "ROOT again\n{\n}\nMOTION"), "one ROOT"),
        (lambda text: text.replace("HIERARCHY", "HIERARCHY\nJOINT first"), "one ROOT"),
        (lambda text: re.sub(r"\d\.\d+$", "nan", text.strip()), "numbers are needed"),
        (lambda text: "MOTION\nFrames: 1\nFrame Time: 1\n", "no joint"),
    ],
)
def test_a_broken_bvh_file_is_refused_by_one_line_that_says_where(tmp_path, change, says):
    path = write_bvh(tmp_path / "dance.bvh", dance())
    path.write_text(change(path.read_text()))
    assert says in refusal(read_bvh, path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "No such file" in refusal(read_bvh, tmp_path / "absent.bvh")


def test_a_deepmimic_file_gives_turns_in_studio_axes(tmp_path):
    half = np.sqrt(0.5)
    # Its axes are x forward, y up, z right, so that a knee bends by a negative angle and an elbow by a positive one.
    frame = deepmimic_frame(place=(1.0, 0.9, 0.5), chest=[half, 0, half, 0], left_knee=-1.2, right_elbow=0.7)
    clip = read_deepmimic(write_deepmimic(tmp_path / "humanoid3d_kneel.txt", frame, frame))
    left = Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix()
    assert degrees_between(channel(clip, "root"), np.eye(3)).max() < 1e-5
    assert degrees_between(channel(clip, "spine01"), left).max() < 1e-5
    np.testing.assert_allclose(channel(clip, "lowerleg.L")[0] @ [0, 0, -1], [0, np.sin(1.2), -np.cos(1.2)], atol=1e-6)
    # The chest faces left, along x, so that the right forearm is bent to the left too.
    np.testing.assert_allclose(channel(clip, "wrist.R")[0] @ [0, 0, -1], [np.sin(0.7), 0, -np.cos(0.7)], atol=1e-6)
    np.testing.assert_allclose(clip.root[0] * 0.831416, [-0.5, -1.0, 0.9], atol=1e-6)
    np.testing.assert_allclose(clip.zero_direction[CHANNELS.index("wrist.R")], [0, 0, -1], atol=1e-12)
    assert (clip.subject, clip.split, clip.source, clip.foot_roll, len(clip)) == ("dm", "train", "deepmimic", 0.0, 2)


def test_deepmimic_frames_of_different_length_are_interpolated(tmp_path):
    ends_s = [0.0, 0.1, 0.15, 0.35]
    frames = [
        deepmimic_frame(duration, (2 * t, 0.9, 0), left_knee=-3 * t) for t, duration in zip(ends_s, [0.1, 0.05, 0.2, 0])
    ]
    clip = read_deepmimic(write_deepmimic(tmp_path / "run.json", *frames))
    times_s = np.arange(11) / 30
    np.testing.assert_allclose(-clip.root[:, 1] * 0.831416, 2 * times_s, atol=1e-6)
    angle = degrees_between(channel(clip, "lowerleg.L"), np.eye(3))
    np.testing.assert_allclose(np.radians(angle), 3 * times_s, atol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[1, 2]",
        '{"Loop": "wrap"}',
        '{"Frames": [[0.03, 1, 2]]}',
        '{"Frames": [[1, 2], [3]]}',
        '{"Frames": []}',
        json.dumps({"Frames": [deepmimic_frame(0), deepmimic_frame(0)]}),
    ],
)
def test_a_broken_deepmimic_file_is_refused(tmp_path, content):
    (tmp_path / "walk.txt").write_text(content)
    refusal(read_deepmimic, tmp_path / "walk.txt")


def test_an_acclaim_bone_turns_about_its_own_axes(tmp_path):
    asf = write_asf(tmp_path / "07.asf")
    clip = read_amc(asf, write_amc(tmp_path / "07_01.amc", lfemur=[0, 0, -30], ltibia=[90]))
    # The leg is turned out by 30 degrees with its axes; the thigh turns back by as much, about z, and is vertical; the
    # knee's axis comes along, and the shank points backward, along -z of the file.
    np.testing.assert_allclose(clip.zero_direction[CHANNELS.index("upperleg.L")], [0.5, 0, -np.sqrt(0.75)], atol=1e-6)
    thigh, shank = (channel(clip, f"{part}.L")[0] @ [0.5, 0, -np.sqrt(0.75)] for part in ("upperleg", "lowerleg"))
    np.testing.assert_allclose(thigh, [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(shank, [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(clip.root, np.tile([1, -3, 2], (2, 1)), atol=1e-6)
    assert np.degrees(clip.foot_roll) == pytest.approx(30)
    assert (clip.subject, clip.split, len(clip)) == ("07", "train", 2)


def test_radians_and_the_rate_of_an_amc_file_count(tmp_path):
    asf, amc = write_asf(tmp_path / "07.asf"), write_amc(tmp_path / "07_01.amc", ltibia=[1.5], frames=9)
    amc.write_text(amc.read_text().replace(":DEGREES", ":RADIANS"))
    recording = amc_recording(asf, amc, fps=60.0)
    knee, thigh = (recording.turns[:, recording.joints.index(name)] for name in ("ltibia", "lfemur"))
    np.testing.assert_allclose(degrees_between(thigh, knee), np.degrees(1.5), atol=1e-6)
    assert len(recording.turns) == 5


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("asf", lambda text: "nothing", "bones"),
        ("asf", lambda text: text.replace("length 0.5", "length long", 1), "numbers are needed"),
        ("asf", lambda text: text.replace("name lfemur", "name"), "name"),
        ("asf", lambda text: text.replace("    root lhip", ""), "hang"),
        ("asf", lambda text: text.replace("dof rx ry rz", "dof rx ry rw", 1), "degrees of freedom"),
        ("asf", lambda text: text.replace("0 XYZ", "0 XYW", 1), "XYZ"),
        ("amc", lambda text: "nothing here", "'nothing'"),
        ("amc", lambda text: "", "AMC"),
        ("amc", lambda text: text.replace("ltibia 0.0", "ltibia 0.0 0.0", 1), "numbers are needed"),
        ("amc", lambda text: text.replace("ltibia", "rtail", 1), "rtail"),
        ("amc", lambda text: text[: text.rindex("lradius")], "lradius"),
    ],
)
def test_a_broken_acclaim_file_is_refused_by_one_line_that_says_where(tmp_path, file, change, says):
    paths = {"asf": write_asf(tmp_path / "07.asf"), "amc": write_amc(tmp_path / "07_01.amc")}
    paths[file].write_text(change(paths[file].read_text()))
    message = refusal(read_amc, paths["asf"], paths["amc"])
    assert says in message and paths[file].name in message


def test_a_folder_gives_its_clips_and_the_log_says_what_was_skipped_and_why(tmp_path, caplog):
    (tmp_path / "cmu").mkdir()
    write_bvh(tmp_path / "anna_01.bvh", dance())
    write_deepmimic(tmp_path / "walk.txt", deepmimic_frame(), deepmimic_frame())
    (tmp_path / "README.txt").write_text("These are mine.")
    (tmp_path / "broken.bvh").write_text("HIERARCHY")
    (tmp_path / "picture.png").write_bytes(b"")
    write_amc(tmp_path / "alone.amc")
    for subject in ("0", "07", "071"):
        write_asf(tmp_path / "cmu" / f"{subject}.asf")
    (tmp_path / "cmu" / "0.asf").write_text("broken")
    write_amc(tmp_path / "cmu" / "07_01.amc")
    with caplog.at_level(logging.INFO):
        clips = read_motion_folder(tmp_path)
    found = [(clip.name, clip.source, clip.subject) for clip in clips]
    assert found == [("anna_01", "bvh", "anna"), ("07_01", "amc", "07"), ("walk", "deepmimic", "dm")]
    skipped = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert all("\n" not in line for line in skipped)
    for name, why in (("README.txt", "DeepMimic"), ("broken.bvh", "MOTION"), ("alone.amc", "alone.asf")):
        assert sum(name in line and why in line for line in skipped) == 1
    assert len(skipped) == 3


def test_a_folder_without_motion_is_refused(tmp_path):
    assert "no such folder" in refusal(read_motion_folder, tmp_path / "absent")
    (tmp_path / "clips").mkdir()
    assert "no motion" in refusal(read_motion_folder, tmp_path / "clips")


def test_the_split_of_a_subject_never_changes():
    table = {"train": "01 03 06 07 09 10 13 gs_pirouette dm", "val": "02 gs_charleston"}
    table["test"] = "05 08 11 12 14 gs_zombie gs_lambada gs_backflip"
    for split, subjects in table.items():
        assert {split_of(subject) for subject in subjects.split()} == {split}
    others = {"anna": "train", "35": "train", "frida": "val", "15": "val", "20": "test"}
    assert {subject: split_of(subject) for subject in others} == others


def test_four_fifths_of_other_subjects_train_and_a_tenth_each_is_held_out():
    splits = [split_of(f"subject {i}") for i in range(2000)]
    shares = [splits.count(split) / len(splits) for split in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.03)


def test_a_file_s_subject_is_its_name_less_the_number_of_the_take():
    names = {"02_01": "02", "cmu_13_40": "13", "gs_charleston2": "gs_charleston", "anna-walks 3": "anna-walks"}
    names |= {"anna (2)": "anna", "127_03": "127", "17": "17", "walk": "walk"}
    assert {name: subject_of(name) for name in names} == names


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder of the CMU database's files as they were published."""
    folder = tmp_path_factory.mktemp("raw")
    for path in [*(AMC / "raw").iterdir(), *(BVH / "raw_bvh").iterdir()]:
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        (folder / path.name.removesuffix(".xz")).write_bytes(content)
    return folder


@RECORDED
def test_joints_of_an_acclaim_file_lie_within_a_millimetre_of_the_reference(raw):
    recording = amc_recording(raw / "02.asf", raw / "02_01.amc", fps=30.0)  # as if, so that every frame is read
    unit_m = 0.0254 / 0.45
    with np.load(AMC / "fk_reference_02_01.npz") as reference:
        names, xyz_m = [str(name) for name in reference["joint_names"]], reference["xyz_m"]
    assert len(recording.places) == len(xyz_m)
    for name, expected_m in zip(names, np.moveaxis(xyz_m, 1, 0)):
        # The reference has the ends of bones, which is where those that hang on them begin.
        joint = recording.joints.index(name)
        end = joint if name == "root" else recording.children(joint)[0]
        assert np.linalg.norm(recording.places[:, end] * unit_m - expected_m, axis=-1).max() < 1e-3


@BUNDLED
@pytest.mark.parametrize("name", ["02_01", "02_03", "03_01", "09_01"])
def test_a_published_file_gives_the_clip_of_the_bundle(raw, name):
    is_bvh = name == "09_01"
    clip = read_bvh(raw / f"{name}.bvh") if is_bvh else read_amc(raw / f"{name[:2]}.asf", raw / f"{name}.amc")
    with np.load(BUNDLE / "motion.npz") as bundle:
        index = [str(each) for each in bundle["clip_names"]].index(f"cmu_{name}")
        rows = slice(bundle["clip_start"][index], bundle["clip_start"][index] + bundle["clip_frames"][index])
        turns, root = from_quaternions(bundle["quaternions"][rows] / 32767.0), bundle["root"][rows]
        skeleton, floor = bundle["clip_skeleton"][index], bundle["clip_floor"][index]
        directions, roll = bundle["skeleton_zero_dir"][skeleton], bundle["skeleton_foot_roll"][skeleton]
    assert len(clip) == len(turns)
    assert degrees_between(from_quaternions(clip.turns), turns).max() < 0.05  # 16 bits are that coarse
    np.testing.assert_allclose(clip.zero_direction, directions, atol=1e-5)
    assert clip.foot_roll == pytest.approx(roll, abs=1e-5)
    # The bundle's root is the source's own, at a fixed place in the pelvis; floors differ by as much, and a little.
    apart = np.einsum("tji,tj->ti", channel(clip, "root"), root - clip.root)
    assert apart.std(axis=0).max() < 1e-5 and np.abs(apart.mean(axis=0)).max() < 0.13
    assert clip.floor == pytest.approx(floor - np.median((root - clip.root)[:, 2]), abs=0.04)


@RECORDED
def test_two_files_of_one_recording_show_the_same_person(raw):
    """The BVH of a walk was made of its AMC by other hands: as long, and limbs in the world within some degrees."""
    amc, bvh = read_amc(raw / "02.asf", raw / "02_01.amc"), read_bvh(raw / "02_01.bvh")
    assert (amc.subject, amc.split, len(amc)) == (bvh.subject, bvh.split, len(bvh))
    for limb in ("upperarm.L", "upperarm.R", "upperleg.L", "lowerleg.R"):
        row = CHANNELS.index(limb)
        # The first frames of the BVH are still on their way from the rest pose.
        one, other = (channel(clip, limb)[1:] @ clip.zero_direction[row] for clip in (amc, bvh))
        assert np.degrees(np.arccos((one * other).sum(-1))).max() < 15

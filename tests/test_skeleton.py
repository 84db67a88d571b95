"""Skeletons: the built-in trees, a user's own, mistakes in one line, and joints mapped by name."""

import numpy as np
import pytest
import yaml

from harvest.errors import UserError
from harvest.skeleton import BUILT_IN, Limb, Skeleton, joint_sources, load_skeleton, mirror_name

MPII16 = (
    "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax "
    "upper_neck head_top r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist"
)
ARM = {
    "name": "arm",
    "joints": ["wrist", "shoulder", "elbow"],
    "limbs": [["wrist", "elbow", 0.146], ["elbow", "shoulder", 0.166, 0.01]],
}


def in_file(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_skeleton_is_one_tree(name):
    skeleton = load_skeleton(name)
    assert skeleton.name == name and sorted(skeleton.order) == list(range(len(skeleton.joints)))
    assert (skeleton.parents == -1).sum() == 1 and skeleton.parents[skeleton.order[0]] == -1
    for place, joint in enumerate(skeleton.order[1:], start=1):
        assert skeleton.parents[joint] in skeleton.order[:place]
        limb = skeleton.limb_of(joint)
        assert (limb.child, limb.parent) == (skeleton.joints[joint], skeleton.joints[skeleton.parents[joint]])
        assert skeleton.shares[joint] == limb.share_of_height and 0 < limb.share_of_height < 0.4
        assert 0 <= limb.slack < limb.share_of_height
    assert np.isnan(skeleton.shares).sum() == 1


def test_mpii_has_the_order_that_its_data_and_networks_have():
    assert load_skeleton("mpii16").joints == tuple(MPII16.split())


@pytest.mark.parametrize(
    ("name", "joints"),
    [("mpii16", 16), ("harvest21", 21), ("blazepose", 19), ("coco17", 17), ("h36m17", 17)]
    + [("body25", 25), ("halpe26", 26), ("cmu19", 19)],
)
def test_a_skeleton_has_as_many_joints_as_its_name_says(name, joints):
    assert len(load_skeleton(name).joints) == joints


@pytest.mark.parametrize("name", BUILT_IN)
def test_left_and_right_are_mirror_images(name):
    skeleton = load_skeleton(name)
    mirror = skeleton.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    for joint, other in enumerate(mirror):
        sided = skeleton.joints[joint][:2] in ("l_", "r_")
        assert (joint != other) == sided
        assert not sided or skeleton.joints[joint][2:] == skeleton.joints[other][2:]


@pytest.mark.parametrize("name", BUILT_IN)
def test_both_sides_have_the_same_proportions(name):
    skeleton = load_skeleton(name)
    size = {frozenset((limb.child, limb.parent)): (limb.share_of_height, limb.slack) for limb in skeleton.limbs}
    mirrored = {frozenset(mirror_name(joint, skeleton.joints) for joint in ends): ends for ends in size}
    for other, ends in mirrored.items():
        assert size.get(other, size[ends]) == size[ends], sorted(ends)
    # A tree that is rooted in one hip binds the middle of the body to that side alone; arms and legs have two.
    alone = {joint for other, ends in mirrored.items() if other not in size for joint in ends}
    assert alone <= {"l_hip", "r_hip", "l_shoulder", "r_shoulder", "nose"}
    assert not alone or skeleton.joints[skeleton.order[0]] == "l_hip"


def test_a_mirrored_name_stays_where_there_is_no_other_side():
    assert mirror_name("l_knee", ("l_knee", "r_knee")) == "r_knee"
    assert mirror_name("l_knee", ("l_knee",)) == "l_knee"
    assert mirror_name("nose", ("nose", "l_eye")) == "nose"


def test_a_users_own_tree_is_read_from_yaml(tmp_path):
    skeleton = load_skeleton(in_file(tmp_path, ARM | {"latent": ["elbow"]}))
    assert skeleton.name == "arm" and skeleton.joints == ("wrist", "shoulder", "elbow")
    assert skeleton.limbs == (Limb("wrist", "elbow", 0.146), Limb("elbow", "shoulder", 0.166, 0.01))
    assert skeleton.latent == {"elbow"} and skeleton.order == (1, 2, 0)
    assert skeleton.parents.tolist() == [2, -1, 1]
    np.testing.assert_array_equal(skeleton.shares, [0.146, np.nan, 0.166])


def test_a_built_in_skeleton_written_out_and_read_back_is_the_same(tmp_path):
    mpii = load_skeleton("mpii16")
    limbs = [[limb.child, limb.parent, limb.share_of_height, limb.slack] for limb in mpii.limbs]
    assert load_skeleton(in_file(tmp_path, {"name": "mpii16", "joints": list(mpii.joints), "limbs": limbs})) == mpii


def test_a_file_without_a_name_is_called_after_itself(tmp_path):
    path = in_file(tmp_path, {key: value for key, value in ARM.items() if key != "name"})
    assert load_skeleton(path).name == str(path)


MISTAKES = {
    "a cycle": (ARM | {"limbs": [["wrist", "elbow", 0.1], ["elbow", "wrist", 0.1]]}, "must form one tree"),
    "two pieces": (ARM | {"limbs": [["wrist", "elbow", 0.1]]}, "must form one tree"),
    "two parents": (ARM | {"limbs": [["wrist", "elbow", 0.1], ["wrist", "shoulder", 0.1]]}, "must form one tree"),
    "unknown joint": (ARM | {"limbs": [["wrist", "knee", 0.1], ["elbow", "wrist", 0.1]]}, "'knee' is not among"),
    "unknown latent joint": (ARM | {"latent": ["hip"]}, "'hip' is not among its joints"),
    "a joint twice": (ARM | {"joints": ["wrist", "elbow", "wrist"]}, "joint names must be given and differ"),
    "no joints": (ARM | {"joints": [], "limbs": []}, "joint names must be given and differ"),
    "no limbs": ({"joints": ["wrist"]}, "key 'limbs' is missing"),
    "joints not given": ({"limbs": []}, "key 'joints' is missing"),
    "an empty file": ("", "key 'joints' is missing"),
    "a list": ("- wrist", "key 'joints' is missing"),
    "a limb with one end": (ARM | {"limbs": [["wrist"]]}, "cannot be read"),
    "a limb without length": (ARM | {"limbs": [["wrist", "elbow"]]}, "share_of_height"),
    "a length in words": (ARM | {"limbs": [["wrist", "elbow", "long"]]}, "cannot be read .*'long'"),
    "a length below zero": (ARM | {"limbs": [["wrist", "elbow", -0.1], ["elbow", "shoulder", 0.1]]}, "length above 0"),
    "no number": (ARM | {"limbs": [["wrist", "elbow", 0.1], ["elbow", "shoulder", 0.1, float("nan")]]}, "slack from 0"),
    "no YAML": ("joints: [\n - {", "cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_skeleton_file_is_told_in_one_line(tmp_path, mistake):
    content, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as caught:
        load_skeleton(in_file(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones_and_a_binary_file_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"no skeleton 'octopus': give one of mpii16, harvest21, blazepose.*or a YAML file"
    ):
        load_skeleton("octopus")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match=r"picture.png' is not UTF-8"):
        load_skeleton(tmp_path / "picture.png")


def test_a_skeleton_made_in_code_is_checked_as_well():
    with pytest.raises(UserError, match="'b' is not among its joints"):
        Skeleton("two", ("a",), (Limb("b", "a", 0.1),))


SIDES = ("l_hip", "r_hip", "l_shoulder", "r_shoulder")


@pytest.mark.parametrize(
    ("target", "available", "sources"),
    [
        ("l_hip", SIDES, ("l_hip",)),
        ("pelvis", ("pelvis", *SIDES), ("pelvis",)),
        ("pelvis", ("mid_hip", *SIDES), ("mid_hip",)),
        ("pelvis", ("body_center", *SIDES), ("body_center",)),
        ("pelvis", SIDES, ("l_hip", "r_hip")),
        ("mid_hip", ("pelvis",), ("pelvis",)),
        ("mid_hip", SIDES, ("l_hip", "r_hip")),
        ("body_center", SIDES, ("l_hip", "r_hip")),
        ("thorax", SIDES, ("l_shoulder", "r_shoulder")),
        ("neck", SIDES, ("l_shoulder", "r_shoulder")),
        ("pelvis", ("l_hip", "l_shoulder", "r_shoulder"), ()),
        ("thorax", ("neck", "l_shoulder"), ()),
        ("upper_neck", ("neck", "thorax", *SIDES), ()),
        ("head_top", ("nose", "l_ear", "r_ear"), ()),
        ("l_wrist", ("r_wrist",), ()),
        ("pelvis", (), ()),
    ],
)
def test_a_joint_comes_from_itself_its_synonym_or_the_two_sides_it_lies_between(target, available, sources):
    assert joint_sources(target, available) == sources


MIDDLES = {"pelvis": {"mid_hip", "body_center", "l_hip", "r_hip"}, "thorax": {"l_shoulder", "r_shoulder"}}
NOT_GIVEN = {
    "mpii16": set(),
    "harvest21": set(),
    "blazepose": {"upper_neck", "head_top"},
    "coco17": {"upper_neck", "head_top"},
    "h36m17": {"upper_neck"},
    "body25": {"upper_neck", "head_top"},
    "halpe26": {"upper_neck"},
    "cmu19": {"upper_neck", "head_top"},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_mapping_to_mpii_makes_nothing_up(name):
    available = load_skeleton(name).joints
    sources = {target: joint_sources(target, available) for target in load_skeleton("mpii16").joints}
    assert {target for target, found in sources.items() if not found} == NOT_GIVEN[name]
    for target, found in sources.items():
        assert set(found) <= set(available)
        assert found in ((), (target,)) or set(found) <= MIDDLES[target]
        assert len(found) < 2 or {joint[:2] for joint in found} == {"l_", "r_"}

"""Bodies, light, motion and people of the studio's bundle, as they are made from small inputs."""

import gzip
import io
import zipfile

import numpy as np
import pytest

from harvest.errors import UserError
from harvest.studio.bundle import base_mesh, bodies, characters, envmaps, motions, rig, shape_space
from harvest.studio.motion import CHANNELS, MotionLibrary

# Bodies


def test_a_shape_space_gives_back_the_bodies_that_it_was_fitted_to():
    rng = np.random.default_rng(0)
    template, offsets = rng.normal(size=(60, 3)), rng.normal(0, 0.1, (7, 60, 3))
    offsets[0] *= 10  # one large direction, as stature is
    weights = rng.random((200, 7))
    space = shape_space.fit_shape_space(template, offsets, weights, size=9)
    truth = template + np.einsum("mp,pnc->mnc", weights, offsets)
    errors = np.linalg.norm(space.bodies(weights) - truth, axis=-1)
    assert errors.max() < 5e-4  # of float16, on offsets up to a metre
    z = weights @ space.from_products - space.z0
    assert np.allclose(space.mean + np.einsum("mk,knc->mnc", z, space.basis), truth, atol=1e-9)


def test_what_rounding_takes_from_the_largest_direction_is_given_back():
    rng = np.random.default_rng(1)
    template, offsets = np.zeros((300, 3)), rng.normal(size=(3, 300, 3)) * [[[1.0]], [[1e-3]], [[1e-3]]]
    weights = rng.random((100, 3))
    truth = np.einsum("mp,pnc->mnc", weights, offsets)
    errors = [
        np.abs(shape_space.fit_shape_space(template, offsets, weights, 4, repaired).bodies(weights) - truth).max()
        for repaired in (0, 1)
    ]
    assert errors[1] < errors[0] / 20


def test_offsets_are_336_and_each_is_a_product_of_extremes_of_different_traits():
    terms = list(shape_space.terms())
    assert len(terms) == len({file for file, _ in terms}) == 336
    assert {tuple(row.nonzero()[0]) for row in shape_space.product_mask()} == {
        tuple(sorted(shape_space.EXTREMES.index(name) for name in names)) for _, names in terms
    }


def test_mixing_weights_of_each_trait_sum_to_one():
    traits = shape_space.random_traits(50, seed=3)
    weights = shape_space.mixing_weights(traits)
    assert weights.shape == (50, 23) and weights.min() >= 0
    assert np.allclose(weights.sum(axis=1), 9)  # eight traits and the ancestries
    assert traits["age"].min() >= 2 / 3  # adults alone


def test_a_quad_is_cut_along_its_shorter_diagonal():
    corners = np.array([[0, 0, 0], [2, 0, 0], [2.1, 1, 0], [0.9, 1, 0.0]])
    quads = np.array([[[0, 4], [1, 5], [2, 6], [3, 7]]])
    faces, uv = base_mesh.split_quads(corners, quads)
    assert faces.tolist() == [[0, 1, 3], [3, 1, 2]]
    assert (uv == faces + 4).all()


def test_a_mesh_is_read_in_metres_with_z_up():
    text = "# a comment\nv 1 2 3\nv 0 0 0\nv 0 1 0\nv 1 1 0\nvt 0.5 0.25\ng body\nf 1/1 2/1 3/1 4/1\n"
    mesh = base_mesh.read_base_mesh(text)
    assert np.allclose(mesh.vertices[0], [0.1, -0.3, 0.2])
    assert mesh.groups["body"].tolist() == [[[0, 0], [1, 0], [2, 0], [3, 0]]]


def test_vertices_of_bones_that_are_left_out_follow_the_next_bone_up():
    mesh = base_mesh.BaseMesh(np.arange(9.0).reshape(3, 3), np.zeros((1, 2)), {})
    ends = {"head": {"strategy": "VERTEX", "vertex_index": 0}, "tail": {"strategy": "MEAN", "vertex_indices": [1, 2]}}
    bones = {"jaw": ends | {"parent": "head"}, "root": ends | {"parent": ""}, "head": ends | {"parent": "root"}}
    found = rig.read_rig(bones, {"root": [[0, 1.0]], "head": [[1, 1.0]], "jaw": [[1, 1.0], [2, 0.5]]}, mesh)
    assert found.names == ("root", "head") and found.parents.tolist() == [-1, 0]
    assert found.weights.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert found.heads(mesh.vertices)[0].tolist() == mesh.vertices[1:].mean(axis=0).tolist()  # the root's end


def test_packed_weights_are_the_largest_and_sum_to_one():
    weights = np.random.default_rng(2).dirichlet(np.full(12, 0.3), 40)
    packed, bones = rig.packed_weights(weights)
    assert packed.shape == bones.shape == (40, 8)
    assert (np.diff(packed.astype(float), axis=1) <= 0).all()
    assert np.allclose(packed.astype(float).sum(axis=1), 1, atol=2e-3)
    assert (bones[:, 0] == weights.argmax(axis=1)).all()


def test_bones_know_their_part_and_their_partner():
    said = {name: rig.part_of(name) for name in ("root", "head", "upperarm02.L", "finger3-1.R", "toe2-1.L", "neck02")}
    assert list(said.values()) == ["torso", "head", "upperarm_l", "hand_r", "foot_l", "head"]
    assert [rig.mirrored(name) for name in ("foot.L", "wrist.R", "spine01")] == ["foot.R", "wrist.L", "spine01"]


def test_targets_and_joints_are_read_without_unpickling():
    offsets = bodies.read_target(gzip.compress(b"1 1.0 2.0 3.0\n"), vertices=2)
    assert np.allclose(offsets, [[0, 0, 0], [0.1, -0.3, 0.2]])

    def stored(weights: np.ndarray) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("file/data.pkl", b"never read")
            for index in range(len(bodies.COCO)):
                archive.writestr(f"file/data/{index}", weights[index].astype("<f4").tobytes())
        return stream.getvalue()

    joints = bodies.read_keypoints(stored(np.eye(30)), vertices=30)
    assert joints["left_wrist"].argmax() == bodies.COCO.index("left_wrist")
    for weights, vertices in ((np.eye(30), 31), (2 * np.eye(30), 30)):
        with pytest.raises(ValueError, match="sum to one"):
            bodies.read_keypoints(stored(weights), vertices)


def test_joints_without_the_packages_weights_are_bones_and_vertices():
    vertices = 14000
    names = tuple(f"{bone}.{side}" for bone in bodies.COCO_BONES.values() for side in "LR")
    heads = tuple(np.array([2 * index, 2 * index + 1]) for index in range(len(names)))
    skeleton = rig.Rig(names, np.zeros(len(names)), np.zeros((vertices, len(names))), heads)
    mirror = ((np.arange(vertices) + vertices // 2) % vertices).astype(np.uint16)
    joints = bodies.own_keypoints(skeleton, mirror)
    assert tuple(joints) == bodies.COCO
    assert all(weights.sum() == pytest.approx(1) for weights in joints.values())
    assert joints["right_elbow"].nonzero()[0].tolist() == heads[names.index("lowerarm01.R")].tolist()
    assert joints["left_ear"].argmax() == mirror[joints["right_ear"].argmax()] == bodies.COCO_VERTICES["ear"]


# Light


def test_harmonics_of_a_sky_of_known_light_are_exact():
    vectors, solid_angle = envmaps.directions(128, 256)
    assert solid_angle.sum() == pytest.approx(4 * np.pi, rel=1e-3)
    sky = (1 + 0.5 * vectors[..., 2] + 0.25 * vectors[..., 0])[..., None] * [1.0, 2.0, 3.0]
    found = envmaps.harmonics(sky)
    # A matt surface keeps two thirds of what varies with direction. Source: Ramamoorthi and Hanrahan 2001, equation 8.
    expected = np.zeros(9)
    expected[[0, 2, 3]] = 1, 0.5 * 2 / 3, 0.25 * 2 / 3
    assert np.allclose(found / [1.0, 2.0, 3.0], expected[:, None], atol=1e-3)


def test_the_sun_is_the_brightest_spot_of_the_upper_half():
    sky = np.full((128, 256, 3), 0.1)
    sky[40, 100] = 500
    sky[100, 30] = 5000  # a reflection on the ground is no sun
    direction, ratio = envmaps.sun(sky)
    assert np.allclose(direction, envmaps.directions(128, 256)[0][40, 100], atol=0.02)
    assert ratio > 5


def test_a_sun_on_the_seam_of_a_panorama_counts_whole():
    sky = np.full((128, 256, 3), 0.1)
    sky[40, [0, 255]] = 300
    sky[40, 100] = 400
    assert np.allclose(envmaps.sun(sky)[0], envmaps.directions(128, 256)[0][40, 0], atol=0.05)


def test_glare_does_not_count_as_skylight():
    sky = np.ones((64, 128, 3))
    sky[10, 10] = 1e6
    assert np.allclose(envmaps.harmonics(sky)[0], 1, atol=1e-2)


def test_a_missing_decoder_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(UserError, match="pip install OpenEXR"):
        envmaps.check_decoder()


# Motion


def deepmimic(frames: int, **columns) -> dict:
    rows = np.zeros((frames, motions.COLUMNS))
    rows[:, 0] = 1 / 15
    for first in (4, 8, 12, 16, 21, 25, 30, 35, 39):
        rows[:, first] = 1
    for name, values in columns.items():
        rows[:, int(name[1:])] = values
    return {"Frames": rows.tolist()}


def test_a_bent_knee_brings_the_foot_back_and_a_bent_elbow_the_hand_forward():
    clip = motions.read_deepmimic("humanoid3d_bend.txt", deepmimic(3, c34=-1.0, c29=1.0, c2=0.9, c1=[0, 1, 2]))
    assert clip.name == "dm_bend"
    turns = motions.Rotation.from_quat(clip.turns[0][:, [1, 2, 3, 0]]).as_matrix()
    shank = turns[CHANNELS.index("lowerleg.L")] @ motions.DOWN
    forearm = turns[CHANNELS.index("lowerarm.R")] @ motions.DOWN
    assert shank[1] > 0.8 and forearm[1] < -0.8  # people face -y
    assert np.allclose(turns[CHANNELS.index("lowerleg.R")], np.eye(3))
    assert clip.root[-1, 1] < clip.root[0, 1] and np.allclose(clip.root[:, 2], 0.9 / motions.LEG_M)


def test_motion_is_interpolated_to_thirty_frames_a_second_without_jumps_of_sign():
    turn = np.linspace(0, 7, 11)  # more than once about the upright axis, y in the source
    sign = (-1) ** np.arange(11)  # both quaternions of a rotation occur in files
    clip = motions.read_deepmimic("spin.txt", deepmimic(11, c4=sign * np.cos(turn / 2), c6=sign * np.sin(turn / 2)))
    assert len(clip.root) == 21
    root = clip.turns[:, CHANNELS.index("root")]
    assert ((root[1:] * root[:-1]).sum(axis=1) > 0.98).all()
    assert np.allclose(np.linalg.norm(root, axis=1), 1)
    assert np.allclose(motions.Rotation.from_quat(root[1][[1, 2, 3, 0]]).as_rotvec(), [0, 0, 0.35], atol=1e-6)


def test_frames_of_another_layout_are_refused():
    with pytest.raises(ValueError, match="needed"):
        motions.read_deepmimic("dog.txt", {"Frames": [[0.1] * 20] * 3})


def test_a_library_without_clips_can_be_read():
    tables = motions.clip_tables([])
    none = {f"bone_{name}": np.zeros(0, int) for name in ("channel", "blend_channel", "limb_from", "limb_to")}
    library = MotionLibrary(tables | none | {"bone_foot_sign": np.zeros(0, int), "fps": np.array(30.0)})
    assert library.clips == []


# People


def test_drawn_traits_are_those_of_adults():
    rng = np.random.default_rng(0)
    drawn = [characters.random_traits(index % 2 == 0, rng) for index in range(200)]
    for traits in drawn:
        assert all(0 <= value <= 1 for value in traits.values())
        assert traits["age"] >= 0.6667
    assert min(traits["gender"] for traits in drawn[::2]) >= 0.75
    assert max(traits["gender"] for traits in drawn[1::2]) <= 0.25

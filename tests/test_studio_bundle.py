"""How the studio's bundle is built from packages, and a built one, where there is one, against the shared one."""

import hashlib
import io
import json
import lzma
import os
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SHARED

from harvest.errors import UserError
from harvest.studio.body import BodyModel
from harvest.studio.bundle import (
    backgrounds,
    build,
    envmaps,
    garments,
    licences,
    packages,
    textures,
)

REFERENCE = SHARED / "studio_assets"
BUILT = os.environ.get("HARVEST_STUDIO_BUILT")


@pytest.fixture
def no_client(monkeypatch):
    """Makes every attempt to start a program fail the test."""

    def refuse(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "run", refuse)


# Packages


@pytest.mark.parametrize("only_cc0", [False, True])
def test_every_licence_can_be_read_before_anything_is_downloaded(no_client, only_cc0):
    listed = build.sources(only_cc0)
    assert listed
    for source in listed:
        assert source.licence and source.licence in str(source) and source.requirement in str(source)
        assert "\n" not in str(source)
        assert len(source.sha256) == 64


def test_only_cc0_asks_for_nothing_that_carries_another_label():
    asked = {source.requirement for source in build.sources(True)}
    assert all(source.cc0 for source in build.sources(True))
    assert asked < {source.requirement for source in build.sources(False)}
    assert "pybullet==3.2.7" not in asked


def test_the_label_on_textures_is_said_with_their_release():
    said = str(packages.MAKEHUMAN)
    assert "AGPL-3" in said and "CC0" in said and "September 2020" in said


def a_source(content: bytes, **changed) -> packages.Source:
    sha256 = hashlib.sha256(content).hexdigest()
    return packages.Source("pip", "thing==1", sha256, "CC0-1.0", "things", 1, **changed)


def test_another_file_than_the_one_that_was_checked_is_refused_and_removed(tmp_path):
    path = tmp_path / "thing.whl"
    path.write_bytes(b"other")
    with pytest.raises(UserError, match="expected"):
        packages.check(path, a_source(b"right"))
    assert not path.exists()


def test_a_package_is_downloaded_once_and_only_if_it_is_the_right_one(tmp_path, monkeypatch):
    calls, lines = [], []

    def client(command, **_):
        calls.append(command)
        Path(command[command.index("--dest") + 1], "thing.whl").write_bytes(b"right")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", client)
    for _ in range(2):
        assert packages.fetch(a_source(b"right"), tmp_path, lines.append).read_bytes() == b"right"
    assert len(calls) == len(lines) == 1
    assert "--no-deps" in calls[0]
    with pytest.raises(UserError, match="do not use this registry"):
        packages.fetch(a_source(b"wrong"), tmp_path / "elsewhere", lines.append)


def test_a_download_that_fails_says_what_the_client_said(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "note\nERROR: no route to the index\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"thing==1 \(ERROR: no route to the index\)"):
        packages.fetch(a_source(b""), tmp_path, print)


def test_a_missing_client_is_named_before_it_is_called(tmp_path, monkeypatch, no_client):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="npm"):
        packages.fetch(packages.PMNDRS, tmp_path, print)
    assert packages.missing_tools(build.sources(True)) == ["npm"]


def a_tar(members: dict[str, bytes], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def test_members_of_wheels_npm_and_debian_packages_are_read_alike(tmp_path):
    members = {"a/wanted.txt": b"yes", "a/other.txt": b"no"}
    with zipfile.ZipFile(tmp_path / "wheel", "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
    (tmp_path / "npm").write_bytes(a_tar(members, "w:gz"))
    data = lzma.compress(a_tar({f"./{name}": content for name, content in members.items()}, "w"))
    ar = packages.AR_MAGIC
    for name, content in (("debian-binary", b"2.0"), ("data.tar.xz", data)):
        ar += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        ar += b"\n" * (len(content) % 2)
    (tmp_path / "deb").write_bytes(ar)
    for name in ("wheel", "npm", "deb"):
        found = packages.read_members(tmp_path / name, lambda path: path.endswith("wanted.txt"))
        assert found == {"a/wanted.txt": b"yes"}, name


# Clothes


def test_faces_of_a_model_are_read_whatever_else_stands_between():
    quad = [1 | 2 | 8, 0, 1, 2, 3, 9, 10, 11, 12, 13]
    triangle = [8 | 16 | 32, 4, 5, 6, 14, 15, 16, 99, 99, 99, 99]
    by_vertex, by_uv = garments.read_triangles(quad + triangle)
    assert by_vertex.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
    assert by_uv.tolist() == [[10, 11, 12], [10, 12, 13], [14, 15, 16]]
    with pytest.raises(ValueError, match="no uv"):
        garments.read_triangles([0, 1, 2, 3])


def test_a_suit_is_parted_by_what_its_pieces_lie_on():
    faces = np.array([[0, 1, 2], [1, 2, 3], [4, 5, 6]])
    lower = np.array([0.9, 0.9, 0.9, 0.0, 0.1, 0.1, 0.6])
    assert garments.halves(faces, lower).tolist() == [garments.BOTTOM, garments.BOTTOM, garments.TOP]


def a_model() -> dict:
    return {
        "faces": [8, 0, 1, 2, 0, 1, 2],
        "ref_vIdxs": [[0, 1, 2]] * 3,
        "weights": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.7, -0.2]],
        "offsets": [[0.0, 0.0, 0.0]] * 3,
        "uvs": [[0.0, 0.0, 1.0, 0.0, 1.0, 1.0]],
        "metadata": {"deleteVerts": [0, 1, 1]},
        "materials": [{"mapDiffuse": "textures/a.png"}],
    }


def test_without_textures_garments_are_plain_and_say_so(tmp_path):
    item = next(item for item in garments.ITEMS if item.kind == "suit" and item.splittable)
    arrays = garments.build_garment(item, a_model(), np.array([True, True, False]))
    entry = garments.record(item, arrays, textures.plain_textures(item, tmp_path))
    assert entry["procedural"] is True and entry["normal"] is None
    assert cv2.imread(str(tmp_path / entry["diffuse"])).shape == (8, 8, 3)
    assert arrays["delete_body_vertices"].tolist() == [1, 2]
    assert set(arrays["face_component"]) == {garments.BOTTOM}
    brow = next(item for item in garments.ITEMS if item.kind == "eyebrow")
    said = textures.plain_textures(brow, tmp_path)
    picture = cv2.imread(str(tmp_path / said["diffuse"]), cv2.IMREAD_UNCHANGED)
    assert said["alpha_test"] and picture[..., 3].max() == 0  # a patch of one colour over the eyes is no brow
    assert all(skin["procedural"] and (tmp_path / skin["file"]).is_file() for skin in textures.plain_skins(tmp_path))


def test_only_cc0_leaves_out_what_was_not_released():
    left_out = {item.key for item in garments.items(False)} - {item.key for item in garments.items(True)}
    assert left_out == {"clothes/male_worksuit01"}


def test_textures_keep_their_opacity_only_where_it_shows(tmp_path):
    item = next(item for item in garments.ITEMS if item.kind == "shoes")
    inside = item.path.rpartition("/")[0] + "/textures/a.png"
    for alpha, channels in ((255, 3), (100, 4)):
        picture = np.full((512, 512, 4), alpha, np.uint8)
        files = {inside: cv2.imencode(".png", picture)[1].tobytes()}
        said = textures.garment_textures(item, a_model(), files, tmp_path)
        assert said["normal"] is None
        found = cv2.imread(str(tmp_path / said["diffuse"]), cv2.IMREAD_UNCHANGED)
        assert found.shape == (512, 512, channels)


def test_skin_shows_no_mark_where_it_is_blurred_and_all_marks_elsewhere():
    size = textures.SIZE_PX
    picture = np.full((size, size, 3), 150, np.uint8)
    for row in (100, 400):
        cv2.circle(picture, (256, row), 4, (40, 40, 90), -1)
    picture[:, :60] = 0  # what the mesh does not show
    seen = np.zeros((size, size), np.float32)
    seen[:, 60:] = 1
    blurred = np.zeros((size, size), np.float32)
    blurred[50:250, 60:] = 1
    found = textures.blur_skin(picture, seen, blurred).astype(int)
    assert np.abs(found[80:120, 200:300] - 150).max() < 6
    assert (found[400, 256] == [40, 40, 90]).all()
    assert np.abs(found[:, :60] - 150).max() < 6


# Photographs and the whole


def a_resource_file(name: str, content: bytes) -> bytes:
    """A Qt resource file, version 1, with one folder that holds one file."""
    names, places = b"", []
    for word in ("folder", name):
        places.append(len(names))
        names += struct.pack(">HI", len(word), 0) + word.encode("utf-16-be")
    tree = struct.pack(">IHII", 0, backgrounds.FOLDER, 1, 1)
    tree += struct.pack(">IHII", places[0], backgrounds.FOLDER, 1, 2)
    tree += struct.pack(">IHHHI", places[1], 0, 0, 0, 0)
    data = struct.pack(">I", len(content)) + content
    at = 20
    header = struct.pack(">4sIIII", b"qres", 1, at, at + len(tree), at + len(tree) + len(data))
    return header + tree + data + names


def test_photographs_are_read_out_of_resource_files_and_name_their_authors(tmp_path):
    picture = cv2.imencode(".png", np.full((1000, 1600, 3), 90, np.uint8))[1].tobytes()
    backgrounds.write_photographs({backgrounds.ANIMALS: a_resource_file("koala.webp", picture)}, tmp_path)
    assert backgrounds.write_attribution(tmp_path) == 1
    assert cv2.imread(str(tmp_path / "animal_koala.jpg")).shape == (500, 800, 3)
    lines = (tmp_path / "attribution.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("file,author,licence") and lines[1].startswith("animal_koala.jpg,David Iliff,CC-BY-SA")


@pytest.fixture
def small_steps(monkeypatch):
    """Replaces the steps of a build by two small ones, and says which were taken."""
    taken = []

    def step(name):
        def run(work):
            taken.append(name)
            work.write_json(name, {"only_cc0": work.only_cc0})

        return run

    monkeypatch.setattr(build, "STEPS", {name: step(name) for name in ("a.json", "b.json")})
    monkeypatch.setattr(build, "missing_tools", lambda _: [])
    monkeypatch.setattr(envmaps, "check_decoder", lambda: None)
    return taken


def test_a_build_that_was_stopped_goes_on_and_appears_whole(tmp_path, small_steps, monkeypatch):
    out, lines = tmp_path / "bundle", []
    whole = dict(build.STEPS)

    def stop(_):
        raise UserError("the network is gone")

    monkeypatch.setattr(build, "STEPS", whole | {"b.json": stop})
    with pytest.raises(UserError, match="network"):
        build.build(out, False, lines.append)
    assert not out.exists()
    monkeypatch.setattr(build, "STEPS", whole)
    build.build(out, False, lines.append)
    assert small_steps == ["a.json", "b.json"]
    assert any("kept" in line for line in lines)
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "b.json"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_stopped_build_under_other_licences_is_begun_anew(tmp_path, small_steps, monkeypatch):
    whole = dict(build.STEPS)
    monkeypatch.setattr(build, "STEPS", whole | {"b.json": lambda _: 1 / 0})
    with pytest.raises(ZeroDivisionError):
        build.build(tmp_path / "bundle", False, print)
    monkeypatch.setattr(build, "STEPS", whole)
    build.build(tmp_path / "bundle", True, print)
    assert json.loads((tmp_path / "bundle/a.json").read_text()) == {"only_cc0": True}


def test_a_build_overwrites_nothing(tmp_path, small_steps):
    for name in ("bundle", "other.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    for name in ("bundle", "other"):
        with pytest.raises(UserError):
            build.build(tmp_path / name, False, print)
    assert (tmp_path / "bundle/mine.txt").exists() and (tmp_path / "other.partial/mine.txt").exists()
    assert small_steps == []


def test_a_missing_client_stops_a_build_before_it_begins(tmp_path, small_steps, monkeypatch):
    monkeypatch.setattr(build, "missing_tools", lambda _: ["npm"])
    with pytest.raises(UserError, match="npm"):
        build.build(tmp_path / "bundle", False, print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("only_cc0", [False, True])
def test_every_part_of_a_bundle_has_its_licence(tmp_path, only_cc0):
    entries = licences.of_bundle(tmp_path, only_cc0)
    named = [file for entry in entries for file in entry["files"]]
    for needed in ("bodies.npz", "garments.npz", "envmaps.npz", "characters.json", "motion.npz", "textures/*"):
        assert named.count(needed) == 1
    assert all(entry["origin"] and entry["licence"] and entry["credit"] for entry in entries)
    assert not any("http" in str(entry["credit"]) for entry in entries)


# A built bundle against the shared one


@pytest.fixture(scope="module")
def built():
    if not BUILT:
        pytest.skip("HARVEST_STUDIO_BUILT names no bundle; build one to compare it")
    if not REFERENCE.is_dir():
        pytest.skip("there is no shared bundle beside this checkout to compare with")
    return Path(BUILT)


def arrays_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / name, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def test_a_built_bundle_has_the_shared_ones_topology_and_bodies(built):
    ours, theirs = arrays_of(built, "bodies.npz"), arrays_of(REFERENCE, "bodies.npz")
    assert set(ours) == set(theirs)
    space = {"shape_mean_vertices", "shape_mean_heads", "shape_basis_vertices", "shape_basis_heads"}
    space |= {"shape_product_to_z", "shape_z0", "vertex_side"}  # sides: a dozen helpers near the middle
    for name in set(ours) - space:
        assert ours[name].dtype == theirs[name].dtype and np.array_equal(ours[name], theirs[name]), name
    people = json.loads((REFERENCE / "characters.json").read_text())["characters"][::15]
    ours_model, theirs_model = BodyModel(ours), BodyModel(theirs)
    pairs = [(ours_model.shape(one["phenotype"]), theirs_model.shape(one["phenotype"])) for one in people]
    skin = np.array([np.linalg.norm(a.vertices - b.vertices, axis=1)[:13380] for a, b in pairs]) * 1e3
    heads = np.array([np.linalg.norm(a.heads - b.heads, axis=1) for a, b in pairs]) * 1e3
    assert skin.mean() < 0.05 and np.percentile(skin, 99) < 0.2 and heads.max() < 0.2


def test_a_built_bundle_has_the_shared_ones_clothes_and_light(built):
    ours, theirs = arrays_of(built, "garments.npz"), arrays_of(REFERENCE, "garments.npz")
    assert set(ours) <= set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = arrays_of(built, "envmaps.npz"), arrays_of(REFERENCE, "envmaps.npz")
    for name in theirs:
        if theirs[name].dtype.kind == "f":
            assert np.allclose(ours[name].astype(float), theirs[name].astype(float), rtol=1e-4, atol=1e-5), name
        else:
            assert np.array_equal(ours[name], theirs[name]), name


def test_a_built_bundle_is_what_its_checksums_say(built):
    said = json.loads((built / "checksums.json").read_text())
    found = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert set(said) == found - {"checksums.json"}
    assert all(packages.sha256_of(built / name) == value for name, value in said.items())

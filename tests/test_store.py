"""What is written is read back the same, and a half-written file is never taken for a whole one."""

import numpy as np
import pytest

from harvest.errors import UserError
from harvest.store.atomic import write_atomically
from harvest.store.fingerprint import file_fingerprint, fingerprint
from harvest.store.heatmaps import HeatmapStore, HeatmapWriter, dequantise, quantise
from harvest.store.tables import (
    read_boxes,
    read_poses,
    read_selection,
    table_fingerprint,
    write_boxes,
    write_poses,
    write_selection,
)
from harvest.types import PersonBoxes, Poses3D, Selection

RNG = np.random.default_rng(0)


def some_poses():
    xyz = RNG.normal(size=(4, 3, 3))
    xyz[1, 2] = np.nan
    cov = RNG.normal(size=(4, 3, 3, 3))
    return Poses3D(
        frames=np.array([3, 5, 7, 9]),
        time_s=np.array([0.1, 0.2, 0.3, 0.4]),
        views=("a", "b"),
        joints=("x", "y", "z"),
        xyz_m=xyz,
        cov_m2=cov + cov.swapaxes(2, 3),
        confidence=RNG.random((4, 3)),
        n_views=RNG.integers(0, 3, (4, 3)),
        flip=np.array([[0, np.nan], [0.5, 1], [0, 0], [1, 0]]),
    )


def test_poses_come_back_bit_for_bit(tmp_path):
    poses = some_poses()
    write_poses(tmp_path / "p.parquet", poses, "abc")
    back = read_poses(tmp_path / "p.parquet")
    for name in ("frames", "time_s", "xyz_m", "cov_m2", "confidence", "n_views", "flip"):
        np.testing.assert_array_equal(getattr(back, name), getattr(poses, name))
    assert back.joints == poses.joints and back.views == poses.views
    assert table_fingerprint(tmp_path / "p.parquet") == "abc"


def test_boxes_and_selections_come_back(tmp_path):
    boxes = PersonBoxes(
        np.array([0, 4]), ("a", "b"), RNG.normal(size=(2, 3)), RNG.random(2), RNG.normal(size=(2, 2, 2, 3))
    )
    write_boxes(tmp_path / "b.parquet", boxes, "f")
    back = read_boxes(tmp_path / "b.parquet")
    np.testing.assert_array_equal(back.image_from_crop, boxes.image_from_crop)
    np.testing.assert_array_equal(back.centre_m, boxes.centre_m)
    poses = some_poses()
    keep = RNG.random((4, 3)) > 0.5
    selection = Selection(keep, np.where(keep, "", "too vague").astype(object))
    write_selection(tmp_path / "s.parquet", poses, selection, "f")
    assert (read_selection(tmp_path / "s.parquet").keep == keep).all()
    assert (read_selection(tmp_path / "s.parquet").reason == selection.reason).all()
    assert np.isnan(read_selection(tmp_path / "s.parquet").probability).all()
    likely = Selection(keep, selection.reason, np.where(poses.found, RNG.random((4, 3)), np.nan))
    write_selection(tmp_path / "s.parquet", poses, likely, "f")
    np.testing.assert_array_equal(read_selection(tmp_path / "s.parquet").probability, likely.probability)


def test_a_missing_or_broken_table_is_one_clear_line(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    assert table_fingerprint(tmp_path / "broken.parquet") is None
    assert table_fingerprint(tmp_path / "missing.parquet") is None
    with pytest.raises(UserError, match="cannot read the table"):
        read_poses(tmp_path / "broken.parquet")


def test_quantised_maps_are_within_their_stated_error():
    score = (RNG.random((3, 2, 4, 16, 16)) ** 8 * 7).astype(np.float32)
    score[0, 0, 0] = 0
    codes, peak = quantise(score)
    error = abs(dequantise(codes, peak) - score)
    bound = np.sqrt(score * peak[..., None, None]) / 255 + peak[..., None, None] * (0.5 / 255) ** 2
    assert (error <= bound * 1.0001 + 1e-9).all()
    assert not dequantise(codes, peak)[0, 0, 0].any()


def maps_for(count):
    return RNG.random((count, 2, 3, 8, 8)).astype(np.float32), RNG.normal(size=(count, 2, 2, 3))


def test_heat_maps_are_continued_where_they_stopped_and_only_if_the_settings_are_the_same(tmp_path):
    frames, (score, affine) = np.arange(5), maps_for(5)
    writer = HeatmapWriter(tmp_path / "h.zarr", "abc", frames, ("a", "b"))
    assert not writer.open(("x", "y", "z"), 8).any()
    for index in (0, 3):
        writer.write(index, score[index], affine[index])
    assert not (tmp_path / "h.zarr").exists()
    again = HeatmapWriter(tmp_path / "h.zarr", "abc", frames, ("a", "b"))
    assert again.open(("x", "y", "z"), 8).tolist() == [True, False, False, True, False]
    other = HeatmapWriter(tmp_path / "h.zarr", "abd", frames, ("a", "b"))
    assert not other.open(("x", "y", "z"), 8).any()
    for index in range(5):
        other.write(index, score[index], affine[index])
    other.finish()
    store = HeatmapStore(tmp_path / "h.zarr")
    back = store.read(1, 4)
    np.testing.assert_array_equal(back.image_from_heatmap, affine[1:4])
    assert abs(back.score - score[1:4]).max() < 1 / 255
    assert store.fingerprint == "abd" and len(store) == 5


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(partial):
        partial.write_text("half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"


def test_fingerprints_tell_settings_and_contents_apart(tmp_path):
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"x" * 5_000_000)
    two.write_bytes(b"x" * 4_999_999 + b"y")
    assert file_fingerprint(one) != file_fingerprint(two)

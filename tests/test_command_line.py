"""The command line from the user's side: whole runs, stops, and one clear line for every mistake."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from conftest import ROOT

from harvest.learn.samples import find_samples, read_sample
from harvest.processors import wait_briefly
from harvest.store.tables import read_boxes, read_columns, read_poses, read_selection
from pipelines.run_folder import FILES

FAST = "reconstruct: {voxels: 24, tolerance: 0.05, floor: 1.0e-3}\nreport: {frames_shown: 2}\n"


@pytest.fixture(scope="module")
def options(capture_folder):
    config = capture_folder / "fast.yaml"
    config.write_text(FAST)
    return [
        *("--rig", capture_folder / "rig.yaml", "--videos", capture_folder / "videos"),
        *("--detector", "keypoints", "--keypoints", capture_folder / "keypoints", "--config", config),
    ]


@pytest.fixture(scope="module")
def finished(harvest_command, options, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    result = harvest_command("run", *options, "--out", out)
    assert result.returncode == 0, result.stderr
    return out, result


def content(out):
    """Everything that must be equal between two runs of the same settings."""
    tables = {name: read_columns(out / name) for name in FILES.values() if name.endswith(".parquet")}
    tables["labels"] = read_columns(out / "50_labels" / "labels.parquet")
    return tables


def assert_equal_runs(a, b):
    for name, columns in content(a).items():
        for column, values in columns.items():
            np.testing.assert_array_equal(values, content(b)[name][column], err_msg=f"{name} {column}")
    for path in sorted((a / "20_heatmaps.zarr").rglob("c/**/*")):
        if path.is_file():
            assert path.read_bytes() == (b / path.relative_to(a)).read_bytes(), path


def test_a_run_writes_every_file_of_its_story_and_the_poses_are_right(finished, capture_folder):
    out, result = finished
    for name in (*FILES.values(), "run.yaml", "rig.yaml", "30_limbs.yaml", "log.jsonl"):
        assert (out / name).exists(), name
    assert "report.html" in result.stdout
    poses, selection = read_poses(out / FILES["reconstruct"]), read_selection(out / FILES["select"])
    truth = np.load(capture_folder / "truth.npz")
    assert tuple(truth["joints"]) == poses.joints
    error = np.linalg.norm(poses.xyz_m - truth["xyz_m"], axis=2)
    assert np.nanmedian(error) < 0.04
    assert np.nanmean(error[selection.keep]) <= np.nanmean(error[~selection.keep & poses.found])


def test_the_columns_are_those_of_the_contract(finished):
    out, _ = finished
    columns = read_columns(out / FILES["reconstruct"])
    wanted = "frame time_s person joint x_m y_m z_m cov_xx_m2 cov_xy_m2 cov_xz_m2 cov_yy_m2 cov_yz_m2 cov_zz_m2"
    assert {*wanted.split(), "confidence", "n_views", "found"} <= set(columns)
    assert columns["frame"].dtype == np.int64
    assert set(read_columns(out / FILES["select"])) == {"frame", "person", "joint", "keep", "reason", "probability"}


def test_a_second_run_reuses_everything_and_says_so(finished, harvest_command, options):
    out, _ = finished
    before = (out / FILES["reconstruct"]).stat().st_mtime_ns
    result = harvest_command("run", *options, "--out", out)
    assert result.returncode == 0 and result.stderr.count("nothing changed") == 6
    assert (out / FILES["reconstruct"]).stat().st_mtime_ns == before


def test_plan_says_what_a_changed_setting_would_redo_and_why(finished, harvest_command, options):
    out, _ = finished
    lines = harvest_command("plan", *options, "--out", out, "--keep", "0.5").stdout.splitlines()
    plan = {line.split()[0]: line for line in lines}
    assert all("reuse" in plan[stage] for stage in ("locate", "detect", "reconstruct"))
    assert "keep 0.7 -> 0.5" in plan["select"]
    assert "result of select" in plan["label"] and "run" in plan["report"]


def test_frames_and_views_pick_a_part(harvest_command, options, tmp_path):
    result = harvest_command("run", *options, "--out", tmp_path / "r", "--frames", "2:10:3", "--views", "cam03,cam01")
    assert result.returncode == 0, result.stderr
    poses = read_poses(tmp_path / "r" / FILES["reconstruct"])
    assert poses.frames.tolist() == [2, 5, 8] and poses.views == ("cam03", "cam01")


@pytest.mark.parametrize("after_s", [2.5, 4.0])
def test_a_killed_run_goes_on_to_the_same_result(finished, options, tmp_path, after_s):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "harvest.cli", "run", *map(str, options), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert_equal_runs(finished[0], out)


def spoilt_rig(capture_folder, tmp_path, change):
    rig = yaml.safe_load((capture_folder / "rig.yaml").read_text())
    change(rig)
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(rig))
    return path


MISTAKES = [
    ("no such rig", {"--rig": "nowhere.yaml"}, "nowhere.yaml"),
    ("no such folder", {"--videos": "nowhere"}, "nowhere"),
    ("no such view", {"--views": "cam01,cam09"}, "cam09"),
    ("one view", {"--views": "cam01"}, "at least two views"),
    ("bad frames", {"--frames": "a:b"}, "start:stop:step"),
    ("no frames left", {"--frames": "500:600"}, "12 frames"),
    ("bad share", {"--keep": "1.5"}, "keep"),
    ("unknown method", {"--method": "magic"}, "method"),
    ("no keypoints", {"--keypoints": "nowhere"}, "nowhere"),
    ("unknown skeleton", {"--skeleton": "octopus"}, "octopus"),
    ("no such boxes", {"--boxes": "nowhere.csv"}, "nowhere.csv"),
    ("no such weights", {"--detector": "hourglass", "--weights": "nowhere.pth"}, "nowhere.pth"),
]


@pytest.mark.parametrize(("change", "word"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_gives_one_clear_line_and_exit_code_two(harvest_command, options, tmp_path, change, word):
    arguments = dict(zip(options[::2], options[1::2], strict=True)) | change | {"--out": tmp_path / "r"}
    result = harvest_command("run", *[part for pair in arguments.items() for part in pair])
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 2, result.stderr
    assert last.startswith("harvest: ") and word in last and "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["run", "--bogus", "1"], ["run", "--keep", "much"], ["run"], ["fly"]])
def test_wrong_options_are_the_users_mistake_and_not_a_bug_of_ours(harvest_command, arguments):
    result = harvest_command(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr and "bug of ours" not in result.stderr and "Error" in result.stderr


def test_a_missing_gpu_is_said_before_any_work(harvest_command, options, tmp_path):
    environment = {"CUDA_VISIBLE_DEVICES": "", "NUMBA_ENABLE_CUDASIM": "0"}
    result = harvest_command("run", *options, "--backend", "cuda", "--out", tmp_path / "x", **environment)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert "backend 'cuda' was asked for, but" in result.stderr and "use backend 'numba'" in result.stderr
    assert not (tmp_path / "x").exists()


def test_compiling_is_said_once_and_cached_kernels_are_not_compiled(tmp_path):
    (tmp_path / "once.py").write_text(
        "from numba import njit\n"
        "from pipelines.compiling import tell_of_compiling\n"
        "tell_of_compiling(), tell_of_compiling()\n"
        "one, two = njit(lambda x: x + 1), njit(lambda x: x + 2)\n"
        "kept = njit(cache=True)(lambda x: x + 3)\n"
        "import sys\n"
        "print(kept(1) + (one(1) + two(1) if len(sys.argv) > 1 else 0))\n"
    )

    def said(*arguments):
        command = [sys.executable, tmp_path / "once.py", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        return result.stderr.count("compiling kernels")

    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    assert [said(), said(), said("all")] == [1, 0, 1]


def test_an_unknown_setting_names_itself_and_the_known_ones(harvest_command, options, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("reconstruct: {voxel: 32}\n")
    arguments = [*options[:-1], config]
    result = harvest_command("run", *arguments, "--out", tmp_path / "r")
    assert result.returncode == 2
    assert "reconstruct.voxel" in result.stderr and "voxels" in result.stderr


def test_pictures_of_the_wrong_size_are_refused_before_any_work(harvest_command, options, capture_folder, tmp_path):
    rig = spoilt_rig(capture_folder, tmp_path, lambda r: r["cameras"][1].update(size_px=[1280, 960]))
    result = harvest_command("run", "--rig", rig, *options[2:], "--out", tmp_path / "r")
    assert result.returncode == 2 and "cam02" in result.stderr and not (tmp_path / "r").exists()


def test_codec_padding_is_accepted_with_a_warning(harvest_command, options, capture_folder, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(capture_folder / "videos", folder)
    rig = spoilt_rig(capture_folder, tmp_path, lambda r: r["cameras"][1].update(size_px=[640, 480]))
    assert harvest_command("rig", "check", "--rig", rig, "--videos", folder).returncode == 0


def test_rig_check_names_the_faulty_camera_and_exits_two(harvest_command, capture_folder, tmp_path):
    def mirror(rig):
        rig["cameras"][1]["R_cam_from_world"] = (-np.array(rig["cameras"][1]["R_cam_from_world"])).tolist()

    result = harvest_command("rig", "check", "--rig", spoilt_rig(capture_folder, tmp_path, mirror))
    assert result.returncode == 2
    assert any(line.startswith("error") and "cam02" in line for line in result.stdout.splitlines())


def test_a_folder_with_other_files_is_not_written_into(harvest_command, options, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    result = harvest_command("run", *options, "--out", tmp_path)
    assert result.returncode == 2 and "other files" in result.stderr


def test_every_command_shows_an_example_in_its_help(harvest_command):
    for command in (["run"], ["plan"], ["doctor"], ["demo"], ["rig", "import"], ["rig", "check"], ["rig", "refine"]):
        result = harvest_command(*command, "--help")
        assert result.returncode == 0 and "Example: harvest " + " ".join(command) in result.stdout.replace("\n", " ")


def test_training_crops_come_out_of_a_run_with_the_joints_that_it_kept(finished, harvest_command, options, tmp_path):
    finished, _ = finished
    videos = options[options.index("--videos") + 1]
    result = harvest_command("train", "crops", "--run", finished, "--videos", videos, "--out", tmp_path / "crops")
    assert result.returncode == 0, result.stderr
    labels, boxes = np.load(finished / "50_labels" / "labels.npz"), read_boxes(finished / "10_boxes.parquet")
    places = find_samples(tmp_path / "crops")
    assert len(places) == len(labels["frame"]) and f"{len(places)} crops" in result.stdout
    order = np.lexsort([np.arange(len(places)), labels["frame"]])
    names = tuple(labels["joints"].tolist())
    for place, row in list(zip(places, order, strict=True))[::5]:
        picture, uv, visibility = read_sample(place, names)
        view = boxes.views.index(str(labels["view"][row]))
        affine = boxes.image_from_crop[boxes.frames.tolist().index(labels["frame"][row]), view]
        in_picture = (uv + 0.5) / 256 @ affine[:, :2].T + affine[:, 2]
        kept = labels["visibility"][row] > 0
        np.testing.assert_allclose(in_picture[kept], labels["uv_px"][row][kept], atol=0.01)
        assert np.isnan(uv[~kept]).all() and (visibility == labels["visibility"][row]).all()
        assert picture.std() > 5
    result = harvest_command("train", "crops", "--run", finished, "--videos", videos, "--out", tmp_path / "crops")
    assert result.returncode == 2 and "holds files" in result.stderr
    result = harvest_command("train", "crops", "--run", tmp_path, "--videos", videos, "--out", tmp_path / "more")
    assert result.returncode == 2 and "no finished run" in result.stderr


def test_waiting_threads_give_way_unless_the_user_says_otherwise():
    for given, expected in (
        ({}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ):
        wait_briefly(given)
        assert given == expected
    told = subprocess.run(
        [sys.executable, "-c", "import sys, harvest.cli; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "False\n"  # or it would come too late

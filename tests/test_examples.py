"""The examples run as they stand, in a process of their own, and what the documents show is valid and complete."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from calib.checks import check_rig
from calib.rig import load_rig
from harvest.skeleton import load_skeleton
from pipelines.run_folder import FILES
from pipelines.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, DOCS = ROOT / "examples", ROOT / "docs"


def run_example(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def yaml_of(document):
    return re.search(r"```yaml\n(.*?)```", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL).group(1)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    out = tmp_path_factory.mktemp("offline")
    return out, run_example("01_offline_run.py", "--out", out, "--frames", 8, "--voxels", 24)


def test_the_offline_run_fills_its_folder_and_is_right_within_centimetres(offline):
    out, printed = offline
    assert all((out / "run" / name).exists() for name in FILES.values())
    kept, dropped = (line for line in printed.splitlines() if line.startswith(("kept", "dropped")))
    assert int(kept.split()[1]) + int(dropped.split()[1]) == 8 * 16
    assert 0 < float(re.search(r"mean ([\d.]+) mm", kept).group(1)) < 50


def test_the_results_of_that_run_can_be_read_joint_by_joint(offline):
    out, _ = offline
    printed = run_example("02_read_results.py", out / "run").splitlines()
    rows = {line.split()[0]: line.split() for line in printed[1:17]}
    assert len(rows) == 16 and "head_top" in rows
    found, sigma_mm = rows["l_knee"][1], float(rows["l_knee"][3])
    assert found == "100%" and 1 < sigma_mm < 200
    assert any("(8, 16, 3)" in line for line in printed)


def test_own_joints_are_found_within_their_uncertainty():
    printed = run_example("03_own_joints.py", "--voxels", 32)
    figures = re.findall(r"sigma ([\d.]+) mm, error ([\d.]+) mm", printed)
    assert len(figures) == 3 and "found True" in printed
    assert all(float(error) < 2 * float(sigma) for sigma, error in figures)


def test_the_example_rig_has_no_fault_and_looks_where_its_comments_say():
    path = EXAMPLES / "rig.yaml"
    assert [finding.level for finding in check_rig(path, None)] == ["ok", "ok"]
    rig = load_rig(path)
    np.testing.assert_allclose(rig["south"].centre_m, [0, -4, 1.2])
    np.testing.assert_allclose(rig["east"].centre_m, [4, 0, 1.2])
    np.testing.assert_allclose(rig["south"].R_cam_from_world[2], [0, 1, 0])
    np.testing.assert_allclose(rig["east"].R_cam_from_world[2], [-1, 0, 0])
    assert rig["south"].video == "south.mp4"
    again = [yaml.safe_load(rig.to_yaml())["cameras"][i]["K"] for i in (0, 1)]
    np.testing.assert_allclose(again, [camera.K for camera in rig.cameras])


def test_the_table_of_settings_names_every_setting_with_its_default():
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+\.\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
    sections = Settings().model_dump(mode="json")
    actual = {f"{stage}.{key}": value for stage, values in sections.items() for key, value in values.items()}
    assert documented.keys() == actual.keys()
    for key, default in actual.items():
        shown = None if documented[key] == "none" else yaml.safe_load(documented[key])
        assert (float(shown) if isinstance(default, float) else shown) == default, key


def test_the_skeleton_and_the_settings_in_the_documents_can_be_loaded(tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(yaml_of("skeletons.md"), encoding="utf-8")
    assert load_skeleton(path).joints[0] == "thorax"
    path.write_text(yaml_of("formats.md"), encoding="utf-8")
    assert load_settings(path, {}).reconstruct.voxels == 48

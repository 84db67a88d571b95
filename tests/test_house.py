"""The rules of the house: lint, format, types, who may import whom, file lengths, and what the wheel holds."""

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"calib", "cuda_kernels", "harvest", "pipelines"}
LONGEST_FILE = 500
CODE = {".py", ".js", ".css", ".html"}


def assert_passes(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command[1:])} failed:\n{result.stdout}{result.stderr}"


def files_of_git(*options: str) -> list[PurePosixPath]:
    """Files of the working tree, relative to its root, as git lists them."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("only a git checkout can say which files are ours")
    listed = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=True)
    return [PurePosixPath(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_ruff_finds_nothing():
    assert_passes(sys.executable, "-m", "ruff", "check", ".")


def test_every_file_is_formatted():
    assert_passes(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy_finds_nothing():
    assert_passes(sys.executable, "-m", "mypy", *sorted(PACKAGES))


def test_packages_import_only_what_lies_below_them():
    assert_passes(sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()")


def test_no_file_is_too_long_to_read():
    lengths = {
        str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in files_of_git("--cached", "--others", "--exclude-standard")
        if path.suffix in CODE
    }
    assert len(lengths) > 50
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory):
    """Names of the files inside a wheel built from the files that git tracks, and from nothing else."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and without network no wheel can be built in isolation")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for path in files_of_git():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tree / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "-w", str(out), "."]
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = out.glob("harvest_pose-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


def test_exactly_the_four_packages_ship(wheel_files):
    assert {path.parts[0] for path in wheel_files if not path.parts[0].endswith(".dist-info")} == PACKAGES


def test_every_module_and_all_package_data_ship(wheel_files):
    shipped = set(wheel_files)
    ours = [path for path in files_of_git() if path.parts[0] in PACKAGES]
    modules = {path for path in ours if path.suffix == ".py"}
    data = {path for path in ours if path.suffix in {".yaml", ".js", ".css", ".html"}}
    assert PurePosixPath("harvest/skeletons/mpii16.yaml") in data
    assert {path.suffix for path in data if path.parent.name == "report"} == {".js", ".css", ".html"}
    assert modules | data <= shipped, sorted(map(str, (modules | data) - shipped))

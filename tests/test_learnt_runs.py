"""Runs by methods that are learnt, sets of maps made of runs, and the command that trains on them."""

import shutil

import numpy as np
import pytest
import torch
from conftest import harvest

from calib.rig import load_rig
from harvest.errors import UserError
from harvest.learn.training import CHECKPOINT
from harvest.learn.triangulation import WEIGHTS, measure
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_poses, read_selection, write_selection
from harvest.studio.figure import Wrong, write_capture
from harvest.triangulate3d.from_maps import MapAlgebraic
from harvest.triangulate3d.lenses import optics_of
from harvest.triangulate3d.map_files import load_triangulator, save_triangulator
from harvest.triangulate3d.map_volume import MapVolumetric
from harvest.types import Selection
from pipelines.map_sets import map_set_of, maps_of_run
from pipelines.run import STAGES, Run, ingredients
from pipelines.run_folder import RunFolder
from pipelines.settings import ReconstructSettings, Settings
from pipelines.stages import learnt
from pipelines.stages.learnt import poses_of_joints, triangulator_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run by algebraic triangulation on keypoints of a synthetic capture; its folders and options."""
    folder = tmp_path_factory.mktemp("run")
    write_capture(folder, views=3, frames=10, wrong=Wrong(noise_px=1.0, outliers=0.0, flips=0.0))
    save_triangulator(MapAlgebraic(), folder / "w.safetensors")
    (folder / "settings.yaml").write_text(f"reconstruct: {{weights: {folder / 'w.safetensors'}}}")
    options = ["--rig", folder / "rig.yaml", "--videos", folder / "videos", "--detector", "keypoints"]
    options += ["--keypoints", folder / "keypoints", "--config", folder / "settings.yaml"]
    torch.set_num_threads(1)
    harvest("run", *options, "--method", "algebraic", "--out", folder / "out")
    return folder, options


def test_a_run_triangulates_by_learnt_weights_and_notices_others(done, capsys):
    folder, options = done
    with np.load(folder / "truth.npz") as truth:
        names, xyz = truth["joints"].tolist(), truth["xyz_m"]
    poses = read_poses(folder / "out" / "30_poses.parquet")
    assert list(poses.joints) == names and poses.found.all() and (poses.n_views == 3).all()
    assert np.linalg.norm(poses.xyz_m - xyz, axis=2).mean() < 0.02
    assert (folder / "out" / "report.html").is_file()
    command = ["plan", *options, "--method", "algebraic", "--out", folder / "out"]
    harvest(*command)
    assert capsys.readouterr().out.split().count("reuse") == len(STAGES)
    kept = (folder / "w.safetensors").read_bytes()
    save_triangulator(MapAlgebraic(width=4), folder / "w.safetensors")
    harvest(*command)
    (folder / "w.safetensors").write_bytes(kept)
    assert "reconstruct  run: changed: weights" in capsys.readouterr().out


def test_a_run_by_a_volumetric_network_gives_its_joints(done):
    folder, options = done
    out = folder / "volumetric"
    shutil.copytree(folder / "out", out)
    weights, settings = folder / "v.safetensors", folder / "volumetric.yaml"
    save_triangulator(MapVolumetric(("pelvis", "thorax", "nose", "l_wrist"), width=2, levels=2, n=8), weights)
    settings.write_text(f"reconstruct: {{weights: {weights}, skeleton: mpii16}}")
    harvest("run", *options[:-1], settings, "--method", "volumetric", "--out", out)
    poses = read_poses(out / "30_poses.parquet")
    found = {joint for joint, there in zip(poses.joints, poses.found.all(axis=0), strict=True) if there}
    assert len(poses.joints) == 16 and found == {"pelvis", "thorax", "l_wrist"}
    middle = poses.xyz_m[:, poses.joints.index("pelvis")]
    with np.load(folder / "truth.npz") as truth:
        assert np.linalg.norm(middle - truth["xyz_m"].mean(axis=1), axis=1).max() < 1.0  # inside the person's cube


def test_a_run_becomes_a_set_of_maps_with_what_it_kept_or_with_exact_truth(done, tmp_path):
    folder, _ = done
    run = tmp_path / "run"
    shutil.copytree(folder / "out", run)
    store, poses = HeatmapStore(run / "20_heatmaps.zarr"), read_poses(run / "30_poses.parquet")
    keep = read_selection(run / "40_selection.parquet").keep
    keep[3, :9] = False  # of 16
    selection = Selection(keep, np.where(keep, "", "not sure").astype(object))
    write_selection(run / "40_selection.parquet", poses, selection, "by hand")
    kept = map_set_of(run, tmp_path / "kept")
    rows = np.flatnonzero(keep.mean(axis=1) >= 0.5)
    assert 3 not in rows and len(kept) == len(rows) > 5 and kept.joints == store.joints
    for index in (0, len(kept) - 1):
        row, item = rows[index], kept[index]
        np.testing.assert_array_equal(item.xyz_m, np.where(keep[row][:, None], poses.xyz_m[row], np.nan))
        np.testing.assert_allclose(item.score, store.read(row, row + 1).score[0], atol=1e-6)
        np.testing.assert_array_equal(item.optics, optics_of(load_rig(run / "rig.yaml")))
    with np.load(folder / "truth.npz") as truth:
        names, xyz = truth["joints"], truth["xyz_m"]
    take = tmp_path / "take"
    (take / "truth").mkdir(parents=True)
    blank = {f"{name}_xyz_m": np.full((2, 10, 1, 3), 9.0) for name in ("coco17", "h36m17")}
    blank |= {f"{name}_names": np.array(["nose"]) for name in ("coco17", "h36m17")}
    np.savez(take / "truth" / "joints.npz", mpii16_names=names, mpii16_xyz_m=np.stack([xyz, xyz + 1]), **blank)
    exact = maps_of_run(run, tmp_path / "exact", take)
    assert len(exact) == 10
    np.testing.assert_array_equal(exact[4].xyz_m, xyz[4])
    assert measure(MapAlgebraic().eval(), exact, 10, 4, bf16=False)[0] < 20
    for truth, message in ((tmp_path / "nowhere.npz", "cannot read the truth"), (folder / "truth.npz", "cannot read")):
        with pytest.raises(UserError, match=message):
            maps_of_run(run, tmp_path / "other", truth)
    np.savez(tmp_path / "short.npz", mpii16_names=names, mpii16_xyz_m=xyz[None, :5], **blank)
    with pytest.raises(UserError, match="has 5 frames and the run goes to frame 9"):
        maps_of_run(run, tmp_path / "other", tmp_path / "short.npz")
    with pytest.raises(UserError, match="no finished run"):
        maps_of_run(tmp_path, tmp_path / "other")


def test_the_command_trains_on_a_run_and_goes_on(done, tmp_path, capsys):
    folder, _ = done
    command = ["train", "triangulation", "--model", "algebraic", "--data", folder / "out", "--out", tmp_path / "out"]
    command += ["--validation", folder / "out", "--batch", "2", "--width", "4", "--steps"]
    harvest(*command, "2")
    harvest(*command, "3")
    assert capsys.readouterr().out.split() == ["done:", str(tmp_path / "out" / WEIGHTS)] * 2
    assert isinstance(load_triangulator(tmp_path / "out" / WEIGHTS), MapAlgebraic)
    assert torch.load(tmp_path / "out" / CHECKPOINT, weights_only=True)["step"] == 3
    assert {"maps", "validation_maps"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_the_command_trains_in_two_processes_that_share_each_batch(done, tmp_path, harvest_command):
    folder, _ = done
    command = ("train", "triangulation", "--model", "volumetric", "--voxels", "16", "--width", "4", "--beta", "0.1")
    command += ("--data", folder / "out", "--out", tmp_path / "out", "--batch", "4", "--steps", "2")
    result = harvest_command(*command, "--processes", "2")
    assert result.returncode == 0, result.stderr
    stored = torch.load(tmp_path / "out" / CHECKPOINT, weights_only=True)
    assert stored["step"] == 2 and stored["settings"]["beta"] == 0.1
    result = harvest_command(*command, "--processes", "3")
    assert result.returncode == 2 and "has no 3 equal parts" in result.stderr


def test_weights_that_do_not_fit_the_method_are_told_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_triangulator(MapAlgebraic(), path)
    assert triangulator_of(ReconstructSettings()) is None
    assert isinstance(triangulator_of(ReconstructSettings(method="algebraic", weights=path)), MapAlgebraic)
    monkeypatch.setattr(learnt, "shipped", lambda name: tmp_path / f"{name}.safetensors")
    mistakes = (
        ({"method": "volumetric"}, r"no weights in this package \(volumetric-s.safetensors\).*harvest train"),
        ({"method": "volumetric", "weights": path}, "holds algebraic triangulation; give --method algebraic"),
        ({"method": "dlt", "weights": path}, "goes with --method algebraic or volumetric, not dlt"),
        ({"method": "algebraic", "weights": tmp_path / "gone"}, "there is no such file"),
    )
    for given, message in mistakes:
        with pytest.raises(UserError, match=message) as caught:
            triangulator_of(ReconstructSettings(**given))
        assert "\n" not in str(caught.value)
    path.rename(tmp_path / "algebraic-s.safetensors")
    assert isinstance(triangulator_of(ReconstructSettings(method="algebraic")), MapAlgebraic)


def test_the_weights_of_a_learnt_method_enter_its_stage_alone(tmp_path):
    def parts(name: str, **reconstruct):
        settings = Settings(reconstruct=ReconstructSettings(**reconstruct))
        run = Run(type("Capture", (), {"fingerprint": "c"})(), RunFolder(tmp_path), settings)
        run.keys = {stage.name: "k" for stage in STAGES}
        return ingredients(run, next(stage for stage in STAGES if stage.name == name))

    path = tmp_path / "w.safetensors"
    save_triangulator(MapAlgebraic(), path)
    assert "weights" not in parts("reconstruct") and "weights" not in parts("select", method="algebraic", weights=path)
    before = parts("reconstruct", method="algebraic", weights=path)["weights"]
    assert len(before) == 16
    save_triangulator(MapAlgebraic(width=4), path)
    assert parts("reconstruct", method="algebraic", weights=path)["weights"] not in (before, "none")
    path.unlink()
    assert parts("reconstruct", method="algebraic", weights=path)["weights"] == "none"


def test_poses_are_taken_by_name_and_what_is_missing_is_not_found(done):
    folder, _ = done
    poses = read_poses(folder / "out" / "30_poses.parquet")
    taken = poses_of_joints(poses, ("tail", "l_wrist"))
    row = poses.joints.index("l_wrist")
    assert taken.joints == ("tail", "l_wrist") and not taken.found[:, 0].any() and np.isnan(taken.cov_m2[:, 0]).all()
    np.testing.assert_array_equal(taken.xyz_m[:, 1], poses.xyz_m[:, row])
    np.testing.assert_array_equal(taken.n_views, np.stack([0 * poses.n_views[:, row], poses.n_views[:, row]], axis=1))

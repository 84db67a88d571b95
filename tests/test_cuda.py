"""Bodies for GPUs give what the definitions give: on a GPU if there is one, and in Numba's simulator.

The simulator has to be asked for before Numba is imported, so one test runs this file again in a process of its own.
With HARVEST_NEED_CUDA=1 the tests on a GPU fail where there is none, instead of being skipped.
"""

import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from test_kernels import LENSES, SHELLS, bumps, flat, problem, some_voxels, unprojection_input

from cuda_kernels import gpu
from cuda_kernels.active import all_voxels, blocks_a_side, split_by_likelihood
from cuda_kernels.block_bound import weight_bound
from cuda_kernels.device import THREADS, DeviceMemory, block_max, block_sum, cuda
from cuda_kernels.frames import infer_frames
from cuda_kernels.limb_message import limb_message
from cuda_kernels.limb_message.cuda_ import find_boxes
from cuda_kernels.moments import moments
from cuda_kernels.resident import TILE, upload_rows
from cuda_kernels.shell import gaussian_shell, interval_shell
from cuda_kernels.simulator import mend
from cuda_kernels.sum_product import sum_product
from cuda_kernels.tree import Tree
from cuda_kernels.unproject import unproject, unproject_active

ROOT = Path(__file__).resolve().parents[1]
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
if SIMULATED:
    mend()
NEEDED = os.environ.get("HARVEST_NEED_CUDA") == "1"
on_gpu = pytest.mark.skipif(not SIMULATED and not NEEDED and bool(gpu.what_is_missing()), reason=gpu.what_is_missing())
on_real_gpu = pytest.mark.skipif(
    SIMULATED or (not NEEDED and bool(gpu.what_is_missing())), reason="too slow to simulate"
)
outside = pytest.mark.skipif(SIMULATED, reason="starts the simulator itself")
with_package = pytest.mark.skipif(find_spec("numba_cuda") is None and not NEEDED, reason="numba-cuda is not installed")


def run(*command, **environment):
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


@outside
@with_package
def test_all_of_this_in_the_simulator():
    result = run(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__),
        NUMBA_ENABLE_CUDASIM="1",
        HARVEST_NEED_CUDA="0",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@outside
@with_package
def test_the_benchmark_for_gpus_runs_in_the_simulator():
    result = run(sys.executable, "benchmarks/gpu.py", "--simulate")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "frames/s" in result.stdout


@outside
@pytest.mark.skipif(not gpu.what_is_missing(), reason="here is a GPU")
def test_the_benchmark_for_gpus_says_that_there_is_none():
    result = run(sys.executable, "benchmarks/gpu.py")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "GPU" in result.stderr


WITHOUT_CUDA = """
import sys
sys.modules["numba.cuda"] = sys.modules["numba_cuda"] = None
import importlib, pathlib
import numpy as np
for path in pathlib.Path("cuda_kernels").rglob("*.py"):
    importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
from cuda_kernels.moments import moments
moments(np.ones(1), np.zeros(1, np.int32), np.array([0, 1]), (np.zeros(3), 1.0, 4), "cuda")
"""


@outside
def test_all_modules_import_without_numba_cuda_and_say_what_is_missing_when_asked():
    result = run(sys.executable, "-c", WITHOUT_CUDA)
    last = result.stderr.splitlines()[-1]
    assert "NoGpuError" in last and "numba-cuda is not installed" in last
    assert "pip install 'harvest-pose[cuda]'" in last and "backend 'numba'" in last


@outside
def test_a_backend_that_was_asked_for_is_not_replaced_by_another(monkeypatch):
    monkeypatch.setattr(gpu, "what_is_missing", lambda: "no GPU can be used (for once)")
    args = unprojection_input(2, 3, 4, np.random.default_rng(0))
    tree, likelihood = problem(np.random.default_rng(0))
    active = split_by_likelihood(likelihood, np.full((5, 2, 2, 2), 0.1))
    voxels, shell = some_voxels(4, 5, np.random.default_rng(0)), gaussian_shell(1.0, 0.5)
    chain = Tree(np.array([-1, 0, 1]), [0, 1, 2], [None, shell, shell])
    calls = (
        lambda: unproject(*args, 1e-3, "cuda"),
        lambda: unproject_active(*args, 1e-3, np.full((3, 1, 1, 1), 0.1), "cuda"),
        lambda: limb_message(np.ones(5), voxels, voxels, shell, 4, "cuda"),
        lambda: sum_product(tree, active, 12, "cuda"),
        lambda: weight_bound(tree, active, sum_product(tree, active, 12), 12, "cuda"),
        lambda: infer_frames(*frames_input(1), chain, "cuda"),
    )
    for call in calls:
        with pytest.raises(gpu.NoGpuError, match=r"for once.*an NVIDIA GPU.*use backend 'numba'"):
            call()


@on_gpu
@pytest.mark.parametrize(("views", "joints", "n"), [(1, 1, 3), (3, 5, 7), (2, 19, 5)])
def test_unproject_equals_its_definition(views, joints, n):
    args = unprojection_input(views, joints, n, np.random.default_rng(views))
    np.testing.assert_allclose(unproject(*args, 1e-3, "cuda"), unproject(*args, 1e-3, "reference"), rtol=2e-5)


@on_gpu
@pytest.mark.parametrize(
    "camera",
    [
        {"dist": (0.1, -0.05, 0.02, -0.01), "model": "fisheye"},
        {"dist": (-0.1, 0.05, 1e-3, -5e-4, 0.01, 0.02, 0.01, 0.0, 1e-3, 0, -1e-3, 0, 0.05, -0.03)},
        {"dist": ()},
    ],
)
def test_unproject_knows_every_lens(camera):
    args = unprojection_input(2, 2, 5, np.random.default_rng(7), **camera)
    np.testing.assert_allclose(unproject(*args, 1e-2, "cuda"), unproject(*args, 1e-2, "reference"), rtol=2e-5)


@on_gpu
@pytest.mark.parametrize("cells", [(slice(None), slice(3, 4)), (slice(2, 3), slice(None)), (slice(0, 2), slice(0, 2))])
def test_unproject_takes_narrow_maps_that_are_not_contiguous(cells):
    score, cell_from_image, cameras, grid = unprojection_input(2, 6, 4, np.random.default_rng(5))
    score = np.asfortranarray(score)[:, *cells, ::2]
    args = score, cell_from_image * 0.1 + [[0, 0, 0.3], [0, 0, 0.2]], cameras, grid, 1e-3
    np.testing.assert_allclose(unproject(*args, "cuda"), unproject(*args, "reference"), rtol=2e-5)


@on_gpu
def test_a_voxel_that_no_camera_can_see_gets_the_floor_of_every_view():
    score, cells, cameras, _ = unprojection_input(1, 2, 4, np.random.default_rng(1))
    behind = (np.array([30.0 * np.cos(0.7), 30.0 * np.sin(0.7), 0.0]), 1.0, 4)
    assert (unproject(score, cells, cameras, behind, 0.25, "cuda") == np.float32(0.25)).all()
    score, cells, cameras, grid = unprojection_input(9, 2, 2, np.random.default_rng(3))
    likelihood = unproject(0 * score, cells, cameras, grid, 1e-4, "cuda")
    assert likelihood.dtype == np.float64
    np.testing.assert_allclose(likelihood, 1e-4**9, rtol=1e-3)


@on_gpu
@pytest.mark.parametrize(("lens", "views", "n", "floor"), [(0, 3, 9, 1e-3), (2, 2, 6, 0.0), (1, 3, 5, 1e-12)])
def test_pruning_while_unprojecting_keeps_and_drops_exactly_what_it_should(lens, views, n, floor):
    rng = np.random.default_rng(n)
    args = bumps(views, 4, n, rng, **LENSES[lens])
    cuts = 1e-2 * rng.choice([1.0, 10.0, 1000.0], (4,) + (blocks_a_side(n),) * 3)
    fast, slow = (unproject_active(*args, floor, cuts, backend) for backend in ("cuda", "reference"))
    np.testing.assert_array_equal(fast.starts, slow.starts)
    np.testing.assert_allclose(fast.peak, slow.peak, rtol=2e-5)
    np.testing.assert_allclose(fast.dropped, slow.dropped, rtol=1e-4, atol=1e-12)
    for joint in range(4):
        order = np.argsort(fast.place[fast.rows(joint)])
        np.testing.assert_array_equal(fast.place[fast.rows(joint)][order], slow.place[slow.rows(joint)])
        np.testing.assert_allclose(fast.value[fast.rows(joint)][order], slow.value[slow.rows(joint)], rtol=2e-5)
    kept = int(slow.starts[-1])
    assert unproject_active(*args, floor, cuts, "cuda", most=kept - 1) is None


@on_gpu
@pytest.mark.parametrize("shell", [SHELLS[0], SHELLS[3], SHELLS[4], SHELLS[5]])
@pytest.mark.parametrize("route", ["pairs", "transform", "auto"])
def test_every_route_gives_the_definition(shell, route):
    n, rng = 5, np.random.default_rng(5)
    source, target = some_voxels(n, 60, rng), some_voxels(n, 70, rng)
    belief = rng.random(len(source))
    expected = limb_message(belief, source, target, shell, n, "reference")
    got = limb_message(belief, source, target, shell, n, "cuda", route)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13 * max(expected.max(), 1.0))


@on_gpu
@pytest.mark.parametrize("route", ["pairs", "transform"])
def test_a_belief_of_zero_says_nothing_and_a_spike_says_its_shell(route):
    n, shell = 6, interval_shell(2.0, 0.5)
    every = some_voxels(n, 100, np.random.default_rng(0))
    assert not limb_message(np.zeros(9), every[:9], every, shell, n, "cuda", route).any()
    message = limb_message(np.array([2.0]), flat(n, (3, 3, 3)), every, shell, n, "cuda", route)
    distance = np.linalg.norm(np.stack(np.unravel_index(every, (n, n, n)), -1) - 3.0, axis=1)
    np.testing.assert_allclose(message, np.where(abs(distance - 2.0) <= 0.5, 2.0, 0.0), atol=1e-12)


@on_gpu
def test_pairs_keep_the_relative_accuracy_of_tiny_messages_far_from_the_origin():
    n, shell = 1024, interval_shell(2.0, 0.5)
    source, target = flat(n, (1001, 1, 1), (12, 12, 1012)), flat(n, (1003, 1, 1), (14, 12, 1012))
    message = limb_message(np.array([1.0, 1e-20]), source, target, shell, n, "cuda", "pairs")
    np.testing.assert_array_equal(message, [1.0, 1e-20])


def small_problem(kind, n=7):
    """A tree of five joints that branches, with some forty voxels each."""
    tree, likelihood = problem(np.random.default_rng(1), n, kind)
    cut = np.full((5,) + (blocks_a_side(n),) * 3, 0.3)
    return tree, split_by_likelihood(likelihood, cut), n


@on_gpu
@pytest.mark.parametrize(
    ("kind", "route"), [(interval_shell, "pairs"), (gaussian_shell, "pairs"), (gaussian_shell, "")]
)
def test_the_whole_tree_at_once_gives_the_definition(kind, route, monkeypatch):
    body = importlib.import_module("cuda_kernels.sum_product.cuda_")
    turns = iter(["pairs", "transform"] * 4)
    monkeypatch.setattr(body, "cheapest_route", lambda *_: route or next(turns))
    tree, active, n = small_problem(kind)
    fast, slow = sum_product(tree, active, n, "cuda"), sum_product(tree, active, n, "reference")
    np.testing.assert_allclose(fast.marginal, slow.marginal, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose([fast.up_scale, fast.down_scale], [slow.up_scale, slow.down_scale], atol=1e-12)
    assert fast.log_evidence == pytest.approx(slow.log_evidence, abs=1e-12)
    for joint in range(5):
        np.testing.assert_allclose(fast.up[joint], slow.up[joint], rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(fast.down[joint], slow.down[joint], rtol=1e-9, atol=1e-13)


@on_gpu
def test_limbs_that_cannot_be_satisfied_find_no_pose():
    likelihood = np.zeros((6, 6, 6, 2), np.float32)
    likelihood[0, 0, 0] = 1
    tree = Tree(np.array([-1, 0]), [0, 1], [None, interval_shell(3.0, 0.5)])
    assert sum_product(tree, split_by_likelihood(likelihood, np.zeros((2, 1, 1, 1))), 6, "cuda") is None


@on_gpu
@pytest.mark.parametrize(("kind", "n"), [(interval_shell, 10), (gaussian_shell, 7)])
def test_bounds_on_blocks_equal_their_definition(kind, n):
    tree, active, n = small_problem(kind, n)
    shuffled = np.random.default_rng(0).permutation(int(active.counts[0]))
    active.place[: len(shuffled)], active.value[: len(shuffled)] = active.place[shuffled], active.value[shuffled]
    marginals = sum_product(tree, active, n)
    fast, slow = (weight_bound(tree, active, marginals, n, backend) for backend in ("cuda", "reference"))
    np.testing.assert_allclose(fast, slow, rtol=1e-9)


@on_gpu
def test_blocks_that_are_just_in_or_out_of_reach_are_told_apart():
    n, rng = 25, np.random.default_rng(1)
    tree = Tree(np.array([-1, 0, 0]), [0, 1, 2], [None, interval_shell(8.0, 0.6), interval_shell(14.0, 0.8)])
    likelihood = np.zeros((n, n, n, 3), np.float32)
    likelihood[3:9, 2, 5:9] = 1e-3
    for place in ((12, 12, 12), (12, 12, 20), (12, 12, 4), (12, 20, 12), (2, 3, 12), (12, 12, 0), (3, 12, 2)):
        likelihood[place] = rng.random(3) + 0.5
    likelihood[12, 12, 4:21, 0], likelihood[12, 14, 1:25, 2] = 0.7, 0.6
    active = split_by_likelihood(likelihood, np.full((3, 4, 4, 4), 0.1))
    marginals = sum_product(tree, active, n)
    fast, slow = (weight_bound(tree, active, marginals, n, backend) for backend in ("cuda", "reference"))
    assert (slow == 0).any()
    np.testing.assert_allclose(fast, slow, rtol=1e-9)


@on_gpu
def test_moments_equal_their_definition_far_from_the_origin():
    rng = np.random.default_rng(2)
    place = flat(128, *rng.integers(120, 124, (40, 3)))
    args = rng.random(40), place, np.array([0, 15, 40]), (np.array([100.0, -50.0, 3.0]), 2.0, 128)
    for fast, slow in zip(moments(*args, "cuda"), moments(*args, "reference"), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-10)


@cuda.jit
def sums_and_tops(values, out):
    """Sums and maxima of the rows, as each of the threads knows them."""
    scratch, thread = cuda.shared.array(THREADS, np.float64), cuda.threadIdx.x
    for row in range(len(values)):
        out[0, row, thread] = block_sum(values[row, thread], scratch, thread)
    for row in range(len(values)):
        out[1, row, thread] = block_max(values[row, thread], scratch, thread)


@on_gpu
def test_all_threads_of_a_block_know_its_sum_and_its_maximum_time_after_time():
    values = np.random.default_rng(0).random((8, THREADS))
    out = cuda.to_device(np.zeros((2, *values.shape)))
    sums_and_tops[1, THREADS](cuda.to_device(values), out)
    right = np.stack([values.sum(axis=1), values.max(axis=1)])
    np.testing.assert_allclose(out.copy_to_host(), np.broadcast_to(right[..., None], out.shape), rtol=1e-12)


@on_gpu
def test_the_box_of_a_tile_holds_its_voxels_and_no_more():
    place = np.random.default_rng(3).integers(0, 99, (7 * TILE + 1, 3))
    counts = np.array([4 * TILE, len(place) - 4 * TILE])
    rows = upload_rows(DeviceMemory(), counts, flat(99, *place), np.ones(len(place)), 99)
    find_boxes(rows)
    boxes = rows.boxes.copy_to_host()[0].reshape(8, 2, 3)
    for box, tile in zip(boxes, np.split(place, range(TILE, len(place), TILE)), strict=True):
        np.testing.assert_array_equal(box, [tile.min(axis=0), tile.max(axis=0)])


CHAIN = Tree(np.array([1, -1, 1]), [1, 0, 2], [interval_shell(2.0, 2.0), None, gaussian_shell(3.0, 1.5)])


def frames_input(frames, n=9, floor=1e-2, cut=0.25):
    """Frames of three joints in two views: maps, cells, cameras, grids, floor, cut."""
    rng = np.random.default_rng(8)
    score, cells, cameras, (centre, side, _) = bumps(2, 4, n, rng)
    scores = np.stack([np.roll(score[..., [0, 2, 3]], frame, axis=1) for frame in range(frames)])
    centres = centre + 0.04 * np.arange(frames)[:, None]
    return scores, np.tile(cells, (frames, 1, 1, 1)), cameras, (centres, side, n), floor, cut


def assert_same_poses(fast, slow):
    np.testing.assert_array_equal(fast.found, slow.found)
    np.testing.assert_array_equal(fast.active, slow.active)
    np.testing.assert_allclose(fast.mean_m, slow.mean_m, atol=1e-5)
    np.testing.assert_allclose(fast.cov_m2, slow.cov_m2, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(fast.log_evidence, slow.log_evidence, atol=1e-4)
    assert (fast.bound <= slow.bound * (1 + 1e-4)).all()


@on_gpu
def test_a_batch_of_frames_gives_what_the_frames_give_one_by_one():
    args = frames_input(2, 8)  # one block of threads a frame; others have more
    fast, slow = (infer_frames(*args, CHAIN, backend, 160) for backend in ("cuda", "reference"))
    assert fast.found.all() and (fast.active > 30).all()
    assert_same_poses(fast, slow)
    again = infer_frames(
        *(part[1:] for part in args[:2]), args[2], (args[3][0][1:], *args[3][1:]), *args[4:], CHAIN, "cuda", 160
    )
    for name in ("mean_m", "cov_m2", "log_evidence", "bound", "active"):
        np.testing.assert_array_equal(getattr(again, name)[0], getattr(fast, name)[1])


@on_gpu
def test_the_bound_of_a_frame_is_that_of_its_certificate():
    score, cells, cameras, (centres, side, n), floor, cut = frames_input(1)
    grid = (centres[0], side, n)
    active = unproject_active(score[0], cells[0], cameras, grid, floor, np.full((3, 2, 2, 2), cut), "reference")
    weight = weight_bound(CHAIN, active, sum_product(CHAIN, active, n), n)
    fast = infer_frames(*frames_input(1), CHAIN, "cuda", 160)
    np.testing.assert_allclose(fast.bound, (weight * active.dropped).sum(), rtol=1e-4)


@on_gpu
def test_frames_without_heat_without_a_pose_or_without_room_are_not_found():
    args = frames_input(3, 4, floor=0.0, cut=1e-3)
    args[0][0, ..., 1] = 0.0
    fast, slow = (infer_frames(*args, CHAIN, backend, 12) for backend in ("cuda", "reference"))
    assert fast.found.tolist() == [False, False, True]
    assert np.isinf(fast.bound[:2]).all() and np.isnan(fast.mean_m[:2]).all()
    assert_same_poses(fast, slow)
    full = frames_input(1, 4, floor=0.0, cut=1e-3)
    fast, slow = (infer_frames(*full, CHAIN, backend, 5) for backend in ("cuda", "reference"))
    assert not fast.found.any()
    assert_same_poses(fast, slow)
    tree = Tree(CHAIN.parents, CHAIN.order, [interval_shell(30.0, 0.5), None, interval_shell(1.0, 0.5)])
    assert not infer_frames(*frames_input(1, 4), tree, "cuda", 64).found.any()


@on_gpu
def test_scores_that_are_negative_or_no_numbers_are_refused():
    for wrong in (-1e-3, np.nan):
        args = frames_input(1, 3)
        args[0][0, 1, -1, -1, 2] = wrong
        for backend in ("cuda", "reference"):
            with pytest.raises(ValueError, match="non-negative"):
                infer_frames(*args, CHAIN, backend, 27)


def test_frames_that_do_not_fit_are_refused():
    score, cells, cameras, grids, floor, cut = frames_input(2)
    for wrong in (
        (score, cells[:1], cameras, grids, floor, cut, CHAIN, "reference"),
        (score[..., :2], cells, cameras, grids, floor, cut, CHAIN, "reference"),
        (score, cells, cameras, (grids[0][:1], *grids[1:]), floor, cut, CHAIN, "reference"),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            infer_frames(*wrong)
    with pytest.raises(ValueError, match="unknown backend"):
        infer_frames(*frames_input(1), CHAIN, "fortran")
    with pytest.raises(ValueError, match="must be non-negative"):
        infer_frames(score, cells, cameras, grids, floor, -1.0, CHAIN, "reference")


@on_real_gpu
def test_large_grids_equal_those_of_the_fast_body_for_cpus():
    rng, n = np.random.default_rng(0), 64
    args = bumps(4, 17, n, rng, **LENSES[1])
    np.testing.assert_allclose(unproject(*args, 1e-4, "cuda"), unproject(*args, 1e-4), rtol=1e-4)
    cuts = np.full((17, 8, 8, 8), 1e-3)
    fast, slow = unproject_active(*args, 1e-4, cuts, "cuda"), unproject_active(*args, 1e-4, cuts)
    assert abs(fast.counts - slow.counts).max() <= 1 + 1e-4 * slow.counts.max()
    assert (fast.dropped <= slow.dropped * (1 + 1e-4) + 1e-9).all()


@on_real_gpu
@pytest.mark.parametrize("kind", [interval_shell, gaussian_shell])
def test_all_voxels_of_a_large_grid_go_through_the_transform(kind):
    n = 64
    tree, likelihood = problem(np.random.default_rng(3), n, kind)
    active = all_voxels(likelihood)
    fast, slow = sum_product(tree, active, n, "cuda"), sum_product(tree, active, n)
    np.testing.assert_allclose(fast.marginal, slow.marginal, atol=1e-10)
    assert fast.log_evidence == pytest.approx(slow.log_evidence, abs=1e-8)
    again = sum_product(tree, active, n, "cuda")
    np.testing.assert_array_equal(again.marginal, fast.marginal)


@on_real_gpu
def test_many_large_frames_equal_those_of_the_fast_bodies_for_cpus():
    args = frames_input(5, 64, 1e-4, 1e-4)
    tree = Tree(CHAIN.parents, CHAIN.order, [interval_shell(10.0, 4.0), None, gaussian_shell(12.0, 3.0)])
    fast, slow = (infer_frames(*args, tree, backend, 40_000) for backend in ("cuda", "reference"))
    assert fast.found.any()
    np.testing.assert_array_equal(fast.found, slow.found)
    np.testing.assert_allclose(fast.active, slow.active, rtol=1e-3)
    np.testing.assert_allclose(fast.mean_m, slow.mean_m, atol=1e-4)
    np.testing.assert_allclose(fast.cov_m2, slow.cov_m2, rtol=1e-2, atol=1e-6)
    again = infer_frames(*args, tree, "cuda", 40_000)
    for name in ("mean_m", "cov_m2", "log_evidence", "bound"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fast, name))

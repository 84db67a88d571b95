"""All bodies for GPUs in one call: do they give what the bodies for CPUs give, and how fast?

    python benchmarks/gpu.py [--simulate]

Made-up maps of 16 joints, 64 x 64 cells; 4 views, 64^3 voxels, floor 1e-4, voxels above 3e-7 of their joint's peak.
Times are medians after a call that does not count, from CUDA events, launches included. Frames go from arrays in the
host's memory to arrays in the host's memory. Without a GPU: one line, exit 2. --simulate runs a tiny problem through
Numba's simulator, to try this script; its times mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scenes import SIDE_M, model, scene, unprojection

from cuda_kernels.active import all_voxels, blocks_a_side, split_by_likelihood
from cuda_kernels.block_bound import weight_bound
from cuda_kernels.frames import CAPACITY, infer_frames
from cuda_kernels.gpu import what_is_missing
from cuda_kernels.limb_message import limb_message
from cuda_kernels.moments import moments
from cuda_kernels.sum_product import sum_product
from cuda_kernels.tree import Tree
from cuda_kernels.unproject import unproject, unproject_active
from harvest.reconstruct.pictorial import PictorialSettings

FLOOR, CUT, KINDS = 1e-4, 3e-7, ("clean", "outlier", "missing")
DIFFERENT = 32  # frames that are made; larger batches repeat them
COPIED = 1 << 30  # bytes


@dataclass(frozen=True)
class Size:
    """How large the problem is: `thin` leaves only every so many cells of a map, `joints` only these."""

    n: int = 64
    views: int = 4
    batches: tuple[int, ...] = (1, 8, 64, 256)
    at_once: int = 64
    repeats: int = 7
    thin: int = 1
    capacity: int = CAPACITY
    cut: float = CUT
    copied: int = COPIED
    joints: tuple[int, ...] = tuple(range(16))


TINY = Size(5, 2, (1,), 1, 0, 8, 48, 1e-2, 1 << 10, (6, 7, 12, 13))


@dataclass(frozen=True)
class Batch:
    """Frames as `infer_frames` takes them, and the tree."""

    score: Any
    cells: Any
    cameras: Any
    grids: Any
    tree: Tree

    def first(self, frames: int) -> tuple[Any, ...]:
        """The first arguments for so many frames, again from the beginning where there are no more."""
        which = np.arange(frames) % len(self.score)
        centres, side, n = self.grids
        return self.score[which], self.cells[which], self.cameras, (centres[which], side, n)

    def one(self, frame: int) -> tuple[Any, ...]:
        """The first arguments of `unproject` for a frame."""
        centres, side, n = self.grids
        return self.score[frame], self.cells[frame], self.cameras, (centres[frame], side, n)


def make_batch(size: Size) -> Batch:
    """Made-up frames of every kind in turns."""
    frames = [scene(size.views, KINDS[i % len(KINDS)], i, i) for i in range(min(max(size.batches), DIFFERENT))]
    cameras = unprojection(frames[0][0], frames[0][2])[1]
    cells = np.stack([unprojection(rig, affine)[0] for rig, _, affine, _ in frames]) / size.thin
    maps = np.stack([maps[:, :: size.thin, :: size.thin, list(size.joints)] for _, maps, _, _ in frames])
    centres = np.stack([(xyz.min(0) + xyz.max(0)) / 2 for *_, xyz in frames])
    whole, names = model(PictorialSettings(voxels=size.n)).tree(SIDE_M / size.n), list(size.joints)
    parents = np.array([names.index(parent) if (parent := whole.parents[joint]) in names else -1 for joint in names])
    order = [names.index(joint) for joint in whole.order if joint in names]
    tree = Tree(parents, order, [whole.shells[joint] for joint in names])
    return Batch(maps, cells, cameras, (centres, SIDE_M, size.n), tree)


def median_ms(call: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of a call after a first, by the device; without repeats of the first."""
    from cuda_kernels.device import cuda

    clock = time.perf_counter()
    call()
    times = [] if repeats else [1e3 * (time.perf_counter() - clock)]
    for _ in range(repeats):
        cuda.synchronize()
        begin, end = cuda.event(), cuda.event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return float(np.median(times))


def apart(fast: Any, slow: Any, relative: bool = True) -> float:
    """Largest difference, relative to each number or to the largest."""
    fast, slow = np.asarray(fast, np.float64), np.asarray(slow, np.float64)
    scale = np.maximum(abs(slow), 1e-300) if relative else max(float(abs(slow).max(initial=0.0)), 1e-300)
    return float((abs(fast - slow) / scale).max(initial=0.0))


def check_kernels(batch: Batch, size: Size) -> None:
    """Print how far each kernel is from the body for CPUs, worst of one frame of each kind."""
    worst: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        worst[name] = max(worst.get(name, 0.0), value)

    for frame in range(min(len(KINDS), len(batch.score))):
        _check_frame(batch, size, frame, note)
    for name, value in worst.items():
        print(f"  {name:58}{value:10.1e}")


def _check_frame(batch: Batch, size: Size, frame: int, note: Callable[[str, float], None]) -> None:
    args, n, tree = (*batch.one(frame), FLOOR), size.n, batch.tree
    likelihood = unproject(*args)
    note("unproject, relative", apart(unproject(*args, "cuda"), likelihood))
    cuts = np.full((likelihood.shape[3],) + (blocks_a_side(n),) * 3, size.cut)
    active, kept = split_by_likelihood(likelihood, cuts), unproject_active(*args, cuts, "cuda")
    assert kept is not None
    note("unproject_active, numbers of kept voxels", float(abs(kept.counts - active.counts).max()))
    note("unproject_active, dropped, relative to the largest", apart(kept.dropped, active.dropped, False))
    child, parent, shell = tree.limbs[0]
    ends = active.place[active.rows(child)], active.place[active.rows(parent)]
    for route in ("pairs", "transform"):
        both = [
            limb_message(active.value[active.rows(child)], *ends, shell, n, body, route) for body in ("cuda", "numba")
        ]
        note(f"limb_message by {route}, relative to the largest", apart(*both, False))
    fast, slow = sum_product(tree, active, n, "cuda"), sum_product(tree, active, n)
    if fast is None or slow is None:
        note("sum_product, poses found by one only", float(fast is not slow))
        return
    note("sum_product, marginals, absolute", float(abs(fast.marginal - slow.marginal).max()))
    note("sum_product, log evidence, absolute", abs(fast.log_evidence - slow.log_evidence))
    bounds = [weight_bound(tree, active, slow, n, body) for body in ("cuda", "numba")]
    note("block_bound, relative", apart(*bounds))
    found = [moments(slow.marginal, active.place, active.starts, args[3], body) for body in ("cuda", "numba")]
    note("moments, means, metres", float(abs(found[0][0] - found[1][0]).max()))
    note("moments, covariances, relative to the largest", apart(found[0][1], found[1][1], False))


def check_frames(batch: Batch, size: Size) -> None:
    """Print how far whole frames are from the kernels for CPUs."""
    args = (*batch.first(min(6, max(size.batches))), FLOOR, size.cut, batch.tree)
    fast, slow = (infer_frames(*args, backend, size.capacity) for backend in ("cuda", "reference"))
    both = fast.found & slow.found
    print(f"  {len(both)} frames, found by both {both.sum()}, by one only {(fast.found != slow.found).sum()}")
    for name in ("mean_m", "cov_m2", "log_evidence", "active", "bound"):
        here, there = getattr(fast, name)[both], getattr(slow, name)[both]
        largest = float(abs(there).max(initial=0.0))
        print(f"  {name:28} largest {largest:9.2e}, difference {float(abs(here - there).max(initial=0.0)):9.2e}")
    again = infer_frames(*args, "cuda", size.capacity)
    print(f"  the same bits when done again: {np.array_equal(again.cov_m2, fast.cov_m2, equal_nan=True)}")


def time_copies(size: Size) -> float:
    """Print what copies achieve; returns GB/s of copies on the device, bytes read and written."""
    from cuda_kernels.device import cuda

    host, pinned = np.zeros(size.copied, np.uint8), cuda.pinned_array(size.copied, np.uint8)
    one, other = cuda.device_array(size.copied, np.uint8), cuda.device_array(size.copied, np.uint8)
    rates = []
    for name, call, passes in (
        ("on the device, read and written", lambda: other.copy_to_device(one), 2),
        ("to the device", lambda: one.copy_to_device(host), 1),
        ("to the device from pinned memory", lambda: one.copy_to_device(pinned), 1),
    ):
        rates.append(passes * size.copied / median_ms(call, size.repeats) / 1e6)
        print(f"  {name:58}{rates[-1]:10.1f} GB/s")
    return rates[0]


def time_kernels(batch: Batch, size: Size, copies: float) -> None:
    """Print milliseconds of each step for a batch of frames that lies on the device."""
    from cuda_kernels.block_bound.cuda_ import bound_all, make_bounds
    from cuda_kernels.device import THREADS, DeviceMemory
    from cuda_kernels.frames.cuda_ import make_rows
    from cuda_kernels.limb_message.cuda_ import find_boxes
    from cuda_kernels.moments.cuda_ import SUMS, add_moments
    from cuda_kernels.resident import limbs_of, make_told, whole_tiles
    from cuda_kernels.sum_product.cuda_ import all_messages, conclude
    from cuda_kernels.unproject.cuda_ import fill
    from cuda_kernels.unproject.cuda_active import count_kept, make_survey, write_kept
    from cuda_kernels.unproject.cuda_cells import grid_of, upload_maps

    memory, n, frames = DeviceMemory(), size.n, size.at_once
    args = batch.first(frames)
    joints, blocks = args[0].shape[4], blocks_a_side(n)
    maps = upload_maps(memory, *args, FLOOR)
    few = max(frames // 4, 1)
    whole = memory.array("whole", (few * n**3 * joints,), np.float32)
    survey = make_survey(memory, np.full((joints, blocks, blocks, blocks), size.cut), frames, n, np.float32)
    rows = make_rows(memory, frames, joints, whole_tiles(size.capacity))
    (limbs, levels), told = limbs_of(batch.tree), make_told(memory, frames, joints, rows.spot.shape[2])
    bounds = make_bounds(memory, survey.kept, survey.dropped)
    belief, total = memory.array("belief", rows.value.shape), memory.array("total", (frames, joints))
    sums, missed = memory.array("sums", (frames, joints, SUMS)), memory.array("missed", (frames, joints))
    one, each = np.float32(1), (joints, frames)
    steps: dict[str, Callable[[], Any]] = {
        "maps to the device": lambda: upload_maps(memory, *args, FLOOR),
        "survey and count": lambda: count_kept(memory, maps, survey, rows.count, size.capacity),
        "write": lambda: write_kept(maps, survey, rows.spot, rows.value),
        "boxes": lambda: find_boxes(rows),
        "messages": lambda: all_messages(limbs, levels, rows, told),
        "marginals": lambda: conclude[each, THREADS](limbs, rows, told, belief, total),
        "bounds on blocks": lambda: bound_all(limbs, levels, rows, told, bounds, total, missed),
        "moments": lambda: add_moments[each, THREADS](rows.count, rows.spot, belief, sums),
    }
    for name, call in steps.items():
        spent = median_ms(call, size.repeats)
        print(f"  {name:58}{spent:10.3f} ms{1e3 * spent / frames:10.2f} us a frame")
    filled = median_ms(lambda: fill[grid_of(blocks**3, joints, few), THREADS](maps, one, whole), size.repeats)
    bytes_moved = whole.nbytes + few * args[0][0].nbytes
    rate = bytes_moved / filled / 1e6
    print(f"  {f'unproject, all voxels of {few} frames':58}{filled:10.3f} ms{1e3 * filled / few:10.2f} us a frame")
    print(f"  {'':58}{rate:10.1f} GB/s, {100 * rate / copies:.0f} % of a copy's")


def time_messages(batch: Batch, size: Size) -> None:
    """Print milliseconds of a message by either route, from arrays to arrays on the host; and of all of a frame's."""
    n, rng = size.n, np.random.default_rng(0)
    shell = batch.tree.limbs[0][2]
    few = rng.permutation(n**3)[: min(4096, n**3)].astype(np.int32)
    every = np.arange(n**3, dtype=np.int32)
    routes = (f"pairs of {len(few)} voxels", few, "pairs"), ("transform, all voxels", every, "transform")
    for name, place, route in routes:
        belief = rng.random(len(place))
        spent = median_ms(lambda: limb_message(belief, place, place, shell, n, "cuda", route), size.repeats)  # noqa: B023
        print(f"  {'limb_message, ' + name:58}{spent:10.3f} ms")
    active = all_voxels(unproject(*batch.one(0), FLOOR))
    spent = median_ms(lambda: sum_product(batch.tree, active, n, "cuda"), min(size.repeats, 3))
    print(f"  {'sum_product, all voxels of a frame':58}{spent:10.3f} ms")


def time_frames(batch: Batch, size: Size) -> None:
    """Print frames a second for batches of every size, and of the kernels for CPUs on one core."""
    for frames in size.batches:
        args = (*batch.first(frames), FLOOR, size.cut, batch.tree)
        spent = median_ms(lambda: infer_frames(*args, "cuda", size.capacity), size.repeats)  # noqa: B023
        print(f"  {f'batches of {frames}':58}{spent:10.2f} ms{1e3 * frames / spent:10.1f} frames/s")
    frames = min(6, max(size.batches))
    args = (*batch.first(frames), FLOOR, size.cut, batch.tree)
    begin = time.perf_counter()
    infer_frames(*args, "reference", size.capacity)
    print(f"  {'bodies for CPUs, one thread':58}{'':13}{frames / (time.perf_counter() - begin):10.1f} frames/s")


def main() -> int:
    """Print everything; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", action="store_true")
    simulate = parser.parse_args().simulate
    if simulate and os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # looked at when Numba is imported, which has been already
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if what_is_missing():
        print(f"no GPU to measure: {what_is_missing()}", file=sys.stderr)
        return 2
    from cuda_kernels.device import SIMULATED, cuda

    if SIMULATED:
        from cuda_kernels.simulator import mend

        mend()
    size = TINY if SIMULATED else Size()
    name = "Numba's simulator" if SIMULATED else cuda.get_current_device().name
    name = name.decode() if isinstance(name, bytes) else name
    print(f"{name}; {size.n}^3 voxels, {size.views} views, {len(size.joints)} joints")
    batch = make_batch(size)
    print("difference to the bodies for CPUs")
    check_kernels(batch, size)
    check_frames(batch, size)
    print("copies")
    copies = time_copies(size)
    print(f"kernels, {size.at_once} frames at once on the device")
    time_kernels(batch, size, copies)
    print("kernels, one frame, from and to the host")
    time_messages(batch, size)
    print("whole frames, from and to the host")
    time_frames(batch, size)
    return 0


if __name__ == "__main__":
    sys.exit(main())

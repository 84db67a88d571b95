"""Every kernel by views, joints and grid: milliseconds, what it achieves, and its share of this machine's ceiling.

    python benchmarks/kernel_table.py [--quick]

One core, one frame; one size at a time is moved away from 4 views, 16 joints, 64^3 voxels. Made-up clean maps, floor
1e-4, tolerance 1e-4. Joints beyond the figure's sixteen lie on them, a voxel long limb away. Ceilings are measured
first. Arithmetic is what the method asks for, comparisons included, not what a body may do besides.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ceilings import gflops, gigabytes
from frame_time import best_ms
from scenes import SIDE_M, model, scene, unprojection

from cuda_kernels.active import all_voxels, blocks_a_side
from cuda_kernels.block_bound import weight_bound
from cuda_kernels.limb_message import limb_message
from cuda_kernels.moments import moments
from cuda_kernels.shell import interval_shell
from cuda_kernels.sum_product import sum_product
from cuda_kernels.tree import Tree
from cuda_kernels.unproject import unproject, unproject_active
from harvest.reconstruct.pictorial import FIRST_CUT, PictorialSettings

FLOOR, TOLERANCE = 1e-4, 1e-4
VIEWS, JOINTS, GRIDS = (2, 4, 8, 16, 31), (16, 17, 25, 133), (32, 64, 96, 128)
A_SAMPLE = 9  # operations of a view, joint and voxel: four multiply-adds, one product
A_PROJECTION = 60  # of a view and voxel: rotation, division, distortion, affine, weights
A_PAIR = 11  # of a pair of voxels: squared distance, two comparisons, a sum
A_MOMENT = 26  # of a voxel's share in a mean and a covariance


@dataclass(frozen=True)
class Case:
    """One size of the problem."""

    views: int = 4
    joints: int = 16
    grid: int = 64

    def problem(self) -> tuple[Any, Any, Any, Tree]:
        """Maps with cells and cameras, the grid, its centre's joints, and the tree."""
        rig, maps, affine, xyz = scene(self.views, "clean", 0)
        step = SIDE_M / self.grid
        tree = model(PictorialSettings(voxels=self.grid)).tree(step)
        own = maps.shape[3]
        maps = np.ascontiguousarray(maps[..., np.arange(self.joints) % own])
        more = range(own, self.joints)
        parents = np.concatenate([tree.parents, np.array([joint % own for joint in more], np.int64)])
        shells = [*tree.shells, *(interval_shell(1.0, 1.0) for _ in more)]
        grid = (xyz.min(0) + xyz.max(0)) / 2, SIDE_M, self.grid
        return (maps, *unprojection(rig, affine)), grid, xyz, Tree(parents, [*tree.order, *more], shells)


def cases(quick: bool) -> Iterator[Case]:
    """The sizes: each moved by itself."""
    yield Case()
    for name, values in (("views", VIEWS), ("joints", JOINTS), ("grid", GRIDS)):
        for value in values[:2] if quick else values:
            if value != getattr(Case(), name):
                yield replace(Case(), **{name: value})


def measure(case: Case, repeats: int) -> Iterator[tuple[str, float, float, str]]:
    """Kernel, milliseconds, 10^9 operations or bytes, and which of the ceilings they belong to."""
    views, grid, _, tree = case.problem()
    n, voxels = case.grid, case.grid**3
    cut = np.full((case.joints,) + (blocks_a_side(n),) * 3, FIRST_CUT * TOLERANCE)
    whole = unproject(*views, grid, FLOOR)
    ms = best_ms(lambda: unproject(*views, grid, FLOOR, out=whole), repeats)
    work = voxels * case.views * (A_SAMPLE * case.joints + A_PROJECTION)
    yield "unproject every voxel", ms, 1e-9 * work, "float32"
    yield "  the same, as bytes written", ms, 1e-9 * whole.nbytes, "copy"
    active = unproject_active(*views, grid, FLOOR, cut)
    yield "unproject and prune", best_ms(lambda: unproject_active(*views, grid, FLOOR, cut), repeats), 0.0, ""
    counts = active.counts
    pairs = sum(2 * float(counts[a]) * float(counts[b]) for a, b, _ in tree.limbs)
    found = sum_product(tree, active, n)
    yield (
        "all messages, pairs",
        best_ms(lambda: sum_product(tree, active, n), repeats),
        1e-9 * A_PAIR * pairs,
        "float32",
    )
    yield "certificate", best_ms(lambda: weight_bound(tree, active, found, n), repeats), 0.0, ""
    rows = active.starts
    ms = best_ms(lambda: moments(found.marginal, active.place, rows, grid), repeats)
    yield "moments", ms, 1e-9 * A_MOMENT * float(rows[-1]), "scalar"
    every, child = all_voxels(whole[..., :1]), tree.limbs[0][0]
    shell, belief = tree.shells[child], every.value
    assert shell is not None
    ms = best_ms(lambda: limb_message(belief, every.place, every.place, shell, n, route="transform"), repeats)
    period = n + shell.reach
    yield "one dense message", ms, 2e-9 * period * (n * n + n * period + period * period) * n / 2, "float64"


def main() -> None:
    """Print the ceilings and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two sizes of each kind")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    single, double = gflops(False), gflops(True)
    copy, near = gigabytes(2**28), gigabytes(2**21)
    ceiling = {"float32": single, "float64": double, "copy": copy, "scalar": double / 8}
    print(f"one core: {single:.0f} GFLOP/s float32, {double:.0f} float64, {double / 8:.0f} float64 without vectors;")
    print(f"copies {copy:.0f} GB/s from memory, {near:.0f} GB/s within the last cache (bytes read and written)\n")
    print(f"{'kernel':30}{'views':>6}{'joints':>7}{'grid':>6}{'ms':>10}{'achieved':>16}{'of ceiling':>12}")
    for case in cases(args.quick):
        for kernel, ms, work, kind in measure(case, args.repeats):
            line = f"{kernel:30}{case.views:6d}{case.joints:7d}{case.grid:6d}{ms:10.3f}"
            if kind:
                rate = work / ms * 1e3
                line += f"{rate:9.1f} {'GB/s' if kind == 'copy' else 'GFLOP/s':7}{rate / ceiling[kind]:11.0%}"
            print(line, flush=True)


if __name__ == "__main__":
    main()

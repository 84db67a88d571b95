"""Volumetric triangulation as published, on the CPU: plain PyTorch against ours, the same weights, in one run.

Plain is the published design as one writes it down: each view's voxels through a projection matrix, sampled by
`grid_sample`, all of them kept, their softmax; the 3D network in float32 with its batch norms. Ours is what
`harvest run` does with published weights. Four views, 64^3 voxels, 32 channels, 17 joints, features of 96 x 96 cells.
Weights are random, those of the batch norms too, scaled so that volumes have clear peaks; the difference is that of the
joints' places.

    python benchmarks/volumetric_speed.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from harvest.detect2d.hourglass_detector import fast_bf16
from harvest.memory import keep_memory
from harvest.triangulate3d.folded import folded
from harvest.triangulate3d.volume_network import VolumeNetwork
from harvest.triangulate3d.volumetric import CHANNELS, Cube, unproject, volume_soft_argmax

VIEWS, JOINTS, VOXELS, CELLS, SIDE_M = 4, 17, 64, 96, 2.5


def plain_unproject(features: Tensor, projections: Tensor, voxels: Tensor) -> Tensor:
    """(C, n, n, n) the softmax over views of features (V, C, h, w) at voxels (n, n, n, 3)."""
    shape = voxels.shape[:3]
    points = torch.cat([voxels.reshape(-1, 3), torch.ones(voxels[..., 0].numel(), 1)], dim=1)
    shown = []
    for view in range(len(features)):
        at = points @ projections[view].T
        cells = at[:, :2] / at[:, 2:]
        grid = (2 * cells + 1) / CELLS - 1
        found = functional.grid_sample(features[view, None], grid[None, :, None], align_corners=False)
        shown.append(found.reshape(-1, *shape) * (at[:, 2] > 0).reshape(shape))
    volume = torch.stack(shown)
    return (volume.softmax(dim=0) * volume).sum(dim=0)


def scene(seed: int) -> tuple[Tensor, Tensor, Cube]:
    """Features (1, V, C, h, w) of random bumps, projections (1, V, 3, 4) to their cells, and the cube."""
    torch.manual_seed(seed)
    features = functional.interpolate(torch.randn(VIEWS, CHANNELS, 24, 24), CELLS, mode="bicubic")[None]
    projections = torch.zeros(VIEWS, 3, 4)
    for view in range(VIEWS):
        angle = torch.tensor(0.3 + 1.6 * view)
        right = torch.stack([angle.sin(), -angle.cos(), torch.tensor(0.0)])
        ahead = torch.stack([-angle.cos(), -angle.sin(), torch.tensor(0.0)])
        down = torch.tensor([0.0, 0.0, -1.0])
        pose = torch.cat([torch.stack([right, down, ahead]), torch.tensor([[0.0], [0.0], [4.0]])], dim=1)
        middle = torch.tensor([[140.0, 0, CELLS / 2], [0, 140.0, CELLS / 2], [0, 0, 1.0]])
        projections[view] = middle @ pose
    return features, projections[None], Cube(torch.zeros(1, 3), SIDE_M, VOXELS)


def network() -> VolumeNetwork:
    """Of the published sizes, with batch norms that have seen something, and volumes with peaks."""
    torch.manual_seed(0)
    made = VolumeNetwork(CHANNELS, JOINTS).eval()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.uniform_(part.weight, 0.8, 1.2)
            nn.init.normal_(part.bias, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return made


def best(work: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Least seconds of so many repeats, and the result."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:]), found


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    keep_memory()
    features, projections, cube = scene(1)
    plain, quick, voxels = network(), folded(network()), cube.voxels_m()[0]
    bf16 = fast_bf16()

    def fast_network(volume: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found: Tensor = quick(volume)
        return found

    ways = {
        "unprojection": (
            lambda: plain_unproject(features[0], projections[0], voxels)[None],
            lambda: unproject(features, projections, cube, "softmax"),
        ),
    }
    rows = {name: (best(one, args.repeats), best(two, args.repeats)) for name, (one, two) in ways.items()}
    before, after = (found for _, found in rows["unprojection"])
    rows["3D network"] = best(lambda: plain(before), args.repeats), best(lambda: fast_network(after), args.repeats)
    volumes = [found for _, found in rows["3D network"]]
    scale = 200 / float(volumes[0].std())
    rows["places"] = tuple(  # type: ignore[assignment]
        best(lambda v=volume: volume_soft_argmax(v, cube, scale).mean_m, args.repeats) for volume in volumes
    )
    print(f"{'seconds':14}{'plain':>9}{'ours':>9}{'times':>8}   bfloat16: {'yes' if bf16 else 'no'}")
    for name, ((slow, _), (fast, _)) in rows.items():
        print(f"{name:14}{slow:9.3f}{fast:9.3f}{slow / fast:8.1f}")
    slow, fast = (sum(row[way][0] for row in rows.values()) for way in (0, 1))
    print(f"{'together':14}{slow:9.3f}{fast:9.3f}{slow / fast:8.1f}")
    off = (rows["places"][0][1] - rows["places"][1][1]).norm(dim=-1).max()
    print(f"largest difference of voxels {float((before - after).abs().max()):.1e}, of places {float(off):.1e} m")


if __name__ == "__main__":
    main()

"""Convolutions of volumes on the CPU: PyTorch's against tiles of 2 and of 4, in milliseconds, and how exact they are.

The layers of the published volumetric network and of our own, random weights and volumes, each way in turns. Errors are
against float64, the largest and their standard deviation, as shares of the standard deviation of the result.

    python benchmarks/convolution_speed.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cuda_kernels.convolve3d import convolve3d, prepare
from harvest.memory import keep_memory

LAYERS = (
    *((7, 32, 16, 64), (3, 16, 32, 64), (3, 32, 32, 64), (3, 32, 64, 32), (3, 64, 64, 32), (3, 64, 128, 16)),
    *((3, 128, 128, side) for side in (16, 8, 4, 2)),
    *((3, 24, 12, 16), (3, 12, 24, 16), (3, 24, 24, 16), (3, 48, 48, 8), (3, 96, 96, 4), (3, 96, 96, 2)),
)

EXACT = 4  # layers of a volume that are compared: PyTorch needs gigabytes for a whole one in float64


def errors(found: Any, exact: Tensor) -> str:
    """Largest and usual, as a share of what there is, of the first layers of a volume."""
    off, scale = torch.from_numpy(np.asarray(found))[:, : exact.shape[1]].double() - exact, float(exact.std())
    return f"{float(off.abs().max()) / scale:.0e} {float(off.std()) / scale:.0e}"


def least_ms(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Of so many repeats of all ways in turns, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, work in ways.items():
            begin = time.perf_counter()
            work()
            taken[name].append(1e3 * (time.perf_counter() - begin))
    return {name: min(times[1:]) for name, times in taken.items()}


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    print(f"{threads} threads\n{'taps  channels  voxels':24}" + "".join(f"{way:>28}" for way in ("PyTorch", "2", "4")))
    for k, ins, outs, side in LAYERS:
        layer = nn.Conv3d(ins, outs, k, padding=k // 2).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        x = torch.randn(1, ins, side, side, side).relu().to(memory_format=torch.channels_last_3d)
        begin = x[:, :, : EXACT + k // 2].double()
        exact = nn.functional.conv3d(begin, layer.weight.double(), layer.bias.double(), padding=k // 2)[:, :, :EXACT]
        volume, bias = x.permute(0, 2, 3, 4, 1).numpy(), layer.bias.numpy()
        ways: dict[str, Callable[[], Any]] = {"PyTorch": lambda layer=layer, x=x: layer(x).permute(0, 2, 3, 4, 1)}
        for tile in (2, 4) if k == 3 else (4,):
            ready = prepare(layer.weight.numpy(), bias, tile)
            ways[str(tile)] = lambda volume=volume, ready=ready: convolve3d(volume, ready, threads=threads)
        exact = exact.permute(0, 2, 3, 4, 1)
        shown = {name: f"{ms:8.2f}" for name, ms in least_ms(ways, args.repeats).items()}
        cells = [
            f"{shown[way]}  ({errors(ways[way](), exact)})" if way in ways else "" for way in ("PyTorch", "2", "4")
        ]
        print(f"{f'{k}^3   {ins} -> {outs}   {side}^3':24}" + "".join(f"{cell:>28}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

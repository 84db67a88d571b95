"""Crops a second of our hourglass on the CPU: as it ships against plain float32, one crop and sixteen at a time.

Plain: float32, the C library's memory as it is by default. Each way has a process of its own, one after the other, in
turns, so that a machine that is busy now and then slows all of them.

    python benchmarks/detector_speed.py --weights hourglass.safetensors
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from harvest.detect2d.detectors import Engine
from harvest.detect2d.hourglass_detector import HourglassDetector
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.memory import keep_memory

WAYS: dict[str, tuple[bool, bool, Engine]] = {  # bf16, kept memory, engine
    "plain fp32": (False, False, "torch"),
    "fp32, kept memory": (False, True, "torch"),
    "bf16": (True, False, "torch"),
    "bf16, kept memory": (True, True, "torch"),
    "fp32, OpenVINO": (False, False, "openvino"),
    "bf16, OpenVINO": (True, False, "openvino"),
}
BATCHES = (1, 4, 16)
SECONDS, ROUNDS = 4.0, 3


def measure(weights: Path, bf16: bool, keep: bool, engine: Engine) -> list[float]:
    """Crops a second for each of BATCHES."""
    if keep:
        keep_memory()
    detector = HourglassDetector.from_file(weights, bf16=bf16, engine=engine)
    found = []
    for batch in BATCHES:
        crops = np.random.default_rng(0).integers(0, 255, (batch, 256, 256, 3), dtype=np.uint8)
        for _ in range(3):
            detector(crops)
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < SECONDS:
            detector(crops)
            count += batch
        found.append(count / (time.perf_counter() - begin))
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=shipped(DETECTOR))
    parser.add_argument("--way", choices=WAYS, help="measure this way only, in this process")
    args = parser.parse_args()
    if args.way:
        print(*measure(args.weights, *WAYS[args.way]))
        return
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            command = [sys.executable, __file__, "--weights", str(args.weights), "--way", way]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[way].append([float(value) for value in out.split()])
    print(f"{'crops a second, batch of':24}" + "".join(f"{batch:>9}" for batch in BATCHES) + "   times plain")
    plain = np.median(found["plain fp32"], axis=0)
    for way, rows in found.items():
        middle = np.median(rows, axis=0)
        print(f"{way:24}" + "".join(f"{value:9.1f}" for value in middle), "  ", np.round(middle / plain, 2))


if __name__ == "__main__":
    main()

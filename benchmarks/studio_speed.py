"""How fast is the studio? Crops, and sets of four pictures of one moment, a second, with one and with more processes.

    python benchmarks/studio_speed.py [--seconds 20] [--processes 1 2]

Files are made as `harvest studio` makes them, compression included; the start of the processes, the reading of the
bundle and compiling do not count. Ends with where the time of one process goes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from harvest.studio.crops import GROUP, Hardship
from harvest.studio.film import shoot
from harvest.studio.takes import TakeSettings
from pipelines.studio import Source, _bundle, _files_of_crops, _take, _write_shard, assets_folder

SETS = {
    "4 views of 640 x 480": TakeSettings(seed=1, frames=4000, fps=2000.0),
    "4 views of 1000 x 1000": TakeSettings(seed=1, frames=4000, fps=2000.0, size_px=(1000, 1000)),
}
STRETCH = 8
CONTENT = _files_of_crops, (1, "train", Hardship())


def crops(source: Source, seconds: float, number: int) -> tuple[int, float]:
    """Crops made, and seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        _write_shard(source, CONTENT, (0, 2), Path(folder) / "warm.tar")
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            first = (1000 * (number + 1) + done // GROUP) * GROUP
            _write_shard(source, CONTENT, (first, first + GROUP), Path(folder) / "part.tar")
            done += GROUP
    return done, time.perf_counter() - begin


def sets(source: Source, settings: TakeSettings, seconds: float, number: int) -> tuple[int, float]:
    """Moments filmed by all cameras, and seconds that it took."""
    _bundle(source)
    take = _take(source, settings)
    with tempfile.TemporaryDirectory() as folder:
        shoot(take, range(0, 2), Path(folder), False)
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            frame = (done + 997 * number) % (settings.frames - STRETCH)
            shoot(take, range(frame, frame + STRETCH), Path(folder), False)
            done += STRETCH
    return done, time.perf_counter() - begin


def together(call: Callable[..., tuple[int, float]], processes: int, *arguments: object) -> float:
    """How many a second all processes make."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(call, *arguments, number) for number in range(processes)]
        return sum(done / spent for done, spent in (future.result() for future in futures))


def main() -> None:
    """Print rates, then a profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    source: Source = (assets_folder(), False, None)
    for processes in args.processes:
        print(f"{processes} process(es): {together(crops, processes, source, args.seconds):.1f} crops/s", flush=True)
        for name, settings in SETS.items():
            rate = together(sets, processes, source, settings, args.seconds)
            print(f"{processes} process(es): {rate:.2f} sets/s, {name}", flush=True)
    crops(source, 1, 0)
    profile = cProfile.Profile()
    profile.enable()
    done, spent = crops(source, args.seconds, 1)
    profile.disable()
    print(f"\nof {1e3 * spent / done:.1f} ms a crop (measuring included), by themselves:")
    rows = sorted(pstats.Stats(profile).stats.items(), key=lambda row: -row[1][2])[:14]  # type: ignore[attr-defined]
    for (path, _, function), (_, _, own, _, _) in rows:
        print(f"  {1e3 * own / done:6.2f} ms  {Path(path).stem}.{function}")


if __name__ == "__main__":
    main()

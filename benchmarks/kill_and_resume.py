"""Kill a run at random moments with SIGKILL, go on, and compare every result with that of an undisturbed run.

python benchmarks/kill_and_resume.py --kills 20 --out kills -- --rig rig.yaml --videos videos --frames 0:40
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from harvest.store.tables import read_columns


def digest(run: Path) -> dict[str, str]:
    """SHA-256 of every table's values and every heat-map chunk of a run."""
    out = {}
    for table in [*run.glob("*.parquet"), run / "50_labels" / "labels.parquet"]:
        columns = read_columns(table)
        sha = hashlib.sha256()
        for name in sorted(columns):
            sha.update(
                name.encode()
                + np.asarray(columns[name]).astype("S" if columns[name].dtype == object else None).tobytes()
            )
        out[str(table.relative_to(run))] = sha.hexdigest()
    for chunk in sorted((run / "20_heatmaps.zarr").rglob("c/**/*")):
        if chunk.is_file():
            out[str(chunk.relative_to(run))] = hashlib.sha256(chunk.read_bytes()).hexdigest()
    return out


def main() -> None:
    """Print for each kill when it came and how far the run had got, and whether the result is equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("options", nargs="+", help="options of `harvest run`, after --")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    base = [sys.executable, "-m", "harvest.cli", "run", *args.options, "--out"]
    start = time.perf_counter()
    subprocess.run([*base, str(args.out / "whole")], check=True, capture_output=True)
    whole_s, truth = time.perf_counter() - start, digest(args.out / "whole")
    print(f"undisturbed: {whole_s:.1f} s, {len(truth)} results")
    rng, equal, killed = np.random.default_rng(1), 0, 0
    run = args.out / "killed"
    while killed < args.kills:
        moments = []
        shutil.rmtree(run, ignore_errors=True)
        while True:
            process = subprocess.Popen([*base, str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            after = float(rng.uniform(0.1, whole_s))
            try:
                process.wait(timeout=after if killed < args.kills else None)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                last = sorted(p.name for p in run.iterdir())[-1] if run.is_dir() else "nothing"
                moments.append(f"{after:.1f} s ({last})")
        same = process.returncode == 0 and digest(run) == truth
        equal += same
        print(f"killed at {', '.join(moments) or 'no moment'}: {'equal' if same else 'DIFFERENT'}", flush=True)
        if not same:
            sys.exit(1)
    print(f"{killed} kills, every result equal")


if __name__ == "__main__":
    main()

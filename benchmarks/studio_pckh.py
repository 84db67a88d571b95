"""Detectors on rendered people they were not trained on: PCKh at 0.5 and 0.2, joint by joint.

harvest studio crops --split test --n 2048 --out sets/test
python benchmarks/studio_pckh.py --crops sets/test --detectors blazepose harvest/models/hourglass-s.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from harvest.detect2d.detectors import make_detector
from harvest.learn.joints_task import pckh
from harvest.learn.samples import find_samples
from harvest.memory import keep_memory


def main() -> None:
    """Print a table for each detector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--detectors", nargs="+", required=True, help="blazepose, or weights files of hourglasses")
    parser.add_argument("--flip-test", action="store_true")
    args = parser.parse_args()
    keep_memory()
    places = find_samples(args.crops)
    names = {}
    for name in args.detectors:
        kind = ("blazepose", None) if name == "blazepose" else ("hourglass", Path(name))
        detector = make_detector(*kind, flip_test=args.flip_test)
        names[name] = dict(zip(detector.joints, pckh(detector, places).T, strict=True))
    joints = {joint: None for shares in names.values() for joint, share in shares.items() if np.isfinite(share).all()}
    both = [joint for joint in joints if all(joint in shares for shares in names.values())]
    print(f"{len(places)} crops; PCKh at 0.5 and 0.2, all joints inside the picture, hidden ones too")
    print(f"{'':14}" + "".join(f"{'/'.join(Path(name).parts[-2:])[-24:]:>26}" for name in names))
    for joint in joints:
        cells = [shares.get(joint) for shares in names.values()]
        print(f"{joint:14}" + "".join(f"{'':26}" if c is None else f"{c[1]:18.3f}{c[0]:8.3f}" for c in cells))
    for title, chosen in (("shared joints", both), ("all its joints", None)):
        means = [
            np.mean([shares[joint] for joint in chosen or shares if joint in joints], 0) for shares in names.values()
        ]
        print(f"{title:14}" + "".join(f"{mean[1]:18.3f}{mean[0]:8.3f}" for mean in means))


if __name__ == "__main__":
    main()

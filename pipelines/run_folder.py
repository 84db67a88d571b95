"""The folder of a run: names of its files, the fingerprints they carry, and its log."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
import zarr

from harvest.errors import UserError
from harvest.store.atomic import write_text_atomically
from harvest.store.tables import table_fingerprint

FILES = {
    "locate": "10_boxes.parquet",
    "detect": "20_heatmaps.zarr",
    "reconstruct": "30_poses.parquet",
    "select": "40_selection.parquet",
    "label": "50_labels",
    "report": "report.html",
}
LIMBS = "30_limbs.yaml"
FINGERPRINT_COMMENT = re.compile(r"<!-- harvest_fingerprint: ([0-9a-f]+) -->\s*$")


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; nothing exists before `create`."""

    path: Path

    def create(self) -> None:
        """Make the folder; raises UserError where a file is in the way or it holds something else."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; give a folder for the run")
        ours = {"run.yaml", "rig.yaml"} | {name + ".partial" for name in ("run.yaml", "rig.yaml")}
        found = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        if "run.yaml" not in found and found - ours:
            raise UserError(
                f"--out {self.path} holds other files and no run.yaml; give a new or empty folder, or a run's"
            )
        self.path.mkdir(parents=True, exist_ok=True)

    def file(self, stage: str) -> Path:
        """The file or folder that a stage writes."""
        return self.path / FILES[stage]

    @property
    def limbs(self) -> Path:
        """Limb lengths and skeleton, which the reconstruction writes beside its poses."""
        return self.path / LIMBS

    def inputs(self) -> dict[str, Path]:
        """Files of stages that later ones read, by what they hold."""
        names = {"boxes": "locate", "heatmaps": "detect", "poses": "reconstruct", "selection": "select"}
        return {name: self.file(stage) for name, stage in names.items()} | {"limbs": self.limbs}

    def stored_fingerprint(self, stage: str) -> str | None:
        """The fingerprint that a stage's result carries; None where there is no finished result."""
        path = self.file(stage)
        if not path.exists():
            return None
        if path.suffix == ".parquet":
            return table_fingerprint(path)
        if path.suffix == ".zarr":
            return str(dict(zarr.open_group(path, mode="r").attrs).get("fingerprint"))
        if path.is_dir():
            return str(json.loads((path / "fingerprint.json").read_text(encoding="utf-8"))["fingerprint"])
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 100, 0))
            found = FINGERPRINT_COMMENT.search(file.read().decode("utf-8", "replace"))
        return found.group(1) if found else None

    def read_record(self) -> dict[str, Any]:
        """run.yaml as it stands: settings, and per stage what its fingerprint was made of."""
        path = self.path / "run.yaml"
        return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace run.yaml."""
        text = yaml.safe_dump(record, sort_keys=False, width=120)
        write_text_atomically(self.path / "run.yaml", text)

    def log(self, **entry: Any) -> None:
        """Add one line to log.jsonl."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **entry}) + "\n")

"""The whole method on one screen: videos and rig in; boxes, heat maps, poses, selection, labels and a report out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cuda_kernels.gpu import need_gpu
from harvest import __version__
from harvest.detect2d.detectors import finder_fingerprint, weights_fingerprint
from harvest.memory import keep_memory
from harvest.skeleton import BUILT_IN
from harvest.store.atomic import write_text_atomically
from harvest.store.fingerprint import fingerprint, folder_fingerprint
from harvest.store.wheel import sha256_of
from harvest.uncertainty import load_calibration
from pipelines.capture import Capture
from pipelines.compiling import tell_of_compiling
from pipelines.run_folder import RunFolder
from pipelines.settings import Settings
from pipelines.stages.detect import run_detect
from pipelines.stages.label import run_label
from pipelines.stages.learnt import triangulator_file, triangulator_of
from pipelines.stages.locate import finder_of, run_locate
from pipelines.stages.reconstruct import run_reconstruct
from pipelines.stages.report import run_report
from pipelines.stages.select import run_select

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One stage: its name, a version that changes when its results do, what it reads, and the call that does it."""

    name: str
    version: int
    needs: tuple[str, ...]
    do: Callable[[Run, Path, str], str]


@dataclass
class Run:
    """One run: what it works on, where it writes, how; and what each stage has told so far."""

    capture: Capture
    folder: RunFolder
    settings: Settings
    boxes: Path | None = None

    def __post_init__(self) -> None:
        """Start without any stage done."""
        self.keys: dict[str, str] = {}
        self.story: list[tuple[str, float, str]] = []


def _locate(run: Run, out: Path, key: str) -> str:
    return run_locate(run.capture, (run.settings.locate, run.settings.detect, run.boxes), out, key)


def _detect(run: Run, out: Path, key: str) -> str:
    return run_detect(run.capture, run.settings.detect, run.folder.file("locate"), out, key)


def _reconstruct(run: Run, out: Path, key: str) -> str:
    heatmaps, boxes = run.folder.file("detect"), run.folder.file("locate")
    return run_reconstruct(run.capture, run.settings.reconstruct, heatmaps, boxes, out, key)


def _select(run: Run, out: Path, key: str) -> str:
    calibration = load_calibration(run.settings.reconstruct.method)
    poses, rig = run.folder.file("reconstruct"), run.capture.rig
    return run_select(run.settings.select, poses, rig, calibration, out, key)


def _label(run: Run, out: Path, key: str) -> str:
    origin = {
        "harvest": __version__,
        "capture": run.capture.fingerprint,
        "weights": weights_fingerprint(run.settings.detect.detector, run.settings.detect.weights),
        **{stage: run.keys[stage] for stage in ("detect", "reconstruct", "select")},
    }
    return run_label(run.capture, run.settings.label, run.folder.inputs(), origin, out, key)


def _report(run: Run, out: Path, key: str) -> str:
    settings = run.settings.model_dump(mode="json")
    story = {"title": run.folder.path.resolve().name, "stages": run.story, "settings": settings}
    return run_report(run.capture, run.settings.report, run.folder.inputs(), story, out, key)


STAGES = (
    Stage("locate", 1, (), _locate),
    Stage("detect", 1, ("locate",), _detect),
    Stage("reconstruct", 2, ("locate", "detect"), _reconstruct),
    Stage("select", 2, ("reconstruct",), _select),
    Stage("label", 1, ("detect", "reconstruct", "select"), _label),
    Stage("report", 1, ("locate", "detect", "reconstruct", "select", "label"), _report),
)


def ingredients(run: Run, stage: Stage) -> dict[str, Any]:
    """Everything that a stage's result depends on, by name: equal ingredients, equal result."""
    parts: dict[str, Any] = {"stage": stage.name, "version": stage.version, "capture": run.capture.fingerprint}
    parts["settings"] = getattr(run.settings, stage.name).model_dump(mode="json")
    detect, skeleton = run.settings.detect, run.settings.reconstruct.skeleton
    if stage.name == "locate" and run.boxes:
        parts["boxes"] = folder_fingerprint(run.boxes)
    if stage.name in ("locate", "detect") and detect.detector == "keypoints" and detect.keypoints:
        parts["keypoints"] = folder_fingerprint(detect.keypoints)
    if stage.name == "locate" and not run.boxes and detect.detector != "keypoints":
        locate = run.settings.locate
        parts["finder"] = finder_fingerprint(finder_of(locate, detect), locate.weights)
    if stage.name == "detect":
        parts["weights"] = weights_fingerprint(detect.detector, detect.weights)
    if stage.name == "reconstruct" and skeleton and skeleton not in BUILT_IN:
        parts["skeleton file"] = folder_fingerprint(Path(skeleton))
    if stage.name == "reconstruct" and (weights := triangulator_file(run.settings.reconstruct)) is not None:
        parts["weights"] = sha256_of(weights)[:16] if weights.is_file() else "none"
    if stage.name == "select":
        parts["calibration"] = asdict(load_calibration(run.settings.reconstruct.method))
    return parts | {f"result of {need}": run.keys[need] for need in stage.needs}


def why(run: Run, stage: Stage, parts: dict[str, Any]) -> str | None:
    """Why a stage has to be done, in words; None where its result stands already."""
    stored = run.folder.stored_fingerprint(stage.name)
    if stored == run.keys[stage.name]:
        return None
    if stored is None:
        return "no finished result"
    before = run.folder.read_record().get("stages", {}).get(stage.name, {})
    changed = [name for name in parts if before.get(name) != parts[name]]
    if changed == ["settings"] and isinstance(before.get("settings"), dict):
        new, old = parts["settings"], before["settings"]
        changed = [f"{name} {old.get(name)} -> {new[name]}" for name in new if old.get(name) != new[name]]
    return f"changed: {', '.join(changed) or 'the result itself'}"


def plan(run: Run) -> list[tuple[str, str | None]]:
    """Each stage with the reason why it would run, None where its result would be reused."""
    steps = []
    for stage in STAGES:
        parts = ingredients(run, stage)
        run.keys[stage.name] = fingerprint(parts)
        steps.append((stage.name, why(run, stage, parts)))
    return steps


def execute(run: Run, last: str = STAGES[-1].name) -> None:
    """Do every stage up to `last` whose result does not stand already, one after the other; a killed run goes on when
    run again.

    Raises:
        NoGpuError: backend 'cuda' was asked for where it cannot run; nothing is done then.
        UserError: the method is learnt, and its weights cannot be used; nothing is done then either.
    """
    if run.settings.reconstruct.backend == "cuda":
        need_gpu()
    triangulator_of(run.settings.reconstruct)
    keep_memory()
    tell_of_compiling()
    run.folder.create()
    run.folder.write_record(run.folder.read_record())
    write_text_atomically(run.folder.path / "rig.yaml", run.capture.rig.to_yaml())
    for stage in STAGES[: [stage.name for stage in STAGES].index(last) + 1]:
        parts = ingredients(run, stage)
        run.keys[stage.name] = fingerprint(parts)
        reason = why(run, stage, parts)
        start = time.perf_counter()
        told = stage.do(run, run.folder.file(stage.name), run.keys[stage.name]) if reason else "reused"
        seconds = time.perf_counter() - start
        _remember(run, stage, parts, (seconds, reason, told))


def _remember(run: Run, stage: Stage, parts: dict[str, Any], outcome: tuple[float, str | None, str]) -> None:
    seconds, reason, told = outcome
    run.story.append((stage.name, seconds, f"done ({reason})" if reason else "reused (nothing it depends on changed)"))
    _log.info("%-11s %s%s", stage.name, told, f", {seconds:.1f} s ({reason})" if reason else " (nothing changed)")
    run.folder.log(stage=stage.name, seconds=round(seconds, 3), reason=reason or "reused", result=told)
    record = run.folder.read_record()
    record["settings"] = run.settings.model_dump(mode="json")
    record.setdefault("stages", {})[stage.name] = parts | {"fingerprint": run.keys[stage.name]}
    run.folder.write_record(record)

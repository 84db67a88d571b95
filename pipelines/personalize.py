"""The loop from a run to a detector of its subject, and from there to a better run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.rig import load_rig
from harvest.detect2d.hourglass import StackedHourglass
from harvest.detect2d.hourglass_detector import HourglassDetector
from harvest.detect2d.hourglass_files import load_hourglass
from harvest.detect2d.weights import DETECTOR, shipped
from harvest.errors import UserError
from harvest.labels import TEACHERS
from harvest.learn.detector import WEIGHTS, Folders
from harvest.learn.joints_task import peaks_in_crops
from harvest.learn.personal import MEASURE_BATCH, PersonalSettings, PersonalTraining, losses_of
from harvest.learn.samples import Place, find_samples, read_files, read_sample
from harvest.learn.training import CURVE
from harvest.reconstruct.methods import for_skeleton
from harvest.reconstruct.unseen import unseen_view_errors
from harvest.report.overlays import evenly_spread
from harvest.report.personal import HeldOutCrop, PersonalPage, write_personal_page
from harvest.skeleton import Skeleton
from harvest.store.atomic import write_text_atomically
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_boxes
from pipelines.capture import open_capture
from pipelines.harvested_crops import crops_of_run, finished_run
from pipelines.run import STAGES, Run, execute
from pipelines.run_folder import RunFolder
from pipelines.settings import Settings
from pipelines.stages.reconstruct import skeleton_for

ORDER, SUMMARY, PAGE = "order.json", "summary.json", "report.html"
LOOKED_AT, SHOWN = 64, 6  # held-out pictures
LEAST_GAIN = 0.02  # of the error on unseen views, for another round


@dataclass(frozen=True)
class Order:
    """What to personalise on, and where.

    labels: of TEACHERS. rounds: at most so many times labels are harvested and learnt from. held_out: share of the
    frames, the last ones, that is measured on and never learnt from. start: weights; None takes those of the run, or
    the package's. boxes: the file that the run was given, if it was.
    """

    run: Path
    videos: Path
    out: Path
    labels: str = TEACHERS[0]
    rounds: int = 1
    held_out: float = 0.15
    start: Path | None = None
    boxes: Path | None = None


@dataclass(frozen=True)
class Round:
    """What a round has come to: its weights, the run with them, the mean error on unseen views in held-out frames
    before and after it (shares of a crop's side, NaN with fewer than three views), and losses there.
    """

    weights: Path
    run: Path
    before: float
    after: float
    losses: list[float]

    @property
    def gain(self) -> float:
        """Share of the error that is gone; NaN where it is not known, or there was none."""
        return 1 - self.after / self.before if self.before > 0 else math.nan


def personalize(order: Order, settings: PersonalSettings, epochs: int = 4, most_seconds: float = math.inf) -> list[str]:
    """Fine-tune the detector on a run's labels, run again with it, and so on while views agree better; lines about it.

    `out` gets hourglass.safetensors, the best round's weights; report.html; and a folder for each round with its
    crops, its training and its run. A stopped command goes on.

    Args:
        settings: of the training; steps, start and how often to measure follow from the order.
    Raises:
        UserError: no finished run, videos that are not its own, too few frames, or a folder of another order.
    """
    folder = finished_run(order.run)
    cut = learnt_frames(order)
    _claim(order, settings, epochs)
    rounds: list[Round] = []
    last, start = order.run, order.start or _weights_of(folder)
    for number in range(1, order.rounds + 1):
        place = order.out / f"round_{number}"
        own = dataclasses.replace(settings, start=str(start))
        weights = learn_round(order, place, last, own, epochs, most_seconds)
        if weights is None:
            return [f"stopped in round {number}; run the same command again to go on"]
        rerun(last, order.videos, place / "run", weights, order.boxes)
        before, after = (_mean(_unseen(run, cut)) for run in (last, place / "run"))
        rounds.append(Round(weights, place / "run", before, after, losses_of(place / CURVE)))
        last, start = place / "run", weights
        if not rounds[-1].gain >= LEAST_GAIN:
            break
    return _finish(order, rounds, cut)


def _claim(order: Order, settings: PersonalSettings, epochs: int) -> None:
    """Make the folder this order's own, or go on in it."""
    run = finished_run(order.run)
    record = {"run": run.stored_fingerprint("label"), "labels": order.labels, "held_out": order.held_out}
    record |= {"epochs": epochs, "way": settings.way, "rank": settings.rank, "seed": settings.seed}
    record |= {"start_share": settings.start_share, "batch": settings.batch, "rate": settings.rate}
    path = order.out / ORDER
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if changed := [name for name in record if before.get(name) != record[name]]:
            was = ", ".join(f"{name} {before.get(name)} (now {record[name]})" for name in changed)
            raise UserError(f"{order.out} was begun with {was}; give another --out, or the same options to go on")
    elif order.out.exists() and any(order.out.iterdir()):
        raise UserError(f"{order.out} holds other files; give a new or an empty --out")
    order.out.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(record, indent=1) + "\n")


def _weights_of(folder: RunFolder) -> Path:
    """What the run's hourglass was, the package's where it had none."""
    detect = folder.read_record().get("settings", {}).get("detect", {})
    given = detect.get("weights") if detect.get("detector") == "hourglass" else None
    return Path(given) if given else shipped(DETECTOR)


def learn_round(
    order: Order, place: Path, run: Path, settings: PersonalSettings, epochs: int, most_seconds: float = math.inf
) -> Path | None:
    """Weights learnt, in a folder, from a run's labels; None where time was up before the end."""
    cut = learnt_frames(order)
    for name, part in (("crops", slice(0, cut)), ("held_out", slice(cut, None))):
        if not (place / name).is_dir():
            shutil.rmtree(place / f"{name}.partial", ignore_errors=True)
            crops_of_run(run, order.videos, place / f"{name}.partial", order.labels, part)
            os.replace(place / f"{name}.partial", place / name)
    batches = math.ceil(len(find_samples(place / "crops")) / settings.batch)
    chosen = dataclasses.replace(settings, steps=epochs * batches, validate_every=batches)
    training = PersonalTraining(Folders(place / "crops", place / "held_out"), place, chosen)
    training.run(most_seconds)
    return place / WEIGHTS if training.step >= chosen.steps or training.enough else None


def learnt_frames(order: Order) -> int:
    """How many of the run's frames are learnt from: all but the last share that is held out.

    Raises:
        UserError: too few for both.
    """
    frames = len(read_boxes(RunFolder(order.run).file("locate")).frames)
    cut = frames - max(round(order.held_out * frames), 1)
    if cut < 1:
        raise UserError(f"{order.run} has {frames} frames; personalising needs 2 or more")
    return cut


def rerun(
    run: Path, videos: Path, out: Path, weights: Path, boxes: Path | None = None, last: str = STAGES[-1].name
) -> None:
    """Run again as a finished run was, on the same frames and views, with other weights, up to a stage.

    Raises:
        UserError: the run was given boxes, and these are not given.
    """
    former, folder = RunFolder(run), RunFolder(out)
    record = former.read_record()
    if boxes is None and "boxes" in record["stages"]["locate"]:
        raise UserError(f"{run} was made with a file of boxes; give it as --boxes")
    settings = Settings.model_validate(record["settings"])
    detect = settings.detect.model_copy(update={"detector": "hourglass", "weights": weights, "keypoints": None})
    located = read_boxes(former.file("locate"))
    capture = open_capture(run / "rig.yaml", videos, _spec(located.frames), None)
    folder.create()
    if folder.stored_fingerprint("locate") is None:  # the person is where it was; reused if all it depends on is equal
        folder.write_record(folder.read_record())
        shutil.copy(former.file("locate"), folder.file("locate"))
    execute(Run(capture, folder, settings.model_copy(update={"detect": detect}), boxes), last)


def _spec(frames: NDArray[np.int64]) -> str:
    """start:stop:step of a run's frames."""
    step = int(frames[1] - frames[0]) if len(frames) > 1 else 1
    return f"{frames[0]}:{frames[-1] + 1}:{step}"


def _unseen(run: Path, cut: int, skeleton: Skeleton | None = None) -> NDArray[np.float64]:
    """(T, V, J) errors on unseen views of a run's frames from place `cut` on, of a skeleton's joints or all that the
    detector has; NaN with fewer than three views.
    """
    rig, store = load_rig(run / "rig.yaml"), HeatmapStore(RunFolder(run).file("detect"))
    maps = store.read(cut, len(store))
    maps = for_skeleton(maps, skeleton) if skeleton else maps
    if len(rig) < 3:
        return np.full((*maps.present.shape, len(maps.joints)), np.nan)
    return unseen_view_errors(rig.select(store.views), maps)


def _mean(values: NDArray[np.float64]) -> float:
    """Of those that are known, NaN if none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _finish(order: Order, rounds: list[Round], cut: int) -> list[str]:
    """Put the best round's weights and the page in place; lines about what was reached."""
    known = [one for one in rounds if math.isfinite(one.after)]
    best = min(known, key=lambda one: one.after) if known else rounds[-1]
    shutil.copy(best.weights, order.out / f"{WEIGHTS}.partial")
    os.replace(order.out / f"{WEIGHTS}.partial", order.out / WEIGHTS)
    told = [_told(number, one) for number, one in enumerate(rounds, start=1)]
    former = order.start or _weights_of(RunFolder(order.run))
    skeleton = skeleton_for(load_hourglass(best.weights).joints, None)
    page = PersonalPage(
        title=f"{order.out.resolve().name}: a detector of one's own",
        lines=told,
        skeleton=skeleton,
        before=_unseen(order.run, cut, skeleton),
        after=_unseen(best.run, cut, skeleton),
        crops=_pictures(rounds[0].run.parent / "held_out", (former, best.weights), skeleton.joints),
        curves=[(one.run.parent / CURVE).with_suffix(".png") for one in rounds],
    )
    write_personal_page(order.out / PAGE, page)
    figures = [
        {
            name: value if math.isfinite(value) else None
            for name, value in (("before", one.before), ("after", one.after))
        }
        | {"losses": one.losses}
        for one in rounds
    ]
    write_text_atomically(order.out / SUMMARY, json.dumps({"rounds": figures, "best": rounds.index(best) + 1}) + "\n")
    return [*told, f"weights: {order.out / WEIGHTS}; run with them: {best.run}; open {order.out / PAGE}"]


def _pictures(folder: Path, weights: tuple[Path, Path], joints: Sequence[str]) -> list[HeldOutCrop]:
    """Of the held-out crops those on which two sets of weights differ most, and as many more, evenly spread."""
    places = find_samples(folder)
    some = [places[index] for index in evenly_spread(len(places), LOOKED_AT)]
    read = [read_sample(place, joints) for place in some]
    pictures = np.stack([picture for picture, _, _ in read])
    before, after = (_peaks(load_hourglass(path), pictures, joints) for path in weights)
    moved = np.nan_to_num(np.linalg.norm(after - before, axis=2)).max(axis=1)
    chosen = sorted({*np.argsort(-moved, kind="stable")[:SHOWN].tolist(), *evenly_spread(len(some), SHOWN)})
    return [HeldOutCrop(_name(some[i]), pictures[i], read[i][1], before[i], after[i]) for i in chosen]


def _peaks(network: StackedHourglass, pictures: NDArray[np.uint8], joints: Sequence[str]) -> NDArray[np.float64]:
    """(B, J, 2) pixels of some joints in crops, NaN for those that the network does not know."""
    found = np.full((len(pictures), len(joints), 2), np.nan)
    detector = HourglassDetector(network, "")
    blocks = [pictures[first : first + MEASURE_BATCH] for first in range(0, len(pictures), MEASURE_BATCH)]
    peaks = np.concatenate([peaks_in_crops(detector, block) for block in blocks])
    for index, joint in enumerate(joints):
        if joint in network.joints:
            found[:, index] = peaks[:, network.joints.index(joint)]
    return found


def _name(place: Place) -> str:
    label = json.loads(read_files(place)[1])
    return f"{label['camera']['name']}, frame {label['frame']}"


def _told(number: int, one: Round) -> str:
    learnt = f"loss on held-out footage {one.losses[0]:.4f} -> {min(one.losses):.4f}" if one.losses else "no curve"
    if not math.isfinite(one.gain):
        return f"round {number}: {learnt}; how well views agree takes three or more to tell"
    change = f"{100 * one.before:.2f} % -> {100 * one.after:.2f} % of the crop's side"
    return f"round {number}: {learnt}; peaks off what other views say by {change} ({100 * one.gain:+.1f} % better)"

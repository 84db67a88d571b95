"""The settings of every stage: one model each, units in the names, unknown keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harvest.errors import UserError


class StageSettings(BaseModel):
    """Base of all stages' settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LocateSettings(StageSettings):
    """Where the person is. finder: of people in whole pictures; None takes the one that goes with the detector.
    weights: a file for the hourglass finder, instead of its own. every_s: seconds between pictures looked at;
    min_score: of somebody found; None takes the finder's own.
    """

    finder: Literal["hourglass", "blazepose"] | None = None
    weights: Path | None = None
    every_s: Annotated[float, Field(gt=0)] = 0.1
    min_score: Annotated[float, Field(gt=0, lt=1)] | None = None


class DetectSettings(StageSettings):
    """2D heat maps. flip_test averages over the crop and its mirror image, at twice the cost. engine: what computes the
    hourglass; openvino needs the extra of that name, and is about twice as fast.

    weights: a file for the hourglass, instead of its own. keypoints: a folder of another tool's 2D joints; layout: its
    joint order, where the files do not say.
    """

    detector: Literal["hourglass", "blazepose", "keypoints"] = "hourglass"
    weights: Path | None = None
    flip_test: bool = False
    engine: Literal["torch", "openvino"] = "torch"
    keypoints: Path | None = None
    layout: str | None = None


class ReconstructSettings(StageSettings):
    """From heat maps to 3D.

    weights: a file for algebraic and volumetric, the methods that are learnt, instead of the package's. how: views of
    published volumetric weights come together; None takes confidence for weights that have confidences for it, else
    softmax. skeleton: a built-in name or a YAML file; None takes the detector's, or that of weights with joints of
    their own. height_m: fixes limb lengths to typical proportions of that height; None estimates them from the footage.
    box_side_m: None estimates it.
    sharpness: power of a heat map that is a likelihood; None takes the detector's. floor, tolerance, prior,
    limb_tolerance_vox, voxels: see harvest/reconstruct/pictorial.py. flip_prior: probability that a view exchanges left
    and right, before looking; 0 leaves the views alone. backend: numba on the CPU, or cuda on a GPU, which leaves to
    the CPU what it cannot answer within the tolerance. published_demo repeats the arithmetic of the paper's public
    demo, for comparison only.
    """

    method: Literal["pictorial", "ransac", "dlt", "algebraic", "volumetric"] = "pictorial"
    weights: Path | None = None
    how: Literal["softmax", "sum", "confidence"] | None = None
    skeleton: str | None = None
    voxels: Annotated[int, Field(ge=8, le=128)] = 64
    floor: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    sharpness: Annotated[float, Field(gt=0, le=10)] | None = None
    prior: Literal["interval", "gaussian"] = "interval"
    limb_tolerance_vox: Annotated[float, Field(gt=0)] = 1.0
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-3
    flip_prior: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    height_m: Annotated[float, Field(gt=0.5, lt=2.6)] | None = None
    box_side_m: Annotated[float, Field(gt=0.3, lt=8)] | None = None
    backend: Literal["numba", "cuda"] = "numba"
    published_demo: bool = False


class SelectSettings(StageSettings):
    """Selection. rule: what estimates are ranked by (harvest/select.py). keep: share of each joint's estimates, those
    that the rule ranks first. within_mm: the error whose probability is written, and ranked by with rule probability.
    at_least: of that probability; what has less is dropped as well. pose_groups: frames are grouped by pose into so
    many, and each group keeps its share; 1 does not ask for poses.
    """

    rule: Literal["determinant", "probability", "heat", "spread"] = "determinant"
    keep: Annotated[float, Field(gt=0, le=1)] = 0.7
    within_mm: Annotated[float, Field(gt=0)] = 50.0
    at_least: Annotated[float, Field(ge=0, le=1)] | None = None
    pose_groups: Annotated[int, Field(ge=1)] = 1


class LabelSettings(StageSettings):
    """Labels. images: also write the pictures that the COCO files name."""

    images: bool = False


class ReportSettings(StageSettings):
    """The report. frames_shown: rows of the contact sheet."""

    frames_shown: Annotated[int, Field(ge=1, le=40)] = 6


class Settings(StageSettings):
    """All stages' settings, as run.yaml holds them."""

    locate: LocateSettings = LocateSettings()
    detect: DetectSettings = DetectSettings()
    reconstruct: ReconstructSettings = ReconstructSettings()
    select: SelectSettings = SelectSettings()
    label: LabelSettings = LabelSettings()
    report: ReportSettings = ReportSettings()


def load_settings(path: Path | None, overrides: dict[str, dict[str, Any]]) -> Settings:
    """Settings of a YAML file (or the defaults), with values from the command line put over them.

    Raises:
        UserError: an unreadable file, an unknown key (with the known ones) or a value out of range, with its path.
    """
    content: dict[str, Any] = {}
    if path is not None:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = str(error).replace("\n", " ")
            raise UserError(f"cannot read the settings file {path} ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must map stages (locate, detect, ...) to their settings")
    content = {stage: {} if values is None else values for stage, values in content.items()}
    for stage, values in overrides.items():
        given = {key: value for key, value in values.items() if value is not None}
        if isinstance(content.setdefault(stage, {}), dict):  # else the check below names the stage
            content[stage] = {**content[stage], **given}
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            model = Settings.model_fields if len(first["loc"]) == 1 else _fields_of(str(first["loc"][0]))
            raise UserError(f"unknown setting '{where}'; known: {', '.join(model)}") from None
        raise UserError(f"setting '{where}': {first['msg'].lower()}, got {first.get('input')!r}") from None


def _fields_of(stage: str) -> dict[str, Any]:
    return dict(Settings.model_fields[stage].default.__class__.model_fields)

"""How a monocular network is trained, by the name of a recipe: its settings, and what it learns from."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harvest.errors import UserError
from harvest.labels.votes import read_votes
from harvest.learn import monocular
from harvest.learn.camerapose_training import CameraPoseSettings, CameraPoseTraining
from harvest.learn.detector import Folders
from harvest.learn.geometric import GeometricSettings, GeometricTraining
from harvest.learn.lifting import WEIGHTS, PoseSets, prepared
from harvest.learn.pairs import labels_of
from harvest.learn.peers import Peers, fitting
from harvest.learn.pose_sets import read_pose_set
from harvest.learn.relative import RelativeSettings, RelativeTraining
from harvest.learn.training import Training, TrainingSettings, train
from harvest.learn.views_training import ViewsSettings, ViewsTraining
from harvest.monocular.lifter_files import load_lifter


@dataclass(frozen=True)
class Given:
    """What a training is given: poses or crops to learn from, to measure on, and more of them; votes of annotators;
    weights to begin with. exact: 2D is taken from labels, even where a set tells what a detector saw.
    """

    data: Path
    validation: Path | None = None
    more: Path | None = None
    votes: Path | None = None
    start: Path | None = None
    exact: bool = False


@dataclass(frozen=True)
class Recipe:
    """A way to learn: its settings, what makes its training, what the weights are called, and which parts of `Given` it
    takes beside data to learn from and to measure on.
    """

    settings: type[TrainingSettings]
    make: Callable[[Given, Path, Any, Peers], Training[Any]]
    weights: str
    takes: tuple[str, ...]


def _pose_sets(given: Given) -> PoseSets:
    sets = [read_pose_set(path) if path else None for path in (given.data, given.validation, given.more)]
    if given.exact:
        sets = [one.exact() if one else None for one in sets]
    learn, measure, more = sets
    assert learn is not None
    return PoseSets(learn, measure, more)


def _relative(given: Given, out: Path, settings: RelativeSettings, peers: Peers) -> RelativeTraining:
    sets = _pose_sets(given)
    labels = None
    if given.votes is not None:
        labels = labels_of(read_votes(given.votes), prepared(sets.more or sets.learn, settings.skeleton))
    start = load_lifter(given.start) if given.start else None
    return RelativeTraining(sets, out, settings, labels, start, peers)


def _camerapose(given: Given, out: Path, settings: CameraPoseSettings, peers: Peers) -> CameraPoseTraining:
    return CameraPoseTraining(_pose_sets(given), out, settings, peers)


def _harvested(given: Given, out: Path, settings: monocular.MonocularSettings, peers: Peers) -> Training[Any]:
    return monocular.MonocularTraining(_folders(given), out, settings, peers)


def _folders(given: Given) -> Folders:
    return Folders(given.data, given.validation, given.more)


def _geometric(given: Given, out: Path, settings: GeometricSettings, peers: Peers) -> GeometricTraining:
    return GeometricTraining(_folders(given), out, settings, peers)


def _multiview(given: Given, out: Path, settings: ViewsSettings, peers: Peers) -> ViewsTraining:
    return ViewsTraining(_folders(given), out, settings, None, peers)


RECIPES: Mapping[str, Recipe] = {
    "harvested": Recipe(monocular.MonocularSettings, _harvested, monocular.WEIGHTS, ("more", "start")),
    "geometric": Recipe(GeometricSettings, _geometric, monocular.WEIGHTS, ("more", "start")),
    "multiview": Recipe(ViewsSettings, _multiview, monocular.WEIGHTS, ("more", "start")),
    "relative": Recipe(RelativeSettings, _relative, WEIGHTS, ("more", "votes", "start", "exact")),
    "camerapose": Recipe(CameraPoseSettings, _camerapose, WEIGHTS, ("more", "exact")),
}


def train_recipe(
    name: str,
    given: Given,
    out: Path,
    options: Mapping[str, Any],
    more: Sequence[str] = (),
    processes: int | None = None,
    most_seconds: float = float("inf"),
) -> Path:
    """Train by a recipe; gives the file of weights.

    Args:
        options: settings by name; None leaves the recipe's own.
        more: KEY=VALUE each, of the recipe's own settings.
    Raises:
        UserError: no such recipe or setting, something given that it does not take, or what the training raises.
    """
    if name not in RECIPES:
        raise UserError(f"no recipe '{name}'; choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    for part in ("more", "votes", "start", "exact"):
        if getattr(given, part) and part not in recipe.takes:
            takes = ", ".join(f"--{one}" for one in recipe.takes)
            raise UserError(f"recipe {name} makes no use of --{part}; beside --data and --validation it takes {takes}")
    known = {one.name for one in fields(recipe.settings)}
    chosen = {key: value for key, value in options.items() if value is not None and key in known}
    if "start" in known:
        chosen["start"] = str(given.start or "")
    settings = recipe.settings(**chosen | settings_of(recipe.settings, name, more))
    train(partial(recipe.make, given, out, settings), processes or fitting(settings.batch), most_seconds)
    return out / recipe.weights


def settings_of(kind: type[TrainingSettings], name: str, given: Sequence[str]) -> dict[str, Any]:
    """Settings by name, of KEY=VALUE each; a value has the type of the setting's default. Those of a setting that has
    settings of its own, such as weights of losses, are called as if they were the recipe's.

    Raises:
        UserError: another form, an unknown key (with the known ones), or a value of another type.
    """
    own = {one.name: one.default for one in fields(kind) if one.default is not MISSING}
    own |= {one.name: one.default_factory() for one in fields(kind) if one.default_factory is not MISSING}
    inner = {key: value for key, value in own.items() if is_dataclass(value)}
    home = {part.name: key for key, value in inner.items() for part in fields(value)}
    known = {key: value for key, value in own.items() if key not in inner}
    known |= {part: getattr(inner[key], part) for part, key in home.items()}
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            usual = " ".join(f"{one}={value}" for one, value in known.items())
            raise UserError(f"'{text}' is no setting of recipe {name}; give KEY=VALUE, known: {usual}")
        parsed = _parsed(value, type(known[key]))
        if parsed is None:
            raise UserError(f"setting {key} of recipe {name} takes a {type(known[key]).__name__}, got '{value}'")
        if key in home:
            found[home[key]] = replace(found.get(home[key], inner[home[key]]), **{key: parsed})
        else:
            found[key] = parsed
    return found


def _parsed(value: str, wanted: type) -> Any:
    """A value of that type, None where it is none."""
    if wanted is str:
        return value
    try:
        parsed = ast.literal_eval(value.capitalize())
    except (SyntaxError, ValueError):
        return None
    if wanted is float and type(parsed) is int:
        return float(parsed)
    return parsed if type(parsed) is wanted else None

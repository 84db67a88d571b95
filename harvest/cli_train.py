"""The commands that train: `harvest train detector`, `people`, `crops`, `triangulation` and `monocular`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

train_app = typer.Typer(help="Train models.", no_args_is_help=True)

StartOption = Annotated[
    Path,
    typer.Option("--start", help="Weights to begin with: .safetensors of a training, or MoveNet Thunder's model.json."),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the training; one that a stop left is continued.")]
ValidationOption = Annotated[
    Path | None, typer.Option("--validation", help="Folder of pictures to measure progress on.")
]
StepsOption = Annotated[int, typer.Option("--steps", min=1, help="Batches in all.")]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Pictures in a batch.")]
RateOption = Annotated[float, typer.Option("--rate", min=0.0, help="Step size of AdamW at its height.")]
HoursOption = Annotated[float | None, typer.Option("--hours", min=0.0, help="Stop after so long; goes on later.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0)]
ProcessesOption = Annotated[
    int | None, typer.Option("--processes", min=1, help="That share each batch; by default one a core, as far as fit.")
]


@train_app.command(
    "detector", epilog="Example: harvest train detector --crops sets/crops --validation sets/val --out models/hourglass"
)
def train_detector(  # noqa: PLR0913 - one parameter an option
    crops: Annotated[Path, typer.Option("--crops", help="Folder of crops, as `harvest studio crops` makes them.")],
    start: StartOption,
    out: OutOption,
    validation: ValidationOption = None,
    more: Annotated[
        Path | None, typer.Option("--more", help="A second folder, such as `harvest train crops` makes.")
    ] = None,
    share: Annotated[float, typer.Option("--share", min=0.0, max=1.0, help="Of samples from the second folder.")] = 0.2,
    stacks: Annotated[int, typer.Option("--stacks", min=1, max=8, help="Hourglasses in a row.")] = 2,
    width: Annotated[int, typer.Option("--width", min=8, help="Channels.")] = 128,
    steps: StepsOption = 30_000,
    batch: BatchOption = 32,
    rate: RateOption = 1e-3,
    hours: HoursOption = None,
    seed: SeedOption = 0,
    processes: ProcessesOption = None,
) -> None:
    """Train a stacked hourglass to find joints in crops; `harvest run --weights` takes what comes out."""
    from harvest.learn.detector import WEIGHTS, DetectorSettings, DetectorTraining, Folders
    from harvest.learn.joints_task import JointsTask
    from harvest.learn.peers import fitting
    from harvest.learn.training import train

    settings = DetectorSettings(
        start=str(start), stacks=stacks, width=width, share=share, steps=steps, batch=batch, rate=rate, seed=seed
    )
    make = partial(DetectorTraining, JointsTask(), Folders(crops, validation, more), out, settings)
    train(make, processes or fitting(batch), _seconds(hours))
    typer.echo(f"done: {out / WEIGHTS}")


@train_app.command(
    "people",
    epilog="Example: harvest train people --scenes sets/scenes --start hourglass.safetensors --out models/people",
)
def train_people(  # noqa: PLR0913 - one parameter an option
    scenes: Annotated[Path, typer.Option("--scenes", help="Folder of `harvest studio crops --scenes`.")],
    start: StartOption,
    out: OutOption,
    validation: ValidationOption = None,
    width: Annotated[int, typer.Option("--width", min=8, help="Channels.")] = 64,
    steps: StepsOption = 4000,
    batch: BatchOption = 32,
    rate: RateOption = 1e-3,
    hours: HoursOption = None,
    seed: SeedOption = 0,
    processes: ProcessesOption = None,
) -> None:
    """Train an hourglass of one stack to find people in wide pictures, for `locate: {weights: FILE}` in settings."""
    from harvest.learn.detector import WEIGHTS, DetectorSettings, DetectorTraining, Folders
    from harvest.learn.peers import fitting
    from harvest.learn.people_task import PeopleTask
    from harvest.learn.training import train

    settings = DetectorSettings(start=str(start), stacks=1, width=width, steps=steps, batch=batch, rate=rate, seed=seed)
    make = partial(DetectorTraining, PeopleTask(), Folders(scenes, validation), out, settings)
    train(make, processes or fitting(batch), _seconds(hours))
    typer.echo(f"done: {out / WEIGHTS}")


@train_app.command("crops", epilog="Example: harvest train crops --run runs/01 --videos takes/01 --out sets/mine")
def train_crops(
    videos: Annotated[Path, typer.Option("--videos", help="The videos of the run, or single ones.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to fill.")],
    run: Annotated[Path | None, typer.Option("--run", help="Folder of a finished run.")] = None,
    teacher: Annotated[
        str, typer.Option("--teacher", help="Without --run: hourglass or blazepose labels each video by itself.")
    ] = "hourglass",
    every: Annotated[int, typer.Option("--every", min=1, help="Without --run: every so many frames.")] = 3,
    labels: Annotated[str, typer.Option("--labels", help="With --run: ps+sel, ps, hm+sel or hm.")] = "ps+sel",
) -> None:
    """Cut the person out of videos, with the joints that a run kept or a teacher is sure of, to train a detector on."""
    from pipelines.harvested_crops import crops_of_run, crops_of_videos

    typer.echo(crops_of_run(run, videos, out, labels) if run else crops_of_videos(videos, teacher, every, out))


@train_app.command(
    "triangulation",
    epilog="Example: harvest train triangulation --model volumetric --data sets/views --out models/volumetric",
)
def train_triangulation(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, typer.Option("--model", help="algebraic or volumetric.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Folder of `harvest studio views`, Panoptic or Human3.6M, a finished run, or heat maps made here.",
        ),
    ],
    out: OutOption,
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Another such folder, to measure progress on.")
    ] = None,
    how: Annotated[
        str, typer.Option("--how", help="Volumetric: views come together by softmax, confidence or sum.")
    ] = "softmax",
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Of the hourglass that looks at rendered views, instead of its own."),
    ] = None,
    steps: StepsOption = 20_000,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Moments in a batch.")] = 16,
    rate: RateOption = 1e-3,
    voxels: Annotated[int, typer.Option("--voxels", min=16, help="Volumetric: along a side of the cube.")] = 32,
    width: Annotated[
        int | None, typer.Option("--width", min=2, help="Channels; by default 8 (algebraic) or 24 (volumetric).")
    ] = None,
    beta: Annotated[float, typer.Option("--beta", min=0.0, help="Volumetric: share of heat in the loss.")] = 0.01,
    hours: HoursOption = None,
    seed: SeedOption = 0,
    processes: ProcessesOption = None,
) -> None:
    """Train triangulation on heat maps of several views; `reconstruct: {weights: FILE}` in settings takes it."""
    from harvest.learn.peers import fitting
    from harvest.learn.triangulation import TriangulationSettings
    from pipelines.map_sets import Given, train_on

    sizes = {"voxels": voxels, "width": width, "steps": steps, "batch": batch, "rate": rate, "beta": beta, "seed": seed}
    settings = TriangulationSettings(model=model, how=how, **sizes)  # type: ignore[arg-type]
    given = Given(data, validation, weights)
    typer.echo(f"done: {train_on(given, out, settings, processes or fitting(batch), _seconds(hours))}")


@train_app.command(
    "monocular",
    epilog="Example: harvest train monocular --recipe harvested --data sets/mine --out models/mono",
)
def train_monocular(  # noqa: PLR0913 - one parameter an option
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="Folder of crops of `harvest train crops --run` or `harvest studio`; lifters: also an .npz."
        ),
    ],
    out: OutOption,
    validation: ValidationOption = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="From pictures: harvested, labels in space; geometric, some in 2D alone; multiview, views of a moment "
            "and labels in 2D. From 2D joints: relative, which of two is nearer; camerapose, some in 2D alone.",
        ),
    ] = "harvested",
    more: Annotated[
        Path | None,
        typer.Option("--more", help="More data; but for harvested, in 2D alone. Votes are then about these."),
    ] = None,
    votes: Annotated[
        Path | None,
        typer.Option("--votes", help="Of `harvest annotate depth`, for relative; else depths of --data tell."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Lifters see the labels in 2D instead of what a detector saw.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="From pictures: volumetric, the mean of maps in space; regression; planar; depth."
        ),
    ] = None,
    skeleton: Annotated[str | None, typer.Option("--skeleton", help="Built-in skeleton, with a pelvis.")] = None,
    start: Annotated[Path | None, typer.Option("--start", help="Weights to begin with; else from scratch.")] = None,
    width: Annotated[int | None, typer.Option("--width", min=2, help="Channels.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Batches in all.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Samples in a batch.")] = None,
    rate: RateOption = 1e-3,
    more_settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the recipe's own settings; `--set help` lists them.")
    ] = None,
    hours: HoursOption = None,
    seed: SeedOption = 0,
    processes: ProcessesOption = None,
) -> None:
    """Train a network that tells a 3D pose from one picture; `harvest predict --weights` takes what comes out."""
    from pipelines.recipes import Given, train_recipe

    sizes = {"width": width, "steps": steps, "batch": batch, "rate": rate, "seed": seed}
    options = {"model": model, "skeleton": skeleton} | sizes
    given = Given(data, validation, more, votes, start, exact)
    done = train_recipe(recipe, given, out, options, more_settings or (), processes, _seconds(hours))
    typer.echo(f"done: {done}")


def _seconds(hours: float | None) -> float:
    return float("inf") if hours is None else 3600 * hours

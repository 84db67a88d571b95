"""The commands that train: `harvest train detector`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

train_app = typer.Typer(help="Train models.", no_args_is_help=True)


@train_app.command(
    "detector", epilog="Example: harvest train detector --crops sets/crops --validation sets/val --out models/hourglass"
)
def train_detector(  # noqa: PLR0913 - one parameter an option
    crops: Annotated[Path, typer.Option("--crops", help="Folder of crops, as `harvest studio crops` makes them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the training; one that a stop left is continued.")],
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Folder of crops to measure progress on.")
    ] = None,
    stacks: Annotated[int, typer.Option("--stacks", min=1, max=8, help="Hourglasses in a row.")] = 2,
    width: Annotated[int, typer.Option("--width", min=8, help="Channels.")] = 128,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Batches in all.")] = 50_000,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Crops in a batch.")] = 16,
    hours: Annotated[float | None, typer.Option("--hours", min=0.0, help="Stop after so long; goes on later.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
) -> None:
    """Train a stacked hourglass to find joints in crops; `harvest run --weights` takes what comes out."""
    from harvest.learn.train_detector import WEIGHTS, Training, TrainSettings

    settings = TrainSettings(stacks=stacks, width=width, steps=steps, batch=batch, seed=seed)
    Training(crops, validation, out, settings).run(float("inf") if hours is None else 3600 * hours)
    typer.echo(f"done: {out / WEIGHTS}")

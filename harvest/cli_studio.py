"""The commands of the studio: `harvest studio make` and `harvest studio crops`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

studio_app = typer.Typer(help="Rendered people with exact truth: captures, training crops.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option("--out", help="Folder to fill; one that a stop left is continued.")]
Cc0Option = Annotated[bool, typer.Option("--only-cc0", help="Leave out all assets whose label is any other than CC0.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="Processes; 0: one for each processor.")]


@studio_app.command("make", epilog="Example: harvest studio make --preset bench-4cam --out sets/bench-4cam")
def studio_make(
    preset: Annotated[str, typer.Option("--preset", help="demo, bench-4cam, bench-gap or train.")] = "demo",
    out: OutOption = Path("studio"),
    takes: Annotated[int | None, typer.Option("--takes", min=1, help="How many; the preset's own number.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Another seed than the preset's own.")] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Also write masks and depth of every picture.")] = False,
    only_cc0: Cc0Option = False,
    workers: WorkersOption = 0,
) -> None:
    """Film people in rooms with several cameras: videos and rig.yaml as of a real capture, the truth beside them."""
    from pipelines.studio import Order, assets_folder, make

    typer.echo(make(Order(out, assets_folder(), only_cc0, workers), preset, takes, seed, masks))


@studio_app.command("crops", epilog="Example: harvest studio crops --n 100000 --out sets/crops")
def studio_crops(
    n: Annotated[int, typer.Option("--n", min=1, help="How many crops.")] = 1000,
    out: OutOption = Path("crops"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Sample i of a seed is always the same.")] = 0,
    split: Annotated[str, typer.Option("--split", help="train, val or test: bodies, motions, clothes, rooms.")] = "train",
    only_cc0: Cc0Option = False,
    workers: WorkersOption = 0,
) -> None:
    """Draw pictures of single people for training, in tar files of JPEG, JSON and mask."""
    from harvest.errors import UserError
    from harvest.studio.splits import SPLITS
    from pipelines.studio import Order, assets_folder, crops

    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; known: {', '.join(SPLITS)}")
    typer.echo(crops(Order(out, assets_folder(), only_cc0, workers), n, seed, split))

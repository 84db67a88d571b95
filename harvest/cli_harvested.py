"""The commands that use what runs have harvested: `harvest personalize`, `predict` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def personalize(  # noqa: PLR0913 - one parameter an option
    run: Annotated[Path, typer.Option("--run", help="A finished run of the subject.")],
    videos: Annotated[Path, typer.Option("--videos", help="The videos of that run.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to fill; one that a stop left is continued.")],
    labels: Annotated[
        str,
        typer.Option(
            "--labels", help="ps+sel: joints that the run kept; ps: all; hm: each view's own peaks; hm+sel: the surest."
        ),
    ] = "ps+sel",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="At most; ends when views agree no better.")] = 1,
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs", min=1, help="Times that each picture is looked at, at most; a few hundred gain more by 12."
        ),
    ] = 4,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures in a batch.")] = 4,
    rate: Annotated[float, typer.Option("--rate", min=0.0, help="Step size of RMSprop at its height.")] = 2.5e-4,
    way: Annotated[
        str, typer.Option("--way", help="What may change: all, last (behind the hourglasses), low-rank.")
    ] = "all",
    start_share: Annotated[
        float, typer.Option("--start-share", min=0.0, max=0.99, help="Of the weights it begins with in the result.")
    ] = 0.5,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of the changes with --way low-rank.")] = 4,
    held_out: Annotated[
        float, typer.Option("--held-out", min=0.01, max=0.9, help="Share of the frames to measure on, the last ones.")
    ] = 0.15,
    start: Annotated[Path | None, typer.Option("--start", help="Weights to begin with; by default the run's.")] = None,
    boxes: Annotated[Path | None, typer.Option("--boxes", help="The file of boxes, if the run was given one.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.0, help="Stop after so long; goes on later.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
) -> None:
    """Fine-tune the hourglass on what a run harvested from its subject, and run again with it."""
    from harvest.learn.personal import PersonalSettings
    from pipelines.personalize import Order, personalize

    settings = PersonalSettings(
        start="",
        batch=batch,
        rate=rate,
        way=way,
        rank=rank,
        start_share=start_share,
        seed=seed,
        checkpoint_s=60.0,
    )
    order = Order(run, videos, out, labels, rounds, held_out, start, boxes)
    for line in personalize(order, settings, epochs, float("inf") if hours is None else 3600 * hours):
        typer.echo(line)


def predict(  # noqa: PLR0913 - one parameter an option
    weights: Annotated[Path, typer.Option("--weights", help="Of `harvest train monocular`.")],
    image: Annotated[Path | None, typer.Option("--image", help="A picture of a person.")] = None,
    video: Annotated[Path | None, typer.Option("--video", help="Or a video.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("predicted"),
    every: Annotated[int, typer.Option("--every", min=1, help="Of a video, every so many frames.")] = 1,
    rig: Annotated[Path | None, typer.Option("--rig", help="rig.yaml that holds the camera.")] = None,
    camera: Annotated[str | None, typer.Option("--camera", help="Its name there.")] = None,
    focal_px: Annotated[
        float | None, typer.Option("--focal-px", min=1.0, help="Instead of a rig; 1.2 of the longer side by default.")
    ] = None,
) -> None:
    """A 3D pose from one picture, or of each frame of a video: a table in metres, and a picture of it."""
    from harvest.errors import UserError
    from pipelines.predict import Question
    from pipelines.predict import predict as answer

    source = image or video
    if source is None or (image and video):
        raise UserError("give one thing to look at: --image FILE or --video FILE")
    typer.echo(answer(Question(weights, source, every, rig, camera, focal_px), out))


export_app = typer.Typer(help="Write what runs have harvested in forms that others read.", no_args_is_help=True)


@export_app.command(
    "training-set",
    epilog="Example: harvest export training-set --run runs/01 --videos takes/01 --subject anna --run runs/02 --videos "
    "takes/02 --subject ben --test ben --out sets/mine",
)
def training_set(
    run: Annotated[list[Path], typer.Option("--run", help="A finished run; may be given several times.")],
    videos: Annotated[list[Path], typer.Option("--videos", help="Its videos; as often, in the same order.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    subject: Annotated[
        list[str] | None, typer.Option("--subject", help="Whom it shows; as often. By default one for all.")
    ] = None,
    val: Annotated[list[str] | None, typer.Option("--val", help="A subject to choose models by.")] = None,
    test: Annotated[list[str] | None, typer.Option("--test", help="A subject to test on.")] = None,
    labels: Annotated[str, typer.Option("--labels", help="ps+sel: joints that the runs kept; ps: all.")] = "ps+sel",
) -> None:
    """Crops with 2D joints, 3D joints in the camera's frame, weights and covariances, for trainings of any kind."""
    from harvest.errors import UserError
    from pipelines.training_set import Take, export_training_set

    who = subject or ["subject"] * len(run)
    if not len(run) == len(videos) == len(who):
        raise UserError(f"{len(run)} --run need as many --videos and --subject, got {len(videos)} and {len(who)}")
    if strangers := sorted({*(val or ()), *(test or ())} - set(who)):
        raise UserError(f"no run shows '{strangers[0]}'; --val and --test name subjects: {', '.join(sorted(set(who)))}")
    split = dict.fromkeys(val or (), "val") | dict.fromkeys(test or (), "test")
    takes = [Take(*one, split.get(one[2], "train")) for one in zip(run, videos, who, strict=True)]
    typer.echo(export_training_set(takes, out, labels))

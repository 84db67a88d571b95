"""The commands with which people annotate: `harvest annotate depth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

annotate_app = typer.Typer(help="Pages on which people annotate pictures.", no_args_is_help=True)


@annotate_app.command(
    "depth", epilog="Example: harvest annotate depth --crops sets/crops --votes votes.sqlite --pairs 5 --port 8000"
)
def annotate_depth(  # noqa: PLR0913 - one parameter an option
    crops: Annotated[
        Path, typer.Option("--crops", help="Folder of crops of `harvest train crops` or `harvest studio crops`.")
    ],
    votes: Annotated[Path, typer.Option("--votes", help="File for the votes; those of a former one are kept.")],
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Pairs of joints of each picture, at random.")] = 1,
    each: Annotated[int, typer.Option("--each", min=1, help="Votes on each pair, of as many annotators.")] = 5,
    skeleton: Annotated[
        str, typer.Option("--skeleton", help="Built-in skeleton whose joints are compared.")
    ] = "mpii16",
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same pairs for the same seed.")] = 0,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of this machine; 0: any free one.")] = 0,
    delay_s: Annotated[
        float, typer.Option("--delay-s", min=0.0, max=60.0, help="For which a new picture takes no answer.")
    ] = 1.0,
) -> None:
    """Ask people, in a browser on this machine, which of two joints is nearer to the camera; ends with Ctrl-C."""
    from contextlib import closing

    from harvest.annotate.desk import Desk
    from harvest.annotate.pairs import draw_questions
    from harvest.annotate.server import AnnotationServer, serve_until_stopped
    from harvest.labels.votes import VoteStore

    questions = draw_questions(crops, skeleton, pairs, seed)
    with closing(VoteStore.open(votes)) as store:
        server = AnnotationServer(Desk(questions, store, each), port, delay_s)
        typer.echo(server.address)
        serve_until_stopped(server)
        typer.echo(f"{sum(store.counts().values())} votes in {votes}")

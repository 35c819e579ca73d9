"""``her2bridge run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from her2bridge.cli import options as opt
from her2bridge.cli.output import Output
from her2bridge.errors import Interrupted
from her2bridge.events import RunFinished
from her2bridge.settings import RunSettings

_Force = Annotated[bool, typer.Option("--force", help="Score again what was scored already.")]
_Recalculate = Annotated[
    bool,
    typer.Option(
        "--recalculate",
        help="Score from the tiles that are there, corrections included, without the network. The regions are those of"
        " the last run; give its other options again.",
    ),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


def run(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="A project.qpproj, or the folder it lies in.")],
    image: opt.Images = None,
    region_class: opt.RegionClasses = None,
    exclude_class: opt.ExcludeClasses = None,
    whole_slide: opt.WholeSlide = False,
    class_prefix: opt.ClassPrefix = None,
    min_overlap: opt.MinOverlap = None,
    specimen: opt.SpecimenName = None,
    mpp: opt.Mpp = None,
    score_settings: opt.ScoreSettingsFile = None,
    whspn: opt.WhspnName = "mlp",
    relocate: opt.Relocations = None,
    model: opt.Model = None,
    device: opt.Device = "auto",
    require_gpu: opt.RequireGpu = False,
    precision: opt.Precision = "auto",
    runtime: opt.Runtime = "auto",
    batch_size: opt.BatchSize = None,
    backend: opt.Backend = "auto",
    force: _Force = False,
    recalculate: _Recalculate = False,
    dry_run: _DryRun = False,
    profile: opt.Profile = False,
    json: opt.AsJson = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Score a QuPath project and write the results into it.

    Images that were scored already, by the same model and settings and with the same regions, are skipped. Close the
    project in QuPath before a run. Exit code: 0, 1 if an image failed, 2 for wrong usage, 130 after Ctrl-C.
    Research use only.
    """
    with Output(as_json=json, log=log, debug=debug) as output:
        settings = RunSettings(
            images=tuple(image or ()),
            region_classes=tuple(region_class or ()),
            exclude_classes=tuple(exclude_class or ()),
            whole_slide=whole_slide,
            class_prefix=class_prefix,
            min_overlap=min_overlap,
            model=model,
            backend=backend,
            device=device,
            require_gpu=require_gpu,
            precision=precision,
            runtime=runtime,
            batch_size=batch_size,
            specimen=opt.specimen_of(specimen),
            mpp=mpp,
            relocations=opt.relocations_of(relocate),
            force=force,
            recalculate=recalculate,
            dry_run=dry_run,
            scores=opt.score_settings_of(score_settings),
            whspn=whspn,
            profile=profile,
        )
        _run(project, settings, output)


def _run(project: Path, settings: RunSettings, output: Output) -> None:
    from her2bridge.run import run_project

    end_with(run_project(project, settings, output))


def end_with(finished: RunFinished) -> None:
    """End the command with 130 after Ctrl-C, 1 where an image failed."""
    if finished.interrupted:
        raise typer.Exit(Interrupted.exit_code)
    if finished.failed:
        raise typer.Exit(1)

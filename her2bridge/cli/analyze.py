"""``her2bridge analyze``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from her2bridge.cli import options as opt
from her2bridge.cli.output import Output
from her2bridge.errors import Her2BridgeError, UsageError
from her2bridge.qupath.geojson import read_regions
from her2bridge.qupath.open import open_project
from her2bridge.qupath.server_builder import read_server_json, slide_source
from her2bridge.records import SlideSource
from her2bridge.settings import RunSettings

_ENDINGS = (".geojson", ".json", ".geojson.gz", ".json.gz")


_Slide = Annotated[
    Path | None, typer.Argument(metavar="SLIDE", help="A slide file; or give --server.", show_default=False)
]
_Server = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The image as QuPath describes it: a server.json of a project's data folder."),
]
_Regions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Annotations that QuPath exported as GeoJSON; all, where none has a class. With --whole-slide only those"
        " that are cut out (Ignore*) are heeded.",
    ),
]
_Tiles = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the tiles here, as .geojson or .geojson.gz; QuPath imports them."),
]


def analyze(
    slide: _Slide = None,
    server: _Server = None,
    regions: _Regions = None,
    output: _Tiles = None,
    region_class: opt.RegionClasses = None,
    exclude_class: opt.ExcludeClasses = None,
    whole_slide: opt.WholeSlide = False,
    class_prefix: opt.ClassPrefix = None,
    min_overlap: opt.MinOverlap = None,
    specimen: opt.SpecimenNotRead = None,
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
    profile: opt.Profile = False,
    json: opt.AsJson = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Score one slide without a project, from and to GeoJSON.

    Give either SLIDE or --server, and --regions or --whole-slide. With --json the score is the last event.
    Exit code: 0, 1 if the slide could not be scored, 2 for wrong usage, 130 after Ctrl-C. Research use only.
    """
    with Output(as_json=json, log=log, debug=debug) as told:
        settings = RunSettings(
            region_classes=tuple(region_class or ()),
            exclude_classes=tuple(exclude_class or ()),
            whole_slide=whole_slide,
            class_prefix=class_prefix,
            min_overlap=min_overlap,
            model=model,
            device=device,
            require_gpu=require_gpu,
            precision=precision,
            runtime=runtime,
            batch_size=batch_size,
            specimen=opt.specimen_of(specimen),
            mpp=mpp,
            relocations=opt.relocations_of(relocate),
            scores=opt.score_settings_of(score_settings),
            whspn=whspn,
            profile=profile,
        )
        source = _source(slide, server, settings.relocations)
        if regions is None and not whole_slide:
            raise _usage("There are no regions to score.", "--regions", "Give --regions FILE, or --whole-slide.")
        annotations = read_regions(regions) if regions else []
        if output is not None:
            _check_output(output)
        from her2bridge.analyze import analyze_slide

        analyze_slide(source, annotations, output, settings, told)


def _source(slide: Path | None, server: Path | None, relocations: tuple[tuple[str, str], ...]) -> SlideSource:
    if slide is not None and server is None:
        if not slide.exists():
            raise _usage("There is no such slide.", str(slide), "Check the path.")
        return SlideSource(slide, use_bounds=True)
    if server is not None and slide is None:
        builder = read_server_json(server)
        folder, saved_uri = _project_of(server.absolute())
        return slide_source(builder, folder=folder, saved_uri=saved_uri, relocations=relocations)
    what = "No slide is named." if slide is None else "The slide is named twice."
    raise _usage(what, "SLIDE or --server", "Give the slide file, or --server with an image's server.json.")


def _project_of(server: Path) -> tuple[Path, str | None]:
    """Folder and saved place of the project that a server.json lies in (``data/N/server.json``), if in any."""
    try:
        project = open_project(server.parents[2], "files")
    except (Her2BridgeError, IndexError):
        return server.parent, None
    return project.folder, project.saved_uri


def _check_output(output: Path) -> None:
    """Now, not after minutes of computing."""
    folder = output.absolute().parent
    if not output.name.lower().endswith(_ENDINGS):
        raise _usage(
            "The tiles are GeoJSON.", f"--output {output}", "Name a file that ends in .geojson or .geojson.gz."
        )
    if not folder.is_dir():
        raise _usage("The folder for the tiles is not there.", str(folder), "Make it, or name another: --output FILE.")
    if not os.access(folder, os.W_OK) or output.is_dir():
        raise _usage("The tiles cannot be written there.", str(output), "Name another file: --output FILE.")


def _usage(what: str, where: str, next_step: str) -> UsageError:
    return UsageError(what, where=where, next_step=next_step)

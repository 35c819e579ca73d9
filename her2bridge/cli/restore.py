"""``her2bridge restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from her2bridge.cli import options as opt
from her2bridge.cli.output import Output


def restore(
    project: Annotated[Path, typer.Argument(metavar="PROJECT", help="A project.qpproj, or the folder it lies in.")],
    image: opt.Images = None,
    backend: opt.Backend = "auto",
    json: opt.AsJson = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Put the last run's results back where QuPath wrote over them.

    Every run keeps its results in her2bridge/results in the project's folder. What you corrected since stays. Close the
    project in QuPath before. Exit code: 0, 1 if an image failed, 2 for wrong usage, 130 after Ctrl-C.
    """
    with Output(as_json=json, log=log, debug=debug) as output:
        from her2bridge.restore import restore_project

        if restore_project(project, images=tuple(image or ()), backend=backend, emit=output).failed:
            raise typer.Exit(1)

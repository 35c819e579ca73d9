"""``her2bridge doctor``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from her2bridge.cli import options as opt
from her2bridge.cli.console import printable
from her2bridge.cli.output import Output
from her2bridge.version import version

_STYLES = {"ok": "green", "note": "yellow", "broken": "bold red"}


def doctor(
    project: Annotated[
        Path | None,
        typer.Argument(metavar="PROJECT", help="Look at this project too: its slides and scores.", show_default=False),
    ] = None,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Check this machine, and a project; say what to do.

    Changes nothing. A project is looked at as a run without options would; for others: her2bridge run --dry-run.
    Exit code: 0, or 1 if something is broken that a run needs.
    """
    with Output(log=log, debug=debug) as output:
        from her2bridge.cli import checks

        output.results.print(f"her2bridge {version()}, {Path(checks.__file__).parents[1]}", soft_wrap=True)
        found: Iterable[checks.Check] = checks.machine()
        if project is not None:
            found = chain(found, checks.project(project))
        broken = 0
        for check in found:
            broken += check.state == checks.BROKEN
            output.results.print(f"{check.state:8}", style=_STYLES[check.state], end="")
            output.results.print(f"{printable(check.what)}: {printable(check.says)}", soft_wrap=True)
            if check.next_step:
                output.results.print(f"        next: {printable(check.next_step)}", soft_wrap=True)
        if broken:
            raise typer.Exit(1)

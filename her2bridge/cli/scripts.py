"""``her2bridge scripts``: a group; ``answer`` is what the scripts themselves call."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from her2bridge.cli.answer import answer
from her2bridge.cli.console import counted, printable
from her2bridge.cli.output import Output
from her2bridge.scripts import Found, State, check_scripts, install_scripts, scripts_folder

scripts = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

Project = Annotated[
    Path | None,
    typer.Option(
        metavar="PROJECT",
        help="In this project: a project.qpproj, or the folder it lies in. QuPath lists its scripts under Automate,"
        " Project scripts.",
        show_default=False,
    ),
]
User = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="In your own scripts, for all projects: DIR is QuPath's user directory (Edit, Preferences, QuPath user"
        " directory; usually QuPath/v0.6 in your home folder), listed under Automate, User scripts, or the folder of"
        " shared scripts that you have set in QuPath.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object a script, each on one line.")]

_STYLES = {
    State.CURRENT: "green",
    State.INSTALLED: "bold green",
    State.STALE: "yellow",
    State.EDITED: "yellow",
    State.MISSING: "bold red",
    State.DROPPED: "yellow",
}


@scripts.callback()
def group() -> None:
    """Install the scripts for QuPath, and check them.

    They start this her2bridge from QuPath's Automate menu: install them again after her2bridge was updated or moved.
    """


@scripts.command()
def install(
    project: Project = None,
    user: User = None,
    force: Annotated[bool, typer.Option("--force", help="Replace scripts that were edited by hand, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the scripts where QuPath lists them.

    Scripts of ours that are there are brought up to date; those that were edited by hand are left as they are. Exit
    code: 0, 1 if a script was left so, 2 for wrong usage.
    """
    with Output(as_json=as_json) as output:
        folder = scripts_folder(project, user)
        found = _told(install_scripts(folder, force=force), output, as_json)
        written = sum(one.state == State.INSTALLED for one in found)
        output.notes.print(f"{counted(written, 'script')} installed in {printable(str(folder))}", soft_wrap=True)
        if any(one.state == State.EDITED for one in found):
            raise typer.Exit(1)


@scripts.command()
def check(project: Project = None, user: User = None, as_json: AsJson = False) -> None:
    """Say of each script whether it is current.

    Changes nothing. A script is stale if it is another her2bridge's, or starts one that is no longer there. Exit code:
    0, 1 if a script is not current, 2 for wrong usage.
    """
    with Output(as_json=as_json) as output:
        found = _told(check_scripts(scripts_folder(project, user)), output, as_json)
        if any(one.state != State.CURRENT for one in found):
            raise typer.Exit(1)


scripts.command()(answer)


def _told(found: Iterable[Found], output: Output, as_json: bool) -> list[Found]:
    """Tell each script when it is done."""
    told = []
    for one in found:
        told.append(one)
        if as_json:
            output.write(json.dumps(_plain(one), ensure_ascii=False))
            continue
        output.results.print(f"{one.state:16}", style=_STYLES[one.state], end="")
        says = f"{one.path.name}{': ' if one.says else ''}{one.says}"
        output.results.print(printable(says), soft_wrap=True)
        if one.next_step:
            output.results.print(f"{'':16}next: {printable(one.next_step)}", soft_wrap=True)
    return told


def _plain(found: Found) -> dict[str, str]:
    return {
        "script": found.path.name,
        "path": str(found.path),
        "state": str(found.state),
        "says": found.says,
        "next_step": found.next_step,
    }

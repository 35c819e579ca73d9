"""The command line's front: the commands, ``--version``, Ctrl-C, and streams that bear any text."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
import typer.main

from her2bridge.cli.commands import LoadingGroup, add_commands
from her2bridge.errors import Interrupted, UsageError
from her2bridge.version import version

app = typer.Typer(
    cls=LoadingGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_WrongUsage: Any = typer.BadParameter.__base__  # of all that the parser refuses; typer names only this one of them
add_commands(app)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"her2bridge {version()}")
        raise typer.Exit


@app.callback()
def her2bridge(
    tell_version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Score HER2 immunohistochemistry of gastric cancer in QuPath projects.

    Research use only: it assists, it does not diagnose. Each command explains itself: her2bridge COMMAND --help.
    """


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    signal.signal(signal.SIGINT, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a console that lacks a letter must not end a run
    try:
        sys.exit(typer.main.get_command(app).main(prog_name="her2bridge", standalone_mode=False))
    except _WrongUsage as error:
        sys.exit(_tell_wrong_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(Interrupted.exit_code)
    finally:
        signal.signal(signal.SIGINT, _end_at_once)


def _tell_wrong_usage(error: Any) -> int:
    """What the parser does not understand, in three parts."""
    command = error.ctx.command_path.rstrip() if error.ctx is not None else "her2bridge"
    told = UsageError(error.format_message(), where=command, next_step=f"{command} --help shows what can be given.")
    typer.echo(f"Error: {told}", err=True)
    return told.exit_code


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C lets what was finished be kept; a second one ends the process at once, without a word."""
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(number: int, frame: FrameType | None) -> None:
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
    os._exit(Interrupted.exit_code)

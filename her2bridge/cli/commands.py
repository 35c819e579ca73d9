"""Which commands there are. Each is loaded when it is called: ``her2bridge --help`` needs none of them."""

from __future__ import annotations

import importlib
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

COMMANDS = {
    "run": "Score a QuPath project and write the results into it.",
    "analyze": "Score one slide without a project, from and to GeoJSON.",
    "demo": "Draw a synthetic slide, score it, compare with the drawing.",
    "models": "List the model bundles that ship, or show one bundle's card.",
    "restore": "Put the last run's results back where QuPath wrote over them.",
    "doctor": "Check this machine, and a project; say what to do.",
    "train": "Train a model on labelled tiles.",
    "evaluate": "Measure a model on labelled tiles.",
    "train-score": "Teach a model to read slide scores from its tiles.",
    "experiment": "Repeat one of the paper's tables on labelled tiles.",
    "labels": "Make labelled tiles of regions drawn in QuPath.",
    "scripts": "Install the scripts for QuPath, and check them.",
}
"""Names, in the order of the help, and the first lines of their own help; the module of each is called as it is."""


def load(name: str) -> Any:
    """The parser's form of a command, or of a group of them."""
    module = name.replace("-", "_")
    found = getattr(importlib.import_module(f"her2bridge.cli.{module}"), module)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(found)
    return typer.main.get_command(alone)


class LoadingGroup(TyperGroup):
    """A group whose commands are only names and lines until one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, loaded."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest


def add_commands(app: typer.Typer) -> None:
    """Add all commands to a Typer of this group."""
    for name, line in COMMANDS.items():
        app.command(name, help=line)(_not_loaded)


def _not_loaded() -> None:
    """What stands for a command until it is called."""

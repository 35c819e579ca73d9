"""How text reaches a terminal or a file: as it is, plain where no terminal listens."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

RESEARCH_USE_ONLY = "Research use only: her2bridge assists, it does not diagnose."

_NARROW, _WIDE = 80, 160


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console for standard output or standard error that prints text as it is."""
    made = Console(stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False)
    if not made.is_terminal and made.width == _NARROW:  # rich's width where nobody states one
        made.width = _WIDE
    return made


def printable(text: str) -> str:
    """A name from somebody's file, on one line and without what would command a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table in our style; the columns named in ``numbers`` are set to the right."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold")
    right = set(numbers)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""An experiment's table, and how it is written: CSV and JSON for machines, Markdown for people."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from her2bridge.experiments.published import DATA_DIFFER, SOURCE, Spread
from her2bridge.storage import write_atomically

RESEARCH_USE_ONLY = "Research use only."
OURS, THEIRS = "here", SOURCE
"""What a line's column ``from`` says."""

Cell = str | int | float | Spread | None
Row = Mapping[str, Cell]


@dataclass(frozen=True)
class Column:
    """A column: its key in files, its title for people, how many digits its numbers have behind the point, and whether
    people see it or only CSV and JSON have it."""

    key: str
    title: str
    digits: int = 2
    for_people: bool = True

    def text(self, cell: Cell) -> str:
        """A cell for people: ``93.16 ± 0.10``; empty where there is no figure."""
        if isinstance(cell, str):
            return cell
        mean, sd = (cell.mean, cell.sd) if isinstance(cell, Spread) else (cell, None)
        if mean is None or not math.isfinite(mean):
            return ""
        if isinstance(mean, int):
            return f"{mean:,}"
        return f"{mean:.{self.digits}f}" + ("" if sd is None else f" ± {sd:.{self.digits}f}")


@dataclass(frozen=True)
class ExperimentTable:
    """What an experiment found.

    Attributes:
        name: ``table4`` …; also of its files.
        title: one line.
        columns: in the order in which people see them.
        rows: a cell a column, by key; the column ``from`` says whose line it is.
        notes: what must be known to read it.
        told: how it came about, plain values.
        more: further plain values, for the JSON alone.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    told: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns that people see."""
        return tuple(column for column in self.columns if column.for_people)

    def is_number(self, column: Column) -> bool:
        """Whether the column is set to the right."""
        return not all(isinstance(row[column.key], str) for row in self.rows)

    def texts(self) -> list[list[str]]:
        """The cells for people, row by row."""
        return [[column.text(row[column.key]) for column in self.shown] for row in self.rows]


def write_table(table: ExperimentTable, folder: Path) -> None:
    """Write ``NAME.csv``, ``NAME.json`` and ``NAME.md``.

    Raises:
        WriteFailed: the folder cannot be written.
    """
    for ending, text in (("csv", as_csv(table)), ("json", as_json(table)), ("md", as_markdown(table))):
        write_atomically(folder / f"{table.name}.{ending}", text.encode())


def as_csv(table: ExperimentTable) -> str:
    """A line a row; a figure over repeats has a second column, ``…_sd``; no figure is an empty cell."""
    header: list[str] = []
    for column in table.columns:
        has_sd = any(isinstance(row[column.key], Spread) for row in table.rows)
        header += [column.key, *([f"{column.key}_sd"] if has_sd else [])]
    out = io.StringIO()
    writer = csv.DictWriter(out, header, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        line: dict[str, object] = {}
        for column in table.columns:
            cell = row[column.key]
            if isinstance(cell, Spread):
                line |= {column.key: _number(cell.mean), f"{column.key}_sd": _number(cell.sd)}
            else:
                line[column.key] = _number(cell)
        writer.writerow(line)
    return out.getvalue()


def as_json(table: ExperimentTable) -> str:
    """Rows, notes, and how they came about."""
    plain = {
        "notice": RESEARCH_USE_ONLY,
        "experiment": table.name,
        "title": table.title,
        "rows": [{column.key: _plain(row[column.key]) for column in table.columns} for row in table.rows],
        "notes": [*table.notes, DATA_DIFFER],
        "made_with": dict(table.told),
        **table.more,
    }
    return json.dumps(plain, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def as_markdown(table: ExperimentTable) -> str:
    """The table and its notes."""
    lines = [f"# {table.title}", "", RESEARCH_USE_ONLY, ""]
    rules = ["---:" if table.is_number(column) else "---" for column in table.shown]
    lines += _markdown_rows([[column.title for column in table.shown], rules, *table.texts()])
    lines += ["", *(f"- {note}" for note in (*table.notes, DATA_DIFFER)), ""]
    return "\n".join(lines)


def _markdown_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in rows]


def _number(cell: Cell) -> str | int | float:
    """For CSV: nothing where there is no figure."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    assert not isinstance(cell, Spread)
    return cell


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Spread):
        return {"mean": _plain(cell.mean), "sd": _plain(cell.sd)}
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell

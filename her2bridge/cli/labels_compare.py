"""``her2bridge labels compare``."""

from __future__ import annotations

import json as json_text
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from her2bridge.cli import options as opt
from her2bridge.cli.console import RESEARCH_USE_ONLY, counted, printable, table
from her2bridge.cli.output import Output
from her2bridge.records import TileClass

if TYPE_CHECKING:
    from her2bridge.training.agreement import Agreement, Disagreement
    from her2bridge.training.dataset import Dataset

_SHOWN = 20


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A dataset: a folder that her2bridge labels wrote.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one, of the same slides: another person's labels.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write all tiles classed differently here, as CSV.")
    ] = None,
    geojson: Annotated[
        Path | None,
        typer.Option(
            "--geojson", metavar="DIR", help="Write them here too, one GeoJSON a slide, to be imported in QuPath."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output.")] = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Compare two people's labels of the same tiles: kappa, agreement by class, and where they differ.

    Tiles are the same where they lie on the same slide file at the same place. Kappa is Cohen's: unweighted over the
    six classes, and with quadratic weights over 0 to 3+ where both see tumour. Research use only.
    """
    with Output(as_json=json, log=log, debug=debug) as output:
        from her2bridge.training.agreement import compare_datasets, write_geojson, write_list
        from her2bridge.training.dataset import load_dataset

        first, second = load_dataset(a), load_dataset(b)
        agreement = compare_datasets(first, second)
        written = [] if geojson is None else write_geojson(geojson, agreement)
        if out is not None:
            write_list(out, agreement)
            written.append(out)
        output.write(_line(first, second, agreement, written))
        _tell(output, agreement)
        for path in written:
            output.notes.print(f"Written: {printable(str(path))}", soft_wrap=True)


def _line(a: Dataset, b: Dataset, agreement: Agreement, written: list[Path]) -> str:
    names = {"a": str(a.folder), "b": str(b.folder)}
    found = {"notice": RESEARCH_USE_ONLY, **names, **agreement.plain(), "written": [str(path) for path in written]}
    return json_text.dumps(found, ensure_ascii=False, allow_nan=False)


def _tell(output: Output, agreement: Agreement) -> None:
    only_a, only_b = int(agreement.only_a.sum()), int(agreement.only_b.sum())
    tell = output.results.print
    tell(f"{counted(agreement.tiles, 'tile')} in both; only in A: {only_a:,}, only in B: {only_b:,}", soft_wrap=True)
    tell(f"Classed alike: {agreement.share:.1%}; Cohen's kappa of the six classes: {_shown(agreement.kappa)}")
    tell(
        f"Both see tumour: {counted(agreement.tumour_tiles, 'tile')}; Cohen's kappa with quadratic weights of 0 to 3+: "
        f"{_shown(agreement.tumour_kappa)}",
        soft_wrap=True,
    )
    tell()
    tell(_confusion(agreement))
    if agreement.disagreements:
        found = agreement.disagreements
        tell()
        tell(f"{counted(len(found), 'tile')} classed differently, most grades apart first:", soft_wrap=True)
        tell(_list(found[:_SHOWN]))
        if len(found) > _SHOWN:
            tell(f"and {len(found) - _SHOWN:,} more: --out FILE writes all", soft_wrap=True)
    tell(RESEARCH_USE_ONLY, style="dim")


def _confusion(agreement: Agreement) -> Table:
    """Rows by A, columns by B; last how far they agree on the class, and what only one of them has."""
    labels = [one.label for one in TileClass]
    columns = [*labels, "agreement", "only in A", "only in B"]
    made = table("A \\ B", *columns, numbers=columns)
    for one in TileClass:
        counts = [f"{count:,}" for count in agreement.confusion[one].tolist()]
        alone = (f"{int(tiles[one]):,}" for tiles in (agreement.only_a, agreement.only_b))
        made.add_row(one.label, *counts, _shown(float(agreement.by_class[one])), *alone)
    return made


def _list(found: tuple[Disagreement, ...]) -> Table:
    made = table("image", "x", "y", "A", "B", numbers=("x", "y"))
    for one in found:
        made.add_row(printable(one.slide.name), f"{one.x:.0f}", f"{one.y:.0f}", one.label_a.label, one.label_b.label)
    return made


def _shown(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.3f}"

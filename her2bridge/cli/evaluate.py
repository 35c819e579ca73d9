"""``her2bridge evaluate``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from her2bridge.cli import options as opt
from her2bridge.cli.console import RESEARCH_USE_ONLY, counted, printable, table
from her2bridge.cli.output import Output

if TYPE_CHECKING:
    from her2bridge.training.evaluation import Evaluation

_FIGURES = ("accuracy", "macro_precision", "macro_recall", "macro_specificity", "macro_f1")
_COLUMNS = ("tiles", *(f"{name.removeprefix('macro_')} %" for name in _FIGURES))


def evaluate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A model bundle: its name, or its folder.")],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder that her2bridge labels wrote.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the report, figures and pictures.")],
    split: Annotated[
        str, typer.Option(metavar="test|val|train|all", help="Which of the dataset's tiles are evaluated.")
    ] = "test",
    folds: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The cross-validation of BUNDLE's training (her2bridge train --folds): suspect labels are looked for"
            " in the whole dataset, each tile by the network that did not see its patient.  [default: only in tiles"
            " that are evaluated and that BUNDLE did not learn from]",
        ),
    ] = None,
    write_suspects: Annotated[
        bool,
        typer.Option(
            "--write-suspects",
            help="Put an annotation over each suspect label into the QuPath project that the label came from, in place"
            " of those of an earlier call; GeoJSON below DIR where there is no project.",
        ),
    ] = False,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    runtime: opt.Runtime = "auto",
    batch_size: opt.BatchSize = None,
    relocate: opt.Relocations = None,
    backend: opt.Backend = "auto",
    json: opt.AsJson = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Measure a model on labelled tiles.

    The paper's figures, calibration, errors, and labels to look at again. Writes report.md, report.json,
    predictions.parquet, suspects.csv and pictures. Intervals are by patient. Exit code: 0, 1 where it cannot be done,
    2 for wrong usage, 130 after Ctrl-C. Research use only.
    """
    with Output(as_json=json, log=log, debug=debug) as output:
        from her2bridge.model.bundle import load_bundle
        from her2bridge.training.dataset import load_dataset
        from her2bridge.training.evaluate import EvaluateSettings
        from her2bridge.training.evaluate import evaluate as measure
        from her2bridge.training.folds import load_folds
        from her2bridge.training.predict import RuntimeSettings

        where = RuntimeSettings(device, precision, runtime, batch_size)
        settings = EvaluateSettings(split, write_suspects, where, backend, opt.relocations_of(relocate))
        held_out = None if folds is None else load_folds(folds)
        found = measure(load_bundle(bundle), load_dataset(dataset), out, settings, output, held_out)
        for shown in _told(found):
            output.results.print(shown, soft_wrap=isinstance(shown, str))
        for path in found.written.files if found.written else ():
            output.notes.print(f"Written: {printable(str(path))}", soft_wrap=True)
        output.results.print(RESEARCH_USE_ONLY, style="dim")


def _told(found: Evaluation) -> Iterator[str | Table]:
    """The figures of each reading, calibration, and what is to be looked at."""
    yield (
        f"{printable(found.bundle.name)} on {counted(len(found.rows), 'tile')} of {counted(found.patients, 'patient')}"
        f", split {found.split}"
    )
    made = table("classes", *_COLUMNS, numbers=_COLUMNS)
    for reading, figures in found.figures.items():
        if figures.tiles:
            plain = figures.plain()
            values = [plain["accuracy"], *(plain["macro"][name.removeprefix("macro_")] for name in _FIGURES[1:])]
            made.add_row(
                reading.value, f"{figures.tiles:,}", *("–" if one is None else f"{100 * one:.1f}" for one in values)
            )
            if found.intervals is not None:
                between = found.intervals.of[reading]
                made.add_row("", "", *(_between(between.get(name)) for name in _FIGURES))
    yield made
    if found.intervals is not None:
        yield "Below each figure: 95 % interval, patients resampled."
    yield (
        f"Expected calibration error: {float(found.before.error):.3f} before the model's temperature "
        f"({found.bundle.temperature:.3g}), {float(found.after.error):.3f} with it"
    )
    wrong = int((found.probabilities.argmax(axis=1) != found.truth).sum())
    yield f"{counted(wrong, 'tile')} classed wrongly"
    yield f"{counted(len(found.suspects), 'suspect label')} among {counted(len(found.searched.rows), 'tile')} searched"
    if found.written is not None:
        yield f"  {found.written.in_projects:,} written to projects, {found.written.in_files:,} to GeoJSON files"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"

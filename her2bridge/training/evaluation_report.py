"""An evaluation as a folder: ``report.md`` for people, ``report.json`` and ``predictions.parquet`` for programs,
pictures, ``suspects.csv``. Each file is written whole or not at all; the two reports come last."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from her2bridge.records import TileClass
from her2bridge.storage import write_atomically
from her2bridge.training.bootstrap import LEVEL, RESAMPLES, SEED, Interval
from her2bridge.training.evaluation import Evaluation
from her2bridge.training.evaluation_figures import draw_confusion, draw_errors, draw_reliability
from her2bridge.training.extras import need
from her2bridge.training.metrics import NOT_TUMOUR, Reading, TileFigures, measure_tiles
from her2bridge.training.unseen import seen_slides

REPORT, REPORT_JSON, PREDICTIONS = "report.md", "report.json", "predictions.parquet"
RELIABILITY, ERRORS, SUSPECTS = "reliability.png", "errors.jpg", "suspects.csv"
NOTICE = "Research use only."

_LABELS = [one.label for one in TileClass]
_MACRO = ("precision", "recall", "specificity", "f1")
_TITLES = {Reading.SIX: "Six classes", Reading.FOUR: "Four classes", Reading.THREE: "Three classes"}
_SUSPECTS_COLUMNS = ("row", "slide", "x", "y", "label", "found", "p_found", "p_label", "region", "annotator", "split")


def confusion_file(reading: Reading) -> str:
    """The picture of a reading's confusion."""
    return f"confusion_{reading.value}.png"


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write all of it; what the folder held of an earlier evaluation is replaced.

    Raises:
        SlideError: a slide of an error cannot be read.
        WriteFailed: the folder cannot be written.
        UsageError: pyarrow or matplotlib is not installed.
    """
    title = f"{evaluation.bundle.name}, split {evaluation.split}"
    write_atomically(folder / PREDICTIONS, _predictions(evaluation))
    write_atomically(folder / SUSPECTS, _suspects(evaluation).encode())
    for reading, figures in evaluation.figures.items():
        draw_confusion(figures, folder / confusion_file(reading), f"{_TITLES[reading]}: {title}")
    temperature = evaluation.bundle.temperature
    draw_reliability(evaluation.before, evaluation.after, temperature, folder / RELIABILITY, title)
    draw_errors(evaluation.dataset, evaluation.rows, evaluation.probabilities, folder / ERRORS)
    write_atomically(folder / REPORT, report(evaluation).encode())
    text = json.dumps(plain_evaluation(evaluation), ensure_ascii=False, indent=1, allow_nan=False)
    write_atomically(folder / REPORT_JSON, f"{text}\n".encode())


def plain_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """``report.json``: figures without a meaning are null."""
    bundle, dataset, searched = evaluation.bundle, evaluation.dataset, evaluation.searched
    found = {reading.value: _with_intervals(evaluation, reading) for reading in evaluation.figures}
    between = evaluation.intervals
    out_of_fold = None
    if evaluation.used_folds and len(searched.rows):
        truth = dataset.tiles.labels[searched.rows]
        figures = measure_tiles(truth, searched.probabilities.argmax(axis=1))
        out_of_fold = {"tiles": figures.tiles, "accuracy": figures.accuracy, "macro_f1": figures.macro_f1}
    return {
        "notice": NOTICE,
        "model": {
            "name": bundle.name,
            "version": bundle.version,
            "sha256": bundle.sha256,
            "temperature": bundle.temperature,
        },
        "dataset": {"folder": str(dataset.folder), "sha256": dataset.sha256, "split": evaluation.split},
        "runs_on": dict(evaluation.runs_on),
        "tiles": len(evaluation.rows),
        "patients": evaluation.patients,
        "warnings": list(evaluation.warnings),
        "intervals": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "drawn": "patients, with all their tiles"}
        if between is not None
        else None,
        **found,
        "calibration": {
            "bins": len(evaluation.after.tiles),
            "before_temperature": evaluation.before.plain(),
            "after_temperature": evaluation.after.plain(),
            "interval_after_temperature": None if between is None else list(between.calibration_error),
        },
        "slides": list(_slides(evaluation)),
        "suspects": {
            "searched_tiles": len(searched.rows),
            "refused_tiles": len(searched.refused),
            "models": searched.bundles,
            "out_of_fold": out_of_fold,
            "found": len(evaluation.suspects),
        },
    }


def report(evaluation: Evaluation) -> str:
    """``report.md``."""
    return "\n".join(_report(evaluation, plain_evaluation(evaluation))) + "\n"


def _with_intervals(evaluation: Evaluation, reading: Reading) -> dict[str, Any]:
    plain = evaluation.figures[reading].plain()
    between = evaluation.intervals
    if between is not None:
        plain["intervals"] = {name: list(one) for name, one in between.of.get(reading, {}).items()}
    return plain


def _slides(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """One row a slide."""
    of, truth = evaluation.dataset.tiles.slide[evaluation.rows], evaluation.truth
    found = evaluation.probabilities.argmax(axis=1)
    seen = seen_slides(evaluation.bundle, evaluation.dataset)
    for number in np.unique(of).tolist():
        own = of == number
        slide = evaluation.dataset.slides[number]
        figures = measure_tiles(truth[own], found[own])
        yield {
            "slide": slide.key,
            "patient": slide.patient,
            "tiles": figures.tiles,
            "accuracy": figures.accuracy,
            "macro_f1": figures.macro_f1,
            "labels": dict(zip(_LABELS, figures.support, strict=True)),
            "found": dict(zip(_LABELS, figures.confusion.sum(axis=0).tolist(), strict=True)),
            "learned_from": bool(seen[number]),
        }


def _predictions(evaluation: Evaluation) -> bytes:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    dataset, rows = evaluation.dataset, evaluation.rows
    tiles = dataset.tiles
    found = evaluation.probabilities.argmax(axis=1)
    table = pyarrow.table(
        {
            "row": rows,
            "slide": [dataset.slides[number].key for number in tiles.slide[rows].tolist()],
            "x": tiles.origins[rows, 0],
            "y": tiles.origins[rows, 1],
            "label": [_LABELS[label] for label in evaluation.truth.tolist()],
            "found": [_LABELS[one] for one in found.tolist()],
            **{f"p_{label}": evaluation.probabilities[:, place] for place, label in enumerate(_LABELS)},
        }
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def _suspects(evaluation: Evaluation) -> str:
    """As CSV, those that the model contradicts most first."""
    dataset, suspects = evaluation.dataset, evaluation.suspects
    tiles = dataset.tiles
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(_SUSPECTS_COLUMNS)
    columns = (suspects.rows, suspects.found, suspects.probabilities, suspects.label_probabilities)
    for place, found, said, doubted in zip(*(column.tolist() for column in columns), strict=True):
        row = int(evaluation.searched.rows[place])
        x, y = tiles.origins[row].tolist()
        label = _LABELS[int(tiles.labels[row])]
        slide = dataset.slides[int(tiles.slide[row])].key
        where = (tiles.regions[row], tiles.annotators[row], tiles.splits[row])
        table.writerow((row, slide, x, y, label, _LABELS[found], f"{said:.4f}", f"{doubted:.4f}", *where))
    return buffer.getvalue()


def _report(evaluation: Evaluation, plain: dict[str, Any]) -> Iterator[str]:
    bundle, dataset = evaluation.bundle, evaluation.dataset
    yield f"# {bundle.name} {bundle.version} on labelled tiles"
    yield ""
    yield f"**{NOTICE}**"
    yield ""
    for warning in evaluation.warnings:
        yield f"> **Warning.** {warning}"
        yield ""
    yield f"{len(evaluation.rows):,} tiles of {evaluation.patients:,} patients, split {evaluation.split}."
    yield f"Model sha256 {bundle.sha256[:16]}, dataset {dataset.sha256[:16]}, {', '.join(evaluation.runs_on.values())}."
    yield ""
    yield (
        "Equations 7–11 of Han et al. 2022. Accuracy is the share of tiles classed rightly; macro figures are means "
        "over the classes that have tiles. In four and three classes accuracy is that of the tiles whose label is "
        "tumour; one found normal or noise is an error. Precision and specificity set one class against all other "
        "tiles, normal and noise among them, as the paper's own figures imply. A figure that divides by nothing is 0; "
        "– stands where no tile can be counted."
    )
    if evaluation.intervals is not None:
        yield f"In brackets: {LEVEL:.0%} intervals, {RESAMPLES:,} resamples of patients with all their tiles."
    for reading, figures in evaluation.figures.items():
        yield from _reading(evaluation, reading, figures)
    yield from _calibration(evaluation)
    yield from _slide_table(plain["slides"])
    yield from _suspects_told(evaluation, plain["suspects"])


def _reading(evaluation: Evaluation, reading: Reading, figures: TileFigures) -> Iterator[str]:
    yield from ("", f"## {_TITLES[reading]}", "")
    if not figures.tiles:
        yield "No tile has a label of these classes."
        return
    between = {} if evaluation.intervals is None else evaluation.intervals.of.get(reading, {})
    others = f", against {figures.others:,} of {NOT_TUMOUR}" if figures.others else ""
    yield f"{figures.tiles:,} tiles{others}. Accuracy {_percent(figures.accuracy, between.get('accuracy'))}."
    if figures.absent:
        yield f"Without tiles: {', '.join(figures.absent)}."
    yield ""
    yield from _table(("Class", "Tiles", "Precision %", "Recall %", "Specificity %", "F1 %"), 1)
    plain = figures.plain()
    for name, one in plain["by_class"].items():
        yield _row((name, f"{one['tiles']:,}", *(_percent(one[key]) for key in _MACRO)))
    macro = (_percent(plain["macro"][key], between.get(f"macro_{key}")) for key in _MACRO)
    yield _row(("macro", f"{figures.tiles:,}", *macro))
    yield from ("", f"![confusion]({confusion_file(reading)})")


def _calibration(evaluation: Evaluation) -> Iterator[str]:
    yield from ("", "## Calibration", "")
    between = evaluation.intervals
    after = f"{float(evaluation.after.error):.3f}"
    if between is not None:
        after += " ({:.3f}–{:.3f})".format(*between.calibration_error)
    yield (
        f"Expected calibration error, {len(evaluation.after.tiles)} bins of the top class: "
        f"{float(evaluation.before.error):.3f} before the model's temperature ({evaluation.bundle.temperature:.3g}), "
        f"{after} with it."
    )
    yield from ("", f"![reliability]({RELIABILITY})")


def _slide_table(slides: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from ("", "## Slides", "")
    yield from _table(("Slide", "Patient", "Tiles", "Accuracy %", "Macro F1 %", "Learned from"), 2, 1)
    for one in slides:
        figures = (f"{one['tiles']:,}", _percent(one["accuracy"]), _percent(one["macro_f1"]))
        yield _row((one["slide"], one["patient"], *figures, "yes" if one["learned_from"] else ""))


def _suspects_told(evaluation: Evaluation, plain: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## Errors and suspect labels", "")
    wrong = int((evaluation.probabilities.argmax(axis=1) != evaluation.truth).sum())
    yield f"{wrong:,} tiles were classed wrongly{f'; the surest are in [{ERRORS}]({ERRORS})' if wrong else ''}."
    yield (
        f"{plain['found']:,} of {plain['searched_tiles']:,} labels are suspect (confident learning, Northcutt et al. "
        f"2021), by models that learned nothing of their patients: [{SUSPECTS}]({SUSPECTS}). A suspect is to be looked "
        "at, not to be changed unseen: where the model is wrong of a whole kind of tissue, so are its suspicions."
    )
    if plain["refused_tiles"]:
        yield (f"Not searched: {plain['refused_tiles']:,} tiles, whose patients the model learned from, or may have.")
    if plain["out_of_fold"] is not None:
        one = plain["out_of_fold"]
        yield (
            f"Out of fold, over {one['tiles']:,} tiles and {plain['models']:,} models: accuracy "
            f"{_percent(one['accuracy'])} %, macro F1 {_percent(one['macro_f1'])} % (six classes)."
        )


def _percent(value: float | None, between: Interval | None = None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" ({100 * between[0]:.1f}–{100 * between[1]:.1f})" if between else "")


def _table(titles: Sequence[str], texts: int, texts_at_end: int = 0) -> Iterator[str]:
    """Head of a table; all but the first and last columns are numbers."""
    yield _row(titles)
    numbers = len(titles) - texts - texts_at_end
    yield _row([*["---"] * texts, *["---:"] * numbers, *["---"] * texts_at_end])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

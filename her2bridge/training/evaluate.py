"""A bundle measured on labelled tiles, through the runtime that a run would use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.events import Emit, Evaluated, Warned
from her2bridge.model.bundle import Bundle
from her2bridge.records import IntArray
from her2bridge.training.bootstrap import FEW, intervals
from her2bridge.training.dataset import SPLITS, Dataset
from her2bridge.training.evaluation import Evaluation
from her2bridge.training.evaluation_report import REPORT, REPORT_JSON, write_evaluation
from her2bridge.training.metrics import Reading, measure_tiles
from her2bridge.training.out_of_fold import out_of_fold, without_folds
from her2bridge.training.predict import RuntimeSettings, predict_rows, ready
from her2bridge.training.reliability import at_temperature_one, reliability_of
from her2bridge.training.suspect_writing import SuspectsWritten, remove_suspect_files, write_suspects
from her2bridge.training.suspects import find_suspects
from her2bridge.training.unseen import HeldOut, check_folds, learned_slides, seen_patients, seen_slides

ALL = "all"
SUSPECTS_FOLDER = "suspects"

TOO_MANY = 0.3
"""Share of suspect labels above which it is the network that is suspect."""


@dataclass(frozen=True)
class EvaluateSettings:
    """What is evaluated, and how.

    Attributes:
        split: ``train``, ``val``, ``test`` or ``all``.
        write_suspects: whether suspect labels go back to the projects that the labels came from.
        runtime: where the network runs.
        backend: how projects are written, see ``open_project``.
        relocations: old and new beginnings of slides' paths.

    Raises:
        UsageError: there is no such split.
    """

    split: str = "test"
    write_suspects: bool = False
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    backend: str = "auto"
    relocations: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.split not in (*SPLITS, ALL):
            next_step = f"Give {', '.join(SPLITS)} or {ALL}."
            raise UsageError(f"--split cannot be {self.split!r}.", where="--split", next_step=next_step)


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    out: Path,
    settings: EvaluateSettings,
    emit: Emit,
    folds: HeldOut | None = None,
) -> Evaluation:
    """Measure a bundle on one split of a dataset, and write all that was found to ``out``; see ``measure``.

    Raises:
        UsageError: suspect labels are to be written, and nobody can say which slides the model has not seen.
        WriteFailed: ``out`` cannot be written.
    """
    if settings.write_suspects and folds is None and learned_slides(bundle.card) is None:
        raise UsageError(
            f"Suspect labels cannot be written: the card of {bundle.name} names no slides, so nobody can tell which "
            "patients it has not learned from.",
            where="--write-suspects",
            next_step="Give --folds, the folder of its cross-validation, or a bundle that her2bridge train made.",
        )
    evaluation = measure(bundle, dataset, settings, emit, folds)
    for name in (REPORT, REPORT_JSON):  # they come last; those of an earlier call would speak of other files
        (out / name).unlink(missing_ok=True)
    write_evaluation(evaluation, out)
    if settings.write_suspects and len(evaluation.suspects.rows) <= TOO_MANY * len(evaluation.searched.rows):
        evaluation = replace(evaluation, written=_write_suspects(evaluation, out, settings, emit))
    else:
        remove_suspect_files(out / SUSPECTS_FOLDER)
    figures = evaluation.figures[Reading.SIX]
    emit(
        Evaluated(
            folder=str(out),
            model=bundle.name,
            tiles=len(evaluation.rows),
            patients=evaluation.patients,
            accuracy=figures.accuracy,
            macro_f1=figures.macro_f1,
            expected_calibration_error=float(evaluation.after.error),
        )
    )
    return evaluation


def measure(
    bundle: Bundle, dataset: Dataset, settings: EvaluateSettings, emit: Emit, folds: HeldOut | None = None
) -> Evaluation:
    """Classify one split's tiles and compare with their labels; writes nothing.

    Args:
        folds: the bundles of the model's cross-validation; suspect labels are then looked for in all of the dataset.

    Raises:
        NotEnoughLabels: the split has no tiles.
        UsageError: the model wants to see other tiles, a device that cannot be, or folds of another training.
        SlideError: a slide cannot be read.
    """
    if folds is not None:
        check_folds(bundle, folds)  # now, not after minutes of work
    dataset = dataset.relocated(settings.relocations)
    rows = _rows(dataset, settings.split)
    warnings = warnings_of(bundle, dataset, rows, settings.split)
    for warning in warnings:
        emit(Warned(None, warning))
    runtime = ready(bundle, dataset, settings.runtime, emit)
    batch = settings.runtime.batch_size
    probabilities = predict_rows(runtime, dataset, rows, emit, batch_size=batch, task="evaluating")
    truth, patients = dataset.tiles.labels[rows], [dataset.patients[row] for row in rows.tolist()]
    if folds is None:
        searched = without_folds(bundle, dataset, rows, probabilities)
    else:
        searched = out_of_fold(bundle, dataset, folds, settings.runtime, emit)
    if len(searched.refused):
        refused = _refused(bundle, len(searched.refused), folds is not None)
        emit(Warned(None, refused))
        warnings = (*warnings, refused)
    suspects = find_suspects(dataset.tiles.labels[searched.rows], searched.probabilities)
    if len(suspects.rows) > TOO_MANY * len(searched.rows):
        many = (
            f"{len(suspects.rows):,} of {len(searched.rows):,} labels are suspect: more likely the network is no "
            "judge. They are written to no project."
        )
        emit(Warned(None, many))
        warnings = (*warnings, many)
    return Evaluation(
        bundle=bundle,
        dataset=dataset,
        split=settings.split,
        runs_on={"device": runtime.device, "precision": runtime.precision, "runtime": runtime.name},
        rows=rows,
        probabilities=probabilities,
        figures={reading: measure_tiles(truth, probabilities.argmax(axis=1), reading) for reading in Reading},
        before=reliability_of(truth, at_temperature_one(probabilities, bundle.temperature)),
        after=reliability_of(truth, probabilities),
        intervals=intervals(patients, truth, probabilities),
        warnings=warnings,
        searched=searched,
        used_folds=folds is not None,
        suspects=suspects,
    )


def warnings_of(bundle: Bundle, dataset: Dataset, rows: IntArray, split: str) -> tuple[str, ...]:
    """What makes figures of these rows better than they would be on new patients, or says little of them."""
    slides, counts = np.unique(dataset.tiles.slide[rows], return_counts=True)
    seen, known = seen_slides(bundle, dataset)[slides], seen_patients(bundle, dataset)[slides]
    told = []
    if seen.any():
        told.append(
            f"LEAK: the model learned from {seen.sum():,} of the {len(slides):,} slides evaluated "
            f"({counts[seen].sum():,} of {len(rows):,} tiles). These figures say how well it remembers them, not how "
            "well it works on new slides."
        )
    if (known & ~seen).any():
        told.append(
            f"LEAK: the model learned from other slides of the patients of {(known & ~seen).sum():,} of the "
            f"{len(slides):,} slides evaluated."
        )
    if learned_slides(bundle.card) is None:
        told.append("The model's card names no slides: whether it learned from those evaluated cannot be told.")
    mixed = _mixed_slides(dataset, split)
    if mixed:
        told.append(
            f"The dataset's tiles were split the paper's way: tiles of {mixed:,} of its slides lie both in train and "
            f"in {split}. A model trained on this dataset has seen the surroundings of the tiles evaluated; its "
            "figures are too good."
        )
    patients = len({dataset.slides[one].patient for one in slides.tolist()})
    if patients == 1:
        told.append("All tiles are of one patient: no interval can be given.")
    elif patients < FEW:
        told.append(f"Only {patients} patients: the intervals are unreliable, and likely too narrow.")
    return tuple(told)


def _rows(dataset: Dataset, split: str) -> IntArray:
    tiles = dataset.tiles
    rows = np.arange(len(tiles), dtype=np.int64) if split == ALL else tiles.rows_of(split)
    if len(rows):
        return rows
    has = ", ".join(f"{one}: {len(tiles.rows_of(one)):,}" for one in SPLITS)
    what = "The dataset has no tiles." if split == ALL else f"The split {split} has no tiles."
    next_step = f"Evaluate another split with --split ({has}; {ALL}), or lock slides into {SPLITS[-1]}."
    raise NotEnoughLabels(what, where=str(dataset.folder), next_step=next_step)


def _mixed_slides(dataset: Dataset, split: str) -> int:
    """Slides that lie both in train and in the split evaluated."""
    if split in ("train", ALL):
        return 0
    tiles = dataset.tiles
    return len(np.intersect1d(tiles.slide[tiles.rows_of("train")], tiles.slide[tiles.rows_of(split)]))


def _refused(bundle: Bundle, count: int, used_folds: bool) -> str:
    if learned_slides(bundle.card) is None:
        return (
            f"Suspect labels were not looked for in {count:,} tiles: the model's card names no slides, so nobody can "
            "tell whether it learned from their patients; --folds names the models of its cross-validation, which did "
            "not."
        )
    if used_folds:
        return f"Suspect labels were not looked for in {count:,} tiles: their fold's model learned from their patients."
    return (
        f"Suspect labels were not looked for in {count:,} tiles, whose patients the model learned from; --folds names "
        "the models of its cross-validation, which did not."
    )


def _write_suspects(evaluation: Evaluation, out: Path, settings: EvaluateSettings, emit: Emit) -> SuspectsWritten:
    suspects = evaluation.suspects
    return write_suspects(
        evaluation.dataset,
        evaluation.searched.rows[suspects.rows],
        suspects.found,
        suspects.probabilities,
        emit,
        backend=settings.backend,
        relocations=settings.relocations,
        folder=out / SUSPECTS_FOLDER,
    )

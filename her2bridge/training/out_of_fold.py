"""Predictions of each tile by a network that learned nothing of its patient: what suspect labels are found by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from her2bridge.events import Emit
from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.records import BoolArray, Float32Array, IntArray
from her2bridge.training.dataset import Dataset
from her2bridge.training.predict import RuntimeSettings, predict_rows, ready
from her2bridge.training.unseen import HeldOut, learned_slides, seen_patients


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What networks say of tiles whose patients they did not learn from.

    Attributes:
        rows: of the dataset's table, int64 [m], ascending.
        probabilities: float32 [m, 6].
        refused: rows left out, since the network at hand has learned from their patient, or may have: its card names
            no slides; int64.
        bundles: how many networks took part.
    """

    rows: IntArray
    probabilities: Float32Array
    refused: IntArray
    bundles: int


def without_folds(bundle: Bundle, dataset: Dataset, rows: IntArray, probabilities: Float32Array) -> OutOfFold:
    """Of what the bundle says of these rows, float32 [m, 6], that of patients it did not see."""
    seen = _may_have_seen(bundle, dataset)[dataset.tiles.slide[rows]]
    return OutOfFold(rows[~seen], probabilities[~seen], rows[seen], int(not seen.all()))


def out_of_fold(bundle: Bundle, dataset: Dataset, folds: HeldOut, settings: RuntimeSettings, emit: Emit) -> OutOfFold:
    """Predict all of a dataset's tiles by networks that did not see their patients.

    A slide that is in no fold is predicted by ``bundle``. Whatever the folds say, a network is not asked about a
    patient from whom, by its own card, it learned, nor one whose card does not say from whom.

    Raises:
        ModelError: a fold's bundle is missing or damaged.
        SlideError: a slide cannot be read.
    """
    tiles = dataset.tiles
    by_folder: dict[Path | None, list[int]] = {}
    for number, slide in enumerate(dataset.slides):
        by_folder.setdefault(folds.bundle_for(slide.fingerprint), []).append(number)
    rows, found, refused, bundles = [], [], [], 0
    for folder, numbers in by_folder.items():
        one = bundle if folder is None else load_bundle(folder)
        seen = _may_have_seen(one, dataset)
        theirs = np.flatnonzero(np.isin(tiles.slide, numbers)).astype(np.int64)
        is_seen = seen[tiles.slide[theirs]]
        refused.append(theirs[is_seen])
        theirs = theirs[~is_seen]
        if not len(theirs):
            continue
        runtime = ready(one, dataset, settings, emit)
        bundles += 1
        task = f"out of fold, {bundles}"
        rows.append(theirs)
        found.append(predict_rows(runtime, dataset, theirs, emit, batch_size=settings.batch_size, task=task))
    return _sorted(rows, found, refused, bundles)


def _may_have_seen(bundle: Bundle, dataset: Dataset) -> BoolArray:
    """Of which of the s slides nobody can say that the network learned nothing of their patient, bool [s]."""
    if learned_slides(bundle.card) is None:
        return np.ones(len(dataset.slides), dtype=np.bool_)
    return seen_patients(bundle, dataset)


def _sorted(rows: list[IntArray], found: list[Float32Array], refused: list[IntArray], bundles: int) -> OutOfFold:
    none = np.zeros(0, dtype=np.int64)
    together = np.concatenate([none, *rows])
    probabilities = np.concatenate([np.zeros((0, 6), dtype=np.float32), *found])
    order = np.argsort(together)
    return OutOfFold(together[order], probabilities[order], np.sort(np.concatenate([none, *refused])), bundles)

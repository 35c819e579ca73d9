"""Cross-validation: several networks, each of which has not seen some of the patients.

A folder holds the bundles, ``fold-0`` and so on, and ``folds.json``:

    {"format": 1, "dataset": sha256 of the dataset's table,
     "folds": [{"bundle": "fold-0", "patients": [held out], "slides": [fingerprints held out]}, …]}

Each learned from the training and validation tiles of the patients that it does not hold out. Patients with test tiles
alone are in no fold: none of the networks has seen them, nor the one that was trained on all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from her2bridge.errors import BundleDamaged, BundleNotFound, NotEnoughLabels, UsageError
from her2bridge.records import FloatArray, IntArray, TileClass
from her2bridge.storage import write_atomically
from her2bridge.training.dataset import Dataset

FOLDS_FILE = "folds.json"
FORMAT = 1

_TRIES = 60
_NEXT = "Copy the whole folder again, or train the folds anew: her2bridge train … --folds K."


@dataclass(frozen=True)
class Fold:
    """One network of the cross-validation.

    Attributes:
        bundle: name of its folder.
        patients: those it has not seen.
        slides: the fingerprints of theirs.
    """

    bundle: str
    patients: tuple[str, ...]
    slides: tuple[str, ...]


@dataclass(frozen=True)
class Folds:
    """A cross-validation on disk.

    Attributes:
        folder: where the bundles lie.
        dataset: SHA-256 of the table that was learned from.
        folds: the networks.
    """

    folder: Path
    dataset: str
    folds: tuple[Fold, ...]

    def bundle_for(self, fingerprint: str) -> Path | None:
        """The bundle that did not see this slide; None where the slide is in no fold."""
        for fold in self.folds:
            if fingerprint in fold.slides:
                return self.folder / fold.bundle
        return None


def make_folds(dataset: Dataset, count: int, seed: int) -> tuple[Fold, ...]:
    """Deal the patients with training or validation tiles into folds, so that each has its share of every class.

    Raises:
        UsageError: fewer than two folds.
        NotEnoughLabels: fewer patients than folds.
    """
    if count < 2:
        raise UsageError(f"There cannot be {count} folds.", where="--folds", next_step="Give 2 or more.")
    rows = dataset.tiles.rows_of("train", "val")
    patients, groups = np.unique([dataset.patients[row] for row in rows.tolist()], return_inverse=True)
    if len(patients) < count:
        raise NotEnoughLabels(
            f"The training and validation tiles are of {len(patients)} patients, too few for {count} folds.",
            where=str(dataset.folder),
            next_step="Give fewer --folds, or label slides of more patients.",
        )
    counts = np.zeros((len(patients), len(TileClass)))
    np.add.at(counts, (groups, dataset.tiles.labels[rows]), 1)
    places = _dealt(counts, count, np.random.default_rng([seed, count]))
    folds = []
    for place in range(count):
        held_out = tuple(map(str, patients[places == place]))
        slides = {slide.fingerprint for slide in dataset.slides if slide.patient in held_out}
        folds.append(Fold(f"fold-{place}", held_out, tuple(sorted(slides))))
    return tuple(folds)


def save_folds(folder: Path, dataset: str, folds: Sequence[Fold]) -> Folds:
    """Write ``folds.json``; the bundles are the caller's.

    Raises:
        WriteFailed: the folder cannot be written.
    """
    plain = {"format": FORMAT, "dataset": dataset, "folds": [asdict(fold) for fold in folds]}
    text = json.dumps(plain, ensure_ascii=False, indent=1)
    write_atomically(folder / FOLDS_FILE, f"{text}\n".encode())
    return Folds(folder, dataset, tuple(folds))


def load_folds(folder: Path) -> Folds:
    """Read ``folds.json``; the bundles are read when they are used.

    Raises:
        BundleNotFound: there is none.
        BundleDamaged: it is not what ``save_folds`` writes.
    """
    folder = folder.expanduser()
    path = folder / FOLDS_FILE
    if not path.is_file():
        raise BundleNotFound(
            "There is no cross-validation here.",
            where=str(folder),
            next_step=f"Name the folder that holds {FOLDS_FILE}; her2bridge train … --folds K makes it, BUNDLE-folds.",
        )
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise ValueError(f"format {plain['format']}; a later her2bridge may have written it")
        folds = tuple(_fold(one) for one in plain["folds"])
        return Folds(folder, str(plain["dataset"]), folds)
    except (KeyError, OSError, TypeError, ValueError) as error:
        fault = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        what = f"The cross-validation cannot be read ({fault})."
        raise BundleDamaged(what, where=str(path), next_step=_NEXT) from error


def _fold(plain: Any) -> Fold:
    name = plain["bundle"]
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:"):
        raise ValueError(f"{name!r} is no folder's name")
    lists = plain["patients"], plain["slides"]
    if not all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists):
        raise ValueError("patients and slides must be lists of texts")
    return Fold(name, tuple(lists[0]), tuple(lists[1]))


def _dealt(counts: FloatArray, folds: int, rng: np.random.Generator) -> IntArray:
    """The fold of each of p patients, int64 [p]: of some tries the one whose folds are most alike.

    Args:
        counts: tiles by patient and class, [p, 6].
    """
    weights = counts / np.maximum(counts.sum(axis=0), 1)  # of each class the part that a patient has
    best, least = np.zeros(len(counts), dtype=np.int64), np.inf
    for _ in range(_TRIES):
        places, sums = np.zeros(len(counts), dtype=np.int64), np.zeros((folds, counts.shape[1]))
        sizes = np.zeros(folds, dtype=np.int64)
        order = np.argsort(-weights.sum(axis=1) * rng.uniform(0.5, 1.5, len(counts)), kind="stable")
        for patient in order.tolist():
            cost = (sums * weights[patient]).sum(axis=1)  # half of what the sum of squares grows by, less a constant
            place = int(np.lexsort((sizes, cost))[0])  # empty folds, which cost nothing, first
            places[patient] = place
            sums[place] += weights[patient]
            sizes[place] += 1
        if (cost_of_all := float((sums**2).sum())) < least:
            best, least = places, cost_of_all
    return best

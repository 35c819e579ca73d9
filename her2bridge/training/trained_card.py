"""What a trained bundle says of itself: what it learned from, how well it does, what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from her2bridge.inference.runtime.base import softmax
from her2bridge.model.bundle import Bundle
from her2bridge.records import Float32Array, IntArray, TileClass
from her2bridge.training.dataset import Dataset
from her2bridge.training.metrics import confusion, measure_confusion
from her2bridge.training.recipes import Recipe
from her2bridge.training.reliability import reliability_of
from her2bridge.training.unseen import learned_slides
from her2bridge.version import version

_INTENDED_USE = (
    "Research use only. It assists: it finds and pre-sorts tumour tiles by HER2 staining for a pathologist to check. "
    "It must not be used to judge a patient's tissue."
)
_LABELS = [one.label for one in TileClass]


NOT_STATED = "not stated"
"""Who labelled, where nobody says."""
NOBODY = "not stated (take it that no pathologist labelled)"


def told_training(
    dataset: Dataset,
    train: IntArray,
    validation: IntArray,
    recipe: Recipe,
    seed: int,
    labels_by: str,
    start: Bundle | None,
) -> dict[str, Any]:
    """The card's ``training``.

    ``slides`` are the fingerprints of all slides that anything was learned from, those that ``start`` had learned from
    before included: by them an evaluation knows which patients the network has seen.

    Args:
        train: rows of the dataset that were trained on.
        validation: rows that the temperature was fitted on.
    """
    tiles, rows = dataset.tiles, np.concatenate([train, validation])
    slides = {dataset.slides[one].fingerprint for one in np.unique(tiles.slide[rows]).tolist()}
    earlier = learned_slides(start.card) or frozenset() if start is not None else frozenset()
    patients = {dataset.patients[row] for row in rows.tolist()}
    of = f"{_some(len(slides), 'slide')} of {_some(len(patients), 'patient')}"
    return {
        "data": f"{_some(len(rows), 'labelled tile')} of {of}",
        "dataset": dataset.sha256,
        "labels_by": {"annotators": len({tiles.annotators[row] for row in rows.tolist()}), "stated": labels_by},
        "slides": sorted(slides | earlier),
        "tiles": {"train": _by_label(tiles.labels[train]), "val": _by_label(tiles.labels[validation])},
        "recipe": asdict(recipe),
        "seed": seed,
        "start": "random weights" if start is None else {"bundle": start.name, "sha256": start.sha256},
        "made_with": f"her2bridge {version()}, torch {torch.__version__}",
    }


def told_metrics(logits: Float32Array, labels: IntArray, temperature: float, patients: int) -> dict[str, Any]:
    """The card's ``metrics``: of n validation tiles, logits float32 [n, 6]; null where a class has no tile."""
    if not len(labels):
        return {"measured_on": "nothing: it had no validation tiles", "tiles": 0}
    table = confusion(labels, logits.argmax(axis=1).astype(np.int64))
    plain = measure_confusion(table).plain()
    errors = [float(reliability_of(labels, softmax(logits, one)).error) for one in (1.0, temperature)]
    by_class = plain["by_class"].items()
    return {
        "measured_on": f"validation tiles of {_some(patients, 'patient')}, which the temperature was fitted on too",
        "tiles": plain["tiles"],
        "accuracy": _short(plain["accuracy"]),
        "macro_f1": _short(plain["macro"]["f1"]),
        "recall": {label: _short(one["recall"]) for label, one in by_class},
        "precision": {label: _short(one["precision"]) for label, one in by_class},
        "expected_calibration_error": {"before_temperature": _short(errors[0]), "with_it": _short(errors[1])},
        "confusion": {"order": _LABELS, "rows_truth_columns_predicted": table.tolist()},
    }


def told_limits(
    dataset: Dataset, training: Mapping[str, Any], missing: list[str], has_validation: bool, start: Bundle | None
) -> list[str]:
    """The card's ``limits``; ``missing``: labels of the classes without training tiles."""
    stated = training["labels_by"]["stated"]
    by = NOBODY if stated == NOT_STATED else stated
    found = [
        "Research use only.",
        f"It learned from {training['data']}, labels by: {by}; nothing is known of its worth on other laboratories' "
        "stains and scanners.",
    ]
    if missing:
        found.append(f"It learned from no tile of {', '.join(missing)}: it does not find what it has never seen.")
    if not has_validation:
        found.append(
            "It was not measured while it was made, nor were its probabilities calibrated on tiles of its own."
        )
    elif dataset.card.get("settings", {}).get("split") == "paper":
        found.append("Tiles of one slide lie in training and in validation: its figures are too good.")
    if start is not None:
        found.append(f"It began as {start.name}, whose own limits may still be in it.")
    return found


def card_of(
    dataset: Dataset,
    name: str,
    model_version: str,
    transform: tuple[tuple[float, float, float], tuple[float, float, float]],
    training: Mapping[str, Any],
    limits: list[str],
    start: Bundle | None,
) -> dict[str, Any]:
    """The card but for what is measured."""
    return {
        "name": name,
        "version": model_version,
        "license": "not stated" if start is None else str(start.card["license"]),
        "intended_use": _INTENDED_USE,
        "patch_size_px": dataset.spec.size_px,
        "spacing_um_px": dataset.spec.mpp,
        "transform": {"mean": list(transform[0]), "std": list(transform[1]), "of": "RGB, uint8 divided by 255"},
        "training": dict(training),
        "metrics": {},
        "limits": limits,
    }


def _some(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _by_label(labels: IntArray) -> dict[str, int]:
    return dict(zip(_LABELS, np.bincount(labels, minlength=len(TileClass)).tolist(), strict=True))


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

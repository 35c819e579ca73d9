"""What a bundle learned from, as its card says, and which of a dataset's slides it has therefore not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from her2bridge.errors import UsageError
from her2bridge.model.bundle import Bundle
from her2bridge.records import BoolArray
from her2bridge.training.dataset import Dataset


class HeldOut(Protocol):
    """The bundles of a cross-validation (``training.folds.Folds`` is one)."""

    @property
    def dataset(self) -> str:
        """SHA-256 of the table that they learned from."""
        ...

    def bundle_for(self, fingerprint: str) -> Path | None:
        """The bundle that did not see this slide; None where the slide is in no fold."""
        ...


def check_folds(bundle: Bundle, folds: HeldOut) -> None:
    """Refuse folds of another training.

    Raises:
        UsageError: they learned from another dataset than the bundle, or its card names none.
    """
    training = bundle.card.get("training")
    if folds.dataset != (training.get("dataset") if isinstance(training, Mapping) else None):
        raise UsageError(
            f"The folds learned from another dataset than {bundle.name}.",
            where="--folds",
            next_step=f"Give the folds that were trained together with {bundle.name}.",
        )


def learned_slides(card: Mapping[str, Any]) -> frozenset[str] | None:
    """Fingerprints of the slides that the network was trained or validated on; None where the card names none."""
    training = card.get("training")
    slides = training.get("slides") if isinstance(training, Mapping) else None
    return frozenset(map(str, slides)) if isinstance(slides, list | tuple) else None


def seen_slides(bundle: Bundle, dataset: Dataset) -> BoolArray:
    """Which of the dataset's s slides the network learned from, bool [s]."""
    learned = learned_slides(bundle.card) or frozenset()
    return np.array([slide.fingerprint in learned for slide in dataset.slides], dtype=np.bool_)


def seen_patients(bundle: Bundle, dataset: Dataset) -> BoolArray:
    """Which of the dataset's s slides are of a patient whom the network learned from, bool [s]."""
    seen = seen_slides(bundle, dataset)
    patients = {slide.patient for slide, one in zip(dataset.slides, seen.tolist(), strict=True) if one}
    return np.array([slide.patient in patients for slide in dataset.slides], dtype=np.bool_)

"""No tile is predicted by a network that learned from its patient, whatever the folds say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_evaluations import colour_bundle, coloured

from her2bridge.errors import BundleNotFound
from her2bridge.training.dataset import Dataset
from her2bridge.training.out_of_fold import out_of_fold, without_folds
from her2bridge.training.predict import RuntimeSettings
from her2bridge.training.unseen import learned_slides, seen_patients, seen_slides

CPU = RuntimeSettings("cpu", "fp32", "torch")


@dataclass(frozen=True)
class Folds:
    """Bundles by fingerprint."""

    of: Mapping[str, Path]
    dataset: str = ""

    def bundle_for(self, fingerprint: str) -> Path | None:
        return self.of.get(fingerprint)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Slides 0 and 1 of one patient, 2 and 3 of one each; two tiles each, all black."""
    return coloured(tmp_path, [[("0", "0"), ("1+", "0")]] * 4, patients=["p", "p", "q", "r"])


def prints(dataset: Dataset, *numbers: int) -> list[str]:
    return [dataset.slides[number].fingerprint for number in numbers]


def test_what_a_card_says(tmp_path: Path, dataset: Dataset) -> None:
    knows = colour_bundle(tmp_path / "knows", slides=[*prints(dataset, 1), "another"])
    assert seen_slides(knows, dataset).tolist() == [False, True, False, False]
    assert seen_patients(knows, dataset).tolist() == [True, True, False, False]
    assert learned_slides(knows.card) == {*prints(dataset, 1), "another"}
    assert learned_slides({"training": "synthetic tiles"}) is None
    assert learned_slides({"training": {"data": "synthetic tiles"}}) is None
    assert learned_slides({"training": {"slides": []}}) == frozenset()


def test_each_slide_by_the_network_that_did_not_see_it(tmp_path: Path, dataset: Dataset) -> None:
    """The networks differ by how sure they are; the model itself answers for what is in no fold."""
    first = colour_bundle(tmp_path / "fold-0", slides=prints(dataset, 2), contrast=1.0)
    second = colour_bundle(tmp_path / "fold-1", slides=prints(dataset, 0, 1), contrast=2.0)
    whole = colour_bundle(tmp_path / "whole", slides=prints(dataset, 0, 1, 2), contrast=4.0)
    held = dict.fromkeys(prints(dataset, 0, 1), first.path) | dict.fromkeys(prints(dataset, 2), second.path)
    found = out_of_fold(whole, dataset, Folds(held), CPU, lambda event: None)
    assert found.rows.tolist() == list(range(8))
    assert not len(found.refused)
    assert found.bundles == 3
    expected = [1 / (1 + 3 * np.exp(-c) + np.exp(-2 * c) + np.exp(-3 * c)) for c in (1.0, 1.0, 2.0, 4.0)]
    assert found.probabilities[::2, 0] == pytest.approx(expected, rel=2e-2)


def test_a_network_that_saw_the_slide_is_not_asked(tmp_path: Path, dataset: Dataset) -> None:
    """The folds are wrong on slide 2; slide 3 is in none, and the model saw it."""
    fold = colour_bundle(tmp_path / "fold-0", slides=prints(dataset, 2))
    whole = colour_bundle(tmp_path / "whole", slides=prints(dataset, 0, 1, 2, 3))
    held = dict.fromkeys(prints(dataset, 0, 1, 2), fold.path)
    found = out_of_fold(whole, dataset, Folds(held), CPU, lambda event: None)
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert found.refused.tolist() == [4, 5, 6, 7]
    assert found.bundles == 1


def test_nor_one_that_saw_another_slide_of_the_patient(tmp_path: Path, dataset: Dataset) -> None:
    fold = colour_bundle(tmp_path / "fold-0", slides=prints(dataset, 1))
    found = out_of_fold(fold, dataset, Folds({}), CPU, lambda event: None)
    assert found.rows.tolist() == [4, 5, 6, 7]
    assert found.refused.tolist() == [0, 1, 2, 3]


def test_a_missing_fold_is_an_error(tmp_path: Path, dataset: Dataset) -> None:
    held = dict.fromkeys(prints(dataset, 0), tmp_path / "gone")
    with pytest.raises(BundleNotFound):
        out_of_fold(colour_bundle(tmp_path / "whole"), dataset, Folds(held), CPU, lambda event: None)


def test_without_folds_only_what_the_model_did_not_see(tmp_path: Path, dataset: Dataset) -> None:
    whole = colour_bundle(tmp_path / "whole", slides=prints(dataset, 0))
    rows = np.array([1, 3, 4, 7])
    said = np.arange(24, dtype=np.float32).reshape(4, 6)
    found = without_folds(whole, dataset, rows, said)
    assert found.rows.tolist() == [4, 7]
    assert found.probabilities.tolist() == said[2:].tolist()
    assert found.refused.tolist() == [1, 3]


def test_nor_one_whose_card_names_no_slides(tmp_path: Path, dataset: Dataset) -> None:
    silent = colour_bundle(tmp_path / "silent", slides=None)
    fold = colour_bundle(tmp_path / "fold-0")
    found = out_of_fold(silent, dataset, Folds(dict.fromkeys(prints(dataset, 3), fold.path)), CPU, lambda event: None)
    assert found.rows.tolist() == [6, 7]
    assert found.refused.tolist() == [0, 1, 2, 3, 4, 5]

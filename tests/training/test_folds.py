"""Folds part patients, give each network its share, and are read as they were written."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_datasets import Row, made_dataset, made_slide

from her2bridge.errors import BundleDamaged, BundleNotFound, NotEnoughLabels, UsageError
from her2bridge.training.dataset import Dataset
from her2bridge.training.folds import FOLDS_FILE, Fold, Folds, load_folds, make_folds, save_folds

LABELS = ("0", "1+", "2+", "3+", "normal", "noise")


def cohort(folder: Path, tiles: list[dict[str, int]], splits: list[str] | None = None, slides: int = 2) -> Dataset:
    """Patients p0, p1 … with so many tiles of each label, spread over their slides."""
    made, rows, of = [], [], []
    for number, counts in enumerate(tiles):
        first = len(made)
        made += [made_slide(f"s{number}-{one}", patient=f"p{number}") for one in range(slides)]
        for label, count in counts.items():
            new: list[Row] = [(first + one % slides, 16.0 * one, 0.0, label) for one in range(count)]
            rows += new
            of += [splits[number] if splits else ("train", "val")[number % 2]] * count
    return made_dataset(folder, made, rows, splits=tuple(of))


def test_every_patient_is_held_out_once_with_all_slides(tmp_path: Path) -> None:
    dataset = cohort(tmp_path, [{"0": 3 + one, "3+": 4} for one in range(7)])
    folds = make_folds(dataset, 3, 1)
    assert [fold.bundle for fold in folds] == ["fold-0", "fold-1", "fold-2"]
    held = [patient for fold in folds for patient in fold.patients]
    assert sorted(held) == [f"p{one}" for one in range(7)]
    for fold in folds:
        theirs = {slide.fingerprint for slide in dataset.slides if slide.patient in fold.patients}
        assert set(fold.slides) == theirs
        assert len(fold.patients) in (2, 3)


def test_each_fold_gets_its_share_of_every_class(tmp_path: Path) -> None:
    """Each patient has two labels; no fold may lack one."""
    kinds = [{"0": 10, "normal": 4}, {"1+": 10, "noise": 4}, {"2+": 10, "normal": 4}, {"3+": 10, "noise": 4}]
    dataset = cohort(tmp_path, kinds * 3)
    for fold in make_folds(dataset, 3, 5):
        rows = np.flatnonzero(np.isin(np.array(dataset.patients), fold.patients))
        assert Counter(dataset.tiles.labels[rows].tolist()) == {0: 10, 1: 10, 2: 10, 3: 10, 4: 8, 5: 8}


def test_many_patients_of_one_class_each_are_dealt_evenly(tmp_path: Path) -> None:
    dataset = cohort(tmp_path, [{label: 5} for label in LABELS] * 4, slides=1)
    for fold in make_folds(dataset, 4, 2):
        assert sorted(int(patient[1:]) % 6 for patient in fold.patients) == list(range(6))


def test_the_seed_decides(tmp_path: Path) -> None:
    dataset = cohort(tmp_path, [{"0": 5, "3+": 5}] * 8)
    assert make_folds(dataset, 2, 1) == make_folds(dataset, 2, 1)
    assert len({make_folds(dataset, 2, seed) for seed in range(5)}) > 1


def test_test_patients_are_in_no_fold(tmp_path: Path) -> None:
    dataset = cohort(tmp_path, [{"0": 4}] * 4, ["train", "test", "val", "test"])
    folds = make_folds(dataset, 2, 0)
    assert sorted(patient for fold in folds for patient in fold.patients) == ["p0", "p2"]


def test_no_fold_is_empty_however_uneven_the_patients(tmp_path: Path) -> None:
    dataset = cohort(tmp_path, [{"0": 90}, {"3+": 1}, {"0": 1}, {"noise": 2}], slides=1)
    assert all(len(fold.patients) == 1 for fold in make_folds(dataset, 4, 0))


def test_too_few_patients_or_folds(tmp_path: Path) -> None:
    dataset = cohort(tmp_path, [{"0": 4}] * 3, ["train", "val", "test"])
    with pytest.raises(NotEnoughLabels, match="2 patients"):
        make_folds(dataset, 3, 0)
    with pytest.raises(UsageError, match="1 folds"):
        make_folds(dataset, 1, 0)


FOLDS = (Fold("fold-0", ("a", "ä b"), ("f1", "f2")), Fold("fold-1", ("c",), ("f3",)))


def test_they_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = save_folds(tmp_path, "abc", FOLDS)
    assert load_folds(tmp_path) == written == Folds(tmp_path, "abc", FOLDS)
    assert json.loads((tmp_path / FOLDS_FILE).read_text(encoding="utf-8")) == {
        "format": 1,
        "dataset": "abc",
        "folds": [
            {"bundle": "fold-0", "patients": ["a", "ä b"], "slides": ["f1", "f2"]},
            {"bundle": "fold-1", "patients": ["c"], "slides": ["f3"]},
        ],
    }


def test_the_bundle_that_did_not_see_a_slide(tmp_path: Path) -> None:
    folds = save_folds(tmp_path, "abc", FOLDS)
    assert folds.bundle_for("f2") == tmp_path / "fold-0"
    assert folds.bundle_for("f3") == tmp_path / "fold-1"
    assert folds.bundle_for("f4") is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('"format": 1', '"format": 2'),
        ('"dataset"', '"data"'),
        ('"fold-1"', '"../fold-1"'),
        ('"fold-1"', '".."'),
        ('"fold-1"', "7"),
        ('["c"]', '"c"'),
        ('["f3"]', "[3]"),
        ('"folds": [', '"folds": 5, "x": ['),
        ("{", ""),
    ],
)
def test_a_damaged_list_is_told(tmp_path: Path, change: str, told: str) -> None:
    save_folds(tmp_path, "abc", FOLDS)
    path = tmp_path / FOLDS_FILE
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    assert change in text
    path.write_text(text.replace(change, told, 1), encoding="utf-8")
    with pytest.raises(BundleDamaged, match="cross-validation cannot be read") as caught:
        load_folds(tmp_path)
    assert caught.value.where == str(path)


def test_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="no cross-validation"):
        load_folds(tmp_path)


def test_two_slides_of_one_file_are_both_named(tmp_path: Path) -> None:
    dataset = cohort(tmp_path, [{"0": 4}, {"0": 4}], slides=1)
    same = tuple(replace(slide, fingerprint="one file") for slide in dataset.slides)
    assert [fold.slides for fold in make_folds(replace(dataset, slides=same), 2, 0)] == [("one file",)] * 2

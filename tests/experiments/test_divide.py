"""Rows of an experiment, and their divisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experiment_data import labelled

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.experiments.divide import Division, divide, kind_of_split, rows_for
from her2bridge.records import IntArray

LABELS = np.tile(np.repeat(np.arange(6), 4), 10)
PATIENTS = np.repeat(np.arange(10), 24)


def division(groups: IntArray, seed: int = 0, labels: IntArray = LABELS) -> Division:
    return divide(labels, groups, np.random.default_rng(seed), where="dataset")


@pytest.mark.parametrize("groups", [PATIENTS, np.arange(240)], ids=["patient", "paper"])
def test_a_fifth_is_held_out_and_nothing_is_lost(groups: IntArray) -> None:
    train, held_out = division(groups)
    assert len(held_out) == 48
    assert sorted([*train, *held_out]) == list(range(240))


def test_patients_are_kept_apart() -> None:
    train, held_out = division(PATIENTS)
    assert not set(PATIENTS[train]) & set(PATIENTS[held_out])


def test_the_papers_way_mixes_them() -> None:
    train, held_out = division(np.arange(240))
    assert set(PATIENTS[train]) & set(PATIENTS[held_out])


def test_chance_is_the_seeds() -> None:
    first, again, other = (division(PATIENTS, seed).held_out.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_a_class_of_one_patient_is_learned_and_not_held_out() -> None:
    labels = np.where(PATIENTS == 3, 5, LABELS % 5)
    for seed in range(20):
        assert 3 not in PATIENTS[division(PATIENTS, seed, labels).held_out]


def test_every_class_is_held_out_where_that_can_be() -> None:
    labels = np.where((PATIENTS == 3) | (PATIENTS == 4), 5, LABELS % 5)
    for seed in range(20):
        held_out = set(PATIENTS[division(PATIENTS, seed, labels).held_out])
        assert len(held_out & {3, 4}) == 1


def test_two_patients_without_a_class_in_common_cannot_be_parted() -> None:
    with pytest.raises(NotEnoughLabels, match="every class"):
        division(np.array([0, 0, 1, 1]), labels=np.array([0, 1, 2, 3]))


def test_patients_are_kept_apart_from_three_on() -> None:
    assert [kind_of_split(None, patients) for patients in (1, 2, 3)] == ["paper", "paper", "patient"]
    assert kind_of_split("patient", 2) == "patient"
    assert kind_of_split("paper", 9) == "paper"


@pytest.mark.parametrize(("wanted", "patients"), [("slide", 5), ("patient", 1)])
def test_other_splits_are_refused(wanted: str, patients: int) -> None:
    with pytest.raises(UsageError):
        kind_of_split(wanted, patients)


def test_test_tiles_are_left_alone(tmp_path: Path) -> None:
    dataset = labelled(tmp_path)
    splits = tuple("test" if patient == "P2" else "val" if patient == "P1" else "train" for patient in dataset.patients)
    dataset = replace(dataset, tiles=replace(dataset.tiles, splits=splits))
    assert {dataset.patients[row] for row in rows_for(dataset, None, 0)} == {"P0", "P1", "P3", "P4"}


def test_a_few_tiles_are_of_all_classes_and_patients(tmp_path: Path) -> None:
    """Half of 120 tiles, of which every second of 2+ is in the split test: 108 are left, 54 taken."""
    dataset = labelled(tmp_path, patients=4, per_class=5)
    every_second = np.isin(np.arange(120) % 30, [10, 12, 14])
    splits = tuple("test" if locked else "train" for locked in every_second)
    dataset = replace(dataset, tiles=replace(dataset.tiles, splits=splits))
    rows = rows_for(dataset, 54, 0)
    assert len(set(rows.tolist())) == 54
    counts = np.bincount(dataset.tiles.labels[rows])
    assert np.abs(counts - np.array([10, 10, 4, 10, 10, 10])).max() <= 2
    patients = [dataset.patients[row] for row in rows]
    assert min(patients.count(f"P{number}") for number in range(4)) >= 10
    assert len(rows_for(dataset, 1000, 0)) == 108

"""Table 6: slides made of tiles that a network did not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from experiment_data import labelled, quiet, settings, tiny

from her2bridge.errors import NotEnoughLabels
from her2bridge.experiments.run import run_experiment
from her2bridge.experiments.table6 import NOT_ASSESSABLE, Pool, halves, measured, seen_by_network, simulated
from her2bridge.records import IntArray
from her2bridge.synth.cohort import TABLE_3


def pool(patients: int = 6, per_class: int = 5, predicted: IntArray | None = None) -> Pool:
    truth = np.tile(np.repeat(np.arange(6), per_class), patients)
    return Pool(np.repeat(np.arange(patients), 6 * per_class), truth, truth if predicted is None else predicted)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


TILES = np.array([500, 40, 30, 20, 100, 10])


def test_a_network_that_never_errs_sees_the_slide_as_it_is() -> None:
    assert seen_by_network(TILES, pool(), rng()).tolist() == TILES.tolist()


def test_errors_are_those_of_the_pool() -> None:
    truth = pool().truth
    wrong = pool(predicted=np.where(truth == 0, 1, truth))
    assert seen_by_network(TILES, wrong, rng()).tolist() == [0, 540, 30, 20, 100, 10]


def test_a_slide_has_the_errors_of_two_patients_at_most() -> None:
    """Every patient's tiles of 0 are taken for another class: what a slide sees says whose tiles it got."""
    everyone = pool(patients=6)
    marked = Pool(everyone.patients, everyone.truth, np.where(everyone.truth == 0, everyone.patients, everyone.truth))
    slide = np.array([1000, 0, 0, 0, 0, 0])
    seen = [np.flatnonzero(seen_by_network(slide, marked, rng(seed))).tolist() for seed in range(20)]
    assert {len(classes) for classes in seen} == {2}
    assert len({tuple(classes) for classes in seen}) > 3


def test_halves_share_no_patient_where_that_can_be() -> None:
    one, other, parted = halves(pool(), rng())
    assert parted
    assert not set(one.patients) & set(other.patients)
    assert len(one.truth) + len(other.truth) == len(pool().truth)


def test_one_patients_tiles_are_halved() -> None:
    one, other, parted = halves(pool(patients=1), rng())
    assert not parted
    assert np.bincount(one.truth).tolist() == [2] * 6
    assert np.bincount(other.truth).tolist() == [3] * 6


def test_a_class_without_tiles_is_said() -> None:
    everything = pool()
    with pytest.raises(NotEnoughLabels, match=r"\(2\+\)"):
        halves(everything.only(everything.truth != 2), rng())


def test_slides_are_as_many_as_in_the_paper_and_the_same_for_all_networks() -> None:
    one = simulated("test", pool(), 1, 0)
    truth = pool().truth
    other = simulated("test", pool(predicted=np.zeros_like(truth)), 1, 0)
    third = simulated("test", pool(), 1, 0, direction=1)
    assert tuple(np.bincount(one.scores)) == TABLE_3["test"]
    assert np.array_equal(one.true_tiles, other.true_tiles)
    assert not np.array_equal(one.true_tiles, third.true_tiles)
    assert np.array_equal(one.true_tiles, one.tiles)
    assert not np.array_equal(other.tiles, one.tiles)


def test_measures_four_and_three_classes() -> None:
    scores = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    figures = measured(np.array([0, 1, 1, 1, 2, 2, 3, 3]), scores)
    assert figures["accuracy_four"] == 87.5
    assert figures["recall_four"] == 87.5
    assert figures["precision_four"] == pytest.approx(100 * (1 + 2 / 3 + 1 + 1) / 4)
    assert figures["accuracy_three"] == figures["f1_three"] == 100
    assert figures["kappa_four"] < figures["kappa_three"] == 1


def test_a_slide_without_tumour_is_missed() -> None:
    scores = np.array([0, 0, 1, 2, 3])
    figures = measured(np.array([NOT_ASSESSABLE, 0, 1, 2, 3]), scores)
    assert figures["not_assessable"] == 1
    assert figures["accuracy_four"] == figures["accuracy_three"] == 80
    assert figures["kappa_four"] == 1
    nothing = measured(np.full(5, NOT_ASSESSABLE), scores)
    assert nothing["accuracy_four"] == 0
    assert np.isnan(nothing["kappa_four"])


def test_from_end_to_end(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "dataset", patients=10)
    table = run_experiment("table6", dataset, settings(tmp_path, repeats=1, epochs=6), quiet, [tiny("RepVGG-GCT")])
    assert [(row["network"], row["second"], row["from"]) for row in table.rows] == [
        ("RepVGG-GCT", "MLP", "here"),
        ("RepVGG-GCT", "MLP", "Han et al. 2022"),
        ("RepVGG-GCT", "SVM", "here"),
        ("RepVGG-GCT", "SVM", "Han et al. 2022"),
        ("RepVGG-GCT", "rule", "here"),
        ("no tile mistaken", "rule", "here"),
    ]
    assert table.rows[1]["accuracy_four"] == 86.0
    assert table.rows[-1]["accuracy_four"].mean > 85  # type: ignore[union-attr]
    assert [row["cases"] for row in table.rows] == [2, None, 2, None, 2, 2]  # each half tests once
    notes = "\n".join(table.notes)
    assert "A half has tiles of 1 patient(s), and 3 tiles or more of each class; in 1 of 1 repeats" in notes
    assert "share the errors made on the tiles of 1 patient(s)" in notes
    text = (tmp_path / "table6.md").read_text()
    assert "Four classes: F1 %" in text
    assert "Four classes: recall %" not in text
    assert "recall_four" in (tmp_path / "table6.csv").read_text()

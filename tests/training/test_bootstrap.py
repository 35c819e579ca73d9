"""Intervals are of patients, drawn whole."""

from __future__ import annotations

import numpy as np
import pytest

from her2bridge.records import Float32Array, IntArray
from her2bridge.training.bootstrap import intervals
from her2bridge.training.metrics import Reading

Tiles = tuple[list[str], IntArray, Float32Array]


def tiles(right: list[int], of: int = 10) -> Tiles:
    """Patients of so many tiles each, of which so many are classed rightly; 0 to 3+ in turn."""
    patients = [f"p{number}" for number in range(len(right)) for _ in range(of)]
    truth = np.tile(np.arange(of) % 4, len(right))
    found = np.where(np.concatenate([np.arange(of) < count for count in right]), truth, (truth + 1) % 4)
    return patients, truth, (np.where(np.arange(6) == found[:, None], 0.9, 0.02)).astype(np.float32)


def test_patients_are_drawn_whole() -> None:
    """Half of the patients all right, half all wrong: of tiles drawn one by one the interval would be ± 0.07."""
    found = intervals(*tiles([10, 0] * 10))
    assert found is not None
    low, high = found.of[Reading.SIX]["accuracy"]
    assert low == pytest.approx(0.3, abs=0.051)  # binomial, 20 draws of 0.5
    assert high == pytest.approx(0.7, abs=0.051)


def test_no_spread_where_all_patients_are_alike() -> None:
    found = intervals(*tiles([8] * 5))
    assert found is not None
    for figures in found.of.values():
        assert all(low == high for low, high in figures.values())
    assert found.of[Reading.FOUR]["accuracy"] == (0.8, 0.8)
    assert found.calibration_error == pytest.approx((0.1, 0.1))


def test_equal_seeds_give_equal_intervals() -> None:
    some = tiles([10, 7, 2, 9])
    one, other, third = intervals(*some), intervals(*some), intervals(*some, seed=7)
    assert one is not None
    assert other is not None
    assert third is not None
    assert one.of == other.of
    assert one.of != third.of


def test_one_patient_gives_none() -> None:
    assert intervals(*tiles([5])) is None
    assert intervals([], np.zeros(0, dtype=np.int64), np.zeros((0, 6), dtype=np.float32)) is None


def test_a_reading_without_tiles_has_no_intervals() -> None:
    patients, truth, probabilities = tiles([5, 6])
    found = intervals(patients, np.full_like(truth, 4), probabilities)
    assert found is not None
    assert found.of[Reading.FOUR] == {}
    assert "macro_specificity" not in found.of[Reading.SIX]
    assert "macro_f1" in found.of[Reading.SIX]


def test_resamples_without_the_readings_tiles_are_left_out() -> None:
    """One of two patients has tumour: a quarter of the resamples has none, and they are not resamples of accuracy 0."""
    patients, truth, probabilities = tiles([10, 10])
    truth[10:] = 4
    found = intervals(patients, truth, probabilities)
    assert found is not None
    assert found.of[Reading.FOUR]["accuracy"] == (1.0, 1.0)
    assert "macro_specificity" in found.of[Reading.FOUR]


def test_normal_tiles_are_false_positives_in_four_classes_too() -> None:
    """Each of four patients has five tumour tiles found rightly and five normal ones taken for 0."""
    patients = [f"p{number}" for number in range(4) for _ in range(10)]
    truth = np.tile([0, 0, 0, 0, 0, 4, 4, 4, 4, 4], 4)
    probabilities = (np.arange(6) == 0).astype(np.float32) * np.ones((40, 1), dtype=np.float32)
    found = intervals(patients, truth, probabilities)
    assert found is not None
    four = found.of[Reading.FOUR]
    assert (four["accuracy"], four["macro_recall"]) == ((1.0, 1.0), (1.0, 1.0))
    assert (four["macro_precision"], four["macro_specificity"]) == ((0.5, 0.5), (0.0, 0.0))

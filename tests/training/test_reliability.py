"""Calibration error against sums made by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from her2bridge.inference.runtime.base import softmax
from her2bridge.records import Float32Array
from her2bridge.training.reliability import at_temperature_one, reliability_of


def sure_of(classes: list[int], confidences: list[float]) -> Float32Array:
    """The rest of each probability goes to the other classes alike."""
    rest = (1 - np.array(confidences)[:, None]) / 5
    return np.where(np.arange(6) == np.array(classes)[:, None], np.array(confidences)[:, None], rest).astype(np.float32)


def test_by_hand() -> None:
    """Bins of 1/15: 0.95 and 0.97 lie in the last, 0.55 in the ninth."""
    found = reliability_of(np.array([0, 1, 2]), sure_of([0, 5, 2], [0.95, 0.97, 0.55]))
    assert np.flatnonzero(found.tiles).tolist() == [8, 14]
    assert float(found.error) == pytest.approx((abs(0.95 + 0.97 - 1) + abs(0.55 - 1)) / 3)
    bins = found.plain()["bins"]
    assert bins[14] == pytest.approx({"from": 0.9333, "to": 1.0, "tiles": 2, "confidence": 0.96, "accuracy": 0.5})
    assert bins[0]["confidence"] is None
    json.dumps(found.plain(), allow_nan=False)


def test_no_tile() -> None:
    found = reliability_of(np.zeros(0, dtype=np.int64), np.zeros((0, 6), dtype=np.float32))
    assert float(found.error) == 0.0
    assert found.tiles.tolist() == [0.0] * 15


def test_certainty_has_a_bin() -> None:
    assert reliability_of(np.array([3]), sure_of([3], [1.0])).tiles.tolist() == [0.0] * 14 + [1.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_taken_back(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (20, 6)).astype(np.float32)
    before = at_temperature_one(softmax(logits, temperature), temperature)
    assert before == pytest.approx(softmax(logits), abs=1e-5)


def test_a_probability_of_nothing_stays_finite() -> None:
    certain = np.array([[1, 0, 0, 0, 0, 0]], dtype=np.float32)
    assert at_temperature_one(certain, 3.0).tolist() == [[1, 0, 0, 0, 0, 0]]

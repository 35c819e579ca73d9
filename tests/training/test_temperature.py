"""The temperature is where the labels are likeliest."""

from __future__ import annotations

import numpy as np
import pytest

from her2bridge.inference.runtime.base import softmax
from her2bridge.records import Float32Array, IntArray
from her2bridge.training.reliability import reliability_of
from her2bridge.training.temperature import LEAST, MOST, doubt_of, fit_temperature


def drawn(temperature: float, count: int = 3000, seed: int = 0) -> tuple[Float32Array, IntArray]:
    """Logits that are ``temperature`` times too large, and labels drawn as the right ones say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 6)).astype(np.float32)
    labels = np.array([rng.choice(6, p=one / one.sum()) for one in softmax(logits).astype(np.float64)])
    return logits * np.float32(temperature), labels.astype(np.int64)


def surprise(logits: Float32Array, labels: IntArray, temperature: float) -> float:
    chances = softmax(logits, temperature)[np.arange(len(labels)), labels]
    return float(-np.log(chances.astype(np.float64)).mean())


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_it_finds_by_how_much_logits_are_too_large(true: float) -> None:
    logits, labels = drawn(true)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.05)
    assert surprise(logits, labels, found) < min(surprise(logits, labels, found * by) for by in (0.98, 1.02))
    assert float(reliability_of(labels, softmax(logits, found)).error) < 0.03


def test_large_logits_do_not_overflow() -> None:
    logits, labels = drawn(15.0)
    assert fit_temperature(logits + np.float32(1000), labels) == pytest.approx(15.0, rel=0.05)


def test_it_stays_within_its_bounds() -> None:
    logits, labels = drawn(1.0)
    assert fit_temperature(logits, logits.argmin(axis=1).astype(np.int64)) == pytest.approx(MOST, rel=1e-3)
    assert fit_temperature(logits * np.float32(1e-3), labels) == pytest.approx(LEAST, rel=1e-3)


@pytest.mark.parametrize("label", [0, 3])
def test_where_nothing_is_wrong_it_leaves_a_doubt(label: int) -> None:
    """One tile of each two more would be wrong; the number of tiles says how sure one may be."""
    sure = []
    for count in (10, 1000):
        logits = np.tile(np.where(np.arange(6) == label, 1.0, 0.0).astype(np.float32), (count, 1))
        found = fit_temperature(logits, np.full(count, label, dtype=np.int64))
        assert LEAST < found < 1.0
        sure.append(float(softmax(logits, found)[0, label]))
    assert sure == pytest.approx([11 / 12, 1001 / 1002], abs=1e-3)


def test_without_tiles() -> None:
    assert fit_temperature(np.zeros((0, 6), dtype=np.float32), np.zeros(0, dtype=np.int64)) == 1.0


def test_a_temperature_at_its_bound_is_told() -> None:
    sure_and_wrong = np.tile(np.array([[9, 0, 0, 0, 0, 0]], dtype=np.float32), (30, 1))
    found = fit_temperature(sure_and_wrong, np.repeat(np.arange(6), 5))
    assert "bound, 20" in (doubt_of(found) or "")
    assert doubt_of(1.7) is None

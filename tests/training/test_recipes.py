"""Recipes as data: the paper's numbers, and how the rate goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from her2bridge.errors import UsageError
from her2bridge.training.recipes import MODERN, PAPER, RECIPES


def test_the_paper_is_the_papers() -> None:
    assert (PAPER.epochs, PAPER.batch_size, PAPER.learning_rate, PAPER.weight_decay) == (200, 256, 0.1, 1e-3)
    assert not PAPER.augment
    assert PAPER.ema is None
    assert dict(RECIPES) == {"paper": PAPER, "modern": MODERN}


def test_the_rate_rises_and_falls() -> None:
    recipe = replace(MODERN, epochs=12, warmup_epochs=2, learning_rate=0.4)
    assert recipe.rate_at(0) == 0
    assert recipe.rate_at(1) == pytest.approx(0.2)
    assert recipe.rate_at(2) == pytest.approx(0.4)
    assert recipe.rate_at(7) == pytest.approx(0.2)
    assert recipe.rate_at(12) == pytest.approx(0)
    assert recipe.rate_at(13) == pytest.approx(0)
    assert replace(recipe, schedule="constant").rate_at(9) == 0.4
    assert PAPER.rate_at(0) == 0.1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("balance", "x"),
        ("schedule", ""),
    ],
)
def test_what_cannot_be_is_refused(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=key.replace("_", " ")):
        replace(MODERN, **{key: value})

"""The curves show the history's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from her2bridge.training import curves
from her2bridge.training.curves import draw_curves


def history(epochs: int, validation: bool = True) -> list[dict[str, float | None]]:
    names = ("loss", "accuracy", "learning_rate", "validation_loss", "validation_accuracy", "validation_macro_f1")
    found: list[dict[str, float | None]] = []
    for epoch in range(1, epochs + 1):
        values = {name: epoch + number / 10 for number, name in enumerate(names)}
        if not validation:
            values = {name: value for name, value in values.items() if "validation" not in name}
        found.append({"epoch": epoch, **dict.fromkeys(names), **values})
    return found


def drawn(monkeypatch: pytest.MonkeyPatch, given: list[dict[str, float | None]]) -> list[dict[str, list[float]]]:
    """What each panel shows, by the line's name."""
    figures: list[Any] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    draw_curves(given, Path("none.png"))
    return [{line.get_label(): list(line.get_ydata()) for line in axes.lines} for axes in figures[0].axes]


def test_each_figure_is_in_its_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, share, rate = drawn(monkeypatch, history(3))
    assert loss == {"training": [1.0, 2.0, 3.0], "validation": [1.3, 2.3, 3.3]}
    assert share["training accuracy"] == [1.1, 2.1, 3.1]
    assert share["validation accuracy"] == [1.4, 2.4, 3.4]
    assert share["validation macro-F1"] == [1.5, 2.5, 3.5]
    assert rate == {"learning rate": [1.2, 2.2, 3.2]}


def test_what_was_not_measured_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, share, _ = drawn(monkeypatch, history(2, validation=False))
    assert (list(loss), list(share)) == (["training"], ["training accuracy"])


def test_an_epoch_without_a_figure_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    given = history(3)
    given[1]["loss"] = None
    loss, _, _ = drawn(monkeypatch, given)
    assert np.isnan(loss["training"]).tolist() == [False, True, False]


def test_it_is_a_picture(tmp_path: Path) -> None:
    draw_curves(history(1), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 10

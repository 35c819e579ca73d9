"""How a training went, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from her2bridge.training.figures import new_figure, save_figure

CURVES_FILE = "curves.png"

_PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("loss", (("loss", "training"), ("validation_loss", "validation"))),
    (
        "share of tiles, or F1",
        (
            ("accuracy", "training accuracy"),
            ("validation_accuracy", "validation accuracy"),
            ("validation_macro_f1", "validation macro-F1"),
        ),
    ),
    ("learning rate", (("learning_rate", "learning rate"),)),
)
"""Of each panel: what its upright axis is, and the figures of an epoch that it shows."""


def draw_curves(history: Sequence[Mapping[str, float | None]], path: Path) -> None:
    """Loss, accuracy and macro-F1, and learning rate over the epochs.

    Args:
        history: the figures of each epoch, as in ``metrics.jsonl``; None where one does not exist.
        path: a PNG or SVG.

    Raises:
        UsageError: matplotlib is not installed.
        WriteFailed: it cannot be written.
    """
    figure = new_figure(12, 4)
    epochs = [one["epoch"] for one in history]
    for axes, (title, lines) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for key, label in lines:
            values = [math.nan if (value := one.get(key)) is None else value for one in history]
            if not all(map(math.isnan, values)):
                axes.plot(epochs, values, marker="." if len(epochs) < 40 else None, label=label)
        axes.set(xlabel="epoch", ylabel=title)
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)
        if len(lines) > 1 and axes.lines:
            axes.legend(fontsize=8)
    figure.suptitle("Research use only", fontsize=9)
    save_figure(figure, path)

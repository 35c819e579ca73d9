"""An evaluation in pictures: confusion matrices, the reliability diagram, the errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from her2bridge.records import Float32Array, IntArray, TileClass
from her2bridge.training.dataset import Dataset, read_pixels
from her2bridge.training.figures import new_figure, save_figure
from her2bridge.training.metrics import NOT_TUMOUR, TileFigures
from her2bridge.training.reliability import BINS, Reliability
from her2bridge.training.sheets import draw_sheet

ERRORS_SHOWN = 64

_NOTICE = "Research use only"
_BARS, _GAPS = "#5b8db8", "#d9534f"


def draw_confusion(figures: TileFigures, path: Path, title: str) -> None:
    """One reading's confusion: counts, coloured by their share of the row; what is no tumour has a last row and column.

    Raises:
        WriteFailed: the file cannot be written.
    """
    names, table = [name.replace(" or ", " or\n") for name in figures.reading.columns], figures.confusion
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = new_figure(1.6 + 0.85 * len(names), 1.8 + 0.75 * len(names))
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=axes, label="share of the label's tiles")
    for (row, column), count in np.ndenumerate(table):
        ink = "white" if shares[row, column] > 0.55 else "black"
        text = f"{count:,}\n{shares[row, column]:.0%}" if count else "0"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="found", ylabel="label")
    others = f" (and {figures.others:,} of {NOT_TUMOUR})" if figures.others else ""
    told = f"{figures.tiles:,} tiles{others}, {figures.accuracy:.1%} right. {_NOTICE}"
    axes.set_title(f"{title}\n{told}", fontsize=9)
    save_figure(figure, path)


def draw_reliability(before: Reliability, after: Reliability, temperature: float, path: Path, title: str) -> None:
    """Accuracy against confidence, and how many tiles each bin has; before the temperature and after it.

    Raises:
        WriteFailed: the file cannot be written.
    """
    figure = new_figure(9, 5)
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    for column, (one, name) in enumerate(
        ((before, "before the temperature"), (after, f"with the model's temperature, {temperature:.3g}"))
    ):
        _draw_bins(axes[0, column], axes[1, column], one)
        axes[0, column].set_title(f"{name}\nexpected calibration error {float(one.error):.3f}", fontsize=9)
    axes[0, 0].set_ylabel("share classed rightly")
    axes[1, 0].set_ylabel("tiles")
    figure.suptitle(f"{title}. {_NOTICE}", fontsize=9)
    save_figure(figure, path)


def _draw_bins(above: Any, below: Any, one: Reliability) -> None:
    centres = (np.arange(BINS) + 0.5) / BINS
    filled = one.tiles > 0
    tiles = np.maximum(one.tiles, 1)
    right, sure = one.right / tiles, one.confidence / tiles
    above.bar(centres[filled], right[filled], width=0.9 / BINS, color=_BARS)
    above.plot(sure[filled], right[filled], "o", color=_GAPS, markersize=3, label="mean confidence")
    above.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    above.set(xlim=(0, 1), ylim=(0, 1))
    above.legend(loc="upper left", fontsize=7)
    below.bar(centres, one.tiles, width=0.9 / BINS, color="grey")
    below.set_xlabel("probability of the class found")


def draw_errors(dataset: Dataset, rows: IntArray, probabilities: Float32Array, path: Path) -> int:
    """A contact sheet of the errors, the surest first; where there is none, an earlier sheet goes. Says how many.

    Args:
        rows: the n tiles evaluated.
        probabilities: float32 [n, 6].

    Raises:
        SlideError: a slide cannot be read.
        WriteFailed: the file cannot be written.
    """
    wrong = surest_errors(dataset.tiles.labels[rows], probabilities)
    shown = wrong[:ERRORS_SHOWN]
    if len(shown):
        captions = [_caption(dataset, int(rows[one]), probabilities[one]) for one in shown.tolist()]
        title = f"Errors, the surest first: {len(shown):,} of {len(wrong):,}. {_NOTICE}."
        draw_sheet(read_pixels(dataset, rows[shown]), captions, path, title=title)
    else:
        path.unlink(missing_ok=True)
    return len(wrong)


def surest_errors(truth: IntArray, probabilities: Float32Array) -> IntArray:
    """Places of the tiles that were classed wrongly, int64, the surest of them first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != truth)
    order: Sequence[int] = np.argsort(-probabilities[wrong].max(axis=1, initial=0.0), kind="stable").tolist()
    return wrong[order].astype(np.int64)


def _caption(dataset: Dataset, row: int, probabilities: Float32Array) -> str:
    found = TileClass(int(probabilities.argmax()))
    label = TileClass(int(dataset.tiles.labels[row])).label
    slide = dataset.slides[int(dataset.tiles.slide[row])].key
    x, y = dataset.tiles.origins[row].tolist()
    return f"label {label}, found {found.label} ({probabilities[found]:.2f})\n{slide}  {x:.0f}, {y:.0f}"

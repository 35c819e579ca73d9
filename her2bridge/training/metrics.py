"""The paper's measures of tile classes (Han et al. 2022, equations 7–11), for six, four and three classes.

For one class against the rest: precision = TP / (TP + FP), recall = TP / (TP + FN), specificity = TN / (FP + TN) and
F1 = 2 / (1/precision + 1/recall). Macro figures are means over the classes that occur in the truth, each counting the
same; the macro F1 is the mean of the classes' F1, as in scikit-learn.

The rest is *all* other tiles, in four and three classes too: a normal tile that is taken for 1+ is a false positive of
1+. The paper does not say so, but its figures do: from a class's tiles (Table 2), recall and precision (Table 5) follow
its false positives, and from its specificity the negatives: some 4,500 of 0 and of 1+, where the other tumour classes
have 1,200 to 1,400 tiles.

Accuracy. Equation 7 reads (TP + TN) / (TP + TN + FP + FN), which over six classes is no single number. The paper's
figures show that it means the share of tiles classed rightly: in Table 7 the chain that gives every tile one class has
accuracy 56.11 and precision 9.35 = 56.11 / 6. So that share is ``accuracy`` here; in four and three classes it is the
share of the *tumour* tiles classed rightly, that is the mean of the classes' recalls, each by its number of tiles:
normal and noise tiles are not in it.

The paper's F1 in Tables 4 and 7 is equation 11 of the macro precision and the macro recall, to 0.01 in every
row (DenseNet-169: 90.58 and 89.96 give 90.27). ``f1_of_macro`` is that; it is seldom far from ``macro_f1``.

A figure that divides by nothing (precision of a class that nothing was taken for, recall of one that no tile has) is
0, as in scikit-learn with ``zero_division=0``; ``TileFigures.plain`` says null of a class that no tile has, and of the
specificity where all tiles have one class.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix

from her2bridge.records import TUMOUR_CLASSES, FloatArray, IntArray, TileClass

NOT_TUMOUR = "normal or noise"
"""The last row and column of four and three classes: tiles that are, or were taken for, something else than tumour."""

_LABELS = tuple(one.label for one in TileClass)


class Reading(enum.Enum):
    """Which classes are told apart.

    ``SIX``: all. ``FOUR``: 0, 1+, 2+ and 3+. ``THREE``: the same, 0 and 1+ merged. In the last two a tumour tile that
    was found normal or noise is an error, and normal and noise tiles are what a class must not be seen in: they count
    in precision and specificity.
    """

    SIX = "six"
    FOUR = "four"
    THREE = "three"

    @property
    def names(self) -> tuple[str, ...]:
        """The k classes."""
        if self is Reading.THREE:
            return ("negative", "equivocal", "positive")
        return _LABELS if self is Reading.SIX else tuple(one.label for one in TUMOUR_CLASSES)

    @property
    def columns(self) -> tuple[str, ...]:
        """Rows and columns of a confusion: the classes, and for ``FOUR`` and ``THREE`` what is no tumour."""
        return self.names if self is Reading.SIX else (*self.names, NOT_TUMOUR)

    def merge(self, tables: IntArray) -> IntArray:
        """Confusions of six classes, int64 [..., 6, 6], as this reading's: [..., 6, 6], else [..., k + 1, k + 1]."""
        place = np.eye(len(self.columns), dtype=np.int64)[list(_PLACES[self])]
        return np.asarray(place.T @ tables @ place, dtype=np.int64)


_PLACES = {Reading.SIX: (0, 1, 2, 3, 4, 5), Reading.FOUR: (0, 1, 2, 3, 4, 4), Reading.THREE: (0, 0, 1, 2, 3, 3)}
"""The row and column of each of the six classes."""


class Rates(NamedTuple):
    """Equations 7–11 of one or many confusions; float64 [...], those of each class [..., k]."""

    accuracy: FloatArray
    precision: FloatArray
    recall: FloatArray
    specificity: FloatArray
    f1: FloatArray
    macro_precision: FloatArray
    macro_recall: FloatArray
    macro_specificity: FloatArray
    macro_f1: FloatArray


@dataclass(frozen=True, eq=False)
class TileFigures:
    """How well tiles were classed; shares are 0–1.

    Attributes:
        reading: which classes were told apart.
        confusion: tiles, int64 [6, 6] or [k + 1, k + 1]: rows by truth, columns by what was found; ``Reading.columns``.
        accuracy: share of the k classes' tiles classed rightly; 0 where there is no tile.
        precision, recall, specificity, f1: of each class.
        macro_precision, macro_recall, macro_specificity, macro_f1: means over the classes that occur in the truth.
    """

    reading: Reading
    confusion: IntArray
    accuracy: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    specificity: tuple[float, ...]
    f1: tuple[float, ...]
    macro_precision: float
    macro_recall: float
    macro_specificity: float
    macro_f1: float

    @property
    def names(self) -> tuple[str, ...]:
        """The k classes."""
        return self.reading.names

    @property
    def support(self) -> tuple[int, ...]:
        """Tiles of each of the k classes by the truth."""
        return tuple(self.confusion.sum(axis=1)[: len(self.names)].tolist())

    @property
    def tiles(self) -> int:
        """All tiles of the k classes."""
        return sum(self.support)

    @property
    def others(self) -> int:
        """Normal and noise tiles of ``FOUR`` and ``THREE``: none can be right, any can be a false positive."""
        return int(self.confusion.sum()) - self.tiles

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no tile has: no figure of theirs means anything, and the macro figures leave them out."""
        return tuple(name for name, count in zip(self.names, self.support, strict=True) if not count)

    @property
    def has_specificity(self) -> bool:
        """Whether there are tiles beside those of a single class: else nothing can be taken for it wrongly."""
        return int((self.confusion.sum(axis=1) > 0).sum()) > 1

    @property
    def f1_of_macro(self) -> float:
        """Equation 11 of macro precision and macro recall, as the paper's Tables 4 and 7 have it."""
        total = self.macro_precision + self.macro_recall
        return 2 * self.macro_precision * self.macro_recall / total if total else 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON has it; null where a class, or every one, has no tile."""
        rows = zip(self.names, self.support, self.precision, self.recall, self.specificity, self.f1, strict=True)
        macro = (self.macro_precision, self.macro_recall, self.macro_specificity, self.macro_f1, self.f1_of_macro)
        names = ("precision", "recall", "specificity", "f1", "f1_of_macro")

        def shown(name: str, value: float, tiles: int) -> float | None:
            return value if tiles and (name != "specificity" or self.has_specificity) else None

        return {
            "tiles": self.tiles,
            "other_tiles": self.others,
            "accuracy": shown("accuracy", self.accuracy, self.tiles),
            "macro": {name: shown(name, value, self.tiles) for name, value in zip(names, macro, strict=True)},
            "by_class": {
                name: {
                    "tiles": tiles,
                    **{key: shown(key, one, tiles) for key, one in zip(names[:4], values, strict=True)},
                }
                for name, tiles, *values in rows
            },
            "absent": list(self.absent),
            "confusion": {
                "rows": list(self.reading.columns),
                "columns": list(self.reading.columns),
                "rows_truth_columns_predicted": self.confusion.tolist(),
            },
        }


def confusion(truth: IntArray, predicted: IntArray) -> IntArray:
    """Tiles by class, int64 [6, 6]: rows by ``truth`` [n], columns by ``predicted`` [n], ``TileClass`` values both."""
    if not len(truth):
        return np.zeros((len(TileClass), len(TileClass)), dtype=np.int64)
    return np.asarray(confusion_matrix(truth, predicted, labels=range(len(TileClass))), dtype=np.int64)


def measure_tiles(truth: IntArray, predicted: IntArray, reading: Reading = Reading.SIX) -> TileFigures:
    """Equations 7–11 of n tiles; ``truth`` and ``predicted`` are ``TileClass`` values, int64 [n]."""
    return measure_confusion(confusion(truth, predicted), reading)


def measure_confusion(table: IntArray, reading: Reading = Reading.SIX) -> TileFigures:
    """The same of a confusion of six classes, int64 [6, 6]."""
    merged = reading.merge(table)
    rates = rates_of(merged, reading)
    return TileFigures(
        reading=reading,
        confusion=merged,
        accuracy=float(rates.accuracy),
        precision=tuple(rates.precision.tolist()),
        recall=tuple(rates.recall.tolist()),
        specificity=tuple(rates.specificity.tolist()),
        f1=tuple(rates.f1.tolist()),
        macro_precision=float(rates.macro_precision),
        macro_recall=float(rates.macro_recall),
        macro_specificity=float(rates.macro_specificity),
        macro_f1=float(rates.macro_f1),
    )


def rates_of(tables: IntArray, reading: Reading) -> Rates:
    """Equations 7–11 of a reading's confusions (``Reading.merge``); a last row and column of what is no tumour is no
    class, but part of what each class stands against."""
    classes = len(reading.names)
    right = np.diagonal(tables, axis1=-2, axis2=-1)[..., :classes]
    support = tables.sum(axis=-1)[..., :classes]
    taken = tables.sum(axis=-2)[..., :classes]
    rest = tables.sum(axis=(-2, -1))[..., np.newaxis] - support
    occurs = support > 0

    def mean(values: FloatArray) -> FloatArray:
        return _divide((values * occurs).sum(axis=-1), occurs.sum(axis=-1))

    precision, recall = _divide(right, taken), _divide(right, support)
    specificity = _divide(rest - (taken - right), rest)
    f1 = _divide(2 * right, taken + support)  # equation 11, without its division by a precision or recall of 0
    accuracy = _divide(right.sum(axis=-1), support.sum(axis=-1))
    return Rates(
        accuracy, precision, recall, specificity, f1, mean(precision), mean(recall), mean(specificity), mean(f1)
    )


def macro_f1(truth: IntArray, predicted: IntArray) -> float:
    """The mean F1 of the classes, of six, that occur in the truth."""
    return measure_tiles(truth, predicted).macro_f1


def _divide(above: Any, below: Any) -> FloatArray:
    """0 where nothing is divided by."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0), dtype=np.float64)

"""Equations 7–11 against values worked out by hand, and against scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, recall_score

from her2bridge.records import IntArray
from her2bridge.training.metrics import Reading, confusion, macro_f1, measure_confusion, measure_tiles

TABLE = np.array(
    [
        [8, 2, 0, 0, 0, 0],
        [1, 4, 1, 0, 2, 0],
        [0, 1, 6, 1, 0, 0],
        [0, 0, 0, 9, 0, 1],
        [3, 0, 0, 0, 7, 0],
        [0, 0, 0, 0, 0, 4],
    ]
)
"""50 tiles, rows by truth; 38 are right."""


def unrolled(table: IntArray) -> tuple[IntArray, IntArray]:
    pairs = [(i, j) for (i, j), count in np.ndenumerate(table) for _ in range(count)]
    return np.array([i for i, _ in pairs], dtype=np.int64), np.array([j for _, j in pairs], dtype=np.int64)


def test_six_classes_by_hand() -> None:
    found = measure_tiles(*unrolled(TABLE))
    assert found.confusion.tolist() == TABLE.tolist()
    assert found.accuracy == pytest.approx(38 / 50)  # not (TP + TN) / all
    # TP 8, FP 1 + 3, FN 2, TN 50 - 14; and so on
    assert found.precision == pytest.approx((8 / 12, 4 / 7, 6 / 7, 9 / 10, 7 / 9, 4 / 5))
    assert found.recall == pytest.approx((8 / 10, 4 / 8, 6 / 8, 9 / 10, 7 / 10, 4 / 4))
    assert found.specificity == pytest.approx((36 / 40, 39 / 42, 41 / 42, 39 / 40, 38 / 40, 45 / 46))
    assert found.f1 == pytest.approx((16 / 22, 8 / 15, 12 / 15, 18 / 20, 14 / 19, 8 / 9))
    assert found.macro_f1 == pytest.approx((16 / 22 + 8 / 15 + 12 / 15 + 18 / 20 + 14 / 19 + 8 / 9) / 6)
    assert found.macro_recall == pytest.approx((0.8 + 0.5 + 0.75 + 0.9 + 0.7 + 1) / 6)
    assert found.support == (10, 8, 8, 10, 10, 4)
    assert found.names == ("0", "1+", "2+", "3+", "normal", "noise")


def test_four_classes_by_hand() -> None:
    """36 tumour tiles, each class against the other 50 - n; three normal tiles are taken for 0, which they are not."""
    found = measure_confusion(TABLE, Reading.FOUR)
    assert found.confusion.tolist() == [
        [8, 2, 0, 0, 0],
        [1, 4, 1, 0, 2],
        [0, 1, 6, 1, 0],
        [0, 0, 0, 9, 1],
        [3, 0, 0, 0, 11],
    ]
    assert found.reading.columns[-1] == "normal or noise"
    assert found.accuracy == pytest.approx(27 / 36)
    assert found.precision == pytest.approx((8 / 12, 4 / 7, 6 / 7, 9 / 10))
    assert found.recall == pytest.approx((8 / 10, 4 / 8, 6 / 8, 9 / 10))
    assert found.specificity == pytest.approx((36 / 40, 39 / 42, 41 / 42, 39 / 40))
    assert found.f1 == pytest.approx((16 / 22, 8 / 15, 12 / 15, 18 / 20))
    assert found.macro_precision == pytest.approx((8 / 12 + 4 / 7 + 6 / 7 + 9 / 10) / 4)
    assert found.macro_specificity == pytest.approx((36 / 40 + 39 / 42 + 41 / 42 + 39 / 40) / 4)
    assert found.support == (10, 8, 8, 10)
    assert (found.tiles, found.others) == (36, 14)


def test_three_classes_by_hand() -> None:
    found = measure_confusion(TABLE, Reading.THREE)
    assert found.names == ("negative", "equivocal", "positive")
    assert found.confusion.tolist() == [[15, 1, 0, 2], [1, 6, 1, 0], [0, 0, 9, 1], [3, 0, 0, 11]]
    assert found.accuracy == pytest.approx(30 / 36)
    assert found.precision == pytest.approx((15 / 19, 6 / 7, 9 / 10))
    assert found.recall == pytest.approx((15 / 18, 6 / 8, 9 / 10))
    assert found.specificity == pytest.approx((28 / 32, 41 / 42, 39 / 40))


def test_the_papers_table_5_counts_all_tiles() -> None:
    """RepVGG-GCT on the 615 test tiles of 0 in Table 2: recall 84.6, precision 85.2 and specificity 98.0 leave no other
    number of negatives; the 1,233 tiles of the other three classes would give 92.7. 1+ likewise (82.0, 71.9, 98.4)."""
    for tiles, recall, precision, specificity, least, most in (
        (615, 0.846, 0.852, 0.980, 4400, 4700),
        (470, 0.719, 0.820, 0.984, 4400, 4900),
        (437, 0.908, 0.902, 0.991, 4500, 5100),
    ):
        right = recall * tiles
        wrong = right * (1 - precision) / precision
        assert least < wrong / (1 - specificity) < most
    table = np.zeros((6, 6), dtype=np.int64)
    table[0, [0, 4]], table[1, 1], table[4, [0, 4]] = (520, 95), 1233, (90, 3200)
    found = measure_confusion(table, Reading.FOUR)
    printed = (found.recall[0], found.precision[0], found.specificity[0])
    assert [round(100 * one, 1) for one in printed] == [84.6, 85.2, 98.0]


@pytest.mark.parametrize("seed", range(4))
def test_as_in_scikit_learn(seed: int) -> None:
    """Few tiles: classes are missing from the truth, from what was found, or from both."""
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 6, (2, 6 + 4 * seed))
    found = measure_tiles(truth, predicted)
    theirs = precision_recall_fscore_support(truth, predicted, labels=range(6), zero_division=0)
    assert found.precision == pytest.approx(theirs[0])
    assert found.recall == pytest.approx(theirs[1])
    assert found.f1 == pytest.approx(theirs[2])
    assert found.support == tuple(theirs[3])
    assert found.accuracy == pytest.approx(accuracy_score(truth, predicted))
    occurring = np.unique(truth)
    means = precision_recall_fscore_support(truth, predicted, labels=occurring, average="macro", zero_division=0)
    assert (found.macro_precision, found.macro_recall, found.macro_f1) == pytest.approx(means[:3])
    assert macro_f1(truth, predicted) == found.macro_f1
    rest = [recall_score(truth != one, predicted != one, zero_division=0) for one in range(6)]
    assert found.specificity == pytest.approx(rest)


def test_what_has_no_tiles_is_no_number() -> None:
    """Two classes in the truth; one of them is never found."""
    found = measure_tiles(np.array([1, 1, 4]), np.array([1, 5, 1]))
    assert found.absent == ("0", "2+", "3+", "noise")
    assert found.macro_recall == pytest.approx((1 / 2 + 0) / 2)
    assert found.precision[4] == found.f1[4] == 0.0
    plain = found.plain()
    assert plain["by_class"]["0"] == dict.fromkeys(("precision", "recall", "specificity", "f1")) | {"tiles": 0}
    assert plain["by_class"]["normal"]["precision"] == 0.0
    json.dumps(plain, allow_nan=False)


def test_no_tile_at_all() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert confusion(none, none).tolist() == np.zeros((6, 6)).tolist()
    for found in (measure_tiles(none, none), measure_tiles(np.array([4]), np.array([0]), Reading.FOUR)):
        assert found.tiles == 0
        assert found.plain()["accuracy"] is None
        assert set(found.plain()["macro"].values()) == {None}
        assert found.macro_f1 == 0.0


def test_one_class_alone_has_no_specificity() -> None:
    plain = measure_tiles(np.array([3, 3]), np.array([3, 2])).plain()
    assert plain["macro"]["specificity"] is plain["by_class"]["3+"]["specificity"] is None
    assert plain["macro"]["recall"] == 0.5
    beside_normal = measure_tiles(np.array([3, 3, 4, 5]), np.array([3, 2, 3, 5]), Reading.FOUR).plain()
    assert beside_normal["macro"]["specificity"] == beside_normal["by_class"]["3+"]["specificity"] == 0.5
    assert beside_normal["confusion"]["rows"] == ["0", "1+", "2+", "3+", "normal or noise"]


def test_the_papers_f1_and_accuracy() -> None:
    """Table 7: a chain that takes every tile for one class, which 56.11 % of tiles have."""
    table = np.zeros((6, 6), dtype=np.int64)
    table[:, 4] = (1000, 1000, 1000, 1000, 5611, 389)
    found = measure_confusion(table)
    assert round(100 * found.accuracy, 2) == 56.11
    assert round(100 * found.macro_precision, 2) == 9.35
    assert round(100 * found.macro_recall, 2) == 16.67
    assert round(100 * found.macro_specificity, 2) == 83.33
    assert round(100 * found.f1_of_macro, 2) == 11.98

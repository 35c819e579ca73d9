"""The paper's tables agree with themselves, with each other, and with the networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from her2bridge.experiments.complexity import size_of
from her2bridge.experiments.networks import BLOCKS, OURS, SEVEN
from her2bridge.experiments.published import PER_CLASS, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TileLine
from her2bridge.experiments.table4 import deployed

LINES = [*TABLE_4.items(), *((f"{block} {fused}", line) for (block, fused), line in TABLE_7.items())]


def f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(("name", "line"), LINES, ids=[name for name, _ in LINES])
def test_f1_follows_from_precision_and_recall(name: str, line: TileLine) -> None:
    assert line.f1.mean == pytest.approx(f1(line.precision.mean, line.recall.mean), abs=0.0101)


def classes() -> Iterator[tuple[float, ...]]:
    for figures in TABLE_5.values():
        yield from zip(*(figures[key] for key in PER_CLASS), strict=True)


def test_so_it_does_class_by_class() -> None:
    found = list(classes())
    assert len(found) == 2 * (4 + 3)
    for precision, recall, specificity, printed in found:
        assert printed == pytest.approx(f1(precision, recall), abs=0.06)
        assert 97 < specificity <= 100


def test_table_7_ends_where_table_4_does() -> None:
    assert TABLE_7["ECM + GCT", True] == TABLE_4["RepVGG-GCT"]


def test_fusing_changes_no_published_figure() -> None:
    for block in ("ECM", "ECM + GCT"):
        before, after = TABLE_7[block, False], TABLE_7[block, True]
        assert (before.accuracy, before.f1) == (after.accuracy, after.f1)
        assert before.parameters_m > after.parameters_m


def test_every_published_line_has_a_network() -> None:
    assert set(TABLE_4) == {one.name for one in (*OURS, *SEVEN)}
    assert {block for block, _ in TABLE_7} < {one.name for one in BLOCKS}
    assert {name for name, _ in TABLE_5} == {name for name, _ in TABLE_6} == {one.name for one in OURS}


@pytest.mark.parametrize("key", TABLE_7, ids=str)
def test_our_networks_have_the_published_size(key: tuple[str, bool]) -> None:
    name, fused = key
    (one,) = [block for block in BLOCKS if block.name == name]
    size = size_of(lambda: deployed(one) if fused else one.build(), 256)
    assert size.parameters / 1e6 == pytest.approx(TABLE_7[key].parameters_m, abs=0.00061)  # one was cut, not rounded
    assert size.multiply_adds == (1_973_952_000 if not fused and "ECM" in name else 1_776_557_568)


def test_the_two_of_table_4_have_too() -> None:
    for one in OURS:
        assert size_of(lambda one=one: deployed(one), 256).parameters / 1e6 == pytest.approx(
            TABLE_4[one.name].parameters_m, abs=0.00061
        )

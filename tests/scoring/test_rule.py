"""The guideline's rule, on resections and on biopsies."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_grids import classes_of, grid_at, in_a_row, sure_of

from her2bridge.records import LEFT_OUT, TileClass, TileCounts
from her2bridge.scoring import ScoreSettings
from her2bridge.scoring.rule import at_least, biopsy_score, reaches_a_tenth, resection_score

SETTINGS = ScoreSettings()
ZERO, ONE, TWO, THREE = TileClass.ZERO, TileClass.ONE, TileClass.TWO, TileClass.THREE
COUNT = st.integers(0, 3000)
COUNTS = st.builds(lambda *by_class: TileCounts(by_class), COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
CELLS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12, unique=True)


class TestTenPercent:
    @pytest.mark.parametrize(
        ("part", "whole", "reached"), [(1, 10, True), (1, 11, False), (0, 0, False), (0, 5, False)]
    )
    def test_on_whole_counts(self, part: int, whole: int, reached: bool) -> None:
        assert reaches_a_tenth(part, whole) is reached

    def test_a_rounded_percentage_does_not_decide(self) -> None:
        assert f"{100 * 9996 / 100_000:.1f}" == "10.0"
        assert not reaches_a_tenth(9_996, 100_000)

    @given(st.integers(0, 10**12), st.integers(1, 10**12))
    def test_is_exact(self, part: int, whole: int) -> None:
        assert reaches_a_tenth(part, whole) is (Fraction(part, whole) >= Fraction(1, 10))


class TestResection:
    @pytest.mark.parametrize(
        ("by_class", "grade"),
        [
            ((90, 0, 0, 10, 0, 0), THREE),
            ((91, 0, 0, 9, 0, 0), ZERO),
            ((90, 0, 1, 9, 0, 0), TWO),  # 3+ counts towards 2+
            ((90, 1, 0, 9, 0, 0), ONE),
            ((90, 4, 3, 3, 0, 0), ONE),
            ((91, 3, 3, 3, 0, 0), ZERO),
            ((0, 100, 0, 0, 0, 0), ONE),
            ((100, 0, 0, 0, 0, 0), ZERO),
            ((90, 0, 0, 10, 5000, 5000), THREE),  # normal and noise are no tumour
            ((0, 0, 0, 0, 9, 9), ZERO),
        ],
    )
    def test_table_1(self, by_class: tuple[int, int, int, int, int, int], grade: TileClass) -> None:
        assert resection_score(TileCounts(by_class)) is grade

    @given(COUNTS)
    def test_is_the_strongest_grade_that_reaches_a_tenth(self, counts: TileCounts) -> None:
        score = resection_score(counts)
        stronger = [grade for grade in (ONE, TWO, THREE) if grade > score]
        assert not any(reaches_a_tenth(at_least(counts, grade), counts.tumour) for grade in stronger)
        assert score is ZERO or reaches_a_tenth(at_least(counts, score), counts.tumour)

    @given(COUNTS, st.integers(0, 2), st.integers(1, 3))
    def test_a_stronger_tile_never_lowers_the_score(self, counts: TileCounts, weak: int, strong: int) -> None:
        assume(weak < strong)
        assume(counts.by_class[weak])
        moved = list(counts.by_class)
        moved[weak] -= 1
        moved[strong] += 1
        after = dataclasses.replace(counts, by_class=tuple(moved))
        assert resection_score(after) >= resection_score(counts)
        assert after.h_score > counts.h_score

    @given(COUNTS, st.integers(2, 7))
    def test_depends_on_shares_only(self, counts: TileCounts, factor: int) -> None:
        assert resection_score(TileCounts(tuple(factor * n for n in counts.by_class))) is resection_score(counts)


class TestShares:
    @given(COUNTS)
    def test_h_score_lies_between_0_and_300(self, counts: TileCounts) -> None:
        assume(counts.tumour)
        assert 0 <= counts.h_score <= 300
        assert sum(counts.share(grade) for grade in (ZERO, ONE, TWO, THREE)) == pytest.approx(1)

    def test_h_score_by_hand(self) -> None:
        counts = TileCounts((40, 30, 20, 10, 7, 7))
        assert counts.h_score == 30 + 40 + 30
        assert TileCounts((0, 0, 0, 3, 0, 0)).h_score == 300

    def test_without_tumour_there_is_no_share(self) -> None:
        counts = TileCounts((0, 0, 0, 0, 3, 3))
        assert np.isnan(counts.h_score)
        assert np.isnan(counts.share(THREE))

    def test_left_out_tiles_count_nowhere(self) -> None:
        assert TileCounts.of([0, 3, LEFT_OUT, 5, LEFT_OUT]) == TileCounts((1, 0, 0, 1, 0, 1))
        assert TileCounts.of([]) == TileCounts((0, 0, 0, 0, 0, 0))


class TestBiopsy:
    def score(self, cells: list[tuple[int, int]], classes: list[int], certainty: float) -> TileClass:
        values = np.array(classes, dtype=np.int64)
        return biopsy_score(grid_at(cells), values, sure_of(values, certainty), SETTINGS)

    @pytest.mark.parametrize(("certainty", "grade"), [(0.9, THREE), (0.89, ZERO)])
    def test_one_tile_must_be_sure(self, certainty: float, grade: TileClass) -> None:
        assert self.score([(0, 0), (9, 9)], [0, 3], certainty) is grade

    def test_certainty_is_that_of_the_grade_or_stronger(self) -> None:
        probabilities = np.array([[0.02, 0.0, 0.5, 0.48, 0, 0]], dtype=np.float32)
        assert biopsy_score(grid_at([(0, 0)]), np.array([2]), probabilities, SETTINGS) is TWO

    @pytest.mark.parametrize("other", [(1, 0), (0, 1), (1, 1), (-1, 1), (-1, -1)])
    def test_two_touching_tiles_need_not_be_sure(self, other: tuple[int, int]) -> None:
        assert self.score([(4, 4), (4 + other[0], 4 + other[1])], [3, 3], 0.6) is THREE

    @pytest.mark.parametrize("other", [(2, 0), (0, 2), (2, 1), (2, 2)])
    def test_two_tiles_apart_are_no_focus(self, other: tuple[int, int]) -> None:
        assert self.score([(4, 4), (4 + other[0], 4 + other[1])], [3, 3], 0.6) is ZERO

    def test_a_stronger_neighbour_makes_a_focus_of_the_weaker_grade(self) -> None:
        assert self.score([(0, 0), (1, 0)], [2, 3], 0.6) is TWO
        assert self.score([(0, 0), (1, 0)], [1, 3], 0.6) is ONE

    @pytest.mark.parametrize("other", [TileClass.NORMAL, TileClass.NOISE, LEFT_OUT])
    def test_what_is_no_tumour_joins_no_focus(self, other: int) -> None:
        probabilities = sure_of(np.array([3, 3]), 0.6)
        assert biopsy_score(grid_at([(0, 0), (1, 0)]), np.array([3, other]), probabilities[:2], SETTINGS) is ZERO

    def test_share_does_not_matter(self) -> None:
        classes = classes_of([999, 0, 0, 1])
        assert biopsy_score(in_a_row(1000), classes, sure_of(classes), SETTINGS) is THREE

    @pytest.mark.parametrize(("um2", "grade"), [(4096.0, THREE), (4096.1, ZERO)])
    def test_area(self, um2: float, grade: TileClass) -> None:
        settings = dataclasses.replace(SETTINGS, biopsy_focus_um2=um2)
        classes = np.array([3], dtype=np.int64)
        assert biopsy_score(grid_at([(0, 0)]), classes, sure_of(classes), settings) is grade

    def test_small_tiles_need_more_of_them(self) -> None:
        """At 0.1 µm/px a tile has 655 µm²: three of them make the 1,500 µm² of a focus, two do not."""
        for count, grade in ((2, ZERO), (3, THREE)):
            grid = grid_at([(number, 0) for number in range(count)], mpp=0.1)
            classes = np.full(count, 3, dtype=np.int64)
            assert biopsy_score(grid, classes, sure_of(classes), SETTINGS) is grade

    def test_a_person_is_sure(self) -> None:
        """A single tile that a person called 3+ is a focus, whatever the network thought of it."""
        probabilities = sure_of(np.array([0, 1]), 0.95)
        corrected = np.array([0, 3], dtype=np.int64)
        assert biopsy_score(grid_at([(0, 0), (9, 9)]), corrected, probabilities, SETTINGS) is THREE

    def test_without_tiles(self) -> None:
        assert self.score([], [], 1.0) is ZERO

    @given(CELLS, st.data())
    def test_a_stronger_tile_never_lowers_the_score(self, cells: list[tuple[int, int]], data: st.DataObject) -> None:
        classes = np.array([data.draw(st.integers(0, 5)) for _ in cells], dtype=np.int64)
        place = data.draw(st.integers(0, len(cells) - 1))
        assume(classes[place] < THREE)
        certainty = data.draw(st.sampled_from([0.6, 0.95]))
        stronger = classes.copy()
        stronger[place] += 1
        before = biopsy_score(grid_at(cells), classes, sure_of(classes, certainty), SETTINGS)
        assert biopsy_score(grid_at(cells), stronger, sure_of(stronger, certainty), SETTINGS) >= before

    @given(CELLS, st.data())
    def test_order_and_place_do_not_matter(self, cells: list[tuple[int, int]], data: st.DataObject) -> None:
        by_cell = {cell: data.draw(st.integers(0, 5)) for cell in cells}
        scores = set()
        for shift, mirror in ((0, 1), (7, 1), (20, -1)):
            moved = {(shift + mirror * i, shift + j): value for (i, j), value in by_cell.items()}
            ordered = sorted(moved, key=lambda cell: (cell[1], cell[0]))
            classes = np.array([moved[cell] for cell in ordered], dtype=np.int64)
            scores.add(biopsy_score(grid_at(list(moved)), classes, sure_of(classes, 0.5), SETTINGS))
        assert len(scores) == 1

"""The nouns: labels, tile sides, counts; frozen."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from her2bridge import records
from her2bridge.records import (
    LEFT_OUT,
    TUMOUR_CLASSES,
    Region,
    SlideScore,
    Specimen,
    Status,
    TileClass,
    TileCounts,
    TileGrid,
    TilePredictions,
    TileSpec,
)


class TestTileClass:
    def test_order_is_that_of_the_networks_output(self) -> None:
        assert [one.label for one in TileClass] == ["0", "1+", "2+", "3+", "normal", "noise"]
        assert [int(one) for one in TileClass] == list(range(6))
        assert [one.is_tumour for one in TileClass] == [True] * 4 + [False] * 2
        assert tuple(one for one in TileClass if one.is_tumour) == TUMOUR_CLASSES

    @pytest.mark.parametrize("tile_class", TileClass)
    def test_labels_are_read_back(self, tile_class: TileClass) -> None:
        assert TileClass.from_label(tile_class.label) is tile_class

    @pytest.mark.parametrize("label", ["", "4+", "Noise", "Negative"])
    def test_other_labels(self, label: str) -> None:
        with pytest.raises(ValueError, match="not in"):
            TileClass.from_label(label)

    def test_left_out_is_none_of_them(self) -> None:
        assert LEFT_OUT not in list(TileClass)


class TestTileSpec:
    @pytest.mark.parametrize(("mpp", "side"), [(0.25, 256), (0.5, 128), (0.2, 320), (0.242, 264.46)])
    def test_the_docstrings_numbers(self, mpp: float, side: float) -> None:
        assert round(TileSpec().side(mpp), 2) == side
        for number in ("64 µm", "128 level-0", "320 pixels", "264.46"):
            assert number in (TileSpec.__doc__ or "")
        assert TileSpec().field_um == 64

    @given(st.integers(32, 1024), st.floats(0.05, 4), st.floats(0.05, 4))
    def test_the_field_is_covered_at_any_resolution(self, size: int, mpp: float, slide_mpp: float) -> None:
        spec = TileSpec(size, mpp)
        assert spec.side(slide_mpp) * slide_mpp == pytest.approx(spec.field_um)


class TestTileGrid:
    GRID = TileGrid(
        TileSpec(),
        side=100.5,
        columns=np.array([0, 3], dtype=np.int64),
        rows=np.array([0, 2], dtype=np.int64),
        owner=np.zeros(2, dtype=np.int64),
        regions=(Region("r", None, None, box(0, 0, 1, 1)),),
        members=(np.arange(2, dtype=np.int64),),
    )

    def test_corners_and_centres_stay_floats(self) -> None:
        assert len(self.GRID) == 2
        np.testing.assert_array_equal(self.GRID.origins(), [[0, 0], [301.5, 201.0]])
        np.testing.assert_array_equal(self.GRID.centres(), [[50.25, 50.25], [351.75, 251.25]])

    def test_the_most_probable_class_the_first_of_equals(self) -> None:
        probabilities = np.array([[0, 0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 0.4, 0.6]], dtype=np.float32)
        predictions = TilePredictions(self.GRID, probabilities)
        assert predictions.classes.tolist() == [1, 5]
        assert predictions.classes.dtype == np.int64


class TestTileCounts:
    @given(st.lists(st.integers(LEFT_OUT, 5)))
    def test_each_tile_counts_once(self, classes: list[int]) -> None:
        counts = TileCounts.of(classes)
        assert counts.by_class == tuple(classes.count(number) for number in range(6))
        assert counts.total == len(classes) - classes.count(LEFT_OUT)
        assert counts.tumour == sum(number in range(4) for number in classes)
        assert counts == TileCounts.of(np.array(classes, dtype=np.int64))

    def test_shares_are_of_tumour_tiles(self) -> None:
        counts = TileCounts((6, 2, 1, 1, 50, 50))
        assert [counts.share(grade) for grade in TUMOUR_CLASSES] == [0.6, 0.2, 0.1, 0.1]
        assert counts.h_score == pytest.approx(70)


def test_words_that_a_project_shows() -> None:
    """They stand in files of users: whoever changes one must know it."""
    statuses = ["Negative", "Equivocal (ISH advised)", "Positive", "Discordant (review)", "Not assessable"]
    assert [str(one) for one in Status] == statuses
    assert [str(one) for one in Specimen] == ["resection", "biopsy", "not stated"]


def test_assessable() -> None:
    counts = TileCounts((0, 0, 0, 0, 0, 0))
    assert not SlideScore("Not assessable", Status.NOT_ASSESSABLE, counts, None, Specimen.NOT_STATED).assessable
    assert SlideScore("0", Status.NEGATIVE, counts, "0", Specimen.NOT_STATED).assessable


def test_every_record_is_frozen() -> None:
    classes = [one for _, one in inspect.getmembers(records, inspect.isclass) if dataclasses.is_dataclass(one)]
    assert len(classes) >= 10
    assert all(one.__dataclass_params__.frozen for one in classes)

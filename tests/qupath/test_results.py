"""What a run writes into a project, and what it makes of the tiles it finds there."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from her2bridge.qupath import results
from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.regions import RegionChoice
from her2bridge.qupath.results import METADATA_KEYS, RunStamp
from her2bridge.qupath.seam import NewTiles, PathClassRef, StoredTiles
from her2bridge.records import (
    Region,
    SlideScore,
    Specimen,
    Status,
    TileCounts,
    TileGrid,
    TilePredictions,
    TileSpec,
    WhspnReading,
)
from her2bridge.tiling import make_grid

HEX = st.text("0123456789abcdef", min_size=12, max_size=12)
NAMES = st.lists(st.text(min_size=1, max_size=12)).map(tuple)
CHOICES = st.builds(RegionChoice, NAMES, NAMES, st.booleans())
STAMP = RunStamp("0123456789ab", "2026-11-24T17:00:00Z", "0.1.0", "a" * 12, "b" * 12, "c" * 12)


def grid_of(columns: int, rows: int, mpp: float = 0.25) -> TileGrid:
    side = TileSpec().side(mpp)
    region = Region("r1", None, "Tumor", box(0, 0, columns * side, rows * side))
    return make_grid([region], TileSpec(), mpp, (int(columns * side) + 1, int(rows * side) + 1))


def predictions_of(grid: TileGrid, seed: int = 1) -> TilePredictions:
    raw = np.random.default_rng(seed).random((len(grid), 6)).astype(np.float32)
    return TilePredictions(grid, raw / raw.sum(axis=1, keepdims=True))


def as_stored(tiles: NewTiles, names: list[str | None] | None = None) -> StoredTiles:
    """What a backend reads back of tiles it wrote."""
    return StoredTiles(
        ids=tiles.ids,
        bounds=tiles.bounds(),
        class_names=tiles.class_names() if names is None else names,
        measurements=dict(zip(tiles.measurement_names, tiles.measurements.T, strict=True)),
        run_ids=[tiles.mark] * len(tiles),
    )


def tiles_of(predictions: TilePredictions, prefix: str | None = None) -> NewTiles:
    rows = np.arange(len(predictions.grid))
    return results.new_tiles(predictions, rows, path_classes(prefix), "run1", below_regions=True)


def score_of(counts: TileCounts, *, assessable: bool = True) -> SlideScore:
    if not assessable:
        return SlideScore("Not assessable", Status.NOT_ASSESSABLE, counts, None, Specimen.NOT_STATED, ("too little",))
    return SlideScore("2+", Status.EQUIVOCAL, counts, "2+", Specimen.BIOPSY, ("one", "two"))


class TestMetadata:
    def test_all_keys_as_strings(self) -> None:
        metadata = results.score_metadata(score_of(TileCounts((50, 25, 20, 5, 7, 3))), "gct 0123", STAMP)
        assert metadata == {
            "HER2 AI score": "2+",
            "HER2 AI status": "Equivocal (ISH advised)",
            "HER2 AI % tiles 0": "50.0",
            "HER2 AI % tiles 1+": "25.0",
            "HER2 AI % tiles 2+": "20.0",
            "HER2 AI % tiles 3+": "5.0",
            "HER2 AI tumour tiles": "100",
            "HER2 AI tile H-score": "80.0",
            "HER2 AI rule score": "2+",
            "HER2 AI WHSPN": "",
            "HER2 AI review": "one; two",
            "HER2 AI specimen": "biopsy",
            "HER2 AI model": "gct 0123",
            "HER2 AI run": str(STAMP),
        }
        assert "research use only" in metadata["HER2 AI run"]

    @pytest.mark.parametrize(
        ("margin", "kind", "text"),
        [
            (0.843, "MLP", "3+ (MLP, margin 0.84; trained on simulated cohorts)"),
            (None, "SVM", "3+ (SVM; trained on simulated cohorts)"),
        ],
    )
    def test_what_the_whspn_learned_from_stands_beside_its_score(
        self, margin: float | None, kind: str, text: str
    ) -> None:
        reading = WhspnReading("3+", kind, margin, "simulated cohorts")
        score = replace(score_of(TileCounts((50, 25, 20, 5, 7, 3))), whspn=reading)
        metadata = results.score_metadata(score, "m", STAMP)
        assert (metadata["HER2 AI WHSPN"], metadata["HER2 AI rule score"]) == (text, "2+")

    def test_not_assessable_leaves_numbers_empty(self) -> None:
        for counts in (TileCounts((0, 0, 0, 0, 9, 1)), TileCounts((3, 0, 0, 4, 9, 1))):
            metadata = results.score_metadata(score_of(counts, assessable=False), "m", STAMP)
            empty = [key for key in METADATA_KEYS if metadata[key] == ""]
            assert empty == [*(f"HER2 AI % tiles {c}" for c in ("0", "1+", "2+", "3+")), *METADATA_KEYS[7:10]]
            assert metadata["HER2 AI tumour tiles"] == str(counts.tumour)

    @given(HEX, HEX, HEX, HEX, st.lists(st.sampled_from(METADATA_KEYS), unique=True), CHOICES)
    def test_stamp_is_read_back(
        self, run: str, settings: str, regions: str, tiles: str, kept: list[str], choice: RegionChoice
    ) -> None:
        stamp = RunStamp(run, "2026-11-24T17:00:00Z", "1.2.3rc1", settings, regions, tiles, tuple(kept), choice)
        assert RunStamp.parse(str(stamp)) == stamp

    def test_usual_regions_are_not_mentioned(self) -> None:
        assert "asked" not in str(STAMP)
        asked = replace(STAMP, choice=RegionChoice(("HER2 ROI",)))
        assert str(asked) == f'{STAMP} | asked {{"region_classes": ["HER2 ROI"]}}'

    @pytest.mark.parametrize("text", [None, "", "by hand", str(STAMP)[:-1], str(STAMP) + " "])
    def test_other_texts_are_no_stamps(self, text: str | None) -> None:
        assert RunStamp.parse(text) is None

    def test_keys_of_others_are_found_and_not_written(self) -> None:
        before = {"HER2 AI review": "seen by me", "Case score": "2+"}
        assert results.foreign_keys(before, {}) == ("HER2 AI review",)
        stamp = replace(STAMP, kept=("HER2 AI review",))
        after = before | results.score_metadata(score_of(TileCounts((1, 1, 1, 1, 1, 1))), "m", stamp)
        assert after["HER2 AI review"] == "seen by me"
        assert results.foreign_keys(after, {}) == ("HER2 AI review",)  # remembered by the next run
        del after["HER2 AI run"]  # by hand: what the side files hold was ours all the same
        left = results.score_metadata(score_of(TileCounts((1, 1, 1, 1, 1, 1))), "m", stamp)
        assert results.foreign_keys(after, left) == ("HER2 AI review",)
        assert "HER2 AI score" in results.foreign_keys(after, {})

    def test_specimen(self) -> None:
        assert results.stated_specimen({"Specimen": " Biopsy "}) is Specimen.BIOPSY
        assert results.stated_specimen({"specimen ": "Gastric biopsy, antrum"}) is Specimen.BIOPSY
        assert results.stated_specimen({"SPECIMEN": "Resection"}) is Specimen.RESECTION
        assert results.stated_specimen({"Specimen": "not stated"}) is Specimen.NOT_STATED
        for unknown in ("toe", "biopsy, then resection", "", None):
            assert results.stated_specimen({"Specimen": unknown}) is None  # type: ignore[dict-item]
        assert results.stated_specimen({}) is None


class TestRegionMeasurements:
    def test_shares_in_percent(self) -> None:
        values = results.region_measurements(TileCounts((6, 2, 1, 1, 5, 5)), assessable=True)
        assert values == {
            "HER2: % tiles 0": 60.0,
            "HER2: % tiles 1+": 20.0,
            "HER2: % tiles 2+": 10.0,
            "HER2: % tiles 3+": 10.0,
            "HER2: tumour tiles": 10.0,
            "HER2: tile H-score": 70.0,
        }
        assert tuple(values) == results.REGION_MEASUREMENTS

    def test_nothing_to_say_is_not_said(self) -> None:
        assert results.region_measurements(TileCounts((0, 0, 0, 0, 5, 5)), assessable=True) == {"HER2: tumour tiles": 0}
        assert results.region_measurements(TileCounts((6, 0, 0, 0, 5, 5)), assessable=False) == {
            "HER2: tumour tiles": 6
        }


class TestTiles:
    def test_columns(self) -> None:
        grid = grid_of(4, 3, mpp=0.242)
        predictions = predictions_of(grid)
        tiles = tiles_of(predictions, "HER2")
        assert tiles.side == pytest.approx(64 / 0.242)
        np.testing.assert_array_equal(tiles.measurements, predictions.probabilities)
        assert tiles.measurement_names == tuple(f"HER2: p({c})" for c in ("0", "1+", "2+", "3+", "normal", "noise"))
        assert len(set(tiles.ids)) == len(grid)
        assert [tiles.parent_ids[p] for p in tiles.parents] == ["r1"] * len(grid)
        names = ["HER2: Negative", "HER2: 1+", "HER2: 2+", "HER2: 3+", "HER2: Normal", "HER2: Noise*"]
        assert tiles.class_names() == [names[c] for c in predictions.classes]

    def test_ids_are_random_uuids(self) -> None:
        ids = results.new_ids(5000)
        read = [uuid.UUID(one) for one in ids]
        assert [str(one) for one in read] == ids
        assert {(one.version, one.variant) for one in read} == {(4, uuid.RFC_4122)}
        assert len({*ids, *results.new_ids(5000)}) == 10_000
        assert {one.int >> shift & 0xFF for one in read for shift in (0, 120)} == set(range(256))
        assert results.new_ids(0) == []

    def test_below_the_root(self) -> None:
        predictions = predictions_of(grid_of(2, 2))
        tiles = results.new_tiles(predictions, np.arange(2), path_classes(), "run1", below_regions=False)
        assert [tiles.parent_ids[p] for p in tiles.parents] == [None, None]

    def test_the_projects_colours_win(self) -> None:
        mine, *others = results.coloured(
            path_classes(), [PathClassRef(("Negative",), (1, 2, 3)), PathClassRef(("1+",))]
        )
        assert mine == PathClassRef(("Negative",), (1, 2, 3))
        assert others == path_classes()[1:]

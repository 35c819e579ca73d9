"""What a run makes of the tiles of earlier runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import box
from test_results import as_stored, grid_of, predictions_of, tiles_of

from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.earlier_tiles import centres_inside, sort_earlier, staying_tiles, stored_probabilities
from her2bridge.qupath.results import PROBABILITY_NAMES
from her2bridge.qupath.seam import StoredTiles
from her2bridge.records import LEFT_OUT, Region, TileClass, TileGrid, TilePredictions, TileSpec
from her2bridge.tiling import make_grid


class TestAFullRun:
    def test_none_as_written(self) -> None:
        for prefix in (None, "HER2"):
            predictions = predictions_of(grid_of(5, 4))
            found = sort_earlier(as_stored(tiles_of(predictions, prefix)), predictions.grid)
            assert not len(found.kept)
            assert len(found.replaced) == 20
            np.testing.assert_array_equal(found.applied_to(predictions.classes), predictions.classes)

    @pytest.mark.parametrize(
        ("name", "counted_as"),
        [("3+", TileClass.THREE), ("Noise*", TileClass.NOISE), ("Stroma", LEFT_OUT), (None, LEFT_OUT)],
    )
    def test_a_changed_class_is_kept_and_counted(self, name: str | None, counted_as: int) -> None:
        grid = grid_of(5, 4)
        sure_of_1 = np.tile(np.array([0.1, 0.9, 0, 0, 0, 0], dtype=np.float32), (20, 1))
        predictions = TilePredictions(grid, sure_of_1)
        names: list[str | None] = ["1+"] * 20
        names[7] = name
        stored = as_stored(tiles_of(predictions), names)
        found = sort_earlier(stored, grid)
        assert found.kept.tolist() == [7]
        assert found.cells.tolist() == [7]
        assert found.counted == 1
        assert found.applied_to(predictions.classes)[7] == counted_as
        assert 7 not in found.replaced
        assert found.open_cells(20).tolist() == [n for n in range(20) if n != 7]

    def test_outside_todays_grid_it_is_kept_and_not_counted(self) -> None:
        wide = predictions_of(grid_of(5, 4))
        names = tiles_of(wide).class_names()
        names[4] = "Stroma"  # column 4 of row 0
        names[0] = "Stroma"
        narrow = grid_of(3, 4)
        found = sort_earlier(as_stored(tiles_of(wide), names), narrow)
        assert found.kept.tolist() == [0, 4]
        assert found.cells.tolist() == [0, -1]
        other_scale = sort_earlier(as_stored(tiles_of(wide), names), grid_of(5, 4, mpp=0.3))
        assert other_scale.cells.tolist() == [-1, -1]
        assert other_scale.counted == 0

    def test_tiles_without_probabilities_count_as_ours(self) -> None:
        predictions = predictions_of(grid_of(2, 2))
        tiles = tiles_of(predictions)
        bare = StoredTiles(tiles.ids, tiles.bounds(), ["Stroma"] * 4, {}, ["run1"] * 4)
        assert sort_earlier(bare, predictions.grid).replaced.tolist() == [0, 1, 2, 3]

    def test_into_an_empty_grid(self) -> None:
        predictions = predictions_of(grid_of(2, 2))
        empty = grid_of(2, 2)
        empty = TileGrid(empty.spec, empty.side, *(np.empty(0, np.int64),) * 3, empty.regions, (np.empty(0, np.int64),))
        found = sort_earlier(as_stored(tiles_of(predictions), [None] * 4), empty)
        assert found.cells.tolist() == [-1] * 4
        assert staying_tiles(
            as_stored(tiles_of(predictions), [None] * 4), found, empty, path_classes(), below_regions=True
        )

    def test_kept_tiles_can_be_stored_again(self) -> None:
        predictions = predictions_of(grid_of(5, 4))
        names = tiles_of(predictions).class_names()
        names[3], names[6] = None, "HER2: Odd"
        stored = as_stored(tiles_of(predictions), names)
        found = sort_earlier(stored, predictions.grid)
        (again,) = staying_tiles(stored, found, predictions.grid, path_classes(), below_regions=True)
        np.testing.assert_allclose(again.bounds(), stored.bounds[[3, 6]])
        assert again.class_names() == [None, "HER2: Odd"]
        assert again.ids == [stored.ids[3], stored.ids[6]]
        assert again.mark == "run1"
        assert [again.parent_ids[p] for p in again.parents] == ["r1", "r1"]
        np.testing.assert_array_equal(again.measurements, predictions.probabilities[[3, 6]])
        assert again.measurement_names == PROBABILITY_NAMES


class TestSomeRegions:
    """Two regions side by side, columns 0 to 2 and 3 to 4; only the second is classified anew."""

    @staticmethod
    def two_regions() -> TileGrid:
        side = TileSpec().side(0.25)
        left = Region("left", None, "Tumor", box(0, 0, 3 * side, 4 * side))
        right = Region("right", None, "Tumor", box(3 * side, 0, 5 * side, 4 * side))
        return make_grid([left, right], TileSpec(), 0.25, (int(5 * side) + 1, int(4 * side) + 1))

    def test_only_its_tiles_are_replaced(self) -> None:
        grid = self.two_regions()
        predictions = predictions_of(grid)
        found = sort_earlier(as_stored(tiles_of(predictions)), grid, {"right"})
        assert {int(grid.columns[cell]) for cell in found.left_cells} == {0, 1, 2}
        assert {int(grid.columns[row]) for row in found.replaced} == {3, 4}
        assert sorted([*found.left, *found.replaced]) == list(range(20))
        assert sorted(found.open_cells(20)) == sorted(found.replaced)
        assert len(sort_earlier(as_stored(tiles_of(predictions)), grid, set()).replaced) == 0

    def test_corrected_tiles_stay_in_either(self) -> None:
        grid = self.two_regions()
        names = tiles_of(predictions_of(grid)).class_names()
        names[0] = names[4] = "Stroma"
        found = sort_earlier(as_stored(tiles_of(predictions_of(grid)), names), grid, {"right"})
        assert found.kept.tolist() == [0, 4]
        assert found.staying.tolist() == [0, 4, *found.left.tolist()]
        assert 4 not in found.open_cells(20)

    def test_off_the_grid_the_centre_says_whose_they_are(self) -> None:
        grid = self.two_regions()
        stored = as_stored(tiles_of(predictions_of(grid)))
        shifted = replace(stored, bounds=stored.bounds + 30.0)
        found = sort_earlier(shifted, grid, {"right"})
        assert set(found.left_cells.tolist()) == {-1}
        assert {int(grid.columns[row]) for row in found.replaced} == {3, 4}

    def test_what_was_seen_before_is_found_by_place(self) -> None:
        grid = self.two_regions()
        predictions = predictions_of(grid)
        stored = as_stored(tiles_of(predictions))
        np.testing.assert_array_equal(stored_probabilities(stored, grid), predictions.probabilities)
        other = replace(stored, bounds=stored.bounds + 30.0)
        assert np.isnan(stored_probabilities(other, grid)).all()

    def test_one_tile_stays_of_two_on_a_cell(self) -> None:
        grid = self.two_regions()
        names = tiles_of(predictions_of(grid)).class_names()
        names[0] = "Stroma"
        once = as_stored(tiles_of(predictions_of(grid)), names)
        twice = StoredTiles(
            [*once.ids, *(f"{one}-2" for one in once.ids)],
            np.concatenate([once.bounds, once.bounds]),
            [*once.class_names, "Stroma", *tiles_of(predictions_of(grid)).class_names()[1:]],
            {name: np.concatenate([values, values]) for name, values in once.measurements.items()},
            ["run1"] * 40,
        )
        found = sort_earlier(twice, grid, set())
        assert found.kept.tolist() == [0, 20]
        assert found.counted == 1
        assert found.left.tolist() == list(range(1, 20))
        assert found.replaced.tolist() == list(range(21, 40))
        below = replace(once, class_names=tiles_of(predictions_of(grid)).class_names())
        both = sort_earlier(_joined(below, once, [0]), grid, set())
        assert both.replaced.tolist() == [0]  # ours, below the corrected one

    def test_overlapping_regions_are_told_apart_by_owner(self) -> None:
        """The inner region's tiles lie in the outer one too, and are not its."""
        side = TileSpec().side(0.25)
        outer = Region("outer", None, "Tumor", box(0, 0, 5 * side, 4 * side))
        inner = Region("inner", None, "Tumor", box(side, side, 3 * side, 3 * side))
        grid = make_grid([outer, inner], TileSpec(), 0.25, (int(5 * side) + 1, int(4 * side) + 1))
        stored = as_stored(tiles_of(predictions_of(grid)))
        assert len(sort_earlier(stored, grid, {"outer"}).left) == 4
        assert len(sort_earlier(stored, grid, {"inner"}).replaced) == 4

    def test_a_centre_on_the_edge_is_inside(self) -> None:
        bounds = np.array([[0.0, 0.0, 2.0, 2.0], [0.5, 0.0, 2.5, 2.0]])
        assert centres_inside(bounds, box(0, 0, 1, 4)).tolist() == [True, False]


def _joined(first: StoredTiles, second: StoredTiles, rows: list[int]) -> StoredTiles:
    """Tiles and some more."""
    return StoredTiles(
        [*first.ids, *(f"{second.ids[row]}-2" for row in rows)],
        np.concatenate([first.bounds, second.bounds[rows]]),
        [*first.class_names, *(second.class_names[row] for row in rows)],
        {
            name: np.concatenate([values, second.measurements[name][rows]])
            for name, values in first.measurements.items()
        },
        ["run1"] * (len(first) + len(rows)),
    )

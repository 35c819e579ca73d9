"""What a run makes of the tiles of earlier runs: those of persons are kept, the others replaced or left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from her2bridge.qupath.classes import class_of, path_classes
from her2bridge.qupath.results import PROBABILITY_NAMES
from her2bridge.qupath.seam import NewTiles, PathClassRef, StoredTiles
from her2bridge.records import LEFT_OUT, BoolArray, Float32Array, FloatArray, IntArray, TileGrid


@dataclass(frozen=True, eq=False)
class EarlierTiles:
    """The m stored tiles of an image, sorted. Rows are theirs; cells are indices of tiles of the grid, −1 where the
    grid has none there.

    Attributes:
        kept: rows of those whose class a person changed, int64 [a]; they always stay.
        cells: the cell of each of them, int64 [a].
        classes: what the person says of each, int64 [a]; ``LEFT_OUT`` for a class that is none of the six.
        replaced: rows of those that the run removes, int64.
        left: rows of our own ones that stay, because their place is not classified anew, int64 [b].
        left_cells: the cell of each of them, int64 [b].
    """

    kept: IntArray
    cells: IntArray
    classes: IntArray
    replaced: IntArray
    left: IntArray
    left_cells: IntArray

    @property
    def counted(self) -> int:
        """How many of the grid's tiles count as a person classed them."""
        return len(np.unique(self.cells[self.cells >= 0]))

    @property
    def staying(self) -> IntArray:
        """Rows of all that stay, int64 [a + b]: the corrected ones first."""
        return np.concatenate([self.kept, self.left])

    def applied_to(self, classes: IntArray) -> IntArray:
        """The grid's classes, int64 [n], with the person's word in place of the network's."""
        corrected = classes.copy()
        inside = self.cells >= 0
        corrected[self.cells[inside]] = self.classes[inside]
        return corrected

    def open_cells(self, count: int) -> IntArray:
        """Those of the grid's ``count`` tiles that no staying tile stands for."""
        is_open = np.ones(count, dtype=bool)
        for cells in (self.cells, self.left_cells):
            is_open[cells[cells >= 0]] = False
        return np.flatnonzero(is_open).astype(np.int64)


def sort_earlier(stored: StoredTiles, grid: TileGrid, renewed: Collection[str] | None = None) -> EarlierTiles:
    """Tell the tiles that a person reclassified from those that are as we wrote them, and where they lie.

    Args:
        stored: the image's marked tiles.
        grid: its tiles now.
        renewed: ids of the regions that are classified anew; None for all that there is.
    """
    differs = corrected_rows(stored)
    kept, own = (np.flatnonzero(rows).astype(np.int64) for rows in (differs, ~differs))
    goes = np.ones(len(own), dtype=bool)
    if renewed is not None:
        goes = _in_regions(stored.bounds[own], grid, renewed)
    cells, own_cells = (cells_of(stored.bounds[rows], grid) for rows in (kept, own))
    goes |= _surplus(own_cells, goes, cells)
    left = own[~goes]
    return EarlierTiles(
        kept=kept,
        cells=cells,
        classes=np.array([class_of(stored.class_names[row]) for row in kept.tolist()], dtype=np.int64),
        replaced=own[goes],
        left=left,
        left_cells=own_cells[~goes],
    )


def _surplus(own_cells: IntArray, goes: BoolArray, taken: IntArray) -> BoolArray:
    """Which of our own tiles that would stay lie on a cell that a corrected tile has, or one of ours before them."""
    staying = np.flatnonzero(~goes & (own_cells >= 0))
    _, first = np.unique(own_cells[staying], return_index=True)
    surplus = np.zeros(len(own_cells), dtype=bool)
    surplus[np.delete(staying, first)] = True
    return surplus | (~goes & (own_cells >= 0) & np.isin(own_cells, taken))


def stored_probabilities(stored: StoredTiles, grid: TileGrid) -> Float32Array:
    """What earlier runs saw of each of the grid's n tiles, float32 [n, 6]; NaN where there is nothing."""
    known = np.full((len(grid), len(PROBABILITY_NAMES)), np.nan, dtype=np.float32)
    cells = cells_of(stored.bounds, grid)
    known[cells[cells >= 0]] = written_probabilities(stored)[cells >= 0]
    return known


def centres_inside(bounds: FloatArray, geometry: shapely.Geometry) -> BoolArray:
    """Which of m rectangles, float64 [m, 4], have their centre in a geometry or on its edge, bool [m]."""
    x, y = (bounds[:, :2] + bounds[:, 2:]).T / 2
    return np.asarray(shapely.intersects_xy(geometry, x, y), dtype=bool).reshape(len(bounds))


def _in_regions(bounds: FloatArray, grid: TileGrid, ids: Collection[str]) -> BoolArray:
    """Which rectangles belong to regions of these ids: by the grid's owner, and beside the grid by their centre."""
    wanted = np.array([region.id in ids for region in grid.regions], dtype=bool)
    inside = np.zeros(len(bounds), dtype=bool)
    for region, is_wanted in zip(grid.regions, wanted, strict=True):
        if is_wanted:
            inside |= centres_inside(bounds, region.geometry)
    cells = cells_of(bounds, grid)
    inside[cells >= 0] = wanted[grid.owner[cells[cells >= 0]]]
    return inside


def written_probabilities(stored: StoredTiles) -> Float32Array:
    """The class probabilities that stored tiles were written with, float32 [m, 6]; NaN where a tile has none."""
    missing = np.full(len(stored), np.nan, dtype=np.float32)
    return np.stack([stored.measurements.get(name, missing) for name in PROBABILITY_NAMES], axis=1)


def corrected_rows(stored: StoredTiles) -> BoolArray:
    """Which of the m stored tiles a person reclassified, bool [m].

    A tile's own probabilities say which class we wrote. A tile without them cannot be told, and counts as ours.
    """
    count = len(stored)
    said = np.fromiter((class_of(name) for name in stored.class_names), dtype=np.int64, count=count)
    written = written_probabilities(stored)
    known = np.asarray(np.isfinite(written).all(axis=1))
    return np.asarray(known & (said != np.where(known[:, None], written, 0).argmax(axis=1)))


def cells_of(bounds: FloatArray, grid: TileGrid) -> IntArray:
    """Index of the grid's tile that each rectangle is, int64 [m]; −1 where it is none (1 % of a side is allowed)."""
    cells = np.full(len(bounds), -1, dtype=np.int64)
    if not len(bounds) or not len(grid):
        return cells
    columns, rows = np.rint(bounds[:, 0] / grid.side), np.rint(bounds[:, 1] / grid.side)
    ideal = np.stack([columns, rows, columns + 1, rows + 1], axis=1) * grid.side
    fits = (np.abs(bounds - ideal) <= 0.01 * grid.side).all(axis=1)
    width = int(max(grid.columns.max(), columns.max())) + 1
    keys = grid.rows * width + grid.columns
    wanted = (rows * width + columns).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    places = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    found = fits & (columns >= 0) & (rows >= 0) & (keys[order][places] == wanted)
    cells[found] = order[places[found]]
    return cells


def staying_tiles(
    stored: StoredTiles,
    earlier: EarlierTiles,
    grid: TileGrid,
    classes: Sequence[PathClassRef],
    *,
    below_regions: bool,
) -> list[NewTiles]:
    """The tiles that stay, as they could be stored anew: in groups of one side and one mark.

    Args:
        stored: all marked tiles.
        earlier: which of them stay.
        grid: the image's tiles now.
        classes: the PathClasses of the run, for their colours.
        below_regions: see ``new_tiles``.
    """
    groups: dict[tuple[float, str], list[int]] = {}
    for place, row in enumerate(earlier.staying):
        side = round(float(stored.bounds[row, 2] - stored.bounds[row, 0]), 6)
        groups.setdefault((side, stored.run_ids[row]), []).append(place)
    return [
        _staying_group(stored, earlier, grid, classes, np.array(places), side, mark, below_regions=below_regions)
        for (side, mark), places in groups.items()
    ]


def _staying_group(
    stored: StoredTiles,
    earlier: EarlierTiles,
    grid: TileGrid,
    classes: Sequence[PathClassRef],
    places: IntArray,
    side: float,
    mark: str,
    *,
    below_regions: bool,
) -> NewTiles:
    rows, cells = earlier.staying[places], np.concatenate([earlier.cells, earlier.left_cells])[places]
    names = [stored.class_names[row] for row in rows]
    distinct = sorted({name for name in names if name is not None})
    known = {str(one): one for one in (*path_classes(), *classes)}
    refs = [known.get(name, PathClassRef(tuple(name.split(": ")))) for name in distinct]
    at_root = len(grid.regions)
    owners = np.where(cells >= 0, grid.owner[np.maximum(cells, 0)] if len(grid) else at_root, at_root)
    return NewTiles(
        origins=stored.bounds[rows, :2],
        side=side,
        parents=owners if below_regions else np.full(len(rows), at_root),
        parent_ids=[*(region.id for region in grid.regions), None],
        classes=np.array([LEFT_OUT if name is None else distinct.index(name) for name in names], dtype=np.int64),
        path_classes=refs,
        measurement_names=PROBABILITY_NAMES,
        measurements=written_probabilities(stored)[rows],
        mark=mark,
        ids=[stored.ids[row] for row in rows],
    )

"""The guideline's rule on tiles: Table 1 of Han et al. 2022 (ToGA; ASCO/CAP/ASCP 2016) read with tiles for cells.

A share of tiles is not a share of cells; the documentation and the report say so wherever the score is shown.
"""

from __future__ import annotations

import numpy as np

from her2bridge.records import Float32Array, IntArray, TileClass, TileCounts, TileGrid
from her2bridge.scoring.settings import ScoreSettings

STAINED = (TileClass.THREE, TileClass.TWO, TileClass.ONE)


def at_least(counts: TileCounts, grade: TileClass) -> int:
    """How many tumour tiles are of this grade or stronger."""
    return sum(counts.by_class[grade:4])


def reaches_a_tenth(part: int, whole: int) -> bool:
    """Whether ``part`` is at least 10 % of ``whole``, on whole counts: rounding must not decide a score."""
    return whole > 0 and 10 * part >= whole


def resection_score(counts: TileCounts) -> TileClass:
    """The strongest grade which, together with the stronger ones, reaches 10 % of the tumour tiles; else 0."""
    for grade in STAINED:
        if reaches_a_tenth(at_least(counts, grade), counts.tumour):
            return grade
    return TileClass.ZERO


def biopsy_score(grid: TileGrid, classes: IntArray, probabilities: Float32Array, settings: ScoreSettings) -> TileClass:
    """The strongest grade that has a focus, whatever its share; else 0.

    A focus of a grade is a cluster of touching tiles (eight neighbours) of that grade or stronger: two or more tiles,
    or a single one that the network is sure of, covering at least ``biopsy_focus_um2``. A tile whose class is not the
    network's was named by a person, who is sure.

    Args:
        grid: the tiles.
        classes: int64 [n], a person's corrections included.
        probabilities: float32 [n, 6].
        settings: certainty and area of a focus.
    """
    tile_um2 = grid.spec.field_um**2
    by_person = classes != probabilities.argmax(axis=1)
    for grade in STAINED:
        stained = np.flatnonzero((classes >= grade) & (classes < TileClass.NORMAL))
        certain = by_person[stained] | (probabilities[stained, grade:4].sum(axis=1) >= settings.biopsy_certainty)
        for cluster in _clusters(grid.columns[stained], grid.rows[stained]):
            sure = len(cluster) >= 2 or bool(certain[cluster].any())
            if sure and len(cluster) * tile_um2 >= settings.biopsy_focus_um2:
                return grade
    return TileClass.ZERO


def _clusters(columns: IntArray, rows: IntArray) -> list[list[int]]:
    """Indices of touching grid cells, grouped."""
    at = {(int(i), int(j)): k for k, (i, j) in enumerate(zip(columns, rows, strict=True))}
    clusters = []
    while at:
        start, first = at.popitem()
        cluster, open_cells = [first], [start]
        while open_cells:
            i, j = open_cells.pop()
            for neighbour in [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]:
                if neighbour in at:
                    cluster.append(at.pop(neighbour))
                    open_cells.append(neighbour)
        clusters.append(cluster)
    return clusters

"""Grids and probabilities for the tests of scoring, made without a slide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from shapely.geometry import box

from her2bridge.records import Float32Array, IntArray, Region, TileGrid, TileSpec


def grid_at(cells: Sequence[tuple[int, int]], *, mpp: float = 0.25, regions: int = 1) -> TileGrid:
    """A grid of tiles at these (column, row); the first region holds all of them, any further one none."""
    ordered = sorted(cells, key=lambda cell: (cell[1], cell[0]))
    columns = np.array([i for i, _ in ordered], dtype=np.int64)
    rows = np.array([j for _, j in ordered], dtype=np.int64)
    everything = np.arange(len(ordered), dtype=np.int64)
    return TileGrid(
        spec=TileSpec(mpp=mpp),
        side=256.0,
        columns=columns,
        rows=rows,
        owner=np.zeros(len(ordered), dtype=np.int64),
        regions=tuple(Region(f"r{number}", None, "Tumor", box(0, 0, 1, 1)) for number in range(regions)),
        members=(everything, *(everything[:0] for _ in range(regions - 1))),
    )


def in_a_row(count: int, *, apart: int = 1, **how: int) -> TileGrid:
    """A grid of so many tiles side by side, or ``apart`` columns apart."""
    return grid_at([(apart * number, 0) for number in range(count)], **how)  # type: ignore[arg-type]


def classes_of(counts: Sequence[int]) -> IntArray:
    """Classes, int64, with so many tiles of each, the weakest first."""
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def sure_of(classes: IntArray, certainty: float = 1.0) -> Float32Array:
    """Probabilities, float32 [n, 6], whose most probable class is the one given; the rest goes to noise or normal."""
    probabilities = np.zeros((len(classes), 6), dtype=np.float32)
    rows = np.arange(len(classes))
    probabilities[rows, np.where(classes == 5, 4, 5)] = 1 - certainty
    probabilities[rows, classes] = certainty
    return probabilities

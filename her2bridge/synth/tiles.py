"""Tiles of a known class, cut from fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from her2bridge.records import ByteArray, IntArray, TileClass
from her2bridge.synth.fields import Field, render_field

ENOUGH = 0.25
"""A tile whose tumour (cells and lumens) covers less than this share of it is normal, else it is of a tumour class."""
MARGIN = 0.08
"""Tiles nearer to ``ENOUGH`` than this are not drawn: what could be called either way teaches nothing."""
TOP = 0.10
"""A tile's class is the highest pattern that covers at least this share of its tumour."""
_TISSUE = 0.45
"""And a tile of tissue is tissue on at least this share."""


class Batch(NamedTuple):
    """Tiles uint8 [n, size, size, 3], RGB, and their classes int64 [n]."""

    tiles: ByteArray
    classes: IntArray


def render_tile(tile_class: TileClass, rng: np.random.Generator, size_px: int = 256, mpp: float = 0.25) -> ByteArray:
    """One tile, uint8 [size, size, 3], RGB. Equal states of ``rng`` give equal tiles."""
    tile: ByteArray = render_tiles(tile_class, 1, rng, size_px, mpp, per_field=1)[0]
    return tile


def render_tiles(
    tile_class: TileClass,
    count: int,
    rng: np.random.Generator,
    size_px: int = 256,
    mpp: float = 0.25,
    *,
    per_field: int = 9,
) -> ByteArray:
    """``count`` tiles of one class, uint8 [count, size, size, 3]; at most ``per_field`` share a field's stain and make.

    Few tiles a field are more varied; many are cheaper.
    """
    side = int(np.ceil(np.sqrt(per_field)))
    extent = side * size_px + (size_px // 4 if side == 1 else 0)
    found: list[ByteArray] = []
    while len(found) < count:
        field = render_field(tile_class, rng, (extent, extent), mpp)
        found.extend(_cut(field, tile_class, size_px, rng)[:per_field])
    return np.stack(found[:count])


def render_batch(
    per_class: int | Sequence[int],
    rng: np.random.Generator,
    size_px: int = 256,
    mpp: float = 0.25,
    *,
    per_field: int = 9,
) -> Batch:
    """Tiles of all six classes, class after class; ``per_class`` is one count or six."""
    counts = [per_class] * len(TileClass) if isinstance(per_class, int) else list(per_class)
    parts = [
        render_tiles(tile_class, count, rng, size_px, mpp, per_field=per_field)
        for tile_class, count in zip(TileClass, counts, strict=True)
        if count
    ]
    classes = np.repeat(np.arange(len(TileClass), dtype=np.int64), counts)
    return Batch(np.concatenate(parts), classes)


def _cut(field: Field, tile_class: TileClass, size_px: int, rng: np.random.Generator) -> list[ByteArray]:
    """The tiles of a field that show their class clearly enough, in random order."""
    height, width = field.pixels.shape[:2]
    across, down = max(width // size_px, 1), max(height // size_px, 1)
    # The lattice is shifted where the field is larger than its tiles.
    left, top = (int(rng.integers(0, extent - n * size_px + 1)) for extent, n in ((width, across), (height, down)))
    tiles = []
    for index in rng.permutation(across * down):
        y, x = top + int(index) // across * size_px, left + int(index) % across * size_px
        if shows(field, tile_class, y, x, size_px):
            tiles.append(np.ascontiguousarray(field.pixels[y : y + size_px, x : x + size_px]))
    return tiles


def shows(field: Field, tile_class: TileClass, y: int, x: int, size_px: int) -> bool:
    """Whether a square of a field shows its class clearly: by the rule of ``ENOUGH`` and ``TOP``, and not by a hair."""
    window = (slice(y // 2, (y + size_px) // 2), slice(x // 2, (x + size_px) // 2))
    if tile_class == TileClass.NOISE:
        return bool(field.tissue[window].mean() >= 0.55)
    if field.tissue[window].mean() < _TISSUE:
        return False
    cells = field.tumour[window]
    if not tile_class.is_tumour:
        return bool(cells.mean() <= ENOUGH - MARGIN)
    own = cells & field.top[window]
    # A fifth more than the rule asks for, as with the margin.
    return bool(cells.mean() >= ENOUGH + MARGIN and own.sum() >= 1.2 * TOP * cells.sum())

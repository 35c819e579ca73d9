"""A grid's tiles as batches of pixels: neighbouring tiles are read in one block, ahead of the network, in slide order.

A ``read_region`` for each tile costs 5 to 12 times as much as one read for many (decoding a file tile twice and more,
and the reader's fixed cost). A block of ni × nj tiles is the rectangle [i0·s, i1·s) × [j0·s, j1·s) read as
ni·256 × nj·256 pixels: every tile's edges fall on multiples of 256, whatever float s is, and nothing is rounded.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from her2bridge.records import ByteArray, IntArray, TileGrid
from her2bridge.slides import Slide

BLOCK_TILES = 8
"""Tiles along a block's side: 2,048 px of the network's resolution, 12 MB."""

_Rows = tuple[IntArray, ByteArray]


@dataclass(frozen=True, eq=False)
class Block:
    """Tiles that are read at once: columns i0 to i1 and rows j0 to j1 (ends excluded) bound them.

    Attributes:
        tiles: indices of the tiles in the grid, int64 [m]; not every place in the block need hold one.
    """

    i0: int
    j0: int
    i1: int
    j1: int
    tiles: IntArray


def plan_blocks(grid: TileGrid, block_tiles: int = BLOCK_TILES) -> list[Block]:
    """Group the tiles into blocks of at most ``block_tiles`` squared, each cut down to the tiles it holds.

    Blocks run down the slide row by row, and so do the tiles in each.
    """
    coarse_i, coarse_j = grid.columns // block_tiles, grid.rows // block_tiles
    order = np.lexsort((grid.columns, grid.rows, coarse_i, coarse_j))
    is_new = (np.diff(coarse_i[order]) != 0) | (np.diff(coarse_j[order]) != 0)
    blocks = []
    for tiles in np.split(order, np.nonzero(is_new)[0] + 1):
        if len(tiles):
            i, j = grid.columns[tiles], grid.rows[tiles]
            blocks.append(Block(int(i.min()), int(j.min()), int(i.max()) + 1, int(j.max()) + 1, tiles.astype(np.int64)))
    return blocks


def read_block(slide: Slide, grid: TileGrid, block: Block) -> ByteArray:
    """The block's tiles, uint8 [m, size, size, 3], in the order of ``block.tiles``.

    Raises:
        SlideUnreadable: the file's pixels do not decode.
    """
    size, side = grid.spec.size_px, grid.side
    ni, nj = block.i1 - block.i0, block.j1 - block.j0
    pixels = slide.read(block.i0 * side, block.j0 * side, ni * side, nj * side, ni * size, nj * size)
    places = pixels.reshape(nj, size, ni, size, 3).swapaxes(1, 2)
    return np.asarray(places[grid.rows[block.tiles] - block.j0, grid.columns[block.tiles] - block.i0])


def read_tiles(
    slide: Slide, grid: TileGrid, *, batch_size: int, workers: int | None = None, block_tiles: int = BLOCK_TILES
) -> Generator[_Rows, None, None]:
    """Every tile of the grid once, as (indices int64 [b], pixels uint8 [b, size, size, 3]).

    b is ``batch_size`` in every batch but the last. ``workers`` threads (default: one a core, four at most) read ahead
    by at most two blocks more than there are workers, so that memory does not grow with the slide. Closing the
    generator, an error or Ctrl-C stops the threads after the block they are at.

    Raises:
        SlideUnreadable: the file's pixels do not decode.
    """
    if workers is None:
        workers = min(4, os.cpu_count() or 1)
    rest: list[_Rows] = []
    held = 0
    with closing(_read_ahead(slide, grid, plan_blocks(grid, block_tiles), max(1, workers))) as pieces:
        for indices, pixels in pieces:
            start = 0
            while held + len(indices) - start >= batch_size:
                stop = start + batch_size - held
                yield _join([*rest, (indices[start:stop], pixels[start:stop])])
                rest, held, start = [], 0, stop
            if start < len(indices):
                rest.append((indices[start:], pixels[start:]))
                held += len(indices) - start
        if rest:
            yield _join(rest)


def _read_ahead(slide: Slide, grid: TileGrid, blocks: list[Block], workers: int) -> Generator[_Rows, None, None]:
    """The blocks' tiles in order, read by threads, with a bounded number of blocks under way or waiting."""

    def read(block: Block) -> _Rows:
        return block.tiles, read_block(slide, grid, block)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="her2bridge-reader")
    waiting: deque[Future[_Rows]] = deque()
    try:
        for block in blocks:
            waiting.append(pool.submit(read, block))
            if len(waiting) >= workers + 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _join(rows: list[_Rows]) -> _Rows:
    if len(rows) == 1:
        return rows[0]
    return np.concatenate([indices for indices, _ in rows]), np.concatenate([pixels for _, pixels in rows])

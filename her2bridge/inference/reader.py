"""A grid's tiles as batches of pixels: neighbouring tiles are read in one block, ahead of the network, in slide order.

A ``read_region`` for each tile costs 5 to 12 times as much as one read for many (decoding a file tile twice and more,
and the reader's fixed cost). A block of ni × nj tiles is the rectangle [i0·s, i1·s) × [j0·s, j1·s) read as
ni·256 × nj·256 pixels: every tile's edges fall on multiples of 256, whatever float s is, and nothing is rounded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from her2bridge.records import ByteArray, IntArray, TileGrid
from her2bridge.slides import Slide
from her2bridge.stopwatch import available_cores

BLOCK_TILES = 8
"""Tiles along a block's side: 2,048 px of the network's resolution, 12 MB."""

_MOST_WORKERS = 32  # their blocks take some 12 MB each, and twice that where they resample


def usual_workers() -> int:
    """Reading threads that suit the machine: one a core, 32 at most."""
    return min(_MOST_WORKERS, available_cores())


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


def read_block(slide: Slide, grid: TileGrid, block: Block, rooms: Iterable[ByteArray]) -> None:
    """Put the block's tiles, in the order of ``block.tiles``, where they belong.

    Args:
        rooms: uint8 [size, size, 3] for each of them.

    Raises:
        SlideUnreadable: the file's pixels do not decode.
    """
    size, side = grid.spec.size_px, grid.side
    ni, nj = block.i1 - block.i0, block.j1 - block.j0
    pixels = slide.read(block.i0 * side, block.j0 * side, ni * side, nj * side, ni * size, nj * size)
    lefts = (grid.columns[block.tiles] - block.i0) * size
    tops = (grid.rows[block.tiles] - block.j0) * size
    for room, left, top in zip(rooms, lefts.tolist(), tops.tolist(), strict=True):
        room[:] = pixels[top : top + size, left : left + size]


def read_tiles(
    slide: Slide,
    grid: TileGrid,
    *,
    batch_size: int,
    workers: int | None = None,
    block_tiles: int = BLOCK_TILES,
    on_block: Callable[[float], None] | None = None,
) -> Generator[tuple[IntArray, ByteArray], None, None]:
    """Every tile of the grid once, as (indices int64 [b], pixels uint8 [b, size, size, 3]).

    b is ``batch_size`` in every batch but the last. ``workers`` threads (default: one a core, 32 at most) read ahead
    by at most two blocks more than there are workers, so that memory does not grow with the slide. Closing the
    generator, an error or Ctrl-C stops the threads after the block they are at. ``on_block`` is told by them how many
    seconds each block took.

    Raises:
        SlideUnreadable: the file's pixels do not decode.
    """
    if workers is None:
        workers = usual_workers()
    blocks = plan_blocks(grid, block_tiles)
    order = np.concatenate([np.empty(0, np.int64), *(block.tiles for block in blocks)])
    batches = _Batches(len(order), batch_size, grid.spec.size_px)

    def read(block: Block, rooms: Iterable[ByteArray]) -> int:
        began = time.perf_counter()
        read_block(slide, grid, block, rooms)
        if on_block is not None:
            on_block(time.perf_counter() - began)
        return len(block.tiles)

    tasks = (partial(read, block, batches.rooms(len(block.tiles))) for block in blocks)
    given = ready = 0
    with closing(_ahead(tasks, max(1, workers))) as done:
        for count in done:
            ready += count
            for pixels in batches.taken(ready):
                yield order[given : given + len(pixels)], pixels
                given += len(pixels)


class _Batches:
    """Batches of tiles in the making: blocks of any number of tiles are put straight into them, one after the other."""

    def __init__(self, tiles: int, batch_size: int, size: int) -> None:
        self._tiles, self._batch_size, self._size = tiles, batch_size, size
        self._open: deque[ByteArray] = deque()
        self._allotted = self._taken = 0

    def rooms(self, count: int) -> Iterable[ByteArray]:
        """Room for the next ``count`` tiles, each uint8 [size, size, 3]."""
        parts = []
        while count:
            start = self._allotted % self._batch_size
            if start == 0:
                length = min(self._batch_size, self._tiles - self._allotted)
                self._open.append(np.empty((length, self._size, self._size, 3), dtype=np.uint8))
            part = self._open[-1][start : start + count]
            parts.append(part)
            self._allotted += len(part)
            count -= len(part)
        return chain.from_iterable(parts)

    def taken(self, ready: int) -> Iterator[ByteArray]:
        """The batches that are whole now that the first ``ready`` tiles are there; each is given once."""
        while self._open and self._taken + len(self._open[0]) <= ready:
            self._taken += len(self._open[0])
            yield self._open.popleft()


def _ahead(tasks: Iterable[Callable[[], int]], workers: int) -> Generator[int, None, None]:
    """What the tasks return, in order, done by threads, with a bounded number of them under way or waiting."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="her2bridge-reader")
    waiting: deque[Future[int]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) >= workers + 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

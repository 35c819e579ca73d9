"""Labelled tiles as pixels: in memory, or mapped from a file where they are many."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from her2bridge.errors import WriteFailed
from her2bridge.events import Emit
from her2bridge.records import ByteArray, IntArray
from her2bridge.training.dataset import Dataset, read_pixels
from her2bridge.training.progress import ticker

IN_MEMORY = 2 << 30
"""Bytes of pixels up to which they are held in memory: some 10,000 tiles of 256 px."""


@dataclass(frozen=True, eq=False)
class Samples:
    """n tiles and what they show.

    Attributes:
        pixels: uint8 [n, size, size, 3], RGB; an array or a memory map.
        labels: ``TileClass`` values, int64 [n].
    """

    pixels: ByteArray
    labels: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: IntArray) -> Samples:
        """These rows, copied into memory."""
        return Samples(np.ascontiguousarray(self.pixels[rows]), self.labels[rows])


def samples_of(dataset: Dataset, rows: IntArray, cache: Path | None, emit: Emit) -> Samples:
    """The tiles of these rows of a dataset, read from its slides or exported files.

    Args:
        cache: a file for the pixels where they are more than ``IN_MEMORY``; None holds all in memory.

    Raises:
        SlideError: a slide is missing or does not decode.
        WriteFailed: the disk does not hold the cache.
    """
    size = dataset.spec.size_px
    shape = (len(rows), size, size, 3)
    out: ByteArray | None = None
    if cache is not None and len(rows) * size * size * 3 > IN_MEMORY:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            _reserve(cache, math.prod(shape))
            out = np.memmap(cache, np.uint8, "r+", shape=shape)
        except OSError as error:
            raise WriteFailed(
                f"There is no room for the tiles' pixels ({error.strerror}).",
                where=str(cache),
                next_step=f"Make {len(rows) * size * size * 3 / 1e9:.0f} GB free there, or name another folder.",
            ) from error
    pixels = read_pixels(dataset, rows, out, on_progress=ticker("Reading tiles", len(rows), emit))
    return Samples(pixels, dataset.tiles.labels[rows])


def _reserve(path: Path, size: int) -> None:
    """A file of that many bytes, of which the disk holds every one: a map over a file with holes dies on a full disk.

    Raises:
        OSError: there is no room.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # Windows keeps the room when a file is lengthened
            file.truncate(size)

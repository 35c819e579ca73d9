"""Tiles of one colour, as scanners fill what they did not scan: the network is asked once a colour."""

from __future__ import annotations

import numpy as np

from her2bridge.inference.runtime.base import Pending, Runtime
from her2bridge.records import BoolArray, ByteArray, Float32Array, TileClass

_STEP = 41  # every so many pixels is looked at first; no divisor of a tile's side, so that no column is looked at alone


class OncePerColour:
    """A runtime that sees no tile of a single colour twice. See ``Runtime``.

    Nothing is guessed of blank tiles: a tile whose pixels are all the same is the same input as the first tile of that
    colour, and gets its probabilities.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[bytes, Float32Array] = {}
        self.name, self.device, self.precision = runtime.name, runtime.device, runtime.precision
        self.depth = runtime.depth

    def __call__(self, tiles: ByteArray) -> Float32Array:
        """See ``Runtime``."""
        return self.start(tiles)()

    def start(self, tiles: ByteArray) -> Pending:
        """See ``Runtime``."""
        colours = {int(row): tiles[row, 0, 0].tobytes() for row in np.nonzero(one_colour(tiles))[0]}
        if not colours:
            return self._runtime.start(tiles)
        is_new = np.ones(len(tiles), dtype=bool)
        asked = set(self._known)
        for row, colour in colours.items():
            is_new[row] = colour not in asked
            asked.add(colour)
        pending = self._runtime.start(tiles[is_new]) if is_new.any() else None

        def result() -> Float32Array:
            probabilities = np.empty((len(tiles), len(TileClass)), dtype=np.float32)
            if pending is not None:
                probabilities[is_new] = pending()
            for row, colour in colours.items():
                probabilities[row] = self._known.setdefault(colour, probabilities[row].copy())
            return probabilities

        return result


def one_colour(tiles: ByteArray) -> BoolArray:
    """Which tiles, uint8 [b, size, size, 3], have pixels of one colour only, bool [b]."""
    flat = tiles.reshape(len(tiles), tiles.shape[1] * tiles.shape[2], 3)
    found: BoolArray = (flat[:, ::_STEP] == flat[:, :1]).all(axis=(1, 2))
    for row in np.nonzero(found)[0]:
        found[row] = (flat[row] == flat[row, 0]).all()
    return found

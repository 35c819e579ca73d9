"""Tiles that a fast runtime is not sure of are classified again by an exact one.

bf16 keeps 8 bits of a number. Over the network's 22 layers that changes a probability by 0.002 in the mean, and the
class of about one tile in a hundred: of one whose two best classes lay close together. These few, computed
again in fp32, cost a small part of what bf16 gains (docs/speed.md has the figures).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from her2bridge.inference.runtime.base import Pending, Runtime
from her2bridge.records import BoolArray, ByteArray, Float32Array

DOUBT = 0.06
"""Tiles whose best two classes' probabilities differ by less are looked at again. Of 144 tiles among
20,075 whose class bf16 changed, all but three lay below; 4.3 % of all tiles do (``benchmarks/precision.py``)."""


class SecondLook:
    """Two runtimes of one network as one. See ``Runtime``.

    Attributes:
        precision: both, ``bf16+fp32``.
    """

    def __init__(self, fast: Runtime, make_exact: Callable[[], Runtime], exact_precision: str = "fp32") -> None:
        """``make_exact`` is called when a tile first needs it."""
        self._fast, self._make_exact = fast, make_exact
        self._exact: Runtime | None = None
        self.name, self.device, self.depth = fast.name, fast.device, fast.depth
        self.precision = f"{fast.precision}+{exact_precision}"

    def __call__(self, tiles: ByteArray) -> Float32Array:
        """See ``Runtime``."""
        return self.start(tiles)()

    def start(self, tiles: ByteArray) -> Pending:
        """See ``Runtime``."""
        pending = self._fast.start(tiles)

        def result() -> Float32Array:
            probabilities = pending()
            again = doubtful(probabilities)
            if again.any():
                if self._exact is None:
                    self._exact = self._make_exact()
                probabilities[again] = self._exact(tiles[again])
            return probabilities

        return result


def doubtful(probabilities: Float32Array) -> BoolArray:
    """Of which rows, float32 [b, classes], the best two classes lie close together, bool [b]."""
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    is_close: BoolArray = best[:, 1] - best[:, 0] < DOUBT
    return is_close

"""Whether probabilities mean what they say: the expected calibration error (Guo et al. 2017), by the top class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from her2bridge.inference.runtime.base import softmax
from her2bridge.records import Float32Array, FloatArray, IntArray

BINS = 15
"""Of equal width, from 0 to 1; each holds its upper edge."""

_SMALLEST = np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class Reliability:
    """Sums over the tiles of each bin, float64 [..., BINS].

    Attributes:
        tiles: how many.
        confidence: sum of the probabilities of the found class.
        right: how many were classed rightly.
    """

    tiles: FloatArray
    confidence: FloatArray
    right: FloatArray

    @property
    def error(self) -> FloatArray:
        """Expected calibration error, float64 [...]: by how much confidence and accuracy differ in a tile's bin."""
        tiles = self.tiles.sum(axis=-1)
        gaps = np.abs(self.confidence - self.right).sum(axis=-1)
        return np.asarray(np.divide(gaps, tiles, out=np.zeros_like(gaps), where=tiles > 0), dtype=np.float64)

    def plain(self) -> dict[str, Any]:
        """As JSON has it; null where a bin has no tile."""
        edges = np.linspace(0, 1, BINS + 1).tolist()
        return {
            "expected_calibration_error": float(self.error),
            "bins": [
                {
                    "from": round(low, 4),
                    "to": round(high, 4),
                    "tiles": int(tiles),
                    "confidence": confidence / tiles if tiles else None,
                    "accuracy": right / tiles if tiles else None,
                }
                for low, high, tiles, confidence, right in zip(
                    edges[:-1],
                    edges[1:],
                    self.tiles.tolist(),
                    self.confidence.tolist(),
                    self.right.tolist(),
                    strict=True,
                )
            ],
        }


def reliability_of(truth: IntArray, probabilities: Float32Array) -> Reliability:
    """Fill the bins with n tiles: ``truth``, int64 [n]; ``probabilities``, float32 [n, 6]."""
    top = probabilities.max(axis=1, initial=0.0).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth if len(truth) else np.zeros(0, dtype=np.bool_)
    places = np.clip(np.ceil(top * BINS).astype(np.int64) - 1, 0, BINS - 1)

    def summed(values: FloatArray | None) -> FloatArray:
        return np.bincount(places, weights=values, minlength=BINS).astype(np.float64)

    return Reliability(summed(None), summed(top), summed(right.astype(np.float64)))


def at_temperature_one(probabilities: Float32Array, temperature: float) -> Float32Array:
    """What the network says before its temperature, from what it says after it; both float32 [n, 6]."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities, _SMALLEST)) * np.float32(temperature)
    return softmax(logits.astype(np.float32))

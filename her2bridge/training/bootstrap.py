"""How much figures would change with other patients: intervals by the bootstrap, patients drawn with their tiles.

Tiles of one patient resemble each other: drawing tiles one by one would give intervals that are far too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from her2bridge.records import Float32Array, FloatArray, IntArray
from her2bridge.training.metrics import Reading, confusion, rates_of
from her2bridge.training.reliability import Reliability, reliability_of

RESAMPLES, LEVEL, SEED = 1000, 0.95, 2022
FEW = 10
"""Below so many patients, intervals are told with a warning: they are too narrow more often than not."""

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Intervals:
    """Percentile intervals of 95 %.

    Attributes:
        of: by reading and figure (``accuracy``, ``macro_f1``, …); a figure that no resample has is not there.
        calibration_error: of the expected calibration error.
    """

    of: Mapping[Reading, Mapping[str, Interval]]
    calibration_error: Interval


_FIGURES = ("accuracy", "macro_precision", "macro_recall", "macro_specificity", "macro_f1")


def intervals(
    patients: Sequence[str],
    truth: IntArray,
    probabilities: Float32Array,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Intervals | None:
    """Intervals of n tiles' figures; None where fewer than two patients are there: nothing can be drawn.

    A resample without a tile of a reading's classes is left out of that reading's intervals, and one whose tiles all
    have one class out of the specificity's (in four and three classes, normal and noise tiles are tiles too). Macro
    figures of a resample are over the classes that occur in it.

    Args:
        patients: whose each tile is, n.
        truth: ``TileClass`` values, int64 [n].
        probabilities: float32 [n, 6].
        resamples: how often as many patients are drawn as there are.
        seed: equal seeds give equal intervals.
    """
    names, whose = np.unique(np.array(patients, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return None
    found = probabilities.argmax(axis=1)
    groups = [whose == number for number in range(len(names))]
    tables = np.stack([confusion(truth[group], found[group]) for group in groups])
    bins = [reliability_of(truth[group], probabilities[group]) for group in groups]
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    summed = np.einsum("rp,pij->rij", drawn, tables)
    of = {}
    for reading in Reading:
        merged = reading.merge(summed)
        occurs = merged.sum(axis=-1) > 0
        has_tiles = occurs[:, : len(reading.names)].any(axis=1)
        has_specificity = has_tiles & (occurs.sum(axis=1) > 1)
        rates = rates_of(merged, reading)
        of[reading] = {
            name: _interval(getattr(rates, name)[kept])
            for name in _FIGURES
            if (kept := has_specificity if name == "macro_specificity" else has_tiles).any()
        }
    calibration = Reliability(*(drawn @ np.stack([getattr(one, key) for one in bins]) for key in _SUMS))
    return Intervals(of, _interval(calibration.error))


_SUMS = ("tiles", "confidence", "right")


def _interval(values: FloatArray) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high

"""Labels that are likely wrong, by confident learning (Northcutt, Jiang and Chuang 2021), from the paper's description.

Each class has its own threshold: how sure the network is of it, on average, on the tiles that bear its label. A tile is
a suspect where another class passes its threshold and is the likeliest of all classes that do. The predictions must
come from networks that did not see the tile's patient: one that did agrees with the label, right or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from her2bridge.records import Float32Array, IntArray, TileClass


@dataclass(frozen=True, eq=False)
class Suspects:
    """Labels to look at again, those that the network contradicts most first.

    Attributes:
        rows: places in what was searched, int64 [m].
        found: the likelier class, ``TileClass`` values, int64 [m].
        probabilities: of that class, float32 [m].
        label_probabilities: of the label's class, float32 [m].
    """

    rows: IntArray
    found: IntArray
    probabilities: Float32Array
    label_probabilities: Float32Array

    def __len__(self) -> int:
        return len(self.rows)


def find_suspects(labels: IntArray, probabilities: Float32Array) -> Suspects:
    """Search n labels, ``TileClass`` values, int64 [n], with out-of-sample probabilities, float32 [n, 6].

    They are ranked by p(label) − p(found), lowest first.
    """
    thresholds = np.full(len(TileClass), np.inf)  # a class without a label is never found
    for one in TileClass:
        own = probabilities[labels == one, one]
        if len(own):
            thresholds[one] = own.mean(dtype=np.float64)
    passing = np.where(probabilities >= thresholds, probabilities, -1.0)
    found = passing.argmax(axis=1) if len(labels) else labels
    rows = np.flatnonzero((passing.max(axis=1, initial=-1.0) > 0) & (found != labels))
    said, doubted = probabilities[rows, found[rows]], probabilities[rows, labels[rows]]
    order = np.argsort(doubted - said, kind="stable")
    return Suspects(rows[order].astype(np.int64), found[rows][order].astype(np.int64), said[order], doubted[order])

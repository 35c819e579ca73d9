"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from her2bridge.model.bundle import Bundle
from her2bridge.records import Float32Array, IntArray
from her2bridge.training.bootstrap import Intervals
from her2bridge.training.dataset import Dataset
from her2bridge.training.metrics import Reading, TileFigures
from her2bridge.training.out_of_fold import OutOfFold
from her2bridge.training.reliability import Reliability
from her2bridge.training.suspect_writing import SuspectsWritten
from her2bridge.training.suspects import Suspects


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found; rows are of the dataset's table.

    Attributes:
        bundle: the model.
        dataset: what it was measured on.
        split: which part of it.
        runs_on: device, precision and runtime.
        rows: the n tiles evaluated, int64 [n].
        probabilities: what the model says, float32 [n, 6].
        figures: equations 7–11 by reading.
        before, after: reliability before the model's temperature and after it.
        intervals: None where one patient is all there is.
        warnings: what a reader of the figures must know.
        searched: out-of-sample predictions that suspect labels were looked for in.
        used_folds: whether networks of a cross-validation made them.
        suspects: labels to look at again; their rows are places in ``searched``.
        written: where they stand now; None where they were not to be written.
    """

    bundle: Bundle
    dataset: Dataset
    split: str
    runs_on: Mapping[str, str]
    rows: IntArray
    probabilities: Float32Array
    figures: Mapping[Reading, TileFigures]
    before: Reliability
    after: Reliability
    intervals: Intervals | None
    warnings: tuple[str, ...]
    searched: OutOfFold
    used_folds: bool
    suspects: Suspects
    written: SuspectsWritten | None = None

    @property
    def truth(self) -> IntArray:
        """The labels, int64 [n]."""
        return self.dataset.tiles.labels[self.rows]

    @property
    def patients(self) -> int:
        """How many the tiles evaluated are of."""
        return len({self.dataset.patients[row] for row in self.rows.tolist()})

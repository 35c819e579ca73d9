"""Table 5: the paper's two networks class by class, in four classes and in three."""

from __future__ import annotations

from collections.abc import Sequence

from her2bridge.events import Emit
from her2bridge.experiments.monte_carlo import MonteCarlo, figures_of, finite, spread
from her2bridge.experiments.networks import OURS
from her2bridge.experiments.plan import Candidate
from her2bridge.experiments.published import PER_CLASS, TABLE_5
from her2bridge.experiments.write import OURS as HERE
from her2bridge.experiments.write import THEIRS, Column, ExperimentTable, Row
from her2bridge.training.metrics import Reading

TASK = "Table 5"
CANDIDATES = OURS
READINGS = {"four": Reading.FOUR, "three": Reading.THREE}

_TITLES = ("Precision %", "Recall %", "Specificity %", "F1 %")
COLUMNS = (
    Column("network", "Network"),
    Column("classes", "Classes"),
    Column("class", "Class"),
    Column("from", "From"),
    *(Column(key, title) for key, title in zip(PER_CLASS, _TITLES, strict=True)),
    Column("tiles", "Tiles a repeat", 1),
)


def run(monte_carlo: MonteCarlo, candidates: Sequence[Candidate], emit: Emit) -> ExperimentTable:
    """Train what is not trained yet, and read it class by class."""
    parts = monte_carlo.parts(candidates, TASK)
    rows: list[Row] = []
    for one in candidates:
        for classes, reading in READINGS.items():
            found = [figures_of(part, reading=reading) for part in finite(parts[one.name])]
            theirs = TABLE_5.get((one.name, classes))
            for index, name in enumerate(reading.names):
                whose = {"network": one.name, "classes": classes, "class": name}
                held = [figure for figure in found if figure.support[index]]  # else no figure means anything
                figures = {key: spread([100 * getattr(figure, key)[index] for figure in held]) for key in PER_CLASS}
                tiles = spread([float(figure.support[index]) for figure in found])
                rows.append({**whose, "from": HERE, **figures, "tiles": tiles})
                if theirs is not None:
                    printed = {key: theirs[key][index] for key in PER_CLASS}
                    rows.append({**whose, "from": THEIRS, **printed, "tiles": None})
    notes = (
        *monte_carlo.notes(parts),
        "One class stands against all other tiles, normal and noise among them: a normal tile that is taken for 1+ "
        "counts against the precision and the specificity of 1+. The paper does not say so; its figures do: the tiles "
        "of 0 in its Table 2, with the recall, precision and specificity printed in its Table 5, leave some 4,500 "
        "negatives, where the other tumour classes have 1,233 tiles.",
        "Three classes: 0 and 1+ are negative, 2+ equivocal, 3+ positive.",
        "The paper's specificities of 100 are printed there as 1.",
    )
    title = "Table 5: tiles class by class, in four classes and in three"
    return ExperimentTable("table5", title, COLUMNS, tuple(rows), notes, monte_carlo.told())

"""Table 6: scores of whole slides, by tile network and second network, on simulated slides whose tiles are real.

How many tiles of each true class a slide has is simulated (``synth.cohort``), with as many slides of each score as in
Table 3 of the paper. What the network makes of them is not: each tile is drawn, with replacement, from the tiles that
the network did not learn from in that repeat, and has the class that the network gives it. One slide's tiles of a class
come from one or two patients, as errors on one slide resemble each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support

from her2bridge.errors import NotEnoughLabels
from her2bridge.events import Emit
from her2bridge.experiments.monte_carlo import MonteCarlo, Part, spread
from her2bridge.experiments.networks import OURS
from her2bridge.experiments.plan import Candidate
from her2bridge.experiments.published import TABLE_6
from her2bridge.experiments.streams import Stream, rng_of
from her2bridge.experiments.write import OURS as HERE
from her2bridge.experiments.write import THEIRS, Cell, Column, ExperimentTable, Row
from her2bridge.records import TUMOUR_CLASSES, BoolArray, IntArray, TileClass
from her2bridge.scoring.whspn import shares_of
from her2bridge.synth.cohort import TABLE_3, simulate_cohort
from her2bridge.training.progress import ticker
from her2bridge.training.whspn import fit_whspn, scores_by_rule

TASK = "Table 6"
CANDIDATES = OURS
SECOND = ("MLP", "SVM", "rule")
SOURCES = 2
"""Patients at most whose tiles of one class a simulated slide gets."""
NOT_ASSESSABLE = -1
"""Said of a slide on which the network finds no tumour; wrong whatever the score."""
UNMISTAKEN = "no tile mistaken"

_READINGS = {"four": np.array([0, 1, 2, 3]), "three": np.array([0, 0, 1, 2])}
_FIGURES = ("accuracy", "kappa", "precision", "recall", "f1")
_TITLES = ("accuracy %", "quadratic kappa", "precision %", "recall %", "F1 %")
_DRAWS = 50
COLUMNS = (
    Column("network", "Tile network"),
    Column("second", "Second network"),
    Column("from", "From"),
    *(
        Column(
            f"{figure}_{classes}",
            f"{classes.capitalize()} classes: {title}",
            3 if figure == "kappa" else 1,
            for_people=figure not in ("precision", "recall"),
        )
        for classes in _READINGS
        for figure, title in zip(_FIGURES, _TITLES, strict=True)
    ),
    Column("not_assessable", "Slides not assessable", 1, for_people=False),
    Column("cases", "Cases"),
)
_KEYS = tuple(column.key for column in COLUMNS[3:-1])


@dataclass(frozen=True, eq=False)
class Pool:
    """m tiles that a network did not learn from: number of their patient, label, and the class it gives; int64 [m]."""

    patients: IntArray
    truth: IntArray
    predicted: IntArray

    def only(self, wanted: BoolArray) -> Pool:
        """Those that ``wanted``, bool [m], names."""
        return Pool(self.patients[wanted], self.truth[wanted], self.predicted[wanted])


class Repeat(NamedTuple):
    """One network in one repeat.

    ``figures``: of each second network, one dictionary for each half that tested; none of those it was not fitted for.
    ``patients``, ``fewest``: patients, and tiles of the scarcest class, of each half. ``parted``: no patient in both.
    """

    figures: dict[str, list[dict[str, float]]]
    patients: tuple[int, int]
    fewest: tuple[int, int]
    parted: bool


class Slides(NamedTuple):
    """n simulated slides: scores 0–3, int64 [n]; tiles by true class and by the class given to them, int64 [n, 6]."""

    scores: IntArray
    true_tiles: IntArray
    tiles: IntArray


def run(monte_carlo: MonteCarlo, candidates: Sequence[Candidate], emit: Emit) -> ExperimentTable:
    """Train what is not trained yet, simulate, fit the second networks, and measure.

    Raises:
        NotEnoughLabels: a repeat held out fewer than two tiles of a class.
    """
    parts = monte_carlo.parts(candidates, TASK)
    tick = ticker("Simulating slides", len(candidates) * len(monte_carlo.divisions), emit)
    repeats: dict[str, list[Repeat]] = {}
    done = 0
    for one in candidates:
        repeats[one.name] = []
        for repeat, part in enumerate(parts[one.name]):
            if part.is_finite:
                pool = pool_of(monte_carlo, part)
                repeats[one.name].append(_repeat(pool, monte_carlo.settings.seed, repeat))
            tick(done := done + 1)
    rows: list[Row] = []
    for one in candidates:
        for second in SECOND:
            rows.extend(_lines(one.name, second, [found.figures[second] for found in repeats[one.name]]))
    slides = max(repeats.values(), key=len)  # the true slides are the same for all networks
    rows.append({**next(_lines(UNMISTAKEN, UNMISTAKEN, [one.figures[UNMISTAKEN] for one in slides])), "second": "rule"})
    notes = (*monte_carlo.notes(parts), *_notes(repeats))
    title = "Table 6: scores of simulated slides through the tile network"
    return ExperimentTable("table6", title, COLUMNS, tuple(rows), notes, monte_carlo.told())


def pool_of(monte_carlo: MonteCarlo, part: Part) -> Pool:
    """What one repeat held out, and what the network as it would be used made of it."""
    names = [monte_carlo.dataset.patients[row] for row in part.held_out.tolist()]
    return Pool(np.unique(names, return_inverse=True)[1].astype(np.int64), part.truth, part.deployed)


def halves(pool: Pool, rng: np.random.Generator) -> tuple[Pool, Pool, bool]:
    """Two pools, each with all six classes, and whether no patient is in both: what is fitted on one, the other tests.

    Raises:
        NotEnoughLabels: fewer than two tiles of a class.
    """
    counts = np.bincount(pool.truth, minlength=len(TileClass))
    if counts.min() < 2:
        lacking = ", ".join(one.label for one in TileClass if counts[one] < 2)
        raise NotEnoughLabels(
            f"A repeat held out fewer than two tiles of a class ({lacking}); slides cannot be simulated from them.",
            where="table6",
            next_step="Label each class on slides of more patients, or give --split paper, which flatters.",
        )
    units = np.unique(pool.patients)
    for _ in range(_DRAWS if len(units) > 1 else 0):
        first = np.isin(pool.patients, rng.choice(units, len(units) // 2, replace=False))
        if all(len(set(pool.truth[side].tolist())) == len(TileClass) for side in (first, ~first)):
            return pool.only(first), pool.only(~first), True
    first = np.zeros(len(pool.truth), dtype=np.bool_)
    for one in TileClass:
        places = rng.permutation(np.flatnonzero(pool.truth == one))
        first[places[: len(places) // 2]] = True
    return pool.only(first), pool.only(~first), False


def seen_by_network(true_tiles: IntArray, pool: Pool, rng: np.random.Generator) -> IntArray:
    """One slide's tiles by the class that the network gives them, int64 [6], of its tiles by true class, int64 [6]."""
    order = rng.permutation(np.unique(pool.patients))
    found = np.zeros(len(TileClass), dtype=np.int64)
    for one in TileClass:
        is_class = pool.truth == one
        owners = np.unique(pool.patients[is_class])
        sources = order[np.isin(order, owners)][:SOURCES]
        given = np.bincount(pool.predicted[is_class & np.isin(pool.patients, sources)], minlength=len(TileClass))
        found += rng.multinomial(int(true_tiles[one]), given / given.sum())
    return found


def simulated(part: str, pool: Pool, seed: int, repeat: int, direction: int = 0) -> Slides:
    """The slides of ``train``, ``val`` or ``test`` of the paper's Table 3; the slides do not depend on the pool.

    Args:
        direction: 0 or 1: which half tests; other slides for each.
    """
    which = (list(TABLE_3).index(part), direction)
    slides = rng_of(Stream.SLIDES, seed, repeat, *which)
    cohort = simulate_cohort(TABLE_3[part], np.eye(len(TileClass)), slides)
    rng = rng_of(Stream.TILES, seed, repeat, *which)
    tiles = [seen_by_network(slide, pool, rng) for slide in cohort.true_tiles]
    return Slides(cohort.scores, cohort.true_tiles, np.stack(tiles))


def measured(predicted: IntArray, scores: IntArray) -> dict[str, float]:
    """Accuracy, kappa, macro precision, recall and F1 in four and three classes; a slide not assessable is missed.

    Kappa is of the slides that were assessable.
    """
    figures: dict[str, float] = {"not_assessable": float((predicted == NOT_ASSESSABLE).sum())}
    is_read = predicted != NOT_ASSESSABLE
    for name, reading in _READINGS.items():
        labels = sorted(set(reading.tolist()))
        truth, guess = reading[scores], np.where(is_read, reading[predicted], NOT_ASSESSABLE)
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, guess, labels=labels, average="macro", zero_division=0.0
        )
        has_two = len(set(truth[is_read].tolist()) | set(guess[is_read].tolist())) > 1
        kappa = float("nan")
        if has_two:
            kappa = float(cohen_kappa_score(truth[is_read], guess[is_read], labels=labels, weights="quadratic"))
        values = (100 * float((truth == guess).mean()), kappa, 100 * precision, 100 * recall, 100 * f1)
        figures |= {f"{figure}_{name}": float(value) for figure, value in zip(_FIGURES, values, strict=True)}
    return figures


def _repeat(pool: Pool, seed: int, repeat: int) -> Repeat:
    """Second networks fitted on each half of the pool and measured on the other."""
    one, other, parted = halves(pool, rng_of(Stream.HALVES, seed, repeat))
    figures: dict[str, list[dict[str, float]]] = {second: [] for second in (*SECOND, UNMISTAKEN)}
    for direction, (fitting, testing) in enumerate(((one, other), (other, one))):
        for second, found in _tested(fitting, testing, seed, repeat, direction).items():
            figures[second].append(found)
    patients = (len(set(one.patients.tolist())), len(set(other.patients.tolist())))
    return Repeat(figures, patients, (_fewest(one), _fewest(other)), parted)


def _fewest(pool: Pool) -> int:
    """Tiles of the scarcest class."""
    return int(np.bincount(pool.truth, minlength=len(TileClass)).min())


def _tested(fitting: Pool, testing: Pool, seed: int, repeat: int, direction: int) -> dict[str, dict[str, float]]:
    """Figures of each second network on the test slides; MLP and SVM are missing where they cannot be fitted."""
    train, val = (simulated(part, fitting, seed, repeat, direction) for part in ("train", "val"))
    test = simulated("test", testing, seed, repeat, direction)
    has_tumour = test.tiles[:, : len(TUMOUR_CLASSES)].sum(axis=1) > 0
    seen = test.tiles[has_tumour]

    def figures(predicted: IntArray) -> dict[str, float]:
        everything = np.full(len(test.scores), NOT_ASSESSABLE, dtype=np.int64)
        everything[has_tumour] = predicted
        return measured(everything, test.scores)

    found = {
        "rule": figures(scores_by_rule(seen)),
        UNMISTAKEN: measured(scores_by_rule(test.true_tiles), test.scores),
    }
    to_fit, to_choose = (_with_tumour(slides) for slides in (train, val))
    if len(set(to_fit[1].tolist())) == len(TUMOUR_CLASSES) and len(to_choose[1]):
        whspn = fit_whspn(to_fit, to_choose, seed=seed + repeat, trained_on="simulated slides")
        found |= {"MLP": figures(whspn.mlp.predict(shares_of(seen)))} if len(seen) else {}
        found |= {"SVM": figures(whspn.svm.predict(shares_of(seen)))} if len(seen) else {}
    return found


def _with_tumour(slides: Slides) -> tuple[IntArray, IntArray]:
    """Tiles and scores of the slides on which the network finds tumour."""
    has_tumour = slides.tiles[:, : len(TUMOUR_CLASSES)].sum(axis=1) > 0
    return slides.tiles[has_tumour], slides.scores[has_tumour]


def _lines(network: str, second: str, found: Sequence[Sequence[dict[str, float]]]) -> Iterator[Row]:
    """Ours, and the paper's if it has one; ``found``: a repeat's figures, one dictionary for each half that tested."""
    ours: dict[str, Cell] = {key: spread([spread([one[key] for one in both]).mean for both in found]) for key in _KEYS}
    yield {"network": network, "second": second, "from": HERE, **ours, "cases": sum(map(len, found))}
    theirs = TABLE_6.get((network, second))
    if theirs is not None:
        printed: dict[str, Cell] = dict.fromkeys(_KEYS) | {"accuracy_four": theirs[0], "accuracy_three": theirs[1]}
        yield {"network": network, "second": second, "from": THEIRS, **printed, "cases": None}


def _notes(repeats: Mapping[str, Sequence[Repeat]]) -> list[str]:
    slides = {part: sum(counts) for part, counts in TABLE_3.items()}
    every = [one for several in repeats.values() for one in several]
    patients = [count for one in every for count in one.patients]
    fewest = [count for one in every for count in one.fewest]
    lines = [
        f"Slides are simulated: {slides['train']} to fit the second network on, {slides['val']} to choose by, "
        f"{slides['test']} to test on, as in the paper's Table 3. How many tiles of each true class a slide has "
        "is drawn; each of them is a labelled tile that the tile network did not learn from in that repeat, with the "
        f"class that it gave it, drawn with replacement. One slide's tiles of a class come from {SOURCES} patients at "
        "most.",
        "The tiles held out in a repeat are halved; the second network is fitted on slides made of one half and tested "
        "on slides made of the other, both ways, and a repeat's figure is the mean of the two. Cases: how many such "
        "tests a line is of.",
    ]
    if every:
        lines.append(
            f"A half has tiles of {_from_to(patients)} patient(s), and {min(fewest)} tiles or more of each class; in "
            f"{sum(one.parted for one in every)} of {len(every)} repeats (all networks' together) no patient is in "
            "both halves."
        )
        if min(patients) < SOURCES:
            lines.append(
                f"All slides of a half with {min(patients)} patient(s) share the errors made on the tiles of "
                f"{min(patients)} patient(s): such figures say little of other patients, however many slides are drawn."
            )
    lines += [
        "rule: the guideline's rule on the tiles that the network sees, nothing fitted. The last line is the same rule "
        "if no tile were mistaken: what is missing to 100 % there is the simulated observer's own error.",
        "A slide on which the network finds no tumour is not assessable and counts as wrong; kappa is of the others.",
    ]
    for name, several in repeats.items():
        fitted, tests = sum(len(one.figures["MLP"]) for one in several), 2 * len(several)
        if fitted < tests:
            lines.append(
                f"{name}: in {tests - fitted} of {tests} cases no second network could be fitted, as it found no "
                f"tumour on all slides of a score; MLP and SVM are of the other {fitted}."
            )
    return lines


def _from_to(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"

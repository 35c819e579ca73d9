"""Which tiles a network learns from, is chosen by, and is tested on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from her2bridge.errors import UsageError
from her2bridge.events import Emit, Warned
from her2bridge.records import BoolArray, FloatArray, IntArray, TileClass
from her2bridge.training.dataset import SPLITS, LabelledSlide, TileTable

KINDS = ("patient", "paper")

_TRAIN, _TEST = SPLITS.index("train"), SPLITS.index("test")
_TRIES = 20  # beginnings that the best is taken of; fewer with many patients
_WORK = 400  # patients placed in all
_SWEEPS = 8
_LACKS = (3.0, 0.3, 0.3)  # what it costs that a class is missing from train, val, test
_EMPTY = 100.0
_NOTHING = 1e-9  # of a class: what sums of floats may leave


@dataclass(frozen=True)
class SplitSettings:
    """How tiles are parted.

    Attributes:
        kind: ``patient`` parts patients; ``paper`` mixes the tiles of all, as Han et al. 2022 did.
        shares: of train, val and test; any unit.
        seed: equal seeds give equal splits.
        test_slides: names or keys of slides whose patients are test. The test split is these patients alone.

    Raises:
        UsageError: a setting that cannot be.
    """

    kind: str = "patient"
    shares: tuple[float, float, float] = (8.0, 1.0, 1.0)
    seed: int = 2022
    test_slides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            next_step = f"Give {' or '.join(KINDS)}."
            raise UsageError(f"--split cannot be {self.kind!r}.", where="--split", next_step=next_step)
        if not (all(0 <= share < float("inf") for share in self.shares) and sum(self.shares) > 0):
            told = ":".join(f"{share:g}" for share in self.shares)
            next_step = "Give the parts of train, val and test, for instance 8:1:1."
            raise UsageError(f"--shares cannot be {told}.", where="--shares", next_step=next_step)


def assign(tiles: TileTable, slides: Sequence[LabelledSlide], settings: SplitSettings, emit: Emit) -> TileTable:
    """The same tiles, each in a split; what a person should know of it is told as ``Warned``.

    No patient is in two splits, except with ``paper``. Patients are placed so that each split has its share of every
    class, as well as it goes. Where they are too few, test is left empty first, then val.

    Raises:
        UsageError: a slide to be tested on that is none.
    """
    locked = _locked(slides, settings)
    names = sorted({slide.patient for slide in slides})
    number = {name: index for index, name in enumerate(names)}
    of_slide = np.array([number[slide.patient] for slide in slides], dtype=np.int64)
    patients = of_slide[tiles.slide]
    is_locked = np.isin(patients, [number[name] for name in locked])
    shares = np.array(settings.shares) * (np.arange(len(SPLITS)) != _TEST if locked else 1.0)
    rng = np.random.default_rng(settings.seed)
    places = np.full(len(tiles), _TEST, dtype=np.int64)
    free = np.flatnonzero(~is_locked)
    if len(free) and not shares.any():
        shares[_TRAIN] = 1.0
    if settings.kind == "paper":
        places[free] = _mixed(tiles.labels[free], shares, rng)
        emit(Warned(None, _LEAKS))
    elif len(free):
        own = np.unique(patients[free])
        counts = np.zeros((len(own), len(TileClass)))
        np.add.at(counts, (np.searchsorted(own, patients[free]), tiles.labels[free]), 1)
        shares = _possible(shares, len(own), emit)
        places[free] = _parted_for_train(counts, shares, rng, emit)[np.searchsorted(own, patients[free])]
    made = replace(tiles, splits=tuple(SPLITS[place] for place in places.tolist()))
    for told in _lacking(made):
        emit(Warned(None, told))
    return made


_LEAKS = (
    "--split paper mixes the tiles of every slide over train, val and test, as the paper did: a network is tested on "
    "patients, and on the surroundings of tiles, that it has learned from. Figures from it are too good; they compare "
    "with the paper's and with nothing else"
)


def _locked(slides: Sequence[LabelledSlide], settings: SplitSettings) -> set[str]:
    """The patients that are test."""
    for name in settings.test_slides:
        if not any(name in (slide.name, slide.key) for slide in slides):
            known = sorted({slide.name for slide in slides})
            some = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
            what = f"No slide with labelled tiles is called {name!r}."
            raise UsageError(what, where="--test-slide", next_step=f"There are: {some}.")
    return {slide.patient for slide in slides if {slide.name, slide.key} & set(settings.test_slides)}


def _possible(shares: FloatArray, patients: int, emit: Emit) -> FloatArray:
    """The shares that so many patients can fill."""
    wanted = int((shares > 0).sum())
    if patients >= wanted:
        return shares
    kept = np.flatnonzero(shares > 0)[:patients]
    told = "one patient" if patients == 1 else f"{patients} patients"
    into = " and ".join(SPLITS[one] for one in kept.tolist())
    emit(Warned(None, f"{told} cannot fill {wanted} splits: all tiles go to {into}"))
    return np.where(np.isin(np.arange(len(shares)), kept), shares, 0.0)


def _mixed(labels: IntArray, shares: FloatArray, rng: np.random.Generator) -> IntArray:
    """Splits of n tiles, int64 [n]: of every class the shares, at random."""
    places = np.empty(len(labels), dtype=np.int64)
    ends = np.cumsum(shares) / shares.sum()
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        turn = rng.random()  # so that what a class has over is not always train's
        places[rows] = np.minimum(np.searchsorted(ends, (np.arange(len(rows)) + turn) / len(rows), side="right"), _TEST)
    return places


def _parted_for_train(counts: FloatArray, shares: FloatArray, rng: np.random.Generator, emit: Emit) -> IntArray:
    """Splits of p patients, int64 [p]; test is left empty where train would lack classes for its sake."""
    places = _parted(counts, shares, rng)
    lacking = _lacks(counts, places)
    if not (lacking.any() and (shares > 0).all()):
        return places
    others = _parted(counts, np.where(np.arange(len(shares)) == _TEST, 0.0, shares), rng)
    if lacking.sum() <= _lacks(counts, others).sum():
        return places
    told = ", ".join(one.label for one in TileClass if lacking[one])
    emit(
        Warned(
            None,
            f"too few patients: with three splits train would have no tiles of {told}, so test is left empty;"
            " --test-slide fills it all the same",
        )
    )
    return others


def _lacks(counts: FloatArray, places: IntArray) -> BoolArray:
    """Which classes occur, and not in train, bool [6]."""
    return np.asarray(counts.any(axis=0) & ~counts[places == _TRAIN].any(axis=0))


def _parted(counts: FloatArray, shares: FloatArray, rng: np.random.Generator) -> IntArray:
    """Splits of p patients, int64 [p].

    From random beginnings, patients with many tiles first, each is put where it costs least, then moved or exchanged
    while that helps; the best is taken.

    Args:
        counts: tiles by patient and class, float64 [p, 6].
        shares: of the three splits; any unit.
    """
    shares = shares / shares.sum()
    weights = counts / np.maximum(counts.sum(axis=0), 1)  # of each class the part that a patient has
    tries = int(np.clip(_WORK // len(counts), 1, _TRIES))
    found = [_Placement(weights, shares).filled(rng) for _ in range(tries)]
    return min(found, key=lambda one: one.cost()).splits


class _Placement:
    """Patients in splits, and what it costs: how far each split is from its share of each class."""

    def __init__(self, weights: FloatArray, shares: FloatArray) -> None:
        self._weights = weights[:, weights.any(axis=0)]
        self._open = np.flatnonzero(shares > 0)  # the splits that are to be filled; places are indices into these
        self._targets, self._lacks = shares[self._open, None], np.array(_LACKS)[self._open]
        self._sums = np.zeros((len(self._open), self._weights.shape[1]))
        self._sizes = np.zeros(len(self._open), dtype=np.int64)
        self.places = np.full(len(weights), -1, dtype=np.int64)

    def filled(self, rng: np.random.Generator) -> _Placement:
        """All patients placed."""
        noise = rng.uniform(0.5, 1.5, len(self.places))
        order = np.argsort(-self._weights.max(axis=1) * noise, kind="stable")
        for patient in order.tolist():
            self._put_best(patient)
        for _ in range(_SWEEPS):
            before = self.cost()
            for patient in rng.permutation(len(self.places)).tolist():
                self._put_best(patient)
            for first, second in self._exchanges(rng):
                self._exchange_if_better(first, second)
            if self.cost() > before - _NOTHING:
                break
        return self

    @property
    def splits(self) -> IntArray:
        """The split of each of p patients, int64 [p]."""
        return np.asarray(self._open[self.places], dtype=np.int64)

    def cost(self) -> float:
        """0 where every split has exactly its share of every class."""
        apart = self._sums - self._targets
        lacks = float(self._lacks @ (self._sums < _NOTHING).sum(axis=1))
        return float((apart * apart).sum()) + lacks + _EMPTY * int((self._sizes == 0).sum())

    def _put_best(self, patient: int) -> None:
        costs = []
        for place in range(len(self._open)):
            self._put(patient, place)
            costs.append(self.cost())
        self._put(patient, costs.index(min(costs)))

    def _put(self, patient: int, place: int) -> None:
        old = int(self.places[patient])
        if old >= 0:
            self._sums[old] -= self._weights[patient]
            self._sizes[old] -= 1
        self._sums[place] += self._weights[patient]
        self._sizes[place] += 1
        self.places[patient] = place

    def _exchanges(self, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Pairs of patients in different splits, a few for each."""
        count = len(self.places)
        for first in range(count):
            for second in rng.choice(count, min(count, 3), replace=False).tolist():
                if self.places[first] != self.places[second]:
                    yield first, second

    def _exchange_if_better(self, first: int, second: int) -> None:
        before, (one, other) = self.cost(), (int(self.places[first]), int(self.places[second]))
        self._put(first, other)
        self._put(second, one)
        if self.cost() > before - _NOTHING:
            self._put(first, one)
            self._put(second, other)


def _lacking(tiles: TileTable) -> Iterator[str]:
    """Splits without tiles, and classes that a split lacks."""
    every = tiles.counts()
    nowhere = [one.label for one in TileClass if not every[one]]
    if nowhere:
        yield f"no tile is labelled {', '.join(nowhere)}: a network cannot learn it"
    for split in SPLITS:
        counts = np.bincount(tiles.labels[tiles.rows_of(split)], minlength=len(TileClass))
        lacks = [one.label for one in TileClass if every[one] and not counts[one]]
        if not counts.any():
            yield f"{split} has no tiles"
        elif lacks:
            yield f"{split} has no tiles of {', '.join(lacks)}"

"""From cases to a WHSPN in a bundle: parted by patient, measured on slides that it did not see, and saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.events import BundleWritten, Emit
from her2bridge.model.bundle import Bundle, save_bundle
from her2bridge.records import TUMOUR_CLASSES, BoolArray, IntArray
from her2bridge.scoring.whspn import Whspn, shares_of
from her2bridge.training.progress import ticker
from her2bridge.training.score_cases import Cases, CaseSettings, collect_cases
from her2bridge.training.unseen import HeldOut, learned_slides
from her2bridge.training.whspn import PENALTIES, WIDTHS, fit_whspn, measure, measure_whspn, scores_by_rule

MOST_FOLDS = 5
"""Parts of the cross-validation; fewer where a score has fewer patients."""

_FEWEST = 3  # patients a score: one to learn from, one to choose the decay, one to measure on


@dataclass(frozen=True)
class FitSettings:
    """How a WHSPN is fitted and measured.

    Attributes:
        validation_share: of the slides that are learned from, how many choose the MLP's weight decay, 0–1.
        test_images: names of images to measure on, with all others of their patients; none: cross-validation.
        seed: of every random choice.
        trained_on: what is said wherever a score of the WHSPN is shown; None: how many slides there were.
    """

    validation_share: float = 0.2
    test_images: tuple[str, ...] = ()
    seed: int = 2022
    trained_on: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise UsageError(
                f"--validation-share cannot be {self.validation_share:g}.",
                where="--validation-share",
                next_step="Give a share between 0 and 1, for instance 0.2.",
            )


def train_score(
    bundle: Bundle,
    projects: Sequence[Path],
    out: Path,
    which: CaseSettings,
    settings: FitSettings,
    emit: Emit,
    folds: HeldOut | None = None,
) -> tuple[Bundle, Cases]:
    """Read the scored slides of these projects, and save the bundle with a WHSPN that learned from them.

    Args:
        bundle: what scored the slides.
        projects: each a ``.qpproj`` or its folder.
        out: the new bundle's folder.
        which: the slides.
        settings: how it is fitted.
        emit: hears how far it is, what was left out, and last ``BundleWritten``.
        folds: see ``collect_cases``.

    Raises:
        NotEnoughLabels: a score has too few patients.
        UsageError: a test image that is none of the slides, or a setting that cannot be.
        ProjectError: a project cannot be opened.
        WriteFailed: the bundle cannot be written.
    """
    if out.absolute() == bundle.path.absolute():
        raise UsageError(
            "The bundle that scored the slides must stay: their scores name it.",
            where=str(out),
            next_step="Name another folder with --out.",
        )
    cases = collect_cases(projects, bundle, which, emit, folds)
    return fit_cases(cases, bundle, out, settings, emit), cases


def fit_cases(cases: Cases, bundle: Bundle, out: Path, settings: FitSettings, emit: Emit) -> Bundle:
    """Fit both variants on the cases, measure them beside the rule, and save the bundle with them.

    Raises:
        NotEnoughLabels: a score has too few patients.
        UsageError: a test image that is none of the cases.
        WriteFailed: the bundle cannot be written.
    """
    test = _test_of(cases, settings.test_images)
    _check(cases, ~test, _FEWEST if not test.any() else _FEWEST - 1)
    trained_on = settings.trained_on or f"{int((~test).sum())} scored slides of this user's"

    def fit(rows: BoolArray) -> Whspn:
        chooses = _validation_of(cases, rows, settings)
        learns = rows & ~chooses
        tiles, scores = cases.tiles, cases.scores
        pairs = ((tiles[some], scores[some]) for some in (learns, chooses))
        return fit_whspn(*pairs, seed=settings.seed, trained_on=trained_on)

    whspn = fit(~test)
    if test.any():
        figures: dict[str, Any] = {
            "measured_on": f"{int(test.sum())} test slides, none of whose patients was learned from",
            **measure_whspn(whspn, cases.tiles[test], cases.scores[test]),
        }
    else:
        figures = _cross_validated(cases, settings, fit, emit)
    section = _section(cases, bundle, settings, figures, ~test, trained_on)
    card = {**bundle.card, "name": out.absolute().name, "whspn": section}
    saved = save_bundle(out, bundle.network(), card, whspn)
    emit(BundleWritten(str(saved.path), saved.name, saved.sha256))
    return saved


def _test_of(cases: Cases, names: Sequence[str]) -> BoolArray:
    """Which of the n cases are to be measured on, bool [n]."""
    known = {case.image for case in cases.cases}
    for name in names:
        if name not in known:
            raise UsageError(
                f"No slide that can be learned from is called {name!r}.",
                where="--test-image",
                next_step="Give the name of a scored image with a case score, as its project shows it.",
            )
    patients = {case.patient for case in cases.cases if case.image in names}
    return np.array([case.patient in patients for case in cases.cases], dtype=bool)


def _check(cases: Cases, rows: BoolArray, fewest: int) -> None:
    """Raise NotEnoughLabels where a score has fewer patients than this."""
    found = _patients_by_score(cases, rows)
    if min(found) < fewest:
        labels = (score.label for score in TUMOUR_CLASSES)
        there = ", ".join(f"{count} of {label}" for label, count in zip(labels, found, strict=True))
        raise _not_enough(f"Each score needs slides of at least {fewest} patients; there are {there}.", cases)


def _patients_by_score(cases: Cases, rows: BoolArray) -> list[int]:
    """How many patients have a slide of 0, 1+, 2+ and 3+."""
    some = [case for case, row in zip(cases.cases, rows, strict=True) if row]
    return [len({case.patient for case in some if case.score == score}) for score in TUMOUR_CLASSES]


def _not_enough(what: str, cases: Cases) -> NotEnoughLabels:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in cases.left_out.items())
    return NotEnoughLabels(
        what,
        where=f"{len(cases.cases)} scored slides{f'; left out: {reasons}' if reasons else ''}",
        next_step="Score more slides with this bundle (her2bridge run), and give them case scores: image metadata under"
        " the key that --case-key names.",
    )


def _validation_of(cases: Cases, rows: BoolArray, settings: FitSettings) -> BoolArray:
    """Which of these cases choose the weight decay, bool [n]: whole patients, of each score its share, or one slide
    where the shares are less; never the last patient of a score.

    Raises:
        NotEnoughLabels: none can be spared, or a score is missing.
    """
    scores, patients = cases.scores, np.array(cases.patients, dtype=object)
    every = set(map(int, TUMOUR_CLASSES))
    names = np.random.default_rng(settings.seed).permutation(sorted(set(patients[rows].tolist())))
    counts = np.bincount(scores[rows], minlength=len(every))
    for wanted in (settings.validation_share * counts, np.ones(len(every))):
        chosen = np.zeros(len(rows), dtype=bool)
        for name in names:
            more = rows & (patients == name)
            has = np.bincount(scores[chosen], minlength=len(every))
            is_wanted = (has + 0.5 <= wanted)[scores[more]].any()
            if is_wanted and set(scores[rows & ~chosen & ~more].tolist()) == every:
                chosen |= more
        if chosen.any():
            return chosen
    raise _not_enough("No patient can be spared to choose the weight decay: each is the last one of a score.", cases)


def _cross_validated(
    cases: Cases, settings: FitSettings, fit: Callable[[BoolArray], Whspn], emit: Emit
) -> dict[str, Any]:
    """Figures of every slide as a WHSPN reads it that did not see its patient."""
    folds = _folds_of(cases, settings.seed)
    count = int(folds.max()) + 1
    tell = ticker("cross-validation of the WHSPN", count, emit)
    said = {kind: np.empty(len(folds), dtype=np.int64) for kind in ("mlp", "svm")}
    for number in range(count):
        held_out = folds == number
        whspn = fit(~held_out)
        shares = shares_of(cases.tiles[held_out])
        said["mlp"][held_out], said["svm"][held_out] = whspn.mlp.predict(shares), whspn.svm.predict(shares)
        tell(number + 1)
    said["rule"] = scores_by_rule(cases.tiles)
    how = f"{len(folds)} slides by {count}-fold cross-validation: each as read by one that had not seen its patient"
    return {"measured_on": how, **{kind: measure(some, cases.scores) for kind, some in said.items()}}


def _folds_of(cases: Cases, seed: int) -> IntArray:
    """The fold that holds each case out, int64 [n]: patients dealt in turn, in the order of their strongest score."""
    count = min(MOST_FOLDS, *_patients_by_score(cases, np.ones(len(cases.cases), dtype=bool)))
    strongest: dict[str, int] = {}
    for case in cases.cases:
        strongest[case.patient] = max(strongest.get(case.patient, 0), case.score)
    names = np.random.default_rng(seed).permutation(sorted(strongest)).tolist()
    dealt = {name: place % count for place, name in enumerate(sorted(names, key=lambda name: strongest[name]))}
    return np.array([dealt[case.patient] for case in cases.cases], dtype=np.int64)


def _first(bundle: Bundle) -> str:
    """What is known of the slides that the first network learned from."""
    if learned_slides(bundle.card) is None:
        return "The card of the network that classed their tiles names no slides: whether it learned from them is open."
    return (
        "Where the network that classed the tiles had learned from any slide of the patient in these projects, one of"
        " its cross-validation that had not classed them, or the slide was left out; patients are as the projects name"
        " them."
    )


def _section(
    cases: Cases, bundle: Bundle, settings: FitSettings, figures: Mapping[str, Any], rows: BoolArray, trained_on: str
) -> dict[str, Any]:
    """What the card says of the WHSPN; no image's or patient's name."""

    def count(some: BoolArray) -> dict[str, int]:
        found = np.bincount(cases.scores[some], minlength=len(TUMOUR_CLASSES)).tolist()
        return {score.label: number for score, number in zip(TUMOUR_CLASSES, found, strict=True)}

    chooses = _validation_of(cases, rows, settings)
    return {
        "data": trained_on,
        "note": "Learned from slides whose case scores a user gave; nobody has checked these, nor whether other labs'"
        f" slides are like them. The figures are of slides whose patients the WHSPN did not learn from."
        f" {_first(bundle)} Research use only.",
        "slides_by_score": {"train": count(rows & ~chooses), "validation": count(chooses), "test": count(~rows)},
        "patients": len(set(cases.patients)),
        "out_of_fold_slides": sum(case.is_out_of_fold for case in cases.cases),
        "left_out": dict(cases.left_out),
        "tiles_by": f"{bundle.name} {bundle.sha256}",
        "seed": settings.seed,
        "mlp": f"hidden layers {WIDTHS}, ReLU between layers, none on the logits; Adam, decay chosen from {PENALTIES}",
        "svm": "polynomial kernel of degree 3, gamma 10, C 2, one against one",
        "metrics": dict(figures),
    }

"""A WHSPN from cases: patients are never parted, figures are of slides that were not seen, and the rest of the bundle
stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_cases import bundle, tiles_of

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.events import BundleWritten, Event, TaskProgress
from her2bridge.model.bundle import load_bundle
from her2bridge.records import IntArray, TileClass, TileCounts
from her2bridge.scoring.whspn import Whspn
from her2bridge.training import score_fit
from her2bridge.training.score_cases import Case, Cases, CaseSettings
from her2bridge.training.score_fit import FitSettings, fit_cases, train_score
from her2bridge.training.whspn import measure


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One decay and few epochs."""
    monkeypatch.setattr("her2bridge.training.whspn.PENALTIES", (1e-2,))
    monkeypatch.setattr("her2bridge.training.whspn._EPOCHS", 150)


def made(scores: Sequence[int], patients: Sequence[str] | None = None) -> Cases:
    """Cases of these scores; no two have the same tiles."""
    rng = np.random.default_rng(0)
    counts = [np.bincount(tiles_of(score, rng), minlength=6) for score in scores]
    for number, count in enumerate(counts):
        count[5] += number
    names = patients or [f"P{number}" for number in range(len(scores))]
    return Cases(
        tuple(
            Case(f"slide {number}", names[number], TileClass(score), TileCounts(tuple(count.tolist())))
            for number, (score, count) in enumerate(zip(scores, counts, strict=True))
        ),
        {"not scored": 2},
    )


def nothing(event: Event) -> None: ...


Fits = list[tuple[set[str], set[str]]]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    """The patients that each fit learned from and chose by; ``CASES`` says whose tiles are whose."""
    seen: Fits = []
    original = score_fit.fit_whspn

    def spy(train: tuple[IntArray, IntArray], validation: tuple[IntArray, IntArray], **options: Any) -> Whspn:
        seen.append((owners(train[0]), owners(validation[0])))
        return original(train, validation, **options)

    monkeypatch.setattr(score_fit, "fit_whspn", spy)
    return seen


CASES = made([0, 1, 2, 3] * 6, [f"P{(number + number // 12 * 4) % 12}" for number in range(24)])
"""Two slides of each of twelve patients, both of one score, and not in one order."""


def owners(tiles: IntArray) -> set[str]:
    return {case.patient for case in CASES.cases if list(case.tiles.by_class) in tiles.tolist()}


def test_the_bundle_gets_it_and_stays_what_it_was(tmp_path: Path) -> None:
    model, heard = bundle(tmp_path / "model", slides=["0123"]), list[Event]()
    saved = fit_cases(CASES, model, tmp_path / "with", FitSettings(), heard.append)
    assert saved.whspn is not None
    assert saved.whspn.trained_on == "24 scored slides of this user's"
    assert heard[-1] == BundleWritten(str(saved.path), "with", saved.sha256)
    assert [event.done for event in heard if isinstance(event, TaskProgress)][-1] == 3
    weights = model.network().state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in saved.network().state_dict().items())
    same = ("training", "temperature", "metrics", "limits", "transform", "created", "intended_use")
    assert {key: saved.card[key] for key in same} == {key: model.card[key] for key in same}
    section = saved.card["whspn"]
    assert section["data"] == "24 scored slides of this user's"
    assert section["slides_by_score"]["test"] == {"0": 0, "1+": 0, "2+": 0, "3+": 0}
    of = [section["slides_by_score"][part] for part in ("train", "validation")]
    assert [sum(part[label] for part in of) for label in ("0", "1+", "2+", "3+")] == [6, 6, 6, 6]
    assert (section["patients"], section["left_out"], section["out_of_fold_slides"]) == (12, {"not scored": 2}, 0)
    assert section["tiles_by"] == f"model {model.sha256}"
    assert "Research use only" in section["note"]
    told = json.dumps(section)
    assert not any(case.patient in told or case.image in told for case in CASES.cases)
    assert load_bundle(tmp_path / "model").sha256 == model.sha256


def test_it_reads_unseen_slides_better_than_the_rule(tmp_path: Path) -> None:
    saved = fit_cases(made([0, 1, 2, 3] * 6), bundle(tmp_path / "model"), tmp_path / "with", FitSettings(), nothing)
    metrics = saved.card["whspn"]["metrics"]
    assert metrics["measured_on"].startswith("24 slides by 5-fold cross-validation")
    for kind in ("mlp", "svm"):
        assert metrics[kind]["slides"] == 24
        assert metrics[kind]["four_classes"]["accuracy"] > 0.8
        assert np.sum(metrics[kind]["three_classes"]["rows_truth_columns_predicted"]) == 24
    assert metrics["mlp"]["four_classes"]["accuracy"] > metrics["rule"]["four_classes"]["accuracy"]


def test_patients_are_never_parted(tmp_path: Path, fits: Fits) -> None:
    saved = fit_cases(CASES, bundle(tmp_path / "model"), tmp_path / "with", FitSettings(), nothing)
    every = set(CASES.patients)
    (learned, chose), *folds = fits
    assert (learned | chose, learned & chose) == (every, set())
    assert len(folds) == 3
    held_out = [every - learned - chose for learned, chose in folds]
    assert all(not learned & chose for learned, chose in folds)
    assert sorted(name for some in held_out for name in some) == sorted(every)
    assert [len(some) for some in held_out] == [4, 4, 4]
    scores = {case.patient: case.score for case in CASES.cases}
    assert all({scores[name] for name in some} == set(range(4)) for some in held_out)
    assert saved.card["whspn"]["metrics"]["measured_on"].startswith("24 slides by 3-fold cross-validation")


def test_figures_are_of_the_slides_that_each_fit_did_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the WHSPN gone wrong in one way, the figures are that way's."""
    cases = made([0, 1, 2, 3] * 3)
    calls: list[int] = []

    def always(self: Any, shares: Any) -> IntArray:
        calls.append(len(shares))
        return np.full(len(shares), 2)

    monkeypatch.setattr("her2bridge.scoring.whspn.Svm.predict", always)
    saved = fit_cases(cases, bundle(tmp_path / "model"), tmp_path / "with", FitSettings(), nothing)
    assert saved.card["whspn"]["metrics"]["svm"] == measure(np.full(12, 2), cases.scores)
    assert calls == [4, 4, 4]


def test_test_images_lock_their_patients(tmp_path: Path, fits: Fits) -> None:
    settings = FitSettings(test_images=("slide 0", "slide 13"))
    saved = fit_cases(CASES, bundle(tmp_path / "model"), tmp_path / "with", settings, nothing)
    ((learned, chose),) = fits
    assert learned | chose == set(CASES.patients) - {"P0", "P5"}
    section = saved.card["whspn"]
    assert section["slides_by_score"]["test"] == {"0": 2, "1+": 2, "2+": 0, "3+": 0}
    assert section["data"] == "20 scored slides of this user's"
    assert section["metrics"]["measured_on"].startswith("4 test slides")
    assert section["metrics"]["mlp"]["slides"] == 4
    with pytest.raises(UsageError, match="slide 99"):
        fit_cases(CASES, bundle(tmp_path / "model"), tmp_path / "with", FitSettings(test_images=("slide 99",)), nothing)


def test_test_images_of_one_score(tmp_path: Path) -> None:
    """Their kappa may be none; the card stays JSON."""
    settings = FitSettings(test_images=("slide 3",), trained_on="my slides")
    saved = fit_cases(made([0, 1, 2, 3] * 3), bundle(tmp_path / "model"), tmp_path / "with", settings, nothing)
    figures = saved.card["whspn"]["metrics"]["svm"]["four_classes"]
    assert (figures["accuracy"], figures["quadratic_kappa"]) in ((1.0, None), (0.0, 0.0))
    assert saved.whspn is not None
    assert saved.whspn.trained_on == "my slides"


@pytest.mark.parametrize(
    ("cases", "test", "told"),
    [
        (made([0, 1, 2] * 4), (), "at least 3 patients; there are 4 of 0, 4 of 1+, 4 of 2+, 0 of 3+."),
        (made([0, 1, 2, 3] * 2), (), "at least 3 patients; there are 2 of 0, 2 of 1+, 2 of 2+, 2 of 3+."),
        (made([0, 1, 2, 3] * 2), ("slide 0",), "at least 2 patients; there are 1 of 0, 2 of 1+, 2 of 2+, 2 of 3+."),
        (made([0, 1, 2, 3] * 4, [f"P{n % 4}" for n in range(16)]), (), "there are 1 of 0, 1 of 1+, 1 of 2+, 1 of 3+."),
        (made([0, 1, 2, 3] * 3, ["A"] * 4 + ["B"] * 4 + ["C"] * 4), (), None),
        (Cases((), {}), (), "there are 0 of 0, 0 of 1+, 0 of 2+, 0 of 3+."),
    ],
)
def test_too_few(cases: Cases, test: tuple[str, ...], told: str | None, tmp_path: Path) -> None:
    model = bundle(tmp_path / "model")
    run: Callable[[], Any] = lambda: fit_cases(  # noqa: E731
        cases, model, tmp_path / "with", FitSettings(test_images=test), nothing
    )
    if told is None:
        run()
        return
    with pytest.raises(NotEnoughLabels) as caught:
        run()
    assert told in caught.value.what
    assert ("not scored: 2" in caught.value.where) == bool(cases.left_out)
    assert "--case-key" in caught.value.next_step
    assert not (tmp_path / "with").exists()


class TestValidation:
    def chosen(self, cases: Cases, share: float, seed: int = 0) -> list[int]:
        rows = np.ones(len(cases.cases), dtype=bool)
        some = score_fit._validation_of(cases, rows, FitSettings(share, seed=seed))
        return np.flatnonzero(some).tolist()

    def test_of_each_score_its_share(self) -> None:
        cases = made([0] * 10 + [1] * 20 + [2] * 5 + [3] * 15)
        assert np.bincount(cases.scores[self.chosen(cases, 0.2)]).tolist() == [2, 4, 1, 3]
        assert np.bincount(cases.scores[self.chosen(cases, 0.4)]).tolist() == [4, 8, 2, 6]
        assert self.chosen(cases, 0.2) != self.chosen(cases, 0.2, seed=1)

    def test_one_slide_where_the_share_is_less(self) -> None:
        cases = made([0, 1, 2, 3] * 2)
        assert np.bincount(cases.scores[self.chosen(cases, 0.2)]).tolist() == [1, 1, 1, 1]

    def test_never_the_last_of_a_score(self) -> None:
        cases = made([0, 1, 2, 3, 3])
        assert cases.scores[self.chosen(cases, 0.9)].tolist() == [3]
        with pytest.raises(NotEnoughLabels, match="spared"):
            self.chosen(made([0, 1, 2, 3]), 0.5)
        with pytest.raises(NotEnoughLabels, match="spared"):
            self.chosen(made([0, 1, 2, 0, 1, 2]), 0.5)


def test_equal_seeds_give_equal_bundles(tmp_path: Path) -> None:
    model, cases = bundle(tmp_path / "model"), made([0, 1, 2, 3] * 3)
    settings = FitSettings()
    first, second = (fit_cases(cases, model, tmp_path / name / "with", settings, nothing) for name in "ab")
    assert first.sha256 == second.sha256
    other = fit_cases(cases, model, tmp_path / "c" / "with", replace(settings, seed=1), nothing)
    assert other.card["hashes"] != first.card["hashes"]


def test_what_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    model = bundle(tmp_path / "model")
    which = CaseSettings("Case score", "Patient", "files")
    with pytest.raises(UsageError, match="must stay"):
        train_score(model, [tmp_path / "none"], model.path, which, FitSettings(), nothing)
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(UsageError, match="validation-share"):
            FitSettings(share)

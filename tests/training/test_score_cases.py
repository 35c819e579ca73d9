"""Which scored slides the WHSPN may learn from, with which tiles; all others are told with what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_cases import DATASET, PLACES, SIDE, TYPICAL, bundle, project, put, scored_project, stored
from PIL import Image

from her2bridge.errors import ProjectNotFound, UsageError
from her2bridge.events import Event, TaskProgress, Warned
from her2bridge.inference.runtime.base import Pending
from her2bridge.model.bundle import Bundle
from her2bridge.qupath import results
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import Entry, PathClassRef
from her2bridge.records import ByteArray, Float32Array, IntArray, TileClass, TileCounts
from her2bridge.training import score_cases
from her2bridge.training.dataset import fingerprint_of
from her2bridge.training.score_cases import Cases, CaseSettings, collect_cases

WHICH = CaseSettings("Case score", "Patient", "files", device="cpu")
TUMOUR: IntArray = np.repeat([0, 1, 2, 3, 4], [60, 10, 5, 3, 12])


class Folds:
    """A cross-validation in which one bundle did not see these slides."""

    def __init__(self, path: Path | None, slides: list[str], dataset: str = DATASET) -> None:
        self.path, self.slides, self.dataset = path, slides, dataset

    def bundle_for(self, fingerprint: str) -> Path | None:
        return self.path if fingerprint in self.slides else None


def collect(path: Path, model: Bundle, folds: Folds | None = None) -> tuple[Cases, list[str]]:
    """The cases, and what was told of those left out."""
    heard: list[Event] = []
    cases = collect_cases([path], model, WHICH, heard.append, folds)
    return cases, [f"{event.image}: {event.message}" for event in heard if isinstance(event, Warned)]


def entries(path: Path) -> list[Entry]:
    return list(open_project(path, "files").entries)


def slide_of(path: Path, number: int = 0) -> Path:
    return path.parent / "slides" / f"{number}.png"


def test_what_is_read(tmp_path: Path) -> None:
    model = bundle(tmp_path / "model")
    first = scored_project(tmp_path / "first", model, 1)
    second = scored_project(tmp_path / "second", model, 1, seed=1, first_patient=4)
    heard: list[Event] = []
    cases = collect_cases([first, second.parent], model, WHICH, heard.append)
    assert cases.scores.tolist() == [0, 1, 2, 3] * 2
    assert cases.patients == tuple(f"P{number}" for number in range(8))
    assert cases.left_out == {}
    assert cases.tiles.sum(axis=1).tolist() == [PLACES] * 8
    shares = cases.tiles[:, :4] / cases.tiles[:, :4].sum(axis=1, keepdims=True)
    assert np.abs(shares - np.array(TYPICAL * 2) / np.array(TYPICAL * 2).sum(axis=1, keepdims=True)).max() < 0.15
    assert not any(case.is_out_of_fold for case in cases.cases)
    progress = [event for event in heard if isinstance(event, TaskProgress)]
    assert (progress[-1].done, progress[-1].total) == (8, 8)


def test_the_networks_word_counts_not_a_persons(tmp_path: Path) -> None:
    model = bundle(tmp_path / "model")
    path = project(tmp_path / "project", [{" case SCORE": "1+", "patient": " P "}])
    put(entries(path)[0], stored(TUMOUR, shown=PathClassRef(("3+",))), model)
    cases, told = collect(path, model)
    (case,) = cases.cases
    assert (case.tiles, case.score, case.patient) == (TileCounts((60, 10, 5, 3, 12, 0)), TileClass.ONE, "P")
    assert told == []


def test_a_slide_without_a_patient_is_one_by_itself(tmp_path: Path) -> None:
    model = bundle(tmp_path / "model")
    path = project(tmp_path / "project", [{"Case score": "1+"}, {"Case score": "1+", "Patient": " "}])
    for entry in entries(path):
        put(entry, stored(TUMOUR), model)
    assert len(set(collect(path, model)[0].patients)) == 2


def test_those_left_out_are_told_with_what_to_do(tmp_path: Path) -> None:
    model, other = bundle(tmp_path / "model"), bundle(tmp_path / "other", says=1)
    path = project(
        tmp_path / "project",
        [
            {"Patient": "P"},
            {"Case score": "positive"},
            {"Case score": "2+"},
            {"Case score": "2+"},
            {"Case score": "2+", "Specimen": "biopsy"},
            {"Case score": "2+"},
            {"Case score": "2+"},
        ],
    )
    images = entries(path)
    for number in (0, 1, 4):
        put(images[number], stored(TUMOUR), model)
    put(images[3], stored(TUMOUR), other)
    put(images[5], stored(np.repeat([0, 4], [49, 60])), model)
    brought_in = replace(stored(TUMOUR), measurements=np.full((len(TUMOUR), 6), np.nan, dtype=np.float32))
    put(images[6], brought_in, model)
    cases, told = collect(path, model)
    assert cases.cases == ()
    run = f"run her2bridge run {path.parent} --model {model.path}"
    assert told == [
        "slide 1: left out: no score can be read from Case score = 'positive'; write 0, 1+, 2+ or 3+.",
        f"slide 2: left out: not scored; {run}",
        f"slide 3: left out: scored by other {other.sha256[:12]}; {run}",
        "slide 4: left out: a biopsy; the WHSPN reads resections.",
        "slide 5: left out: not assessable: 49 tumour tiles, fewer than 50.",
        "slide 6: left out: not assessable: 0 tumour tiles, fewer than 50.",
    ]
    assert cases.left_out == {
        "no case score": 1,
        "no score can be read": 1,
        "not scored": 1,
        "scored by another model": 1,
        "a biopsy": 1,
        "not assessable": 2,
    }


def test_an_image_that_is_damaged_stops_no_other(tmp_path: Path) -> None:
    model = bundle(tmp_path / "model")
    path = scored_project(tmp_path / "project", model, 1)
    (path.parent / "data" / "2" / "data.qpdata").write_bytes(b"no data")
    cases, told = collect(path, model)
    assert cases.left_out == {"its data file cannot be read": 1}
    assert len(cases.cases) == 3
    assert told[0].startswith("slide 1: left out: ")


class TestSlidesThatTheNetworkSaw:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return project(tmp_path / "project", [{"Case score": "3+"}, {"Case score": "1+"}], pictures=True)

    @pytest.fixture
    def model(self, path: Path, tmp_path: Path) -> Bundle:
        """It learned from the first slide, and takes its tiles for 0."""
        model = bundle(tmp_path / "model", slides=[fingerprint_of(slide_of(path))])
        for entry in entries(path):
            put(entry, stored(TUMOUR), model)
        return model

    def test_are_left_out_without_folds(self, path: Path, model: Bundle) -> None:
        cases, told = collect(path, model)
        assert [case.image for case in cases.cases] == ["slide 1"]
        assert told == [
            "slide 0: left out: model learned from this patient; give --folds, the folder of its cross-validation."
        ]

    def test_are_read_by_the_fold_that_did_not(self, path: Path, model: Bundle, tmp_path: Path) -> None:
        fold = bundle(tmp_path / "fold-0", says=3)
        cases, told = collect(path, model, Folds(fold.path, [fingerprint_of(slide_of(path))]))
        assert told == []
        first, second = cases.cases
        assert (first.tiles, first.is_out_of_fold) == (TileCounts((0, 0, 0, len(TUMOUR), 0, 0)), True)
        assert (second.tiles, second.is_out_of_fold) == (TileCounts((60, 10, 5, 3, 12, 0)), False)

    def test_are_left_out_where_every_fold_did(self, path: Path, model: Bundle, tmp_path: Path) -> None:
        cases, told = collect(path, model, Folds(tmp_path, []))
        assert [case.image for case in cases.cases] == ["slide 1"]
        assert told == ["slide 0: left out: no fold's network was trained without this patient."]

    def test_stand_for_all_of_their_patients(self, tmp_path: Path) -> None:
        """The slide that was learned from has no score itself; the fold that held it out held out its patient."""
        whose = [{"Patient": "P"}, {"Case score": "1+", "Patient": "P"}, {"Case score": "1+", "Patient": "Q"}]
        path = project(tmp_path / "project", whose, pictures=True)
        seen = fingerprint_of(slide_of(path))
        model, fold = bundle(tmp_path / "model", slides=[seen]), bundle(tmp_path / "fold-0", says=3)
        for entry in entries(path):
            put(entry, stored(TUMOUR), model)
        assert collect(path, model)[0].left_out == {"no case score": 1, "seen in training": 1}
        cases, _ = collect(path, model, Folds(fold.path, [seen]))
        assert [(case.image, case.is_out_of_fold) for case in cases.cases] == [("slide 1", True), ("slide 2", False)]

    def test_are_not_known_where_the_slide_is_missing(self, path: Path, model: Bundle) -> None:
        slide_of(path, 1).unlink()
        cases, told = collect(path, model)
        assert cases.left_out == {"seen in training": 1, "its slide is not found": 1}
        assert "nobody can tell whether model learned from it; say where it is with --relocate" in told[1]
        moved = slide_of(path).rename(slide_of(path).with_name("moved.png"))
        which = replace(WHICH, relocations=((str(slide_of(path)), str(moved)),))
        assert collect_cases([path], model, which, lambda event: None).left_out["seen in training"] == 1

    def test_cannot_be_read(self, path: Path, model: Bundle, tmp_path: Path) -> None:
        data = slide_of(path).read_bytes()
        slide_of(path).write_bytes(data[:3000])
        seen = fingerprint_of(slide_of(path))
        again = bundle(tmp_path / "again", slides=[seen])
        put(entries(path)[0], stored(TUMOUR), again)
        fold = bundle(tmp_path / "fold-0", says=3)
        cases, _ = collect(path, again, Folds(fold.path, [seen]))
        assert cases.left_out == {"its slide cannot be read": 1, "scored by another model": 1}

    def test_are_read_where_their_tiles_lie(
        self, path: Path, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each place of the slide has its own colour, and a network that tells classes by colour reads some of them."""

        class ByColour:
            name, device, precision, depth = "by colour", "cpu", "fp32", 3

            def __call__(self, tiles: ByteArray) -> Float32Array:
                assert tiles.shape[1:] == (SIDE, SIDE, 3)
                return np.eye(6, dtype=np.float32)[tiles[:, SIDE // 2, SIDE // 2, 0] % 5]

            def start(self, tiles: ByteArray) -> Pending:
                return lambda: self(tiles)

        choose: Callable[..., ByColour] = lambda *_: ByColour()  # noqa: E731
        monkeypatch.setattr(score_cases, "choose_runtime", choose)
        some = np.random.default_rng(0).permutation(PLACES)[:100]
        tiles = stored(np.zeros(PLACES, dtype=np.int64))
        few = replace(
            tiles,
            origins=tiles.origins[some],
            parents=tiles.parents[some],
            classes=tiles.classes[some],
            measurements=tiles.measurements[some],
            ids=[tiles.ids[one] for one in some],
        )
        fresh = project(tmp_path / "fresh", [{"Case score": "3+"}], pictures=True)
        put(entries(fresh)[0], few, model)
        fold = bundle(tmp_path / "fold-0")
        cases, _ = collect(fresh, model, Folds(fold.path, [fingerprint_of(slide_of(fresh))]))
        dots = np.asarray(Image.open(slide_of(fresh)))[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE, 0].ravel()
        wanted = np.bincount(dots[some] % 5, minlength=6).tolist()
        assert list(cases.cases[0].tiles.by_class) == wanted
        assert len(set(wanted)) > 2

    def test_folds_of_another_training(self, path: Path, model: Bundle, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="another dataset"):
            collect(path, model, Folds(tmp_path, [], "e" * 64))

    def test_folds_of_another_field(self, path: Path, model: Bundle, tmp_path: Path) -> None:
        fold = bundle(tmp_path / "fold-0", mpp=0.5)
        with pytest.raises(UsageError, match="another field"):
            collect(path, model, Folds(fold.path, [fingerprint_of(slide_of(path))]))


def test_a_model_that_names_no_slides(tmp_path: Path) -> None:
    """The shipped one: it saw none."""
    model = bundle(tmp_path / "model", training="text")
    path = project(tmp_path / "project", [{"Case score": "2+"}])
    put(entries(path)[0], stored(TUMOUR), model)
    assert len(collect(path, model)[0].cases) == 1


def test_wrong_projects(tmp_path: Path) -> None:
    model = bundle(tmp_path / "model")
    path = project(tmp_path / "project", [{}])
    with pytest.raises(UsageError, match="twice"):
        collect_cases([path, path.parent], model, WHICH, lambda event: None)
    with pytest.raises(ProjectNotFound):
        collect_cases([tmp_path / "none"], model, WHICH, lambda event: None)


def test_the_model_is_named_as_a_run_names_it(tmp_path: Path) -> None:
    from her2bridge.analysis import Network
    from her2bridge.settings import RunSettings

    model = bundle(tmp_path / "model")
    path = project(tmp_path / "project", [{"Case score": "2+"}])
    put(entries(path)[0], stored(TUMOUR), model)
    title = Network(RunSettings(model=str(model.path)), lambda event: None).title
    assert entries(path)[0].metadata[results.MODEL] == title

"""``her2bridge train-score``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_calls import call, events_of, is_three_parts, types_of

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from made_cases import DATASET, bundle, scored_project

from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.training.dataset import fingerprint_of
from her2bridge.training.folds import Fold, save_folds


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One decay and few epochs."""
    monkeypatch.setattr("her2bridge.training.whspn.PENALTIES", (1e-2,))
    monkeypatch.setattr("her2bridge.training.whspn._EPOCHS", 100)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle(tmp_path_factory.mktemp("bundles") / "model")


@pytest.fixture(scope="module")
def project(model: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve slides, three of each score; nobody writes to it."""
    return scored_project(tmp_path_factory.mktemp("scored"), model, 3)


def test_it_makes_a_bundle_and_says_how_good_it_is(model: Bundle, project: Path, tmp_path: Path) -> None:
    told = call("train-score", model.path, project, "--out", tmp_path / "mine", "--backend", "files")
    assert told.exit_code == 0, told.stderr
    saved = load_bundle(tmp_path / "mine")
    assert saved.whspn is not None
    assert saved.whspn.trained_on == "12 scored slides of this user's"
    assert f"Measured on {saved.card['whspn']['metrics']['measured_on']}" in told.stdout
    assert "WHSPN, MLP" in told.stdout
    assert "WHSPN, SVM" in told.stdout
    rule = saved.card["whspn"]["metrics"]["rule"]
    (line,) = [line for line in told.stdout.splitlines() if line.split()[:2] == ["the", "rule"] and ":" not in line]
    wanted = [rule[reading][name] for reading in ("four_classes", "three_classes") for name in rule[reading]][:5]
    assert line.split()[2:] == [f"{value:.3f}" for value in wanted if not isinstance(value, list)]
    assert "equivocal" in told.stdout
    assert "12 slides of 12 patients; 0 left out" in told.stdout
    assert saved.sha256[:12] in told.stderr
    assert "Research use only" in told.stdout


def test_as_json(model: Bundle, project: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "mine", "--test-image", "slide 0", "--test-image", "slide 11", "--seed", "3")
    more = ("--trained-on", "twelve slides", "--patient-key", "none", "--validation-share", "0.3", "--json")
    told = call("train-score", model.path, project, *options, *more)
    assert told.exit_code == 0, told.stderr
    found = events_of(told.stdout)
    assert set(types_of(found)) == {"task_progress", "bundle_written"}
    assert found[-1]["sha256"] == load_bundle(tmp_path / "mine").sha256
    section = load_bundle(tmp_path / "mine").card["whspn"]
    assert (section["data"], section["seed"], section["patients"]) == ("twelve slides", 3, 12)
    assert sum(section["slides_by_score"]["test"].values()) == 2


def test_what_was_left_out_is_told(model: Bundle, project: Path, tmp_path: Path) -> None:
    told = call("train-score", model.path, project, "--out", tmp_path / "mine", "--case-key", "Patient", "--json")
    assert told.exit_code == 1
    found = events_of(told.stdout)
    warned = [event["message"] for event in found if event["type"] == "warned"]
    assert len(warned) == 12
    assert warned[0] == "left out: no score can be read from Patient = 'P0'; write 0, 1+, 2+ or 3+."
    assert (found[-1]["type"], found[-1]["error"]) == ("failed", "NotEnoughLabels")
    assert "no score can be read: 12" in found[-1]["where"]
    assert not (tmp_path / "mine").exists()


def test_slides_that_the_model_saw(tmp_path: Path) -> None:
    """They are left out; with the folds of its training, the one that did not see them reads them anew."""
    blank = bundle(tmp_path / "blank")
    path = scored_project(tmp_path / "scored", blank, 3, pictures=True)
    seen = [fingerprint_of(tmp_path / "scored" / "slides" / f"{number}.png") for number in (9, 11)]
    model = bundle(tmp_path / "model", slides=seen)
    text = path.read_text(encoding="utf-8").replace(f"blank {blank.sha256[:12]}", f"model {model.sha256[:12]}")
    path.write_text(text, encoding="utf-8")
    told = call("train-score", model.path, path, "--out", tmp_path / "without")
    assert told.exit_code == 1
    assert "seen in training: 2" in told.stderr
    assert "give --folds" in told.stderr
    bundle(tmp_path / "folds" / "fold-0", says=3)
    save_folds(tmp_path / "folds", DATASET, [Fold("fold-0", ("P9", "P11"), tuple(seen))])
    options = ("--folds", tmp_path / "folds", "--device", "cpu")
    told = call("train-score", model.path, path, "--out", tmp_path / "with", *options)
    assert told.exit_code == 0, told.stderr
    assert load_bundle(tmp_path / "with").card["whspn"]["out_of_fold_slides"] == 2


def test_another_model(project: Path, tmp_path: Path) -> None:
    told = call("train-score", bundle(tmp_path / "other").path, project, "--out", tmp_path / "mine")
    assert told.exit_code == 1
    assert "scored by another model: 12" in told.stderr
    assert "--model" in told.stderr


@pytest.mark.parametrize(
    "wrong", [("--validation-share", "1"), ("--out", "MODEL"), ("--test-image", "none"), ("--backend", "none")]
)
def test_wrong_usage(model: Bundle, project: Path, tmp_path: Path, wrong: tuple[str, str]) -> None:
    out = () if wrong[0] == "--out" else ("--out", tmp_path / "mine")
    told = call("train-score", model.path, project, *out, *(model.path if one == "MODEL" else one for one in wrong))
    assert told.exit_code == 2
    assert is_three_parts(told.stderr)

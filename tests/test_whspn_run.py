"""Runs with a bundle that carries a WHSPN: which score is written, what is said of it, and when it no longer stands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_analyze import annotations_of, source_of
from test_run import CPU, FEW, entry_of, only, run

from her2bridge import events as ev
from her2bridge.analyze import analyze_slide
from her2bridge.demo import Demo
from her2bridge.errors import UsageError
from her2bridge.model.bundle import save_bundle
from her2bridge.model.repvgg import NetworkSpec, Stage, build
from her2bridge.records import Specimen, Status
from her2bridge.run import run_project
from her2bridge.scoring import ScoreSettings
from her2bridge.scoring.whspn import Mlp, Svm, Whspn
from her2bridge.settings import RunSettings

CARD = {
    **{"name": "tiny", "version": "1", "license": "GPL-3.0-or-later", "intended_use": "Tests.", "limits": []},
    **{"patch_size_px": 64, "spacing_um_px": 1.0, "transform": {"mean": [0.7] * 3, "std": [0.2] * 3}},
    **{"training": {}, "metrics": {}},
}


def save(folder: Path, whspn: Whspn | None) -> Path:
    """A bundle whose network calls every tile 2+."""
    network = build(NetworkSpec((Stage(16, 1), Stage(16, 1)), "none")).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.0, 0, 9, 0, 0, 0]))
    return save_bundle(folder, network, CARD, whspn).path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("plain") / "tiny", None)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its MLP says 3+ of everything, with a margin of 0.1 over 2+; its SVM says 2+ of everything."""
    layers = tuple(np.zeros(shape) for shape in ((4, 2), (2, 2), (2, 2), (2, 4)))
    mlp = Mlp(layers, (np.zeros(2), np.zeros(2), np.zeros(2), np.log([0.01, 0.01, 0.44, 0.54])))
    twos_win = np.array([1.0, -1, 1, -1, 1, 1])
    svm = Svm(np.zeros((1, 4)), np.array([1, 0, 0, 0]), np.zeros((3, 1)), twos_win)
    return save(tmp_path_factory.mktemp("second") / "tiny", Whspn(mlp, svm, "made numbers"))


def settings(bundle: Path, **changes: object) -> RunSettings:
    return replace(CPU, model=str(bundle), specimen=Specimen.RESECTION, **changes)  # type: ignore[arg-type]


def test_without_one_the_rule_speaks_alone(demo: Demo, plain: Path) -> None:
    run(demo.project, settings(plain))
    metadata = entry_of(demo).metadata
    assert metadata["HER2 AI score"] == metadata["HER2 AI rule score"] == "2+"
    assert metadata["HER2 AI WHSPN"] == ""


def test_it_decides_is_told_and_is_taken_back(demo: Demo, second: Path, plain: Path) -> None:
    scored = only(run(demo.project, settings(second)), ev.ImageScored)
    metadata = entry_of(demo).metadata
    assert (scored.score, scored.status) == ("3+", Status.DISCORDANT)
    assert scored.review[0] == "discordant: 2+ by the rule, 3+ by the WHSPN"
    assert "the WHSPN is not sure: margin 0.10" in scored.review
    assert metadata["HER2 AI score"] == "3+"
    assert metadata["HER2 AI status"] == "Discordant (review)"
    assert metadata["HER2 AI rule score"] == "2+"
    assert metadata["HER2 AI WHSPN"] == "3+ (MLP, margin 0.10; trained on made numbers)"

    assert only(run(demo.project, settings(second)), ev.RunFinished).skipped == 1
    by_svm = only(run(demo.project, settings(second, whspn="svm")), ev.ImageScored)
    assert (by_svm.score, by_svm.status) == ("2+", Status.EQUIVOCAL)
    assert entry_of(demo).metadata["HER2 AI WHSPN"] == "2+ (SVM; trained on made numbers)"

    alone = only(run(demo.project, settings(second, whspn="none")), ev.ImageScored)
    assert (alone.score, alone.status) == ("2+", Status.EQUIVOCAL)
    assert entry_of(demo).metadata["HER2 AI WHSPN"] == ""
    margins = replace(FEW, min_whspn_margin=0.0)
    assert only(run(demo.project, settings(second, whspn="none", scores=margins)), ev.RunFinished).scored == 1

    run(demo.project, settings(second))
    run(demo.project, settings(plain))
    assert entry_of(demo).metadata["HER2 AI WHSPN"] == ""  # nothing of the other model stays


def test_the_choice_does_not_matter_where_there_is_none(demo: Demo, plain: Path) -> None:
    run(demo.project, settings(plain))
    assert only(run(demo.project, settings(plain, whspn="none")), ev.RunFinished).skipped == 1


def test_an_svm_that_is_not_there_is_refused(demo: Demo, plain: Path) -> None:
    with pytest.raises(UsageError, match="has no WHSPN") as caught:
        run_project(demo.project, settings(plain, whspn="svm"))
    assert caught.value.where == "--whspn svm"
    assert not any(key.startswith("HER2 AI") for key in entry_of(demo).metadata)


def test_a_biopsy_and_an_unstated_specimen_keep_the_rules_score(demo: Demo, second: Path) -> None:
    for specimen, told in ((Specimen.BIOPSY, ""), (Specimen.NOT_STATED, "3+ (MLP")):
        asked = replace(settings(second), specimen=specimen)
        scored = only(run(demo.project, asked), ev.ImageScored)
        assert scored.score == scored.metadata["HER2 AI rule score"] == "2+"
        assert scored.metadata["HER2 AI WHSPN"].startswith(told)
        assert bool(scored.metadata["HER2 AI WHSPN"]) is bool(told)


def test_analyze_asks_it_too(demo: Demo, second: Path) -> None:
    heard: list[ev.Event] = []
    score = analyze_slide(source_of(demo), annotations_of(demo), None, settings(second), heard.append)
    assert (score.score, score.rule_score) == ("3+", "2+")
    assert re.search(r"trained on made numbers", only(heard, ev.ImageScored).metadata["HER2 AI WHSPN"])
    many = ScoreSettings(min_tumour_tiles=10**6)
    few = analyze_slide(source_of(demo), annotations_of(demo), None, settings(second, scores=many))
    assert (few.status, few.whspn) == (Status.NOT_ASSESSABLE, None)

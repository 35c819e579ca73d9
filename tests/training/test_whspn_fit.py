"""The WHSPN fitted and measured, and the example that puts it into a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from her2bridge.model.bundle import load_bundle, save_bundle
from her2bridge.model.repvgg import NetworkSpec, Stage, build
from her2bridge.records import TileCounts
from her2bridge.scoring.whspn import Whspn
from her2bridge.synth.cohort import Cohort, simulate_cohort
from her2bridge.training.whspn import WIDTHS, describe, fit_whspn, measure, measure_whspn, scores_by_rule

# A network that takes every eighth tile of 0 for 1+, and every eighth of 1+ for 2+: the rule then scores too high.
HIGH = np.eye(6) + np.diag([0.14, 0.14, 0.0, 0.0, 0.0], 1)
EXAMPLE = Path(__file__).parents[2] / "examples" / "train_whspn.py"


def made(per_score: int, seed: int) -> Cohort:
    return simulate_cohort([per_score] * 4, HIGH, np.random.default_rng(seed))


def fitted(seed: int = 0) -> Whspn:
    train, val = made(150, 1), made(25, 2)
    return fit_whspn((train.tiles, train.scores), (val.tiles, val.scores), seed=seed, trained_on="simulated cohorts")


@pytest.fixture(scope="module")
def whspn() -> Whspn:
    return fitted()


def test_undoes_the_errors_of_the_tile_network(whspn: Whspn) -> None:
    unseen = made(200, 3)
    figures = measure_whspn(whspn, unseen.tiles, unseen.scores)
    rule = figures["rule"]["four_classes"]
    for kind in ("mlp", "svm"):
        four, three = figures[kind]["four_classes"], figures[kind]["three_classes"]
        assert four["accuracy"] > rule["accuracy"] + 0.05
        assert four["accuracy"] > 0.85
        assert three["accuracy"] > 0.9
        assert four["quadratic_kappa"] > rule["quadratic_kappa"]


def test_pure_slides(whspn: Whspn) -> None:
    for kind in ("mlp", "svm"):
        said = [whspn.read(TileCounts(tuple(1000 * (k == grade) for k in range(6))), kind).score for grade in range(4)]
        assert said == ["0", "1+", "2+", "3+"]


def test_what_was_fitted(whspn: Whspn) -> None:
    assert whspn.mlp.widths == (*WIDTHS, 4)
    assert whspn.trained_on == "simulated cohorts"
    assert whspn.svm.per_class.sum() == len(whspn.svm.support)
    assert np.abs(whspn.svm.dual).max() == 2.0  # C binds
    Whspn.from_arrays(whspn.arrays(), "x")


def test_equal_seeds_give_equal_networks(whspn: Whspn) -> None:
    again, other = fitted(), fitted(seed=1)
    for name, array in whspn.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)
    assert not np.array_equal(other.mlp.weights[0], whspn.mlp.weights[0])


def test_validation_slides_choose_the_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = made(50, 1), made(25, 2)
    monkeypatch.setattr("her2bridge.training.whspn.PENALTIES", (1e4, 1e-4))  # the first leaves nothing of a network
    chosen = fit_whspn((train.tiles, train.scores), (val.tiles, val.scores), seed=0, trained_on="x")
    assert (chosen.mlp.predict(val.shares) == val.scores).mean() > 0.7


def test_every_score_must_be_there() -> None:
    few = simulate_cohort([5, 5, 5, 0], HIGH, np.random.default_rng(0))
    with pytest.raises(ValueError, match="every score"):
        fit_whspn((few.tiles, few.scores), (few.tiles, few.scores), seed=0, trained_on="x")


def test_figures_by_hand() -> None:
    truth, said = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 1, 1, 2, 2, 0])
    figures = measure(said, truth)
    four, three = figures["four_classes"], figures["three_classes"]
    assert figures["slides"] == 6
    assert four["accuracy"] == 0.5
    assert four["rows_truth_columns_predicted"] == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0]]
    assert three["accuracy"] == 0.6667
    assert three["rows_truth_columns_predicted"] == [[3, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert four["quadratic_kappa"] == pytest.approx(kappa(truth, said), abs=1e-4)
    assert three["quadratic_kappa"] == pytest.approx(kappa(np.maximum(truth, 1), np.maximum(said, 1)), abs=1e-4)


def kappa(truth: np.ndarray, said: np.ndarray) -> float:
    """1 − Σ d² over the pairs that are ÷ Σ d² over all pairs that could be."""
    return float(1 - ((truth - said) ** 2).mean() / ((truth[:, None] - said[None]) ** 2).mean())


def test_the_rule_is_scorings() -> None:
    assert scores_by_rule(np.array([[90, 0, 0, 10, 0, 0], [91, 0, 0, 9, 0, 0], [0, 50, 5, 0, 9, 9]])).tolist() == [
        3,
        0,
        1,
    ]


def test_the_table_names_all(whspn: Whspn) -> None:
    unseen = made(5, 4)
    table = describe(measure_whspn(whspn, unseen.tiles, unseen.scores)).splitlines()
    assert [line.split()[0] for line in table[2:]] == ["mlp", "svm", "rule"]


def test_the_example_puts_it_into_a_bundle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(NetworkSpec((Stage(16, 1), Stage(16, 1, 1)), "gct")).eval()
    card = {
        **{"name": "tiny", "version": "1", "license": "GPL-3.0-or-later", "intended_use": "Tests.", "limits": []},
        **{"patch_size_px": 64, "spacing_um_px": 0.5, "transform": {"mean": [0.7] * 3, "std": [0.2] * 3}},
        **{"training": {}, "metrics": {"confusion": {"rows_truth_columns_predicted": (100 * HIGH).round().tolist()}}},
    }
    before = save_bundle(tmp_path / "tiny", network, card)
    weights = before.network().state_dict()
    assert before.whspn is None
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "tiny"), "--cohorts", "3", "--test-cohorts", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "200 simulated slides" in done.stdout
    after = load_bundle(tmp_path / "tiny")
    assert after.whspn is not None
    assert after.whspn.trained_on == "simulated cohorts"
    assert after.sha256 != before.sha256
    assert all(torch.equal(tensor, weights[name]) for name, tensor in after.network().state_dict().items())
    section = json.loads((tmp_path / "tiny" / "card.json").read_text())["whspn"]
    assert (section["data"], section["seed"], section["widths"]) == ("simulated cohorts", 2022, [*WIDTHS, 4])
    assert "simulated" in section["metrics"]["measured_on"]
    assert section["metrics"]["mlp"]["four_classes"]["accuracy"] > 0.8
    other = tmp_path / "matrix.json"
    other.write_text(json.dumps(np.eye(6).tolist()))
    command += ["--confusion", str(other), "--output", str(tmp_path / "other")]
    subprocess.run(command, capture_output=True, check=True)
    assert load_bundle(tmp_path / "tiny").sha256 == after.sha256
    assert load_bundle(tmp_path / "other").card["whspn"]["confusion"]["from"] == str(other)

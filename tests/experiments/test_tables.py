"""Tables 4, 5 and 7 from end to end, with networks small enough."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from experiment_data import Heard, cells, labelled, settings, tiny

from her2bridge.errors import UsageError
from her2bridge.events import ExperimentFinished
from her2bridge.experiments.monte_carlo import NOT_STATED
from her2bridge.experiments.run import run_experiment
from her2bridge.training.dataset import Dataset
from her2bridge.version import version

TWO = (tiny("RepVGG-GCT", "gct"), tiny("mine", "none"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return labelled(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def out(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 4 and 5, of one folder."""
    folder = tmp_path_factory.mktemp("out")
    for name in ("table4", "table5"):
        run_experiment(name, dataset, settings(folder, epochs=6), Heard(), TWO)
    return folder


def read(out: Path, name: str) -> list[dict[str, str]]:
    with (out / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_4_has_our_lines_and_the_papers(out: Path) -> None:
    rows = read(out, "table4")
    assert [(row["network"], row["from"]) for row in rows] == [
        ("RepVGG-GCT", "here"),
        ("RepVGG-GCT", "Han et al. 2022"),
        ("mine", "here"),
    ]
    ours, theirs, _ = rows
    assert (theirs["accuracy"], theirs["accuracy_sd"], theirs["ms"]) == ("93.16", "0.1", "5.185")
    assert 0 <= float(ours["accuracy"]) <= 100
    assert float(ours["accuracy_sd"]) >= 0
    assert float(ours["ms"]) > 0


def test_table_4_measures_what_is_easy_to_learn(out: Path) -> None:
    assert float(read(out, "table4")[2]["accuracy"]) > 40  # of six greys; by chance it is 17


def test_table_4_states_the_size_of_the_fused_network(out: Path) -> None:
    weights = (3 * 9 + 1) * 16 + 2 * (16 * 9 + 1) * 16 + (16 + 1) * 6
    assert float(read(out, "table4")[2]["parameters_m"]) * 1e6 == pytest.approx(weights)


def test_table_4_says_how_it_was_made(out: Path) -> None:
    plain = json.loads((out / "table4.json").read_text())
    assert plain["notice"] == "Research use only."
    assert plain["made_with"]["split"] == "patient"
    assert plain["made_with"]["timed_on"]["threads"] >= 1
    assert plain["notes"][0] == NOT_STATED
    assert plain["rows"][0]["accuracy"]["sd"] is not None
    text = (out / "table4.md").read_text()
    assert "patients are held out whole" in text
    assert "nor the order of the networks can be compared" in text
    assert "fp32" in text.partition("Trained on: cpu (")[0]
    assert f"her2bridge {version()}" in text
    assert cells(text.splitlines(), "| RepVGG-GCT | Han")[2:4] == ["93.16 ± 0.10", "90.92 ± 0.19"]


def test_table_5_goes_class_by_class(out: Path) -> None:
    rows = [row for row in read(out, "table5") if row["network"] == "mine"]
    assert [row["class"] for row in rows] == ["0", "1+", "2+", "3+", "negative", "equivocal", "positive"]
    assert [float(row["tiles"]) for row in rows] == [3, 3, 3, 3, 6, 3, 3]  # one patient of five is held out
    beside = [row for row in read(out, "table5") if (row["network"], row["from"]) == ("RepVGG-GCT", "Han et al. 2022")]
    assert [row["recall"] for row in beside] == ["84.6", "71.9", "90.8", "99.5", "91.5", "94.4", "99.2"]


def test_tables_of_one_folder_share_their_repeats(out: Path) -> None:
    assert len(list((out / "parts").iterdir())) == 4


def test_table_7_has_both_forms(dataset: Dataset, tmp_path: Path) -> None:
    blocks = (tiny("plain", "none", "plain"), tiny("plain with BN", "none", "plain-bn"), tiny("ECM", "none"))
    heard = Heard()
    table = run_experiment("table7", dataset, settings(tmp_path), heard, blocks)
    ours = [row for row in table.rows if row["from"] == "here"]
    assert [(row["block"], row["fused"]) for row in ours] == [
        ("plain", "no"),
        ("plain with BN", "no"),
        ("ECM", "no"),
        ("ECM", "yes"),
    ]
    *_, before, after = ours
    assert after["changed"] == 0
    assert 0 < after["difference"] < 1e-4  # type: ignore[operator]
    assert before["accuracy"] == after["accuracy"]
    assert before["parameters_m"] > after["parameters_m"]  # type: ignore[operator]
    assert before["flops_g"] > after["flops_g"]  # type: ignore[operator]
    assert len(table.rows) == 4 + 3  # the paper has plain, ECM and ECM fused
    assert heard[-1] == ExperimentFinished("table7", str(tmp_path), 2, heard[-1].seconds)  # type: ignore[attr-defined]


def test_no_other_table(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="table8"):
        run_experiment("table8", dataset, settings(tmp_path), Heard())

"""``her2bridge experiment``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_calls import call, events_of, is_three_parts

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))  # for experiment_data.py

from experiment_data import labelled

SMALL = ("--networks", "RepVGG-GCT", "--repeats", "1", "--epochs", "1", "--batch-size", "8", "--device", "cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("dataset"), patients=3, per_class=2).folder


def test_runs_a_table_and_tells_it(dataset: Path, tmp_path: Path) -> None:
    result = call("experiment", "table5", dataset, "--out", tmp_path, *SMALL, "--about", "tiles are greys")
    assert result.exit_code == 0, result.stderr
    assert "Tiles are greys." in result.stdout
    assert "- Tiles are greys." in (tmp_path / "table5.md").read_text().splitlines()
    assert "Table 5" in result.stdout
    assert "Han et al. 2022" in result.stdout
    assert "Research use only" in result.stdout
    assert {"table5.csv", "table5.json", "table5.md", "parts"} <= {path.name for path in tmp_path.iterdir()}
    again = call("experiment", "table5", dataset, "--out", tmp_path, *SMALL, "--json")
    events = events_of(again.stdout)
    assert events[-1]["type"] == "experiment_finished"
    assert events[-1]["folder"] == str(tmp_path)
    assert not any(event["type"] == "training_started" for event in events)  # its repeat was kept


@pytest.mark.parametrize(
    "wrong",
    [
        ("table9",),
        ("table5", "--recipe", "secret"),
        ("table5", "--split", "slide"),
        ("table5", "--networks", "VGG16"),
    ],
)
def test_wrong_usage_is_told_in_three_parts(wrong: tuple[str, ...], dataset: Path, tmp_path: Path) -> None:
    name, *options = wrong
    result = call("experiment", name, dataset, "--out", tmp_path, *options)
    assert result.exit_code == 2
    assert is_three_parts(result.stderr)
    assert not list(tmp_path.iterdir())

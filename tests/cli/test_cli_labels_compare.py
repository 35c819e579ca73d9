"""``her2bridge labels compare``: what people and programs are told of two people's labels."""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path

import pytest
from cli_calls import call, is_three_parts
from made_datasets import Row, made_dataset, made_slide

from her2bridge.qupath.geojson import read_regions

PLACES = [(16.0 * x, 16.0 * y) for y, x in itertools.product(range(5), range(6))]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """30 tiles; both say 1+ of five and 3+ of two, A 2+ and B 3+ of all others but one, which only A has."""
    slides = [made_slide("slide [1]")]
    a: list[Row] = [(0, x, y, "1+" if n < 5 else "3+" if n < 7 else "2+") for n, (x, y) in enumerate(PLACES)]
    b: list[Row] = [(0, x, y, "1+" if n < 5 else "3+") for n, (x, y) in enumerate(PLACES[:-1])]
    return made_dataset(tmp_path / "a", slides, a).folder, made_dataset(tmp_path / "b", slides, b).folder


def test_people_are_told(pair: tuple[Path, Path]) -> None:
    told = call("labels", "compare", *pair)
    assert told.exit_code == 0, told.stderr
    assert "29 tiles in both; only in A: 1, only in B: 0" in told.stdout
    assert "Classed alike: 24.1%" in told.stdout
    assert re.search(r"kappa of the six classes: 0\.\d{3}\n", told.stdout)
    assert re.search(r"29 tiles; Cohen's kappa with quadratic weights of 0 to 3\+: 0\.\d{3}\n", told.stdout)
    rows = [line.split() for line in told.stdout.splitlines()]
    assert ["2+", "0", "0", "0", "22", "0", "0", "0.000", "1", "0"] in rows
    assert ["3+", "0", "0", "0", "2", "0", "0", "0.154", "0", "0"] in rows
    assert ["normal", *["0"] * 6, "not", "defined", "0", "0"] in rows
    assert "Research use only" in told.stdout


def test_only_the_first_twenty_are_shown(pair: tuple[Path, Path]) -> None:
    told = call("labels", "compare", *pair)
    assert "22 tiles classed differently" in told.stdout
    listed = [line for line in told.stdout.splitlines() if line.strip().startswith("slide [1].png")]
    assert len(listed) == 20
    assert listed[0].split() == ["slide", "[1].png", "16", "16", "2+", "3+"]
    assert "and 2 more" in told.stdout


def test_all_are_written(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out, folder = tmp_path / "list.csv", tmp_path / "for qupath"
    told = call("labels", "compare", *pair, "--out", out, "--geojson", folder)
    assert told.exit_code == 0, told.stderr
    with out.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 22
    (path,) = folder.iterdir()
    assert [one.name for one in read_regions(path)] == ["A: 2+, B: 3+"] * 22
    assert str(out) in told.stderr
    assert str(path) in told.stderr


def test_programs_are_told_one_object(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "list.csv"
    told = call("labels", "compare", *pair, "--json", "--out", out)
    assert told.exit_code == 0, told.stderr
    (line,) = told.stdout.splitlines()
    found = json.loads(line)
    assert "Research use only" in found["notice"]
    assert (found["a"], found["b"], found["written"]) == (str(pair[0]), str(pair[1]), [str(out)])
    assert {
        key: sum(value.values()) if isinstance(value, dict) else value for key, value in found["tiles"].items()
    } == {
        "both": 29,
        "only_a": 1,
        "only_b": 0,
    }
    assert found["confusion"]["rows_a_columns_b"][2][3] == 22
    assert found["agreement"] == pytest.approx(7 / 29)
    assert found["kappa"] == pytest.approx((7 / 29 - (25 + 2 * 24) / 29**2) / (1 - (25 + 2 * 24) / 29**2))
    assert len(found["disagreements"]) == 22
    assert found["disagreements"][0] == {
        "image": "slide [1].png",
        "x": 16.0,
        "y": 16.0,
        "size": 16.0,
        "label_a": "2+",
        "label_b": "3+",
    }


def test_one_and_the_same(pair: tuple[Path, Path]) -> None:
    told = call("labels", "compare", pair[0], pair[0])
    assert "six classes: 1.000" in told.stdout
    assert "classed differently" not in told.stdout


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_nothing_in_common(pair: tuple[Path, Path], tmp_path: Path, as_json: tuple[str, ...]) -> None:
    other = made_dataset(tmp_path / "c", [made_slide("other")], [(0, 0, 0, "0")]).folder
    told = call("labels", "compare", pair[0], other, "--out", tmp_path / "list.csv", *as_json)
    assert told.exit_code == 1
    assert is_three_parts(told.stderr)
    assert "no tile in common" in told.stderr
    assert not (tmp_path / "list.csv").exists()
    if as_json:
        assert json.loads(told.stdout)["error"] == "NotEnoughLabels"


def test_no_dataset(pair: tuple[Path, Path], tmp_path: Path) -> None:
    told = call("labels", "compare", pair[0], tmp_path / "nowhere")
    assert told.exit_code == 2
    assert is_three_parts(told.stderr)

"""``her2bridge evaluate``: what people and programs are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_calls import CPU, call, events_of, is_three_parts

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # for made_evaluations.py

from made_evaluations import LABELS, Tile, colour_bundle, coloured

TILES: list[Tile] = [(label, label) for label in LABELS]


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and a dataset of three patients in which one of 19 labels is wrong."""
    dataset = coloured(tmp_path, [TILES, TILES, [*TILES, ("2+", "3+")]])
    return colour_bundle(tmp_path / "model").path, dataset.folder


def test_people_are_told(made: tuple[Path, Path], tmp_path: Path) -> None:
    """The model learned from the first slide."""
    _, dataset = made
    card = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    knows = colour_bundle(tmp_path / "knows", slides=[card["slides"][0]["fingerprint"]])
    told = call("evaluate", knows.path, dataset, "--out", tmp_path / "out", *CPU)
    assert told.exit_code == 0, told.stderr
    assert "knows on 19 tiles of 3 patients, split test" in told.stdout
    rows = [line.split()[:3] for line in told.stdout.splitlines()]
    assert ["six", "19", "94.7"] in rows
    assert ["four", "13", "92.3"] in rows
    assert ["three", "13", "92.3"] in rows
    assert "1 tile classed wrongly" in told.stdout
    assert "1 suspect label among 13 tiles searched" in told.stdout
    assert "Expected calibration error" in told.stdout
    assert "Research use only" in told.stdout
    assert "Warning: LEAK: the model learned from 1 of the 3 slides evaluated" in told.stderr
    assert "Only 3 patients" in told.stderr
    assert (tmp_path / "out" / "report.md").exists()


def test_programs_are_told(made: tuple[Path, Path], tmp_path: Path) -> None:
    told = call("evaluate", *made, "--out", tmp_path / "out", *CPU, "--write-suspects", "--json")
    assert told.exit_code == 0, told.stderr
    *_, last = found = events_of(told.stdout)
    assert last["type"] == "evaluated"
    assert (last["tiles"], last["patients"], last["folder"]) == (19, 3, str(tmp_path / "out"))
    assert last["accuracy"] == pytest.approx(18 / 19)
    assert "task_progress" in {event["type"] for event in found}
    written = json.loads((tmp_path / "out" / "suspects" / "s2.geojson").read_text(encoding="utf-8"))
    assert len(written["features"]) == 1


def test_wrong_usage(made: tuple[Path, Path], tmp_path: Path) -> None:
    told = call("evaluate", *made, "--out", tmp_path / "out", "--split", "tests")
    assert told.exit_code == 2
    assert is_three_parts(told.stderr)
    told = call("evaluate", *made, "--out", tmp_path / "out", "--split", "train", *CPU)
    assert told.exit_code == 1
    assert is_three_parts(told.stderr)
    assert not (tmp_path / "out").exists()

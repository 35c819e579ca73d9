"""``her2bridge demo``; the drawing itself is tested elsewhere, so a drawn one is used again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_calls import call, is_three_parts

from her2bridge.demo import Demo


@pytest.fixture
def folder(small_demo: Demo, tmp_path: Path) -> Path:
    """A copy of the demo, as ``her2bridge demo`` left it before the run."""
    return Path(shutil.copytree(small_demo.slide.parents[1], tmp_path / "demo"))


def test_it_is_scored_compared_and_shown_where_to_look(folder: Path) -> None:
    told = call("demo", folder)
    assert told.exit_code == 0, told.stderr
    rows = [line.split() for line in told.stdout.splitlines()]
    (zero,) = [row for row in rows if row[:3] == ["0", "(QuPath:", "Negative)"]]
    (three,) = [row for row in rows if row[:3] == ["3+", "(QuPath:", "3+)"]]
    assert int(zero[3]) > 0
    assert int(three[3]) > 0
    assert "were found as drawn" in told.stdout
    assert "say nothing of real slides" in told.stdout
    assert str(folder / "project" / "project.qpproj") in told.stderr
    assert "press F" in told.stderr
    assert (folder / "project" / "her2bridge" / "results" / "1.json").is_file()

    again = call("demo", folder)
    assert again.exit_code == 0
    assert "Skipped, scored before" in again.stderr
    assert told.stdout.endswith(again.stdout)  # the comparison, without a new score's table
    assert "1 scored, 0 skipped" in call("demo", folder, "--force").stderr


def test_another_demo_lies_there(folder: Path) -> None:
    for args in (("--seed", "99"), ("--size", "4096x4096")):
        told = call("demo", folder, *args)
        assert told.exit_code == 2
        assert "is another one: seed 3, 3072x2048 px" in told.stderr
    assert call("demo", folder, "--seed", "x").exit_code == 2


@pytest.mark.parametrize("args", [("--size", "12x12"), ("--size", "big"), ("--seed", "-1")])
def test_what_cannot_be(args: tuple[str, str], tmp_path: Path) -> None:
    told = call("demo", tmp_path / "new", *args)
    assert told.exit_code == 2
    assert is_three_parts(told.stderr)
    assert not (tmp_path / "new").exists()


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    told = call("demo", tmp_path)
    assert told.exit_code == 2
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]

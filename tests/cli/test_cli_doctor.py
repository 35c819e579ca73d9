"""``her2bridge doctor``: this machine as it is, and projects with and without faults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_calls import CPU, call
from conftest import FIXTURES, QUPATH, contents, redrawn

from her2bridge.cli import checks
from her2bridge.cli.checks import BROKEN, NOTE, OK
from her2bridge.demo import Demo
from her2bridge.model import bundle


def test_this_machine_and_a_project(demo: Demo) -> None:
    """What the tests need is here, and so nothing may be broken."""
    before = contents(demo.project.parent)
    told = call("doctor", demo.project)
    assert told.exit_code == 0, told.stdout
    lines = told.stdout.splitlines()
    for what in ("Python", "torch", "Model", "Network", "Slides", "Project", demo.slide.name):
        assert any(line.startswith(f"ok      {what}: ") for line in lines), what
    assert any(" QuPath: " in line for line in lines)
    assert f"ok      {demo.slide.name}: never scored; " in told.stdout
    assert contents(demo.project.parent) == before


def test_scores_that_stand_and_that_do_not(demo: Demo) -> None:
    assert call("run", demo.project, *CPU).exit_code == 0
    _, image = checks.project(demo.project)
    assert (image.state, image.says.partition(";")[0]) == (OK, "its score stands")
    assert call("run", demo.project, *CPU, "--class-prefix", "HER2").exit_code == 0
    _, image = checks.project(demo.project)
    assert (image.state, image.says.partition(";")[0]) == (NOTE, "other model or settings")
    assert call("run", demo.project, *CPU, "--whole-slide").exit_code == 0
    _, image = checks.project(demo.project)
    assert image.says.startswith("other model or settings")


def test_a_stale_score(demo: Demo, tmp_path: Path) -> None:
    assert call("run", demo.project, *CPU, "--class-prefix", "HER2").exit_code == 0
    _, image = checks.project(redrawn(demo, tmp_path / "redrawn").project)
    assert (image.state, image.says.partition(";")[0]) == (NOTE, "STALE: the regions have changed since")


def test_slides_that_are_gone_are_broken(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIXTURES / "her2_cores" / "analysis", tmp_path / "moved"))
    first, *images = checks.project(folder)
    assert (first.what, first.state) == ("Project", OK)
    assert [image.state for image in images] == [BROKEN] * 5
    assert all("--relocate" in image.next_step for image in images)


def test_a_newer_project_is_a_note(demo: Demo) -> None:
    text = demo.project.read_text()
    version = text.partition('"version": "')[2].partition('"')[0]
    demo.project.write_text(text.replace(f'"version": "{version}"', '"version": "9.0.0"', 1))
    first, *_ = checks.project(demo.project)
    assert first.state == NOTE
    assert "side files" in first.next_step


def test_no_project_is_broken(tmp_path: Path) -> None:
    (first,) = checks.project(tmp_path)
    assert first.state == BROKEN


def test_a_damaged_model_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = Path(shutil.copytree(bundle.load_bundle().path, tmp_path / bundle.DEFAULT_BUNDLE))
    (shipped / bundle.WEIGHTS_FILE).write_bytes(b"no weights")
    monkeypatch.setattr(bundle, "_SHIPPED", tmp_path)
    told = call("doctor")
    assert told.exit_code == 1
    assert "broken  Model: " in told.stdout
    assert "        next: " in told.stdout


def test_a_torch_that_does_not_load_is_broken(tmp_path: Path) -> None:
    """It is told once, and the rest is checked all the same."""
    (tmp_path / "torch.py").write_text("raise OSError('a library is missing')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HER2BRIDGE_CACHE": str(tmp_path / "cache")}
    told = subprocess.run(
        [sys.executable, "-m", "her2bridge", "doctor"],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert told.returncode == 1, told.stderr
    assert "broken  torch: cannot be loaded: a library is missing" in told.stdout
    assert "ok      Model: " in told.stdout
    assert "ok      Slides: " in told.stdout
    assert "Network: " not in told.stdout


@pytest.mark.skipif(QUPATH is not None, reason="here is one")
def test_qupath_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """conftest.py names a folder where none is."""
    check = checks.look_for_qupath()
    assert check.state == NOTE
    assert "Not needed" in check.says
    assert "PAQUO_QUPATH_DIR" in check.next_step
    monkeypatch.delenv("PAQUO_QUPATH_DIR")  # then nobody asked for one
    assert checks.look_for_qupath().state == OK


@pytest.mark.qupath
@pytest.mark.skipif(QUPATH is None, reason="no QuPath: PAQUO_QUPATH_DIR is not set")
def test_a_qupath_that_is_here_is_started() -> None:
    check = checks.look_for_qupath()
    assert check.state == OK
    assert str(QUPATH) in check.says

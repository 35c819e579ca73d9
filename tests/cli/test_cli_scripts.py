"""``her2bridge scripts install`` and ``check``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_calls import call, is_three_parts

from her2bridge import scripts
from her2bridge.scripts import BEGIN, END

ROOT = Path(__file__).parents[2]
ONE, TWO = "HER2 - Trial one.groovy", "HER2 - Trial two.groovy"


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with two scripts."""
    shared = tmp_path / "package" / "shared"
    shutil.copytree(ROOT / "groovy" / "shared", shared)
    for name in (ONE, TWO):
        (shared.parent / name).write_text(f"{BEGIN}\n{END}\nprintln '{name}'\n", encoding="utf-8")
    monkeypatch.setattr(scripts, "shared_folder", lambda: shared)
    return shared.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder; the project file is not looked into."""
    folder = tmp_path / "cohört [b]x[i]"
    folder.mkdir()
    (folder / "project.qpproj").write_text("{}")
    return folder


def states(output: str) -> dict[str, str]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    assert all(list(one) == ["script", "path", "state", "says", "next_step"] for one in lines)
    return {one["script"]: one["state"] for one in lines}


def test_from_missing_to_current(project: Path) -> None:
    told = call("scripts", "check", "--project", project)
    assert (told.exit_code, told.stderr) == (1, "")
    assert told.stdout.startswith(f"missing         {ONE}\n                next: Install the scripts.\n")
    told = call("scripts", "install", "--project", project / "project.qpproj")
    assert told.exit_code == 0
    assert told.stdout == f"installed       {ONE}\ninstalled       {TWO}\n"
    assert told.stderr == f"2 scripts installed in {project / 'scripts'}\n"
    told = call("scripts", "check", "--project", project)
    assert (told.exit_code, told.stdout) == (0, f"current         {ONE}\ncurrent         {TWO}\n")


def test_a_users_folder(tmp_path: Path) -> None:
    (tmp_path / "v0.7").mkdir()
    assert call("scripts", "install", "--user", tmp_path / "v0.7").exit_code == 0
    assert (tmp_path / "v0.7" / "scripts" / ONE).is_file()


def test_an_edited_script_is_left_and_the_exit_code_says_so(project: Path) -> None:
    call("scripts", "install", "--project", project)
    path = project / "scripts" / ONE
    path.write_text(path.read_text(encoding="utf-8") + "println 'mine'\n", encoding="utf-8")
    told = call("scripts", "install", "--project", project)
    assert told.exit_code == 1
    assert f"edited by hand  {ONE}: it is not as it was installed\n                next: Keep it under" in told.stdout
    assert "0 scripts installed" in told.stderr
    assert path.read_text(encoding="utf-8").endswith("println 'mine'\n")
    told = call("scripts", "install", "--project", project, "--force")
    assert (told.exit_code, "mine" in path.read_text(encoding="utf-8")) == (0, False)


def test_a_dropped_script_is_no_reason_to_fail_an_installation(project: Path, package: Path) -> None:
    call("scripts", "install", "--project", project)
    (package / ONE).unlink()
    told = call("scripts", "install", "--project", project)
    assert told.exit_code == 0
    assert f"no longer ours  {ONE}" in told.stdout
    assert call("scripts", "check", "--project", project).exit_code == 1


def test_json_is_one_line_a_script_and_nothing_else(project: Path) -> None:
    told = call("scripts", "install", "--project", project, "--json")
    assert told.exit_code == 0
    assert states(told.stdout) == {ONE: "installed", TWO: "installed"}
    (project / "scripts" / TWO).unlink()
    told = call("scripts", "check", "--project", project, "--json")
    assert (told.exit_code, states(told.stdout)) == (1, {ONE: "current", TWO: "missing"})


@pytest.mark.parametrize("command", ["install", "check"])
def test_places_that_cannot_be(project: Path, command: str) -> None:
    for args in ((), ("--project", project, "--user", project), ("--project", project / "x"), ("--user", "/nowhere")):
        told = call("scripts", command, *args)
        assert (told.exit_code, told.stdout) == (2, "")
        assert is_three_parts(told.stderr)
    told = call("scripts", command, "--json")
    assert json.loads(told.stdout)["type"] == "failed"


def test_a_place_that_cannot_be_written_to(project: Path) -> None:
    (project / "scripts").write_text("a file")
    told = call("scripts", "install", "--project", project)
    assert told.exit_code == 1
    assert is_three_parts(told.stderr)

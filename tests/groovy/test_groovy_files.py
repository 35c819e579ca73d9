"""Every script as it stands: whether Groovy parses it, whether the lint lets it pass, the house's rules for scripts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from groovy4 import SCRIPTS, SHARED, groovy

HERE = Path(__file__).parent
THIN = sorted(SCRIPTS.glob("*.groovy"))
FILES = [*THIN, *sorted(SHARED.glob("*.groovy"))]
OURS = [*FILES, *sorted(HERE.glob("*.groovy"))]
MAX_FILE, MAX_LINE = 400, 120

BLOCK = """
// her2bridge: written by `her2bridge scripts install`, do not edit
final String PYTHON = ''
final String SHARED = ''
final String INSTALLED = ''
// her2bridge: end
"""

WITHOUT_QUPATH = ("Her2Json", "Her2Engine", "Her2Words", "Her2Bridge", "Her2Script", "Her2Windows", "Her2Log")
NOT_IN_QUPATH = ("groovy.json", "groovy.yaml", "groovy.toml", "groovy.sql", "groovy.time", "groovy.cli", "groovy.ant")


def parsed(*paths: Path) -> dict[str, str]:
    """What Groovy's compiler says of each file: ``ok``, or what is wrong."""
    ran = groovy().run(HERE / "Parse.groovy", *paths)
    lines = [line.split("\t") for line in ran.stdout.splitlines()]
    assert len(lines) == len(paths), ran.stderr
    return {Path(path).name: "".join(rest) or word for word, path, *rest in lines}


def linted(*paths: Path) -> list[str]:
    """What npm-groovy-lint objects to; the rules are in ``.groovylintrc.json``. No server is left running."""
    lint = groovy().lint / "lib" / "index.js"
    options = ["--noserver", "--no-parse", "--config", str(HERE), "--output", "json"]
    command = ["node", str(lint), *options, *map(str, paths)]
    ran = subprocess.run(command, cwd=paths[0].parent, capture_output=True, encoding="utf-8", timeout=250)
    found = json.loads(ran.stdout[ran.stdout.index("{") :])
    assert found["summary"]["totalFilesLinted"] == len(paths), ran.stderr
    return [
        f"{Path(path).name}, line {one['line']}: {one['rule']}: {one['msg']}"
        for path, about in found["files"].items()
        for one in about["errors"]
    ]


def test_the_scripts_were_found() -> None:
    assert len(THIN) == 9
    assert {"Her2Json", "Her2Engine", "Her2Words", "Her2Bridge", "Her2Image"} <= {path.stem for path in FILES}


def test_every_script_is_parsed() -> None:
    outcomes = parsed(*OURS)
    assert set(outcomes.values()) == {"ok"}, outcomes


def test_what_is_no_groovy_is_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong ä.groovy"
    wrong.write_text("def a = [1, 2\ndef b = 3\n", encoding="utf-8")
    assert "line 2" in parsed(wrong)[wrong.name]


def test_the_lint_lets_every_script_pass() -> None:
    assert not linted(*FILES)


def test_the_lint_sees_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.groovy"
    wrong.write_text("def unused = 1\ntry {\n    println 2\n} catch (Throwable t) {\n}\n", encoding="utf-8")
    rules = {one.split(": ")[1] for one in linted(wrong)}
    assert {"UnusedVariable", "CatchThrowable", "EmptyCatchBlock"} <= rules


@pytest.mark.parametrize("path", THIN, ids=lambda path: path.stem)
def test_a_script_begins_as_the_installer_expects(path: Path) -> None:
    assert re.fullmatch(r"HER2 - [A-Z][a-z ]+\.groovy", path.name)  # ASCII: Windows' and QuPath's encodings differ
    text = path.read_text(encoding="utf-8")
    assert text.count(BLOCK) == 1
    head, _, body = text.partition(BLOCK)
    first = head.partition("\n *\n")[0]
    assert first.startswith("/*\n * HER2: ")
    assert "(research use only)" in " ".join(first.replace("\n *", " ").split())
    assert "if (!SHARED)" in body
    assert "her2bridge scripts install" in body


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_file_is_of_the_house(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= MAX_FILE or path.parent == HERE
    assert not [number for number, line in enumerate(lines, 1) if len(line) > MAX_LINE]
    assert "\t" not in text
    assert re.search(r"[^\n]\n\Z", text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_script_needs_only_what_its_place_has(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [name for name in NOT_IN_QUPATH if name in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)]
    if path.stem in WITHOUT_QUPATH:
        assert not re.search(r"\bqupath\.(lib|fx|imagej|ext)", text)
    if path.stem != "Her2Windows":
        assert "javafx" not in text.lower().replace("nor javafx", "")


def test_only_one_file_starts_a_process() -> None:
    """And from a list of arguments: no shell, so that no path needs quoting."""
    start = re.compile(r"ProcessBuilder|\.execute\(|Runtime\.")
    assert [path.stem for path in FILES if start.search(path.read_text(encoding="utf-8"))] == ["Her2Engine"]

"""What the scripts share and what needs no QuPath, under plain Groovy 4 and against an engine that misbehaves."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from groovy4 import SHARED, groovy

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Groovy tests read and write; its name is odd on purpose."""
    folder = tmp_path_factory.mktemp("shared ä")
    (folder / "corpus.json").write_text(json.dumps(corpus(), ensure_ascii=False), encoding="utf-8")
    (folder / "corpus-ascii.json").write_text(json.dumps(corpus(), indent=1), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> list[list[str]]:
    """What the Groovy tests said where files are not taken to be UTF-8."""
    return groovy_tests(folder, "(?!arguments arrive).*", "ISO-8859-1")


def groovy_tests(folder: Path, names: str, encoding: str) -> list[list[str]]:
    """Run the tests whose names match: for each one ``ok`` or ``failed``, the name, and what went wrong."""
    script, fake_engine = HERE / "SharedTests.groovy", HERE / "fake_engine.py"
    ran = groovy().run(script, SHARED, sys.executable, fake_engine, folder, names, encoding=encoding)
    assert ran.stdout, ran.stderr
    return [line.split("\t") for line in ran.stdout.splitlines()]


def corpus() -> list[object]:
    """Values that JSON bears."""
    rng = random.Random(5)
    doubles = [rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300) for _ in range(500)]
    texts = ["".join(chr(rng.randrange(1, 0xD800)) for _ in range(20)) for _ in range(100)]
    odd = [
        0,
        -1,
        2**53,
        -(2**59),
        0.1,
        -0.0,
        5e-324,
        True,
        False,
        None,
        "",
        "😀 𝔸",
        "\0\x1f\x7f\u2028",
        {},
        [],
        {"": [{}]},
    ]
    return [*odd, doubles, texts, dict(zip(texts, doubles, strict=False))]


def test_every_groovy_test_passes(told: list[list[str]]) -> None:
    assert len(told) > 60
    assert not [rest for word, *rest in told if word != "ok"]


def test_arguments_arrive_as_they_are(folder: Path) -> None:
    """On Linux Java 17 writes them in the encoding that it takes files to be in; on Windows it does not."""
    assert groovy_tests(folder, "arguments arrive.*", "UTF-8") == [["ok", "arguments arrive as they are"]]


@pytest.mark.parametrize("name", ["corpus.json", "corpus-ascii.json"])
def test_json_survives_groovy(told: list[list[str]], folder: Path, name: str) -> None:
    again = json.loads((folder / f"again-{name}").read_text(encoding="utf-8"))
    assert repr(again) == repr(corpus())  # repr tells 1 from 1.0 from True, and -0.0 from 0.0


def test_all_tiles_are_written(told: list[list[str]], folder: Path) -> None:
    columns = json.loads((folder / "tiles.json").read_text(encoding="utf-8"))
    assert list(columns) == ["ids", "bounds", "measurements"]
    assert columns["ids"] == [f"id-{i}" for i in range(200_000)]
    assert columns["bounds"][1] == [264.5, 0, 529, 264.5]
    assert columns["measurements"]["HER2: p(0)"][:3] == [0.1, None, 0.1]
    assert {len(columns["bounds"]), len(columns["measurements"]["HER2: p(0)"])} == {200_000}

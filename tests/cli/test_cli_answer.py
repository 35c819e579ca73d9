"""``her2bridge scripts answer``, as the QuPath scripts start it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_calls import call, events_of, spawn, types_of
from script_requests import put_request

from her2bridge.cli.answer import settings_of
from her2bridge.demo import Demo
from her2bridge.errors import UsageError
from her2bridge.qupath.open import open_project
from her2bridge.qupath.request import UPDATE
from her2bridge.records import Specimen
from her2bridge.settings import RunSettings

CPU = {"device": "cpu", "runtime": "torch", "precision": "fp32"}


def request_of(demo: Demo, folder: Path, **settings: Any) -> Path:
    return put_request(open_project(demo.project, "files"), folder, **{**CPU, **settings})


def test_a_request_is_answered(demo: Demo, tmp_path: Path) -> None:
    folder = request_of(demo, tmp_path / "request")
    result = call("scripts", "answer", folder)
    assert result.exit_code == 0, result.stderr
    told = events_of(result.stdout)
    assert types_of(told) == ["run_started", "runtime_chosen", "image_started", "image_scored", "run_finished"]
    update = json.loads((folder / UPDATE).read_text(encoding="utf-8"))
    assert update["metadata"] == told[-2]["metadata"]


def test_an_image_that_fails_ends_with_1(demo: Demo, tmp_path: Path) -> None:
    result = call("scripts", "answer", request_of(demo, tmp_path / "request", recalculate=True))
    assert result.exit_code == 1
    failed = events_of(result.stdout)[1]
    assert (failed["type"], failed["error"]) == ("image_failed", "NoEarlierScore")


def test_what_is_no_request_ends_with_2(tmp_path: Path) -> None:
    result = call("scripts", "answer", tmp_path)
    assert result.exit_code == 2
    assert types_of(events_of(result.stdout)) == ["failed"]


def test_closing_its_input_ends_it(demo: Demo, tmp_path: Path) -> None:
    folder = request_of(demo, tmp_path / "request", batch_size=1)
    with spawn("scripts", "answer", folder, "--watch-stdin", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline()]
        while b'"progress"' not in lines[-1]:
            assert lines[-1], b"".join(lines)
            lines.append(process.stdout.readline())
        process.stdin.close()
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b""
    told = events_of(b"".join(lines) + rest)
    assert told[-1]["type"] == "run_finished"
    assert told[-1]["interrupted"] is True
    assert not (folder / UPDATE).exists()


def test_closing_its_input_after_its_last_event_is_no_cancel(demo: Demo, tmp_path: Path) -> None:
    """The scripts close it then; nothing may reach QuPath's log as an error."""
    folder = request_of(demo, tmp_path / "request")
    with spawn("scripts", "answer", folder, "--watch-stdin", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        while b'"run_finished"' not in (line := process.stdout.readline()):
            assert line
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


def test_settings_become_those_of_a_run() -> None:
    asked = {"region_classes": ["Tumor"], "mpp": 0.25, "specimen": "biopsy", "batch_size": 4, "recalculate": False}
    settings = settings_of({**asked, "class_prefix": "", "model": None}, where="here")
    assert settings == RunSettings(
        region_classes=("Tumor",), mpp=0.25, specimen=Specimen.BIOPSY, batch_size=4, force=True
    )
    assert settings_of({"specimen": "not stated"}, where="here").specimen is None


def test_score_settings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "scores.toml"
    file.write_text("min_tumour_tiles = 7\n", encoding="utf-8")
    assert settings_of({"score_settings": str(file)}, where="here").scores.min_tumour_tiles == 7


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"colour": "red"}, "no setting called colour"),
        ({"dry_run": True}, "no setting called dry_run"),
        ({"batch_size": "4"}, "batch_size cannot be '4'"),
        ({"batch_size": True}, "batch_size cannot be True"),
        ({"region_classes": "Tumor"}, "region_classes cannot be 'Tumor'"),
        ({"selected": [1]}, "selected cannot be"),
        ({"score_settings": 5}, "score_settings cannot be 5"),
        ({"specimen": ["biopsy"]}, "specimen cannot be"),
        ({"specimen": "smear"}, "cannot be 'smear'"),
        ({"device": "tpu"}, "--device"),
    ],
)
def test_settings_that_cannot_be_are_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        settings_of(asked, where="here")

"""What holds for all commands: help, streams, three parts, exit codes, the log, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_calls import COMMAND, CPU, call, events_of, is_three_parts, spawn, types_of
from conftest import contents

from her2bridge.demo import Demo
from her2bridge.version import version

COMMANDS = (
    *("run", "analyze", "demo", "models", "restore", "doctor"),
    *("labels", "train", "evaluate", "train-score", "experiment", "scripts"),
)
HEAVY = ("torch", "jpype", "paquo", "tiffslide", "sklearn", "openvino")


def test_it_starts_as_a_module_and_isolated() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"her2bridge {version()}\n", "")


def test_help_is_quick_because_nothing_heavy_is_loaded() -> None:
    code = (
        "import json, sys\nsys.argv = ['her2bridge', 'run', '--help']\nfrom her2bridge.cli.app import main\n"
        "try:\n    main()\nfinally:\n    sys.stderr.write(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "--whole-slide" in done.stdout
    assert not {name.partition(".")[0] for name in json.loads(done.stderr)} & set(HEAVY)


def test_help_names_every_command_and_says_what_it_is_for() -> None:
    told = call("--help")
    assert told.exit_code == 0
    assert all(f"\n  {name} " in told.stdout for name in COMMANDS)
    assert "Research use only" in told.stdout
    assert "…" not in told.stdout
    assert "..." not in told.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("args", [(), ("run",), ("run", "p", "--nonsense"), ("run", "p", "--batch-size", "x"), ("x",)])
def test_wrong_usage_is_2_and_nothing_on_standard_output(args: tuple[str, ...]) -> None:
    told = call(*args)
    assert told.exit_code == 2
    assert not args or not told.stdout


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (("--min-overlap", "2"), "--min-overlap"),
        (("--batch-size", "0"), "--batch-size"),
        (("--mpp", "0"), "--mpp"),
        (("--specimen", "foo"), "--specimen"),
        (("--specimen", "not stated"), "--specimen"),
        (("--relocate", "/old/new"), "--relocate"),
        (("--relocate", "=/new"), "--relocate"),
        (("--device", "gpu"), "--device"),
        (("--precision", "fp8"), "--precision"),
        (("--runtime", "tf"), "--runtime"),
        (("--backend", "qupath"), "--backend"),
        (("--whole-slide", "--region-class", "Tumor"), "--whole-slide"),
        (("--class-prefix", "a:b"), "--class-prefix"),
        (("--score-settings", "nowhere.toml"), "nowhere.toml"),
        (("--image", "nowhere"), "project.qpproj"),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_is_told_in_three_parts_before_anything_is_touched(
    args: tuple[str, ...], where: str, demo: Demo
) -> None:
    before = contents(demo.project.parent)
    told = call("run", demo.project, *args)
    assert told.exit_code == 2
    assert told.stdout == ""
    assert is_three_parts(told.stderr)
    assert where in told.stderr.splitlines()[1]
    assert contents(demo.project.parent) == before


def test_with_json_the_error_is_the_last_event_too() -> None:
    told = call("run", "/nowhere at all", "--json")
    assert told.exit_code == 2
    (failed,) = events_of(told.stdout)
    assert failed["type"] == "failed"
    assert failed["error"] == "ProjectNotFound"
    assert failed["exit_code"] == 2
    assert is_three_parts(told.stderr)
    assert failed["what"] in told.stderr


class TestTheUnforeseen:
    """A bug cannot be had to order, so one is put where ``run`` calls the engine."""

    @pytest.fixture(autouse=True)
    def _bug(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run_project(*_: object) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr("her2bridge.run.run_project", run_project)

    def test_is_told_in_three_parts_without_a_traceback(self) -> None:
        told = call("run", "p")
        assert told.exit_code == 1
        assert is_three_parts(told.stderr)
        assert "did not foresee: ZeroDivisionError: a bug" in told.stderr
        assert f"{Path(__file__)}, line " in told.stderr
        assert "--debug" in told.stderr

    def test_is_an_event(self) -> None:
        (failed,) = events_of(call("run", "p", "--json").stdout)
        assert (failed["type"], failed["error"], failed["exit_code"]) == ("failed", "ZeroDivisionError", 1)

    def test_its_traceback_is_in_the_log(self, tmp_path: Path) -> None:
        log = tmp_path / "a log.txt"
        told = call("run", "p", "--log", log)
        assert "Traceback" not in told.stderr
        assert str(log) in told.stderr
        assert "Traceback" in log.read_text()
        assert "in run_project" in log.read_text()

    def test_its_traceback_is_told_with_debug(self) -> None:
        assert "Traceback" in call("run", "p", "--debug").stderr


def test_no_name_of_an_image_is_in_the_log(demo: Demo, tmp_path: Path) -> None:
    """Names of images and files may be patients'."""
    log = tmp_path / "log.txt"
    assert call("run", demo.project, "--dry-run", "--log", log).exit_code == 0
    assert "run_started" in log.read_text()
    assert "tiles=" in log.read_text()
    assert demo.slide.stem not in log.read_text()
    assert str(demo.project.parent) not in log.read_text()


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    told = call("run", "p", "--log", tmp_path / "nowhere" / "log.txt")
    assert told.exit_code == 1
    assert is_three_parts(told.stderr)


def test_names_of_any_bytes_are_told(tmp_path: Path) -> None:
    """Half a surrogate pair stands for a byte of a file's name that is no UTF-8."""
    name = str(tmp_path / "caf\udce9 µ")
    with spawn("run", name, "--json") as process:
        out, err = process.communicate(timeout=60)
    (failed,) = events_of(out)
    assert failed["where"] == name
    assert "µ" in err.decode("utf-8")


@pytest.mark.parametrize(
    "args", [("run", "PROJECT", "--dry-run", "--json"), ("run", "PROJECT", "--dry-run"), ("models",), ("--help",)]
)
def test_a_pipe_that_nobody_reads_ends_quietly(args: tuple[str, ...], small_demo: Demo) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    project = str(small_demo.project)
    with spawn(*(project if one == "PROJECT" else one for one in args), stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Error" not in err
    assert b"Traceback" not in err
    assert b"Broken" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("args", [("models",), ("models", "--json")])
def test_standard_output_that_cannot_be_written(args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full, spawn(*args, stdout=full) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert is_three_parts(err.decode())
    assert "No space left" in err.decode()


def test_what_others_write_to_standard_output_goes_to_standard_error() -> None:
    """A JVM writes to the file itself, past Python."""
    code = (
        "import os, sys\nfrom her2bridge import events\nfrom her2bridge.cli.output import Output\n"
        "with Output(as_json=True) as output:\n"
        "    os.write(1, b'from a JVM\\n')\n    sys.stdout.write('from a library\\n')\n"
        "    output(events.RestoreFinished(1, 0, 0))\n"
        "os.write(1, b'given back')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    line, _, rest = done.stdout.partition(b"\n")
    assert json.loads(line)["type"] == "restore_finished"
    assert rest == b"given back"
    assert done.stderr.splitlines() == [b"from a JVM", b"from a library"]


def test_a_console_that_lacks_a_letter_ends_nothing() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, "-m", "her2bridge", "models"]
    done = subprocess.run(command, capture_output=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"256 px at 0.25 ?m/px" in done.stdout


def _interrupted(
    demo: Demo, stop: Callable[[subprocess.Popen[bytes]], None], *, after: bytes
) -> tuple[int, bytes, bytes]:
    """Run, and ``stop`` as soon as an event of that type was told."""
    with spawn("run", demo.project, "--json", *CPU, "--batch-size", "1") as process:
        assert process.stdout is not None
        seen = b""
        while after not in seen:
            line = process.stdout.readline()
            assert line, "ended before it could be interrupted"
            seen += line
        stop(process)
        out, err = process.communicate(timeout=60)
    return process.returncode, seen + out, err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send Ctrl-C to one process")
class TestCtrlC:
    def test_once(self, demo: Demo) -> None:
        before = contents(demo.project.parent)
        code, out, err = _interrupted(demo, lambda process: process.send_signal(signal.SIGINT), after=b"progress")
        assert code == 130
        finished = events_of(out)[-1]
        assert finished["type"] == "run_finished"
        assert finished["interrupted"] is True
        assert err == b""
        assert contents(demo.project.parent) == before

    def test_again_and_again(self, demo: Demo) -> None:
        def stop(process: subprocess.Popen[bytes]) -> None:
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.01)

        code, _, err = _interrupted(demo, stop, after=b"run_started")
        assert code in (130, -signal.SIGINT)  # the latter while Python itself is shutting down
        assert not err or is_three_parts(err.decode())  # told only where the first one was heard

    @pytest.mark.parametrize(
        "code",
        [
            # while the first one is being tidied up after
            "signal.signal(signal.SIGINT, app._interrupt)\ntry:\n    press()\n"
            "except KeyboardInterrupt:\n    press()\n    print('went on')",
            # while Python shuts down after a command
            "atexit.register(press)\nsys.argv = ['her2bridge', 'nonsense']\nsys.stderr = io.StringIO()\n"
            "try:\n    app.main()\nfinally:\n    sys.stderr = sys.__stderr__",
        ],
        ids=["twice", "at the end"],
    )
    def test_at_a_bad_time_it_ends_at_once_without_a_word(self, code: str) -> None:
        head = (
            "import atexit, io, os, signal, sys, time\nfrom her2bridge.cli import app\n"
            "def press():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(2)\n"
        )
        done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")

    def test_before_there_is_a_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run_project(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("her2bridge.run.run_project", run_project)
        told = call("run", "p", "--json")
        assert told.exit_code == 130
        assert is_three_parts(told.stderr)
        assert types_of(events_of(told.stdout)) == ["failed"]

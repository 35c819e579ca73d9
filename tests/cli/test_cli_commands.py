"""The commands are loaded when they are called; until then a name and a line stand for each."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cli_calls import call

from her2bridge.cli.commands import COMMANDS, load


def modules_after(*args: str) -> set[str]:
    """What a fresh interpreter has loaded when a call has ended."""
    code = (
        f"import json, sys\nsys.argv = {['her2bridge', *args]}\nfrom her2bridge.cli.app import main\n"
        "try:\n    main()\nfinally:\n    sys.stderr.write(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    return set(json.loads(done.stderr))


def test_help_loads_the_parser_and_nothing_of_the_commands() -> None:
    loaded = modules_after("--help")
    assert {name for name in loaded if name.startswith("her2bridge.")} == {
        "her2bridge.cli",
        "her2bridge.cli.app",
        "her2bridge.cli.commands",
        "her2bridge.errors",
        "her2bridge.version",
    }
    assert not {"numpy", "shapely", "PIL", "rich", "importlib.metadata"} & loaded


def test_a_command_loads_itself_alone() -> None:
    loaded = modules_after("doctor", "--help")
    assert "her2bridge.cli.doctor" in loaded
    assert not {f"her2bridge.cli.{one.replace('-', '_')}" for one in COMMANDS if one != "doctor"} & loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_is_the_first_of_the_commands_own_help(name: str) -> None:
    assert load(name).help.partition("\n\n")[0].replace("\n", " ") == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_called_by_its_name(name: str) -> None:
    told = call(name, "--help")
    assert told.exit_code == 0
    assert told.stdout.startswith(f"Usage: her2bridge {name} ")


def test_what_resembles_a_name_is_suggested() -> None:
    told = call("evaluat", "x")
    assert told.exit_code == 2
    assert "'evaluate'" in str(told.exception or "") + told.output

"""docs/cli.md shows the help of every command as it is.

``HER2BRIDGE_UPDATE_DOCS=1 pytest tests/cli/test_cli_docs.py`` writes it anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from typer.testing import CliRunner

from her2bridge.cli.app import app

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
UPDATE = "HER2BRIDGE_UPDATE_DOCS=1 pytest tests/cli/test_cli_docs.py"
BLOCK = re.compile(r"<!-- help: ([\w -]+?) -->\n.*?<!-- end -->", re.DOTALL)


def help_of(command: str) -> str:
    args = [] if command == "her2bridge" else command.split()
    told = CliRunner().invoke(app, [*args, "--help"], prog_name="her2bridge")  # 80 columns, always
    assert told.exit_code == 0
    return told.stdout.rstrip()


def fresh(text: str) -> str:
    return BLOCK.sub(lambda found: f"<!-- help: {found[1]} -->\n```text\n{help_of(found[1])}\n```\n<!-- end -->", text)


def test_the_help_in_the_docs_is_the_commands_own() -> None:
    text = DOCS.read_text(encoding="utf-8")
    if os.environ.get("HER2BRIDGE_UPDATE_DOCS"):
        DOCS.write_text(fresh(text), encoding="utf-8", newline="\n")
        return
    assert text == fresh(text), f"docs/cli.md is stale; write it anew with: {UPDATE}"


def commands_of(command: str) -> list[str]:
    """A command and those below it, in the order of its help."""
    below = re.findall(r"^  ([\w-]+) ", help_of(command).partition("\nCommands:")[2], re.MULTILINE)
    start = "" if command == "her2bridge" else f"{command} "
    return [command, *(one for name in below for one in commands_of(f"{start}{name}"))]


def test_every_command_is_there() -> None:
    commands = commands_of("her2bridge")
    assert len(commands) >= 16
    assert BLOCK.findall(DOCS.read_text(encoding="utf-8")) == commands

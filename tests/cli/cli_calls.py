"""Ways to call the command line: in this process, or as a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from her2bridge import events
from her2bridge.cli.app import app

CPU = ("--device", "cpu", "--runtime", "torch", "--precision", "fp32")
COMMAND = (sys.executable, "-I", "-m", "her2bridge")
FIELDS = {one.name: [field.name for field in dataclasses.fields(one)] for one in events.Event.__subclasses__()}


def call(*args: str | Path) -> Result:
    """In this process; ``result.stdout`` and ``result.stderr`` are apart."""
    return CliRunner().invoke(app, [str(one) for one in args], prog_name="her2bridge")


def spawn(*args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """As a process of its own, both streams piped unless ``options`` say otherwise."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    ours = ("HER2BRIDGE", "FORCE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["HER2BRIDGE_CACHE"] = os.environ["HER2BRIDGE_CACHE"]  # the tests' own
    return subprocess.Popen([*COMMAND, *map(str, args)], env=environment, **streams)


def events_of(output: str | bytes) -> list[dict[str, Any]]:
    """The events of standard output; each line must be one, with the fields that the schema gives it."""
    text = output.decode("utf-8", "strict") if isinstance(output, bytes) else output
    assert "\r" not in text
    assert text.endswith("\n")
    found = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    for event in found:
        assert list(event) == ["type", *FIELDS[event["type"]]]
    return found


def types_of(found: Sequence[dict[str, Any]]) -> list[str]:
    """Their types, without progress."""
    return [event["type"] for event in found if event["type"] != "progress"]


def is_three_parts(text: str) -> bool:
    """Whether a text is one error of ours: what, where, next."""
    lines = text.splitlines()
    return (
        len(lines) == 3
        and lines[0].startswith("Error: ")
        and lines[1].startswith("  where: ")
        and lines[2].startswith("  next:  ")
    )

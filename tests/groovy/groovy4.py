"""Groovy 4 on this machine's Java: the jars of npm-groovy-lint, which ``.ci/run`` fetches into ``.ci/tools``."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "groovy"
SHARED = SCRIPTS / "shared"


@dataclass(frozen=True)
class Groovy:
    """Java, and npm-groovy-lint's folder with Groovy's jars in it."""

    java: str
    lint: Path

    def run(self, script: Path, *arguments: object, encoding: str = "UTF-8") -> subprocess.CompletedProcess[str]:
        """Run a Groovy script with Groovy's core alone, which is all that QuPath ships, and with little memory.

        Args:
            encoding: what Java takes files to be in that nobody says an encoding of; Windows has no UTF-8 there.
        """
        (core,) = (self.lint / "lib" / "java" / "groovy" / "lib").glob("groovy-4.*.jar")
        java = [self.java, "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dfile.encoding={encoding}", "-cp", str(core)]
        command = [*java, "groovy.ui.GroovyMain", "--encoding", "UTF-8", str(script), *map(str, arguments)]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
        return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=250)


@cache
def find_groovy() -> Groovy | str:
    """Groovy, or why there is none. ``HER2BRIDGE_GROOVY`` names a folder that npm-groovy-lint was installed into."""
    java = shutil.which("java")
    if java is None:
        return "no Java"
    lint = Path(os.environ.get("HER2BRIDGE_GROOVY", ROOT / ".ci" / "tools")) / "node_modules" / "npm-groovy-lint"
    if not (lint / "package.json").is_file():
        return f"no npm-groovy-lint: {lint} is missing; .ci/run installs it, HER2BRIDGE_GROOVY names another place"
    return Groovy(java, lint)


def groovy() -> Groovy:
    """Groovy; where there is none, the test is skipped, or fails if ``HER2BRIDGE_REQUIRE`` lists groovy."""
    found = find_groovy()
    return found if isinstance(found, Groovy) else lacking(found)


def lacking(what: str) -> NoReturn:
    """Skip the test for want of something; fail where it must not be wanting."""
    if "groovy" in os.environ.get("HER2BRIDGE_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"HER2BRIDGE_REQUIRE lists groovy, and there is {what}")
    pytest.skip(what)

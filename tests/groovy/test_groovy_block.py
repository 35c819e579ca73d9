"""What the installer writes into a script is what Groovy reads there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from groovy4 import groovy

from her2bridge import scripts
from her2bridge.scripts import BEGIN, groovy_string, install_scripts
from her2bridge.version import version

PATHS = (
    r"C:\Users\new\table\.venv\Scripts\python.exe",
    r"\\server\share$\her 2\u0041\101\python.exe",
    "/home/Zoë/it's ${x} $y/日本語 😀/bin/python",
    "C:\\'\\",
    '"\t\n\x01\x7f\\\\u0024',
)


def test_every_path_comes_back(tmp_path: Path) -> None:
    script = tmp_path / "paths.groovy"
    lines = [f"println(({groovy_string(path)}).getBytes('UTF-8').encodeHex())" for path in PATHS]
    script.write_text("\n".join(lines), encoding="ascii")
    done = groovy().run(script)
    assert done.returncode == 0, done.stderr
    assert [bytes.fromhex(line).decode() for line in done.stdout.split()] == list(PATHS)


def test_an_installed_block_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = groovy()
    monkeypatch.setattr(scripts, "shared_folder", lambda: tmp_path / "Zoë's $1" / "shared")
    monkeypatch.setattr(scripts, "package_scripts", lambda: {"HER2 - Trial.groovy": template})
    template = (
        f"{BEGIN}\nfinal String PYTHON = ''\nfinal String SHARED = ''\nfinal String INSTALLED = ''\n{scripts.END}\n"
        "println([PYTHON, SHARED, INSTALLED].collect { it.getBytes('UTF-8').encodeHex() }.join(' '))\n"
    )
    (script,) = [one.path for one in install_scripts(tmp_path)]
    done = found.run(script)
    assert done.returncode == 0, done.stderr
    values = [bytes.fromhex(word).decode() for word in done.stdout.split()]
    assert values == [sys.executable, str(tmp_path / "Zoë's $1" / "shared"), version()]

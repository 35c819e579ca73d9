"""The scripts for QuPath: put into a project or a user's folder, and looked at there.

A script is copied as it lies in the package but for the block between its two marker lines, which says what it starts:
this Python and this package's shared scripts. The digest in the block tells whether a person has edited the rest.
"""

from __future__ import annotations

import contextlib
import enum
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from her2bridge.errors import Her2BridgeError, UsageError
from her2bridge.qupath.open import project_file
from her2bridge.storage import read_if_there, sha256_of, write_atomically
from her2bridge.version import version

BEGIN = "// her2bridge: written by `her2bridge scripts install`, do not edit"
END = "// her2bridge: end"

_BLOCK = re.compile(rf"^{re.escape(BEGIN)}\n(.*?)^{re.escape(END)}$", re.MULTILINE | re.DOTALL)
_VALUE = re.compile(r"^final String (\w+) = '((?:[^'\\]|\\.)*)'$", re.MULTILINE)
_DIGEST = re.compile(r"^// digest: (\w+)$", re.MULTILINE)
_DIGITS = 12  # of a digest
_FOLDER = "scripts"  # QuPath's name for it, in a project and in its user directory
_IN_USER_DIRECTORIES = ("extensions", "css", "colormaps", "logs", "localization")  # UserDirectoryManager
_OF_A_VERSION = re.compile(r"v\d+\.\d+")  # the last name of a user directory (PathPrefs.getDefaultQuPathUserDirectory)
_IS_HER2BRIDGE_THERE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('her2bridge') is None)"


class State(enum.StrEnum):
    """How a script is, or what became of it."""

    CURRENT = "current"
    INSTALLED = "installed"
    STALE = "stale"
    EDITED = "edited by hand"
    MISSING = "missing"
    DROPPED = "no longer ours"


@dataclass(frozen=True)
class Found:
    """One script in a folder.

    Attributes:
        path: where it lies, or should.
        state: how it is.
        says: why; may be empty.
        next_step: what to do about it; empty where nothing has to be done.
    """

    path: Path
    state: State
    says: str = ""
    next_step: str = ""


def shared_folder() -> Path:
    """The scripts that the installed ones load, in a wheel and in a checkout.

    Raises:
        Her2BridgeError: they are in neither.
    """
    package = Path(__file__).absolute().parent
    for folder in (package / "groovy", package.parent / "groovy"):
        if (folder / "shared" / "names.json").is_file():
            return folder / "shared"
    raise Her2BridgeError(
        "The scripts for QuPath are not in this installation.",
        where=str(package / "groovy"),
        next_step="Install her2bridge again: see README.md.",
    )


def package_scripts() -> Mapping[str, str]:
    """Name and text of every script that is installed, sorted by name."""
    files = sorted(shared_folder().parent.glob("*.groovy"))
    return {file.name: _text(file.read_bytes()) for file in files}


def scripts_folder(project: Path | None, user: Path | None) -> Path:
    """The folder that QuPath lists in a menu; it may have to be made.

    Args:
        project: a ``.qpproj`` or its folder, for Automate ▸ Project scripts.
        user: QuPath's user directory, for Automate ▸ User scripts, or any folder that holds scripts.

    Raises:
        UsageError: not exactly one of them is given, or there is no such folder.
        ProjectNotFound: there is no such project.
    """
    if project is not None and user is None:
        return project_file(project).parent / _FOLDER
    if user is None or project is not None:
        what = "The scripts are either in a project or in a user's folder."
        raise UsageError(what, where="--project, --user", next_step="Give one of them: --project P or --user DIR.")
    return _users(user)


def _users(given: Path) -> Path:
    path = given.expanduser().absolute()
    if path.name.casefold() == _FOLDER and path.parent.is_dir():
        return path
    if not path.is_dir():
        raise UsageError(
            "There is no such folder.",
            where=str(path),
            next_step="In QuPath, Edit, Preferences says what its user directory is; ~/QuPath/v0.6 is usual.",
        )
    versions = sorted(one.name for one in path.glob("v*") if _OF_A_VERSION.fullmatch(one.name))
    if versions:
        raise UsageError(
            "Each version of QuPath has a user directory of its own here.",
            where=str(path),
            next_step=f"Name one of them: {', '.join(str(path / name) for name in versions)}.",
        )
    marks = (*_IN_USER_DIRECTORIES, _FOLDER)
    is_user_directory = _OF_A_VERSION.fullmatch(path.name) or any((path / name).is_dir() for name in marks)
    return path / _FOLDER if is_user_directory else path


def install_scripts(folder: Path, *, force: bool = False) -> Iterator[Found]:
    """Write every script that is not current. What a person has edited stays.

    Args:
        folder: made where it is missing.
        force: replace what a person has edited, too.

    Yields:
        Every script, as it is then.

    Raises:
        Her2BridgeError: QuPath could not start this her2bridge, or a script cannot be read.
        WriteFailed: the folder cannot be written.
    """
    _check_interpreter()
    texts = package_scripts()
    for found in check_scripts(folder):
        writes = (State.STALE, State.MISSING, *([State.EDITED] if force else []))
        if found.state in writes:
            write_atomically(found.path, _installed(texts[found.path.name]).encode())
            yield Found(found.path, State.INSTALLED)
        else:
            yield found


def check_scripts(folder: Path) -> Iterator[Found]:
    """Look at every script of the package in a folder, then at those there that the package no longer has.

    Raises:
        Her2BridgeError: a script cannot be read.
    """
    texts = package_scripts()
    for name, text in texts.items():
        yield _check(folder / name, text)
    for path in sorted(folder.glob("HER2 - *.groovy")):
        if path.name not in texts and _BLOCK.search(_read(path) or ""):
            yield Found(path, State.DROPPED, f"not among those of her2bridge {version()}", "Delete it.")


def _check(path: Path, ours: str) -> Found:
    there = _read(path)
    if there is None:
        return Found(path, State.MISSING, next_step="Install the scripts.")
    block = _BLOCK.search(there)
    digest = _DIGEST.search(block[1]) if block is not None else None
    rest, is_ours = _rest(there), _rest(there) == _rest(ours)
    if not is_ours and (digest is None or digest[1] != _digest(rest)):
        next_step = "Keep it under another name and install again, or replace it with install --force."
        return Found(path, State.EDITED, "it is not as it was installed", next_step)
    reasons = [*_reasons(values_of(there)), *([] if is_ours else ["its text is not this her2bridge's"])]
    if reasons:
        return Found(path, State.STALE, "; ".join(reasons), "Install the scripts again.")
    return Found(path, State.CURRENT)


def _reasons(values: Mapping[str, str]) -> Iterator[str]:
    """Why what an installed block says is no longer so."""
    python, shared, installed = (values.get(name, "") for name in ("PYTHON", "SHARED", "INSTALLED"))
    if not (python and shared and installed):
        yield "it was copied, not installed"
        return
    if installed != version():
        yield f"it is of her2bridge {installed}, this is {version()}"
    if not Path(python).is_file():
        yield f"its Python is gone ({python})"
    elif not _is_same(Path(python), Path(sys.executable)):
        yield f"it starts another Python ({python})"
    if not Path(shared).is_dir():
        yield f"the shared scripts are gone ({shared})"
    elif not Path(shared).samefile(shared_folder()):
        yield f"it loads other shared scripts ({shared})"


def _is_same(python: Path, other: Path) -> bool:
    """Whether two names mean one interpreter of one environment; a virtual environment's is a link to what it is of."""
    return python.parent.samefile(other.parent) and python.samefile(other)


def _check_interpreter() -> None:
    """Start this Python as the scripts do.

    Raises:
        Her2BridgeError: it has no path, or finds her2bridge only through PYTHONPATH, the current folder or the
            user's own packages.
    """
    isolated = [sys.executable, "-I", "-c", _IS_HER2BRIDGE_THERE]
    is_there = Path(sys.executable or "").is_file()
    if not is_there or subprocess.run(isolated, check=False, stdin=subprocess.DEVNULL).returncode:
        raise Her2BridgeError(
            "QuPath could not start her2bridge with this Python: her2bridge is not among its own packages.",
            where=sys.executable or "Python",
            next_step="Install her2bridge into a virtual environment, and run this with the Python in it.",
        )


def _installed(template: str) -> str:
    """A script with its block filled in."""
    # The interpreter's links stay: a virtual environment is known by the link's own folder.
    values = {"PYTHON": str(Path(sys.executable).absolute()), "SHARED": str(shared_folder()), "INSTALLED": version()}
    lines = [f"final String {name} = {groovy_string(value)}" for name, value in values.items()]
    block = "\n".join([BEGIN, *lines, f"// digest: {_digest(_rest(template))}", END])
    return _BLOCK.sub(lambda _: block, template, count=1)


def groovy_string(text: str) -> str:
    r"""A text as a single-quoted string of Groovy, in ASCII: ``C:\Zoë`` becomes ``'C:\\Zo\u00eb'``.

    JSON's escapes are Groovy's too. A path may hold ``$`` and ``'``.
    """
    return "'" + json.dumps(text)[1:-1].replace("'", r"\'").replace("$", r"\u0024") + "'"


def values_of(script: str) -> Mapping[str, str]:
    """What a script's block says, by name; what cannot be read is left out."""
    block = _BLOCK.search(script)
    values = {}
    for name, value in _VALUE.findall(block[1] if block is not None else ""):
        with contextlib.suppress(ValueError):
            values[name] = json.loads('"' + value.replace(r"\'", "'") + '"')
    return values


def _rest(text: str) -> str:
    """What persons may edit: all but what stands in the block, and the end of the file, which editors change."""
    return _BLOCK.sub(f"{BEGIN}\n{END}", text, count=1).rstrip()


def _digest(rest: str) -> str:
    return sha256_of(rest.encode("utf-8", "surrogateescape"))[:_DIGITS]


def _read(path: Path) -> str | None:
    try:
        data = read_if_there(path)
    except OSError as error:
        raise Her2BridgeError(
            f"The script cannot be read ({error.strerror or type(error).__name__}).",
            where=str(path),
            next_step="Move it out of the way, or ask for the right to read it.",
        ) from error
    return None if data is None else _text(data)


def _text(data: bytes) -> str:
    """As QuPath reads it; which line ends it has is no matter."""
    return data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n")

"""A QuPath on this machine, found as paquo finds it and started once: its classes, in this process.

The JVM starts when a project is first opened through it. It cannot be started twice and does not survive a fork. Its
heap is bounded, so that the network keeps its memory, it leaves Ctrl-C to Python, and what it prints goes to standard
error: standard output is for events.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from her2bridge.errors import BackendUnavailable

OLDEST, NEWEST = (0, 5), (0, 7)
"""The QuPath versions that this backend was proved on."""

_HEAP_OPTION = re.compile(r"-Xmx|-XX:MaxRAM")
_PAQUOS_HEAP = "-XX:MaxRAMPercentage=50"  # paquo's own default: half of the memory
_OPTIONS = ("-Xrs", "-Djava.awt.headless=true", "--enable-native-access=ALL-UNNAMED")
_HEAP = "-XX:MaxRAMPercentage=25"  # of the machine's or container's memory
_PROVE = "Set PAQUO_QUPATH_DIR to the folder of a QuPath 0.5 to 0.7, or run with --backend files, which needs none."


@dataclass(frozen=True)
class QuPath:
    """A running QuPath.

    Attributes:
        version: as it says itself.
        folder: where it is installed.
        java: from the name of a Java class to the class.
    """

    version: str
    folder: Path
    java: Any

    @property
    def release(self) -> tuple[int, int]:
        """The first two numbers of its version."""
        return release_of(self.version)


def release_of(version: str) -> tuple[int, int]:
    """The first two numbers of a version; (0, 0) where there are none."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def paquo_version() -> str:
    """The installed paquo's."""
    return metadata.version("paquo")


@functools.cache
def start() -> QuPath:
    """Start it; the same one at every call.

    Raises:
        BackendUnavailable: none is there, it does not start, or its version is not one that we know.
    """
    info = _found()
    from paquo.jpype_backend import JClass, start_jvm

    try:
        with _output_to_stderr():
            version = str(start_jvm(finder=lambda **_: info) or "")
            system = JClass("java.lang.System")
            system.setOut(system.err)
            JClass("qupath.lib.images.servers.ImageServers")  # so that server builders can be read
            import paquo.projects  # noqa: F401 - it asks QuPath to log everything …

            JClass("qupath.lib.gui.logging.LogManager").setWarn()  # … and we do not
    except (RuntimeError, OSError, TypeError, AttributeError) as error:  # JPype's, and those of Java's classes
        raise BackendUnavailable(
            f"QuPath was found and its Java does not start ({_first_line(error)}).",
            where=str(info.jvm_path),
            next_step=_PROVE,
        ) from error
    if signal.getsignal(signal.SIGINT) is None:  # a handler of the JVM's
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not OLDEST <= release_of(version) <= NEWEST:
        oldest, newest = (".".join(map(str, one)) for one in (OLDEST, NEWEST))
        raise BackendUnavailable(
            f"QuPath {version or 'of an unknown version'} was found; this her2bridge works with {oldest} to {newest}.",
            where=str(info.app_dir),
            next_step=_PROVE,
        )
    return QuPath(version, info.app_dir.parent, JClass)


def quiet() -> contextlib.AbstractContextManager[None]:
    """While it lasts, what QuPath prints goes to Python's logger ``qupath``."""
    from paquo._logging import redirect

    context: contextlib.AbstractContextManager[None] = redirect(stdout=True, stderr=True)  # type: ignore[no-untyped-call]
    return context


@functools.cache
def _found() -> Any:
    """paquo's QuPathJVMInfo, with our options."""
    from paquo import settings
    from paquo._config import to_kwargs
    from paquo.jpype_backend import find_qupath

    asked = to_kwargs(settings)
    options = [one for one in _listed(asked.get("java_opts")) if one != _PAQUOS_HEAP]
    if not any(_HEAP_OPTION.match(one) for one in options):
        options.append(_HEAP)
    folders = [str(Path(one).expanduser()) for one in _listed(asked.get("qupath_search_dirs"))]
    try:
        return find_qupath(**{**asked, "java_opts": [*options, *_OPTIONS], "qupath_search_dirs": folders})
    except (OSError, ValueError) as error:
        named = asked.get("qupath_dir")
        raise BackendUnavailable(
            f"There is no usable QuPath in {named}." if named else "No QuPath was found on this machine.",
            where="PAQUO_QUPATH_DIR" if named else ", ".join(folders),
            next_step=_PROVE,
        ) from error


def _listed(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(one) for one in value or ()]


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Lead the process's standard output to its standard error, also for code that is not Python's."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # a program without standard output
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__

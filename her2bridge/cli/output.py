"""What all commands share: where their words go, the log, and how an error becomes three parts and an exit code.

Results go to standard output, all else to standard error. With ``--json`` standard output is NDJSON (docs/events.md).
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import typer
from rich.console import Console

from her2bridge.cli.console import console
from her2bridge.cli.json_lines import JsonLines, forget, lost_output
from her2bridge.cli.teller import RunTeller
from her2bridge.errors import Her2BridgeError, Interrupted, WriteFailed
from her2bridge.events import Event, Failed, ImageFailed, Progress, TaskProgress, to_json
from her2bridge.version import version

_LOG = logging.getLogger(__name__)
_LOGGED = frozenset({"run_id", "version", "backend", "model", "device", "precision", "runtime", "error", "standing"})


class Output:
    """One command's words: a context that hears its events, tells its errors and ends it with the right exit code.

    Attributes:
        results: for people, standard output; says nothing with ``as_json``.
        notes: for people, standard error.
        told: the run as people are told it; hears nothing with ``as_json``.
    """

    def __init__(self, *, as_json: bool = False, log: Path | None = None, debug: bool = False) -> None:
        self.results = console(quiet=as_json)
        self.notes = console(stderr=True)
        self.told = RunTeller(self.results, self.notes)
        self._as_json = as_json
        self._log, self._debug = log, debug
        self._lines: JsonLines | None = None
        self._open = ExitStack()

    def __enter__(self) -> Output:
        if self._as_json:
            self._lines = JsonLines()
            self._open.callback(self._lines.close)
        self._open.callback(self.told.stop)
        try:
            self._open.enter_context(_logging(self._log, self._debug, self.notes))
        except Her2BridgeError as error:
            with self._open:
                self._end(error)
        return self

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        if not isinstance(event, Progress | TaskProgress):
            _LOG.info("%s", _without_names(event))
        if self._lines is None:
            self.told(event)
        else:
            self._lines.write(to_json(event))
            if isinstance(event, ImageFailed):
                self.told.tell_failure(event)

    def write(self, line: str) -> None:
        """A line of JSON that is no event; only with ``as_json``."""
        if self._lines is not None:
            self._lines.write(line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            try:
                self.told.sum_up()
            except OSError as lost:
                error = lost
            if isinstance(error, Her2BridgeError):
                self._end(error)
            elif isinstance(error, KeyboardInterrupt):
                self._end(Interrupted("Stopped by Ctrl-C.", where="her2bridge", next_step="Run it again."))
            elif isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
                forget(sys.stdout.fileno())
                self._end(lost_output(error))
            elif isinstance(error, Exception) and not isinstance(error, typer.Exit):
                self._end(self._unforeseen(error), type(error).__name__)

    def _unforeseen(self, error: Exception) -> Her2BridgeError:
        _LOG.error("unforeseen", exc_info=error)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error).strip().partition("\n")[0]
        kept = f"from {self._log}" if self._log else "that the same command prints with --debug"
        return Her2BridgeError(
            f"An error that her2bridge did not foresee: {type(error).__name__}{': ' if text else ''}{text}",
            where=f"{frame.filename}, line {frame.lineno} (her2bridge {version()})",
            next_step=f"Please report it with the traceback {kept}.",
        )

    def _end(self, error: Her2BridgeError, name: str = "") -> NoReturn:
        """Tell the error and end the command."""
        self.told.tell_error(error)
        if self._lines is not None:
            name = name or type(error).__name__
            self._lines.write(to_json(Failed(name, error.what, error.where, error.next_step, error.exit_code)))
        raise typer.Exit(error.exit_code) from error


def _without_names(event: Event) -> str:
    """An event for the log: what it says of the machine and in numbers. Names of images and files may be patients'."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    shown = [f"{key}={value}" for key, value in values.items() if key in _LOGGED or isinstance(value, int | float)]
    return " ".join([event.name, *shown])


@contextmanager
def _logging(file: Path | None, debug: bool, notes: Console) -> Iterator[None]:
    """Our own warnings to standard error (with ``debug`` all that we log, tracebacks too), everything to the file.

    Raises:
        WriteFailed: the file cannot be written.
    """
    root, ours = logging.getLogger(), logging.getLogger("her2bridge")
    before = root.level, ours.level
    handlers: list[logging.Handler] = [_ToPeople(notes, file, debug)]
    if file is not None:
        try:
            handlers.append(logging.FileHandler(file, encoding="utf-8"))
        except OSError as error:
            raise WriteFailed(
                f"The log cannot be written ({error.strerror}).",
                where=str(file),
                next_step="Name a file in a folder that is there and that you may write to: --log FILE.",
            ) from error
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.WARNING)  # what libraries say in detail may hold names of files
    ours.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(before[0])
        ours.setLevel(before[1])
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


class _ToPeople(logging.Handler):
    """Our log above the progress bar: warnings, one line each; with ``debug`` all of it."""

    def __init__(self, notes: Console, file: Path | None, debug: bool) -> None:
        super().__init__(logging.DEBUG if debug else logging.WARNING)
        self._notes, self._file, self._debug = notes, file, debug
        self.addFilter(logging.Filter("her2bridge"))
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if self._debug:
            text = self.format(record)
        elif record.name == __name__:  # told as an error, not as a log line
            return
        elif record.exc_info:
            kept = f"is in {self._file}" if self._file else "is kept with --log FILE, or shown with --debug"
            text = f"Warning: {record.getMessage()}; the traceback {kept}"
        else:
            text = f"Warning: {record.getMessage()}"
        self._notes.print(text, soft_wrap=True)

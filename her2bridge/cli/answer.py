"""``her2bridge scripts answer``: the engine of the QuPath scripts."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from her2bridge.cli import options as opt
from her2bridge.cli.output import Output
from her2bridge.cli.run import end_with
from her2bridge.errors import UsageError
from her2bridge.events import Event, RunFinished
from her2bridge.qupath.request import RequestProject
from her2bridge.records import Specimen
from her2bridge.settings import RunSettings

_NAMES = (
    *("region_classes", "exclude_classes", "class_prefix", "min_overlap", "model", "device", "require_gpu"),
    *("precision", "runtime", "batch_size", "specimen", "mpp", "whspn", "score_settings", "selected", "recalculate"),
)
"""What a request may ask for: the fields of ``RunSettings``, and ``score_settings`` as the path of a TOML file."""

_TYPES = {"bool": bool, "str": str, "float": int | float, "int": int}
"""Kinds of fields, and what JSON may hold for them."""


def answer(
    request: Annotated[Path, typer.Argument(metavar="FOLDER", help="What a script has put down for one open image.")],
    watch_stdin: Annotated[
        bool, typer.Option("--watch-stdin", help="End when standard input closes: QuPath is gone, or has cancelled.")
    ] = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Score an image that is open in QuPath; the scripts call this. Events go to standard output as NDJSON.

    Exit code: 0, 1 if the image could not be scored, 2 for wrong usage, 130 when it was cancelled. Research use only.
    """
    finished = threading.Event()
    with Output(as_json=True, log=log, debug=debug) as output:
        if watch_stdin:
            threading.Thread(target=_interrupt_at_end_of_input, args=(finished,), daemon=True).start()
        project = RequestProject(request)
        settings = settings_of(project.settings, where=str(project.path))
        from her2bridge.run import score_project

        def hear(event: Event) -> None:
            if isinstance(event, RunFinished):  # the script closes our input as soon as it has read this
                finished.set()
            output(event)

        end_with(score_project(project, settings, hear))


def settings_of(asked: Mapping[str, Any], *, where: str) -> RunSettings:
    """The settings of a request; scores again whatever stands.

    Raises:
        UsageError: a setting that is none, of the wrong type, or that cannot be.
    """
    unknown = sorted(set(asked) - set(_NAMES))
    if unknown:
        what = f"There is no setting called {unknown[0]}."
        raise UsageError(what, where=where, next_step=f"The settings are: {', '.join(_NAMES)}.")
    values: dict[str, Any] = {name: value for name, value in asked.items() if value not in (None, "", [])}
    hints = get_type_hints(RunSettings)
    scores, specimen = (_typed(one, values.pop(one, ""), "str", where) for one in ("score_settings", "specimen"))
    for name, value in values.items():
        values[name] = _typed(name, value, str(hints[name]), where)
    return RunSettings(
        **values,
        specimen=None if specimen in ("", Specimen.NOT_STATED) else opt.specimen_of(specimen),
        scores=opt.score_settings_of(Path(scores) if scores else None),
        force=True,
    )


def _typed(name: str, value: Any, hint: str, where: str) -> Any:
    """A value as JSON has it, as the field wants it."""
    if "tuple" in hint:
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
    elif any(kind in hint and isinstance(value, types) for kind, types in _TYPES.items() if not _is_flag(value, kind)):
        return value
    raise UsageError(f"{name} cannot be {value!r}.", where=where, next_step="Look it up in docs/qupath.md.")


def _is_flag(value: Any, kind: str) -> bool:
    """Whether a value is true or false where a number is wanted; to Python these are numbers."""
    return isinstance(value, bool) and kind != "bool"


def _interrupt_at_end_of_input(finished: threading.Event) -> None:
    """Raise KeyboardInterrupt in the main thread when whoever started us is gone, unless the work was finished."""
    while sys.stdin.readline():
        pass
    if not finished.is_set():
        _thread.interrupt_main()

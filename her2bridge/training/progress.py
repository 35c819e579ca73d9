"""Counts of what is done, as events."""

from __future__ import annotations

from collections.abc import Callable

from her2bridge.events import Emit, TaskProgress
from her2bridge.pace import paced


def ticker(task: str, total: int, emit: Emit) -> Callable[[int], None]:
    """A function that is told how many of ``total`` are done, and tells ``TaskProgress`` a few times a second."""
    return paced(total, lambda done, rate, left: emit(TaskProgress(task, done, total, rate, left)))

"""Counts of what is done, turned into events a few times a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from her2bridge.events import Emit, TaskProgress

_SECONDS_BETWEEN_EVENTS = 0.2


def ticker(task: str, total: int, emit: Emit) -> Callable[[int], None]:
    """A function that is told how many of ``total`` are done, and tells ``TaskProgress``."""
    began = time.monotonic()
    last = began - _SECONDS_BETWEEN_EVENTS

    def tell(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < _SECONDS_BETWEEN_EVENTS:
            return
        last = now
        rate = done / max(now - began, 1e-6)
        emit(TaskProgress(task, done, total, rate, (total - done) / rate if rate else 0.0))

    return tell

"""How far long work is: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

import her2bridge.events as ev
from her2bridge.cli.console import printable

_SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """One bar at a time, on standard error."""

    def __init__(self, notes: Console) -> None:
        self._notes = notes
        self._last = 0.0
        self._title, self._total, self._unit = "", 0, ""
        self._shown: tuple[Progress, TaskID] | None = None

    def start(self, title: str, total: int, unit: str = "tiles") -> None:
        """Begin anew; ``unit`` is what is counted, and may be empty."""
        self.stop()
        self._title, self._total, self._unit = title, total, unit
        self._last = time.monotonic()
        if not self._notes.is_interactive:
            return
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {unit}"),
            TextColumn("{task.fields[speed]}"),
            console=self._notes,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._shown = bar, bar.add_task(title, total=total, speed="")
        bar.start()

    def follow(self, event: ev.TaskProgress) -> None:
        """Show a task; the first word of one begins its bar."""
        title = printable(event.task)
        if (self._title, self._total, self._unit) != (title, event.total, ""):
            self.start(title, event.total, "")
        self.show(event.done, event.per_second, event.seconds_left)

    def show(self, done: int, per_second: float, seconds_left: float) -> None:
        """Move on to ``done``."""
        rate = f"{per_second:,.0f}" if per_second >= 10 or self._unit else f"{per_second:,.1f}"
        speed = f"{rate} {self._unit}{'/s' if self._unit else 'a second'}, {span(seconds_left)} left"
        if self._shown is not None:
            bar, task = self._shown
            bar.update(task, completed=done, speed=speed)
        elif time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES and done < self._total:
            self._last = time.monotonic()
            counted = f"{done:,} of {self._total:,} {self._unit}".rstrip()
            self._notes.print(f"{self._title}: {counted}, {speed}", soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away."""
        self._title = ""
        if self._shown is not None:
            self._shown[0].stop()
            self._shown = None


def span(seconds: float) -> str:
    """``45 s``, ``3:07 min``, ``2:00 h``."""
    whole = math.ceil(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02} min" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02} h"

"""Where an image's time goes: what ``--profile`` tells."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TypeVar

from her2bridge.events import ImageTimed


class Stage(StrEnum):
    """What an image's time is spent on, one after the other; the time of all is that of the image."""

    PROJECT = "reading the project"
    TILING = "opening the slide, laying tiles"
    LOADING = "getting the network ready"
    PIXELS = "waiting for pixels"
    NETWORK = "classifying"
    SCORING = "scoring"
    WRITING = "writing"
    OTHER = "the rest"


Item = TypeVar("Item")


class Stopwatch:
    """Starts when it is made.

    Seconds of stages are those of the thread that does them; where a stage lies within another, the inner one's count
    for it alone. Decoding goes on in threads beside, whose seconds add up.
    """

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self._seconds = dict.fromkeys(Stage, 0.0)
        self._inner = 0.0
        self._decoding = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def on(self, stage: Stage) -> Iterator[None]:
        """Count what is done within for the stage."""
        began, outer, self._inner = time.perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self._seconds[stage] += spent - self._inner
            self._inner = outer + spent

    def each(self, stage: Stage, items: Iterable[Item]) -> Iterator[Item]:
        """The items; getting each counts for the stage, what is done with it does not."""
        iterator = iter(items)
        while True:
            with self.on(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def decoded(self, seconds: float) -> None:
        """A thread has read and decoded for so long; called from any thread."""
        with self._lock:
            self._decoding += seconds

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._began

    def told(self, image: str, tiles: int) -> ImageTimed:
        """What was spent so far on an image of so many classified tiles."""
        seconds = self.seconds
        stages = {**self._seconds, Stage.OTHER: max(0.0, seconds - sum(self._seconds.values()))}
        cores = available_cores()
        busy = (time.process_time() - self._cpu) / (seconds * cores) if seconds > 0 else 0.0
        by_name = {str(stage): spent for stage, spent in stages.items()}
        return ImageTimed(image, seconds, by_name, self._decoding, tiles, cores, min(1.0, busy))


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

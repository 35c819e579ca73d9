"""How ``end_to_end.py`` speaks with a runner: a process that stays, and does one job whenever it is told to.

One line of JSON each way. A request says what to do (``Job``); the answer is ``{"parts": {name: seconds}, "tiles": n}``
or ``{"error": text}``. A runner writes the origins and classes of its tiles to ``tiles.npz`` in the job's folder.
Whatever else the tools print goes to standard error: a runner imports this before its tool. Standard library and numpy
only, since this is imported in each peer's own environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

Job = dict[str, Any]
"""``slide``, ``out`` (an empty folder), ``model`` (the folder with the weights), ``batch``, ``workers``, ``whole``
(with mask and writing), and what a runner knows besides."""


_ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # from here on, for some print already when they are imported


class Parts:
    """Seconds of the parts of a job."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Time what is done within."""
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began


def save_tiles(folder: Path, origins: Any, classes: Any) -> int:
    """Keep what a job found: top left corners [n, 2] in pixels of the slide, and classes [n]; returns n."""
    origins, classes = np.asarray(origins, dtype=np.int64), np.asarray(classes, dtype=np.int64)
    np.savez(folder / "tiles.npz", origins=origins, classes=classes)
    return len(classes)


def serve(work: Callable[[Job, Parts], int]) -> None:
    """Answer requests until standard input ends. ``work`` does a job and returns the number of its tiles."""
    for line in sys.stdin:
        parts = Parts()
        try:
            answer = {"tiles": work(json.loads(line), parts), "parts": parts.seconds}
        except Exception as error:  # noqa: BLE001 - the table shall say why a peer cannot run, whatever it is
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        _ANSWERS.write(json.dumps(answer) + "\n")

"""How fast work goes, told a few times a second and once at its end."""

from __future__ import annotations

import time
from collections.abc import Callable

_SECONDS_BETWEEN = 0.2


def paced(total: int, tell: Callable[[int, float, float], None]) -> Callable[[int], None]:
    """A function that hears how many of ``total`` are done, and tells it with rate and seconds left."""
    began = time.monotonic()
    last = began - _SECONDS_BETWEEN

    def hear(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < _SECONDS_BETWEEN:
            return
        last = now
        rate = done / max(now - began, 1e-6)
        tell(done, rate, (total - done) / rate if rate else 0.0)

    return hear

"""Decoded segments that more than one read needs, kept until the last of them came."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

from her2bridge.records import ByteArray

BOUND = 128 * 2**20
"""Bytes of decoded segments that are kept at most: the edge between two rows of blocks of a slide 100,000 px wide."""


@dataclass(eq=False)
class _Kept:
    uses: int
    size: int
    pixels: Future[ByteArray | None] = field(default_factory=Future)


class SharedSegments:
    """A block's edge runs through segments that the blocks beside it need, too.

    Each is decoded by the thread that comes first; others wait for it. It is dropped after its last use, or, where
    that use never comes (the block beside is not wanted), when it is the longest unused and room is needed.
    """

    def __init__(self, bound: int = BOUND) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable, uses: int, size: int, decode: Callable[[], ByteArray]) -> ByteArray:
        """The segment, decoded if need be.

        Args:
            uses: how often it is asked for in all.
            size: its bytes when decoded.
            decode: makes it; what it raises is raised to each who asks.
        """
        if size > self._bound // 4:  # it would drive out all others
            return decode()
        with self._lock:
            kept = self._kept.get(key)
            is_first = kept is None
            if kept is None:
                kept = self._kept[key] = _Kept(uses, size)
                self._size += size
            kept.uses -= 1
            self._kept.move_to_end(key)
            if kept.uses <= 0:
                self._drop(key)
            while self._size > self._bound:
                self._drop(next(iter(self._kept)))
        if not is_first:
            pixels = kept.pixels.result()
            return decode() if pixels is None else pixels
        pixels = None
        try:
            pixels = decode()
            return pixels
        finally:
            kept.pixels.set_result(pixels)
            if pixels is None:  # it failed: those who wait find out for themselves
                with self._lock:
                    if self._kept.get(key) is kept:
                        self._drop(key)

    def _drop(self, key: Hashable) -> None:
        self._size -= self._kept.pop(key).size

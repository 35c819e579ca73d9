from __future__ import annotations

import numpy as np
import pytest

from her2bridge.inference.runtime.base import Pending
from her2bridge.inference.second_look import DOUBT, SecondLook, doubtful
from her2bridge.records import ByteArray, Float32Array


def row(first: float, second: float) -> list[float]:
    rest = (1 - first - second) / 4
    return [rest, first, rest, second, rest, rest]


SURE, CLOSE, TIE = row(0.6, 0.3), row(0.4, 0.4 - DOUBT / 2), row(0.35, 0.35)


class Answers:
    """Answers with the row that stands at a tile's first value; remembers what it saw."""

    name, device, depth = "table", "cpu", 3

    def __init__(self, precision: str, rows: list[list[float]]) -> None:
        self.precision = precision
        self._rows = np.array(rows, dtype=np.float32)
        self.seen: list[int] = []

    def __call__(self, tiles: ByteArray) -> Float32Array:
        which = tiles[:, 0, 0, 0]
        self.seen.extend(which.tolist())
        return self._rows[which]

    def start(self, tiles: ByteArray) -> Pending:
        return lambda: self(tiles)


def tiles(*which: int) -> ByteArray:
    made = np.zeros((len(which), 8, 8, 3), dtype=np.uint8)
    made[:, 0, 0, 0] = which
    return made


def test_only_doubtful_tiles_are_looked_at_again() -> None:
    fast = Answers("bf16", [SURE, CLOSE, TIE])
    exact = Answers("fp32", [row(0.1, 0.8), row(0.2, 0.7), row(0.3, 0.6)])
    made: list[int] = []
    both = SecondLook(fast, lambda: made.append(1) or exact)  # type: ignore[func-returns-value]
    assert (both.name, both.device, both.precision, both.depth) == ("table", "cpu", "bf16+fp32", 3)
    np.testing.assert_array_equal(both(tiles(0, 0)), np.array([SURE, SURE], dtype=np.float32))
    assert not made
    pending = [both.start(tiles(0, 1, 2, 0)), both.start(tiles(1, 1))]
    first, second = (one() for one in pending)
    wanted = np.array([SURE, row(0.2, 0.7), row(0.3, 0.6), SURE], dtype=np.float32)
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(second, wanted[[1, 1]])
    assert exact.seen == [1, 2, 1, 1]
    assert made == [1]


@pytest.mark.parametrize(("margin", "is_close"), [(DOUBT - 0.001, True), (DOUBT + 0.001, False), (0.0, True)])
def test_what_is_close(margin: float, is_close: bool) -> None:
    rows = np.array([row(0.4, 0.4 - margin), row(0.4 - margin, 0.4)], dtype=np.float32)
    assert doubtful(rows).tolist() == [is_close, is_close]


def test_what_is_no_number_is_passed_on() -> None:
    both = SecondLook(Answers("bf16", [[np.nan] * 6]), lambda: pytest.fail("a sum of NaN is no matter of doubt"))
    assert np.isnan(both(tiles(0))).all()


def test_no_tiles() -> None:
    assert doubtful(np.empty((0, 6), dtype=np.float32)).shape == (0,)

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest

from her2bridge.inference.one_colour import OncePerColour, one_colour
from her2bridge.inference.runtime.base import Pending
from her2bridge.records import ByteArray, Float32Array

SIZE = 64
WHITE, ROSE, BROWN = (255, 255, 255), (255, 241, 239), (120, 80, 40)


class Counting:
    """Tells of each tile its mean colour; its work is done when the result is taken."""

    name, device, precision = "counting", "cpu", "fp32"

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.seen: list[ByteArray] = []
        self._order: deque[int] = deque()

    def __call__(self, tiles: ByteArray) -> Float32Array:
        self.seen.extend(tiles)
        mean = tiles.reshape(len(tiles), -1, 3).mean(axis=1)
        return np.concatenate([mean, mean], axis=1).astype(np.float32)

    def start(self, tiles: ByteArray) -> Pending:
        assert len(tiles)
        return lambda: self(tiles)


def plain(*colours: tuple[int, int, int]) -> ByteArray:
    return np.stack([np.full((SIZE, SIZE, 3), colour, dtype=np.uint8) for colour in colours])


def tissue(count: int, seed: int = 0) -> ByteArray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def through(runtime: OncePerColour, batches: list[ByteArray]) -> Iterator[Float32Array]:
    """As the engine does: ``depth`` batches under way."""
    waiting: deque[Pending] = deque()
    for batch in batches:
        waiting.append(runtime.start(batch))
        if len(waiting) >= runtime.depth:
            yield waiting.popleft()()
    for result in waiting:
        yield result()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_every_tile_gets_what_the_network_says_of_it(depth: int) -> None:
    batches = [
        np.concatenate([tissue(3), plain(WHITE, ROSE)]),
        np.concatenate([plain(ROSE), tissue(2, 1), plain(WHITE, BROWN, BROWN)]),
        plain(WHITE, WHITE, ROSE),
        tissue(4, 2),
        plain(BROWN),
    ]
    expected = [Counting(1)(batch) for batch in batches]
    counting = Counting(depth)
    runtime = OncePerColour(counting)
    for found, wanted in zip(through(runtime, batches), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    if depth == 1:
        assert len(counting.seen) == 3 + 2 + 2 + 1 + 4
    assert (runtime.name, runtime.device, runtime.precision, runtime.depth) == ("counting", "cpu", "fp32", depth)


def test_a_batch_of_known_colours_asks_nothing() -> None:
    counting = Counting(1)
    runtime = OncePerColour(counting)
    first = runtime(plain(WHITE, WHITE))
    assert len(counting.seen) == 1
    np.testing.assert_array_equal(runtime(plain(*[WHITE] * 50)), np.repeat(first[:1], 50, axis=0))
    assert len(counting.seen) == 1


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (17, 33), (SIZE - 1, SIZE - 1)])
@pytest.mark.parametrize("channel", [0, 2])
def test_one_pixel_makes_a_difference(place: tuple[int, int], channel: int) -> None:
    tiles = plain(WHITE, WHITE, ROSE)
    tiles[1, place[0], place[1], channel] -= 1
    assert one_colour(tiles).tolist() == [True, False, True]


def test_no_tiles() -> None:
    assert one_colour(np.empty((0, SIZE, SIZE, 3), dtype=np.uint8)).shape == (0,)

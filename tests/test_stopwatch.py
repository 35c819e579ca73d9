from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from her2bridge.stopwatch import Stage, Stopwatch, available_cores


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clocks say: [wall, cpu]."""
    now = [100.0, 7.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[1])
    return now


def test_stages_add_up_to_the_image(clock: list[float]) -> None:
    watch = Stopwatch()
    for stage, seconds in ((Stage.TILING, 1.0), (Stage.PIXELS, 0.5), (Stage.NETWORK, 2.0), (Stage.PIXELS, 0.25)):
        with watch.on(stage):
            clock[0] += seconds
        clock[0] += 0.125
    clock[1] += 3.0
    told = watch.told("a.svs", 12)
    assert told.stages["opening the slide, laying tiles"] == 1.0
    assert told.stages["waiting for pixels"] == 0.75
    assert told.stages["classifying"] == 2.0
    assert told.stages["the rest"] == 0.5
    assert told.seconds == watch.seconds == sum(told.stages.values()) == 4.25
    assert set(told.stages) == {str(stage) for stage in Stage}
    assert (told.image, told.tiles, told.cores) == ("a.svs", 12, available_cores())
    assert told.cores_busy == pytest.approx(min(1.0, 3.0 / (4.25 * told.cores)))


def test_what_lies_within_a_stage_counts_for_itself_alone(clock: list[float]) -> None:
    watch = Stopwatch()
    with watch.on(Stage.WRITING):
        clock[0] += 1
        with watch.on(Stage.SCORING):
            clock[0] += 2
            with watch.on(Stage.PIXELS):
                clock[0] += 4
        clock[0] += 8
    stages = watch.told("a", 0).stages
    assert (stages["writing"], stages["scoring"], stages["waiting for pixels"]) == (9, 2, 4)


def test_getting_each_item_counts_and_what_is_done_with_it_does_not(clock: list[float]) -> None:
    watch = Stopwatch()

    def raw() -> Iterator[int]:
        for number in range(3):
            clock[0] += 1
            yield number
        clock[0] += 0.5

    def cooked(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            clock[0] += 10
            yield item * 2

    found = []
    for item in watch.each(Stage.NETWORK, cooked(watch.each(Stage.PIXELS, raw()))):
        found.append(item)
        clock[0] += 100
    assert found == [0, 2, 4]
    told = watch.told("a", 0)
    assert (told.stages["waiting for pixels"], told.stages["classifying"], told.stages["the rest"]) == (3.5, 30, 300)


def test_an_error_is_timed_too(clock: list[float]) -> None:
    watch = Stopwatch()

    def failing() -> None:
        with watch.on(Stage.NETWORK):
            clock[0] += 1
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        failing()
    assert watch.told("a", 0).stages["classifying"] == 1


def test_decoding_adds_up_over_threads() -> None:
    watch = Stopwatch()
    threads = [threading.Thread(target=lambda: [watch.decoded(0.5) for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watch.told("a", 0).decoding_seconds == 2000

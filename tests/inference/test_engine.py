from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
from coordinate_slide import coordinate_pixels, write_slide
from shapely.geometry import box

from her2bridge.errors import Interrupted, ModelError, SlideNotFound
from her2bridge.inference.engine import SlideJob, predict_slide
from her2bridge.inference.runtime.base import Pending
from her2bridge.records import ByteArray, Float32Array, Region, Rotate, SlideSource, TileGrid, TileSpec
from her2bridge.slides import open_slide
from her2bridge.tiling import make_grid

SPEC = TileSpec(64, 0.25)
WIDTH, HEIGHT = 900, 700


class ColourRuntime:
    """Tells in its six columns the mean colour and a corner's colour: what it saw, and where it lay."""

    name = "colour"
    device = "cpu"
    precision = "fp32"

    def __init__(self, depth: int = 1) -> None:
        self.batches: list[int] = []
        self.depth = depth
        self.most_under_way = 0
        self._under_way: deque[int] = deque()
        self._started = 0

    def __call__(self, tiles: ByteArray) -> Float32Array:
        self.batches.append(len(tiles))
        mean = tiles.reshape(len(tiles), -1, 3).mean(axis=1)
        return np.concatenate([mean, tiles[:, 0, 0]], axis=1).astype(np.float32)

    def start(self, tiles: ByteArray) -> Pending:
        number, self._started = self._started, self._started + 1
        self._under_way.append(number)
        self.most_under_way = max(self.most_under_way, len(self._under_way))

        def result() -> Float32Array:
            assert self._under_way.popleft() == number  # in order, and once
            return self(tiles)

        return result


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SlideSource:
    path = write_slide(tmp_path_factory.mktemp("engine") / "s.tif", coordinate_pixels(WIDTH, HEIGHT))
    return SlideSource(path, view=(Rotate(1),))


def grid_over(x0: float, y0: float, x1: float, y1: float) -> TileGrid:
    return make_grid([Region("id", None, "Tumor", box(x0, y0, x1, y1))], SPEC, 0.25, (HEIGHT, WIDTH))


@pytest.mark.parametrize("depth", [1, 2, 3, 100])
def test_right_pixels_reach_the_right_tile(source: SlideSource, depth: int) -> None:
    grid, runtime, done = grid_over(30, 100, 600, 820), ColourRuntime(depth), list[int]()
    predictions = predict_slide(SlideJob(source, grid), runtime, batch_size=10, on_progress=done.append)
    shown = np.rot90(coordinate_pixels(WIDTH, HEIGHT), -1)
    expected = []
    for x, y in grid.origins().astype(int):
        tile = shown[y : y + 64, x : x + 64]
        expected.append(np.concatenate([tile.reshape(-1, 3).mean(axis=0), tile[0, 0]]))
    np.testing.assert_allclose(predictions.probabilities, np.array(expected), rtol=1e-5)
    assert predictions.probabilities.dtype == np.float32
    assert predictions.grid is grid
    assert done == np.cumsum(runtime.batches).tolist()
    assert done[-1] == len(grid)
    assert set(runtime.batches[:-1]) == {10}
    assert runtime.most_under_way == min(depth, len(runtime.batches))


def test_open_slide_is_left_open(source: SlideSource) -> None:
    with open_slide(source) as slide:
        for _ in range(2):
            predict_slide(SlideJob(source, grid_over(0, 0, 200, 200)), ColourRuntime(), slide=slide)


def test_no_tiles_need_no_slide(tmp_path: Path) -> None:
    job = SlideJob(SlideSource(tmp_path / "gone.svs"), grid_over(0, 0, 5, 5))
    assert predict_slide(job, ColourRuntime()).probabilities.shape == (0, 6)
    with pytest.raises(SlideNotFound):
        predict_slide(SlideJob(job.source, grid_over(0, 0, 100, 100)), ColourRuntime())


def test_stop(source: SlideSource) -> None:
    runtime = ColourRuntime()
    with pytest.raises(Interrupted) as error:
        predict_slide(
            SlideJob(source, grid_over(0, 0, 640, 640)),
            runtime,
            batch_size=10,
            should_stop=lambda: len(runtime.batches) == 2,
        )
    assert error.value.what == "Stopped after 20 of 100 tiles."


def test_not_a_number_is_an_error(source: SlideSource) -> None:
    class Broken(ColourRuntime):
        def __call__(self, tiles: ByteArray) -> Float32Array:
            return np.full((len(tiles), 6), np.nan, dtype=np.float32)

    with pytest.raises(ModelError) as error:
        predict_slide(SlideJob(source, grid_over(0, 0, 100, 100)), Broken())
    assert "fp32" in error.value.next_step

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from coordinate_slide import coordinate_pixels, write_slide
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from her2bridge.errors import SlideUnreadable
from her2bridge.inference.reader import _Batches, plan_blocks, read_tiles
from her2bridge.records import ByteArray, Flip, IntArray, Region, Rotate, SlideSource, TileGrid, TileSpec
from her2bridge.slides import Slide, open_slide
from her2bridge.tiling import make_grid

WIDTH, HEIGHT = 1530, 1270
SPEC = TileSpec(64, 0.25)  # small tiles: many blocks on a small slide


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("reader") / "s.tif", coordinate_pixels(WIDTH, HEIGHT), levels=3)


def grid_over(geometry: BaseGeometry, mpp: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> TileGrid:
    return make_grid([Region("id", None, "Tumor", geometry)], SPEC, mpp, size)


WHOLE = box(0, 0, WIDTH, HEIGHT)
RAGGED = Polygon([(10, 10), (1500, 200), (900, 600), (1400, 1260), (300, 800), (600, 500)])


def collect(slide: Slide, grid: TileGrid, **options: int) -> tuple[list[int], IntArray, ByteArray]:
    """Batch sizes, indices and pixels of all batches."""
    batches = list(read_tiles(slide, grid, **{"batch_size": 32, **options}))
    indices = np.concatenate([indices for indices, _ in batches])
    return [len(rows) for rows, _ in batches], indices, np.concatenate([pixels for _, pixels in batches])


def one_by_one(slide: Slide, grid: TileGrid) -> ByteArray:
    """The slow way: a read for each tile."""
    side, size = grid.side, grid.spec.size_px
    return np.stack([slide.read(x, y, side, side, size, size) for x, y in grid.origins()])


class TestPlan:
    @pytest.mark.parametrize("geometry", [WHOLE, RAGGED])
    def test_every_tile_once_in_slide_order(self, geometry: BaseGeometry) -> None:
        grid = grid_over(geometry, 0.25)
        blocks = plan_blocks(grid, 5)
        tiles = np.concatenate([block.tiles for block in blocks])
        assert sorted(tiles.tolist()) == list(range(len(grid)))
        places = [(grid.rows[block.tiles[0]] // 5, block.i0 // 5) for block in blocks]
        assert places == sorted(places)
        for block in blocks:
            i, j = grid.columns[block.tiles], grid.rows[block.tiles]
            assert (block.i0, block.i1, block.j0, block.j1) == (i.min(), i.max() + 1, j.min(), j.max() + 1)
            assert block.i1 - block.i0 <= 5
            assert block.j1 - block.j0 <= 5

    def test_only_blocks_that_hold_tiles(self) -> None:
        far_apart = box(0, 0, 64, 64).union(box(1408, 1152, 1472, 1216))
        blocks = plan_blocks(grid_over(far_apart, 0.25))
        assert [(block.i1 - block.i0, block.j1 - block.j0) for block in blocks] == [(1, 1), (1, 1)]

    def test_empty(self) -> None:
        assert plan_blocks(grid_over(box(0, 0, 5, 5), 0.25)) == []


class TestRead:
    @pytest.mark.parametrize("geometry", [WHOLE, RAGGED])
    def test_tiles_are_the_slides_own_pixels(self, slide_path: Path, geometry: BaseGeometry) -> None:
        grid = grid_over(geometry, 0.25)
        with open_slide(SlideSource(slide_path)) as slide:
            sizes, indices, pixels = collect(slide, grid, workers=3)
        assert sorted(indices.tolist()) == list(range(len(grid)))
        assert set(sizes[:-1]) <= {32}
        assert 0 < sizes[-1] <= 32
        plane = np.full((HEIGHT + 64, WIDTH + 64, 3), 255, dtype=np.uint8)
        plane[:HEIGHT, :WIDTH] = coordinate_pixels(WIDTH, HEIGHT)
        for index, tile in zip(indices, pixels, strict=True):
            x, y = 64 * grid.columns[index], 64 * grid.rows[index]
            np.testing.assert_array_equal(tile, plane[y : y + 64, x : x + 64])

    @pytest.mark.parametrize("mpp", [0.25, 0.242, 0.2, 0.125, 0.07, 0.5, 0.3333])
    def test_block_reads_equal_tile_reads(self, slide_path: Path, mpp: float) -> None:
        """The fast path against the slow one, at every level of the pyramid and off it."""
        view = (Rotate(1), Flip(True, False))
        with open_slide(SlideSource(slide_path, view=view)) as slide:
            grid = grid_over(RAGGED, mpp, slide.size)
            _, indices, pixels = collect(slide, grid, block_tiles=6)
            slow = one_by_one(slide, grid)[indices]
        difference = np.abs(pixels.astype(np.int16) - slow)
        assert difference.max() <= 1
        if mpp in (0.25, 0.125):
            assert difference.max() == 0

    @pytest.mark.parametrize("batch_size", [1, 7, 64, 10_000])
    def test_batch_sizes(self, slide_path: Path, batch_size: int) -> None:
        grid = grid_over(RAGGED, 0.25)
        with open_slide(SlideSource(slide_path)) as slide:
            sizes, indices, _ = collect(slide, grid, batch_size=batch_size, block_tiles=3)
        full, rest = divmod(len(grid), batch_size)
        assert sizes == [batch_size] * full + [rest] * bool(rest)
        assert sorted(indices.tolist()) == list(range(len(grid)))

    def test_a_batch_is_given_when_its_last_tile_is_there(self) -> None:
        batches = _Batches(10, 4, 2)
        assert sum(1 for _ in batches.rooms(7)) == 7
        given = [[len(batch) for batch in batches.taken(ready)] for ready in (3, 4, 7)]
        assert sum(1 for _ in batches.rooms(3)) == 3
        given += [[len(batch) for batch in batches.taken(ready)] for ready in (7, 8, 9, 10)]
        assert given == [[], [4], [], [], [4], [], [2]]

    def test_empty_grid(self, slide_path: Path) -> None:
        with open_slide(SlideSource(slide_path)) as slide:
            assert list(read_tiles(slide, grid_over(box(0, 0, 5, 5), 0.25), batch_size=8)) == []


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("her2bridge-reader")]


class TestThreads:
    @pytest.fixture
    def counted(self, slide_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Slide, list[float]]:
        slide = open_slide(SlideSource(slide_path))
        reads: list[float] = []
        read: Callable[..., ByteArray] = slide.read

        def counting(*arguments: float) -> ByteArray:
            reads.append(arguments[1])
            return read(*arguments)

        monkeypatch.setattr(slide, "read", counting)
        return slide, reads

    def test_queue_is_bounded(self, counted: tuple[Slide, list[float]]) -> None:
        """Nobody takes the second batch: reading ahead stops."""
        slide, reads = counted
        with (
            slide,
            closing(read_tiles(slide, grid_over(WHOLE, 0.25), batch_size=4, workers=2, block_tiles=2)) as batches,
        ):
            next(batches)
            threading.Event().wait(0.3)
            assert len(reads) <= 5

    def test_stopping_early_leaves_no_thread(self, counted: tuple[Slide, list[float]]) -> None:
        slide, reads = counted
        with slide:
            batches = read_tiles(slide, grid_over(WHOLE, 0.25), batch_size=4, workers=3, block_tiles=2)
            next(batches)
            assert readers()
            batches.close()
            assert not readers()
            assert len(reads) < 10

    @pytest.mark.parametrize(("cores", "threads"), [(3, 3), (64, 32)])
    def test_a_thread_for_each_core_but_not_without_bound(
        self, slide_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
    ) -> None:
        monkeypatch.setattr("her2bridge.inference.reader.available_cores", lambda: cores)
        go = threading.Event()
        calls = []

        def waiting(*arguments: float) -> ByteArray:
            calls.append(arguments)
            assert go.wait(30)
            return np.zeros((int(arguments[5]), int(arguments[4]), 3), dtype=np.uint8)

        with open_slide(SlideSource(slide_path)) as slide:
            monkeypatch.setattr(slide, "read", waiting)
            batches = read_tiles(slide, grid_over(WHOLE, 0.25), batch_size=4, block_tiles=2)
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(next, batches)
                while len(calls) < threads:
                    threading.Event().wait(0.01)
                threading.Event().wait(0.1)
                assert len(calls) == len(readers()) == threads
                go.set()
                assert len(first.result(30)[0]) == 4
            batches.close()

    @pytest.mark.parametrize("error", [SlideUnreadable("x.", where="y", next_step="z."), KeyboardInterrupt()])
    def test_errors_come_through_and_end_the_threads(
        self, slide_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        calls = []

        def failing(*arguments: float) -> ByteArray:
            calls.append(arguments)
            if len(calls) == 3:
                raise error
            return np.zeros((int(arguments[5]), int(arguments[4]), 3), dtype=np.uint8)

        with open_slide(SlideSource(slide_path)) as slide:
            monkeypatch.setattr(slide, "read", failing)
            with pytest.raises(type(error)):
                list(read_tiles(slide, grid_over(WHOLE, 0.25), batch_size=4, workers=2, block_tiles=2))
        assert not readers()
        assert len(calls) <= 8

"""How many tiles a second are read: a call for each tile, as people write it, against her2bridge's reader.

python benchmarks/reading.py [--size 10240] [--seconds 3] [--json reading.json]

Four cases: tiles of 256 px on a slide's own grid of 256-px JPEG tiles; the same half a tile off it; at 0.242 µm/px, so
that each tile is 264.5 px resampled to 256; and CMU-1-Small-Region.svs, whose JPEG tiles are of 240 px, where it is
there. Nothing is done with the pixels. Rounds of all readers alternate, the middle one counts. tiffslide decodes the
parts of one call in threads of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import openslide
import tiffslide
from bench import markdown_table, median, usable_cores, versions, write_json
from PIL import Image
from shapely.geometry import box
from slides import MPP, SIDE, mosaic

from her2bridge.inference.reader import read_tiles
from her2bridge.records import Crop, Region, SlideSource, TileGrid, TileSpec
from her2bridge.slides import open_slide
from her2bridge.tiling import make_grid

SVS = Path(__file__).parents[2] / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
ROUNDS = 3
BATCH = 32


@dataclass(frozen=True)
class Case:
    """Tiles of a slide: where the first begins (pixels of it, x and y alike), at which µm/px it is taken."""

    name: str
    path: Path
    start: int
    mpp: float

    @property
    def side(self) -> float:
        """A tile's side in the slide's pixels."""
        return SIDE * MPP / self.mpp

    def grid(self) -> tuple[SlideSource, TileGrid]:
        """The whole tiles from ``start`` on."""
        with open_slide(SlideSource(self.path)) as slide:
            width, height = (int((extent - self.start) // self.side * self.side) for extent in slide.size)
        view = (Crop(self.start, self.start, width, height),)
        spec = TileSpec(SIDE, MPP)
        region = Region("all", None, "Tumor", box(0, 0, width, height))
        return SlideSource(self.path, view=view), make_grid([region], spec, self.mpp, (width, height))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=10_240, help="side of the slide that is drawn, px")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each reader, case and round")
    parser.add_argument("--svs", type=Path, default=SVS, help="the slide of 240-px tiles")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drawn = mosaic(Path(folder) / "mosaic.tif", args.size // SIDE, args.size // SIDE)
        cases = [
            Case("256-px tiles, on the grid", drawn, 0, MPP),
            Case("256-px tiles, half a tile off", drawn, SIDE // 2, MPP),
            Case("256-px tiles, resampled", drawn, 0, 0.242),
        ]
        cases += [Case("240-px SVS", args.svs, 0, MPP)] if args.svs.is_file() else []
        rows = [row for case in cases for row in measure(case, args.seconds)]
    print(markdown_table(rows))
    if args.json:
        names = ("tiffslide", "tifffile", "imagecodecs", "zarr", "openslide-python", "openslide-bin", "pillow", "numpy")
        write_json(args.json, "reading", rows, versions=versions(*names))


def measure(case: Case, seconds: float) -> list[dict[str, str | int | float]]:
    """A row for each reader."""
    source, grid = case.grid()
    cores = usable_cores()
    readers: dict[tuple[str, int], Callable[[], Generator[int, None, None]]] = {
        ("tiffslide, a call a tile", 1): lambda: by_tiffslide(case, grid),
        ("OpenSlide, a call a tile", 1): lambda: by_openslide(case, grid),
        ("her2bridge", 1): lambda: ours(source, grid, 1),
    }
    if cores > 1:
        readers["her2bridge", cores] = lambda: ours(source, grid, cores)
    speeds: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in readers}
    for _ in range(ROUNDS):
        for key, reader in readers.items():
            speeds[key].append(speed_of(reader(), seconds))
    loop = median([speed for speed, _ in speeds["tiffslide, a call a tile", 1]])
    rows = []
    for (name, threads), found in speeds.items():
        speed, cpu = (median(values) for values in zip(*found, strict=True))
        row = {
            "slide": case.name,
            "reader": name,
            "threads": threads,
            "tiles/s": speed,
            "times the first": speed / loop,
        }
        rows.append(row | {"CPU ms a tile": cpu})
    return rows


def speed_of(read: Generator[int, None, None], seconds: float) -> tuple[float, float]:
    """What an endless reader does in so many seconds: tiles a second, and CPU time of a tile in ms, of all threads.

    Opening the slide, up to the first that it yields, does not count.
    """
    with closing(read):
        next(read)
        done, began, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            done += next(read)
        return done / (time.perf_counter() - began), 1e3 * (time.process_time() - cpu) / done


def by_tiffslide(case: Case, grid: TileGrid) -> Generator[int, None, None]:
    with tiffslide.TiffSlide(case.path) as slide:
        yield 0
        for x, y, side in places(case, grid):
            pixels = slide.read_region((x, y), 0, (side, side), as_array=True)
            yield len(as_tile(Image.fromarray(pixels) if side != SIDE else pixels)[None])


def by_openslide(case: Case, grid: TileGrid) -> Generator[int, None, None]:
    with openslide.OpenSlide(case.path) as slide:
        yield 0
        for x, y, side in places(case, grid):
            yield len(as_tile(slide.read_region((x, y), 0, (side, side)).convert("RGB"))[None])


def ours(source: SlideSource, grid: TileGrid, workers: int) -> Generator[int, None, None]:
    with open_slide(source) as slide:
        yield 0
        while True:
            with closing(read_tiles(slide, grid, batch_size=BATCH, workers=workers)) as batches:
                for indices, _ in batches:
                    yield len(indices)


def places(case: Case, grid: TileGrid) -> Iterator[tuple[int, int, int]]:
    """x, y and side of each tile in whole pixels of the slide, in the grid's order, over and over."""
    for x, y in cycle(grid.origins().tolist()):
        yield case.start + round(x), case.start + round(y), round(case.side)


def as_tile(pixels: Image.Image | np.ndarray) -> np.ndarray:
    """uint8 [256, 256, 3]."""
    if isinstance(pixels, Image.Image) and pixels.size != (SIDE, SIDE):
        pixels = pixels.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(pixels)


if __name__ == "__main__":
    main()

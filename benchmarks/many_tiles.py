"""Tiles for benchmarks of the network: real cores and drawn slides, each under many grids.

A grid is moved by a part of a tile and laid at a slightly other µm/px, so that the same tissue gives other tiles. They
overlap, and are not independent: they show what rounding does to many pictures, not how good a model is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shapely import affinity

from her2bridge import open_project
from her2bridge.qupath.regions import RegionChoice, choose_regions
from her2bridge.qupath.server_builder import slide_source
from her2bridge.records import ByteArray, Region, SlideSource, TileGrid, TileSpec
from her2bridge.slides import open_slide
from her2bridge.synth.layout import SlideTruth
from her2bridge.synth.slide import write_slide
from her2bridge.tiling import make_grid

MPP = (0.25, 0.243, 0.257, 0.236, 0.264)
"""What the grids take a pixel for, in turn, in µm; at the first one pixels are the file's own."""
STEPS = (0.6180339887, 0.7548776662)
"""Parts of a tile by which each grid is moved further than the one before, across and down: they never repeat."""
DRAWN_PX = 4096


@dataclass(frozen=True, eq=False)
class Picture:
    """A slide and what is scored on it."""

    name: str
    source: SlideSource
    regions: tuple[Region, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """The tiles of one slide under one grid, n of them.

    Attributes:
        name: fit for a file name.
        source: the slide.
        grid: as a run would lay it, but on a picture that is moved by ``shift``.
        shift: pixels, across and down.
    """

    name: str
    source: SlideSource
    grid: TileGrid
    shift: tuple[float, float]

    def pixels(self) -> ByteArray:
        """The tiles, uint8 [n, size, size, 3]."""
        side, size = self.grid.side, self.grid.spec.size_px
        with open_slide(self.source) as slide:
            places = (self.grid.origins() - self.shift).tolist()
            return np.stack([slide.read(x, y, side, side, size, size) for x, y in places])


def cores(folder: Path) -> list[Picture]:
    """The real cores and their ``Tumor`` regions; ``folder`` is ``her2_cores``, to which nothing is written."""
    project = open_project(folder / "analysis", "files")
    found = []
    for entry in project.entries:
        source = slide_source(entry.server_json, folder=project.folder, saved_uri=project.saved_uri)
        regions = choose_regions(entry.annotations(), RegionChoice(), where=entry.name).regions
        found.append(Picture(entry.name.removesuffix(".tif"), source, regions))
    return found


def drawn(folder: Path, count: int) -> list[Picture]:
    """Drawn slides, written to ``folder`` once; all that is not glass is scored."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in range(100, 100 + count):
        path, told = folder / f"drawn-{seed}.tif", folder / f"drawn-{seed}.json"
        if not told.exists():
            write_slide(path, DRAWN_PX, DRAWN_PX, seed=seed, workers=1).write_json(told)
        areas = SlideTruth.read_json(told).areas
        regions = tuple(Region(str(n), None, "Tumor", one.geometry) for n, one in enumerate(areas))
        found.append(Picture(path.stem, SlideSource(path), regions))
    return found


def parts(pictures: Sequence[Picture], spec: TileSpec, first_grid: int = 0) -> Iterator[Part]:
    """All pictures under one grid, then under the next, without end."""
    sizes = {}
    for picture in pictures:
        with open_slide(picture.source) as slide:
            sizes[picture.name] = slide.size
    for number in itertools.count(first_grid):
        mpp = MPP[number % len(MPP)]
        side = spec.side(mpp)
        shift = (number * STEPS[0] % 1.0 * side, number * STEPS[1] % 1.0 * side)
        for picture in pictures:
            moved = [_moved(region, shift) for region in picture.regions]
            size = tuple(int(np.ceil(a + b)) for a, b in zip(sizes[picture.name], shift, strict=True))
            grid = make_grid(moved, spec, mpp, (size[0], size[1]))
            yield Part(f"{picture.name}-grid{number}", picture.source, grid, shift)


def at_least(tiles: int, found: Iterator[Part]) -> list[Part]:
    """As many parts as hold that many tiles."""
    taken: list[Part] = []
    while sum(len(part.grid) for part in taken) < tiles:
        taken.append(next(found))
    return taken


def _moved(region: Region, shift: tuple[float, float]) -> Region:
    return Region(region.id, region.name, region.class_name, affinity.translate(region.geometry, *shift))

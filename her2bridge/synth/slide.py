"""A synthetic slide: a pyramidal, tiled JPEG TIFF with µm/px, and its truth.

Tissue is rendered patch by patch, each a field of its own class, so that no picture larger than a patch is held in
memory; the slide itself is put together in a file. Each patch has a seed of its own and they are pasted in order: equal
seeds give equal slides whatever ``workers`` is.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw
from scipy import ndimage
from shapely.geometry.base import BaseGeometry
from threadpoolctl import threadpool_limits

from her2bridge.records import ByteArray, TileClass
from her2bridge.synth.fields import Imaging, render_field, sample_ground
from her2bridge.synth.layout import SlideTruth, lay_out
from her2bridge.synth.noise import enlarge, smooth_noise, step
from her2bridge.synth.stains import F32, Stains, sample_stains
from her2bridge.synth.tissue import Ground

PATCH_UM = 400.0
"""About how wide a patch is: a tumour does not grow alike over millimetres."""
_FEATHER_UM = 5.0
_TILE = 256
_REDUCED = (1, 4, 16)


@dataclass(frozen=True, eq=False)
class _Patch:
    """One field to render and paste, as it travels to a worker; outlines are WKB in pixels of the slide."""

    tile_class: TileClass
    outline: bytes
    tissue: bytes
    bounds: tuple[int, int, int, int]
    seed: tuple[int, ...]
    mpp: float
    stains: Stains
    ground: Ground
    imaging: Imaging


def write_slide(
    path: Path,
    width: int = 12_288,
    height: int = 8_192,
    mpp: float = 0.25,
    seed: int = 0,
    *,
    workers: int = 2,
    quality: int = 90,
) -> SlideTruth:
    """Render a slide of ``width`` × ``height`` pixels and write it to ``path`` (``.tif``, ``.tiff``).

    Levels are 1, 4 and 16 times reduced. ``workers`` processes render (1: this one alone).
    """
    truth = lay_out(width, height, mpp, seed)
    rng = np.random.default_rng([seed, 2])
    stains = sample_stains(rng)
    ground = sample_ground(rng, mpp)
    imaging = Imaging(blur=rng.uniform(0.15, 0.3), sharpen=0.0, grain=1.2, jpeg=None)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        pixels = np.memmap(Path(folder) / "pixels", dtype=np.uint8, mode="w+", shape=(height, width, 3))
        lay_glass(pixels, stains, np.random.default_rng([seed, 3]))
        for (x, y, _, _), picture, cover in _render(_patches(truth, stains, ground, imaging), workers):
            window = pixels[y : y + picture.shape[0], x : x + picture.shape[1]]
            weight = cover[..., None].astype(np.float32) / np.float32(255.0)
            window[...] = (window + (picture - window.astype(np.float32)) * weight + 0.5).astype(np.uint8)
        part = Path(folder) / path.name
        write_pyramid(part, pixels, mpp, quality)
        del pixels
        part.replace(path)
    return truth


def _patches(truth: SlideTruth, stains: Stains, ground: Ground, imaging: Imaging) -> list[_Patch]:
    """The areas cut into patches; tissue ends where its piece ends, patches of one piece run into each other."""
    rng = np.random.default_rng([truth.seed, 4])
    pieces = shapely.get_parts(shapely.union_all([shapely.buffer(area.geometry, 1.0) for area in truth.areas]))
    margin = int(2 * _FEATHER_UM / truth.mpp) + 2
    found = []
    for number, area in enumerate(truth.areas):
        piece = next(p for p in pieces if p.intersects(area.geometry.representative_point()))
        for index, outline in enumerate(_split(rng, area.geometry, PATCH_UM / truth.mpp)):
            x0, y0, x1, y1 = outline.bounds
            bounds = (
                max(int(x0) - margin, 0),
                max(int(y0) - margin, 0),
                min(int(x1) + margin, truth.width),
                min(int(y1) + margin, truth.height),
            )
            seed = (truth.seed, 5, number, index)
            whole = shapely.to_wkb(piece)
            found.append(
                _Patch(
                    area.tile_class, shapely.to_wkb(outline), whole, bounds, seed, truth.mpp, stains, ground, imaging
                )
            )
    return found


def _split(rng: np.random.Generator, geometry: BaseGeometry, spacing: float) -> list[BaseGeometry]:
    """A geometry cut along a Voronoi diagram of jittered points about ``spacing`` apart."""
    x0, y0, x1, y1 = geometry.bounds
    columns, rows = max(round((x1 - x0) / spacing), 1), max(round((y1 - y0) / spacing), 1)
    if columns * rows == 1:
        return [geometry]
    grid = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1).reshape(-1, 2)
    grid = grid + rng.uniform(-0.3, 0.3, grid.shape)
    points = grid * [(x1 - x0) / columns, (y1 - y0) / rows] + [x0, y0]
    diagram = shapely.voronoi_polygons(shapely.multipoints(points), extend_to=shapely.box(x0, y0, x1, y1))
    parts = [cell.intersection(geometry) for cell in shapely.get_parts(diagram)]
    return [part for part in parts if part.area > 0]


def _render(patches: list[_Patch], workers: int) -> Iterator[tuple[tuple[int, int, int, int], ByteArray, ByteArray]]:
    """Bounds, picture and cover of each patch, in order."""
    if workers <= 1:
        for patch in patches:
            yield (patch.bounds, *_render_patch(patch))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        ahead = 2 * workers  # Only a few results wait at a time, so that memory does not grow with the slide.
        with _children_deaf_to_ctrl_c():
            waiting = deque(pool.submit(_render_patch, patch) for patch in patches[:ahead])
        for index, patch in enumerate(patches):
            picture, cover = waiting.popleft().result()
            if index + ahead < len(patches):
                waiting.append(pool.submit(_render_patch, patches[index + ahead]))
            yield patch.bounds, picture, cover


@contextmanager
def _children_deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started meanwhile leave Ctrl-C to this one, from their first import on: each would tell of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _render_patch(patch: _Patch) -> tuple[ByteArray, ByteArray]:
    """Picture uint8 [h, w, 3] and cover uint8 [h, w] (255: the patch, 0: what lies below)."""
    rng = np.random.default_rng(patch.seed)
    x0, y0, x1, y1 = patch.bounds
    shape = (y1 - y0, x1 - x0)
    # Small matrices on several threads in several processes would slow each other down fourfold.
    with threadpool_limits(1):
        field = render_field(
            patch.tile_class,
            rng,
            shape,
            patch.mpp,
            stains=patch.stains,
            ground=patch.ground,
            imaging=patch.imaging,
            whole=True,
        )
    feather = max(int(_FEATHER_UM / patch.mpp / 2.0), 1)
    grown = shapely.buffer(shapely.from_wkb(patch.outline), 1.2 * _FEATHER_UM / patch.mpp)
    inner = ndimage.uniform_filter(_raster(grown, patch.bounds), 2 * feather + 1)
    edge = ndimage.uniform_filter(_raster(shapely.from_wkb(patch.tissue), patch.bounds), 2 * feather + 1)
    ragged = (
        edge - np.float32(0.5) + np.float32(0.12) * smooth_noise(rng, (edge.shape[0], edge.shape[1]), 8.0 / patch.mpp)
    )
    cover = enlarge((np.clip(inner, 0.0, 1.0) * step(ragged, 0.06)).astype(np.float32), shape)
    return field.pixels, np.rint(cover * 255.0).astype(np.uint8)


def _raster(geometry: BaseGeometry, bounds: tuple[int, int, int, int]) -> F32:
    """A geometry's mask over ``bounds`` at half the resolution, float32 0 or 1."""
    x0, y0, x1, y1 = bounds
    canvas = Image.new("L", ((x1 - x0 + 1) // 2, (y1 - y0 + 1) // 2))
    draw = ImageDraw.Draw(canvas)
    for part in shapely.get_parts(geometry):
        for value, rings in ((1, [part.exterior]), (0, part.interiors)):
            for ring in rings:
                draw.polygon([((x - x0) / 2.0, (y - y0) / 2.0) for x, y in ring.coords], fill=value)
    return np.asarray(canvas, dtype=np.float32)


def lay_glass(pixels: npt.NDArray[np.uint8], stains: Stains, rng: np.random.Generator) -> None:
    """Glass with a little grain, strip by strip."""
    height, width = pixels.shape[:2]
    for top in range(0, height, _TILE):
        rows = min(_TILE, height - top)
        grain = rng.standard_normal((rows, width, 1), dtype=np.float32) * np.float32(1.2)
        light = grain + np.asarray(stains.background, dtype=np.float32)
        pixels[top : top + rows] = np.clip(light + np.float32(0.5), 0, 255).astype(np.uint8)


def write_pyramid(path: Path, pixels: npt.NDArray[np.uint8], mpp: float, quality: int) -> None:
    """Level 0 and two reduced ones as pages of a tiled TIFF, the resolution in pixels per cm."""
    import tifffile

    per_cm = 1e4 / mpp
    options: dict[str, Any] = {
        "photometric": "rgb",
        "tile": (_TILE, _TILE),
        "compression": "jpeg",
        "compressionargs": {"level": quality},
        "metadata": None,
    }
    with tifffile.TiffWriter(path, bigtiff=pixels.size > 3_000_000_000) as writer:
        level: npt.NDArray[np.uint8] = pixels
        for reduced in _REDUCED:
            if reduced > 1:
                level = _quarter(level)
            writer.write(
                level,
                subfiletype=0 if reduced == 1 else 1,
                resolution=(per_cm / reduced, per_cm / reduced),
                resolutionunit="CENTIMETER",
                software="her2bridge synthetic slide",
                **options,
            )


def level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Width and height of each level of a slide of this size, the full one first."""
    sizes = [(width, height)]
    for _ in _REDUCED[1:]:
        sizes.append((sizes[-1][0] // 4, sizes[-1][1] // 4))
    return sizes


def _quarter(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Four times smaller by averaging, strip by strip; a rest below four pixels is left out."""
    height, width = pixels.shape[0] // 4, pixels.shape[1] // 4
    small = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, _TILE):
        rows = min(_TILE, height - top)
        strip = pixels[4 * top : 4 * (top + rows), : 4 * width].reshape(rows, 4, width, 4, 3)
        small[top : top + rows] = (strip.mean(axis=(1, 3), dtype=np.float32) + np.float32(0.5)).astype(np.uint8)
    return small

"""Draw synthetic slides with known truth as a QuPath project: a region of each tile class on each, labelled by it.

Each slide is another patient's (metadata key "Patient") and has stains, counterstain and a scanner of its own. A tile
is 64 µm wide, ``--size`` pixels; regions begin at whole tiles, and every one of their tiles shows its class clearly.
Python code may call ``draw_project`` instead.

Writes: OUT/slides/*.tif and OUT/project/project.qpproj.

    python examples/draw_labelled_slides.py OUT [--slides 6] [--tiles-per-class 36] [--size 256] [--workers 1]
"""

from __future__ import annotations

import argparse
import math
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import shapely
from threadpoolctl import threadpool_limits

from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.seam import PathClassRef, PathObject
from her2bridge.qupath.via_files.create import NewImage, create_project
from her2bridge.records import ByteArray, TileClass
from her2bridge.synth.fields import Imaging, render_field, sample_ground
from her2bridge.synth.slide import lay_glass, level_sizes, write_pyramid
from her2bridge.synth.stains import Stains, optical_density, sample_stains
from her2bridge.synth.tiles import shows
from her2bridge.synth.tissue import Ground

FIELD_UM = 64.0
CLASS_NAMES = ("0", "1+", "2+", "3+", "Normal", "Noise")
ACROSS = 3  # regions
PER_FIELD = 2  # tiles across a field at most: within a class, fields differ
TRIES = 100
SEEN = 0.05  # optical density of a pixel that is no glass


@dataclass(frozen=True)
class Look:
    """What all fields of a slide share."""

    mpp: float
    stains: Stains
    ground: Ground
    imaging: Imaging


def draw_project(
    folder: Path, slides: int = 6, tiles_per_class: int = 36, size: int = 256, seed: int = 0, workers: int = 1
) -> Path:
    """Draw slides, each in one of ``workers`` processes, and the project over them; returns its ``project.qpproj``.

    Equal seeds give equal slides.
    """
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    paths = [folder / "slides" / f"labelled-{number + 1:02}.tif" for number in range(slides)]
    patients = [f"P{number + 1:03}" for number in range(slides)]
    jobs = (paths, patients, repeat(tiles_per_class), repeat(size), np.random.default_rng(seed).spawn(slides))
    if workers <= 1:
        images = list(map(draw_slide, *jobs))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            images = list(pool.map(draw_slide, *jobs))
    return create_project(folder / "project", images)


def draw_slide(path: Path, patient: str, tiles_per_class: int, size: int, rng: np.random.Generator) -> NewImage:
    """Draw one slide: a margin of glass as wide as a tile around each region."""
    mpp = FIELD_UM / size
    imaging = Imaging(
        blur=rng.uniform(0.15, 0.4), sharpen=rng.uniform(0.0, 0.6), grain=rng.uniform(0.5, 2.5), jpeg=None
    )
    look = Look(mpp, sample_stains(rng), sample_ground(rng, mpp), imaging)
    columns = math.ceil(math.sqrt(tiles_per_class))
    rows = math.ceil(tiles_per_class / columns)
    down = math.ceil(len(TileClass) / ACROSS)
    width, height = ((count * (side + 1) + 1) * size for count, side in ((ACROSS, columns), (down, rows)))
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    lay_glass(pixels, look.stains, rng)
    annotations = []
    for tile_class, written, name in zip(TileClass, path_classes(), CLASS_NAMES, strict=True):
        left, top = 1 + tile_class % ACROSS * (columns + 1), 1 + tile_class // ACROSS * (rows + 1)
        places = [(left + n % columns, top + n // columns) for n in range(tiles_per_class)]
        mosaic = draw_region(tile_class, (columns, rows), size, look, rng)
        for x, y in places:
            tile = (slice((y - top) * size, (y - top + 1) * size), slice((x - left) * size, (x - left + 1) * size))
            pixels[y * size : (y + 1) * size, x * size : (x + 1) * size] = mosaic[tile]
        outline = shapely.union_all([shapely.box(x, y, x + 1, y + 1) for x, y in places])
        annotations.append(
            PathObject(
                kind="annotation",
                id=str(uuid.UUID(bytes=rng.bytes(16), version=4)),
                parent_id=None,
                path_class=PathClassRef((name,), written.rgb),
                geometry=shapely.transform(outline, lambda points: points * size),
            )
        )
    write_pyramid(path, pixels, mpp, quality=92)
    metadata = {"Patient": patient, "Specimen": "resection"}
    return NewImage(path, path.name, (width, height), mpp, annotations, metadata, level_sizes(width, height))


def draw_region(
    tile_class: TileClass, tiles: tuple[int, int], size: int, look: Look, rng: np.random.Generator
) -> ByteArray:
    """A mosaic of fields of one class, ``tiles`` wide and high: uint8 [rows · size, columns · size, 3]."""
    columns, rows = tiles
    pixels = np.empty((rows * size, columns * size, 3), dtype=np.uint8)
    for y in range(0, rows, PER_FIELD):
        for x in range(0, columns, PER_FIELD):
            across, down = min(PER_FIELD, columns - x), min(PER_FIELD, rows - y)
            field = draw_field(tile_class, (across, down), size, look, rng)
            pixels[y * size : (y + down) * size, x * size : (x + across) * size] = field
    return pixels


def draw_field(
    tile_class: TileClass, tiles: tuple[int, int], size: int, look: Look, rng: np.random.Generator
) -> ByteArray:
    """A field of which every tile shows the class clearly, and is not mostly glass: uint8 [h, w, 3].

    Raises:
        RuntimeError: none was found; tiles of a few pixels cannot show a class.
    """
    columns, rows = tiles
    corners = [(y * size, x * size) for y in range(rows) for x in range(columns)]
    for _ in range(TRIES):
        with threadpool_limits(1):
            field = render_field(
                tile_class,
                rng,
                (rows * size, columns * size),
                look.mpp,
                stains=look.stains,
                ground=look.ground,
                imaging=look.imaging,
                whole=True,
            )
        matter = optical_density(field.pixels, look.stains).max(axis=2) > SEEN
        filled = all(matter[y : y + size, x : x + size].mean() > 0.5 for y, x in corners)
        if filled and all(shows(field, tile_class, y, x, size) for y, x in corners):
            return field.pixels
    raise RuntimeError(f"No field shows {tile_class.label} clearly on every tile of {size} px; draw larger tiles.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--slides", type=int, default=6)
    parser.add_argument("--tiles-per-class", type=int, default=36, help="on each slide")
    parser.add_argument("--size", type=int, default=256, help="of a tile, pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    asked = parser.parse_args()
    print(draw_project(asked.out, asked.slides, asked.tiles_per_class, asked.size, asked.seed, asked.workers))


if __name__ == "__main__":
    main()

"""Slides for benchmarks: tissue from edge to edge, 256-px JPEG tiles at 0.25 µm/px, of any number of tiles.

``mosaic`` is a real pyramid whose tiles all differ. ``endless`` is one level of a mosaic's segments over and over: its
table of offsets names the same few bytes many times, so that half a million tiles fit in some megabytes. Reading it
decodes every tile; what it does not show is a disk.
"""

from __future__ import annotations

import functools
import itertools
import struct
import tempfile
from pathlib import Path

import numpy as np
import shapely
import tifffile

from her2bridge.qupath.seam import PathClassRef, PathObject
from her2bridge.qupath.via_files.create import NewImage, create_project
from her2bridge.records import ByteArray, SlideSource
from her2bridge.slides import open_slide
from her2bridge.synth.slide import write_pyramid, write_slide

MPP = 0.25
SIDE = 256
SEED = 11
QUALITY = 90
_DRAWN = (4096, 4096)  # of the slide that tissue is taken from, pixels
_DARK = 225  # mean of a tile's green below which most of it is tissue


def mosaic(path: Path, columns: int, rows: int) -> Path:
    """Write a slide of ``columns`` × ``rows`` tiles of drawn tissue; one that is there is used again."""
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    found = tissue_tiles()
    rng = np.random.default_rng(SEED)
    order = np.concatenate([rng.permutation(len(found)) for _ in range(-(-columns * rows // len(found)))])
    pixels = np.empty((rows * SIDE, columns * SIDE, 3), dtype=np.uint8)
    for place, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
        tile = np.rot90(found[order[place]], place // len(found) % 4)  # the next time round, another way up
        pixels[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = tile
    part = path.with_suffix(".part.tif")
    write_pyramid(part, pixels, MPP, QUALITY)
    part.replace(path)
    return path


@functools.cache
def tissue_tiles() -> ByteArray:
    """The tiles of a drawn slide that are mostly tissue, uint8 [n, 256, 256, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn.tif"
        write_slide(drawn, *_DRAWN, MPP, SEED)
        with open_slide(SlideSource(drawn)) as slide:
            whole = slide.read(0, 0, *_DRAWN, *_DRAWN)
    across, down = _DRAWN[0] // SIDE, _DRAWN[1] // SIDE
    tiles = whole.reshape(down, SIDE, across, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return tiles[tiles[..., 1].mean(axis=(1, 2)) < _DARK]


def endless(path: Path, pattern: Path, columns: int, rows: int) -> Path:
    """Write a slide of ``columns`` × ``rows`` tiles that repeats the segments of ``pattern``'s first level."""
    with tifffile.TiffFile(pattern) as file:
        page = file.pages.first
        across, down = page.imagewidth // SIDE, page.imagelength // SIDE
        segments = []
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.filehandle.seek(offset)
            segments.append(file.filehandle.read(count))
        tables, photometric, sampling = page.jpegtables, int(page.photometric), page.subsampling
    places = np.arange(columns * rows)
    which = places // columns % down * across + places % columns % across
    data, starts = b"", []
    for segment in segments:
        starts.append(_HEAD + len(data))
        data += segment + b"\0" * (len(segment) % 2)
    entries: list[tuple[int, str, tuple[int, ...] | bytes]] = [
        (254, "I", (0,)),
        (256, "I", (columns * SIDE,)),
        (257, "I", (rows * SIDE,)),
        (258, "H", (8, 8, 8)),
        (259, "H", (7,)),  # JPEG
        (262, "H", (photometric,)),
        (277, "H", (3,)),
        (282, "R", _PER_CM),
        (283, "R", _PER_CM),
        (284, "H", (1,)),
        (296, "H", (3,)),  # per centimetre
        (322, "I", (SIDE,)),
        (323, "I", (SIDE,)),
        (324, "Q", np.asarray(starts, dtype="<u8")[which].tobytes()),
        (325, "I", np.asarray([len(one) for one in segments], dtype="<u4")[which].tobytes()),
    ]
    if tables:
        entries.append((347, "B", tables))
    if sampling:
        entries.append((530, "H", tuple(sampling)))
    path.write_bytes(_big_tiff(data, entries))
    return path


def project_of(slide: Path, folder: Path) -> Path:
    """A project with the slide, wholly a ``Tumor`` region; returns its ``project.qpproj``."""
    with open_slide(SlideSource(slide)) as opened:
        width, height = opened.size
        mpp = opened.mpp[0] if opened.mpp else 0.25
    tumor = PathClassRef(("Tumor",), (200, 0, 0))
    region = PathObject(
        "annotation",
        "00000000-0000-4000-8000-000000000001",
        None,
        "all",
        tumor,
        geometry=shapely.box(0, 0, width, height),
    )
    return create_project(folder / "project", [NewImage(slide, slide.name, (width, height), mpp, [region], {})])


_HEAD = 16  # bytes before the data of a BigTIFF
_PER_CM = (round(1e4 / MPP), 1)
_TYPES = {"B": (7, 1, "B"), "H": (3, 2, "H"), "I": (4, 4, "I"), "Q": (16, 8, "Q"), "R": (5, 8, "I")}


def _big_tiff(data: bytes, entries: list[tuple[int, str, tuple[int, ...] | bytes]]) -> bytes:
    """A little-endian BigTIFF of one page; its directory follows the data, and what does not fit into it, that."""
    directory = _HEAD + len(data)
    beyond = directory + 8 + 20 * len(entries) + 8
    made, rest = struct.pack("<Q", len(entries)), b""
    for code, kind, values in entries:
        number, size, letter = _TYPES[kind]
        packed = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{letter}", *values)
        if len(packed) <= 8:
            field = packed.ljust(8, b"\0")
        else:
            field = struct.pack("<Q", beyond + len(rest))
            rest += packed + b"\0" * (-len(packed) % 8)
        made += struct.pack("<HHQ", code, number, len(packed) // size) + field
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, directory) + data + made + struct.pack("<Q", 0) + rest

"""Tiles and strips of a TIFF, straight from the file: what tiffslide shows, without its way there.

tiffslide asks zarr for each segment, through an event loop, one after the other; a thread that decodes must hold a
TIFF parsed for itself. Here the places of all segments are parsed once, one open file serves all threads, and tifffile
decodes: the function is the one that tiffslide's own way ends in, so that pixels, and errors, are the same bit for bit.
It holds no lock while it decodes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from her2bridge.records import ByteArray
from her2bridge.slides.shared_segments import SharedSegments

_HAS_PREAD = hasattr(os, "pread")  # Windows has none


@dataclass(frozen=True, eq=False)
class SegmentLevel:
    """One pyramid level: where its segments lie in the file, and what makes pixels of them.

    Attributes:
        size: width and height of the level.
        segment: width and height of a tile; of a strip, its rows and the level's width.
        samples: 3, or 4 with alpha.
        columns: segments side by side.
        offsets: uint64 [rows · columns], in bytes; 0: the segment was never stored.
        lengths: uint64, as many; 0: the same.
        decode: (bytes, index) -> uint8 [height, width, samples], at a level's edge perhaps only what lies within.
    """

    size: tuple[int, int]
    segment: tuple[int, int]
    samples: int
    columns: int
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint64]
    decode: Callable[[bytes, int], ByteArray]


def segment_levels(file: Any, levels: Any) -> list[SegmentLevel] | None:
    """The levels of a series by their segments; None where only tiffslide knows how they make up the picture.

    Args:
        file: the ``tifffile.TiffFile``.
        levels: its series' levels, ``TiffPageSeries`` of axes YXS.
    """
    found = [_segment_level(file, level) for level in levels]
    whole = [level for level in found if level is not None]
    return whole if len(whole) == len(found) else None


def _segment_level(file: Any, level: Any) -> SegmentLevel | None:
    page = level.pages[0]
    if page is None or page.parent is not file or level.transform is not None:  # first: an OME-TIFF of several files
        return None
    frame = page.keyframe
    is_plain = frame.jpegheader is None and frame.planarconfig == 1 and frame.imagedepth == 1  # the first: not NDPI
    if not is_plain or not len(level.shape) == len(frame.chunks) == 3 or level.shape != frame.shape:  # of several pages
        return None
    rows, columns, _ = frame.chunked
    count = rows * columns
    offsets, lengths = page.dataoffsets, page.databytecounts
    if (len(offsets) < count and level.dataoffset is not None) or len(lengths) < len(offsets):
        return None
    height, width, samples = level.shape
    return SegmentLevel(
        size=(width, height),
        segment=(frame.chunks[1], frame.chunks[0]),
        samples=samples,
        columns=columns,
        offsets=_filled(offsets, count),
        lengths=_filled(lengths, count),
        decode=_decoder(frame.decode, page.jpegtables),
    )


def _filled(values: Any, count: int) -> npt.NDArray[np.uint64]:
    """The first ``count`` of them, zeros where there are fewer: Philips leaves out rows of tiles at the bottom."""
    out = np.zeros(count, np.uint64)
    out[: len(values)] = values[:count]
    return out


def _decoder(decode: Callable[..., Any], tables: bytes | None) -> Callable[[bytes, int], ByteArray]:
    options = {} if tables is None else {"jpegtables": tables}

    def pixels(data: bytes, index: int) -> ByteArray:
        segment: ByteArray = decode(data, index, **options)[0]
        if segment.dtype != np.uint8:  # a codec may find that its data say otherwise than the tags
            raise ValueError(f"segment {index} is of {segment.dtype}, not uint8")
        flat: ByteArray = segment[0]
        return flat

    return pixels


class Segments:
    """A TIFF's levels, read segment by segment. Safe to read from many threads."""

    def __init__(self, path: Path, levels: list[SegmentLevel], fill: int) -> None:
        """
        Args:
            fill: what samples of segments that were never stored are taken for.
        """
        self._levels = levels
        self._fill = fill
        self._file = path.open("rb", buffering=0)
        self._end = os.fstat(self._file.fileno()).st_size
        self._lock = threading.Lock()
        self._shared = SharedSegments()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        """Pixels of a rectangle that lies within the level, uint8 [height, width, samples]."""
        of = self._levels[level]
        out: ByteArray = np.empty((height, width, of.samples), np.uint8)
        for row, top, bottom, uses_down in _spans(y, height, of.segment[1], of.size[1]):
            for column, left, right, uses_across in _spans(x, width, of.segment[0], of.size[0]):
                target = out[top - y : bottom - y, left - x : right - x]
                index = row * of.columns + column
                segment = self._segment(level, index, uses_down * uses_across)
                if segment is None:
                    target[:] = self._fill
                else:
                    y0, x0 = row * of.segment[1], column * of.segment[0]
                    target[:] = segment[top - y0 : bottom - y0, left - x0 : right - x0]
        return out

    def close(self) -> None:
        self._file.close()

    def _segment(self, level: int, index: int, uses: int) -> ByteArray | None:
        of = self._levels[level]
        offset, length = int(of.offsets[index]), int(of.lengths[index])
        if offset == 0 or length == 0:
            return None

        def decoded() -> ByteArray:
            return of.decode(self._bytes(offset, length), index)

        if uses == 1:
            return decoded()
        width, height = of.segment
        return self._shared.get((level, index), uses, width * height * of.samples, decoded)

    def _bytes(self, offset: int, length: int) -> bytes:
        """Fewer at the end of a file that is cut short: the decoder says what it thinks of them."""
        length = min(length, max(self._end - offset, 0))
        if _HAS_PREAD:
            return os.pread(self._file.fileno(), length, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)


def _spans(start: int, extent: int, side: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The segments along one axis that [start, start + extent) meets: number, first and last pixel (excluded) of what
    it takes of each, and how many such stretches, laid end to end over the level, would meet the segment."""
    stop = start + extent
    for number in range(start // side, (stop - 1) // side + 1):
        first, last = number * side, min((number + 1) * side, end)
        uses = (last - 1 - start) // extent - (first - start) // extent + 1
        yield number, max(first, start), min(last, stop), uses

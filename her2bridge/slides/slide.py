"""Slide files to pixels: the one place that leaves the shown image's coordinates.

A ``Slide`` is the image as QuPath shows it (the coordinate law, records.py). Between it and the file lie the bounds of
QuPath's OpenSlide server and the view steps; both are compiled once into a window of the file and one of the eight
symmetries of the square. The shown image lies on an endless white plane: what is asked for beyond it comes back white.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from types import TracebackType

import numpy as np

from her2bridge.errors import SizeMismatch, SlideNotFound, SlideUnreadable
from her2bridge.records import ByteArray, SlideSource
from her2bridge.resampling import WHITE, Level, sample, usable_levels
from her2bridge.slides.formats import open_pixels
from her2bridge.slides.pixels import Pixels, reason, unreadable
from her2bridge.view import View


class Slide:
    """The image as QuPath shows it. Made by ``open_slide``; safe to read from many threads.

    Attributes:
        source: where it came from.
        size: width and height of the shown image.
        mpp: the file's own µm/px of the shown image (x, y); None where it states none.
        levels: downsamples of the pyramid levels, finest first, the first one 1.0.
    """

    def __init__(self, source: SlideSource, reopen: Callable[[], Pixels], first: Pixels) -> None:
        self.source = source
        self._reopen = reopen
        self._local = threading.local()
        self._local.pixels = first
        self._opened = [first]
        self._lock = threading.Lock()
        self._is_open = True
        origin, extent = _file_window(source, first)
        self._view = View.of(source, origin, extent)
        self.size = self._view.size
        self.mpp = first.mpp if first.mpp is None or not self._view.swaps else (first.mpp[1], first.mpp[0])
        self._sizes = first.sizes
        self._levels = usable_levels(first.sizes)
        self.levels = tuple(level.dx for level in self._levels)

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; no thread may be reading."""
        with self._lock:
            while self._opened:
                self._opened.pop().close()
            self._local = threading.local()
            self._is_open = False

    def read(self, x: float, y: float, width: float, height: float, out_width: int, out_height: int) -> ByteArray:
        """The rectangle [x, x+width) × [y, y+height) of the shown image, resampled to uint8 [out_height, out_width, 3].

        Level and filter are chosen as ``resampling.sample`` says; where nothing has to be resampled, the pixels are
        the file's own, bit for bit. White outside the image.

        Raises:
            SlideUnreadable: the file's pixels do not decode.
        """
        if width <= 0 or height <= 0 or out_width < 1 or out_height < 1:
            raise ValueError(f"nothing to read: {width} × {height} to {out_width} × {out_height}")
        rect = self._view.to_file(x, y, width, height)
        columns, rows = (out_height, out_width) if self._view.swaps else (out_width, out_height)
        return self._view.orient(sample(rect, columns, rows, self._levels, self._level_pixels))

    def thumbnail(self, max_side: int) -> tuple[ByteArray, float]:
        """The whole image, at most ``max_side`` px on its longer side, and its downsample.

        Pixel (u, v) covers [u·d, (u+1)·d) × [v·d, (v+1)·d); the last row and column may reach beyond the image.
        """
        downsample = max(1.0, max(self.size) / max_side)
        columns, rows = (math.ceil(side / downsample - 1e-9) for side in self.size)
        return self.read(0, 0, columns * downsample, rows * downsample, columns, rows), downsample

    def _level_pixels(self, level: Level, x: int, y: int, width: int, height: int) -> ByteArray:
        """A rectangle of a level in the file's level coordinates; white where the shown image is not."""
        left, top, right, bottom = self._view.window
        level_width, level_height = self._sizes[level.index]
        x0, x1 = max(x, round(left / level.dx)), min(x + width, round(right / level.dx), level_width)
        y0, y1 = max(y, round(top / level.dy)), min(y + height, round(bottom / level.dy), level_height)
        if x1 <= x0 or y1 <= y0:
            return np.full((height, width, 3), WHITE, dtype=np.uint8)
        pixels = self._pixels()
        try:
            inside = pixels.read(level.index, x0, y0, x1 - x0, y1 - y0)
        except pixels.errors as error:
            raise SlideUnreadable(
                f"The slide's pixels cannot be decoded ({reason(error)}).",
                where=f"{self.source.path}, level {level.index}, x {x0}–{x1}, y {y0}–{y1}",
                next_step="The file is damaged or was copied only in part: copy it again from the scanner or archive.",
            ) from error
        if inside.shape == (height, width, 3):
            return inside
        out = np.full((height, width, 3), WHITE, dtype=np.uint8)
        out[y0 - y : y1 - y, x0 - x : x1 - x] = inside
        return out

    def _pixels(self) -> Pixels:
        """This thread's handle, its own or shared: not all that tiffslide and tmapslide do to read is thread-safe."""
        pixels: Pixels | None = getattr(self._local, "pixels", None)
        if pixels is None:
            if not self._is_open:
                raise ValueError("the slide has been closed")
            pixels = self._reopen()
            with self._lock:
                self._local.pixels = pixels
                if pixels not in self._opened:
                    self._opened.append(pixels)
        return pixels


def open_slide(source: SlideSource) -> Slide:
    """Open the slide as QuPath shows it; use as a context manager.

    Raises:
        SlideNotFound: no such file.
        SlideUnreadable: no reader opens it, or the one that would is not installed, or it is not 8-bit RGB.
        SizeMismatch: it is not the image that QuPath recorded, or a crop lies outside it.
        UnsupportedServer: the file has no image ``source.series``.
    """
    path = source.path
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SlideNotFound(
            "The slide file is not there.",
            where=str(path),
            next_step="Connect the drive it lies on, or say where it is now with --relocate OLD=NEW.",
        ) from error
    except OSError as error:
        raise unreadable(path, reason(error)) from error
    if not path.is_file():
        raise unreadable(path, "it is a folder, not a file")
    pixels, reopen = open_pixels(path, source.series)
    try:
        return Slide(source, reopen, pixels)
    except SizeMismatch:
        pixels.close()
        raise


def _file_window(source: SlideSource, pixels: Pixels) -> tuple[tuple[int, int], tuple[int, int]]:
    """Origin and extent of QuPath's image within the file, checked against what QuPath recorded."""
    origin, extent = (0, 0), pixels.sizes[0]
    if source.use_bounds and pixels.bounds is not None:
        origin, extent = pixels.bounds[:2], pixels.bounds[2:]
    if source.file_size is not None and source.file_size != extent:
        (width, height), (knew_width, knew_height) = extent, source.file_size
        raise SizeMismatch(
            f"The file holds {width} × {height} px, QuPath recorded {knew_width} × {knew_height} px.",
            where=str(source.path),
            next_step="Another file (or another image of it) has taken the place of the one QuPath knew: "
            "put the original back, or remove the image from the project and add it again.",
        )
    return origin, extent

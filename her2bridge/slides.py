"""Slide files to pixels: the only place that names tiffslide, and the one that leaves the shown image's coordinates.

A ``Slide`` is the image as QuPath shows it (the coordinate law, records.py). Between it and the file lie the bounds of
QuPath's OpenSlide server and the view steps; both are compiled once into a window of the file and one of the eight
symmetries of the square. The shown image lies on an endless white plane: what is asked for beyond it comes back white.
"""

from __future__ import annotations

import math
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError

from her2bridge.calibration import MppChoice, mpp_pair, resolve_mpp
from her2bridge.errors import (
    SizeMismatch,
    SlideError,
    SlideNotFound,
    SlideUnreadable,
    UnsupportedServer,
)
from her2bridge.records import ByteArray, SlideSource
from her2bridge.resampling import WHITE, Level, over_white, sample, usable_levels
from her2bridge.view import View

__all__ = ["MppChoice", "Slide", "open_slide", "resolve_mpp"]

MAX_PLAIN_PIXELS = 150_000_000
"""Largest PNG, JPEG or BMP that is opened, in pixels: it lies in memory as a whole."""

_EXPORT = "Check that QuPath opens it; if so, export it from QuPath as an 8-bit RGB OME-TIFF and use that file."

# What tiffslide, tifffile, zarr, imagecodecs and Pillow raise on files that are not what they should be.
_FOREIGN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
)


class _Pixels(Protocol):
    """A file opened by one thread: RGB pixels of pyramid levels, in the file's own coordinates."""

    sizes: tuple[tuple[int, int], ...]
    bounds: tuple[int, int, int, int] | None
    mpp: tuple[float, float] | None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        """Pixels of a rectangle that lies within the level, uint8 [height, width, 3]."""
        ...

    def close(self) -> None: ...


class Slide:
    """The image as QuPath shows it. Made by ``open_slide``; safe to read from many threads.

    Attributes:
        source: where it came from.
        size: width and height of the shown image.
        mpp: the file's own µm/px of the shown image (x, y); None where it states none.
        levels: downsamples of the pyramid levels, finest first, the first one 1.0.
    """

    def __init__(self, source: SlideSource, reopen: Callable[[], _Pixels], first: _Pixels) -> None:
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
        except _FOREIGN as error:
            raise SlideUnreadable(
                f"The slide's pixels cannot be decoded ({_reason(error)}).",
                where=f"{self.source.path}, level {level.index}, x {x0}–{x1}, y {y0}–{y1}",
                next_step="The file is damaged or was copied only in part: copy it again from the scanner or archive.",
            ) from error
        if inside.shape == (height, width, 3):
            return inside
        out = np.full((height, width, 3), WHITE, dtype=np.uint8)
        out[y0 - y : y1 - y, x0 - x : x1 - x] = inside
        return out

    def _pixels(self) -> _Pixels:
        """This thread's own handle: neither tifffile's file handle nor zarr's groups are promised to be thread-safe."""
        pixels: _Pixels | None = getattr(self._local, "pixels", None)
        if pixels is None:
            if not self._is_open:
                raise ValueError("the slide has been closed")
            pixels = self._reopen()
            with self._lock:
                self._local.pixels = pixels
                self._opened.append(pixels)
        return pixels


def open_slide(source: SlideSource) -> Slide:
    """Open the slide as QuPath shows it; use as a context manager.

    Raises:
        SlideNotFound: no such file.
        SlideUnreadable: no reader opens it, or it is not 8-bit RGB.
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
        raise _unreadable(path, _reason(error)) from error
    if not path.is_file():
        raise _unreadable(path, "it is a folder, not a file")

    def reopen() -> _Pixels:
        return _TiffPixels(path, source.series)

    pixels: _Pixels
    try:
        pixels = reopen()
    except _NotTiff as error:
        picture = _PlainPixels(path, source.series, error)
        return Slide(source, lambda: picture, picture)
    try:
        return Slide(source, reopen, pixels)
    except SizeMismatch:
        pixels.close()
        raise


class _NotTiff(SlideUnreadable):
    """Tells ``open_slide`` to try the picture formats."""


class _TiffPixels:
    """A TIFF of any kind that tiffslide knows."""

    def __init__(self, path: Path, series: int) -> None:
        import tiffslide  # heavy: zarr and fsspec come with it

        try:
            self._slide = tiffslide.TiffSlide(path)
        except _FOREIGN as error:
            if isinstance(error, tiffslide.TiffFileError) and not _has_tiff_header(path):
                raise _NotTiff("The slide is not a TIFF.", where=str(path), next_step=_EXPORT) from error
            raise _unreadable(path, _reason(error)) from error
        try:
            self._choose(path, series)
        except _FOREIGN as error:
            self.close()
            raise _unreadable(path, _reason(error)) from error
        except SlideError:
            self.close()
            raise

    def _choose(self, path: Path, index: int) -> None:
        """Point tiffslide at the series, and refuse what is not 8-bit RGB."""
        file = self._slide.ts_tifffile
        if index > 0:
            if index >= len(file.series):
                raise UnsupportedServer(
                    f"QuPath shows image number {index + 1} of the file, which holds {len(file.series)}.",
                    where=str(path),
                    next_step="Export that image from QuPath as an OME-TIFF of its own and use that file.",
                )
            # tiffslide always opens the first series; all that it reads comes from its table of properties.
            properties = {key: value for key, value in self._slide.properties.items() if ".level[" not in key}
            properties.pop("tiffslide.series-composition", None)
            properties |= {"tiffslide.series-index": index, "tiffslide.series-axes": file.series[index].axes}
            for number, level in enumerate(file.series[index].levels):
                properties[f"tiffslide.level[{number}].width"] = level.shape[1]
                properties[f"tiffslide.level[{number}].height"] = level.shape[0]
            self._slide.properties = properties
        properties = self._slide.properties
        series = file.series[properties["tiffslide.series-index"]]
        page = series.keyframe
        if series.dtype != np.uint8:
            raise _unreadable(path, f"its pixels are {series.dtype}, not 8-bit RGB")
        is_colour = page.photometric.name in ("RGB", "YCBCR")
        if series.axes != "YXS" or series.shape[2] not in (3, 4) or not is_colour:
            kind = f"{page.photometric.name.lower()}, axes {series.axes}, shape {series.shape}"
            raise _unreadable(path, f"it is not an RGB image but {kind}")
        self.sizes = tuple(self._slide.level_dimensions)
        bounds: list[Any] = [properties.get(f"tiffslide.bounds-{name}") for name in ("x", "y", "width", "height")]
        self.bounds = (
            None if index or None in bounds else (int(bounds[0]), int(bounds[1]), int(bounds[2]), int(bounds[3]))
        )
        mpp = mpp_pair(properties.get("tiffslide.mpp-x"), properties.get("tiffslide.mpp-y")) if index == 0 else None
        self.mpp = _ome_mpp(file.ome_metadata, index) or mpp

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        ratio = self._slide.level_downsamples[level]
        location = _base(x, ratio), _base(y, ratio)
        region: Any = self._slide.read_region(location, level, (width, height), as_array=True, padding=False)
        pixels: ByteArray = region
        if pixels.shape[2] == 4:
            return over_white(pixels)
        return pixels

    def close(self) -> None:
        self._slide.close()


class _PlainPixels:
    """A PNG, JPEG or BMP as QuPath's ImageJ server opens it: one level, in memory, shared by all threads."""

    bounds: tuple[int, int, int, int] | None = None
    mpp: tuple[float, float] | None = None

    def __init__(self, path: Path, series: int, not_tiff: Exception) -> None:
        if series > 0:
            raise UnsupportedServer(
                f"QuPath shows image number {series + 1} of the file, which is a plain picture.",
                where=str(path),
                next_step=_EXPORT,
            )
        try:
            with warnings.catch_warnings():  # our own limit speaks plainer than Pillow's warnings
                warnings.simplefilter("ignore")
                self._array = self._load(path)
        except UnidentifiedImageError as error:
            raise _unreadable(path, "it is neither a TIFF nor a PNG, JPEG or BMP") from error
        except _FOREIGN as error:
            raise _unreadable(path, _reason(error)) from error
        self._array.setflags(write=False)
        self.sizes: tuple[tuple[int, int], ...] = ((self._array.shape[1], self._array.shape[0]),)

    def _load(self, path: Path) -> ByteArray:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PLAIN_PIXELS:
                raise _unreadable(
                    path, f"a plain picture of {image.width} × {image.height} px is too large to open whole"
                )
            if image.mode in ("RGBA", "PA") or "transparency" in image.info:
                return over_white(np.asarray(image.convert("RGBA")))
            if image.mode not in ("RGB", "P", "CMYK", "YCbCr"):
                raise _unreadable(path, f"it is not an 8-bit RGB picture (its pixels are of the kind {image.mode})")
            return np.array(image.convert("RGB"))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        return self._array[y : y + height, x : x + width].copy()

    def close(self) -> None:
        """Nothing is held open."""


def _file_window(source: SlideSource, pixels: _Pixels) -> tuple[tuple[int, int], tuple[int, int]]:
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


def _has_tiff_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _base(value: int, ratio: float) -> int:
    """The level-0 coordinate that tiffslide rounds down to ``value`` of a level."""
    base = math.ceil(value * ratio)
    while int(base / ratio) < value:
        base += 1
    return base


def _ome_mpp(xml: str | None, index: int) -> tuple[float, float] | None:
    """PhysicalSizeX and Y of the OME-XML's image; None where it states none in µm."""
    if not xml:
        return None
    pixels = ElementTree.fromstring(xml).findall(".//{*}Image/{*}Pixels")
    if index >= len(pixels) or any(pixels[index].get(f"PhysicalSize{axis}Unit", "µm") != "µm" for axis in "XY"):
        return None
    return mpp_pair(pixels[index].get("PhysicalSizeX"), pixels[index].get("PhysicalSizeY"))


def _reason(error: BaseException) -> str:
    """A foreign error in half a line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__


def _unreadable(path: Path, reason: str) -> SlideUnreadable:
    return SlideUnreadable(f"The slide cannot be read: {reason}.", where=str(path), next_step=_EXPORT)

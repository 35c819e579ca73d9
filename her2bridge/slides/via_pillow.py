"""Plain pictures, by Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from her2bridge.records import ByteArray
from her2bridge.resampling import over_white
from her2bridge.slides.pixels import FOREIGN, reason, refuse_series, unreadable

MAX_PIXELS = 150_000_000
"""Largest PNG, JPEG or BMP that is opened, in pixels: it lies in memory as a whole."""


class PlainPixels:
    """A PNG, JPEG or BMP as QuPath's ImageJ server opens it: one level, in memory, shared by all threads."""

    bounds: tuple[int, int, int, int] | None = None
    mpp: tuple[float, float] | None = None
    errors: tuple[type[Exception], ...] = ()
    is_shared = True

    def __init__(self, path: Path, series: int) -> None:
        refuse_series(path, series, "a plain picture")
        try:
            with warnings.catch_warnings():  # our own limit speaks plainer than Pillow's warnings
                warnings.simplefilter("ignore")
                self._array = self._load(path)
        except UnidentifiedImageError as error:
            raise unreadable(path, "it is no slide that is known, and no PNG, JPEG or BMP") from error
        except FOREIGN as error:
            raise unreadable(path, reason(error)) from error
        self._array.setflags(write=False)
        self.sizes: tuple[tuple[int, int], ...] = ((self._array.shape[1], self._array.shape[0]),)

    def _load(self, path: Path) -> ByteArray:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise unreadable(
                    path, f"a plain picture of {image.width} × {image.height} px is too large to open whole"
                )
            if image.mode in ("RGBA", "PA") or "transparency" in image.info:
                return over_white(np.asarray(image.convert("RGBA")))
            if image.mode not in ("RGB", "P", "CMYK", "YCbCr"):
                raise unreadable(path, f"it is not an 8-bit RGB picture (its pixels are of the kind {image.mode})")
            return np.array(image.convert("RGB"))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        return self._array[y : y + height, x : x + width].copy()

    def close(self) -> None:
        """Nothing is held open."""

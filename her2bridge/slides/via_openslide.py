"""Slides that OpenSlide alone reads, shown as QuPath's OpenSlide server shows them (``OpenslideImageServer``, 0.5–0.7).

That server puts (0, 0) at ``openslide.bounds-x/y`` of level 0, for every level, and paints what OpenSlide leaves
transparent in ``openslide.background-color``, or black where the file names no colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from her2bridge.calibration import mpp_pair
from her2bridge.errors import SlideUnreadable
from her2bridge.records import ByteArray
from her2bridge.slides.pixels import EXPORT, FOREIGN, INSTALL_OPENSLIDE, reason, refuse_series, unreadable


class OpenSlidePixels:
    """A slide in one of OpenSlide's formats."""

    is_shared = False

    def __init__(self, path: Path, series: int) -> None:
        try:
            import openslide
        except (ImportError, OSError) as error:  # OSError: a library that does not load
            step = f"Install it: {INSTALL_OPENSLIDE}. {EXPORT}"
            raise unreadable(path, "its format needs OpenSlide, which is not installed", step) from error
        refuse_series(path, series, "one image to OpenSlide")
        self.errors: tuple[type[Exception], ...] = (*FOREIGN, openslide.OpenSlideError)
        try:
            self._slide = openslide.OpenSlide(path.resolve())  # what belongs to a slide lies beside the real file
        except self.errors as error:
            raise _does_not_open(path, error) from error
        properties = self._slide.properties
        self.sizes: tuple[tuple[int, int], ...] = self._slide.level_dimensions
        self._downsamples = self._slide.level_downsamples
        self.bounds = _bounds(properties)
        self.mpp = mpp_pair(properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y"))
        self._background = _background(properties)
        if min(side for size in self.sizes for side in size) < 1:  # OpenSlide 4.0.1, one row of tiles in a BIF
            self.close()
            raise unreadable(path, "OpenSlide finds no size in it")
        if properties.get("openslide.vendor") == "generic-tiff":  # it would make RGB of whatever there is
            self.close()
            raise unreadable(path, "OpenSlide does not know who made it")

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        """As ``Pixels`` says; half a pixel of level 0 off at most, where the level is not a whole number of times
        smaller: OpenSlide is told the place in level 0."""
        ratio = self._downsamples[level]
        region = self._slide.read_region((round(x * ratio), round(y * ratio)), level, (width, height))
        if region.getchannel("A").getextrema() != (255, 255):
            region = Image.alpha_composite(Image.new("RGBA", region.size, self._background), region)
        return np.array(region.convert("RGB"))

    def close(self) -> None:
        self._slide.close()


def _does_not_open(path: Path, error: Exception) -> SlideUnreadable:
    folder = path.resolve().with_suffix("")
    if path.suffix.lower() == ".mrxs" and not (folder / "Slidedat.ini").is_file():
        step = f"A MIRAX slide is a file and a folder: copy the folder {folder.name} too, to lie beside the file."
        return unreadable(path, f"its folder {folder} is not there, or not whole", step)
    return unreadable(path, reason(error))


def _bounds(properties: Mapping[str, str]) -> tuple[int, int, int, int] | None:
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return None
    return x, y, width, height


def _background(properties: Mapping[str, str]) -> tuple[int, ...]:
    try:
        return ImageColor.getrgb("#" + properties["openslide.background-color"].removeprefix("#"))
    except (KeyError, ValueError):
        return (0, 0, 0)

"""TIFF slides: tiffslide says what is in the file, and reads it where ``segments`` cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from her2bridge.calibration import mpp_pair
from her2bridge.errors import SlideError, SlideUnreadable, UnsupportedServer
from her2bridge.records import ByteArray
from her2bridge.resampling import over_white
from her2bridge.slides.pixels import EXPORT, FOREIGN, reason, unreadable
from her2bridge.slides.segments import Segments, segment_levels


class NotUnderstood(SlideUnreadable):
    """tiffslide does not make sense of the file; OpenSlide may."""


class TiffPixels:
    """A TIFF of any kind that tiffslide knows.

    Attributes:
        is_shared: as of ``Pixels``; False where tiffslide itself has to read.
    """

    errors: tuple[type[Exception], ...] = FOREIGN

    def __init__(self, path: Path, series: int) -> None:
        import tiffslide  # heavy: zarr and fsspec come with it

        self._segments: Segments | None = None
        try:
            self._slide: Any = tiffslide.TiffSlide(path)
            try:
                self._choose(path, series)
                self._segments = self._by_segments(path)
            except (*FOREIGN, SlideError):
                self.close()
                raise
        except FOREIGN as error:
            what = f"The slide cannot be read: {reason(error)}."
            raise NotUnderstood(what, where=str(path), next_step=EXPORT) from error

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
            raise unreadable(path, f"its pixels are {series.dtype}, not 8-bit RGB")
        is_colour = page.photometric.name in ("RGB", "YCBCR")
        if series.axes != "YXS" or series.shape[2] not in (3, 4) or not is_colour:
            kind = f"{page.photometric.name.lower()}, axes {series.axes}, shape {series.shape}"
            raise unreadable(path, f"it is not an RGB image but {kind}")
        self.sizes = tuple(self._slide.level_dimensions)
        self.bounds = None if index else _bounds(properties, file.series)
        mpp = mpp_pair(properties.get("tiffslide.mpp-x"), properties.get("tiffslide.mpp-y")) if index == 0 else None
        self.mpp = _ome_mpp(file.ome_metadata, index) or mpp

    def _by_segments(self, path: Path) -> Segments | None:
        """The file without tiffslide, where that is possible: it is closed then, and what it parsed forgotten."""
        properties, file = self._slide.properties, self._slide.ts_tifffile
        series = file.series[properties["tiffslide.series-index"]]
        fill = series.keyframe.nodata
        is_composed = properties.get("tiffslide.series-composition") is not None  # Leica's areas on the glass
        levels = None if is_composed or fill not in range(256) else segment_levels(file, series.levels)
        if levels is None or tuple(level.size for level in levels) != self.sizes:
            return None
        segments = Segments(path, levels, int(fill))
        self._slide.close()
        self._slide = None
        return segments

    @property
    def is_shared(self) -> bool:
        return self._segments is not None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        pixels = self._read(level, x, y, width, height)
        if pixels.shape[2] == 4:
            return over_white(pixels)
        return pixels

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        if self._segments is not None:
            return self._segments.read(level, x, y, width, height)
        ratio = self._slide.level_downsamples[level]
        location = _base(x, ratio), _base(y, ratio)
        region: Any = self._slide.read_region(location, level, (width, height), as_array=True, padding=False)
        pixels: ByteArray = region
        return pixels

    def close(self) -> None:
        if self._segments is not None:
            self._segments.close()
        else:
            self._slide.close()


def _bounds(properties: Mapping[str, Any], series: Any) -> tuple[int, int, int, int] | None:
    """As OpenSlide states them.

    Of what tiffslide opens only Leica's SCN has any: its scanned areas lie on a canvas as large as the glass. OpenSlide
    takes their extents from the pixels; tiffslide's own bounds come from nanometres, and are a pixel short where the
    division does not come out even.
    """
    composition = properties.get("tiffslide.series-composition")
    if composition is None:
        return None
    areas = [(*places[0], *series[number].shape) for number, places in composition["located_series"].items()]
    y, x, _, height, width, _ = np.array(areas).T
    left, top = int(x.min()), int(y.min())
    return left, top, int((x + width).max()) - left, int((y + height).max()) - top


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

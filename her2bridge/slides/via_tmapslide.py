"""UNIC's TMAP, by tmapslide. QuPath does not read it, so that only ``analyze`` meets it.

The format is not published; tmapslide's author worked it out. Where a TMAP is cut short, or lacks a file beside it,
tmapslide shows background: such a slide is refused here, for its score would be that of a part.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from her2bridge.calibration import mpp_pair
from her2bridge.records import ByteArray
from her2bridge.slides.pixels import FOREIGN, INSTALL_TMAP, reason, refuse_series, unreadable

_EXPORT = "Export the slide with the scanner's own software as SVS or TIFF and use that file."

_LEVELS = 560, 16, struct.Struct("<8x5I4x")
"""Of TMAP 7: where the levels are listed, how many at most; width, height, rows, columns and where the tiles are."""

_TILE = np.dtype({"names": ["at", "length"], "formats": ["<u8", "<u4"], "offsets": [24, 32], "itemsize": 40})


class TmapPixels:
    """A TMAP of version 6 or 7."""

    bounds: tuple[int, int, int, int] | None = None
    is_shared = False

    def __init__(self, path: Path, series: int) -> None:
        try:
            import tmapslide
        except ImportError as error:
            step = f"Install it: {INSTALL_TMAP}. Or: {_EXPORT}"
            raise unreadable(path, "UNIC's TMAP needs tmapslide, which is not installed", step) from error
        refuse_series(path, series, "a TMAP")
        self.errors: tuple[type[Exception], ...] = (*FOREIGN, tmapslide.OpenSlideError)
        try:
            self._slide = tmapslide.OpenSlide(str(path))
        except self.errors as error:
            raise unreadable(path, reason(error), _EXPORT) from error
        properties = self._slide.properties
        is_old = properties["tmap.version"] == "06"
        lacking = _lacking_beside(path) if is_old else _lacking_within(path)
        if lacking:
            self.close()
            raise unreadable(path, lacking, "Copy the slide again, with all the files of its name.")
        # tmapslide 0.2.3 lists levels of TMAP 6 that it then reads at the scale of others.
        self.sizes: tuple[tuple[int, int], ...] = self._slide.level_dimensions[: 1 if is_old else None]
        states_mpp = properties["tmap.mpp_source"] == "header"  # else it is tmapslide's guess
        self.mpp = mpp_pair(properties["openslide.mpp-x"], properties["openslide.mpp-y"]) if states_mpp else None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        ratio = int(self._slide.level_downsamples[level])  # a power of two
        region = self._slide.read_region((x * ratio, y * ratio), level, (width, height))
        return np.array(region.convert("RGB"))

    def close(self) -> None:
        self._slide.close()


def _lacking_beside(path: Path) -> str:
    """What a TMAP 6 lacks, or nothing: its tiles overflow into NAME.DT1, NAME.DT2 and so on."""
    with path.open("rb") as file:
        head = file.read(72)
    (end,) = struct.unpack_from("<I", head, 68)
    if path.stat().st_size < end:
        return "the end of the file is not there"
    for number in range(1, head[8]):
        if not any(path.with_suffix(f".{name}{number}").is_file() for name in ("DT", "dt")):
            return f"the file {path.stem}.DT{number} beside it is not there"
    return ""


def _lacking_within(path: Path) -> str:
    """The same of a TMAP 7: each tile that is listed must lie within the file."""
    start, most, level = _LEVELS
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(start)
        levels = [level.unpack(file.read(level.size)) for _ in range(most)]
    for width, height, rows, columns, at in levels:
        if width and height:
            tiles = np.fromfile(path, _TILE, rows * columns, offset=at)
            scanned = (tiles["at"] > 0) | (tiles["length"] > 0)
            is_here = (tiles["length"] > 0) & (tiles["at"] + tiles["length"] <= size)
            if len(tiles) < rows * columns or (scanned & ~is_here).any():
                return "tiles that it lists are not there"
    return ""

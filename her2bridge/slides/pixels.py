"""What every slide reader is to the rest of the package, and how its errors are told."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Protocol

from PIL import Image

from her2bridge.errors import SlideUnreadable, UnsupportedServer
from her2bridge.records import ByteArray

EXPORT = "Check that QuPath opens it; if so, export it from QuPath as an 8-bit RGB OME-TIFF and use that file."

INSTALL_OPENSLIDE = "pip install 'her2bridge[openslide]'"
INSTALL_TMAP = "pip install 'her2bridge[tmap]'"

FOREIGN = (
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
"""What tiffslide, tifffile, zarr, imagecodecs and Pillow raise on files that are not what they should be."""


class Pixels(Protocol):
    """A file opened: RGB pixels of pyramid levels, in the file's own coordinates.

    Attributes:
        sizes: width and height of each level, level 0 first.
        bounds: x, y, width and height that OpenSlide's ``bounds`` properties state; None where there are none.
        mpp: µm/px (x, y) that the file states; None where it states none.
        errors: what ``read`` raises on pixels that do not decode.
        is_shared: whether all threads may read from it; else each must open its own.
    """

    sizes: tuple[tuple[int, int], ...]
    bounds: tuple[int, int, int, int] | None
    mpp: tuple[float, float] | None
    errors: tuple[type[Exception], ...]

    @property
    def is_shared(self) -> bool: ...

    def read(self, level: int, x: int, y: int, width: int, height: int) -> ByteArray:
        """Pixels of a rectangle that lies within the level, uint8 [height, width, 3]."""
        ...

    def close(self) -> None: ...


def reason(error: BaseException) -> str:
    """A foreign error in half a line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__


def unreadable(path: Path, why: str, next_step: str = EXPORT) -> SlideUnreadable:
    return SlideUnreadable(f"The slide cannot be read: {why}.", where=str(path), next_step=next_step)


def refuse_series(path: Path, series: int, kind: str) -> None:
    """For files of one image.

    Raises:
        UnsupportedServer: QuPath shows another one.
    """
    if series > 0:
        raise UnsupportedServer(
            f"QuPath shows image number {series + 1} of the file, which is {kind}.", where=str(path), next_step=EXPORT
        )

"""Which reader opens a slide.

tiffslide reads every TIFF but two kinds whose tiles overlap, for it would show the overlaps twice. OpenSlide reads
these, formats that are no TIFF, and what tiffslide does not understand; tmapslide reads UNIC's TMAP, Pillow plain
pictures. The file tells, by its first bytes, its name and its tags; what is installed plays no part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from her2bridge.errors import SlideError
from her2bridge.slides.pixels import FOREIGN, INSTALL_OPENSLIDE, INSTALL_TMAP, Pixels, reason, unreadable
from her2bridge.slides.via_openslide import OpenSlidePixels
from her2bridge.slides.via_pillow import PlainPixels
from her2bridge.slides.via_tiffslide import NotUnderstood, TiffPixels
from her2bridge.slides.via_tmapslide import TmapPixels

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OPENSLIDE = ((128, b"DICM"), (0, b"ZISRAWFILE"), (0, b"SQLite format 3"))
"""Where in a file of DICOM, Zeiss or Sakura a mark stands, and which."""


@dataclass(frozen=True)
class SlideReader:
    """A package that reads slides.

    Attributes:
        name: the package.
        version: what is installed; None where it is not, or does not load.
        opens: the formats that it is used for.
        install: the command that brings it; empty where it comes with her2bridge.
    """

    name: str
    version: str | None
    opens: str
    install: str


def slide_readers() -> tuple[SlideReader, ...]:
    """All readers, those that are not here too. Loads the others."""
    tiff = "SVS, NDPI, SCN, Philips TIFF, OME-TIFF and other 8-bit RGB TIFF"
    more = "MIRAX (.mrxs), DICOM, Ventana (.bif), Hamamatsu (.vms), Sakura (.svslide), Trestle, some CZI"
    return (
        SlideReader("tiffslide", _version("tiffslide", "tiffslide"), tiff, ""),
        SlideReader("Pillow", _version("PIL", "pillow"), "PNG, JPEG, BMP", ""),
        SlideReader("OpenSlide", _version("openslide", "openslide-python"), more, INSTALL_OPENSLIDE),
        SlideReader("tmapslide", _version("tmapslide", "tmapslide"), "UNIC TMAP", INSTALL_TMAP),
    )


def open_pixels(path: Path, series: int) -> tuple[Pixels, Callable[[], Pixels]]:
    """The file in the reader that it needs, and how a further thread opens it.

    Raises:
        SlideUnreadable: no reader opens it, or the one that would is not installed, or it is not 8-bit RGB.
        UnsupportedServer: the file has no image ``series``.
    """
    try:
        reader = _reader_of(path)
    except OSError as error:
        raise unreadable(path, reason(error)) from error
    try:
        pixels = reader(path, series)
    except NotUnderstood as error:
        reader, pixels = OpenSlidePixels, _ask_openslide(path, series, error)
    if pixels.is_shared:
        return pixels, lambda: pixels
    return pixels, lambda: reader(path, series)


def _reader_of(path: Path) -> Callable[[Path, int], Pixels]:
    with path.open("rb") as file:
        head = file.read(132)
    if head.startswith(_TIFF):
        return OpenSlidePixels if _tiles_overlap(path) else TiffPixels
    if head.startswith(b"TMAP"):
        return TmapPixels
    # By its name, too: a .mrxs file alone is a small JPEG, a .vms a text.
    if path.suffix.lower() in (".mrxs", ".vms", ".vmu") or any(head.startswith(mark, at) for at, mark in _OPENSLIDE):
        return OpenSlidePixels
    return PlainPixels


def _tiles_overlap(path: Path) -> bool:
    """Whether it is a TIFF of Ventana's or Trestle's."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages.first
            return "<iScan" in str(first.tags.valueof(700)) or first.software.startswith("MedScan")
    except FOREIGN:
        return False  # tiffslide says what is wrong


def _ask_openslide(path: Path, series: int, error: NotUnderstood) -> Pixels:
    """What tiffslide does not understand, for instance an SVS whose description is not ASCII."""
    if find_spec("openslide") is None:
        step = f"{error.next_step} OpenSlide may read it, too: {INSTALL_OPENSLIDE}."
        raise NotUnderstood(error.what, where=error.where, next_step=step) from error.__cause__
    try:
        return OpenSlidePixels(path, series)
    except SlideError:
        raise error from error.__cause__


def _version(package: str, distribution: str) -> str | None:
    try:
        import_module(package)
        return metadata.version(distribution)
    except (ImportError, OSError):  # OSError: a library that does not load
        return None

"""How large a pixel is, and who says so. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from her2bridge.errors import NoCalibration, UsageError
from her2bridge.records import SlideSource

MPP_RANGE = (0.05, 20.0)
"""µm/px that a microscope slide can have; 72 dpi of an ordinary picture (353 µm/px) lies beyond."""


@dataclass(frozen=True)
class MppChoice:
    """The µm/px that a slide is worked at, and who said so: ``QuPath``, ``file`` or ``--mpp``."""

    value: float
    origin: str


class HasMpp(Protocol):
    """A slide, as far as calibration asks: the file's own µm/px (x, y), or None."""

    @property
    def mpp(self) -> tuple[float, float] | None: ...


def resolve_mpp(source: SlideSource, slide: HasMpp, override: float | None) -> MppChoice:
    """The µm/px to work at: QuPath's calibration, else the file's, else ``override`` (DESIGN.md, Tiles and classes).

    A file whose resolution cannot be a microscope's (a picture's 72 dpi) counts as stating none.

    Raises:
        NoCalibration: none of the three, or QuPath's or the file's cannot be worked with.
        UsageError: ``override`` cannot be.
    """
    low, high = MPP_RANGE
    if override is not None and not low <= override <= high:
        raise UsageError(
            f"--mpp {override:g} cannot be the pixel size of a slide.",
            where="--mpp",
            next_step=f"Give µm per pixel, between {low:g} and {high:g}; a 40× scan has about 0.25.",
        )
    set_it = "Set the pixel size in QuPath (Image tab, Pixel width and height)"
    if source.mpp is not None:
        if not all(low <= value <= high for value in source.mpp):
            raise NoCalibration(
                f"QuPath's pixel size, {source.mpp[0]:g} × {source.mpp[1]:g} µm, cannot be a slide's.",
                where=str(source.path),
                next_step=f"{set_it} to the scanner's value; a 40× scan has about 0.25 µm.",
            )
        return MppChoice(_square(source.mpp, source, "QuPath"), "QuPath")
    if slide.mpp is not None and all(low <= value <= high for value in slide.mpp):
        return MppChoice(_square(slide.mpp, source, "the file"), "file")
    if override is not None:
        return MppChoice(override, "--mpp")
    raise NoCalibration(
        "Neither QuPath nor the slide file says how large a pixel is.",
        where=str(source.path),
        next_step=f"{set_it}, or give --mpp with the scanner's µm per pixel.",
    )


def _square(mpp: tuple[float, float], source: SlideSource, who: str) -> float:
    """The mean of x and y, which must agree within 1 %: tiles are squares."""
    mean = (mpp[0] + mpp[1]) / 2
    if abs(mpp[0] - mpp[1]) > 0.01 * mean:
        raise NoCalibration(
            f"Pixel width and height differ: {mpp[0]:g} × {mpp[1]:g} µm, says {who}.",
            where=str(source.path),
            next_step="Tiles need square pixels: correct the pixel size in QuPath, or export the image anew.",
        )
    return mean


def mpp_pair(x: Any, y: Any) -> tuple[float, float] | None:
    """Two positive numbers, or None."""
    try:
        pair = float(x), float(y)
    except (TypeError, ValueError):
        return None
    return pair if all(math.isfinite(value) and value > 0 for value in pair) else None

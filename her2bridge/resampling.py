"""From pyramid levels to pixels of any scale: which level, how filtered, in how many parts. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from her2bridge.records import ByteArray

WHITE = 255

_READ_PIXELS = 4096 * 4096  # level pixels decoded at once: 48 MB; larger reads are made in parts
_LEVEL_TOLERANCE = 1.01  # levels of odd images are 2.0001 or 4.002 times smaller; 1 % of enlargement is not seen
_SNAP = 1e-3  # a thousandth of a pixel is rounding, not a wish for resampling


@dataclass(frozen=True)
class Level:
    """A pyramid level: its index in the file, and level-0 pixels to one of its own in x and y."""

    index: int
    dx: float
    dy: float


LevelReader = Callable[[Level, int, int, int, int], ByteArray]
"""(level, x, y, width, height) in the level's pixels, anywhere on the plane -> uint8 [height, width, 3]."""


def usable_levels(sizes: Sequence[tuple[int, int]]) -> list[Level]:
    """The levels of a file, finest first, without those that are not the same picture, only smaller.

    Args:
        sizes: width and height of each level, level 0 first.
    """
    levels = [Level(0, 1.0, 1.0)]
    for index, size in enumerate(sizes[1:], start=1):
        dx, dy = (_downsample(full, small) for full, small in zip(sizes[0], size, strict=True))
        if dx > 1 and abs(dx - dy) <= 0.01 * dx:
            levels.append(Level(index, dx, dy))
    return sorted(levels, key=lambda level: level.dx)


def sample(
    rect: tuple[float, float, float, float], columns: int, rows: int, levels: Sequence[Level], read: LevelReader
) -> ByteArray:
    """A rectangle (x, y, width, height) of level-0 pixels, floats, as uint8 [rows, columns, 3].

    The coarsest level that still is as fine as the result is read, and reduced by a triangle filter as wide as the
    reduction (Pillow's BILINEAR): antialiased, and unlike LANCZOS or BICUBIC it never overshoots, so that no membrane
    comes out darker than it was stained; BOX would repeat and skip pixels at ratios near 1. Where nothing has to be
    resampled, the pixels are the level's own. The filter sees its neighbours across the edges of the rectangle, so
    that two reads side by side equal one.
    """
    x, y, width, height = rect
    wanted = max(1.0, min(width / columns, height / rows) * _LEVEL_TOLERANCE)
    level = max((level for level in levels if level.dx <= wanted), key=lambda level: level.dx)
    x0, x1 = _snap(x / level.dx), _snap((x + width) / level.dx)
    y0, y1 = _snap(y / level.dy), _snap((y + height) / level.dy)
    is_whole = x0.is_integer() and y0.is_integer()
    if is_whole and x1 - x0 == columns and y1 - y0 == rows:
        return read(level, int(x0), int(y0), columns, rows)
    if (x1 - x0) * (y1 - y0) > _READ_PIXELS and columns * rows > 1:
        return _sample_parts(rect, columns, rows, levels, read)
    margin_x, margin_y = (math.ceil(max(1.0, scale)) + 1 for scale in ((x1 - x0) / columns, (y1 - y0) / rows))
    left, top = math.floor(x0) - margin_x, math.floor(y0) - margin_y
    right, bottom = math.ceil(x1) + margin_x, math.ceil(y1) + margin_y
    pixels = Image.fromarray(read(level, left, top, right - left, bottom - top))
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    return np.array(pixels.resize((columns, rows), Image.Resampling.BILINEAR, box))


def over_white(rgba: ByteArray) -> ByteArray:
    """Composite uint8 [h, w, 4] with straight alpha over white, rounded."""
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed = rgba[..., :3] * alpha + WHITE * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _sample_parts(
    rect: tuple[float, float, float, float], columns: int, rows: int, levels: Sequence[Level], read: LevelReader
) -> ByteArray:
    """The same in two halves, cut between pixels of the result: bounds the memory of reads far below the pyramid."""
    x, y, width, height = rect
    if columns > 1 and (width >= height or rows == 1):
        half = columns // 2
        cut = width * half / columns
        left = sample((x, y, cut, height), half, rows, levels, read)
        return np.concatenate([left, sample((x + cut, y, width - cut, height), columns - half, rows, levels, read)], 1)
    half = rows // 2
    cut = height * half / rows
    top = sample((x, y, width, cut), columns, half, levels, read)
    return np.concatenate([top, sample((x, y + cut, width, height - cut), columns, rows - half, levels, read)], 0)


def _downsample(full: int, small: int) -> float:
    """How many pixels make one of the level: the whole number wherever rounding of the level's size explains it."""
    whole = round(full / small)
    return float(whole) if whole and small in (full // whole, -(-full // whole)) else full / small


def _snap(value: float) -> float:
    nearest = round(value)
    return float(nearest) if abs(value - nearest) < _SNAP else value

"""How the image that QuPath shows lies in the file: crops, quarter turns and flips, compiled into one step. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from her2bridge.errors import SizeMismatch
from her2bridge.records import ByteArray, Crop, Rotate, SlideSource, ViewStep

_Turn = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class View:
    """Shown image -> file: (fx, fy) = turn · (x, y) + shift, where turn is one of the square's eight symmetries.

    Attributes:
        size: width and height of the shown image.
        turn: ((xx, xy), (yx, yy)), each −1, 0 or 1.
        shift: file pixels.
    """

    size: tuple[int, int]
    turn: _Turn
    shift: tuple[int, int]

    @classmethod
    def of(cls, source: SlideSource, origin: tuple[int, int], extent: tuple[int, int]) -> View:
        """Compile the view's steps, innermost first, over the file's window at ``origin``."""
        view = cls(extent, ((1, 0), (0, 1)), origin)
        for step in source.view:
            view = view._then(step, source)
        return view

    def _then(self, step: ViewStep, source: SlideSource) -> View:
        width, height = self.size
        if isinstance(step, Crop):
            fits_x = step.x >= 0 and step.width >= 1 and step.x + step.width <= width
            fits_y = step.y >= 0 and step.height >= 1 and step.y + step.height <= height
            if not (fits_x and fits_y):
                raise SizeMismatch(
                    f"QuPath shows a crop of {step.width} × {step.height} px at ({step.x}, {step.y}), "
                    f"which lies outside the image of {width} × {height} px.",
                    where=str(source.path),
                    next_step="Another file has taken the place of the one QuPath knew: put the original back.",
                )
            return self._after((step.width, step.height), ((1, 0), (0, 1)), (step.x, step.y))
        if isinstance(step, Rotate):
            match step.quarter_turns % 4:
                case 0:
                    return self
                case 1:  # the new top row, left to right, is the old left column from below
                    return self._after((height, width), ((0, 1), (-1, 0)), (0, height))
                case 2:
                    return self._after((width, height), ((-1, 0), (0, -1)), (width, height))
                case _:
                    return self._after((height, width), ((0, -1), (1, 0)), (width, 0))
        sign_x, sign_y = 1 - 2 * step.horizontal, 1 - 2 * step.vertical
        shift = (width if step.horizontal else 0, height if step.vertical else 0)
        return self._after((width, height), ((sign_x, 0), (0, sign_y)), shift)

    def _after(self, size: tuple[int, int], turn: _Turn, by: tuple[int, int]) -> View:
        """This view after one more step, whose image -> ours is (turn, by)."""
        ours = np.array(self.turn)
        (xx, xy), (yx, yy) = (ours @ np.array(turn)).tolist()
        shift_x, shift_y = (ours @ np.array(by) + np.array(self.shift)).tolist()
        return View(size, ((xx, xy), (yx, yy)), (shift_x, shift_y))

    @property
    def swaps(self) -> bool:
        """Whether x of the shown image runs along y of the file."""
        return self.turn[0][0] == 0

    @property
    def window(self) -> tuple[int, int, int, int]:
        """The shown image in the file: left, top, right, bottom."""
        x, y, width, height = self.to_file(0, 0, *self.size)
        return round(x), round(y), round(x + width), round(y + height)

    def to_file(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """A rectangle of the shown image as x, y, width, height in the file."""
        (xx, xy), (yx, yy) = self.turn
        ax, ay = xx * x + xy * y + self.shift[0], yx * x + yy * y + self.shift[1]
        dx, dy = xx * width + xy * height, yx * width + yy * height
        return min(ax, ax + dx), min(ay, ay + dy), abs(dx), abs(dy)

    def orient(self, pixels: ByteArray) -> ByteArray:
        """Turn pixels as they lie in the file to how they are shown."""
        (xx, xy), (yx, yy) = self.turn
        if self.swaps:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[:: yy or xy, :: xx or yx])

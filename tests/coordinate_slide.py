"""Slides whose pixels tell their own coordinates: R = x mod 256, G = y mod 256, B = 16 · (x div 256) + (y div 256)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile


def coordinate_pixels(width: int, height: int) -> npt.NDArray[np.uint8]:
    """uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x % 256, y % 256, 16 * (x // 256) + y // 256], axis=-1).astype(np.uint8)


def halved(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Means of 2 × 2 pixels, an odd last row or column dropped."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).astype(np.uint16)
    return np.asarray((blocks.sum(axis=(1, 3)) + 2) // 4, dtype=np.uint8)


def write_slide(
    path: Path, pixels: npt.NDArray[np.uint8], *, levels: int = 1, mpp: float | None = None, tile: int = 64
) -> Path:
    """A deflate-compressed tiled pyramid: values are exact."""
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    options = {"tile": (tile, tile), "photometric": "rgb", "compression": "zlib", "metadata": None, **resolution}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=levels - 1, **options)  # type: ignore[arg-type]
        for _ in range(levels - 1):
            pixels = halved(pixels)
            writer.write(pixels, subfiletype=1, **options)  # type: ignore[arg-type]
    return path

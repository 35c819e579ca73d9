"""Contact sheet of the synthetic tiles that the shipped model learns from: one row a class, each tile of its own field.

Writes: one picture.

    python examples/contact_sheet.py OUT.jpg [--tiles 8] [--seed 1]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from her2bridge.records import TileClass
from her2bridge.synth.tiles import render_tiles

LABEL_PX = 56


def sheet(tiles: int, seed: int, size_px: int = 256) -> Image.Image:
    """Six rows of ``tiles`` tiles, the class's name before each."""
    picture = Image.new("RGB", (LABEL_PX + tiles * size_px, len(TileClass) * size_px), "white")
    pen = ImageDraw.Draw(picture)
    for row, tile_class in enumerate(TileClass):
        rng = np.random.default_rng([seed, int(tile_class)])
        drawn = render_tiles(tile_class, tiles, rng, size_px, per_field=1)
        picture.paste(Image.fromarray(np.concatenate(list(drawn), axis=1)), (LABEL_PX, row * size_px))
        pen.text((6, row * size_px + size_px // 2), tile_class.label, fill="black")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiles", type=int, default=8, help="a row")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sheet(arguments.tiles, arguments.seed).save(arguments.out, quality=88)


if __name__ == "__main__":
    main()

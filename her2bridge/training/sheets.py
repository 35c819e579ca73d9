"""Contact sheets: many tiles in one picture, each with a caption, so that a person sees what a class holds."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from her2bridge.events import Emit
from her2bridge.records import ByteArray, IntArray, TileClass
from her2bridge.storage import write_atomically
from her2bridge.training.dataset import Dataset, read_pixels
from her2bridge.training.progress import ticker

SIDE, GAP, LINE = 256, 8, 18
"""Of a tile as drawn, between tiles, and of a line of text, pixels."""
_COLUMNS = 8
_MARK = b"her2bridge sheet"
"""The comment in each JPEG."""
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_sheet(pixels: ByteArray, captions: Sequence[str], path: Path, *, title: str = "") -> None:
    """Draw tiles in rows of eight, each with its caption below it, and write them as JPEG or PNG, by the path's ending.

    Args:
        pixels: uint8 [n, s, s, 3], RGB.
        captions: n texts of one or more lines; a line that is too wide is shortened in its middle.
        title: stands above all.

    Raises:
        WriteFailed: the file cannot be written.
    """
    font, heading = ImageFont.load_default(13), ImageFont.load_default(18)
    lines = [caption.splitlines() for caption in captions]
    text = max(map(len, lines), default=0) * LINE
    top = 2 * LINE if title else 0
    columns = max(1, min(_COLUMNS, len(lines)))
    rows = -(-len(lines) // columns)
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + GAP, top + rows * (SIDE + text + GAP) + GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), _shortened(title, heading, sheet.width - 2 * GAP), _INK, heading)
    for number, (tile, words) in enumerate(zip(pixels, lines, strict=True)):
        x = GAP + number % columns * (SIDE + GAP)
        y = GAP + top + number // columns * (SIDE + text + GAP)
        sheet.paste(Image.fromarray(tile).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
        for index, line in enumerate(words):
            pen.text((x, y + SIDE + index * LINE + 1), _shortened(line, font, SIDE), _INK, font)
    buffer = io.BytesIO()
    if path.suffix.lower() == ".png":
        sheet.save(buffer, "PNG")
    else:
        sheet.save(buffer, "JPEG", quality=90, comment=_MARK)
    write_atomically(path, buffer.getvalue())


def write_sheets(dataset: Dataset, folder: Path, emit: Emit, per_class: int = 64, seed: int = 2022) -> list[Path]:
    """Write one sheet a class that has tiles, ``<label>.jpg``: a random sample, spread over the slides.

    Sheets of before go, of classes that have none now too.

    Args:
        per_class: tiles at most.
        seed: equal seeds give equal samples.

    Raises:
        SlideError: a slide cannot be read.
        WriteFailed: a sheet cannot be written.
    """
    rng = np.random.default_rng(seed)
    sampled = {one: _sample(dataset, one, per_class, rng) for one in TileClass}
    tell = ticker("contact sheets", sum(map(len, sampled.values())), emit)
    done, written = 0, []
    for tile_class, rows in sampled.items():
        if not len(rows):
            continue

        def tell_all(now: int, before: int = done) -> None:
            tell(before + now)

        pixels = read_pixels(dataset, rows, on_progress=tell_all)
        done += len(rows)
        path = folder / f"{tile_class.label}.jpg"
        of = int(dataset.tiles.counts()[tile_class])
        title = f"{tile_class.label}: {len(rows):,} of {of:,} tiles. Research use only."
        draw_sheet(pixels, [caption_of(dataset, row) for row in rows.tolist()], path, title=title)
        written.append(path)
    remove_sheets(folder, written)
    return written


def remove_sheets(folder: Path, keep: Collection[Path] = ()) -> None:
    """Remove what earlier calls drew: the classes' sheets, if they are ours."""
    for path in (folder / f"{one.label}.jpg" for one in TileClass):
        if path in keep or not path.is_file():
            continue
        try:
            with Image.open(path, formats=["JPEG"]) as picture:
                is_ours = picture.info.get("comment") == _MARK
        except OSError:
            continue
        if is_ours:
            path.unlink(missing_ok=True)


def caption_of(dataset: Dataset, row: int) -> str:
    """Two lines: the slide's key, and the tile's top left corner in level-0 pixels."""
    x, y = dataset.tiles.origins[row].tolist()
    return f"{dataset.slides[int(dataset.tiles.slide[row])].key}\n{x:.0f}, {y:.0f}"


def _sample(dataset: Dataset, tile_class: TileClass, count: int, rng: np.random.Generator) -> IntArray:
    """Up to ``count`` rows of a class, int64: from each slide as many as from the others, as long as it has some.

    They are sorted down each slide, as a person would look at them.
    """
    tiles = dataset.tiles
    rows = rng.permutation(np.flatnonzero(tiles.labels == tile_class))
    turn = np.zeros(len(rows), dtype=np.int64)  # 0 for the first tile that is taken from a slide, and so on
    for slide in np.unique(tiles.slide[rows]):
        own = tiles.slide[rows] == slide
        turn[own] = np.arange(own.sum())
    chosen = rows[np.argsort(turn, kind="stable")[:count]]
    return chosen[np.lexsort((tiles.origins[chosen, 0], tiles.origins[chosen, 1], tiles.slide[chosen]))]


def _shortened(text: str, font: _Font, width: int) -> str:
    """The text, or its beginning and its end where it is wider than ``width`` pixels."""
    shown, kept = text, len(text)
    while kept > 1 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown

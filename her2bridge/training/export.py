"""Tiles of a dataset as lossless PNG, for training without the slides, and for other programs."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from her2bridge.events import Emit
from her2bridge.inference.reader import usual_workers
from her2bridge.records import ByteArray, TileClass
from her2bridge.storage import sha256_of, write_atomically
from her2bridge.training.dataset import Dataset, read_pixels, save_dataset
from her2bridge.training.progress import ticker

FOLDER = "tiles"
_MARK = "her2bridge tile"
"""Key of the text in each PNG that says what was read: slide, place and side."""
_CHUNK = 128
_LONGEST = 150  # characters of a name; file systems allow 255 bytes
_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)\d)(?=[. ]|$)", re.IGNORECASE)  # no files on Windows
_OF_EVERY_CARD = frozenset({"format", "notice", "spec", "settings", "counts", "slides", "hashes"})


def export_tiles(dataset: Dataset, emit: Emit) -> Dataset:
    """Write every tile as ``tiles/<slide key>/<label>/<x>_<y>.png``, and save the dataset with these files in it.

    May be broken off and begun again: a file is kept if it decodes, has the right size and says that it is this tile.
    Tiles of an earlier export that the dataset no longer holds are removed, so that the folders show what it says.

    Raises:
        SlideError: a slide is missing, another one, or does not decode.
        WriteFailed: a file cannot be written.
    """
    tiles, total = dataset.tiles, len(dataset.tiles)
    folders = file_names([slide.key for slide in dataset.slides])
    names = [_name(dataset, row, folders) for row in range(total)]
    from_slides = replace(dataset, tiles=replace(tiles, files=(None,) * total))
    once = np.unique(names, return_index=True)[1]  # two tiles of one place and label are one file
    order = once[np.lexsort((tiles.origins[once, 0], tiles.origins[once, 1], tiles.slide[once]))]
    with ThreadPoolExecutor(usual_workers()) as pool:

        def write(row: int, pixels: ByteArray) -> None:
            write_atomically(dataset.folder / names[row], _png(pixels, _mark(dataset, row)))

        def is_missing(row: int) -> bool:
            return not _is_tile(dataset.folder / names[row], dataset.spec.size_px, _mark(dataset, row))

        tell = ticker("tiles exported", len(order), emit)
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            missing = chunk[list(pool.map(is_missing, chunk.tolist()))]
            list(pool.map(write, missing.tolist(), read_pixels(from_slides, missing)))
            tell(start + len(chunk))
    _remove_others(dataset.folder, names)
    card = dataset.card
    more = {key: value for key, value in card.items() if key not in _OF_EVERY_CARD}
    return save_dataset(
        dataset.folder, dataset.spec, dataset.slides, replace(tiles, files=tuple(names)), card["settings"], **more
    )


def file_name(key: str) -> str:
    """A slide's key as the name of a file or folder, on every system; different keys stay different.

    Those that differ in case alone do not, for some systems: see ``file_names``.
    """
    name = quote(key, safe=" +,()&=@").replace("~", "%7E")  # the tilde is ours
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 13]}~{sha256_of(key.encode())[:12]}"
    if not name or name.startswith(".") or _DEVICE.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}" if name else "%"
    return f"{name[:-1]}%{ord(name[-1]):02X}" if name.endswith((".", " ")) else name


def file_names(keys: Sequence[str]) -> list[str]:
    """The name of each; of those that differ in case alone, all but the first have a number."""
    found: dict[str, str] = {}
    for key in keys:
        number, name = 1, file_name(key)
        one = name
        while one.casefold() in found:
            number += 1
            one = f"{name}~{number}"
        found[one.casefold()] = one
    return list(found.values())


def _name(dataset: Dataset, row: int, folders: Sequence[str]) -> str:
    """Where a tile goes, relative to the dataset's folder."""
    tiles = dataset.tiles
    x, y = (f"{number:.2f}".rstrip("0").rstrip(".") for number in tiles.origins[row].tolist())
    return f"{FOLDER}/{folders[int(tiles.slide[row])]}/{TileClass(int(tiles.labels[row])).label}/{x}_{y}.png"


def _mark(dataset: Dataset, row: int) -> str:
    """What is read for a tile: if any of it changes, the pixels do."""
    tiles = dataset.tiles
    slide = dataset.slides[int(tiles.slide[row])]
    x, y = tiles.origins[row].tolist()
    source = slide.source
    return f"{slide.fingerprint} {source.series} {source.use_bounds} {source.view} {x} {y} {float(tiles.sides[row])}"


def _png(pixels: ByteArray, mark: str) -> bytes:
    text = PngInfo()
    text.add_text(_MARK, mark)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _is_tile(path: Path, size: int, mark: str) -> bool:
    """Whether a file is there and is this tile, whole."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
            return picture.size == (size, size) and picture.mode == "RGB" and _mark_in(picture) == mark
    except (OSError, SyntaxError, ValueError):  # Pillow says SyntaxError of a broken PNG
        return False


def _mark_in(picture: Image.Image) -> str | None:
    return picture.text.get(_MARK) if isinstance(picture, PngImageFile) else None


def _remove_others(folder: Path, names: list[str]) -> None:
    """Remove the PNGs of ours below ``tiles`` that are not among ``names``."""
    wanted = {folder / name for name in names}
    for path in (folder / FOLDER).rglob("*.png"):
        if path in wanted:
            continue
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                picture.load()
                ours = _mark_in(picture) is not None
        except (OSError, SyntaxError, ValueError):
            continue
        if ours:
            path.unlink(missing_ok=True)

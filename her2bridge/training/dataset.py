"""Labelled tiles as a folder: ``tiles.parquet``, ``dataset.json``, and, if wanted, the tiles as PNG.

The parquet has one row a tile: ``slide`` (a key of ``dataset.json``), ``patient``, ``x``, ``y`` and ``size`` (level-0
pixels, floats), ``um_per_px`` (of the slide), ``label`` (0, 1+, 2+, 3+, normal, noise), ``region`` (id of the
annotation, or of the corrected tile), ``annotator``, ``split`` (train, val, test) and ``file`` (of an exported tile,
else null).

Tiles are read from the slides where there is no file. A slide is looked for where it lies relative to the dataset, then
where it lay when the dataset was made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from her2bridge.errors import DatasetDamaged, DatasetNotFound, SizeMismatch, SlideUnreadable
from her2bridge.inference.reader import usual_workers
from her2bridge.qupath.image_uris import relocated
from her2bridge.records import ByteArray, Crop, Flip, FloatArray, IntArray, Rotate, SlideSource, TileClass, TileSpec
from her2bridge.slides import Slide, open_slide
from her2bridge.storage import sha256_of, write_atomically
from her2bridge.training.extras import need

TILES_FILE, CARD_FILE = "tiles.parquet", "dataset.json"
FORMAT = 1
SPLITS = ("train", "val", "test")

_MIB = 1 << 20
_CHUNK = 1024  # tiles that are handed to the threads at once
_STEPS = {"Crop": Crop, "Rotate": Rotate, "Flip": Flip}
_NEXT = "Make it again with her2bridge labels."


@dataclass(frozen=True)
class LabelledSlide:
    """A slide that labelled tiles lie on.

    Attributes:
        key: names it in the table; unique within the dataset.
        name: the image's name in its project, or the file's.
        patient: whose it is; splits never part a patient's slides.
        source: its pixels.
        mpp: the µm/px that its tiles were laid at.
        fingerprint: of the file, see ``fingerprint_of``.
        project: the QuPath project's file; None where the labels came as GeoJSON.
        entry: the image's entryID there.
    """

    key: str
    name: str
    patient: str
    source: SlideSource
    mpp: float
    fingerprint: str
    project: Path | None = None
    entry: str | None = None


@dataclass(frozen=True, eq=False)
class TileTable:
    """n labelled tiles, in columns.

    Attributes:
        slide: index of the dataset's slide, int64 [n].
        origins: top left corners, level-0 pixels, float64 [n, 2].
        sides: level-0 pixels, float64 [n].
        labels: ``TileClass`` values, int64 [n].
        regions: id of the annotation that gave the label, or of the tile that a person corrected.
        annotators: who drew it.
        splits: ``train``, ``val`` or ``test``.
        files: exported tile, relative to the dataset's folder; None where there is none.
    """

    slide: IntArray
    origins: FloatArray
    sides: FloatArray
    labels: IntArray
    regions: tuple[str, ...]
    annotators: tuple[str, ...]
    splits: tuple[str, ...]
    files: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def rows_of(self, *splits: str) -> IntArray:
        """Rows of these splits, int64, ascending."""
        return np.flatnonzero(np.isin(np.array(self.splits, dtype=object), splits)).astype(np.int64)

    def counts(self) -> IntArray:
        """Tiles by class, int64 [6]."""
        return np.bincount(self.labels, minlength=len(TileClass)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset on disk.

    Attributes:
        folder: where it lies.
        spec: the field of a tile.
        slides: in the order of ``TileTable.slide``.
        tiles: the table.
        card: ``dataset.json``, parsed.
    """

    folder: Path
    spec: TileSpec
    slides: tuple[LabelledSlide, ...]
    tiles: TileTable
    card: Mapping[str, Any]

    @cached_property
    def patients(self) -> tuple[str, ...]:
        """The patient of each of the n tiles."""
        return tuple(self.slides[index].patient for index in self.tiles.slide.tolist())

    @property
    def sha256(self) -> str:
        """Of the table; what a model says it was trained on."""
        return str(self.card["hashes"][TILES_FILE])

    def relocated(self, relocations: Sequence[tuple[str, str]]) -> Dataset:
        """The same dataset, slides looked for under other beginnings of their paths: (old, new)."""
        return replace(self, slides=tuple(_relocated(slide, relocations) for slide in self.slides))


def fingerprint_of(path: Path) -> str:
    """16 hex digits that tell a slide file from others: of its size, its first and its last MiB."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_MIB)
        file.seek(max(0, size - _MIB))
        tail = file.read(_MIB)
    return hashlib.sha256(b"%d " % size + head + tail).hexdigest()[:16]


def save_dataset(
    folder: Path,
    spec: TileSpec,
    slides: Sequence[LabelledSlide],
    tiles: TileTable,
    settings: Mapping[str, Any],
    **more: Any,
) -> Dataset:
    """Write table and card; what the folder held of both before is replaced.

    Args:
        settings: how the tiles were chosen; plain values.
        more: further members of the card.

    Raises:
        UsageError: pyarrow is not installed.
        WriteFailed: the folder cannot be written.
    """
    data = _table_bytes(slides, tiles)
    card = {
        "format": FORMAT,
        "notice": "Research use only.",
        "spec": {"size_px": spec.size_px, "um_per_px": spec.mpp},
        "settings": dict(settings),
        "counts": _counts(tiles),
        "slides": [_plain(slide, folder) for slide in slides],
        "hashes": {TILES_FILE: sha256_of(data)},
        **more,
    }
    write_atomically(folder / TILES_FILE, data)
    text = json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False)
    write_atomically(folder / CARD_FILE, f"{text}\n".encode())
    return load_dataset(folder)


def load_dataset(folder: Path) -> Dataset:
    """Read a dataset's card and table.

    Raises:
        DatasetNotFound: there is none.
        DatasetDamaged: it is not what ``save_dataset`` writes, or the table has another hash.
        UsageError: pyarrow is not installed.
    """
    folder = folder.expanduser().absolute()
    path = folder / CARD_FILE
    if not path.is_file():
        raise DatasetNotFound(
            "There is no dataset here.",
            where=str(folder),
            next_step=f"Name a folder that holds {CARD_FILE}; her2bridge labels makes one.",
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']}; a later her2bridge may have written it")
        spec = TileSpec(int(card["spec"]["size_px"]), float(card["spec"]["um_per_px"]))
        slides = tuple(_slide_of(one, folder) for one in card["slides"])
        data = (folder / TILES_FILE).read_bytes()
        if sha256_of(data) != card["hashes"][TILES_FILE]:
            raise ValueError(f"{TILES_FILE} is not the one that {CARD_FILE} describes: its SHA-256 differs")
        tiles = _table_of(data, slides)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        fault = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DatasetDamaged(f"The dataset cannot be read ({fault}).", where=str(path), next_step=_NEXT) from error
    return Dataset(folder, spec, slides, tiles, card)


def read_pixels(
    dataset: Dataset,
    rows: IntArray,
    out: ByteArray | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> ByteArray:
    """The tiles of these rows, uint8 [m, size, size, 3], RGB, at the dataset's resolution.

    Args:
        out: where they are to go (a memory map, for instance); made where None.
        workers: reading threads; default: one a core, 32 at most.
        on_progress: told how many are done.

    Raises:
        SlideError: a slide is missing, another one, or does not decode.
    """
    size = dataset.spec.size_px
    pixels = np.empty((len(rows), size, size, 3), dtype=np.uint8) if out is None else out
    tiles = dataset.tiles
    order = np.lexsort((tiles.origins[rows, 0], tiles.origins[rows, 1], tiles.slide[rows]))
    is_new = np.diff(tiles.slide[rows][order], prepend=-1) != 0
    done = 0
    with ThreadPoolExecutor(workers or usual_workers()) as pool:
        for places in np.split(order, np.flatnonzero(is_new)[1:]):  # one slide is open at a time
            needs_slide = any(tiles.files[row] is None for row in rows[places].tolist())
            slide = _opened(dataset.slides[tiles.slide[rows[places[0]]]]) if needs_slide else None
            with slide or nullcontext():
                for start in range(0, len(places), _CHUNK):
                    some = places[start : start + _CHUNK]
                    for place, tile in zip(some, pool.map(partial(_tile, dataset, slide), rows[some]), strict=True):
                        pixels[place] = tile
                        done += 1
                        if on_progress is not None:
                            on_progress(done)
    return pixels


def _opened(slide: LabelledSlide) -> Slide:
    """The slide, which must be the file that the labels were drawn on.

    Raises:
        SlideError: it is missing or another one.
    """
    opened = open_slide(slide.source)
    if fingerprint_of(slide.source.path) != slide.fingerprint:
        opened.close()
        raise SizeMismatch(
            "The slide is another file than the one that the labels were drawn on.",
            where=str(slide.source.path),
            next_step="Put the original back, or make the dataset again with her2bridge labels.",
        )
    return opened


def _tile(dataset: Dataset, slide: Slide | None, row: int) -> ByteArray:
    tiles, size = dataset.tiles, dataset.spec.size_px
    if slide is not None and tiles.files[row] is None:
        x, y = tiles.origins[row].tolist()
        return slide.read(x, y, float(tiles.sides[row]), float(tiles.sides[row]), size, size)
    path = dataset.folder / str(tiles.files[row])
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except OSError as error:
        what = "An exported tile cannot be read."
        raise SlideUnreadable(what, where=str(path), next_step="Copy the dataset again, or export it anew.") from error
    if pixels.shape != (size, size, 3):
        what = f"An exported tile is {pixels.shape[1]} × {pixels.shape[0]} px, not {size} × {size}."
        raise SlideUnreadable(what, where=str(path), next_step="Export the dataset anew.")
    return pixels


def _counts(tiles: TileTable) -> dict[str, dict[str, int]]:
    """Tiles by split and label."""
    found = {}
    for split in SPLITS:
        counts = np.bincount(tiles.labels[tiles.rows_of(split)], minlength=len(TileClass))
        found[split] = {one.label: int(counts[one]) for one in TileClass}
    return found


def _table_bytes(slides: Sequence[LabelledSlide], tiles: TileTable) -> bytes:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    of = [slides[index] for index in tiles.slide.tolist()]
    table = pyarrow.table(
        {
            "slide": [slide.key for slide in of],
            "patient": [slide.patient for slide in of],
            "x": tiles.origins[:, 0],
            "y": tiles.origins[:, 1],
            "size": tiles.sides,
            "um_per_px": [slide.mpp for slide in of],
            "label": [TileClass(label).label for label in tiles.labels.tolist()],
            "region": list(tiles.regions),
            "annotator": list(tiles.annotators),
            "split": list(tiles.splits),
            "file": pyarrow.array(list(tiles.files), pyarrow.string()),
        }
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def _table_of(data: bytes, slides: Sequence[LabelledSlide]) -> TileTable:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    columns = parquet.read_table(pyarrow.BufferReader(data)).to_pydict()
    number = {slide.key: index for index, slide in enumerate(slides)}
    return TileTable(
        slide=np.array([number[key] for key in columns["slide"]], dtype=np.int64),
        origins=np.stack([np.array(columns[axis], dtype=np.float64) for axis in "xy"], axis=1),
        sides=np.array(columns["size"], dtype=np.float64),
        labels=np.array([TileClass.from_label(label) for label in columns["label"]], dtype=np.int64),
        regions=tuple(columns["region"]),
        annotators=tuple(columns["annotator"]),
        splits=tuple(columns["split"]),
        files=tuple(columns["file"]),
    )


def _plain(slide: LabelledSlide, folder: Path) -> dict[str, Any]:
    source = slide.source
    path = source.path.absolute()
    try:
        relative: str | None = Path(os.path.relpath(path, folder.absolute())).as_posix()
    except ValueError:  # another drive
        relative = None
    return {
        "key": slide.key,
        "name": slide.name,
        "patient": slide.patient,
        "um_per_px": slide.mpp,
        "fingerprint": slide.fingerprint,
        "project": None if slide.project is None else str(slide.project),
        "entry": slide.entry,
        "source": {
            "path": str(path),
            "relative": relative,
            "file_size": source.file_size,
            "mpp": source.mpp,
            "series": source.series,
            "use_bounds": source.use_bounds,
            "view": [{"step": type(step).__name__, **dataclasses.asdict(step)} for step in source.view],
        },
    }


def _slide_of(plain: Mapping[str, Any], folder: Path) -> LabelledSlide:
    source = plain["source"]
    beside = None if source["relative"] is None else Path(os.path.normpath(folder / source["relative"]))
    steps = [dict(step) for step in source["view"]]
    return LabelledSlide(
        key=str(plain["key"]),
        name=str(plain["name"]),
        patient=str(plain["patient"]),
        source=SlideSource(
            path=beside if beside is not None and beside.exists() else Path(source["path"]),
            file_size=None if source["file_size"] is None else (source["file_size"][0], source["file_size"][1]),
            mpp=None if source["mpp"] is None else (source["mpp"][0], source["mpp"][1]),
            series=int(source["series"]),
            use_bounds=bool(source["use_bounds"]),
            view=tuple(_STEPS[step.pop("step")](**step) for step in steps),
        ),
        mpp=float(plain["um_per_px"]),
        fingerprint=str(plain["fingerprint"]),
        project=None if plain["project"] is None else Path(plain["project"]),
        entry=plain["entry"],
    )


def _relocated(slide: LabelledSlide, relocations: Sequence[tuple[str, str]]) -> LabelledSlide:
    """The slide where the longest beginning that fits finds a file; as it was where none does."""
    text = str(slide.source.path)
    recorded = PureWindowsPath(text) if re.match(r"[A-Za-z]:[\\/]|\\\\", text) else PurePosixPath(text)
    for place in relocated(recorded, relocations):
        if place.exists():
            return replace(slide, source=replace(slide.source, path=place))
    return slide

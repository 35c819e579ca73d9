"""Two people's labels of the same tiles: how far they agree, and where they do not.

Two tiles are the same where their slides are (by fingerprint, and seen alike) and their centres lie within a hundredth
of a side. Datasets that ``her2bridge labels`` made with the same tile size, offsets and seed have the same places.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from scipy.spatial import KDTree
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from her2bridge.errors import NotEnoughLabels
from her2bridge.qupath.annotation_file import write_annotations
from her2bridge.qupath.seam import PathObject
from her2bridge.records import TUMOUR_CLASSES, FloatArray, IntArray, TileClass
from her2bridge.storage import write_atomically
from her2bridge.training.dataset import Dataset, LabelledSlide, TileTable
from her2bridge.training.export import file_names

TOLERANCE = 0.01
"""How far apart, in sides, the centres of one and the same tile may lie, and how much its sides may differ."""

_CLASSES = tuple(int(one) for one in TileClass)
_TUMOUR = tuple(int(one) for one in TUMOUR_CLASSES)
_GRADES = np.array([one.value if one.is_tumour else 0 for one in TileClass])
_COLOUR = (255, 0, 255)  # of disagreements in QuPath: no class has it
_ID_SPACE = uuid.UUID("b7a3f3b2-5a0e-4d0f-8a53-0c0d5f1f6a94")  # any constant does


@dataclass(frozen=True)
class Disagreement:
    """A tile that two people class differently.

    Attributes:
        slide: as A has it.
        x, y: top left corner, level-0 pixels.
        side: level-0 pixels.
        label_a, label_b: what each says.
    """

    slide: LabelledSlide
    x: float
    y: float
    side: float
    label_a: TileClass
    label_b: TileClass

    @property
    def grades_apart(self) -> int:
        """0–3; normal and noise count as 0."""
        return int(abs(_GRADES[self.label_a] - _GRADES[self.label_b]))


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far two datasets agree on the tiles that both hold.

    Attributes:
        confusion: tiles, int64 [6, 6], rows by A, columns by B.
        only_a: tiles by class that only A holds, int64 [6].
        only_b: the same of B.
        kappa: Cohen's, unweighted, of the six classes; NaN where both gave all tiles one and the same class.
        tumour_kappa: Cohen's, with quadratic weights, of the tiles that both gave one of the four tumour classes; NaN
            likewise, and where there is no such tile.
        disagreements: those most grades apart first, then down each slide.
    """

    confusion: IntArray
    only_a: IntArray
    only_b: IntArray
    kappa: float
    tumour_kappa: float
    disagreements: tuple[Disagreement, ...]

    @property
    def tiles(self) -> int:
        """Tiles that both hold."""
        return int(self.confusion.sum())

    @property
    def tumour_tiles(self) -> int:
        """Those that both gave a tumour class."""
        return int(self.confusion[: len(_TUMOUR), : len(_TUMOUR)].sum())

    @property
    def share(self) -> float:
        """Of the tiles that both hold, the share, 0–1, that both class alike."""
        return float(self.confusion.trace() / self.confusion.sum())

    @property
    def by_class(self) -> FloatArray:
        """Specific agreement of each class, 0–1, float64 [6]: of all its mentions those in which both agree.

        2 · both / (by A + by B); NaN for a class that neither gave.
        """
        mentions = self.confusion.sum(axis=0) + self.confusion.sum(axis=1)
        shares = np.full(len(_CLASSES), np.nan)
        np.divide(2.0 * self.confusion.diagonal(), mentions, out=shares, where=mentions > 0)
        return shares

    def plain(self) -> dict[str, Any]:
        """As JSON has it; None where a figure is NaN."""
        return {
            "tiles": {"both": self.tiles, "only_a": _counts(self.only_a), "only_b": _counts(self.only_b)},
            "agreement": self.share,
            "kappa": _number(self.kappa),
            "tumour": {"tiles": self.tumour_tiles, "quadratic_kappa": _number(self.tumour_kappa)},
            "agreement_by_class": {one.label: _number(self.by_class[one]) for one in TileClass},
            "confusion": {"order": [one.label for one in TileClass], "rows_a_columns_b": self.confusion.tolist()},
            "disagreements": [_plain(one) for one in self.disagreements],
        }


def compare_datasets(a: Dataset, b: Dataset) -> Agreement:
    """Compare two datasets' labels.

    Raises:
        NotEnoughLabels: no tile is in both.
    """
    rows_a, rows_b = _matched(a, b)
    if not len(rows_a):
        raise NotEnoughLabels(
            "The two datasets have no tile in common.",
            where=f"{a.folder} and {b.folder}",
            next_step="Make both from labels of the same slides, with the same tile size, offsets and seed.",
        )
    labels_a, labels_b = a.tiles.labels[rows_a], b.tiles.labels[rows_b]
    tumour = np.isin(labels_a, _TUMOUR) & np.isin(labels_b, _TUMOUR)
    differ = labels_a != labels_b
    found = [_disagreement(a, b, *rows) for rows in zip(rows_a[differ], rows_b[differ], strict=True)]
    return Agreement(
        confusion=confusion_matrix(labels_a, labels_b, labels=_CLASSES).astype(np.int64),
        only_a=_left(a.tiles, rows_a),
        only_b=_left(b.tiles, rows_b),
        kappa=kappa(labels_a, labels_b),
        tumour_kappa=kappa(labels_a[tumour], labels_b[tumour], quadratic=True),
        disagreements=tuple(sorted(found, key=lambda one: (-one.grades_apart, one.slide.key, one.y, one.x))),
    )


def kappa(labels_a: IntArray, labels_b: IntArray, *, quadratic: bool = False) -> float:
    """Cohen's kappa; NaN where it is not defined: no tiles, or all of one class to both."""
    if len(np.union1d(labels_a, labels_b)) < 2:
        return float("nan")
    classes = _TUMOUR if quadratic else _CLASSES  # weights need every class between, occurring or not
    return float(cohen_kappa_score(labels_a, labels_b, labels=classes, weights="quadratic" if quadratic else None))


def write_list(path: Path, agreement: Agreement) -> None:
    """Write the disagreements as CSV (UTF-8): image, x, y, size, label_a, label_b.

    Raises:
        WriteFailed: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "x", "y", "size", "label_a", "label_b"])
    for one in agreement.disagreements:
        place = (f"{number:.2f}" for number in (one.x, one.y, one.side))
        writer.writerow([one.slide.name, *place, one.label_a.label, one.label_b.label])
    write_atomically(path, text.getvalue().encode())


def write_geojson(folder: Path, agreement: Agreement) -> list[Path]:
    """Write the disagreements of each slide as annotations that QuPath imports, ``<slide key>.geojson``.

    Raises:
        WriteFailed: a file cannot be written.
    """
    by_slide: dict[str, list[PathObject]] = {}
    for one in agreement.disagreements:
        by_slide.setdefault(one.slide.key, []).append(_annotation(one))
    keys = sorted(by_slide)
    written = []
    for key, name in zip(keys, file_names(keys), strict=True):
        path = folder / f"{name}.geojson"
        write_annotations(path, by_slide[key])
        written.append(path)
    return written


def _matched(a: Dataset, b: Dataset) -> tuple[IntArray, IntArray]:
    """The rows of A and of B that are one tile, pair by pair; a row stands in one pair at most."""
    of_b = _rows_by_image(b)
    pairs = [_pairs(a, rows, b, of_b[image]) for image, rows in _rows_by_image(a).items() if image in of_b]
    if not pairs:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate([one for one, _ in pairs]), np.concatenate([other for _, other in pairs])


def _rows_by_image(dataset: Dataset) -> Mapping[object, IntArray]:
    """Rows by what is seen: the file, and the view of it in which coordinates are counted."""
    found: dict[object, list[IntArray]] = {}
    for number, slide in enumerate(dataset.slides):
        source = slide.source
        image = (slide.fingerprint, source.series, source.use_bounds, source.view)
        found.setdefault(image, []).append(np.flatnonzero(dataset.tiles.slide == number))
    return {image: np.concatenate(rows) for image, rows in found.items() if sum(map(len, rows))}


def _pairs(a: Dataset, rows_a: IntArray, b: Dataset, rows_b: IntArray) -> tuple[IntArray, IntArray]:
    """Of one image: each tile of A with the nearest of B, and of several of A with the same one the nearest of them."""
    sides = a.tiles.sides[rows_a]
    distances, nearest = KDTree(_centres(b.tiles, rows_b)).query(_centres(a.tiles, rows_a))
    alike = np.abs(b.tiles.sides[rows_b][nearest] - sides) <= TOLERANCE * sides
    near = np.flatnonzero((distances <= TOLERANCE * sides) & alike)
    near = near[np.argsort(distances[near], kind="stable")]
    _, first = np.unique(nearest[near], return_index=True)
    taken = near[np.sort(first)]
    return rows_a[taken], rows_b[nearest[taken]]


def _centres(tiles: TileTable, rows: IntArray) -> FloatArray:
    return tiles.origins[rows] + tiles.sides[rows, None] / 2


def _disagreement(a: Dataset, b: Dataset, row_a: int, row_b: int) -> Disagreement:
    tiles = a.tiles
    x, y = tiles.origins[row_a].tolist()
    slide, side = a.slides[int(tiles.slide[row_a])], float(tiles.sides[row_a])
    return Disagreement(slide, x, y, side, TileClass(int(tiles.labels[row_a])), TileClass(int(b.tiles.labels[row_b])))


def _left(tiles: TileTable, rows: IntArray) -> IntArray:
    """Tiles by class that are not among these rows, int64 [6]."""
    return np.bincount(np.delete(tiles.labels, rows), minlength=len(_CLASSES)).astype(np.int64)


def _annotation(one: Disagreement) -> PathObject:
    name = f"A: {one.label_a.label}, B: {one.label_b.label}"
    return PathObject(
        kind="annotation",
        id=str(uuid.uuid5(_ID_SPACE, f"{one.slide.fingerprint} {one.x} {one.y} {name}")),
        parent_id=None,
        name=name,
        rgb=_COLOUR,
        geometry=shapely.box(one.x, one.y, one.x + one.side, one.y + one.side),
    )


def _plain(one: Disagreement) -> dict[str, Any]:
    labels = {"label_a": one.label_a.label, "label_b": one.label_b.label}
    return {"image": one.slide.name, "x": one.x, "y": one.y, "size": one.side, **labels}


def _counts(tiles: IntArray) -> dict[str, int]:
    return {one.label: int(tiles[one]) for one in TileClass}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

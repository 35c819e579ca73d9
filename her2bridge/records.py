"""The nouns of the house: frozen, without behaviour that reads a file or a clock.

The coordinate law
------------------
Every coordinate between modules is in **pixels of the full-resolution image as QuPath shows it**: origin at the top
left corner of the top left pixel, x to the right, y down, floats. ``qupath/server_builder.py`` says how that image
lies in the file (bounds, crop, rotation, series) and ``slides/`` reads accordingly; nobody else converts.

Arrays are numpy; ``n`` stands for the number of tiles of a slide and ``k`` for the number of its regions.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


class TileClass(enum.IntEnum):
    """What a tile shows; the value is the column of the network's output (Han et al. 2022, section 3.1)."""

    ZERO = 0
    ONE = 1
    TWO = 2
    THREE = 3
    NORMAL = 4
    NOISE = 5

    @property
    def label(self) -> str:
        """The field's name: ``0``, ``1+``, ``2+``, ``3+``, ``normal``, ``noise``."""
        return _LABELS[self.value]

    @property
    def is_tumour(self) -> bool:
        """Whether the class counts towards the HER2 shares."""
        return self.value < 4

    @classmethod
    def from_label(cls, label: str) -> TileClass:
        """The class of a label, e.g. ``"2+"``.

        Raises:
            ValueError: no such label.
        """
        return cls(_LABELS.index(label))


_LABELS = ("0", "1+", "2+", "3+", "normal", "noise")
TUMOUR_CLASSES = (TileClass.ZERO, TileClass.ONE, TileClass.TWO, TileClass.THREE)
LEFT_OUT = -1
"""In arrays of classes: a tile that a person gave a class which is none of the six; it counts nowhere."""


@dataclass(frozen=True)
class TileSpec:
    """The field that the network wants to see.

    With the default, 256 px at 0.25 µm/px, the field is 64 µm. On a slide of 0.5 µm/px a tile is 128 level-0 pixels
    wide and is enlarged twofold; at 0.2 µm/px it is 320 pixels and is reduced; at 0.242 µm/px it is 264.46 pixels:
    sides are floats and are never rounded.
    """

    size_px: int = 256
    mpp: float = 0.25

    @property
    def field_um(self) -> float:
        """The side of the field in µm."""
        return self.size_px * self.mpp

    def side(self, slide_mpp: float) -> float:
        """The side of a tile in level-0 pixels of a slide of ``slide_mpp`` µm/px."""
        return self.field_um / slide_mpp


@dataclass(frozen=True)
class Crop:
    """QuPath's ``cropped`` builder: a rectangle of the image below, in that image's pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Rotate:
    """QuPath's ``rotated`` builder: quarter turns, clockwise."""

    quarter_turns: int


@dataclass(frozen=True)
class Flip:
    """QuPath's ``flipped`` builder."""

    horizontal: bool
    vertical: bool


ViewStep = Crop | Rotate | Flip


@dataclass(frozen=True)
class SlideSource:
    """Where an image lies and how QuPath shows it.

    Attributes:
        path: the slide file.
        file_size: width and height that QuPath recorded for the image in the file, before the view; None if unknown.
        mpp: QuPath's own calibration of the shown image in µm/px (x, y); None where it has none.
        series: index of the image within the file (Bio-Formats ``--series``).
        use_bounds: whether (0,0) lies at ``openslide.bounds-x/y`` (QuPath's OpenSlide server without ``--no-crop``).
        view: how the shown image comes from the one in the file, innermost step first.
    """

    path: Path
    file_size: tuple[int, int] | None = None
    mpp: tuple[float, float] | None = None
    series: int = 0
    use_bounds: bool = False
    view: tuple[ViewStep, ...] = ()


@dataclass(frozen=True, eq=False)
class Region:
    """An annotated area to be scored.

    Attributes:
        id: the annotation's UUID in QuPath; tiles are stored below it.
        name: the annotation's name, or None.
        class_name: its PathClass as QuPath prints it, e.g. ``Tumor``.
        geometry: a valid polygon or multipolygon, the exclusions not yet cut out.
    """

    id: str
    name: str | None
    class_name: str | None
    geometry: BaseGeometry


@dataclass(frozen=True, eq=False)
class TileGrid:
    """The tiles of a slide: tile (i, j) covers [i·s, (i+1)·s) × [j·s, (j+1)·s), s = ``side``.

    Attributes:
        spec: what the bundle asked for.
        side: s, level-0 pixels.
        columns: i, int64 [n].
        rows: j, int64 [n]; tiles are sorted by (j, i), so that reading runs down the slide.
        owner: int64 [n], the index in ``regions`` of the region each tile is stored below.
        regions: the k regions, in the project's order.
        members: for each region the indices of every tile whose centre lies in it (int64), nested regions included.
    """

    spec: TileSpec
    side: float
    columns: IntArray
    rows: IntArray
    owner: IntArray
    regions: tuple[Region, ...]
    members: tuple[IntArray, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.columns)

    def origins(self) -> FloatArray:
        """Top left corners, float64 [n, 2]."""
        return np.stack([self.columns, self.rows], axis=1).astype(np.float64) * self.side

    def centres(self) -> FloatArray:
        """Centres, float64 [n, 2]."""
        return (np.stack([self.columns, self.rows], axis=1).astype(np.float64) + 0.5) * self.side

    def only(self, wanted: BoolArray) -> TileGrid:
        """The grid of those tiles alone that ``wanted``, bool [n], names; all regions stay."""
        number = np.cumsum(wanted) - 1
        return replace(
            self,
            columns=self.columns[wanted],
            rows=self.rows[wanted],
            owner=self.owner[wanted],
            members=tuple(number[members[wanted[members]]] for members in self.members),
        )


@dataclass(frozen=True, eq=False)
class TilePredictions:
    """What the network saw: class probabilities, float32 [n, 6], rows as in ``grid``."""

    grid: TileGrid
    probabilities: Float32Array

    @property
    def classes(self) -> IntArray:
        """The most probable class of each tile, int64 [n]; the first one where two are equal."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)


class Status(enum.StrEnum):
    """The reading of a slide's score."""

    NEGATIVE = "Negative"
    EQUIVOCAL = "Equivocal (ISH advised)"
    POSITIVE = "Positive"
    DISCORDANT = "Discordant (review)"
    NOT_ASSESSABLE = "Not assessable"


NOT_ASSESSABLE = "Not assessable"


class Specimen(enum.StrEnum):
    """The kind of specimen; the rule differs, and it cannot be seen in the picture."""

    RESECTION = "resection"
    BIOPSY = "biopsy"
    NOT_STATED = "not stated"


@dataclass(frozen=True)
class TileCounts:
    """Whole counts of tiles by class, and what follows from them.

    Attributes:
        by_class: tiles of 0, 1+, 2+, 3+, normal, noise.
    """

    by_class: tuple[int, int, int, int, int, int]

    @property
    def tumour(self) -> int:
        """Tiles that show tumour."""
        return sum(self.by_class[:4])

    @property
    def total(self) -> int:
        """All tiles of the six classes."""
        return sum(self.by_class)

    def share(self, tile_class: TileClass) -> float:
        """Share of the tumour tiles, 0–1; NaN where there are none."""
        return self.by_class[tile_class] / self.tumour if self.tumour else float("nan")

    @property
    def h_score(self) -> float:
        """Tile H-score, 0–300: 100 · Σ grade · share. NaN where there is no tumour tile."""
        if not self.tumour:
            return float("nan")
        return 100.0 * sum(c * self.by_class[c] for c in range(4)) / self.tumour

    @classmethod
    def of(cls, classes: IntArray | Sequence[int]) -> TileCounts:
        """Count an array of classes; entries of ``LEFT_OUT`` count nowhere."""
        array = np.asarray(classes, dtype=np.int64)
        counts = np.bincount(array[array >= 0], minlength=len(TileClass)).tolist()
        return cls((counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]))


@dataclass(frozen=True)
class WhspnReading:
    """What the second network, the WHSPN, says of a slide.

    Attributes:
        score: ``0``, ``1+``, ``2+`` or ``3+``.
        kind: ``MLP`` or ``SVM``.
        margin: how much more probable the score is than the next, 0–1; None for the SVM, which has no probabilities.
        trained_on: what it learned from, to be said wherever its score is shown.
    """

    score: str
    kind: str
    margin: float | None
    trained_on: str

    def __str__(self) -> str:
        margin = "" if self.margin is None else f", margin {self.margin:.2f}"
        return f"{self.score} ({self.kind}{margin}; trained on {self.trained_on})"


@dataclass(frozen=True)
class SlideScore:
    """The score of one slide. Research use only.

    Attributes:
        score: ``0``, ``1+``, ``2+``, ``3+`` or ``Not assessable``.
        status: its reading.
        counts: tiles of the slide, each counted once.
        rule_score: what the guideline's rule says; None when not assessable.
        specimen: what the rule was told.
        review: reasons why a person should look, most weighty first; may be empty.
        region_counts: for each region, in order, the counts of every tile whose centre lies in it.
        whspn: what the WHSPN says; None where there is none, none was asked for, or the slide is none for it.
    """

    score: str
    status: Status
    counts: TileCounts
    rule_score: str | None
    specimen: Specimen
    review: tuple[str, ...] = ()
    region_counts: tuple[TileCounts, ...] = ()
    whspn: WhspnReading | None = None

    @property
    def assessable(self) -> bool:
        """Whether there was enough tumour to score."""
        return self.score != NOT_ASSESSABLE

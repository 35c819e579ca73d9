"""The labels of one image: its annotations, and the tiles that a person corrected, become labelled tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from her2bridge.calibration import resolve_mpp
from her2bridge.errors import UsageError
from her2bridge.qupath.earlier_tiles import corrected_rows
from her2bridge.qupath.label_classes import LabelClasses, Use
from her2bridge.qupath.seam import PathObject, StoredTiles
from her2bridge.qupath.suspect_labels import is_answered
from her2bridge.records import LEFT_OUT, BoolArray, FloatArray, IntArray, SlideSource, TileClass, TileSpec
from her2bridge.slides import Slide, open_slide
from her2bridge.tiling import check_resolution, mend, tissue_mask
from her2bridge.training.label_areas import Conflict, LabelArea, TissueShares, lay_tiles, resolve

_TISSUE_MPP = 8.0  # µm/px of the thumbnail in which tissue is looked for: eight of its pixels are a tile of 64 µm
_THUMBNAIL = 4096  # px at most
_NAMES = 5
_OFF_GRID = 0.01  # of a side, as earlier_tiles.cells_of


@dataclass(frozen=True)
class LabelSettings:
    """How labels become tiles.

    Attributes:
        spec: the field of a tile.
        min_inside: share of a tile that must lie in its label, above 0.5 and up to 1.
        min_tissue: share of a tile that must be tissue, 0–1; not heeded for noise.
        offsets: further grids, each shifted by a random part of a tile.
        seed: of the shifts.
        classes: how names of classes are read.
        corrections: whether tiles that a person corrected are labels.
        mpp: µm/px where neither QuPath nor the file states any.

    Raises:
        UsageError: a setting that cannot be.
    """

    spec: TileSpec = field(default_factory=TileSpec)
    min_inside: float = 0.9
    min_tissue: float = 0.3
    offsets: int = 0
    seed: int = 2022
    classes: LabelClasses = field(default_factory=LabelClasses)
    corrections: bool = True
    mpp: float | None = None

    def __post_init__(self) -> None:
        tests = (
            ("--min-inside", self.min_inside, 0.5 < self.min_inside <= 1, "a share above 0.5 and up to 1"),
            ("--min-tissue", self.min_tissue, 0 <= self.min_tissue <= 1, "a share from 0 to 1"),
            ("--offsets", self.offsets, self.offsets >= 0, "a count of further grids, 0 or more"),
            ("--seed", self.seed, self.seed >= 0, "a whole number, 0 or more"),
            ("--tile-px", self.spec.size_px, 16 <= self.spec.size_px <= 4096, "a side from 16 to 4096 pixels"),
            ("--tile-mpp", self.spec.mpp, 0.05 <= self.spec.mpp <= 20, "µm per pixel, from 0.05 to 20"),
        )
        for option, value, is_good, wanted in tests:
            if not is_good:
                raise UsageError(f"{option} cannot be {value}.", where=option, next_step=f"Give {wanted}.")

    @property
    def shifts(self) -> tuple[tuple[float, float], ...]:
        """Of each grid, in tiles: the one that all of her2bridge shares first."""
        rng = np.random.default_rng(self.seed)
        return ((0.0, 0.0), *((float(x), float(y)) for x, y in rng.random((self.offsets, 2))))


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """The n labelled tiles of one image.

    Attributes:
        mpp: the µm/px they were laid at.
        side: level-0 pixels.
        origins: float64 [n, 2].
        labels: int64 [n].
        regions: ids of annotations, or of corrected tiles.
        corrected: which of them a person corrected, bool [n].
        left_out: regions and tiles by reason.
        conflicts: areas of different labels that overlap in part.
        notes: what a person should know.
    """

    mpp: float
    side: float
    origins: FloatArray
    labels: IntArray
    regions: tuple[str, ...]
    corrected: BoolArray
    left_out: Mapping[str, int]
    conflicts: tuple[Conflict, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class _Corrected:
    """Tiles that a person corrected and that lie on the grid: columns, rows and labels, int64 [a], and their ids."""

    columns: IntArray
    rows: IntArray
    labels: IntArray
    ids: tuple[str, ...]

    def areas(self, side: float) -> list[LabelArea]:
        """What they take, one area a label; of those that are no label too."""
        x, y = self.columns * side, self.rows * side
        boxes = shapely.box(x, y, x + side, y + side)
        values = np.unique(self.labels).tolist()
        return [LabelArea("", "", value, shapely.union_all(boxes[self.labels == value])) for value in values]


def has_labels(annotations: Sequence[PathObject], stored: StoredTiles, settings: LabelSettings) -> bool:
    """Whether there is anything in an image for which its slide must be opened."""
    uses = (settings.classes.use_of(one.path_class).use for one in annotations)
    return Use.LABEL in uses or (settings.corrections and bool(corrected_rows(stored).any()))


def label_image(
    annotations: Sequence[PathObject], stored: StoredTiles, source: SlideSource, settings: LabelSettings
) -> ImageLabels:
    """Lay the tiles of one image's labels.

    Raises:
        SlideError: the slide is missing or damaged, has no µm/px, or is too coarse.
    """
    with open_slide(source) as slide:
        mpp = resolve_mpp(source, slide, settings.mpp).value
        note = check_resolution(settings.spec, mpp)
        return _Image(slide, mpp, settings, [] if note is None else [note]).label(annotations, stored)


class _Image:
    """One image while it is labelled: keeps count of what is left out."""

    def __init__(self, slide: Slide, mpp: float, settings: LabelSettings, notes: list[str]) -> None:
        self._slide, self._mpp, self._settings, self._notes = slide, mpp, settings, notes
        self._side = settings.spec.side(mpp)
        self._left_out: Counter[str] = Counter()

    def label(self, annotations: Sequence[PathObject], stored: StoredTiles) -> ImageLabels:
        areas, cut_out = self._areas(annotations)
        corrected = self._corrected(stored, self._answers(annotations))
        areas, conflicts = resolve(areas, cut_out, corrected.areas(self._side))
        origins, labels, regions = self._tiles(areas, corrected)
        with_tiles = set(regions.tolist())
        self._tell(
            "regions without a tile", (one.title for number, one in enumerate(areas) if number not in with_tiles)
        )
        kept = np.flatnonzero(corrected.labels != LEFT_OUT)
        self._left_out["corrected tiles of no label's class"] += len(corrected.labels) - len(kept)
        own = np.stack([corrected.columns, corrected.rows], axis=1)[kept] * self._side
        return ImageLabels(
            mpp=self._mpp,
            side=self._side,
            origins=np.concatenate([own, origins]),
            labels=np.concatenate([corrected.labels[kept], labels]),
            regions=(*(corrected.ids[one] for one in kept), *(areas[one].id for one in regions.tolist())),
            corrected=np.arange(len(kept) + len(labels)) < len(kept),
            left_out={reason: count for reason, count in self._left_out.items() if count},
            conflicts=tuple(conflicts),
            notes=tuple(self._notes),
        )

    def _areas(self, annotations: Sequence[PathObject]) -> tuple[list[LabelArea], list[BaseGeometry]]:
        """Labelled areas within the image, mended, and what is cut out."""
        image = shapely.box(0, 0, *self._slide.size)
        areas, cut_out = [], []
        found: dict[str, list[str]] = {}
        for number, annotation in enumerate(annotations, start=1):
            use = self._settings.classes.use_of(annotation.path_class)
            if use.use not in (Use.LABEL, Use.CUT_OUT):
                continue
            title = annotation.name or f"{use.name}, annotation {number}"
            outline = None if annotation.geometry is None else mend(annotation.geometry)
            inside = None if outline is None else mend(outline.intersection(image))
            if annotation.plane[1:] != (0, 0):
                found.setdefault("regions on another plane", []).append(title)
            elif outline is None:
                found.setdefault("regions without an area", []).append(title)
            elif inside is None:
                found.setdefault("regions outside the image", []).append(title)
            elif use.tile_class is None:
                cut_out.append(inside)
            else:
                areas.append(LabelArea(annotation.id, title, int(use.tile_class), inside))
                if annotation.geometry is not None and not annotation.geometry.is_valid:
                    self._notes.append(f"{title}: outline mended")
        for reason, titles in found.items():
            self._tell(reason, titles)
        return areas, cut_out

    def _answers(self, annotations: Sequence[PathObject]) -> BaseGeometry:
        """Where a person was asked of a label, and has said what it is."""
        classes = self._settings.classes
        outlines = [
            mend(one.geometry)
            for one in annotations
            if is_answered(one)
            and one.geometry is not None
            and classes.use_of(one.path_class).use in (Use.LABEL, Use.CUT_OUT)
        ]
        return shapely.union_all([one for one in outlines if one is not None])

    def _corrected(self, stored: StoredTiles, answers: BaseGeometry) -> _Corrected:
        """Tiles that a person corrected; each place once, and of no label where they differ; none where one of them
        was doubted and a person has answered: that was later.
        """
        rows = np.flatnonzero(corrected_rows(stored)) if self._settings.corrections else np.empty(0, dtype=np.int64)
        bounds = stored.bounds[rows].reshape(len(rows), 4)
        first = np.rint(bounds[:, :2] / self._side)
        ideal = np.concatenate([first, first + 1], axis=1) * self._side
        fits = (np.abs(bounds - ideal) <= _OFF_GRID * self._side).all(axis=1)
        self._left_out["corrected tiles of another size or grid"] += int((~fits).sum())
        places: dict[tuple[int, int], tuple[int, str]] = {}
        for row, (column, line) in zip(rows[fits].tolist(), first[fits].astype(int).tolist(), strict=True):
            label = self._settings.classes.tile_class_of(stored.class_names[row])
            known = places.get((column, line), (label, stored.ids[row]))
            places[column, line] = (label if known[0] == label else LEFT_OUT, known[1])
        cells = np.array(list(places), dtype=np.int64).reshape(-1, 2)
        x, y = cells.T * self._side
        shares = shapely.area(shapely.intersection(shapely.box(x, y, x + self._side, y + self._side), answers))
        open_ = shares < self._side**2 / 2
        self._left_out["corrected tiles under a suspect label that was answered"] += int((~open_).sum())
        cells = cells[open_]
        said = [one for one, stays in zip(places.values(), open_.tolist(), strict=True) if stays]
        labels = np.array([label for label, _ in said], dtype=np.int64)
        return _Corrected(cells[:, 0], cells[:, 1], labels, tuple(id_ for _, id_ in said))

    def _tiles(self, areas: Sequence[LabelArea], corrected: _Corrected) -> tuple[FloatArray, IntArray, IntArray]:
        """Origins, labels and areas of the tiles of all grids, enough tissue on them; none where a corrected one is."""
        settings, side = self._settings, self._side
        tissue = self._tissue() if settings.min_tissue > 0 and areas else None
        taken = set(zip(corrected.columns.tolist(), corrected.rows.tolist(), strict=True))
        found = []
        for number, shift in enumerate(settings.shifts):
            offset = (float(round(shift[0] * side)), float(round(shift[1] * side)))  # whole pixels: no resampling
            laid = lay_tiles(areas, side, self._slide.size, offset, settings.min_inside)
            self._left_out[f"tiles less than {settings.min_inside:.0%} inside"] += laid.on_edges
            good = np.ones(len(laid.labels), dtype=bool)
            if tissue is not None:
                enough = tissue.of(laid.origins, side) >= settings.min_tissue
                good = enough | (laid.labels == TileClass.NOISE)
                self._left_out[f"tiles of less than {settings.min_tissue:.0%} tissue"] += int((~good).sum())
            if number == 0 and taken:
                cells = np.rint(laid.origins / side).astype(np.int64).tolist()
                good &= np.array([tuple(cell) not in taken for cell in cells], dtype=bool)
            order = np.lexsort((laid.origins[:, 0], laid.origins[:, 1]))
            order = order[good[order]]
            found.append((laid.origins[order], laid.labels[order], laid.regions[order]))
        origins, labels, regions = (np.concatenate(one) for one in zip(*found, strict=True))
        return origins, labels, regions

    def _tissue(self) -> TissueShares:
        longest = max(self._slide.size)
        pixels, downsample = self._slide.thumbnail(max(1, min(_THUMBNAIL, round(longest * self._mpp / _TISSUE_MPP))))
        return TissueShares(tissue_mask(pixels), downsample)

    def _tell(self, reason: str, titles: Iterable[str]) -> None:
        """Count what is left out, and name some of it."""
        names = list(titles)
        if names:
            self._left_out[reason] += len(names)
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            self._notes.append(f"{reason}: {', '.join(names[:_NAMES])}{more}")

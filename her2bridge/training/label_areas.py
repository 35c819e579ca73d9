"""Labelled areas to labelled tiles: which label counts where, and which tiles lie in it. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from her2bridge.records import BoolArray, FloatArray, IntArray, TileClass
from her2bridge.tiling import mend

_WITHIN = 0.95  # the share of an outline that makes it the inner one: nobody draws exactly along another's edge
_WHOLLY = 0.9999
_SLACK = 1e-6  # of a tile's area: what intersections, and QuPath's 32-bit corners of tiles, may lose
_LEAF = 64  # tiles whose shares are measured at once


@dataclass(frozen=True, eq=False)
class LabelArea:
    """An area of one label.

    Attributes:
        id: of the annotation.
        title: what a person calls it.
        label: a ``TileClass`` value.
        geometry: level-0 pixels; polygons only, valid.
    """

    id: str
    title: str
    label: int
    geometry: BaseGeometry


@dataclass(frozen=True)
class Conflict:
    """Two areas of different labels that overlap in part: nobody knows which counts there.

    Attributes:
        first: a person's name for one of them, its label included.
        second: for the other.
        area: of the overlap, level-0 px².
    """

    first: str
    second: str
    area: float


@dataclass(frozen=True, eq=False)
class LaidTiles:
    """n tiles that lie in labelled areas.

    Attributes:
        origins: top left corners, float64 [n, 2].
        labels: int64 [n].
        regions: the area of each, int64 [n]; index into those that were given.
        on_edges: places that lie in a label in part, and too little.
    """

    origins: FloatArray
    labels: IntArray
    regions: IntArray
    on_edges: int


def resolve(
    areas: Sequence[LabelArea], cut_out: Sequence[BaseGeometry] = (), fixed: Sequence[LabelArea] = ()
) -> tuple[list[LabelArea], list[Conflict]]:
    """The same areas without what is not theirs; some may be left empty.

    An area that lies within one of another label takes its place away from it. Where two of different labels overlap
    in part, neither has the overlap. Areas of one label may overlap.

    Args:
        cut_out: what belongs to no label.
        fixed: places whose label is known for certain; they take theirs away from areas of all other labels.
    """
    geometries = [area.geometry for area in areas]
    loses: dict[int, list[BaseGeometry]] = defaultdict(list)
    disputes = []
    for first, second in _pairs(areas):
        inner = _inner(geometries[first], geometries[second])
        if inner is None:
            disputes.append((first, second))
        elif inner:  # the first
            loses[second].append(geometries[first])
        else:
            loses[first].append(geometries[second])
    left = [
        _without(area.geometry, [*loses[number], *cut_out, *(one.geometry for one in fixed if one.label != area.label)])
        for number, area in enumerate(areas)
    ]
    conflicts = []
    taken: dict[int, list[BaseGeometry]] = defaultdict(list)
    for first, second in disputes:
        overlap = mend(left[first].intersection(left[second]))
        if overlap is None:
            continue
        conflicts.append(Conflict(_named(areas[first]), _named(areas[second]), float(overlap.area)))
        taken[first].append(overlap)
        taken[second].append(overlap)
    left = [_without(geometry, taken[number]) for number, geometry in enumerate(left)]
    return [replace(area, geometry=geometry) for area, geometry in zip(areas, left, strict=True)], conflicts


def lay_tiles(
    areas: Sequence[LabelArea], side: float, size: tuple[int, int], offset: tuple[float, float], min_inside: float
) -> LaidTiles:
    """The tiles of one slide-wide grid of which at least ``min_inside`` lies in areas of one label.

    Tile (i, j) begins at (i · side, j · side) + offset. Areas of one label that touch are one to it; its region is the
    one that it shares most with, of equal ones the smallest.

    Args:
        areas: as ``resolve`` left them: those of different labels do not overlap.
        side: level-0 pixels.
        size: of the image; what lies beyond it is in no area.
        min_inside: above 0.5, or a tile could have two labels.
    """
    image = shapely.box(0, 0, *size)
    origins, labels, regions, on_edges = [np.empty((0, 2))], [], [], 0
    for label in sorted({area.label for area in areas}):
        own = [number for number, area in enumerate(areas) if area.label == label and not area.geometry.is_empty]
        whole = mend(shapely.union_all([areas[number].geometry for number in own]).intersection(image)) if own else None
        if whole is None:
            continue
        columns, rows, shares = _shares(whole, side, offset)
        inside = shares >= min_inside - _SLACK
        on_edges += int((~inside).sum())
        found = np.stack([columns, rows], axis=1)[inside] * side + np.array(offset)
        geometries = np.array([areas[number].geometry for number in own], dtype=object)
        origins.append(found)
        labels.append(np.full(len(found), label, dtype=np.int64))
        regions.append(np.array(own, dtype=np.int64)[_owners(found, side, geometries)])
    none = np.empty(0, dtype=np.int64)
    labels, regions = [none, *labels], [none, *regions]
    return LaidTiles(np.concatenate(origins), np.concatenate(labels), np.concatenate(regions), on_edges)


class TissueShares:
    """How much of a tile is tissue.

    Args:
        mask: of a thumbnail of the slide, bool [h, w].
        downsample: level-0 pixels to one of its pixels.
    """

    def __init__(self, mask: BoolArray, downsample: float) -> None:
        self._sums = np.pad(mask.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        self._downsample = downsample

    def of(self, origins: FloatArray, side: float) -> FloatArray:
        """The share of each of n tiles, float64 [n]; what lies beyond the slide is none."""
        left, top = origins.T / self._downsample
        width = side / self._downsample
        right, bottom = left + width, top + width
        lower = self._up_to(right, bottom) - self._up_to(left, bottom)
        upper = self._up_to(right, top) - self._up_to(left, top)
        return np.asarray((lower - upper) / width**2, dtype=np.float64)

    def _up_to(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Tissue above and to the left of points, thumbnail px²: sums of whole pixels, and straight lines between."""
        height, width = (extent - 1 for extent in self._sums.shape)
        x, y = np.clip(x, 0, width), np.clip(y, 0, height)
        i, j = np.minimum(x.astype(np.int64), width - 1), np.minimum(y.astype(np.int64), height - 1)
        u, v = x - i, y - j
        upper = self._sums[j, i] * (1 - u) + self._sums[j, i + 1] * u
        lower = self._sums[j + 1, i] * (1 - u) + self._sums[j + 1, i + 1] * u
        return np.asarray(upper * (1 - v) + lower * v, dtype=np.float64)


def _pairs(areas: Sequence[LabelArea]) -> Iterator[tuple[int, int]]:
    """Areas of different labels that meet, each pair once, in order."""
    geometries = np.array([area.geometry for area in areas], dtype=object)
    found = shapely.STRtree(geometries).query(geometries, predicate="intersects")
    for first, second in sorted(map(tuple, found.T.tolist())):
        if first < second and areas[first].label != areas[second].label:
            yield first, second


def _named(area: LabelArea) -> str:
    return f"{area.title} ({TileClass(area.label).label})"


def _inner(first: BaseGeometry, second: BaseGeometry) -> bool | None:
    """Whether the first lies within the second (True) or it within the first (False); None where neither does, and
    where both nearly do.
    """
    overlap = float(first.intersection(second).area)
    shares = overlap / float(first.area), overlap / float(second.area)
    for limit in (_WHOLLY, _WITHIN):
        within = [share >= limit for share in shares]
        if within[0] != within[1]:
            return within[0]
        if all(within):
            return None
    return None


def _without(geometry: BaseGeometry, others: Sequence[BaseGeometry]) -> BaseGeometry:
    """A geometry less others, polygons only."""
    left: BaseGeometry | None = geometry
    for other in others:  # one by one: to unite them all first takes long where they are many
        if left is not None and other.intersects(left):
            left = mend(left.difference(other))
    return Polygon() if left is None else left


def _shares(area: BaseGeometry, side: float, offset: tuple[float, float]) -> tuple[IntArray, IntArray, FloatArray]:
    """Column, row and share inside, [m] each, of the grid's tiles that an area touches."""
    x, y = offset
    bounds = [(value - start) / side for value, start in zip(area.bounds, (x, y, x, y), strict=True)]
    window = (math.floor(bounds[0]), math.floor(bounds[1]), math.ceil(bounds[2]), math.ceil(bounds[3]))
    parts = list(_divide(area, window, side, offset))
    columns, rows, shares = (np.concatenate(one) for one in zip(*parts, strict=True))
    touched = shares > _SLACK
    return columns[touched], rows[touched], shares[touched]


def _divide(
    area: BaseGeometry, window: tuple[int, int, int, int], side: float, offset: tuple[float, float]
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """Shares of a window of columns and rows (left, top, right, bottom): halved until it is full, empty or small, so
    that an outline of many points is cut only where it runs.
    """
    left, top, right, bottom = window
    x, y = offset
    box = shapely.box(left * side + x, top * side + y, right * side + x, bottom * side + y)
    inside = mend(area.intersection(box))
    if inside is None:
        yield np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
        return
    wide, high = right - left, bottom - top
    is_full = inside.area >= box.area * (1 - 1e-12)
    if not is_full and wide * high > _LEAF:
        middle = (left + wide // 2) if wide >= high else (top + high // 2)
        halves = [(left, top, middle, bottom), (middle, top, right, bottom)]
        if wide < high:
            halves = [(left, top, right, middle), (left, middle, right, bottom)]
        for half in halves:
            yield from _divide(inside, half, side, offset)
        return
    columns = np.tile(np.arange(left, right, dtype=np.int64), high)
    rows = np.repeat(np.arange(top, bottom, dtype=np.int64), wide)
    if is_full:
        yield columns, rows, np.ones(len(columns))
        return
    boxes = _boxes(np.stack([columns, rows], axis=1) * side + np.array(offset), side)
    yield columns, rows, shapely.area(shapely.intersection(inside, boxes)) / side**2


def _owners(origins: FloatArray, side: float, areas: np.ndarray[tuple[int], np.dtype[np.object_]]) -> IntArray:
    """The area of each of n tiles that it shares most with, int64 [n]; of equal ones the smallest, then the first."""
    boxes = _boxes(origins, side)
    found, tiles = shapely.STRtree(boxes).query(areas, predicate="intersects")  # in this order it prepares the areas
    shared = np.ones(len(tiles))
    several = np.isin(tiles, np.flatnonzero(np.bincount(tiles, minlength=len(origins)) > 1))
    shared[several] = shapely.area(shapely.intersection(boxes[tiles[several]], areas[found[several]])) / side**2
    order = np.lexsort((found, shapely.area(areas)[found], -shared.round(6), tiles))
    first = np.unique(tiles[order], return_index=True)[1]
    return np.asarray(found[order][first], dtype=np.int64)


def _boxes(origins: FloatArray, side: float) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """The outlines of n tiles."""
    x, y = origins.T
    return np.asarray(shapely.box(x, y, x + side, y + side), dtype=object)

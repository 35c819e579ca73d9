"""Regions to tiles: one slide-wide grid, membership by QuPath's own rule. Pure.

A tile belongs to a region when its **centre** does not lie outside it (QuPath: ``!= Location.EXTERIOR``): edges count,
the edges of holes too, the inside of holes does not. Exclusions act like holes: a centre inside one is cut out, a
centre on its edge is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from her2bridge.errors import BadRegion, NoCalibration, UsageError
from her2bridge.records import BoolArray, ByteArray, FloatArray, IntArray, Region, TileGrid, TileSpec

NOTED_RATIO = 1.1
"""Up to here a slide counts as of the bundle's resolution: 40× scanners say 0.22 to 0.275 µm/px."""
COARSEST_RATIO = 2.05
"""Twice coarser, with room for the 0.5025 and 0.5045 µm/px that 20× scanners say."""

_SLACK = 1e-9  # of a tile's area: what an intersection of floats may lose


def check_resolution(spec: TileSpec, slide_mpp: float) -> str | None:
    """Why a person should look at the score of a slide of this resolution; None where there is no reason.

    Raises:
        NoCalibration: the slide is more than twice coarser than what the bundle was made for.
    """
    ratio = slide_mpp / spec.mpp
    if ratio <= NOTED_RATIO:
        return None
    if ratio <= COARSEST_RATIO:
        return f"slide is coarser than the model expects ({slide_mpp:.3g} instead of {spec.mpp:.3g} µm/px)"
    raise NoCalibration(
        f"A slide of {slide_mpp:.3g} µm/px is too coarse: the model needs {spec.mpp:.3g} µm/px, or up to twice that.",
        where="the slide's pixel size",
        next_step="Check the pixel size in QuPath (Image tab); if it is right, scan the slide at 20× or more.",
    )


def make_grid(
    regions: Sequence[Region],
    spec: TileSpec,
    slide_mpp: float,
    size: tuple[int, int],
    exclusions: Sequence[BaseGeometry] = (),
    min_overlap: float | None = None,
) -> TileGrid:
    """The tiles of the regions, sorted by (row, column).

    A tile beyond the image's edge whose centre lies in the image is kept; the reader fills it with white. A region
    that cannot be tiled keeps its place in ``TileGrid.regions``, without tiles and with a warning that names it.

    Args:
        regions: in the project's order.
        spec: the field the bundle wants.
        slide_mpp: µm/px of the shown image.
        size: width and height of the shown image.
        exclusions: areas to be cut out of every region; other than areas are left unheeded.
        min_overlap: instead of the centre's rule: the share of the tile's area, 0 < share ≤ 1, that must lie in the
            region (less the exclusions).

    Raises:
        BadRegion: no region can be tiled: all have no area or lie outside the image.
        UsageError: ``min_overlap`` is no share.
    """
    _check_share(min_overlap)
    lattice = _Lattice(spec.side(slide_mpp), size)
    cut_out = _union([mended for mended in map(mend, exclusions) if mended is not None])
    warnings: list[str] = []
    areas: list[float] = []
    keys: list[IntArray] = []
    faults = 0
    for number, region in enumerate(regions):
        area, fault, notes = _prepare(region, lattice.image)
        label = _label(region, number)
        warnings += [f"{label}: {note}" for note in notes]
        found = np.empty(0, dtype=np.int64)
        if area is None or fault is not None:
            faults += 1
            warnings.append(f"{label}: {fault}; not scored")
        elif cut_out is not None and cut_out.covers(area):
            warnings.append(f"{label}: it lies wholly in an excluded area; not scored")
        else:
            found = lattice.keys(area, cut_out, min_overlap)
            if not len(found):
                warnings.append(f"{label}: no tile lies in it (too small, or excluded)")
        keys.append(found)
        areas.append(math.inf if area is None else float(area.area))
    if regions and faults == len(regions):
        raise BadRegion(
            "None of the regions can be tiled.",
            where="; ".join(warnings[:10]),
            next_step="Draw the regions in QuPath as areas (brush, polygon, rectangle) within the image.",
        )
    return _assemble(regions, spec, lattice, keys, areas, tuple(warnings))


def _check_share(min_overlap: float | None) -> None:
    if min_overlap is not None and not 0 < min_overlap <= 1:
        raise UsageError(
            f"--min-overlap {min_overlap:g} is not a share.",
            where="--min-overlap",
            next_step="Give a number above 0 and up to 1, for instance 0.5.",
        )


def _assemble(
    regions: Sequence[Region],
    spec: TileSpec,
    lattice: _Lattice,
    keys: Sequence[IntArray],
    areas: Sequence[float],
    warnings: tuple[str, ...],
) -> TileGrid:
    """Each tile once, owned by the smallest of its regions (ties: the first)."""
    every = np.unique(np.concatenate([*keys, np.empty(0, dtype=np.int64)]))
    members = tuple(np.searchsorted(every, np.sort(found)).astype(np.int64) for found in keys)
    owner = np.full(len(every), -1, dtype=np.int64)
    for number in sorted(range(len(regions)), key=lambda number: (areas[number], number), reverse=True):
        owner[members[number]] = number
    return TileGrid(
        spec=spec,
        side=lattice.side,
        columns=every % lattice.columns,
        rows=every // lattice.columns,
        owner=owner,
        regions=tuple(regions),
        members=members,
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Lattice:
    """The grid as integers: tile (i, j) has the key j · columns + i, whose order is that of reading."""

    side: float
    size: tuple[int, int]

    @property
    def columns(self) -> int:
        """At least as many as there are."""
        return math.ceil(self.size[0] / self.side) + 1

    @property
    def image(self) -> BaseGeometry:
        """The shown image."""
        return shapely.box(0, 0, *self.size)

    def keys(self, area: BaseGeometry, cut_out: BaseGeometry | None, min_overlap: float | None) -> IntArray:
        """Keys of the tiles of a region, by either rule."""
        if min_overlap is None:
            return self._by_centre(area, cut_out)
        area = area.intersection(self.image)
        area = area if cut_out is None else area.difference(cut_out)
        return self._by_overlap(area, min_overlap)

    def _by_centre(self, area: BaseGeometry, cut_out: BaseGeometry | None) -> IntArray:
        """Tiles whose centre lies in the image, not outside ``area`` and not inside ``cut_out``."""
        columns, rows = self._near(area.bounds, reach=0.0)
        x, y = (columns + 0.5) * self.side, (rows + 0.5) * self.side
        shapely.prepare(area)
        inside = shapely.intersects_xy(area, x, y) & (x <= self.size[0]) & (y <= self.size[1])
        if cut_out is not None:
            shapely.prepare(cut_out)
            hits = np.nonzero(inside)
            inside[hits] = ~shapely.contains_xy(cut_out, x[hits], y[hits])
        return np.asarray((rows * self.columns + columns)[inside], dtype=np.int64)

    def _by_overlap(self, area: BaseGeometry, min_overlap: float) -> IntArray:
        """Tiles that share at least ``min_overlap`` of their own area with ``area``."""
        if area.is_empty:
            return np.empty(0, dtype=np.int64)
        columns, rows = self._near(area.bounds, reach=0.5)
        x, y = columns * self.side, rows * self.side
        boxes = shapely.box(x, y, x + self.side, y + self.side)
        shapely.prepare(area)
        share = shapely.contains(area, boxes).astype(np.float64)
        partly = np.nonzero(shapely.intersects(area, boxes) & (share == 0))[0]
        share[partly] = shapely.area(shapely.intersection(area, boxes[partly])) / self.side**2
        return np.asarray((rows * self.columns + columns)[share >= min_overlap - _SLACK], dtype=np.int64)

    def _near(self, bounds: tuple[float, float, float, float], reach: float) -> tuple[IntArray, IntArray]:
        """Columns and rows, [m] each, whose centre lies within ``reach`` sides of the bounds, or nearly."""
        left, top, right, bottom = (value / self.side - 0.5 for value in bounds)
        last_column, last_row = (math.ceil(extent / self.side) for extent in self.size)
        i = np.arange(max(0, math.floor(left - reach)), min(last_column, math.ceil(right + reach)) + 1, dtype=np.int64)
        j = np.arange(max(0, math.floor(top - reach)), min(last_row, math.ceil(bottom + reach)) + 1, dtype=np.int64)
        return np.tile(i, len(j)), np.repeat(j, len(i))


def _prepare(region: Region, image: BaseGeometry) -> tuple[BaseGeometry | None, str | None, list[str]]:
    """The region's area, the fault that forbids to tile it, and what a person should know."""
    area = mend(region.geometry)
    if area is None:
        return None, "it has no area", []
    notes = []
    if area is not region.geometry and not region.geometry.is_valid:
        notes.append(f"outline mended ({shapely.is_valid_reason(region.geometry).split('[')[0].lower()})")
    if image.covers(area):
        return area, None, notes
    if mend(area.intersection(image)) is None:
        return area, "it lies outside the image", notes
    return area, None, [*notes, "it reaches beyond the image and is clipped"]


def mend(geometry: BaseGeometry) -> BaseGeometry | None:
    """The polygonal part of a geometry, made valid; None where it has none."""
    if geometry.is_empty or not np.isfinite(shapely.get_coordinates(geometry)).all():
        return None
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    if isinstance(geometry, Polygon | MultiPolygon):
        return geometry if geometry.area > 0 else None
    parts = [part for part in shapely.get_parts(geometry) if isinstance(part, Polygon | MultiPolygon) and part.area > 0]
    return _union(parts)


def _union(parts: Sequence[BaseGeometry]) -> BaseGeometry | None:
    return None if not parts else parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _label(region: Region, number: int) -> str:
    """What a person calls the region."""
    name = region.name or region.class_name
    return f"region {number + 1}" + (f" ({name})" if name else "")


def tissue_region(
    thumbnail: ByteArray, downsample: float, *, min_part: float = 100.0, max_hole: float = 256.0
) -> BaseGeometry:
    """Where tissue lies, in level-0 pixels; an empty geometry where there is none: ``tissue_mask``, cleared of specks
    and small holes.

    Args:
        thumbnail: uint8 [h, w, 3], best at 8 to 16 µm/px.
        downsample: level-0 pixels to one of the thumbnail.
        min_part: smaller parts are dropped, thumbnail px².
        max_hole: smaller holes are filled, thumbnail px².
    """
    whole = _outline(tissue_mask(thumbnail))
    parts = []
    for part in shapely.get_parts(whole):
        filled = Polygon(part.exterior, [ring for ring in part.interiors if Polygon(ring).area > max_hole])
        if filled.area >= min_part:
            parts.append(filled)
    tissue = shapely.union_all(parts) if parts else Polygon()
    return shapely.transform(tissue, lambda points: points * downsample)


def tissue_mask(thumbnail: ByteArray) -> BoolArray:
    """Which pixels of a thumbnail show tissue, bool [h, w].

    A pixel's darkness is the optical density of its darkest channel against the glass, so that pale haematoxylin and
    brown DAB alike stand out. It is smoothed and cut by Otsu's threshold (kept above 0.015, so that blank glass stays
    blank, and below 0.025, so that strong stain does not push pale tissue out). Black, as scanners fill what they did
    not scan, is no tissue.

    Args:
        thumbnail: uint8 [h, w, 3], best at 8 to 16 µm/px.
    """
    glass = np.maximum(np.percentile(thumbnail.reshape(-1, 3), 95, axis=0), 160.0)
    density = np.log10(glass / np.maximum(thumbnail, 1.0)).max(axis=2)
    density[thumbnail.max(axis=2) < 20] = 0.0
    smooth = _box_mean(np.clip(density, 0.0, 1.0), 2)
    return np.asarray(smooth > min(max(_otsu(smooth), 0.015), 0.025))


def _box_mean(values: FloatArray, radius: int) -> FloatArray:
    """Mean over a square of 2·radius+1 pixels, edges repeated."""
    width = 2 * radius + 1
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(values, pad, mode="edge"), axis=axis)
        upper, lower = (sums[width:], sums[:-width]) if axis == 0 else (sums[:, width:], sums[:, :-width])
        values = (upper - lower) / width
    return values


def _otsu(values: FloatArray) -> float:
    """The threshold that parts values of 0–1 into the two most different groups (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256, range=(0.0, 1.0))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nanargmax(between)]) if np.isfinite(between).any() else 0.0


def _outline(mask: npt.NDArray[np.bool_]) -> BaseGeometry:
    """The polygons of a mask [h, w], pixel (u, v) being the square from (u, v) to (u+1, v+1)."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return shapely.union_all(shapely.box(starts, rows, ends, rows + 1))

"""What lies where on a synthetic slide: pieces of tissue, areas of one class each, and the regions drawn on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

from her2bridge.records import LEFT_OUT, FloatArray, IntArray, TileClass, TileGrid


@dataclass(frozen=True, eq=False)
class TruthArea:
    """A part of the slide that shows one class; ``geometry`` in pixels of the slide."""

    tile_class: TileClass
    geometry: BaseGeometry


@dataclass(frozen=True, eq=False)
class TruthRegion:
    """What a pathologist would have drawn: an annotation's name, its PathClass and its outline."""

    name: str
    class_name: str
    geometry: BaseGeometry


@dataclass(frozen=True, eq=False)
class SlideTruth:
    """What a synthetic slide shows.

    Attributes:
        width, height: pixels.
        mpp: µm per pixel.
        seed: what it was made from.
        areas: parts of one class; they do not overlap. All else is glass, and so noise.
        regions: annotations to draw: ``Tumor`` ones to be scored, ``Ignore*`` ones to be cut out.
    """

    width: int
    height: int
    mpp: float
    seed: int
    areas: tuple[TruthArea, ...]
    regions: tuple[TruthRegion, ...]

    def classes_of(self, boxes: FloatArray) -> IntArray:
        """The class of each box, int64 [n]; boxes float64 [n, 4] are x0, y0, x1, y1 in pixels.

        It is the class of the area that holds the whole box, noise where no area touches it, and ``LEFT_OUT`` where it
        is mixed.
        """
        squares = shapely.box(boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3])
        classes = np.full(len(boxes), LEFT_OUT, dtype=np.int64)
        untouched = np.ones(len(boxes), dtype=bool)
        for area in self.areas:
            shapely.prepare(area.geometry)
            classes[shapely.contains_properly(area.geometry, squares)] = int(area.tile_class)
            untouched &= ~shapely.intersects(area.geometry, squares)
        classes[untouched] = int(TileClass.NOISE)
        return classes

    def tile_classes(self, grid: TileGrid) -> IntArray:
        """The class of each tile of a grid, int64 [n], by the rule of ``classes_of``."""
        origins = grid.origins()
        return self.classes_of(np.concatenate([origins, origins + grid.side], axis=1))

    def write_json(self, path: Path) -> None:
        """Keep the truth beside the slide; ``read_json`` is the way back."""
        content = {
            "width": self.width,
            "height": self.height,
            "mpp": self.mpp,
            "seed": self.seed,
            "areas": [{"class": a.tile_class.label, "geometry": mapping(a.geometry)} for a in self.areas],
            "regions": [{"name": r.name, "class": r.class_name, "geometry": mapping(r.geometry)} for r in self.regions],
        }
        path.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def read_json(cls, path: Path) -> SlideTruth:
        """What ``write_json`` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            content["width"],
            content["height"],
            content["mpp"],
            content["seed"],
            tuple(TruthArea(TileClass.from_label(a["class"]), shape(a["geometry"])) for a in content["areas"]),
            tuple(TruthRegion(r["name"], r["class"], shape(r["geometry"])) for r in content["regions"]),
        )


@dataclass(frozen=True)
class Piece:
    """A plan for one piece of tissue.

    Attributes:
        centre: of the slide's width and height, 0–1.
        radii: likewise.
        parts: classes from one side of the piece to the other and their shares of its length.
        angle: the direction from one side to the other, radians.
        region: name of the ``Tumor`` region drawn round it, or None.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    parts: tuple[tuple[TileClass, float], ...]
    angle: float = 0.0
    region: str | None = None


_C = TileClass
DEFAULT_PLAN = (
    Piece((0.20, 0.27), (0.165, 0.225), ((_C.THREE, 0.68), (_C.TWO, 0.32)), 0.3, "Tumor 1"),
    Piece((0.55, 0.26), (0.150, 0.205), ((_C.ZERO, 0.76), (_C.ONE, 0.24)), 1.2, "Tumor 2"),
    Piece((0.27, 0.75), (0.185, 0.200), ((_C.NORMAL, 0.28), (_C.ONE, 0.50), (_C.NOISE, 0.22)), -0.2, "Tumor 3"),
    Piece((0.65, 0.74), (0.130, 0.200), ((_C.TWO, 0.75), (_C.ZERO, 0.25)), 1.8, "Tumor 4"),
    Piece((0.87, 0.28), (0.095, 0.225), ((_C.NORMAL, 1.0),)),
    Piece((0.90, 0.80), (0.065, 0.130), ((_C.NOISE, 1.0),)),
)
"""Mostly 3+ with 2+; mostly 0 with 1+; 1+ between non-tumour tissue and an artefact; 2+ with 0; and two pieces that no
region is drawn round."""


def lay_out(
    width: int, height: int, mpp: float, seed: int, plan: Sequence[Piece] = DEFAULT_PLAN, ignore_in: str = "Tumor 1"
) -> SlideTruth:
    """Outlines and areas of a plan, irregular as ``seed`` has it; an ``Ignore*`` region lies inside ``ignore_in``."""
    rng = np.random.default_rng([seed, 1])
    areas: list[TruthArea] = []
    regions: list[TruthRegion] = []
    for piece in plan:
        outline = affinity.scale(_blob(rng), piece.radii[0] * width, piece.radii[1] * height, origin=(0.0, 0.0))
        outline = affinity.translate(outline, piece.centre[0] * width, piece.centre[1] * height)
        outline = outline.intersection(shapely.box(0, 0, width, height))
        areas.extend(_parts(rng, outline, piece))
        if piece.region is not None:
            regions.append(TruthRegion(piece.region, "Tumor", shapely.simplify(outline, 2.0)))
            if piece.region == ignore_in:
                spot = affinity.scale(_blob(rng), 0.22 * piece.radii[0] * width, 0.22 * piece.radii[1] * height)
                centre = outline.representative_point()
                spot = affinity.translate(spot, centre.x, centre.y)
                regions.append(TruthRegion("not to be scored", "Ignore*", spot))
    return SlideTruth(width, height, mpp, seed, tuple(areas), tuple(regions))


def _blob(rng: np.random.Generator) -> Polygon:
    """An irregular outline about the unit circle."""
    turn = np.linspace(0.0, 2.0 * np.pi, 160, endpoint=False)
    radius = np.ones_like(turn)
    for k in range(2, 9):
        radius += rng.normal(0.0, 0.11 / k) * np.cos(k * turn + rng.uniform(0, 2 * np.pi))
    radius /= radius.max()
    return Polygon(np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1))


def _parts(rng: np.random.Generator, outline: BaseGeometry, piece: Piece) -> list[TruthArea]:
    """The outline cut into the plan's parts by wavy lines across its direction."""
    origin = outline.centroid
    upright = affinity.rotate(outline, -piece.angle, origin=origin, use_radians=True)
    x0, y0, x1, y1 = upright.bounds
    total = sum(share for _, share in piece.parts)
    edges = x0 + (x1 - x0) * np.cumsum([0.0, *(share / total for _, share in piece.parts)])
    y = np.linspace(y0 - 1, y1 + 1, 40)
    lines = [np.full(40, x0 - 1)]
    for edge in edges[1:-1]:
        wave = sum(
            rng.normal(0.0, 0.03 / k) * np.sin(k * np.pi * (y - y0) / (y1 - y0) + rng.uniform(0, 6)) for k in (1, 2, 4)
        )
        lines.append(edge + (x1 - x0) * np.asarray(wave))
    lines.append(np.full(40, x1 + 1))
    areas = []
    for (tile_class, _), left, right in zip(piece.parts, lines[:-1], lines[1:], strict=True):
        strip = Polygon(np.concatenate([np.stack([left, y], axis=1), np.stack([right, y], axis=1)[::-1]]))
        part = affinity.rotate(strip.intersection(upright), piece.angle, origin=origin, use_radians=True)
        areas.append(TruthArea(tile_class, part))
    return areas

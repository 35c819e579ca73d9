"""QuPath's ROIs as they stand in a data file (serialization proxies) to and from geometry.

Geometry is what QuPath makes of a ROI when it asks whether something lies inside: vertices on a grid of 0.01 px
(``GeometryTools``), ellipses as polygons of 100 corners.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import LineString, MultiPoint, Point, Polygon
from shapely.geometry.base import BaseGeometry

from her2bridge.qupath.via_files.java_nodes import WIDTHS, Array, ClassDesc, Object, StreamError
from her2bridge.records import FloatArray

_PACKAGE = "qupath.lib.roi."
RECTANGLE = f"{_PACKAGE}RectangleROI$SerializationProxy"
POLYGON = f"{_PACKAGE}PolygonROI$SerializationProxy"
GEOMETRY = f"{_PACKAGE}GeometryROI$WKBSerializationProxy"
_CORNERS = 100  # of an ellipse


@dataclass(frozen=True, eq=False)
class Roi:
    """A ROI: geometry, plane (c, z, t), whether it is an ellipse."""

    geometry: BaseGeometry
    plane: tuple[int, int, int]
    is_ellipse: bool = False


def read_roi(node: Object) -> Roi:
    """A ROI from its proxy.

    Raises:
        StreamError: of a kind that we do not know.
    """
    kind = node.name.removeprefix(_PACKAGE).partition("$")[0]
    plane = (_number(node, "c"), _number(node, "z"), _number(node, "t"))
    if kind in ("RectangleROI", "EllipseROI", "LineROI"):
        x0, y0, x1, y1 = (_double(node, name) for name in ("x", "y", "x2", "y2"))
        if kind == "LineROI":
            return Roi(LineString([(x0, y0), (x1, y1)]), plane)
        if kind == "RectangleROI":
            return Roi(_rounded(Polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])), plane)
        return Roi(_ellipse(x0, y0, x1, y1), plane, is_ellipse=True)
    if kind in ("PolygonROI", "PointsROI", "PolylineROI"):
        points = np.column_stack([_floats(node, "x"), _floats(node, "y")])
        if kind == "PolygonROI":
            return Roi(_rounded(Polygon(points)) if len(points) >= 3 else Polygon(), plane)
        if kind == "PolylineROI":
            return Roi(LineString(points), plane)
        return Roi(Point(points[0]) if len(points) == 1 else MultiPoint(points), plane)
    if kind == "GeometryROI":
        wkb = node.field("wkb")
        if not isinstance(wkb, Array):
            raise StreamError("a geometry without content")
        return Roi(_from_wkb(wkb.raw), plane)
    if kind == "AreaROI":
        return Roi(_area(node), plane)
    raise StreamError(f"a ROI of an unknown kind: {node.name}")


def box_of(desc: ClassDesc) -> tuple[int, int, int, int]:
    """Where x, y, x2, y2 stand among the primitives of a rectangle's class, in bytes."""
    places, at = {}, 0
    for code, name, _ in desc.fields:
        places[name] = at
        at += WIDTHS.get(code, 0)
    return places[b"x"], places[b"y"], places[b"x2"], places[b"y2"]


def _from_wkb(raw: bytes) -> BaseGeometry:
    try:
        return shapely.from_wkb(raw)
    except shapely.errors.ShapelyError as error:
        raise StreamError("a geometry that is not WKB") from error


def _area(node: Object) -> BaseGeometry:
    """Rings that cut each other out, as ``java.awt.geom.Area`` has them."""
    x, y = node.field("x"), node.field("y")
    if not isinstance(x, Array) or not isinstance(y, Array):
        raise StreamError("an area without content")
    area: BaseGeometry = Polygon()
    for xs, ys in zip(x.items or (), y.items or (), strict=True):
        if not isinstance(xs, Array) or not isinstance(ys, Array):
            raise StreamError("an area without coordinates")
        ring = np.column_stack([_as_floats(xs), _as_floats(ys)])
        if len(ring) >= 3:
            area = shapely.symmetric_difference(area, shapely.make_valid(_rounded(Polygon(ring))))
    return area


def _ellipse(x0: float, y0: float, x1: float, y1: float) -> BaseGeometry:
    angles = 2 * math.pi * np.arange(_CORNERS) / _CORNERS
    x = (x0 + x1) / 2 - (x1 - x0) / 2 * np.cos(angles)
    y = (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(angles)
    return _rounded(Polygon(np.column_stack([x, y])))


def _rounded(geometry: BaseGeometry) -> BaseGeometry:
    return shapely.transform(geometry, lambda points: np.rint(points * 100) / 100)


def _number(node: Object, name: str) -> int:
    return int.from_bytes(_primitive(node, name), "big", signed=True)


def _double(node: Object, name: str) -> float:
    return float(struct.unpack(">d", _primitive(node, name))[0])


def _primitive(node: Object, name: str) -> bytes:
    value = node.field(name)
    if not isinstance(value, bytes):
        raise StreamError(f"{node.name} has no number {name}")
    return value


def _floats(node: Object, name: str) -> FloatArray:
    value = node.field(name)
    if not isinstance(value, Array):
        raise StreamError(f"{node.name} has no coordinates")
    return _as_floats(value)


def _as_floats(array: Array) -> FloatArray:
    return np.frombuffer(array.raw, dtype=">f4").astype(np.float64)

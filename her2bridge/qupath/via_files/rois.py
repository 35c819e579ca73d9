"""QuPath's ROIs as they stand in a data file (serialization proxies) to and from geometry.

Geometry is what QuPath makes of a ROI when it asks whether something lies inside: vertices on a grid of 0.01 px
(``GeometryTools``; JTS rounds halves up), ellipses as polygons of 100 corners, lines that cross themselves filled.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import LineString, MultiPoint, Point, Polygon
from shapely.geometry.base import BaseGeometry

from her2bridge.qupath.via_files.java_nodes import WIDTHS, Array, ClassDesc, Node, Object, StreamError
from her2bridge.records import ByteArray, FloatArray, IntArray

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
        StreamError: of a kind or layout that we do not know.
    """
    try:
        return _roi(node)
    except shapely.errors.ShapelyError as error:
        raise StreamError(f"a ROI without a geometry: {node.name}") from error


def _roi(node: Object) -> Roi:
    kind = node.name.removeprefix(_PACKAGE).partition("$")[0]
    plane = (_number(node, "c"), _number(node, "z"), _number(node, "t"))
    if kind in ("RectangleROI", "EllipseROI", "LineROI"):
        x0, y0, x1, y1 = (_double(node, name) for name in ("x", "y", "x2", "y2"))
        ends = _rounded(np.array([(x0, y0), (x1, y1)]))
        if kind == "LineROI":
            return Roi(LineString(ends), plane)
        if x0 == x1 or y0 == y1:
            return Roi(Polygon(), plane, is_ellipse=kind == "EllipseROI")
        if kind == "RectangleROI":
            (x0, y0), (x1, y1) = ends
            return Roi(Polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), plane)
        return Roi(_ellipse(x0, y0, x1, y1), plane, is_ellipse=True)
    if kind in ("PolygonROI", "PointsROI", "PolylineROI"):
        points = _rounded(_points(node.field("x"), node.field("y")))
        if kind == "PolygonROI":
            return Roi(_filled(points), plane)
        if kind == "PolylineROI":
            return Roi(LineString(points) if len(points) >= 2 else LineString(), plane)
        return Roi(Point(points[0]) if len(points) == 1 else MultiPoint(points), plane)
    if kind == "GeometryROI":
        wkb = node.field("wkb")
        if not isinstance(wkb, Array):
            raise StreamError("a geometry without content")
        with np.errstate(invalid="ignore"):
            return Roi(shapely.from_wkb(wkb.raw), plane)
    if kind == "AreaROI":
        return Roi(_area(node), plane)
    raise StreamError(f"a ROI of an unknown kind: {node.name}")


def centroids_of_polygons(x: FloatArray, y: FloatArray, counts: IntArray) -> FloatArray:
    """Centroids, float64 [m, 2], of what ``read_roi`` makes of m polygons.

    Args:
        x: of all their corners, one polygon after the other.
        y: likewise.
        counts: how many corners each has, int64 [m]; three or more.
    """
    points = _rounded(np.column_stack([x, y]))
    polygons = shapely.polygons(shapely.linearrings(points, indices=np.repeat(np.arange(len(counts)), counts)))
    ends = np.cumsum(counts)
    for row in np.flatnonzero(~shapely.is_valid(polygons)).tolist():
        polygons[row] = _filled(points[ends[row] - counts[row] : ends[row]])
    centroids = shapely.get_coordinates(shapely.centroid(polygons))  # none of an empty one
    return np.asarray(centroids, dtype=np.float64)


def box_of(desc: ClassDesc) -> tuple[int, int, int, int]:
    """Where x, y, x2, y2 stand among the primitives of a rectangle's class, in bytes.

    Raises:
        StreamError: the class has no such doubles.
    """
    places, at = {}, 0
    for code, name, _ in desc.fields:
        if code == "D":
            places[name] = at
        at += WIDTHS.get(code, 0)
    if not {b"x", b"y", b"x2", b"y2"} <= set(places):
        raise StreamError(f"a rectangle without corners: {desc.name}")
    return places[b"x"], places[b"y"], places[b"x2"], places[b"y2"]


def _area(node: Object) -> BaseGeometry:
    """Rings that cut each other out, as ``java.awt.geom.Area`` has them."""
    x, y = node.field("x"), node.field("y")
    if not isinstance(x, Array) or not isinstance(y, Array) or x.length != y.length:
        raise StreamError("an area without content")
    area: BaseGeometry = Polygon()
    for xs, ys in zip(x.items or (), y.items or (), strict=True):
        if isinstance(xs, bytes) or isinstance(ys, bytes):
            raise StreamError("an area without coordinates")
        area = shapely.symmetric_difference(area, _filled(_rounded(_points(xs, ys))))
    return area


def _filled(points: FloatArray) -> BaseGeometry:
    """All that a closed line goes round: where it crosses itself, Java's non-zero winding rule."""
    polygon = Polygon(points) if len(points) >= 3 else Polygon()
    if polygon.is_valid:
        return polygon
    faces = shapely.get_parts(shapely.polygonize([shapely.union_all(polygon.exterior)]))
    ring = shapely.get_coordinates(polygon.exterior)
    inner = [face for face in faces if _winding(ring, face.representative_point())]
    return shapely.union_all(inner) if inner else Polygon()


def _winding(ring: FloatArray, point: Point) -> int:
    """How many times a ring goes round a point."""
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    side = (x1 - x0) * (point.y - y0) - (point.x - x0) * (y1 - y0)
    down = (y0 <= point.y) & (y1 > point.y) & (side > 0)
    up = (y0 > point.y) & (y1 <= point.y) & (side < 0)
    return int(down.sum()) - int(up.sum())


def _ellipse(x0: float, y0: float, x1: float, y1: float) -> BaseGeometry:
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    width, height = abs(x1 - x0) / 2, abs(y1 - y0) / 2
    x = min(x0, x1) + width + width * np.cos(angles)
    y = min(y0, y1) + height + height * np.sin(angles)
    return Polygon(_rounded(np.column_stack([x, y])))


def _rounded(points: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        rounded = np.floor(points * 100 + 0.5) / 100
    if not np.isfinite(rounded).all():
        raise StreamError("a ROI that lies nowhere")
    return rounded


def _number(node: Object, name: str) -> int:
    return int.from_bytes(_primitive(node, name), "big", signed=True)


def _double(node: Object, name: str) -> float:
    value = _primitive(node, name)
    if len(value) != 8:
        raise StreamError(f"{node.name} has no double {name}")
    return float(struct.unpack(">d", value)[0])


def _primitive(node: Object, name: str) -> bytes:
    value = node.field(name)
    if not isinstance(value, bytes):
        raise StreamError(f"{node.name} has no number {name}")
    return value


def _points(x: Node | bytes, y: Node | bytes) -> FloatArray:
    """Coordinates, float64 [n, 2], from two float[]."""
    columns = [floats_of(a.raw) for a in (x, y) if isinstance(a, Array) and a.desc.name == "[F"]
    if len(columns) != 2 or len(columns[0]) != len(columns[1]):
        raise StreamError("a ROI without coordinates")
    return np.column_stack(columns)


def floats_of(raw: bytes | ByteArray) -> FloatArray:
    """Big-endian floats of four bytes each, as float64; NaN of any kind."""
    with np.errstate(invalid="ignore"):
        return np.frombuffer(raw, dtype=">f4").astype(np.float64)

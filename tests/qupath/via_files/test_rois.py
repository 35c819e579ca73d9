"""Each kind of ROI to the geometry that QuPath makes of it; whatever else, a StreamError."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from conftest import FIXTURES
from made_streams import parsed, root_of
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box, shape

from her2bridge.qupath.via_files.java_nodes import Array, ClassDesc, Node, Object, Part, StreamError
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.path_objects import fields_of, read_object, walk
from her2bridge.qupath.via_files.rois import RECTANGLE, box_of, centroids_of_polygons, read_roi

FILES = sorted(FIXTURES.rglob("data.qpdata"))
SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


def roi(kind: str, proxy: str = "SerializationProxy", **values: int | float | Node) -> Object:
    """A ROI's proxy with these fields: int, double (of a float) or object, as Java orders them."""
    plain = {name: value for name, value in values.items() if isinstance(value, int | float)}
    nodes = {name: value for name, value in values.items() if name not in plain}
    desc = ClassDesc(0, f"qupath.lib.roi.{kind}ROI${proxy}", bytes(8))
    desc.flags = 2
    codes = [("D" if isinstance(value, float) else "I", name.encode()) for name, value in plain.items()]
    desc.fields = [(code, name, None) for code, name in codes] + [("L", name.encode(), None) for name in nodes]
    primitives = b"".join(struct.pack(">d" if isinstance(v, float) else ">i", v) for v in plain.values())
    return Object(1, desc, [Part(primitives, list(nodes.values()))])


def corners(kind: str, x: float, y: float, x2: float, y2: float, *, c: int = -1, t: int = 0, z: int = 0) -> Object:
    return roi(kind, c=c, t=t, x=float(x), x2=float(x2), y=float(y), y2=float(y2), z=z, name=None)


def array(
    name: str, values: Sequence[float] = (), *, raw: bytes | None = None, items: list[Node] | None = None
) -> Array:
    data = np.array(values, dtype=">f4").tobytes() if raw is None else raw
    return Array(2, ClassDesc(3, name, bytes(8)), b"" if items is not None else data, items)


def points(kind: str, coordinates: Sequence[tuple[float, float]], **values: int) -> Object:
    plane = {"c": -1, "t": 0, "z": 0, **values}
    x, y = (array("[F", [one[axis] for one in coordinates]) for axis in (0, 1))
    return roi(kind, **plane, name=None, stats=None, x=x, y=y)


def area(*rings: Sequence[tuple[float, float]]) -> Object:
    x, y = (array("[[F", items=[array("[F", [one[axis] for one in ring]) for ring in rings]) for axis in (0, 1))
    return roi("Area", c=-1, t=0, z=0, name=None, stats=None, x=x, y=y)


def wkb(raw: bytes) -> Object:
    return roi("Geometry", "WKBSerializationProxy", c=-1, t=0, z=0, stats=None, wkb=array("[B", raw=raw))


# --- real files


def vertices(geometry: shapely.Geometry) -> list[list[float]]:
    """Each once, in order: rings may begin anywhere, and QuPath's versions turn them differently."""
    found: list[list[float]] = np.unique(shapely.get_coordinates(geometry), axis=0).tolist()
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: "-".join(path.relative_to(FIXTURES).parts[:-1]))
def test_vertices_are_those_that_qupath_exports(path: Path) -> None:
    content = json.loads((path.parents[2] / "expected" / f"{path.parent.name}.geojson").read_bytes())
    features = content["features"] if isinstance(content, dict) else content
    expected: dict[str, dict[str, Any]] = {feature["id"]: feature for feature in features}
    seen = 0
    for node, _ in walk(root_of(parsed(path.read_bytes())[0])):
        assert not isinstance(node, Run)
        one = read_object(node, None)
        feature = expected[one.id]
        for ours, theirs in ((one.geometry, feature["geometry"]), (one.nucleus, feature.get("nucleusGeometry"))):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert vertices(ours) == vertices(shape(theirs))
                assert ours.geom_type == theirs["type"]
                seen += 1
    assert seen >= len(expected)


def test_all_kinds_of_the_real_files() -> None:
    kinds = set()
    for path in FILES:
        for node, _ in walk(root_of(parsed(path.read_bytes())[0])):
            assert isinstance(node, Object)
            found = fields_of(node).roi
            assert isinstance(found, Object)
            kinds.add(found.name.removeprefix("qupath.lib.roi.").partition("ROI")[0])
    assert kinds == {"Rectangle", "Ellipse", "Line", "Polygon", "Polyline", "Points", "Geometry"}


# --- kind by kind


@pytest.mark.parametrize("order", [(10, 20, 40, 60), (40, 20, 10, 60), (10, 60, 40, 20), (40, 60, 10, 20)])
def test_rectangles_and_ellipses_from_any_two_corners(order: tuple[float, float, float, float]) -> None:
    assert read_roi(corners("Rectangle", *order)).geometry.equals(box(10, 20, 40, 60))
    ellipse = read_roi(corners("Ellipse", *order))
    assert ellipse.is_ellipse
    assert ellipse.geometry.is_valid
    assert ellipse.geometry.bounds == (10, 20, 40, 60)
    assert vertices(ellipse.geometry) == vertices(read_roi(corners("Ellipse", 10, 20, 40, 60)).geometry)


def test_an_ellipse_is_a_polygon_of_100_corners() -> None:
    found = read_roi(corners("Ellipse", 0, 0, 200, 100)).geometry
    assert len(found.exterior.coords) == 101
    assert found.area == pytest.approx(np.pi * 100 * 50 * np.sinc(1 / 50), rel=1e-4)
    assert found.centroid.equals_exact(Point(100, 50), 1e-6)


def test_lines_and_points() -> None:
    line = read_roi(corners("Line", 1, 2, 3, 4))
    assert line.geometry.equals(LineString([(1, 2), (3, 4)]))
    assert not line.is_ellipse
    assert read_roi(points("Polyline", [(0, 0), (5, 5), (9, 0)])).geometry.equals(LineString([(0, 0), (5, 5), (9, 0)]))
    assert read_roi(points("Points", [(1, 2), (3, 4)])).geometry.equals(MultiPoint([(1, 2), (3, 4)]))
    assert read_roi(points("Points", [(1, 2)])).geometry.equals(Point(1, 2))


@pytest.mark.parametrize("kind", ["Polygon", "Polyline", "Points"])
def test_too_few_vertices_are_an_empty_geometry(kind: str) -> None:
    """QuPath keeps such ROIs, of a click without a drag."""
    assert read_roi(points(kind, [])).geometry.is_empty
    assert kind == "Points" or read_roi(points(kind, [(1, 1)])).geometry.is_empty


@pytest.mark.parametrize("kind", ["Rectangle", "Ellipse"])
@pytest.mark.parametrize("place", [(5, 5, 5, 5), (5, 5, 9, 5), (5, 5, 5, 9)])
def test_what_has_no_area_is_an_empty_geometry(kind: str, place: tuple[float, float, float, float]) -> None:
    assert read_roi(corners(kind, *place)).geometry.is_empty


def test_the_plane() -> None:
    assert read_roi(corners("Rectangle", 0, 0, 1, 1, c=2, t=4, z=3)).plane == (2, 3, 4)
    assert read_roi(points("Polygon", SQUARE, c=2, t=4, z=3)).plane == (2, 3, 4)


def test_vertices_lie_on_a_grid_halves_rounded_up() -> None:
    found = read_roi(corners("Rectangle", 0.125, -0.125, 10.004, 20.006)).geometry
    assert found.bounds == (0.13, -0.12, 10.0, 20.01)


def test_wkb_is_taken_as_it_is() -> None:
    geometry = MultiPolygon([box(0, 0, 10.12345, 10), Polygon(SQUARE, [[(2, 2), (4, 2), (4, 4)]]).buffer(0)])
    for order in (0, 1):
        assert read_roi(wkb(shapely.to_wkb(geometry, byte_order=order))).geometry.equals_exact(geometry)


def test_old_areas_are_rings_that_cut_each_other_out() -> None:
    hole = [(2, 2), (2, 4), (4, 4), (4, 2)]
    island = [(20, 20), (30, 20), (30, 30), (20, 30)]
    found = read_roi(area(SQUARE, hole, island)).geometry
    assert found.equals(MultiPolygon([Polygon(SQUARE, [hole]), Polygon(island)]))
    assert read_roi(area(SQUARE, [(1, 1), (2, 2)])).geometry.equals(Polygon(SQUARE))
    assert read_roi(area()).geometry.is_empty


# --- lines that cross themselves: Java's non-zero winding rule


def star(number: int = 5, step: int = 2) -> list[tuple[float, float]]:
    angles = 2 * np.pi * step * np.arange(number) / number
    return [(100 * float(np.cos(a)), 100 * float(np.sin(a))) for a in angles]


def test_a_star_is_filled() -> None:
    found = read_roi(points("Polygon", star())).geometry
    assert found.is_valid
    assert found.contains(Point(0, 0))
    assert not found.contains(Point(-60, 0))


def test_a_bow_tie_is_two_triangles() -> None:
    found = read_roi(points("Polygon", [(0, 0), (10, 10), (10, 0), (0, 10)])).geometry
    assert found.is_valid
    assert found.area == pytest.approx(50)
    assert found.contains(Point(9, 5))
    assert not found.contains(Point(5, 9))


def test_a_loop_backwards_leaves_a_hole_and_one_forwards_none() -> None:
    outer = [(0, 0), (30, 0), (30, 30), (0, 30), (0, 0)]
    inner = [(10, 10), (20, 10), (20, 20), (10, 20), (10, 10)]
    forwards = read_roi(points("Polygon", [*outer, *inner, (0, 0)])).geometry
    backwards = read_roi(points("Polygon", [*outer, *inner[::-1], (0, 0)])).geometry
    assert forwards.area == pytest.approx(900)
    assert backwards.area == pytest.approx(800)


def test_a_line_there_and_back_has_no_area() -> None:
    assert read_roi(points("Polygon", [(0, 0), (10, 0), (0, 0), (10, 0)])).geometry.is_empty


@pytest.mark.parametrize("seed", range(20))
def test_what_lies_inside_is_what_the_line_goes_round(seed: int) -> None:
    """Against the sum of angles, which is how often a line goes round a point."""
    chance = np.random.default_rng(seed)
    ring = chance.uniform(0, 100, (12, 2)).round(1)
    found = read_roi(points("Polygon", ring.tolist())).geometry
    assert found.is_valid
    for place in chance.uniform(0, 100, (200, 2)):
        if found.boundary.distance(Point(place)) < 0.1:
            continue
        around = np.append(ring, ring[:1], axis=0) - place
        turns = np.diff(np.unwrap(np.arctan2(around[:, 1], around[:, 0])))
        assert found.contains(Point(place)) == (round(float(turns.sum()) / (2 * np.pi)) != 0)


# --- many polygons at once


def test_centroids_of_polygons_are_those_of_each() -> None:
    chance = np.random.default_rng(0)
    rings = [chance.uniform(0, 50, (number, 2)).astype(np.float32) for number in (3, 4, 7, 5)]
    rings += [np.array(star(), dtype=np.float32), np.array(SQUARE, dtype=np.float32)]
    one_by_one = [read_roi(points("Polygon", ring.tolist())).geometry.centroid for ring in rings]
    x, y = (np.concatenate([ring[:, axis] for ring in rings]).astype(np.float64) for axis in (0, 1))
    found = centroids_of_polygons(x, y, np.array([len(ring) for ring in rings]))
    assert found.tolist() == [[one.x, one.y] for one in one_by_one]


def test_polygons_without_an_area_have_no_centroid() -> None:
    flat = np.array([0.0, 10, 0, 10, 0, 4, 4])
    found = centroids_of_polygons(flat, flat * [0, 0, 0, 0, 0, 0, 1], np.array([4, 3]))
    assert len(found) == 1


# --- what is not as it should be


NO_DOUBLE = roi("Rectangle", c=-1, t=0, x=1, x2=2.0, y=1.0, y2=2.0, z=0)
BAD = {
    "unknown kind": roi("Spline", c=-1, t=0, z=0),
    "no ROI at all": Object(1, ClassDesc(0, "java.lang.Integer", bytes(8)), [Part()]),
    "no plane": roi("Rectangle", x=1.0, x2=2.0, y=1.0, y2=2.0),
    "no corner": roi("Rectangle", c=-1, t=0, x=1.0, x2=2.0, y=1.0, z=0),
    "a corner that is no double": NO_DOUBLE,
    "a corner that is an object": roi("Rectangle", c=-1, t=0, x=None, x2=2.0, y=1.0, y2=2.0, z=0),
    "a corner that is no number": corners("Rectangle", float("nan"), 0, 1, 1),
    "a corner without end": corners("Ellipse", 0, 0, float("inf"), 1),
    "a corner too far out": corners("Line", 0, 0, 1e308, 1),
    "no vertices": roi("Polygon", c=-1, t=0, z=0, name=None, stats=None),
    "vertices that are null": roi("Polygon", c=-1, t=0, z=0, x=None, y=None),
    "vertices that are numbers": roi("Polygon", c=-1, t=0, z=0, x=1, y=2),
    "one more x than y": roi("Polygon", c=-1, t=0, z=0, x=array("[F", [1, 2, 3]), y=array("[F", [1, 2])),
    "vertices of another type": roi("Points", c=-1, t=0, z=0, x=array("[D", raw=bytes(8)), y=array("[D", raw=bytes(8))),
    "vertices of odd length": roi("Points", c=-1, t=0, z=0, x=array("[B", raw=bytes(3)), y=array("[B", raw=bytes(3))),
    "a vertex that is no number": points("Polygon", [(0, 0), (float("nan"), 1), (2, 0)]),
    "a vertex without end": points("Polyline", [(0, 0), (float("inf"), 1)]),
    "no WKB": roi("Geometry", "SerializationProxy", c=-1, t=0, z=0, geometry=None),
    "WKB that is null": roi("Geometry", "WKBSerializationProxy", c=-1, t=0, z=0, wkb=None),
    "WKB that is empty": wkb(b""),
    "WKB that is cut short": wkb(shapely.to_wkb(box(0, 0, 1, 1))[:-9]),
    "WKB of an unknown type": wkb(b"\x00\x00\x00\x00\x63" + bytes(40)),
    "an area without rings": roi("Area", c=-1, t=0, z=0, x=None, y=None),
    "an area with a ring that is null": roi(
        "Area", c=-1, t=0, z=0, x=array("[[F", items=[None]), y=array("[[F", items=[None])
    ),
    "an area with another number of rings": roi(
        "Area", c=-1, t=0, z=0, x=array("[[F", items=[array("[F")]), y=array("[[F", items=[])
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_roi_that_is_not_as_it_should_be(name: str) -> None:
    with pytest.raises(StreamError):
        read_roi(BAD[name])


def test_where_the_corners_of_a_rectangle_stand() -> None:
    assert box_of(corners("Rectangle", 0, 0, 1, 1).desc) == (8, 24, 16, 32)
    assert corners("Rectangle", 0, 0, 1, 1).name == RECTANGLE
    with pytest.raises(StreamError, match="without corners"):
        box_of(NO_DOUBLE.desc)

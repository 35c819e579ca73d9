"""What we write into a data file parses again to the records given, and is built as QuPath builds it."""

from __future__ import annotations

import math
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from conftest import FIXTURES
from made_streams import Made, children_of, id_of, parsed, root_of, run_lengths, written
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from her2bridge.qupath.seam import OWNERSHIP_KEY, NewTiles, PathClassRef, PathObject
from her2bridge.qupath.via_files.java_equal import assert_equal
from her2bridge.qupath.via_files.java_maker import CLASSES, Maker
from her2bridge.qupath.via_files.java_nodes import Array, Block, ClassDesc, Keyed, Node, Object, StreamError, Text
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.new_objects import Objects
from her2bridge.qupath.via_files.path_objects import (
    class_ref,
    fields_of,
    list_items,
    measurements_of,
    read_object,
    walk,
    with_children,
)

FILES = sorted(FIXTURES.rglob("data.qpdata"))
OBJECT_FILES = [
    FIXTURES / "qupath_objects" / f"qupath_{v}" / "data" / "1" / "data.qpdata" for v in ("0_5_1", "0_6_0", "0_7_0")
]
NEGATIVE = PathClassRef(("Negative",), (112, 112, 225))
STRONG = PathClassRef(("3+",), (250, 62, 62))
DERIVED = PathClassRef(("HER2", "Area", "3+"), (1, 2, 3))
NAMES = ("HER2: p(0)", "HER2: p(1+)", "HER2: p(noise)")

of_each_version = pytest.mark.parametrize("path", OBJECT_FILES, ids=lambda path: path.parts[-4])


def tiles_of(count: int, **changed: object) -> NewTiles:
    chance = np.random.default_rng(count)
    tiles = NewTiles(
        origins=chance.uniform(0, 90_000, (count, 2)),
        side=264.46281,
        parents=np.zeros(count, dtype=np.int64),
        parent_ids=[None],
        classes=np.arange(count, dtype=np.int64) % 4 - 1,
        path_classes=[NEGATIVE, STRONG, DERIVED],
        measurement_names=NAMES,
        measurements=chance.random((count, len(NAMES)), dtype=np.float32),
        mark="run-1",
        ids=[str(uuid.UUID(int=number + 1)) for number in range(count)],
    )
    return replace(tiles, **changed)  # type: ignore[arg-type]


def added(path: Path, make: Callable[[Objects], Sequence[Node]]) -> bytes:
    """A file with objects added below its root."""
    items, nodes = parsed(path.read_bytes())
    objects = Objects(Maker(nodes))
    root = root_of(items)
    children = [*fields_of(root).children, *make(objects)]
    edited: dict[int, Keyed] = {root.key: with_children(root, children, fields_of(root).measurements)}
    data = written(items, nodes, edited)
    assert_equal(items, parsed(data)[0], len(nodes), edited)
    return data


def objects_in(data: bytes, *, find_runs: bool = False) -> list[PathObject]:
    found = []
    for item, parent in walk(root_of(parsed(data, find_runs=find_runs)[0])):
        found += [read_object(one, parent) for one in (item.objects() if isinstance(item, Run) else (item,))]
    return found


# --- classes


def test_classes_are_declared_as_qupath_and_java_declare_them() -> None:
    """All that we may write stand in files of real QuPaths."""
    seen = set()
    for path in FILES:
        for node in parsed(path.read_bytes())[1]:
            if isinstance(node, ClassDesc) and node.name in CLASSES:
                uid, flags, parent, fields = CLASSES[node.name]
                assert int.from_bytes(node.uid, "big", signed=True) == uid
                assert node.flags == flags
                assert (node.parent.name if node.parent else None) == parent
                assert [(code, name.decode(), sign and str(sign)) for code, name, sign in node.fields] == list(fields)
                seen.add(node.name)
    assert seen == set(CLASSES)


def test_a_class_of_another_layout_is_an_error() -> None:
    _, nodes = parsed(OBJECT_FILES[0].read_bytes())
    desc = next(node for node in nodes if isinstance(node, ClassDesc) and node.name == "[F")
    desc.fields = [("I", b"n", None)]
    with pytest.raises(StreamError, match="another layout"):
        Maker(nodes).array("[F")


# --- tiles


@of_each_version
def test_tiles_parse_to_the_records_given(path: Path) -> None:
    tiles = tiles_of(50)
    before = objects_in(path.read_bytes())
    data = added(path, lambda objects: [run for _, run in objects.tiles(tiles)])
    found = objects_in(data)
    assert [one.id for one in found[: len(before)]] == [one.id for one in before]
    assert objects_in(data, find_runs=True)[-1].id == found[-1].id
    ours = {one.id: one for one in found[len(before) :]}
    assert sorted(ours) == sorted(tiles.ids)
    names = tiles.class_names()
    colours = {str(one): one.rgb for one in tiles.path_classes}
    for row, id_ in enumerate(tiles.ids):
        one = ours[id_]
        assert (one.kind, one.parent_id, one.name, one.rgb, one.locked, one.plane) == (
            *("tile", None, None, None, False),
            (-1, 0, 0),
        )
        assert (one.path_class and str(one.path_class)) == names[row]
        assert one.path_class is None or one.path_class.rgb == colours[str(one.path_class)]
        assert dict(one.metadata) == {OWNERSHIP_KEY: "run-1"}
        assert dict(one.measurements) == dict(zip(NAMES, tiles.measurements[row].tolist(), strict=True))
        assert one.geometry is not None
        assert np.abs(np.array(one.geometry.bounds) - tiles.bounds()[row]).max() <= 0.0051


def test_bounds_are_kept_to_the_last_bit() -> None:
    tiles = tiles_of(20)
    items, _ = parsed(added(OBJECT_FILES[0], lambda objects: [run for _, run in objects.tiles(tiles)]), find_runs=False)
    for node, _ in walk(root_of(items)):
        assert isinstance(node, Object)
        one = read_object(node, None)
        if OWNERSHIP_KEY in one.metadata:
            roi = fields_of(node).roi
            assert isinstance(roi, Object)
            corner = [roi.field(name) for name in ("x", "y", "x2", "y2")]
            assert corner == [struct.pack(">d", value) for value in tiles.bounds()[tiles.ids.index(one.id)]]


def kinds(nodes: Sequence[Node]) -> list[str]:
    return [
        f"block of {len(node.data)}"
        if isinstance(node, Block)
        else node.name.rpartition(".")[2]
        if isinstance(node, Object)
        else type(node).__name__
        for node in nodes
    ]


@of_each_version
def test_a_tile_is_built_as_qupath_builds_it(path: Path) -> None:
    data = added(path, lambda objects: [run for _, run in objects.tiles(tiles_of(12, classes=np.arange(12) % 3))])
    items, _ = parsed(data, find_runs=False)
    nodes = [node for node, _ in walk(root_of(items)) if isinstance(node, Object) and node.name.endswith("TileObject")]
    real = [node for node in nodes if OWNERSHIP_KEY not in read_object(node, None).metadata]
    ours = [node for node in nodes if node not in real]
    assert (len(real), len(ours)) == (3, 12)
    for node in ours:
        assert node.desc is real[0].desc
        wrote, theirs = node.parts[0].annotation, real[0].parts[0].annotation
        assert wrote is not None
        assert theirs is not None
        assert kinds(wrote) == kinds(theirs)
        for mine, its in zip(wrote, theirs, strict=True):
            if isinstance(mine, Object):
                assert isinstance(its, Object)
                assert mine.desc is its.desc
            elif isinstance(mine, Block):
                assert isinstance(its, Block)
                assert mine.data == its.data


def test_a_tile_in_a_graph_that_has_none() -> None:
    """What docs on QuPath's files say, node by node; shared is what may be."""
    made = Made()
    runs = [run for _, run in made.objects.tiles(tiles_of(8, classes=np.zeros(8, dtype=np.int64)))]
    items, nodes = parsed(made.data(*runs), find_runs=False)
    first, second = (node for node in children_of(items)[:2] if isinstance(node, Object))
    lineage, desc = [], first.desc
    while desc is not None:
        assert (desc.flags, desc.uid, desc.fields) == (12, bytes(7) + b"\x01", [])
        lineage.append(desc.name.rpartition(".")[2])
        desc = desc.parent  # type: ignore[assignment]
    assert lineage == ["PathTileObject", "PathDetectionObject", "PathROIObject", "PathObject"]
    assert len(first.parts) == 1
    name, colour, metadata, measurements, count, locked, path_class, roi, probability = first.parts[0].annotation or ()
    assert name is colour is None
    assert isinstance(metadata, Object)
    version, keys, values = metadata.parts[0].annotation or ()
    assert isinstance(version, Object)
    assert version.field("value") == struct.pack(">i", 1)
    assert isinstance(keys, Array)
    assert isinstance(values, Array)
    assert [str(one) for one in keys.items or ()] == ["Object ID", OWNERSHIP_KEY]
    assert [str(one) for one in values.items or ()] == [str(uuid.UUID(int=1)), "run-1"]
    assert isinstance(measurements, Object)
    assert measurements.name.endswith("NumericMeasurementList$FloatList")
    assert (measurements.field("isClosed"), measurements.field("map")) == (b"\0", None)
    names, floats = measurements.field("names"), measurements.field("values")
    assert [str(one) for one in list_items(names)] == list(NAMES)
    assert isinstance(floats, Array)
    assert (floats.desc.name, floats.length) == ("[F", 3)
    assert isinstance(count, Block)
    assert count.data == bytes(4)
    assert isinstance(locked, Object)
    assert locked.field("value") == b"\0"
    assert class_ref(path_class) == NEGATIVE
    assert isinstance(roi, Object)
    assert [roi.field(one) for one in "ctz"] == [struct.pack(">i", one) for one in (-1, 0, 0)]
    assert roi.field("name") is None
    assert isinstance(probability, Block)
    assert math.isnan(struct.unpack(">d", probability.data)[0])
    others = fields_of(second)
    assert isinstance(others.measurements, Object)
    assert others.measurements.field("names") is names
    assert others.path_class is path_class
    assert others.after[0] is locked
    assert sum(isinstance(node, Text) and str(node) in ("Object ID", OWNERSHIP_KEY, "run-1") for node in nodes) == 3


def test_tiles_stay_a_run_when_they_are_read_again() -> None:
    made = Made()
    data = made.data(*(run for _, run in made.objects.tiles(tiles_of(60, classes=np.arange(60) % 3))))
    assert run_lengths(parsed(data)[0])[-1] > 50


def test_tiles_below_several_parents() -> None:
    parents = np.array([0, 1, 2, 1] * 3)
    tiles = tiles_of(12, parents=parents, parent_ids=["a", "b", None], classes=np.arange(12) % 3 - 1)
    runs = Made().objects.tiles(tiles)
    lengths = sorted((parent or "", len(run)) for parent, run in runs)
    assert lengths == [("", 1), ("", 2), ("a", 1), ("a", 2), ("b", 2), ("b", 4)]  # unclassified ones apart
    found: dict[str | None, set[str]] = {}
    for parent, run in runs:
        found.setdefault(parent, set()).update(read_object(one, None).id for one in run.objects())
    for number, parent in enumerate(("a", "b", None)):
        assert found[parent] == {id_ for id_, one in zip(tiles.ids, parents, strict=True) if one == number}


@pytest.mark.parametrize("classes", [[-1, -1, -1], [2, 2, 2], [0, -1, 1]])
def test_classes_of_tiles(classes: list[int]) -> None:
    tiles = tiles_of(3, classes=np.array(classes))
    found = {one.id: one for one in objects_in(added(OBJECT_FILES[1], lambda o: [run for _, run in o.tiles(tiles)]))}
    expected = [None if one < 0 else tiles.path_classes[one] for one in classes]
    assert [found[id_].path_class for id_ in tiles.ids] == expected


def test_tiles_without_measurements_and_no_tiles() -> None:
    tiles = tiles_of(5, measurement_names=(), measurements=np.zeros((5, 0), dtype=np.float32))
    found = objects_in(added(OBJECT_FILES[1], lambda objects: [run for _, run in objects.tiles(tiles)]))
    assert [dict(one.measurements) for one in found if OWNERSHIP_KEY in one.metadata] == [{}] * 5
    none = tiles_of(0)
    assert Made().objects.tiles(none) == []


def test_a_measurement_that_is_no_number() -> None:
    values = np.array([[np.nan, np.inf, -0.0]] * 3, dtype=np.float32)
    found = objects_in(added(OBJECT_FILES[1], lambda o: [run for _, run in o.tiles(tiles_of(3, measurements=values))]))
    assert [repr(list(one.measurements.values())) for one in found if OWNERSHIP_KEY in one.metadata] == [
        "[nan, inf, -0.0]"
    ] * 3


# --- PathClasses


def path_classes(items: Sequence[Node]) -> list[Object]:
    """The nodes, each once."""
    nodes = {id(f.path_class): f.path_class for f in map(fields_of, every_object(items))}
    return [node for node in nodes.values() if isinstance(node, Object)]


def every_object(items: Sequence[Node]) -> list[Object]:
    return [node for node, _ in walk(root_of(items)) if isinstance(node, Object)]


def test_a_class_of_the_graph_is_used_again() -> None:
    items, nodes = parsed(OBJECT_FILES[2].read_bytes())
    objects = Objects(Maker(nodes))
    for node in path_classes(items):
        ref = class_ref(node)
        assert ref is not None
        assert objects.path_class(ref) is node
    assert objects.path_class(None) is None


def test_a_derived_class_uses_its_parents_node() -> None:
    items, nodes = parsed(OBJECT_FILES[2].read_bytes())
    tumor = next(node for node in path_classes(items) if class_ref(node) == PathClassRef(("Tumor",), (200, 0, 0)))
    objects = Objects(Maker(nodes))
    made = objects.path_class(PathClassRef(("Tumor", "Negative"), (112, 112, 225)))
    assert made is not None
    assert made.field("parentClass") is tumor
    assert class_ref(made) == PathClassRef(("Tumor", "Negative"), (112, 112, 225))
    count = len(nodes)
    again = objects.path_class(PathClassRef(("Tumor", "Negative"), (112, 112, 225)))
    assert again is made
    assert len(nodes) == count


def test_a_parent_that_is_not_there_is_made_once() -> None:
    objects = Made().objects
    one, other = (objects.path_class(PathClassRef(("HER2", name), (1, 2, 3))) for name in ("2+", "3+"))
    assert one is not None
    assert other is not None
    assert one.field("parentClass") is other.field("parentClass")
    assert class_ref(one.field("parentClass")) == PathClassRef(("HER2",), None)  # type: ignore[arg-type]


def test_a_class_of_the_same_name_and_another_colour_is_another() -> None:
    """The one that is there stays as it is; what an object is said to have, it has."""
    path = OBJECT_FILES[2]
    before = {class_ref(node) for node in path_classes(parsed(path.read_bytes())[0])}
    red = next(ref for ref in before if ref is not None and ref.names == ("3+",))
    blue = PathClassRef(("3+",), (0, 0, 255))
    assert red.rgb != blue.rgb
    tiles = tiles_of(6, path_classes=[red, blue], classes=np.arange(6) % 2)
    items, _ = parsed(added(path, lambda objects: [run for _, run in objects.tiles(tiles)]), find_runs=False)
    nodes = [node for node in path_classes(items) if str(class_ref(node)) == "3+"]
    assert {class_ref(node) for node in nodes} == {red, blue}
    assert len(nodes) == 2
    assert {class_ref(node) for node in path_classes(items)} == before | {blue}


def test_classes_that_stand_in_a_run_are_found() -> None:
    """Where the first of each class stand side by side, they are a run."""
    made = Made()
    classes = [made.own_class(f"class {number}", number) for number in range(12)]
    data = made.data(*(made.path_object(number, path_class=one) for number, one in enumerate(classes, start=1)))
    items, nodes = parsed(data)
    assert run_lengths(items) == [1, 1, 10]
    objects = Objects(Maker(nodes))
    count = len(nodes)
    for number in range(12):
        node = objects.path_class(PathClassRef((f"class {number}",), (0, 0, number)))
        assert node is not None
        assert node.key < count
    assert len(nodes) == count


def test_a_class_without_a_name_is_none() -> None:
    """QuPath's own for what is not classified."""
    made = Made()
    assert class_ref(made.maker.object("qupath.lib.objects.classes.PathClass", b"", [None, None, None])) is None


# --- annotations

HOLE = Polygon([(0, 0), (100, 0), (100, 100), (0, 100)], [[(20, 20), (40, 20), (40, 40), (20, 40)]])
TRIANGLE = Polygon([(0, 0), (100.5, 0), (0, 50.25)])


def record(geometry: BaseGeometry, **what: object) -> PathObject:
    return PathObject(kind="annotation", id=id_of(77), parent_id=None, geometry=geometry, **what)  # type: ignore[arg-type]


def same_record(one: PathObject, other: PathObject) -> None:
    plain = ("kind", "id", "parent_id", "name", "path_class", "rgb", "plane", "locked", "description", "is_ellipse")
    for field in plain:
        assert getattr(one, field) == getattr(other, field), field
    assert list(one.measurements.items()) == list(other.measurements.items())
    assert dict(one.metadata) == dict(other.metadata)
    assert one.geometry is not None
    assert one.geometry.normalize().equals_exact(shapely.normalize(other.geometry))
    assert one.nucleus is None


ANNOTATIONS: Mapping[str, tuple[PathObject, str]] = {
    "rectangle": (record(box(10.25, 20, 30, 41)), "RectangleROI"),
    "rectangle with a vertex more": (record(Polygon([(0, 0), (5, 0), (9, 0), (9, 3), (0, 3)])), "RectangleROI"),
    "polygon": (record(TRIANGLE), "PolygonROI"),
    "polygon with a hole": (record(HOLE), "GeometryROI"),
    "polygons, one with a hole": (record(MultiPolygon([HOLE, box(200, 0, 300, 9)])), "GeometryROI"),
    "all that it may have": (
        record(
            TRIANGLE,
            name="the name, µm – 😀",
            description="what it is",
            path_class=PathClassRef(("Tumor", "Positive"), (250, 62, 62)),
            rgb=(255, 0, 128),
            plane=(1, 2, 3),
            locked=True,
            measurements={"HER2: tumour tiles": 12.0, "area": 0.1},
            metadata={"key": "value", "_hidden": ""},
        ),
        "PolygonROI",
    ),
}


@of_each_version
@pytest.mark.parametrize("name", ANNOTATIONS)
def test_an_annotation_parses_to_the_record_given(name: str, path: Path) -> None:
    wanted, kind = ANNOTATIONS[name]
    data = added(path, lambda objects: [objects.annotation(wanted)])
    found = objects_in(data)[-1]
    if name == "rectangle with a vertex more":
        wanted = replace(wanted, geometry=box(0, 0, 9, 3))
    same_record(found, wanted)
    node = children_of(parsed(data)[0])[-1]
    assert isinstance(node, Object)
    roi = fields_of(node).roi
    assert isinstance(roi, Object)
    assert roi.name.startswith(f"qupath.lib.roi.{kind}$")


def test_an_annotation_is_built_as_qupath_builds_it() -> None:
    data = added(OBJECT_FILES[2], lambda o: [o.annotation(replace(ANNOTATIONS["all that it may have"][0], rgb=None))])
    items, _ = parsed(data)
    theirs, *_, ours = (node for node in children_of(items) if isinstance(node, Object))
    assert fields_of(theirs).kind == fields_of(ours).kind == "annotation"
    mine, its = fields_of(ours), fields_of(theirs)
    assert kinds([mine.name, mine.colour, mine.metadata, mine.measurements, *mine.after]) == kinds(
        [its.name, its.colour, its.metadata, its.measurements, *its.after]
    )


@pytest.mark.parametrize("geometry", [None, Point(1, 2), LineString([(0, 0), (1, 1)]), Polygon(), MultiPolygon()])
def test_what_has_no_area_is_no_annotation(geometry: BaseGeometry | None) -> None:
    with pytest.raises(StreamError, match="needs a polygon"):
        Made().objects.annotation(replace(record(TRIANGLE), geometry=geometry))


# --- measurements of annotations


def default_list(objects: Objects, values: Mapping[str, float]) -> Node:
    return objects.measurements(None, values, frozenset())


OURS = frozenset({"HER2: a", "HER2: b"})


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ({}, {"HER2: a": 1.0}, {"HER2: a": 1.0}),
        ({"x": 1.0, "y": 2.0}, {"HER2: b": 3.0, "HER2: a": 4.0}, {"x": 1.0, "y": 2.0, "HER2: b": 3.0, "HER2: a": 4.0}),
        ({"HER2: a": 1.0, "x": 2.0, "HER2: b": 3.0}, {"HER2: a": 9.0}, {"x": 2.0, "HER2: a": 9.0}),
        ({"HER2: a": 1.0, "x": 2.0, "HER2: b": 3.0}, {}, {"x": 2.0}),
        ({"HER2: a": 1.0}, {}, {}),
        ({"HER2: c": 1.0, "x": 2.0}, {}, {"HER2: c": 1.0, "x": 2.0}),
        ({"x": 1.0, "y": 2.0}, {"x": 5.0}, {"y": 2.0, "x": 5.0}),
        (
            {f"m{i}": float(i) for i in range(20)},
            {"m3": 0.5},
            {f"m{i}": float(i) for i in range(20) if i != 3} | {"m3": 0.5},
        ),
    ],
)
@pytest.mark.parametrize("numeric", [False, True])
def test_what_is_ours_is_replaced_and_the_rest_keeps_its_order(
    before: Mapping[str, float], values: Mapping[str, float], after: Mapping[str, float], numeric: bool
) -> None:
    made = Made()
    had = (made.measurements(before) if numeric else default_list(made.objects, before)) if before else None
    found = made.objects.measurements(had, values, OURS)
    assert list(measurements_of(found).items()) == list(after.items())
    assert (found is None) == (not after and bool(before or not values))
    if not values and not OURS & set(before):
        assert found is had  # nothing to change: the node itself
    elif not numeric and had is not None and found is not None:
        kept = [one for one in list_items(had.field("list")) if isinstance(one, Object)]  # type: ignore[union-attr]
        now = list_items(found.field("list"))  # type: ignore[union-attr]
        assert [one for one in kept if one in now] == list(now[: len(now) - len(values)])


@of_each_version
def test_measurements_that_stand_in_a_run(path: Path) -> None:
    """A long list is read as a run; its items are kept all the same."""
    values = {f"measurement {number}": number / 7 for number in range(30)} | {"HER2: a": math.nan}
    data = added(path, lambda objects: [objects.annotation(record(TRIANGLE, measurements=values))])
    items, nodes = parsed(data)
    assert any(isinstance(node, Run) for node in nodes)
    node = children_of(items)[-1]
    assert isinstance(node, Object)
    fields = fields_of(node)
    assert repr(measurements_of(fields.measurements)) == repr(values)
    found = Objects(Maker(nodes)).measurements(fields.measurements, {"HER2: b": 2.0}, OURS)
    new = with_children(node, fields.children, found)
    again = objects_in(written(items, nodes, {node.key: new}))[-1]
    del values["HER2: a"]
    assert dict(again.measurements) == values | {"HER2: b": 2.0}

"""Our tiles in a data file: read in columns they are what they are object by object."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from made_streams import Made, children_of, id_of, parsed, root_of, run_lengths

from her2bridge.qupath.seam import OWNERSHIP_KEY, NewTiles, PathClassRef, StoredTiles
from her2bridge.qupath.via_files.java_maker import Maker
from her2bridge.qupath.via_files.java_nodes import Block, Node, Object, Part, StreamError
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.new_objects import Objects
from her2bridge.qupath.via_files.path_objects import may_hold_only_detections
from her2bridge.qupath.via_files.stored_tiles import Columns, centroids, class_names_of, find_marked, ids_of, joined

MARK = {OWNERSHIP_KEY: "run-1"}
CLASSES = [PathClassRef(("Negative",), (112, 112, 225)), PathClassRef(("HER2", "3+"), (250, 62, 62))]
COUNT = 40
NO_CHILDREN = Block(bytes(4))


def new_tiles(first: int, count: int, *, mark: str, names: tuple[str, ...] = ("HER2: p(0)", "HER2: p(1+)")) -> NewTiles:
    chance = np.random.default_rng(first)
    return NewTiles(
        origins=chance.uniform(0, 90_000, (count, 2)),
        side=264.46281,
        parents=np.zeros(count, dtype=np.int64),
        parent_ids=[None],
        classes=np.arange(count, dtype=np.int64) % 3 - 1,
        path_classes=CLASSES,
        measurement_names=names,
        measurements=chance.random((count, len(names)), dtype=np.float32),
        mark=mark,
        ids=[id_of(first + number) for number in range(count)],
    )


# --- files, and whether what is marked in them is read in columns


def as_we_write_them() -> bytes:
    made = Made()
    return made.data(*(run for _, run in made.objects.tiles(new_tiles(1, COUNT, mark="run-1"))))


def of_two_runs() -> bytes:
    """Keys, marks and names of measurements are other strings in the second; tiles of both stand side by side."""
    made = Made()
    first = [run for _, run in made.objects.tiles(new_tiles(1, 20, mark="run-1"))]
    again = Objects(Maker(made.maker.nodes))
    second = [run for _, run in again.tiles(new_tiles(100, 20, mark="run-2"))]
    return made.data(first[0], second[0], first[1], second[1])


def as_qupath_writes_them() -> bytes:
    """A list of names for each, with room for more; a string of its own for each mark."""
    made = Made()
    tiles = []
    for number in range(1, COUNT):
        floats = made.maker.array("[F", np.array([number, 0.5, 0, 0], dtype=">f4").tobytes())
        names = made.names(["a", "b"], shared=False)
        parts = [Part(b"\0", [None, names]), Part(b"", [floats])]
        one = made.maker.parts("qupath.lib.measurements.NumericMeasurementList$FloatList", parts)
        tiles.append(tile(made, number, measurements=one, path_class=CLASSES[number % 2]))
    return made.data(*tiles)


def with_keys_of_their_own() -> bytes:
    """As when a script puts the mark on each."""
    made = Made()
    return made.data(*(tile(made, number, own_keys=True) for number in range(1, COUNT)))


def rectangles_from_any_corner() -> bytes:
    made = Made()
    rois = [made.rectangle(number, 10, number + 9.123456 * (-1) ** number, 10.7) for number in range(COUNT)]
    return made.data(*(tile(made, number, roi=roi) for number, roi in enumerate(rois)))


def without_measurements_or_class() -> bytes:
    made = Made()
    return made.data(*(tile(made, number) for number in range(1, COUNT)))


def polygons() -> bytes:
    made, chance = Made(), np.random.default_rng(0)
    rois = [made.polygon(chance.uniform(0, 99, (3 + number % 4, 2)).tolist()) for number in range(COUNT)]
    return made.data(*(tile(made, number, roi=roi, path_class=CLASSES[0]) for number, roi in enumerate(rois)))


def unmarked_ones_between() -> bytes:
    made = Made()
    metadata = [MARK if number // 8 % 2 else {} for number in range(4 * COUNT)]
    return made.data(*(tile(made, number, metadata=one) for number, one in enumerate(metadata)))


def other_keys_in_the_place_of_the_mark() -> bytes:
    """One form, and keys that differ."""
    made = Made()
    keys = [{("other", OWNERSHIP_KEY)[number % 3 > 0]: "run-1"} for number in range(COUNT)]
    return made.data(*(tile(made, number, metadata=one) for number, one in enumerate(keys)))


def other_keys_of_their_own() -> bytes:
    """Of the same length, too."""
    made = Made()
    keys = [{("_her2bridgf", OWNERSHIP_KEY)[number % 3 > 0]: "run-1"} for number in range(2 * COUNT)]
    return made.data(*(tile(made, number, metadata=one, own_keys=True) for number, one in enumerate(keys, start=1)))


def other_names_of_measurements() -> bytes:
    made = Made()
    lists = [made.measurements({("a", "b")[number % 2]: number, "c": np.nan}) for number in range(COUNT)]
    return made.data(*(tile(made, number, measurements=one) for number, one in enumerate(lists)))


def fewer_values_than_names() -> bytes:
    made = Made()
    tiles = []
    for number in range(COUNT):
        floats = made.maker.array("[F", np.zeros(number % 3, dtype=">f4").tobytes())
        parts = [Part(b"\0", [None, made.names(["a", "b"], shared=True)]), Part(b"", [floats])]
        one = made.maker.parts("qupath.lib.measurements.NumericMeasurementList$FloatList", parts)
        tiles.append(tile(made, number, measurements=one))
    return made.data(*tiles)


def classes_of_their_own() -> bytes:
    made = Made()
    classes = [made.own_class(f"class {number}") for number in range(COUNT)]
    return made.data(*(tile(made, number, path_class=one) for number, one in enumerate(classes)))


def below_annotations() -> bytes:
    """At two levels, and one of the annotations carries a mark: it is no tile."""
    made = Made()
    inner = made.path_object(
        1, kind="PathAnnotationObject", children=[tile(made, number, path_class=CLASSES[0]) for number in range(10, 30)]
    )
    below = [tile(made, 50, children=[tile(made, 51)]), *(tile(made, number) for number in range(60, 80)), inner]
    return made.data(made.path_object(2, kind="PathAnnotationObject", metadata=MARK, children=below), tile(made, 90))


def tile(made: Made, number: int, *, metadata: dict[str, str] | None = None, **how: object) -> Object:
    return made.path_object(
        number,
        kind="PathTileObject",
        metadata=MARK if metadata is None else metadata,
        **how,  # type: ignore[arg-type]
    )


IN_COLUMNS: dict[Callable[[], bytes], bool] = {
    as_we_write_them: True,
    of_two_runs: True,
    as_qupath_writes_them: True,
    with_keys_of_their_own: True,
    rectangles_from_any_corner: True,
    without_measurements_or_class: True,
    unmarked_ones_between: True,
    below_annotations: True,
    polygons: False,
    other_keys_in_the_place_of_the_mark: False,
    other_keys_of_their_own: False,
    other_names_of_measurements: False,
    fewer_values_than_names: False,
    classes_of_their_own: False,
}

each_file = pytest.mark.parametrize("make", IN_COLUMNS, ids=lambda make: make.__name__)


def stored(data: bytes, *, find_runs: bool) -> StoredTiles:
    return joined(find_marked(root_of(parsed(data, find_runs=find_runs)[0])))


def same(one: StoredTiles, other: StoredTiles) -> None:
    assert list(one.ids) == list(other.ids)
    assert list(one.class_names) == list(other.class_names)
    assert list(one.run_ids) == list(other.run_ids)
    assert one.bounds.dtype == other.bounds.dtype == np.float64
    assert one.bounds.tolist() == other.bounds.tolist()
    assert list(one.measurements) == list(other.measurements)
    for name, values in one.measurements.items():
        assert values.dtype == np.float32
        assert len(values) == len(one)
        assert np.array_equal(values, other.measurements[name], equal_nan=True)


@each_file
def test_in_columns_they_are_what_they_are_one_by_one(make: Callable[[], bytes]) -> None:
    data = make()
    slow = stored(data, find_runs=False)
    assert len(slow) >= 20
    same(stored(data, find_runs=True), slow)


@each_file
def test_columns_are_used_where_they_can_be(make: Callable[[], bytes]) -> None:
    items, _ = parsed(make())
    found = find_marked(root_of(items))
    longest = max(len(columns.ids) for columns in found)
    assert longest > 7 if IN_COLUMNS[make] else longest == 1
    for columns in found:
        assert len(columns.ids) == len(columns.rows) == len(columns.bounds) == len(columns.marks)
        assert isinstance(columns.holder, Run) or columns.rows.tolist() == [0]


@each_file
def test_where_they_stand(make: Callable[[], bytes]) -> None:
    """Holder and rows lead to the objects that have these ids."""
    items, _ = parsed(make())
    for columns in find_marked(root_of(items)):
        holder = columns.holder
        objects = [holder.object(row) for row in columns.rows.tolist()] if isinstance(holder, Run) else [holder]
        found = [joined(find_marked_alone(one)).ids for one in objects]
        assert [one for ids in found for one in ids[:1]] == columns.ids


def find_marked_alone(node: Object) -> list[Columns]:
    """What is found of an object below a root of its own."""
    items: list[Node] = [None, None, None, None, Block(struct.pack(">i", 1)), node]
    return find_marked(Made().maker.object("qupath.lib.objects.PathRootObject", annotation=items))


def test_what_is_read_is_what_was_written() -> None:
    tiles = new_tiles(1, COUNT, mark="run-1")
    found = stored(as_we_write_them(), find_runs=True)
    order = np.argsort(found.ids)
    wanted = np.argsort(tiles.ids)
    assert [found.ids[row] for row in order] == [tiles.ids[row] for row in wanted]
    assert found.bounds[order].tolist() == tiles.bounds()[wanted].tolist()
    names = tiles.class_names()
    assert [found.class_names[row] for row in order] == [names[row] for row in wanted]
    assert set(names) == {None, "Negative", "HER2: 3+"}
    for column, name in enumerate(tiles.measurement_names):
        assert found.measurements[name][order].tolist() == tiles.measurements[wanted, column].tolist()
    assert set(found.run_ids) == {"run-1"}


def test_a_rectangle_may_be_given_by_any_two_corners() -> None:
    bounds = stored(rectangles_from_any_corner(), find_runs=True).bounds
    assert (bounds[:, :2] < bounds[:, 2:]).all()
    assert bounds[3].tolist() == [3 - 9.123456, 10, 3, 10.7]


def test_marks_of_two_runs() -> None:
    found = stored(of_two_runs(), find_runs=True)
    assert sorted(found.run_ids) == ["run-1"] * 20 + ["run-2"] * 20
    assert all((mark == "run-2") == (one >= id_of(100)) for mark, one in zip(found.run_ids, found.ids, strict=True))


def test_what_is_not_marked_is_not_ours() -> None:
    made = Made()
    data = made.data(
        *(tile(made, number, metadata={}) for number in range(20)),
        *(tile(made, number, metadata={"_other": "x"}) for number in range(20, 40)),
        made.path_object(41, kind="PathAnnotationObject", metadata=MARK),
    )
    for find_runs in (True, False):
        assert find_marked(root_of(parsed(data, find_runs=find_runs)[0])) == []


def test_no_tiles_at_all() -> None:
    none = joined([])
    assert len(none) == 0
    assert none.bounds.shape == (0, 4)
    assert dict(none.measurements) == {}


def test_rows_without_metadata_are_not_ours() -> None:
    """QuPath before 0.4 gave its detections no id."""
    made = Made()
    rows = []
    for _ in range(20):
        items: list[Node] = [None, None, None, None, NO_CHILDREN, made.objects.boolean(False), None]
        items += [made.rectangle(0, 0, 5, 5), Block(bytes(8))]
        rows.append(made.maker.object("qupath.lib.objects.PathTileObject", annotation=items))
    data = made.data(*rows)
    for find_runs in (True, False):
        items_, _ = parsed(data, find_runs=find_runs)
        assert find_marked(root_of(items_)) == []
        if find_runs:
            assert run_lengths(items_)[-1] == 18
            run = children_of(items_)[-1]
            assert isinstance(run, Run)
            assert ids_of(run) == [None] * 18


def test_a_mark_without_an_id_is_an_error() -> None:
    made = Made()
    rows = []
    for _ in range(20):
        keys = [made.maker.text(OWNERSHIP_KEY)]
        values = [made.maker.text("run-1")]
        arrays = [made.maker.array("[Ljava.lang.Object;", items=list(one)) for one in (keys, values)]
        metadata = made.maker.object("qupath.lib.objects.MetadataMap", annotation=[made.maker.integer(1), *arrays])
        items: list[Node] = [None, None, metadata, None, NO_CHILDREN, made.objects.boolean(False)]
        items += [made.objects.path_class(CLASSES[0]), made.rectangle(0, 0, 5, 5), Block(bytes(8))]
        rows.append(made.maker.object("qupath.lib.objects.PathTileObject", annotation=items))
    for find_runs in (True, False):
        with pytest.raises(StreamError, match="without an id"):
            stored(made.data(*rows), find_runs=find_runs)
    with pytest.raises(StreamError, match="without an id"):
        centroids(root_of(parsed(made.data(*rows))[0]), frozenset({"Negative"}))


# --- class names, ids and centroids of runs


@each_file
def test_class_names_and_ids_of_runs(make: Callable[[], bytes]) -> None:
    found = 0
    for run in children_of(parsed(make())[0]):
        if isinstance(run, Run) and may_hold_only_detections(run):
            names, ids = class_names_of(run), ids_of(run)
            alone = [run.select(np.array([row])) for row in range(len(run))]
            taken_apart = [joined(find_marked_alone(one.object(0))) for one in alone]
            for name, id_, one in zip(names, ids, taken_apart, strict=True):
                if len(one):
                    assert (id_, name) == (one.ids[0], one.class_names[0])
                    found += 1
    assert found > 6 or make is below_annotations


def detections(roi: Callable[[Made, int], Node], *, marked: bool = False) -> bytes:
    """Of three classes and none, in turn."""
    made = Made()
    names = (PathClassRef(("1+",)), PathClassRef(("Tumor", "1+")), PathClassRef(("1+", "Other")))
    rows = []
    for number in range(1, 60):
        one = None if number > 55 else names[number % 3]
        metadata = MARK if marked else {}
        rows.append(made.path_object(number, path_class=one, roi=roi(made, number), metadata=metadata))
    return made.data(*rows)


def a_rectangle(made: Made, number: int) -> Node:
    return made.rectangle(number, 20.123456, number - 10.987654, 30)


def a_polygon(made: Made, number: int) -> Node:
    chance = np.random.default_rng(number)
    return made.polygon(chance.uniform(0, 99, (3 + number % 4, 2)).tolist())


def a_small_polygon(made: Made, number: int) -> Node:
    """Some with too few corners."""
    chance = np.random.default_rng(number)
    return made.polygon(chance.uniform(0, 99, (2 + number % 3, 2)).tolist())


def one_or_the_other(made: Made, number: int) -> Node:
    return a_rectangle(made, number) if number % 20 < 10 else a_polygon(made, number)


@pytest.mark.parametrize(
    "roi", [a_rectangle, a_polygon, a_small_polygon, one_or_the_other], ids=lambda roi: roi.__name__
)
def test_centroids_in_columns_are_those_of_each(roi: Callable[[Made, int], Node]) -> None:
    data = detections(roi)
    wanted = frozenset({"1+"})
    fast, slow = (centroids(root_of(parsed(data, find_runs=find_runs)[0]), wanted) for find_runs in (True, False))
    assert fast.tolist() == slow.tolist()
    if roi is not a_small_polygon:
        assert len(fast) == len([number for number in range(1, 56) if number % 3 < 2])
    assert len(centroids(root_of(parsed(data)[0]), frozenset({"3+"}))) == 0


def test_a_rectangles_centroid_is_exact() -> None:
    data = detections(a_rectangle)
    found = centroids(root_of(parsed(data)[0]), frozenset({"Other"}))
    assert found[0].tolist() == [(2 + (2 - 10.987654)) / 2, (20.123456 + 30) / 2]


def test_our_own_tiles_have_no_centroid() -> None:
    for roi in (a_rectangle, a_polygon):
        for find_runs in (True, False):
            items, _ = parsed(detections(roi, marked=True), find_runs=find_runs)
            assert centroids(root_of(items), frozenset({"1+", "Other"})).shape == (0, 2)


def test_centroids_where_each_has_a_class_of_its_own() -> None:
    made = Made()
    classes = [made.own_class(("1+", "2+")[number % 2]) for number in range(COUNT)]
    data = made.data(*(made.path_object(number, path_class=one) for number, one in enumerate(classes)))
    assert run_lengths(parsed(data)[0])[-1] > 30
    for find_runs in (True, False):
        items, _ = parsed(data, find_runs=find_runs)
        assert len(centroids(root_of(items), frozenset({"2+"}))) == COUNT // 2

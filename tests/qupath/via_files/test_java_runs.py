"""The fast path equals the slow one: a stream read with runs is the stream read without, through every edit."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from java_streams import RECORDED
from made_streams import (
    END,
    HEAD,
    Made,
    children_of,
    class_desc,
    parsed,
    reference,
    root_of,
    run_lengths,
    text,
    utf,
    written,
)

from her2bridge.qupath.seam import PathClassRef
from her2bridge.qupath.via_files.java_equal import assert_equal
from her2bridge.qupath.via_files.java_nodes import Block, Keyed, Node, Object, Part, StreamError, Text
from her2bridge.qupath.via_files.java_runs import MAX_ROWS, Run
from her2bridge.qupath.via_files.path_objects import fields_of, with_children

POSITIVE = PathClassRef(("Tumor", "Positive"), (250, 62, 62))
NEGATIVE = PathClassRef(("Negative",), (112, 112, 225))


# --- files of many objects


def equal_rows() -> bytes:
    made = Made()
    return made.data(*(made.path_object(number, path_class=NEGATIVE) for number in range(1, 40)))


def names_of_many_lengths() -> bytes:
    made = Made()
    return made.data(*(made.path_object(number, name="cell " * (number % 7) + str(number)) for number in range(1, 40)))


def polygons_of_many_lengths() -> bytes:
    made, chance = Made(), np.random.default_rng(0)
    polygons = [made.polygon(chance.uniform(0, 100, (3 + number % 5, 2)).tolist()) for number in range(39)]
    return made.data(*(made.path_object(number, roi=roi) for number, roi in enumerate(polygons, start=1)))


def one_list_of_names() -> bytes:
    made = Made()
    lists = [made.measurements({"a": number, "b": 2.0}) for number in range(39)]
    return made.data(*(made.path_object(number, measurements=one) for number, one in enumerate(lists, start=1)))


def lists_of_names_of_their_own() -> bytes:
    made = Made()
    lists = [made.measurements({"a": number, "b": 2.0}, shared=False) for number in range(39)]
    return made.data(*(made.path_object(number, measurements=one) for number, one in enumerate(lists, start=1)))


def two_lists_of_names() -> bytes:
    made = Made()
    lists = [made.measurements({("a", "b")[number % 2]: number}) for number in range(39)]
    return made.data(*(made.path_object(number, measurements=one) for number, one in enumerate(lists, start=1)))


def classes_in_turn() -> bytes:
    made, classes = Made(), (POSITIVE, NEGATIVE, PathClassRef(("Tumor",), None))
    return made.data(*(made.path_object(number, path_class=classes[number % 3]) for number in range(1, 40)))


def a_class_for_each() -> bytes:
    """As in a file whose first tiles are each the first of its class."""
    made = Made()
    classes = [made.own_class(f"class {number}", number) for number in range(12)]
    first = [made.path_object(number, path_class=one) for number, one in enumerate(classes, start=1)]
    rest = [made.path_object(number, path_class=classes[number % 12]) for number in range(13, 40)]
    return made.data(*first, *rest)


def some_without_a_name() -> bytes:
    made = Made()
    names = [None if number // 8 % 2 else f"cell {number}" for number in range(64)]
    return made.data(*(made.path_object(number, name=name) for number, name in enumerate(names, start=1)))


def kinds_in_blocks() -> bytes:
    made = Made()
    kinds = ["PathDetectionObject"] * 10 + ["PathTileObject"] * 10 + ["PathDetectionObject"] * 10
    return made.data(*(made.path_object(number, kind=kind) for number, kind in enumerate(kinds, start=1)))


def annotations_with_tiles() -> bytes:
    """An object whose inner list holds a run stands beside its like."""
    made = Made()
    annotations = []
    for number in range(1, 9):
        tiles = [made.path_object(100 * number + tile, kind="PathTileObject") for tile in range(9)]
        annotations.append(made.path_object(number, kind="PathAnnotationObject", children=tiles))
    return made.data(*annotations)


def annotations_with_one_child() -> bytes:
    made = Made()
    annotations = []
    for number in range(1, 21):
        child = made.path_object(100 + number, kind="PathAnnotationObject", name=f"inner {number}")
        annotations.append(made.path_object(number, kind="PathAnnotationObject", children=[child]))
    return made.data(*annotations)


def many_measurements_of_annotations() -> bytes:
    made = Made()
    lists = [made.objects.measurements(None, {f"m{i}": i / 3 for i in range(12)}, frozenset()) for _ in range(8)]
    return made.data(*(made.path_object(number, measurements=one) for number, one in enumerate(lists, start=1)))


MADE: dict[Callable[[], bytes], list[int]] = {
    equal_rows: [1, 1, 37],
    names_of_many_lengths: [1, 1, 37],
    polygons_of_many_lengths: [1, 1, 37],
    one_list_of_names: [1, 1, 37],
    lists_of_names_of_their_own: [1, 1, 37],
    two_lists_of_names: [1, 1, 1, 36],
    classes_in_turn: [1, 1, 1, 1, 1, 34],
    a_class_for_each: [1, 1, 10, 1, 26],
    some_without_a_name: [1, 1, 6, 1, 7, 8, 8, 8, 8, 8, 8],
    kinds_in_blocks: [1, 1, 8, 1, 1, 8, 1, 9],
    annotations_with_tiles: [1] * 8,
    annotations_with_one_child: [1, 1, 18],
    many_measurements_of_annotations: [1, 1, 6],
}
"""Files, and the lengths of the runs found in them; the first of a class and of a form stand by themselves."""

each_file = pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)


def flat(children: Sequence[Node]) -> list[Object]:
    """Objects, those of runs taken apart."""
    objects: list[Object] = []
    for child in children:
        objects += child.objects() if isinstance(child, Run) else [child]  # type: ignore[list-item]
    return objects


# --- reading


@each_file
def test_runs_are_found(make: Callable[[], bytes]) -> None:
    items, _ = parsed(make())
    assert run_lengths(items) == MADE[make]
    assert not any(isinstance(node, Run) for node in parsed(make(), find_runs=False)[1])


@each_file
def test_read_with_runs_is_read_without(make: Callable[[], bytes]) -> None:
    data = make()
    fast, fast_nodes = parsed(data)
    slow, slow_nodes = parsed(data, find_runs=False)
    assert len(fast_nodes) == len(slow_nodes)
    assert written(fast, fast_nodes) == data
    assert written(slow, slow_nodes) == data
    assert_equal(parsed(data)[0], parsed(data)[0], len(fast_nodes))
    assert_equal(fast, slow, len(fast_nodes))
    assert_equal(slow, parsed(data)[0], len(slow_nodes))
    objects = flat(children_of(fast))  # taken apart, they are what the slow path read
    assert [one.key for one in objects] == [one.key for one in flat(children_of(slow))]
    assert written(fast, fast_nodes) == data


@each_file
def test_every_node_of_a_run_is_found_by_its_key(make: Callable[[], bytes]) -> None:
    _, slow = parsed(make(), find_runs=False)
    keys = list(range(len(slow)))
    random.Random(0).shuffle(keys)
    _, fast = parsed(make())
    for key in keys:
        node = fast[key]
        found = node.node(key) if isinstance(node, Run) else node
        assert found.key == key
        assert type(found) is type(slow[key])
        assert not isinstance(found, Text) or str(found) == str(slow[key])


def test_an_object_of_a_run_is_the_same_one_each_time() -> None:
    items, _ = parsed(equal_rows())
    run = children_of(items)[-1]
    assert isinstance(run, Run)
    assert run.object(5) is run.object(5) is list(run.objects())[5]
    assert run.select(np.array([5])).object(0) is run.object(5)


def test_rows_that_java_wrote() -> None:
    data = bytes.fromhex(RECORDED["rows"])
    (rows, again), nodes = parsed(data)
    assert isinstance(rows, Object)
    notes = rows.parts[0].annotation
    assert notes is not None
    assert [len(one) for one in notes if isinstance(one, Run)] == [10]
    objects = flat([one for one in notes if not isinstance(one, Block)])
    assert [str(one.field("name")) for one in objects] == [f"row {i * i}" for i in range(12)]
    assert again is objects[7]
    assert len({id(one.field("shared")) for one in objects}) == 1
    assert written([rows, again], nodes) == data


def test_a_run_is_found_after_many_objects_that_are_each_of_another_form() -> None:
    made = Made()
    mixed = [
        made.path_object(number, measurements=made.measurements({f"m{i}": i for i in range(number)}, shared=False))
        for number in range(1, 80)
    ]
    equal = [made.path_object(number, kind="PathTileObject") for number in range(100, 500)]
    items, nodes = parsed(made.data(*mixed, *equal))
    assert max(run_lengths(items)) > 100
    assert written(items, nodes) == made.data(*mixed, *equal)


def test_a_run_longer_than_what_is_handled_at_once() -> None:
    made = Made()
    count = MAX_ROWS + 3000
    data = made.data(*(made.path_object(number, name="n" * (number % 5000 == 0)) for number in range(1, count + 1)))
    items, nodes = parsed(data)
    assert run_lengths(items) == [1, 1, count - 2]
    assert written(items, nodes) == data
    run = children_of(items)[-1]
    assert isinstance(run, Run)
    assert fields_of(run.object(MAX_ROWS + 7)).name is not None
    assert_equal(items, parsed(data)[0], len(nodes))


# --- references within rows


def rows_of(fields: bytes, rows: Sequence[bytes]) -> bytes:
    """A list object (class handle 0, itself 1) of objects of a class A (handle 2), in one stream."""
    first, rest = rows[0], rows[1:]
    head = HEAD + b"\x73" + class_desc("List", flags=3) + b"\x73" + class_desc("A", fields) + first
    return head + b"".join(b"\x73" + reference(2) + row for row in rest) + END


ONE_TEXT = b"\x00\x01L" + utf("t") + text("Ljava/lang/String;")  # the signature takes handle 3, the first object 4
TWO = b"\x00\x02L" + utf("t") + text("LT;") + b"L" + utf("u") + reference(3)


def list_items(data: bytes, *, find_runs: bool = True) -> list[Node]:
    (one,), nodes = parsed(data, find_runs=find_runs)
    assert isinstance(one, Object)
    assert written([one], nodes) == data
    notes = one.parts[0].annotation
    assert notes is not None
    return notes


def test_rows_may_refer_to_what_they_hold_themselves() -> None:
    """Row n is object 4 + 2n with text 5 + 2n, and refers to both itself and that text's twin."""
    data = rows_of(TWO, [text(f"row {n}") + reference(5 + 2 * n) for n in range(12)])
    assert [len(one) if isinstance(one, Run) else 1 for one in list_items(data)] == [1, 1, 10]
    assert_equal(parsed(data)[0], parsed(data, find_runs=False)[0], 28)
    itself = rows_of(TWO, [text(f"row {n}") + reference(4 + 2 * n) for n in range(12)])
    assert [len(one) if isinstance(one, Run) else 1 for one in list_items(itself)] == [1, 1, 10]


def test_rows_that_refer_to_each_other_are_no_run() -> None:
    """Else the last could only be read through all before it."""
    count = 3000
    rows = [text("row") + reference(4 + 2 * max(n - 1, 0)) for n in range(count)]
    found = list_items(rows_of(TWO, rows))
    assert not any(isinstance(one, Run) for one in found)
    last = found[-1]
    assert isinstance(last, Object)
    assert last.field("u") is found[-2]


def test_a_run_ends_where_rows_begin_to_refer_to_each_other() -> None:
    rows = [text("row") + reference(4)] * 12 + [text("row") + reference(4 + 2 * 11)] * 12
    found = list_items(rows_of(TWO, rows))
    assert [len(one) if isinstance(one, Run) else 1 for one in found] == [1, 1, 10, 12]


@pytest.mark.parametrize("target", [5 + 2 * 7, 5 + 2 * 8, 4 + 2 * 30, -1, -0x7E0000, 1 << 24])
def test_a_row_that_refers_to_nothing_is_an_error_as_in_the_slow_path(target: int) -> None:
    """Row 7 before its own text is read; later rows; no key at all."""
    rows = [reference(3) + text("row")] * 12
    rows[7] = b"\x71" + struct.pack(">I", (0x7E0000 + target) & 0xFFFFFFFF) + text("row")
    for find_runs in (True, False):
        with pytest.raises(StreamError, match="reference to nothing"):
            parsed(rows_of(TWO, rows), find_runs=find_runs)


def test_runs_that_refer_to_runs_over_and_over() -> None:
    """Each row refers to the eight before: to read one, all before it may have to be looked into, but for some."""
    rows = [text(str(number)) + reference(4 + 2 * max(8 * (number // 8 - 1), 0)) for number in range(8 * 400)]
    data = rows_of(TWO, rows)
    found = list_items(data)
    runs = [one for one in found if isinstance(one, Run)]
    assert len(runs) > 20
    assert max(run.depth for run in runs) == 10
    names = [str(one.field("t")) for one in flat(found[::-1])]
    assert sorted(names, key=int) == [str(number) for number in range(8 * 400)]
    assert_equal(parsed(data)[0], parsed(data, find_runs=False)[0], 4 + 2 * len(rows))


@pytest.mark.parametrize("size", [0x7FFF, 0x8000, 0xFFFF])
def test_a_text_longer_than_the_file_is_no_row(size: int) -> None:
    rows = [text("row")] * 12
    rows[9] = b"\x74" + struct.pack(">H", size) + b"abc"
    for find_runs in (True, False):
        with pytest.raises(StreamError, match="cut short"):
            parsed(rows_of(ONE_TEXT, rows), find_runs=find_runs)


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_an_array_longer_than_the_file_is_no_row(size: int) -> None:
    fields = b"\x00\x01[" + utf("t") + text("[D")
    array = b"\x75" + class_desc("[D") + struct.pack(">I", 1) + bytes(8)
    rows = [array] + [b"\x75" + reference(5) + struct.pack(">I", 1) + bytes(8)] * 11
    assert [len(one) if isinstance(one, Run) else 1 for one in list_items(rows_of(fields, rows))] == [1, 1, 10]
    rows[9] = b"\x75" + reference(5) + struct.pack(">I", size) + bytes(8)
    for find_runs in (True, False):
        with pytest.raises(StreamError, match="cut short"):
            parsed(rows_of(fields, rows), find_runs=find_runs)


def test_arrays_of_arrays_that_rows_refer_to() -> None:
    """An array of objects has no width of its own."""
    fields = b"\x00\x02[" + utf("a") + text("[[F") + b"L" + utf("t") + text("LT;")
    first = b"\x75" + class_desc("[[F") + struct.pack(">I", 0) + text("row")
    rows = [first] + [reference(7) + text("row")] * 11
    assert [len(one) if isinstance(one, Run) else 1 for one in list_items(rows_of(fields, rows))] == [1, 1, 10]


def test_enums_within_rows_keep_their_names() -> None:
    """In a row of its own an enum's name may only be what the model's is: Java has each constant once."""
    fields = b"\x00\x01L" + utf("e") + text("LE;")
    first = b"\x7e" + class_desc("E", flags=18) + text("ONE")  # class 5, enum 6, name 7
    rows = [first] + [b"\x7e" + reference(5) + reference(7)] * 11
    assert [len(one) if isinstance(one, Run) else 1 for one in list_items(rows_of(fields, rows))] == [1, 1, 10]
    rows[8] = b"\x7e" + reference(5) + reference(0)
    for find_runs in (True, False):
        with pytest.raises(StreamError, match="enum without a name"):
            parsed(rows_of(fields, rows), find_runs=find_runs)


@each_file
def test_damage_is_the_same_with_and_without_runs(make: Callable[[], bytes]) -> None:
    data = make()
    chance = random.Random(len(data))
    for _ in range(120):
        damaged = bytearray(data)
        at = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            damaged[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            damaged[at : at + 4] = b"\x00\x7e\x00" + bytes((chance.randrange(256),))
        elif kind == 2:
            del damaged[at : at + chance.choice([1, 30])]
        else:
            del damaged[at:]
        results = []
        for find_runs in (True, False):
            try:
                items, nodes = parsed(bytes(damaged), find_runs=find_runs)
            except StreamError:
                results.append(None)
            else:
                results.append(written(items, nodes))
        assert results[0] == results[1]


# --- edits


def without(children: Sequence[Node], gone: set[int]) -> list[Node]:
    """The children without the objects of these places; runs stay runs."""
    left: list[Node] = []
    place = 0
    for child in children:
        count = len(child) if isinstance(child, Run) else 1
        rows = [row for row in range(count) if place + row not in gone]
        if isinstance(child, Run):
            left.append(child.select(np.array(rows, dtype=np.int64)))
        elif rows:
            left.append(child)
        place += count
    return left


def edited_bytes(data: bytes, find_runs: bool, edit: Callable[[Object], dict[int, Keyed]]) -> bytes:
    """The stream with what ``edit`` makes of its root."""
    items, nodes = parsed(data, find_runs=find_runs)
    return written(items, nodes, edit(root_of(items)))


def same_both_ways(data: bytes, edit: Callable[[Object], dict[int, Keyed]]) -> bytes:
    """The edit gives the same bytes with and without runs, a stream that equals the edited graph; these bytes."""
    fast = edited_bytes(data, True, edit)
    assert fast == edited_bytes(data, False, edit)
    for find_runs in (True, False):
        for again in (True, False):
            items, nodes = parsed(data, find_runs=find_runs)
            assert_equal(items, parsed(fast, find_runs=again)[0], len(nodes), edit(root_of(items)))
    return fast


@each_file
@pytest.mark.parametrize("seed", range(4))
def test_objects_are_taken_out(make: Callable[[], bytes], seed: int) -> None:
    """What the others need of those that go is defined where it is needed first."""
    data = make()
    count = sum(MADE[make])
    gone = set(random.Random(seed).sample(range(count), (1, 3, count // 2, count - 1)[seed])) | {0}

    def edit(root: Object) -> dict[int, Keyed]:
        return {root.key: with_children(root, without(fields_of(root).children, gone), None)}

    left = parsed(same_both_ways(data, edit), find_runs=False)[0]
    ids = [_id(child) for child in flat(children_of(parsed(data, find_runs=False)[0]))]
    assert [_id(child) for child in flat(children_of(left))] == [
        one for place, one in enumerate(ids) if place not in gone
    ]


def _id(node: Object) -> str:
    metadata = fields_of(node).metadata
    assert isinstance(metadata, Object)
    assert metadata.parts[0].annotation is not None
    return str(metadata.parts[0].annotation[2].items[-1])  # type: ignore[union-attr, index]


def test_all_are_taken_out_of_all_runs() -> None:
    def edit(root: Object) -> dict[int, Keyed]:
        return {root.key: with_children(root, without(fields_of(root).children, set(range(64))), None)}

    assert children_of(parsed(same_both_ways(some_without_a_name(), edit))[0]) == []


def test_what_the_first_of_a_class_defined_is_defined_by_the_next() -> None:
    def edit(root: Object) -> dict[int, Keyed]:
        return {root.key: with_children(root, without(fields_of(root).children, {0, 1, 2, 5, 13}), None)}

    first = flat(children_of(parsed(same_both_ways(a_class_for_each(), edit))[0]))
    names = [fields_of(one).path_class.field("name") for one in first[:10]]  # type: ignore[union-attr]
    assert [str(name) for name in names] == [f"class {number}" for number in (3, 4, 6, 7, 8, 9, 10, 11, 1, 3)]


@each_file
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_objects_change_places(make: Callable[[], bytes], share: float) -> None:
    """What comes first now refers to parts of what comes later."""
    data = make()
    count = sum(MADE[make])
    first = set(range(round(share * count)))

    def edit(root: Object) -> dict[int, Keyed]:
        before = fields_of(root).children
        children = [*without(before, first), *without(before, set(range(count)) - first)]
        return {root.key: with_children(root, children, None)}

    same_both_ways(data, edit)


def test_something_new_before_a_run_refers_to_a_part_of_it() -> None:
    """The part is defined there, and the run's object refers to it."""

    def edit(root: Object) -> dict[int, Keyed]:
        children = list(fields_of(root).children)
        one = flat(children)[4]
        metadata = fields_of(one).metadata
        top = with_children(root, children, metadata)  # in the place of the root's measurements
        return {root.key: top}

    same_both_ways(equal_rows(), edit)


@each_file
@pytest.mark.parametrize("places", [[2], [3, 4, 7], [7]])
def test_edited_objects_of_a_run(make: Callable[[], bytes], places: list[int]) -> None:
    def edit(root: Object) -> dict[int, Keyed]:
        objects = flat(fields_of(root).children)
        return {objects[place].key: _certain(objects[place]) for place in places}

    found = flat(children_of(parsed(same_both_ways(make(), edit))[0]))
    assert [place for place, one in enumerate(found) if _probability(one) == 1] == places


@pytest.mark.parametrize("places", [[0], [2, 5], [19]])
def test_edited_parts_of_a_runs_objects(places: list[int]) -> None:
    def edit(root: Object) -> dict[int, Keyed]:
        inner = [flat(fields_of(one).children)[0] for one in flat(fields_of(root).children)]
        return {inner[place].key: _certain(inner[place]) for place in places}

    found = flat(children_of(parsed(same_both_ways(annotations_with_one_child(), edit))[0]))
    inner = [flat(fields_of(one).children)[0] for one in found]
    assert [place for place, one in enumerate(inner) if _probability(one) == 1] == places


def test_edited_objects_that_are_also_taken_out() -> None:
    def edit(root: Object) -> dict[int, Keyed]:
        children = fields_of(root).children
        objects = flat(children)
        gone = {4, 5, 30}
        edited: dict[int, Keyed] = {objects[place].key: _certain(objects[place]) for place in (5, 6)}
        return edited | {root.key: with_children(root, without(children, gone), None)}

    found = flat(children_of(parsed(same_both_ways(equal_rows(), edit))[0]))
    assert [place for place, one in enumerate(found) if _probability(one) == 1] == [4]


def _certain(node: Object) -> Object:
    """The same with a class probability of 1."""
    notes = node.parts[0].annotation
    assert notes is not None
    return Object(node.key, node.desc, [Part(annotation=[*notes[:-1], Block(struct.pack(">d", 1.0))])])


def _probability(node: Object) -> float:
    block = fields_of(node).after[-1]
    assert isinstance(block, Block)
    return float(struct.unpack(">d", block.data)[0])

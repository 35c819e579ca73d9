"""Whatever differs between two graphs is found; what only has other handles, or stands in runs, is no difference."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import FIXTURES
from java_streams import RECORDED
from made_streams import (
    END,
    HEAD,
    NULL,
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

from her2bridge.qupath.via_files.java_equal import assert_equal
from her2bridge.qupath.via_files.java_nodes import (
    Array,
    Block,
    ClassDesc,
    ClassObject,
    Enum,
    Node,
    Object,
    StreamError,
    Text,
)
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.path_objects import fields_of, with_children

FILES = sorted(FIXTURES.rglob("data.qpdata"))
LARGEST = FIXTURES / "qupath_objects" / "qupath_0_7_0" / "data" / "1" / "data.qpdata"


def compare(ours: bytes, theirs: bytes) -> None:
    """All four ways: either side with and without runs."""
    for find_runs in (True, False):
        for its_runs in (True, False):
            items, nodes = parsed(ours, find_runs=find_runs)
            assert_equal(items, parsed(theirs, find_runs=its_runs)[0], len(nodes))


def differ(ours: bytes, theirs: bytes) -> None:
    """Neither equals the other, with or without runs."""
    for one, other in ((ours, theirs), (theirs, ours)):
        for find_runs in (True, False):
            for its_runs in (True, False):
                items, nodes = parsed(one, find_runs=find_runs)
                with pytest.raises(StreamError):
                    assert_equal(items, parsed(other, find_runs=its_runs)[0], len(nodes))


@pytest.mark.parametrize("path", FILES, ids=lambda path: "-".join(path.relative_to(FIXTURES).parts[:-1]))
def test_a_file_equals_itself(path: Path) -> None:
    compare(path.read_bytes(), path.read_bytes())


@pytest.mark.parametrize("name", RECORDED)
def test_what_java_wrote_equals_itself(name: str) -> None:
    compare(bytes.fromhex(RECORDED[name]), bytes.fromhex(RECORDED[name]))


# --- streams that differ in one thing

OBJECT = b"\x73" + class_desc("A", b"\x00\x02I" + utf("n") + b"L" + utf("s") + text("LS;"))  # handles: class 0, "LS;" 1
CUSTOM = b"\x73" + class_desc("B", flags=3)
ENUM = b"\x7e" + class_desc("E", flags=18)
PROXY = b"\x73\x7d\x00\x00\x00\x01"


def int_of(value: int) -> bytes:
    return struct.pack(">i", value)


PAIRS = {
    "text": (text("one"), text("two")),
    "text or null": (text("one"), NULL),
    "text or another node": (text("one"), b"\x76" + class_desc("A")),
    "long text": (
        b"\x7c" + struct.pack(">Q", 70_000) + b"a" * 70_000,
        b"\x7c" + struct.pack(">Q", 70_000) + b"b" * 70_000,
    ),
    "raw data": (b"\x77\x02ab", b"\x77\x02ac"),
    "more raw data": (b"\x77\x02ab", b"\x77\x03abc"),
    "more items": (text("one"), text("one") + text("two")),
    "primitives": (OBJECT + int_of(1) + NULL, OBJECT + int_of(2) + NULL),
    "object field": (OBJECT + int_of(1) + NULL, OBJECT + int_of(1) + text("s")),
    "reference to another": (
        text("a") + text("a") + reference(0),
        text("a") + text("a") + reference(1),
    ),
    "one twice or two": (text("a") + reference(0), text("a") + text("a")),
    "itself or its like": (
        OBJECT + int_of(1) + b"\x73" + reference(0) + int_of(1) + NULL + reference(2),
        OBJECT + int_of(1) + b"\x73" + reference(0) + int_of(1) + NULL + reference(3),
    ),
    "array of primitives": (
        b"\x75" + class_desc("[I") + int_of(1) + int_of(5),
        b"\x75" + class_desc("[I") + int_of(1) + int_of(6),
    ),
    "longer array of primitives": (
        b"\x75" + class_desc("[I") + int_of(1) + int_of(5),
        b"\x75" + class_desc("[I") + int_of(2) + int_of(5) + int_of(0),
    ),
    "item of an array": (
        b"\x75" + class_desc("[L;") + int_of(2) + text("a") + NULL,
        b"\x75" + class_desc("[L;") + int_of(2) + text("b") + NULL,
    ),
    "order of an array": (
        b"\x75" + class_desc("[L;") + int_of(2) + text("a") + NULL,
        b"\x75" + class_desc("[L;") + int_of(2) + NULL + text("a"),
    ),
    "longer array": (
        b"\x75" + class_desc("[L;") + int_of(1) + NULL,
        b"\x75" + class_desc("[L;") + int_of(2) + NULL + NULL,
    ),
    "class of an array": (b"\x75" + class_desc("[I") + int_of(0), b"\x75" + class_desc("[F") + int_of(0)),
    "enum's name": (ENUM + text("ONE"), ENUM + text("TWO")),
    "enum's class": (ENUM + text("ONE"), b"\x7e" + class_desc("F", flags=18) + text("ONE")),
    "class object": (b"\x76" + class_desc("A"), b"\x76" + class_desc("B")),
    "class object of none": (b"\x76" + class_desc("A"), b"\x76" + NULL),
    "what a class wrote": (CUSTOM + text("a") + END, CUSTOM + text("b") + END),
    "more that a class wrote": (CUSTOM + text("a") + END, CUSTOM + text("a") + NULL + END),
    "less that a class wrote": (CUSTOM + text("a") + END, CUSTOM + END),
    "name of a class": (class_desc("A"), class_desc("B")),
    "flags of a class": (class_desc("A", flags=2), class_desc("A", flags=3)),
    "version of a class": (class_desc("A"), class_desc("A").replace(bytes(7) + b"\x01", bytes(7) + b"\x02")),
    "fields of a class": (class_desc("A"), class_desc("A", b"\x00\x01I" + utf("n"))),
    "name of a field": (class_desc("A", b"\x00\x01I" + utf("n")), class_desc("A", b"\x00\x01I" + utf("m"))),
    "type of a field": (class_desc("A", b"\x00\x01I" + utf("n")), class_desc("A", b"\x00\x01F" + utf("n"))),
    "signature of a field": (
        class_desc("A", b"\x00\x01L" + utf("n") + text("LB;")),
        class_desc("A", b"\x00\x01L" + utf("n") + text("LC;")),
    ),
    "notes of a class": (class_desc("A"), class_desc("A", notes=text("note"))),
    "parent of a class": (class_desc("A"), class_desc("A", parent=class_desc("P"))),
    "another parent": (class_desc("A", parent=class_desc("Q")), class_desc("A", parent=class_desc("P"))),
    "interfaces of a proxy": (PROXY + utf("I") + END + NULL, PROXY + utf("J") + END + NULL),
    "a proxy or a class": (PROXY[1:] + utf("I") + END + NULL, class_desc("I")),
    "parts of an object": (
        b"\x73" + class_desc("A", flags=12) + NULL + END,
        b"\x73" + class_desc("A", flags=3, parent=class_desc("P", flags=3)) + NULL + END + END,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_differs_is_found(name: str) -> None:
    one, other = PAIRS[name]
    differ(HEAD + one, HEAD + other)
    for stream in (one, other):
        compare(HEAD + stream, HEAD + stream)


def test_the_message_says_what_differs() -> None:
    items, nodes = parsed(HEAD + OBJECT + int_of(1) + NULL)
    with pytest.raises(StreamError, match="A differs"):
        assert_equal(items, parsed(HEAD + OBJECT + int_of(2) + NULL)[0], len(nodes))


def test_other_handles_are_no_difference() -> None:
    """An object is left out of one file; the other never had it."""
    made, other = Made(), Made()
    ours = made.data(*(made.path_object(number) for number in (1, 2, 3)))
    theirs = other.data(*(other.path_object(number) for number in (2, 3)))
    items, nodes = parsed(ours)
    root = root_of(items)
    edited = {root.key: with_children(root, fields_of(root).children[1:], None)}
    assert_equal(items, parsed(theirs)[0], len(nodes), dict(edited))
    with pytest.raises(StreamError):
        assert_equal(items, parsed(theirs)[0], len(nodes))


def test_long_and_short_blocks_say_the_same() -> None:
    compare(HEAD + b"\x77\x02ab", HEAD + b"\x7a\x00\x00\x00\x02ab")


# --- one node at a time of a real file


def change_text(node: Text) -> None:
    node.raw += b"!"


def change_desc(node: ClassDesc) -> None:
    node.name += "!"


def change_object(node: Object) -> None:
    for part in node.parts:
        if part.primitives:
            part.primitives = bytes((part.primitives[0] ^ 1,)) + part.primitives[1:]
        elif part.annotation:
            part.annotation.pop()
        elif part.objects:
            part.objects = [Block(b"?"), *part.objects[1:]]


def change_array(node: Array) -> None:
    if node.items is None:
        node.raw = node.raw[:-1] + bytes((node.raw[-1] ^ 1,))
    else:
        node.items.pop()


def change_enum(node: Enum) -> None:
    node.constant = Text(node.key, b"ANOTHER")


def change_class(node: ClassObject) -> None:
    node.desc = None


CHANGES: dict[type, Callable[..., None]] = {
    Text: change_text,
    ClassDesc: change_desc,
    Object: change_object,
    Array: change_array,
    Enum: change_enum,
    ClassObject: change_class,
}


def test_each_node_of_a_real_file_counts() -> None:
    data = LARGEST.read_bytes()
    ours, nodes = parsed(data)
    kinds = set()
    for key in range(len(nodes)):
        items, theirs = parsed(data)
        node = theirs[key]
        assert not isinstance(node, Run)
        kinds.add(type(node))
        CHANGES[type(node)](node)
        with pytest.raises(StreamError):
            assert_equal(ours, items, len(nodes))
    assert kinds == {Text, ClassDesc, Object, Array, Enum}


# --- runs


def rows(change: Callable[[Made, list[Node]], None] | None = None, count: int = 30) -> bytes:
    made = Made()
    lists = [made.measurements({"a": number, "b": 1.0}) for number in range(count)]
    objects: list[Node] = [
        made.path_object(number, name=f"cell {number}", measurements=one) for number, one in enumerate(lists)
    ]
    if change:
        change(made, objects)
    return made.data(*objects)


def with_another(
    place: int, values: Mapping[str, float] | None = None, **what: str
) -> Callable[[Made, list[Node]], None]:
    """One object in the place of another, which differs in what is given."""

    def change(made: Made, objects: list[Node]) -> None:
        measurements = made.measurements(values or {"a": place, "b": 1.0})
        how = {"name": f"cell {place}", **what}
        objects[place] = made.path_object(place, measurements=measurements, **how)  # type: ignore[arg-type]

    return change


CHANGED = {
    "name": with_another(17, name="cell 71"),
    "name of another length": with_another(17, name="cell"),
    "measurement": with_another(17, values={"a": 17.5, "b": 1.0}),
    "names of measurements": with_another(17, values={"b": 17, "a": 1.0}),
    "more measurements": with_another(17, values={"a": 17, "b": 1.0, "c": 2.0}),
    "kind": with_another(17, kind="PathTileObject"),
    "last one": with_another(29, name="cell 30"),
    "one less": lambda made, objects: objects.__delitem__(17),
    "one more": lambda made, objects: objects.append(made.path_object(40)),
    "order": lambda made, objects: objects.__setitem__(slice(10, 12), objects[10:12][::-1]),
}


def test_rows_are_a_run() -> None:
    assert run_lengths(parsed(rows())[0]) == [1, 1, 28]
    compare(rows(), rows())


@pytest.mark.parametrize("name", CHANGED)
def test_what_differs_within_runs_is_found(name: str) -> None:
    differ(rows(), rows(CHANGED[name]))


def classed(numbers: list[int], count: int = 3) -> bytes:
    """Objects of these classes, each class a node of its own, all of the same name."""
    made = Made()
    classes = [made.own_class("same") for _ in range(count)]
    first = [made.path_object(100 + number, path_class=one) for number, one in enumerate(classes)]
    return made.data(*first, *(made.path_object(n, path_class=classes[c]) for n, c in enumerate(numbers)))


def test_a_reference_in_a_run_that_leads_to_the_likeness_of_what_it_should() -> None:
    numbers = [number % 3 for number in range(30)]
    assert run_lengths(parsed(classed(numbers))[0])[-1] > 20
    compare(classed(numbers), classed(numbers))
    differ(classed(numbers), classed([*numbers[:20], 2 - numbers[20], *numbers[21:]]))
    differ(classed([0] * 30), classed([1] * 30))


def test_what_rows_share_or_have_each() -> None:
    def own(shared: bool) -> bytes:
        made = Made()
        lists = [made.measurements({"a": 1.0}, shared=shared) for _ in range(20)]
        return made.data(*(made.path_object(number, measurements=one) for number, one in enumerate(lists)))

    differ(own(True), own(False))


def test_a_part_of_a_row_that_something_before_it_refers_to() -> None:
    """The root is given the name of a row's object, in one file the node itself, in the other its likeness."""
    items, nodes = parsed(rows())
    root = root_of(items)
    run = children_of(items)[-1]
    assert isinstance(run, Run)
    name = fields_of(run.object(9)).name
    assert isinstance(name, Text)
    likeness = Text(len(nodes), name.raw)
    same, other = ({root.key: with_children(root, fields_of(root).children, one)} for one in (name, likeness))
    shared, apart = written(items, nodes, same), written(items, [*nodes, likeness], other)
    differ(shared, apart)
    for find_runs in (True, False):
        assert_equal(items, parsed(shared, find_runs=find_runs)[0], len(nodes), same)
        assert_equal(items, parsed(apart, find_runs=find_runs)[0], len(nodes) + 1, other)
        with pytest.raises(StreamError):
            assert_equal(items, parsed(apart, find_runs=find_runs)[0], len(nodes), same)
        with pytest.raises(StreamError):
            assert_equal(items, parsed(shared, find_runs=find_runs)[0], len(nodes) + 1, other)


def test_edited_objects_of_a_run_count_as_edited() -> None:
    """Also where the edit leaves the object in the run's form."""
    ours, theirs = rows(), rows(with_another(17, values={"a": 17.5, "b": 1.0}))
    items, nodes = parsed(ours)
    run = children_of(items)[-1]
    assert isinstance(run, Run)
    measurements = fields_of(run.object(15)).measurements
    assert isinstance(measurements, Object)
    values = measurements.field("values")
    assert isinstance(values, Array)
    edited = Array(values.key, values.desc, np.array([17.5, 1.0], dtype=">f4").tobytes())
    for find_runs in (True, False):
        assert_equal(items, parsed(theirs, find_runs=find_runs)[0], len(nodes), {values.key: edited})
    with pytest.raises(StreamError):
        assert_equal(items, parsed(ours)[0], len(nodes), {values.key: edited})
    assert written(items, nodes, {values.key: edited}) == theirs


def test_runs_that_are_empty_are_nothing() -> None:
    items, nodes = parsed(rows())
    root = root_of(items)
    first, second, run = fields_of(root).children
    assert isinstance(run, Run)
    none = run.select(np.array([], dtype=np.int64))
    children = [none] * 2000 + [first, none, second] + [none] * 2000 + [run]
    assert_equal(items, parsed(rows())[0], len(nodes), {root.key: with_children(root, children, None)})
    assert written(items, nodes, {root.key: with_children(root, children, None)}) == rows()

"""A stream that can be read and whose objects are not as QuPath writes them: a StreamError, and no other exception."""

from __future__ import annotations

import random
import struct

import pytest
from conftest import FIXTURES
from made_streams import Made, parsed, root_of

from her2bridge.qupath.seam import PathObject
from her2bridge.qupath.via_files.java_nodes import Block, Node, Object, Part, StreamError
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.path_objects import (
    class_ref,
    fields_of,
    list_items,
    measurements_of,
    read_object,
    rgb_of,
    strings,
    walk,
)
from her2bridge.qupath.via_files.stored_tiles import centroids, find_marked, joined

LARGEST = FIXTURES / "qupath_objects" / "qupath_0_7_0" / "data" / "1" / "data.qpdata"
LIST = "java.util.ArrayList"


def every_record(data: bytes) -> list[PathObject]:
    found = []
    for item, parent in walk(root_of(parsed(data)[0])):
        found += [read_object(one, parent) for one in (item.objects() if isinstance(item, Run) else (item,))]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_damage_within_objects(seed: int) -> None:
    """Bytes of the hierarchy are exchanged; most of these streams cannot be read at all."""
    data = LARGEST.read_bytes()
    first = data.index(b"PathRootObject")
    chance = random.Random(seed)
    read, refused = 0, 0
    for _ in range(300):
        damaged = bytearray(data)
        at = chance.randrange(first, len(data))
        if chance.random() < 0.5:
            damaged[at] ^= 1 << chance.randrange(8)
        else:
            damaged[at : at + 4] = b"\x00\x7e\x00" + bytes((chance.randrange(240),))
        try:
            root = root_of(parsed(bytes(damaged))[0])
        except (StreamError, AssertionError):
            continue
        read += 1
        for look in (
            lambda: every_record(bytes(damaged)),  # noqa: B023
            lambda: joined(find_marked(root)),  # noqa: B023
            lambda: centroids(root, frozenset({"3+", "1+", "Positive"})),  # noqa: B023
        ):
            try:
                look()
            except StreamError:
                refused += 1
    assert read > 50
    assert refused > 5


def remade(**changed: Node) -> Object:
    """A detection with other nodes in the places of its own."""
    made = Made()
    node = made.path_object(1, name="cell", measurements=made.measurements({"a": 1.0}))
    places = ("name", "colour", "metadata", "measurements", "count", "locked", "path_class", "roi", "probability")
    items = list(node.parts[0].annotation or ())
    for name, value in changed.items():
        items[places.index(name)] = value
    return made.maker.object(node.name, annotation=items)


def thing(name: str = LIST, primitives: bytes = b"\0\0\0\0", notes: list[Node] | None = None) -> Object:
    return Made().maker.object(name, primitives, [], notes)


MAP = "qupath.lib.objects.MetadataMap"
BAD = {
    "metadata that is null": {"metadata": None},
    "metadata that is no object": {"metadata": Block(b"?")},
    "metadata without arrays": {"metadata": thing(MAP, b"", [])},
    "a colour that is no Integer": {"colour": thing()},
    "a colour that is raw data": {"colour": Block(b"?")},
    "measurements that are raw data": {"measurements": Block(b"?")},
    "measurements of another class": {"measurements": thing()},
    "a class of another class": {"path_class": thing()},
    "a class that is raw data": {"path_class": Block(b"?")},
    "a ROI of another class": {"roi": thing()},
    "children that are not there": {"count": Block(struct.pack(">i", 3))},
    "a number of children below zero": {"count": Block(struct.pack(">i", -1))},
    "a number of children of another width": {"count": Block(b"\0")},
    "no number of children": {"count": None},
}


@pytest.mark.parametrize("name", BAD)
def test_an_object_that_is_not_as_it_should_be(name: str) -> None:
    assert read_object(remade(), None).name == "cell"
    with pytest.raises(StreamError):
        read_object(remade(**BAD[name]), None)


def test_what_is_no_path_object() -> None:
    for node in (thing(), thing(MAP, b"", []), thing("qupath.lib.objects.PathTileObject", b"", [None, None])):
        with pytest.raises(StreamError):
            fields_of(node)


def test_arrays_of_metadata_of_different_length() -> None:
    maker = Made().maker
    arrays = [maker.array("[Ljava.lang.Object;", items=[maker.text("a")] * count) for count in (1, 2)]
    with pytest.raises(StreamError, match="metadata of an unknown layout"):
        strings(maker.object(MAP, annotation=[maker.integer(1), *arrays]))


def test_a_measurement_that_is_no_float() -> None:
    """Of a class whose value is an int of two bytes, or an object."""
    maker = Made().maker
    one = maker.object("qupath.lib.measurements.DoubleMeasurement", struct.pack(">d", 1.0), [maker.text("a")])
    whole = maker.object("qupath.lib.measurements.DefaultMeasurementList", b"", [maker.array_list([one])])
    assert measurements_of(whole) == {"a": 1.0}
    code, name, signature = one.desc.fields[0]
    one.desc.fields[0] = ("F", name, signature)
    one.parts = [Part(struct.pack(">f", 0.5), one.parts[0].objects)]
    assert measurements_of(whole) == {"a": 0.5}
    for code in "SZ":
        one.desc.fields[0] = (code, name, signature)
        with pytest.raises(StreamError, match="no float"):
            measurements_of(whole)


def wrapper(name: str, field: str, inner: Node) -> Object:
    node = Object(1, Made().maker.desc(LIST), [Part(b"", [inner])])
    desc = type(node.desc)(2, name, bytes(8))
    desc.flags, desc.fields = 2, [("L", field.encode(), None)]
    node.desc = desc
    return node


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("java.util.Collections$UnmodifiableList", "list"),
        ("java.util.Collections$UnmodifiableRandomAccessList", "list"),
        ("java.util.Arrays$ArrayList", "a"),
    ],
)
def test_lists_that_hold_another(name: str, field: str) -> None:
    maker = Made().maker
    items: list[Node] = [maker.text("a"), maker.text("b")]
    for inner in (maker.array_list(items), maker.array("[Ljava.lang.Object;", items=items)):
        assert list(list_items(wrapper(name, field, inner))) == items
    itself = wrapper(name, field, None)
    itself.parts[0].objects = [itself]
    for one in (itself, wrapper(name, field, None), wrapper(name, "other", None)):
        with pytest.raises(StreamError):
            list_items(one)


def test_other_lists() -> None:
    item = Made().maker.text("a")
    assert list(list_items(wrapper("java.util.Collections$SingletonList", "element", item))) == [item]
    assert list(list_items(wrapper("java.util.Collections$EmptyList", "none", None))) == []
    for node in (None, item, wrapper("java.util.LinkedList", "first", item)):
        with pytest.raises(StreamError, match="list of an unknown kind"):
            list_items(node)


def test_a_class_that_is_its_own_parent_ends_somewhere() -> None:
    made = Made()
    node = made.own_class("endless")
    node.parts[0].objects = [*node.parts[0].objects[:2], node]
    found = class_ref(node)
    assert found is not None
    assert set(found.names) == {"endless"}


def test_colours() -> None:
    maker = Made().maker
    assert rgb_of(maker.integer(-1)) == (255, 255, 255)
    assert rgb_of(maker.integer(0x00010203)) == (1, 2, 3)
    assert rgb_of(None) is None

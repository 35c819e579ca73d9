"""The codec of Java object streams: the same bytes, whatever the classes are; of damaged ones only a StreamError."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FIXTURES
from java_streams import RECORDED
from made_streams import END, HEAD, NULL, Made, class_desc, parsed, reference, root_of, text, utf, written

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
    decode_text,
    encode_text,
)
from her2bridge.qupath.via_files.java_reader import Reader
from her2bridge.qupath.via_files.path_objects import walk

FILES = sorted(FIXTURES.rglob("data.qpdata"))
LARGEST = FIXTURES / "qupath_objects" / "qupath_0_7_0" / "data" / "1" / "data.qpdata"
HUGE = [0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def name_of(path: Path) -> str:
    return "-".join(path.relative_to(FIXTURES).parts[:-1])


def recorded(name: str) -> list[Node]:
    return parsed(bytes.fromhex(RECORDED[name]))[0]


# --- the same bytes


def test_fixtures_are_there() -> None:
    assert len(FILES) == 19


@pytest.mark.parametrize("find_runs", [True, False])
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_qupaths_files_give_the_same_bytes(path: Path, find_runs: bool) -> None:
    data = path.read_bytes()
    items, nodes = parsed(data, find_runs=find_runs)
    assert written(items, nodes) == data


@pytest.mark.parametrize("find_runs", [True, False])
@pytest.mark.parametrize("name", RECORDED)
def test_javas_streams_give_the_same_bytes(name: str, find_runs: bool) -> None:
    data = bytes.fromhex(RECORDED[name])
    items, nodes = parsed(data, find_runs=find_runs)
    assert written(items, nodes) == data


# --- what they say


def test_strings() -> None:
    found = recorded("texts")
    assert [str(one) for one in found] == ["plain", "nul\0in", "é€", "😀", "\ufffd alone", "", "plain"]
    assert found[0] is found[6]  # Java's literals are one string


def test_enums() -> None:
    red, green, again, array = recorded("enums")
    assert isinstance(red, Enum)
    assert isinstance(green, Enum)
    assert isinstance(array, Array)
    assert (str(red.constant), str(green.constant)) == ("RED", "GREEN")
    assert red.desc.parent is not None
    assert red.desc.parent.name == "java.lang.Enum"
    assert again is red
    assert array.items == [green, red]


def test_class_objects() -> None:
    found = recorded("classes")
    names = [one.desc.name for one in found if isinstance(one, ClassObject) and one.desc is not None]
    plain = [name for name in names if "$" not in name]
    assert plain == ["java.lang.String", "int", "[I", "java.lang.Runnable", "[[Ljava.lang.Object;", "java.lang.String"]
    assert [name.partition("$")[2] for name in names if "$" in name] == ["Colour", "Node"]
    assert found[-1] is found[0]


def test_fields_of_every_type_and_a_reference_to_itself() -> None:
    node, array = recorded("cycle")
    assert isinstance(node, Object)
    values = {name: node.field(name) for name in "ijsbcfdz"}
    formats = {"i": ">i", "j": ">q", "s": ">h", "b": ">b", "c": ">H", "f": ">f", "d": ">d", "z": ">?"}
    numbers = {
        name: struct.unpack(formats[name], value)[0] for name, value in values.items() if isinstance(value, bytes)
    }
    assert numbers == {"i": -5, "j": 1 << 40, "s": -2, "b": 7, "c": 0x20AC, "f": 1.5, "d": -2.25, "z": True}
    assert node.field("next") is node
    assert node.field("ints") is array
    assert str(node.field("name")) == "n"
    with pytest.raises(StreamError, match="no field nothing"):
        node.field("nothing")


def test_what_classes_write_by_themselves() -> None:
    custom, derived, external, sub = recorded("custom")
    assert isinstance(custom, Object)
    assert isinstance(derived, Object)
    assert isinstance(external, Object)
    assert isinstance(sub, Object)
    notes = custom.parts[0].annotation
    assert notes is not None
    assert [one.data if isinstance(one, Block) else str(one) for one in notes] == [
        struct.pack(">i", 9),
        "mid",
        bytes(3),
    ]
    assert [desc.name.partition("$")[2] for desc, _, _ in derived.desc.layout()] == ["Custom", "Sub"]
    assert len(derived.parts) == 2
    assert str(derived.field("extra")) == "e"
    assert len(sub.parts) == 1  # an Externalizable's data are written once, by the leaf class
    assert sub.parts[0].annotation is not None
    assert len(sub.parts[0].annotation) == 3


def test_proxies() -> None:
    one, other = recorded("proxy")
    assert isinstance(one, Object)
    assert isinstance(other, Object)
    assert one.desc.interfaces == [b"java.lang.Runnable", b"java.lang.Comparable"]
    assert other.desc is one.desc
    handler = one.field("h")
    assert isinstance(handler, Object)
    assert handler is not other.field("h")


def test_arrays() -> None:
    found = [one for one in recorded("arrays") if isinstance(one, Array)]
    assert [(one.desc.name, one.length) for one in found] == [
        *((f"[{code}", 1) for code in "BCDFIJSZ"),
        ("[B", 0),
        ("[Ljava.lang.Object;", 0),
        ("[[I", 3),
        ("[[F", 2),
    ]
    rows = found[10].items
    assert rows is not None
    assert [row.length if isinstance(row, Array) else row for row in rows] == [1, 0, None]


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ("plain", b"plain"),
        ("\0", b"\xc0\x80"),
        ("é€", "é€".encode()),
        ("😀", b"\xed\xa0\xbd\xed\xb8\x80"),
        ("a\0😀", b"a\xc0\x80\xed\xa0\xbd\xed\xb8\x80"),
        ("", b""),
    ],
)
def test_modified_utf8(value: str, raw: bytes) -> None:
    assert encode_text(value) == raw
    assert decode_text(raw) == value


def test_a_lone_surrogate_is_kept_in_the_bytes() -> None:
    assert encode_text("\ud83d") == b"\xed\xa0\xbd"
    data = HEAD + b"\x74\x00\x03\xed\xa0\xbd"
    items, nodes = parsed(data)
    assert str(items[0]) == "\ufffd"
    assert written(items, nodes) == data


def test_bytes_that_are_no_string() -> None:
    (node,), _ = parsed(HEAD + b"\x74\x00\x02\xff\xfe")
    with pytest.raises(StreamError, match="not UTF-8"):
        str(node)


def test_long_strings_and_long_blocks() -> None:
    long = b"z" * 70_000
    data = HEAD + b"\x7c" + struct.pack(">Q", len(long)) + long
    data += b"\x7a" + struct.pack(">I", 1024) + bytes(1024) + b"\x77\xff" + bytes(255) + text("after")
    items, nodes = parsed(data)
    assert [type(one) for one in items] == [Text, Block, Block, Text]
    assert len(str(items[0])) == 70_000
    assert isinstance(items[1], Block)
    assert (len(items[1].data), items[1].is_long) == (1024, True)
    assert written(items, nodes) == data


def test_a_class_is_defined_once_and_referred_to_by_every_kind_of_node() -> None:
    """Handles: class 0, its name's signature 1, object 2, text 3, array class 4, array 5."""
    fields = b"\x00\x02I" + utf("n") + b"L" + utf("s") + text("Ljava/lang/String;")
    data = HEAD + b"\x73" + class_desc("A", fields) + struct.pack(">i", 7) + text("seven")
    data += b"\x75" + class_desc("[LA;") + struct.pack(">I", 3) + reference(2) + NULL + reference(3)
    data += b"\x73" + reference(0) + struct.pack(">i", 8) + reference(3) + b"\x76" + reference(0) + reference(4)
    items, nodes = parsed(data)
    one, array, other, of_class, desc = items
    assert isinstance(one, Object)
    assert isinstance(array, Array)
    assert isinstance(other, Object)
    assert isinstance(of_class, ClassObject)
    assert isinstance(desc, ClassDesc)
    assert array.items == [one, None, one.field("s")]
    assert other.desc is one.desc is of_class.desc
    assert desc is array.desc
    assert [node.key for node in nodes if not isinstance(node, Object | ClassObject)] == [0, 1, 3, 4, 5]
    assert written(items, nodes) == data


# --- damage


def outcome(data: bytes, find_runs: bool) -> bytes | None:
    """The bytes written again; None for a StreamError."""
    try:
        items, nodes = parsed(data, find_runs=find_runs)
    except StreamError:
        return None
    return written(items, nodes)


def item_ends(data: bytes) -> set[int]:
    """Where a stream may end."""
    reader = Reader(data, [], 4)
    ends = {4}
    while reader.at < len(data):
        reader.content()
        ends.add(reader.at)
    return ends


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_truncated_file_is_an_error(path: Path) -> None:
    data = path.read_bytes()
    ends = item_ends(data)
    assert len(ends) in (9, 10)
    cuts = {*range(0, len(data), 37), *range(len(data) - 40, len(data)), *range(40), *(end - 1 for end in ends)}
    for cut in sorted(cuts - ends):
        for find_runs in (True, False):
            with pytest.raises(StreamError):
                parsed(data[:cut], find_runs=find_runs)


SEEDS = [LARGEST, FILES[0], *RECORDED]


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed if isinstance(seed, str) else name_of(seed))
def test_damage_is_a_stream_error_or_another_graph(seed: Path | str) -> None:
    """Flipped bits, other bytes, tags and lengths: no other exception, and the same with and without runs."""
    data = seed.read_bytes() if isinstance(seed, Path) else bytes.fromhex(RECORDED[seed])
    chance = random.Random(len(data))
    lengths = [b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\0"]
    outcomes = []
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 4])):
            at = chance.randrange(len(damaged))
            kind = chance.randrange(4)
            if kind == 0:
                damaged[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                damaged[at] = chance.randrange(0x70, 0x80)
            elif kind == 2:
                damaged[at : at + 4] = chance.choice(lengths)
            else:
                del damaged[at : at + chance.choice([1, 6])]
        outcomes.append(outcome(bytes(damaged), find_runs=True))
        assert outcomes[-1] == outcome(bytes(damaged), find_runs=False)
    assert None in outcomes


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"\x75" + class_desc("[Ljava.lang.Object;"), id="array of objects"),
        pytest.param(b"\x75" + class_desc("[D"), id="array of doubles"),
        pytest.param(b"\x7a", id="long block"),
        pytest.param(b"\x7c\0\0\0\0", id="long string"),
        pytest.param(b"\x7c", id="longer string"),
        pytest.param(b"\x7d", id="proxy"),
    ],
)
def test_lengths_beyond_the_file_cost_nothing(head: bytes, size: int) -> None:
    data = HEAD + head + struct.pack(">I", size) + bytes(64)
    tracemalloc.start()
    try:
        with pytest.raises(StreamError):
            parsed(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (reference(0), "reference to nothing"),
        (text("a") + reference(1), "reference to nothing"),
        (b"\x71\x00\x00\x00\x00", "reference to nothing"),
        (b"\x71\xff\xff\xff\xff", "reference to nothing"),
        (text("a") + b"\x73" + reference(0), "no class where one must be"),
        (b"\x73" + NULL, "an object without a class"),
        (b"\x75" + NULL, "an object without a class"),
        (b"\x73" + text("a"), "no class where one must be"),
        (b"\x7e" + class_desc("E", flags=18) + NULL, "an enum without a name"),
        (b"\x7e" + class_desc("E", flags=18) + reference(1), "an enum without a name"),
        (b"\x73" + class_desc("X", flags=4), "protocol 1"),
        (b"\x72" + utf("F") + bytes(8) + b"\x02\x00\x01Q" + utf("q"), "field of an unknown type"),
        (b"\x79", "unknown kind"),
        (b"\x7b", "unknown kind"),
        (END, "unknown kind"),
        (b"\x00", "unknown kind"),
        (b"\x72\x00\x01\xff" + bytes(16), "damaged near byte"),
        (b"\x74\x00\x09abc", "cut short"),
        (b"\x77\x09abc", "cut short"),
        (b"\x74\x00", "cut short or damaged"),
        (b"\x71\x00\x7e", "cut short or damaged"),
    ],
)
def test_what_cannot_be(body: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        parsed(HEAD + body)


@pytest.mark.parametrize("data", [b"", b"\xac\xed", b"\xac\xed\x00\x04", b"PK\x03\x04 and so on"])
def test_not_a_stream_at_all(data: bytes) -> None:
    with pytest.raises(StreamError, match="does not begin like"):
        parsed(data)


def test_a_stream_may_be_empty() -> None:
    assert parsed(HEAD) == ([], [])
    assert written([], []) == HEAD


# --- depth


def nested_objects(depth: int) -> bytes:
    desc = class_desc("A", b"\x00\x01L" + utf("next") + text("LA;"))
    return HEAD + b"\x73" + desc + (b"\x73" + reference(0)) * (depth - 1) + NULL


def nested_arrays(depth: int) -> bytes:
    one = struct.pack(">I", 1)
    return HEAD + b"\x75" + class_desc("[L;") + one + (b"\x75" + reference(0) + one) * (depth - 1) + NULL


def nested_annotations(depth: int) -> bytes:
    desc = class_desc("A", flags=12)
    return HEAD + b"\x73" + desc + (b"\x73" + reference(0)) * (depth - 1) + END * depth


def nested_classes(depth: int) -> bytes:
    heads = [b"\x72" + utf(f"C{number}") + bytes(8) + b"\x02\0\0" + END for number in range(depth)]
    return HEAD + b"".join(heads) + NULL


def nested_proxies(depth: int) -> bytes:
    return HEAD + (b"\x7d\0\0\0\0" + END) * depth + NULL


NESTED = [nested_objects, nested_arrays, nested_annotations, nested_classes, nested_proxies]


@pytest.mark.parametrize("nested", NESTED)
def test_what_nests_150_deep_can_be_read_written_and_compared(nested: Callable[[int], bytes]) -> None:
    data = nested(149)
    for find_runs in (True, False):
        items, nodes = parsed(data, find_runs=find_runs)
        assert written(items, nodes) == data
        assert_equal(items, parsed(data)[0], len(nodes))


@pytest.mark.parametrize("depth", [160, 100_000])
@pytest.mark.parametrize("nested", NESTED)
def test_what_nests_deeper_is_a_clear_error(nested: Callable[[int], bytes], depth: int) -> None:
    with pytest.raises(StreamError, match="nested too deeply"):
        parsed(nested(depth))


def test_enums_cannot_nest() -> None:
    with pytest.raises(StreamError):
        parsed(HEAD + (b"\x7e" + class_desc("E", flags=18)) + (b"\x7e" + reference(0)) * 100_000)


def test_annotations_nest_a_hundred_deep() -> None:
    made = Made()
    child = made.path_object(1, kind="PathAnnotationObject")
    for number in range(2, 101):
        child = made.path_object(number, kind="PathAnnotationObject", children=[child])
    data = made.data(child)
    items, nodes = parsed(data)
    assert written(items, nodes) == data
    assert sum(1 for _ in walk(root_of(items))) == 100
    assert_equal(items, parsed(data)[0], len(nodes))


def test_content_that_moves_into_what_refers_to_it_may_nest_too_deeply_for_the_writer() -> None:
    """Each object is defined beside the next; the last alone would hold all of them within each other."""
    desc = class_desc("A", b"\x00\x01L" + utf("before") + text("LA;"))
    chain = b"".join(b"\x73" + reference(0) + reference(1 + number) for number in range(1, 1000))
    items, nodes = parsed(HEAD + b"\x73" + desc + NULL + chain)
    assert len(items) == 1000
    with pytest.raises(StreamError, match="written is nested too deeply"):
        written(items[-1:], nodes)
    with pytest.raises(StreamError, match="compared is nested too deeply"):
        assert_equal(items[-1:], parsed(HEAD + b"\x73" + desc + NULL + chain)[0][-1:], len(nodes))


def test_a_class_that_is_its_own_parent() -> None:
    data = HEAD + b"\x73" + class_desc("A", parent=reference(0))
    with pytest.raises(StreamError):
        parsed(data)

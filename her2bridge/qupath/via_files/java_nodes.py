"""Java object serialization (stream protocol 2), class-agnostic: bytes to a graph of nodes and back to the same bytes.

Source: Java Object Serialization Specification, chapter 6. Nothing here knows a class of QuPath. A node stands wherever
the stream defines *or* refers to it: the writer decides which of the two a place becomes, so that after an edit every
handle is right again. Every node that takes a handle has a ``key``: the handle's number in the stream that was read, or
a larger one for nodes made since.

Long rows of objects that have the same form are not taken apart: see ``java_runs``.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from her2bridge.qupath.via_files.java_writer import Writer

MAGIC = b"\xac\xed\x00\x05"
BASE_HANDLE = 0x7E0000

NULL, REFERENCE, CLASS_DESC, OBJECT, STRING, ARRAY, CLASS = range(0x70, 0x77)
BLOCK, END, RESET, BLOCK_LONG, EXCEPTION, STRING_LONG, PROXY_DESC, ENUM = range(0x77, 0x7F)

HAS_WRITE_METHOD, SERIALIZABLE, EXTERNALIZABLE, BLOCK_MODE = 1, 2, 4, 8

WIDTHS = {"B": 1, "C": 2, "D": 8, "F": 4, "I": 4, "J": 8, "S": 2, "Z": 1}


class StreamError(ValueError):
    """Not a stream that this codec can read; the message says what and at which byte."""


class Text:
    """A string; ``raw`` is Java's modified UTF-8."""

    __slots__ = ("key", "raw")

    def __init__(self, key: int, raw: bytes) -> None:
        self.key = key
        self.raw = raw

    @classmethod
    def of(cls, key: int, value: str) -> Text:
        """A node for a Python string."""
        return cls(key, encode_text(value))

    def __str__(self) -> str:
        return decode_text(self.raw)


class ClassDesc:
    """A class descriptor; ``fields`` are (type code, name, signature or None), primitives first."""

    __slots__ = ("annotation", "fields", "flags", "interfaces", "key", "lineage", "name", "parent", "uid")

    def __init__(self, key: int, name: str, uid: bytes) -> None:
        self.key = key
        self.name = name
        self.uid = uid
        self.flags = 0
        self.fields: list[tuple[str, bytes, Node]] = []
        self.annotation: list[Node] = []
        self.parent: ClassDesc | None = None
        self.interfaces: list[bytes] | None = None
        self.lineage: tuple[tuple[ClassDesc, int, int], ...] | None = None

    def layout(self) -> tuple[tuple[ClassDesc, int, int], ...]:
        """Whose data an object holds, base class first: (class, bytes of primitives, number of object fields)."""
        if self.lineage is None:
            if self.flags & EXTERNALIZABLE:
                self.lineage = ((self, 0, 0),)  # written once, by the leaf class
            else:
                own = (self, sum(WIDTHS.get(f[0], 0) for f in self.fields), sum(f[0] in "L[" for f in self.fields))
                self.lineage = (*(self.parent.layout() if self.parent else ()), own)
        return self.lineage


class Part:
    """What one class of a lineage wrote: primitives as bytes, object fields, and what ``writeObject`` added."""

    __slots__ = ("annotation", "objects", "primitives")

    def __init__(self, primitives: bytes = b"", objects: Sequence[Node] = (), annotation: list[Node] | None = None):
        self.primitives = primitives
        self.objects = objects
        self.annotation = annotation


class Object:
    """An object; ``parts`` follow ``desc.layout()``."""

    __slots__ = ("desc", "key", "parts")

    def __init__(self, key: int, desc: ClassDesc, parts: list[Part] | None = None) -> None:
        self.key = key
        self.desc = desc
        self.parts: list[Part] = parts if parts is not None else []

    @property
    def name(self) -> str:
        """Its class."""
        return self.desc.name

    def field(self, name: str) -> Node | bytes:
        """The value of a field: a node, or the big-endian bytes of a primitive."""
        wanted = name.encode()
        for (desc, _, _), part in zip(self.desc.layout(), self.parts, strict=True):
            offset = place = 0
            for code, raw, _ in desc.fields:
                if code in WIDTHS:
                    if raw == wanted:
                        return part.primitives[offset : offset + WIDTHS[code]]
                    offset += WIDTHS[code]
                else:
                    if raw == wanted:
                        return part.objects[place]
                    place += 1
        raise StreamError(f"{self.name} has no field {name}")


class Array:
    """An array: ``raw`` bytes of primitives, or ``items``."""

    __slots__ = ("desc", "items", "key", "raw")

    def __init__(self, key: int, desc: ClassDesc, raw: bytes = b"", items: list[Node] | None = None) -> None:
        self.key = key
        self.desc = desc
        self.raw = raw
        self.items = items

    @property
    def length(self) -> int:
        """How many items it has."""
        return len(self.raw) // WIDTHS[self.desc.name[1]] if self.items is None else len(self.items)


class Enum:
    """An enum constant."""

    __slots__ = ("constant", "desc", "key")

    def __init__(self, key: int, desc: ClassDesc, constant: Text | None = None) -> None:
        self.key = key
        self.desc = desc
        self.constant = constant


class ClassObject:
    """A ``java.lang.Class``."""

    __slots__ = ("desc", "key")

    def __init__(self, key: int, desc: ClassDesc | None) -> None:
        self.key = key
        self.desc = desc


class Block:
    """Raw data between objects."""

    __slots__ = ("data", "is_long")

    def __init__(self, data: bytes, *, is_long: bool = False) -> None:
        self.data = data
        self.is_long = is_long


class Rows(ABC):
    """Many objects of one form, left as bytes; see ``java_runs.Run``, the only one."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def objects(self) -> Iterator[Object]:
        """Each of them, taken apart."""

    @abstractmethod
    def node(self, key: int) -> Keyed:
        """The node of a key that one of them defines."""

    @abstractmethod
    def write(self, writer: Writer) -> None:
        """Write all of them."""


KEYED = (Text, ClassDesc, Object, Array, Enum, ClassObject)
Keyed: TypeAlias = Text | ClassDesc | Object | Array | Enum | ClassObject
Node: TypeAlias = Keyed | Block | Rows | None


def encode_text(value: str) -> bytes:
    """Modified UTF-8: NUL as two bytes, characters beyond the BMP as two surrogates of three bytes."""
    if value.isascii() and "\0" not in value:
        return value.encode("ascii")
    wide = value.encode("utf-16-be", "surrogatepass")
    units = struct.unpack(f">{len(wide) // 2}H", wide)
    return b"".join(b"\xc0\x80" if u == 0 else chr(u).encode("utf-8", "surrogatepass") for u in units)


def decode_text(raw: bytes) -> str:
    """The way back from ``encode_text``.

    Raises:
        StreamError: no modified UTF-8.
    """
    try:
        text = raw.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
        return text if text.isascii() else text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "replace")
    except UnicodeDecodeError as error:
        raise StreamError(f"a string is not UTF-8: {raw[:40]!r}") from error

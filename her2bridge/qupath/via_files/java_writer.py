"""Nodes to bytes: the writing half of the codec (see ``java_nodes``).

A node is defined where it is met first and referred to afterwards, as Java does; so a graph that was read and not
changed gives the bytes it was read from.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import numpy as np

from her2bridge.qupath.via_files.java_nodes import (
    ARRAY,
    BASE_HANDLE,
    BLOCK,
    BLOCK_LONG,
    CLASS,
    CLASS_DESC,
    END,
    ENUM,
    MAGIC,
    NULL,
    OBJECT,
    PROXY_DESC,
    REFERENCE,
    STRING,
    STRING_LONG,
    Array,
    Block,
    ClassDesc,
    ClassObject,
    Enum,
    Keyed,
    Node,
    Object,
    Part,
    Rows,
    StreamError,
    Text,
)

_U16, _U32, _U64 = (struct.Struct(f">{code}").pack for code in "HIQ")


class Writer:
    """Bytes written so far, and the handles that nodes have got.

    Attributes:
        out: the bytes.
        handles: int64 by key; −1 where the node has not been written.
        taken: how many handles were given.
        edited: by key, nodes that are written in place of others.
        edited_keys: int64, their keys, ascending.
    """

    def __init__(self, keys: int, edited: Mapping[int, Keyed] | None = None) -> None:
        self.out = bytearray()
        self.handles = np.full(keys, -1, dtype=np.int64)
        self.taken = 0
        self.edited = edited or {}
        self.edited_keys = np.array(sorted(self.edited), dtype=np.int64)

    def stream(self, items: Iterable[Node]) -> bytes:
        """A whole stream.

        Raises:
            StreamError: it would be nested too deeply (content may move into others when objects are left out).
        """
        self.out += MAGIC
        try:
            for item in items:
                self.node(item)
        except RecursionError as error:
            raise StreamError("what is to be written is nested too deeply") from error
        return bytes(self.out)

    def node(self, node: Node, kind: str = "reference") -> None:
        """One item: its definition, or a reference to it."""
        if node is None:
            self.out.append(NULL)
        elif isinstance(node, Block):
            self.out += bytes((BLOCK_LONG,)) + _U32(len(node.data)) if node.is_long else bytes((BLOCK, len(node.data)))
            self._value("block", node, node.data)
        elif isinstance(node, Rows):
            node.write(self)
        else:
            handle = self._handle_of(node.key)
            if handle >= 0:
                self.out.append(REFERENCE)
                self._value(kind, node, _U32(BASE_HANDLE + handle))
            else:
                self._define(self.edited.get(node.key, node))

    def _handle_of(self, key: int) -> int:
        return int(self.handles[key])

    def _assign(self, key: int) -> None:
        self.handles[key] = self.taken
        self.taken += 1

    def _value(self, kind: str, node: Node | Part, data: bytes) -> None:
        self.out += data

    def _define(self, node: Keyed) -> None:
        out = self.out
        if isinstance(node, Object):
            self._object(node)
        elif isinstance(node, Text):
            is_long = len(node.raw) > 0xFFFF
            out += bytes((STRING_LONG,)) + _U64(len(node.raw)) if is_long else bytes((STRING,)) + _U16(len(node.raw))
            self._assign(node.key)
            self._value("long text" if is_long else "text", node, node.raw)
        elif isinstance(node, Array):
            self._array(node)
        elif isinstance(node, ClassDesc):
            self._class_desc(node)
        elif isinstance(node, Enum):
            out.append(ENUM)
            self.node(node.desc, "fixed")
            self._assign(node.key)
            self.node(node.constant, "fixed")
        elif isinstance(node, ClassObject):
            out.append(CLASS)
            self.node(node.desc, "fixed")
            self._assign(node.key)

    def _object(self, node: Object) -> None:
        self.out.append(OBJECT)
        self.node(node.desc, "fixed")
        self._assign(node.key)
        for part in node.parts:
            if part.primitives:
                self._value("primitives", part, part.primitives)
            for item in part.objects:
                self.node(item)
            if part.annotation is not None:
                self._annotation(part.annotation)

    def _array(self, node: Array) -> None:
        self.out.append(ARRAY)
        self.node(node.desc, "fixed")
        self._assign(node.key)
        if node.items is None:
            self.out += _U32(node.length)
            self._value("array", node, node.raw)
        else:
            self.out += _U32(len(node.items))
            for item in node.items:
                self.node(item)

    def _class_desc(self, node: ClassDesc) -> None:
        out = self.out
        if node.interfaces is not None:
            out.append(PROXY_DESC)
            self._assign(node.key)
            out += _U32(len(node.interfaces))
            for name in node.interfaces:
                out += _U16(len(name)) + name
        else:
            name = node.name.encode()
            out += bytes((CLASS_DESC,)) + _U16(len(name)) + name + node.uid
            self._assign(node.key)
            out += bytes((node.flags,)) + _U16(len(node.fields))
            for code, field, signature in node.fields:
                out += code.encode() + _U16(len(field)) + field
                if code in "L[":
                    self.node(signature)
        self._annotation(node.annotation)
        self.node(node.parent, "fixed")

    def _annotation(self, items: Iterable[Node]) -> None:
        for item in items:
            self.node(item)
        self.out.append(END)


class Tracer(Writer):
    """Writes one object as it stands in a stream, and notes where its values lie.

    Keys below ``first_key`` count as written before and keep their numbers.

    Attributes:
        slots: (kind, node, first byte, width, handles given before) of each value.
    """

    def __init__(self, first_key: int) -> None:
        super().__init__(0)
        self.slots: list[tuple[str, Node | Part, int, int, int]] = []
        self._first_key = first_key
        self._own: dict[int, int] = {}

    def node(self, node: Node, kind: str = "reference") -> None:
        """See ``Writer``; rows are taken apart, for each of their values is one."""
        for one in node.objects() if isinstance(node, Rows) else (node,):
            super().node(one, kind)

    def _handle_of(self, key: int) -> int:
        return key if key < self._first_key else self._own.get(key, -1)

    def _assign(self, key: int) -> None:
        self._own[key] = self._first_key + self.taken
        self.taken += 1

    def _value(self, kind: str, node: Node | Part, data: bytes) -> None:
        self.slots.append((kind, node, len(self.out), len(data), self.taken))
        self.out += data

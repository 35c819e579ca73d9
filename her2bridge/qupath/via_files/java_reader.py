"""Bytes to nodes: the reading half of the codec (see ``java_nodes``)."""

from __future__ import annotations

import struct

from her2bridge.qupath.via_files.java_nodes import (
    ARRAY,
    BASE_HANDLE,
    BLOCK,
    BLOCK_LONG,
    BLOCK_MODE,
    CLASS,
    CLASS_DESC,
    END,
    ENUM,
    EXTERNALIZABLE,
    HAS_WRITE_METHOD,
    MAGIC,
    NULL,
    OBJECT,
    PROXY_DESC,
    REFERENCE,
    SERIALIZABLE,
    STRING,
    STRING_LONG,
    WIDTHS,
    Array,
    Block,
    ClassDesc,
    ClassObject,
    Enum,
    Keyed,
    Node,
    Object,
    Part,
    StreamError,
    Text,
)
from her2bridge.qupath.via_files.java_runs import Run, RunFinder

_U16, _U32, _U64 = (struct.Struct(f">{code}").unpack_from for code in "HIQ")
_MAX_DEPTH = 150
"""Of objects, arrays and classes within each other; what is read must also be written and compared, at five calls of
Python a level. Java's own stack ends between 500 and 1,000 levels."""

_FOREIGN = (struct.error, IndexError, UnicodeDecodeError, RecursionError)


class Reader:
    """A place in a buffer, and what the handles before it stand for.

    Attributes:
        nodes: by key; a ``Run`` stands at all keys of its objects.
        at: the next byte.
        key: the next handle's number.
    """

    def __init__(self, data: bytes, nodes: list[Keyed | Run], at: int = 0, *, key: int = 0, find_runs: bool = True):
        self.data = data
        self.nodes = nodes
        self.at = at
        self.key = key
        self._depth = 0
        self._finder = RunFinder(self) if find_runs else None

    def stream(self) -> list[Node]:
        """The contents of a whole stream.

        Raises:
            StreamError: it is not one, or is damaged.
        """
        if self.data[:4] != MAGIC:
            raise StreamError("it does not begin like a Java object stream")
        self.at = 4
        items: list[Node] = []
        try:
            while self.at < len(self.data):
                items.append(self.content())
        except _FOREIGN as error:
            raise StreamError(f"it is cut short or damaged near byte {self.at} ({type(error).__name__})") from error
        if self.at != len(self.data):
            raise StreamError(f"it is cut short: {self.at - len(self.data)} bytes are missing at its end")
        return items

    def content(self) -> Node:
        """One item: an object, what a reference refers to, null, or a block of raw data."""
        data, at = self.data, self.at
        tag = data[at]
        if tag == REFERENCE:
            self.at = at + 5
            return self._referred(_U32(data, at + 1)[0])
        if tag == NULL:
            self.at = at + 1
            return None
        if tag == BLOCK:
            return Block(self._bytes(at + 2, data[at + 1]))
        if tag == STRING:
            return self._keep(Text(self.key, self._bytes(at + 3, _U16(data, at + 1)[0])))
        if tag == OBJECT:
            return self._object()
        return self._rarer(tag)

    def _rarer(self, tag: int) -> Node:
        data, at = self.data, self.at
        if tag == ARRAY:
            return self._array()
        if tag in (CLASS_DESC, PROXY_DESC):
            return self._class_desc()
        if tag == ENUM:
            self.at = at + 1
            enum = Enum(0, self._desc(), None)
            enum.key = self.key
            self._keep(enum)
            constant = self.content()
            if not isinstance(constant, Text):
                raise StreamError(f"an enum without a name at byte {at}")
            enum.constant = constant
            return enum
        if tag == BLOCK_LONG:
            return Block(self._bytes(at + 5, _U32(data, at + 1)[0]), is_long=True)
        if tag == CLASS:
            self.at = at + 1
            desc = self._class_desc()
            return self._keep(ClassObject(self.key, desc))
        if tag == STRING_LONG:
            return self._keep(Text(self.key, self._bytes(at + 9, _U64(data, at + 1)[0])))
        raise StreamError(f"an item of an unknown kind (0x{tag:02x}) at byte {at}")

    def _referred(self, handle: int) -> Node:
        key = handle - BASE_HANDLE
        if not 0 <= key < self.key:
            raise StreamError(f"a reference to nothing before byte {self.at}")
        node = self.nodes[key]
        return node.node(key) if isinstance(node, Run) else node

    def _keep(self, node: Keyed) -> Keyed:
        """Give a node the next handle."""
        if self.key < len(self.nodes):
            self.nodes[self.key] = node
        else:
            self.nodes.append(node)
        self.key += 1
        return node

    def _bytes(self, start: int, count: int) -> bytes:
        self.at = end = start + count
        if end > len(self.data):
            raise StreamError(f"it is cut short: {end - len(self.data)} bytes are missing from byte {start} on")
        return self.data[start:end]

    def _desc(self) -> ClassDesc:
        desc = self._class_desc()
        if desc is None:
            raise StreamError(f"an object without a class before byte {self.at}")
        return desc

    def _class_desc(self) -> ClassDesc | None:
        data, at = self.data, self.at
        tag = data[at]
        if tag == REFERENCE:
            self.at = at + 5
            node = self._referred(_U32(data, at + 1)[0])
            if not isinstance(node, ClassDesc):
                raise StreamError(f"no class where one must be, at byte {at}")
            return node
        if tag == NULL:
            self.at = at + 1
            return None
        if tag == CLASS_DESC:
            return self._new_class_desc()
        if tag == PROXY_DESC:
            self._enter()
            desc = ClassDesc(self.key, "", b"")
            self._keep(desc)
            self.at += 5
            desc.interfaces = [self._bytes(self.at + 2, _U16(data, self.at)[0]) for _ in range(_U32(data, at + 1)[0])]
            desc.annotation = self._annotation()
            desc.parent = self._class_desc()
            desc.flags = SERIALIZABLE
            self._depth -= 1
            return desc
        raise StreamError(f"no class where one must be, at byte {at}")

    def _new_class_desc(self) -> ClassDesc:
        self._enter()
        name = self._bytes(self.at + 3, _U16(self.data, self.at + 1)[0])
        desc = ClassDesc(self.key, name.decode("utf-8"), self._bytes(self.at, 8))
        self._keep(desc)
        desc.flags = self.data[self.at]
        count = _U16(self.data, self.at + 1)[0]
        self.at += 3
        for _ in range(count):
            code = chr(self.data[self.at])
            field = self._bytes(self.at + 3, _U16(self.data, self.at + 1)[0])
            if code not in WIDTHS and code not in "L[":
                raise StreamError(f"a field of an unknown type before byte {self.at}")
            desc.fields.append((code, field, self.content() if code in "L[" else None))
        desc.annotation = self._annotation()
        desc.parent = self._class_desc()
        self._depth -= 1
        return desc

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise StreamError(f"objects are nested too deeply at byte {self.at}")

    def _object(self) -> Object:
        self._enter()
        self.at += 1
        item = Object(0, self._desc())
        item.key = self.key
        self._keep(item)
        for desc, width, count in item.desc.layout():
            part = Part(self._bytes(self.at, width) if width else b"")
            item.parts.append(part)
            if count:
                part.objects = [self.content() for _ in range(count)]
            if desc.flags & (EXTERNALIZABLE | HAS_WRITE_METHOD):
                if desc.flags & EXTERNALIZABLE and not desc.flags & BLOCK_MODE:
                    raise StreamError(f"{desc.name} is written in protocol 1")
                part.annotation = self._annotation()
        self._depth -= 1
        return item

    def _array(self) -> Array:
        self._enter()
        self.at += 1
        array = Array(0, self._desc())
        array.key = self.key
        self._keep(array)
        count = _U32(self.data, self.at)[0]
        code = array.desc.name[1:2]
        self.at += 4
        if code in WIDTHS:
            array.raw = self._bytes(self.at, count * WIDTHS[code])
        elif count > len(self.data) - self.at:
            raise StreamError(f"an array longer than the file at byte {self.at}")
        else:
            array.items = [self.content() for _ in range(count)]
        self._depth -= 1
        return array

    def _annotation(self) -> list[Node]:
        """Items up to the end mark."""
        items: list[Node] = []
        data, finder = self.data, self._finder
        before = b""
        while (tag := data[self.at]) != END:
            if tag != OBJECT or finder is None:
                items.append(self.content())
                continue
            start, key = self.at, self.key
            head = data[start : start + 6]
            run = finder.match(head) if head == before else None
            if run is not None:
                items.append(run)
                continue
            node = self.content()
            items.append(node)
            if isinstance(node, Object) and data[self.at : self.at + 6] == head:
                finder.learn(node, start, self.at, key)
            before = head
        self.at += 1
        return items

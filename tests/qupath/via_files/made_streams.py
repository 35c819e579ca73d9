"""Java streams made for tests: small ones tag by tag, data files of many objects through the codec's own maker."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from her2bridge.qupath.seam import PathClassRef
from her2bridge.qupath.via_files.java_maker import Maker
from her2bridge.qupath.via_files.java_nodes import Block, Keyed, Node, Object, Part, encode_text
from her2bridge.qupath.via_files.java_reader import Reader
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.java_writer import Writer
from her2bridge.qupath.via_files.new_objects import Objects
from her2bridge.qupath.via_files.path_objects import fields_of

HEAD = bytes.fromhex("aced0005")
NULL, END = b"\x70", b"\x78"
_PACKAGE = "qupath.lib.objects."


def utf(text: str) -> bytes:
    raw = encode_text(text)
    return struct.pack(">H", len(raw)) + raw


def text(value: str) -> bytes:
    return b"\x74" + utf(value)


def reference(number: int) -> bytes:
    return b"\x71" + struct.pack(">I", 0x7E0000 + number)


def class_desc(
    name: str, fields: bytes = b"\0\0", *, flags: int = 2, parent: bytes = NULL, notes: bytes = b""
) -> bytes:
    return b"\x72" + utf(name) + bytes(7) + b"\x01" + bytes((flags,)) + fields + notes + END + parent


def parsed(data: bytes, *, find_runs: bool = True) -> tuple[list[Node], list[Keyed | Run]]:
    nodes: list[Keyed | Run] = []
    return Reader(data, nodes, find_runs=find_runs).stream(), nodes


def written(items: Iterable[Node], nodes: Sequence[object], edited: Mapping[int, Keyed] | None = None) -> bytes:
    return Writer(len(nodes), edited).stream(items)


def root_of(items: Iterable[Node]) -> Object:
    for item in items:
        if isinstance(item, Object) and item.name == f"{_PACKAGE}hierarchy.PathObjectHierarchy":
            root = item.field("rootObject")
            assert isinstance(root, Object)
            return root
    raise AssertionError("no hierarchy")


def children_of(items: Iterable[Node]) -> list[Node]:
    """What stands below the root: objects and runs."""
    return list(fields_of(root_of(items)).children)


def run_lengths(items: Iterable[Node]) -> list[int]:
    """Of what stands below the root; 1 for an object by itself."""
    return [len(child) if isinstance(child, Run) else 1 for child in children_of(items)]


class Made:
    """A data file in the making."""

    def __init__(self) -> None:
        self.maker = Maker([])
        self.objects = Objects(self.maker)
        self._names: dict[tuple[str, ...], Object] = {}

    def names(self, names: Sequence[str], *, shared: bool) -> Object:
        """A list of measurement names: one for all, or one for each; its strings are shared."""
        key = tuple(names)
        if not shared or key not in self._names:
            self._names[key] = self.maker.array_list([self.maker.text(name) for name in names])
        return self._names[key]

    def measurements(self, values: Mapping[str, float], *, shared: bool = True) -> Object:
        floats = self.maker.array("[F", np.array(list(values.values()), dtype=">f4").tobytes())
        parts = [Part(b"\0", [None, self.names(list(values), shared=shared)]), Part(b"", [floats])]
        return self.maker.parts("qupath.lib.measurements.NumericMeasurementList$FloatList", parts)

    def rectangle(self, x: float, y: float, x2: float, y2: float) -> Object:
        numbers = struct.pack(">iiddddi", -1, 0, x, x2, y, y2, 0)
        return self.maker.object("qupath.lib.roi.RectangleROI$SerializationProxy", numbers, [None])

    def polygon(self, points: Sequence[tuple[float, float]]) -> Object:
        floats = np.array(points, dtype=">f4").reshape(-1, 2)
        x, y = (self.maker.array("[F", floats[:, axis].tobytes()) for axis in (0, 1))
        numbers = struct.pack(">iii", -1, 0, 0)
        return self.maker.object("qupath.lib.roi.PolygonROI$SerializationProxy", numbers, [None, None, x, y])

    def path_object(
        self,
        number: int,
        *,
        kind: str = "PathDetectionObject",
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        own_keys: bool = False,
        measurements: Node = None,
        children: Sequence[Node] = (),
        path_class: Node | PathClassRef = None,
        roi: Node = None,
    ) -> Object:
        """An object; ``number`` makes its id, and its place where no ROI is given."""
        maker = self.maker
        values = {**(metadata or {}), "Object ID": id_of(number)}
        texts = [maker.text(key, shared=not own_keys) for key in values]
        arrays = [
            maker.array("[Ljava.lang.Object;", items=list(items))
            for items in (texts, [maker.text(value, shared=False) for value in values.values()])
        ]
        items: list[Node] = [
            None if name is None else maker.text(name, shared=False),
            None,
            maker.object(f"{_PACKAGE}MetadataMap", annotation=[maker.integer(1), *arrays]),
            measurements,
            Block(struct.pack(">i", len(children))),
            *children,
            self.objects.boolean(False),
            self.objects.path_class(path_class) if isinstance(path_class, PathClassRef) else path_class,
            roi or self.rectangle(number, 2 * number, number + 10.5, 2 * number + 10.5),
            Block(struct.pack(">d", float("nan"))),
        ]
        return maker.object(f"{_PACKAGE}{kind}", annotation=items)

    def own_class(self, name: str, rgb: int = 255) -> Object:
        """A PathClass, each time a new one."""
        colour = self.maker.object("java.lang.Integer", struct.pack(">i", rgb))
        return self.maker.object(
            f"{_PACKAGE}classes.PathClass", b"", [colour, self.maker.text(name, shared=False), None]
        )

    def data(self, *children: Node) -> bytes:
        """The file's bytes, with these objects below the root."""
        maker = self.maker
        count = sum(len(child) if isinstance(child, Run) else 1 for child in children)
        metadata = self.objects.metadata({"Object ID": id_of(0)})
        top: list[Node] = [None, None, metadata, None, Block(struct.pack(">i", count)), *children]
        root = maker.object(f"{_PACKAGE}PathRootObject", annotation=top)
        hierarchy = maker.object(f"{_PACKAGE}hierarchy.PathObjectHierarchy", b"", [root, None])
        first = Block(utf("Data file version 3"))
        return written([first, hierarchy, maker.text("EOF")], maker.nodes)


def id_of(number: int) -> str:
    return str(uuid.UUID(int=number))

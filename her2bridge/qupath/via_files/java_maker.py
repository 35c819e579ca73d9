"""New nodes for a graph that was read: keys beyond those it has, and its own classes where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from her2bridge.qupath.via_files.java_nodes import (
    BLOCK_MODE,
    EXTERNALIZABLE,
    HAS_WRITE_METHOD,
    SERIALIZABLE,
    Array,
    Block,
    ClassDesc,
    Enum,
    Keyed,
    Node,
    Object,
    Part,
    StreamError,
    Text,
)
from her2bridge.qupath.via_files.java_runs import Run, distinct

Spec: TypeAlias = tuple[int, int, str | None, tuple[tuple[str, str, str | None], ...]]
"""serialVersionUID, flags, parent and fields (type code, name, signature) of a class."""

_LIB = "qupath.lib"
_PLAIN = SERIALIZABLE
_EXTERNAL = EXTERNALIZABLE | BLOCK_MODE
_STRING, _FLOATS = "Ljava/lang/String;", "[F"
_BOX = tuple((code, name, None) for code, name in zip("IIDDDDI", ("c", "t", "x", "x2", "y", "y2", "z"), strict=True))
_PLANE = (("I", "c", None), ("I", "t", None), ("I", "z", None))
_NUMERIC = f"{_LIB}.measurements.NumericMeasurementList$"

CLASSES: dict[str, Spec] = {
    "java.lang.Number": (-8742448824652078965, _PLAIN, None, ()),
    "java.lang.Integer": (1360826667806852920, _PLAIN, "java.lang.Number", (("I", "value", None),)),
    "java.lang.Boolean": (-3665804199014368530, _PLAIN, None, (("Z", "value", None),)),
    "java.util.ArrayList": (8683452581122892189, SERIALIZABLE | HAS_WRITE_METHOD, None, (("I", "size", None),)),
    "java.util.HashMap": (
        362498820763181265,
        SERIALIZABLE | HAS_WRITE_METHOD,
        None,
        (("F", "loadFactor", None), ("I", "threshold", None)),
    ),
    "java.util.Locale": (
        9149081749638150636,
        SERIALIZABLE | HAS_WRITE_METHOD,
        None,
        (
            ("I", "hashcode", None),
            *(("L", name, _STRING) for name in ("country", "extensions", "language", "script", "variant")),
        ),
    ),
    "[F": (836686056779680834, _PLAIN, None, ()),
    "[B": (-5984413125824719648, _PLAIN, None, ()),
    "[Ljava.lang.Object;": (-8012369246846506644, _PLAIN, None, ()),
    f"{_LIB}.objects.MetadataMap": (1, _EXTERNAL, None, ()),
    f"{_LIB}.objects.PathObject": (1, _EXTERNAL, None, ()),
    f"{_LIB}.objects.PathROIObject": (1, _EXTERNAL, f"{_LIB}.objects.PathObject", ()),
    f"{_LIB}.objects.PathRootObject": (1, _EXTERNAL, f"{_LIB}.objects.PathObject", ()),
    f"{_LIB}.objects.PathAnnotationObject": (1, _EXTERNAL, f"{_LIB}.objects.PathROIObject", ()),
    f"{_LIB}.objects.PathDetectionObject": (1, _EXTERNAL, f"{_LIB}.objects.PathROIObject", ()),
    f"{_LIB}.objects.PathTileObject": (1, _EXTERNAL, f"{_LIB}.objects.PathDetectionObject", ()),
    f"{_LIB}.objects.classes.PathClass": (
        1,
        _PLAIN,
        None,
        (
            ("L", "colorRGB", "Ljava/lang/Integer;"),
            ("L", "name", _STRING),
            ("L", "parentClass", "Lqupath/lib/objects/classes/PathClass;"),
        ),
    ),
    f"{_LIB}.objects.hierarchy.PathObjectHierarchy": (
        1,
        _PLAIN,
        None,
        (
            ("L", "rootObject", "Lqupath/lib/objects/PathObject;"),
            ("L", "tmaGrid", "Lqupath/lib/objects/hierarchy/TMAGrid;"),
        ),
    ),
    f"{_LIB}.plugins.workflow.Workflow": (1, _EXTERNAL, None, ()),
    f"{_LIB}.images.ImageData$ImageType": (0, _PLAIN | 16, "java.lang.Enum", ()),
    "java.lang.Enum": (0, _PLAIN | 16, None, ()),
    f"{_LIB}.measurements.DefaultMeasurementList": (1, _PLAIN, None, (("L", "list", "Ljava/util/ArrayList;"),)),
    f"{_LIB}.measurements.DoubleMeasurement": (1, _PLAIN, None, (("D", "value", None), ("L", "name", _STRING))),
    f"{_NUMERIC}AbstractNumericMeasurementList": (
        1,
        _PLAIN,
        None,
        (("Z", "isClosed", None), ("L", "map", "Ljava/util/Map;"), ("L", "names", "Ljava/util/List;")),
    ),
    f"{_NUMERIC}FloatList": (1, _PLAIN, f"{_NUMERIC}AbstractNumericMeasurementList", (("[", "values", _FLOATS),)),
    f"{_LIB}.roi.RectangleROI$SerializationProxy": (1, _PLAIN, None, (*_BOX, ("L", "name", _STRING))),
    f"{_LIB}.roi.PolygonROI$SerializationProxy": (
        1,
        _PLAIN,
        None,
        (
            *_PLANE,
            ("L", "name", _STRING),
            ("L", "stats", "Lqupath/lib/roi/ClosedShapeStatistics;"),
            ("[", "x", _FLOATS),
            ("[", "y", _FLOATS),
        ),
    ),
    f"{_LIB}.roi.GeometryROI$WKBSerializationProxy": (
        1,
        _PLAIN,
        None,
        (*_PLANE, ("L", "stats", "Lqupath/lib/roi/GeometryROI$GeometryStats;"), ("[", "wkb", "[B")),
    ),
}
"""Classes that we write, as QuPath 0.4 to 0.7 and Java declare them."""


class Maker:
    """Makes nodes; ``nodes`` is the graph's, and grows.

    Raises:
        StreamError: from ``object`` and ``array``, where the stream has a class of that name and another layout.
    """

    def __init__(self, nodes: list[Keyed | Run]) -> None:
        self.nodes = nodes
        self._descs = {node.name: node for node in distinct(nodes) if isinstance(node, ClassDesc)}
        self._texts: dict[str, Text] = {}
        self._integers: dict[int, Object] = {}

    @property
    def next_key(self) -> int:
        """The key of the next node."""
        return len(self.nodes)

    def text(self, value: str, *, shared: bool = True) -> Text:
        """A string; the same node for the same shared string."""
        if shared and value in self._texts:
            return self._texts[value]
        node = Text.of(self.next_key, value)
        self.nodes.append(node)
        if shared:
            self._texts[value] = node
        return node

    def integer(self, value: int) -> Object:
        """A ``java.lang.Integer``, shared."""
        if value not in self._integers:
            self._integers[value] = self.object("java.lang.Integer", value.to_bytes(4, "big", signed=True))
        return self._integers[value]

    def object(
        self, name: str, primitives: bytes = b"", objects: Sequence[Node] = (), annotation: list[Node] | None = None
    ) -> Object:
        """An object whose leaf class wrote these; its base classes wrote nothing."""
        parts = [Part() for _ in self.desc(name).layout()]
        parts[-1] = Part(primitives, objects, annotation)
        return self.parts(name, parts)

    def parts(self, name: str, parts: list[Part]) -> Object:
        """An object, class by class."""
        node = Object(self.next_key, self.desc(name), parts)
        node.key = self.next_key
        self.nodes.append(node)
        return node

    def array(self, name: str, raw: bytes = b"", items: list[Node] | None = None) -> Array:
        """An array."""
        desc = self.desc(name)
        node = Array(self.next_key, desc, raw, items)
        self.nodes.append(node)
        return node

    def enum(self, name: str, constant: str) -> Enum:
        """A constant of an enum."""
        desc, text = self.desc(name), self.text(constant)
        node = Enum(self.next_key, desc, text)
        self.nodes.append(node)
        return node

    def array_list(self, items: Sequence[Node]) -> Object:
        """A ``java.util.ArrayList``."""
        size = len(items).to_bytes(4, "big")
        return self.object("java.util.ArrayList", size, (), [Block(size), *items])

    def desc(self, name: str) -> ClassDesc:
        """The class of a name: the stream's own, else a new one."""
        uid, flags, parent, fields = CLASSES[name]
        known = self._descs.get(name)
        if known is not None:
            if [(code, field.decode()) for code, field, _ in known.fields] != [field[:2] for field in fields]:
                raise StreamError(f"the class {name} has another layout")
            return known
        above = self.desc(parent) if parent else None
        signatures = [self.text(signature) if signature else None for _, _, signature in fields]
        desc = ClassDesc(self.next_key, name, uid.to_bytes(8, "big", signed=True))
        self.nodes.append(desc)
        desc.flags, desc.parent = flags, above
        desc.fields = [(f[0], f[1].encode(), signature) for f, signature in zip(fields, signatures, strict=True)]
        self._descs[name] = desc
        return desc

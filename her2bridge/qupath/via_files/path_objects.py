"""QuPath's objects as they stand in a data file, to records.

``PathObject.writeExternal`` (QuPath 0.4 to 0.7) writes, as one list: name, colour, metadata, measurements, the number
of children, the children, whether it is locked, PathClass, ROI, class probability; a cell adds its nucleus.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from her2bridge.qupath.seam import PathClassRef, PathObject, rgb_of_packed
from her2bridge.qupath.via_files.java_nodes import Array, Block, Node, Object, Part, StreamError
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.rois import read_roi

PACKAGE = "qupath.lib.objects."
KINDS = {
    f"{PACKAGE}PathRootObject": "root",
    f"{PACKAGE}PathAnnotationObject": "annotation",
    f"{PACKAGE}PathDetectionObject": "detection",
    f"{PACKAGE}PathTileObject": "tile",
    f"{PACKAGE}PathCellObject": "cell",
    f"{PACKAGE}TMACoreObject": "tmaCore",
}
DETECTIONS = frozenset({"detection", "tile", "cell"})
OBJECT_ID = "Object ID"
_DESCRIPTION = "ANNOTATION_DESCRIPTION"
_WRAPPERS = {
    "java.util.Arrays$ArrayList": "a",
    "java.util.Collections$UnmodifiableList": "list",
    "java.util.Collections$UnmodifiableRandomAccessList": "list",
}
"""Java lists that hold another one, and the field that holds it."""
_MAX_WRAPPERS = 10  # of a list; a damaged one may hold itself
_MAX_NAMES = 50  # of a PathClass; likewise


@dataclass(frozen=True, eq=False)
class Fields:
    """The nodes that a PathObject wrote, by their meaning.

    Attributes:
        children: objects and runs of them.
        after: what follows the children: locked, PathClass, ROI, …
    """

    kind: str
    name: Node
    colour: Node
    metadata: Node
    measurements: Node
    children: Sequence[Node]
    after: Sequence[Node]

    @property
    def path_class(self) -> Node:
        """A PathClass object, or None."""
        return self.after[1] if len(self.after) > 1 else None

    @property
    def roi(self) -> Node:
        """A ROI's proxy, or None."""
        return self.after[2] if len(self.after) > 2 else None


def fields_of(node: Object) -> Fields:
    """Sort what an object wrote.

    Raises:
        StreamError: it is no PathObject of a layout that we know.
    """
    kind = KINDS.get(node.name)
    items = node.parts[0].annotation if node.parts else None
    if kind is None or items is None or len(items) < 5:
        raise StreamError(f"an object of an unknown kind: {node.name}")
    block = items[4]
    if not isinstance(block, Block) or len(block.data) != 4:
        raise StreamError(f"an unknown layout of {node.name}")
    wanted = int.from_bytes(block.data, "big")
    at, found = 5, 0
    while found < wanted and at < len(items):
        child = items[at]
        if not isinstance(child, Object | Run):
            break
        found += len(child) if isinstance(child, Run) else 1
        at += 1
    if found != wanted:
        raise StreamError(f"{node.name} says it has {wanted} children, and {found} are there")
    return Fields(kind, items[0], items[1], items[2], items[3], items[5:at], items[at:])


def with_children(node: Object, children: Sequence[Node], measurements: Node) -> Object:
    """The same object with other children and measurements."""
    count = sum(len(child) if isinstance(child, Run) else 1 for child in children)
    items = node.parts[0].annotation
    assert items is not None
    fields = fields_of(node)
    block = Block(count.to_bytes(4, "big"))
    return Object(node.key, node.desc, [Part(annotation=[*items[:3], measurements, block, *children, *fields.after])])


def strings(metadata: Node) -> dict[str, str]:
    """A MetadataMap, in its order."""
    if metadata is None:
        return {}
    keys, values = metadata_arrays(metadata)
    return {str(key): str(value) for key, value in zip(keys, values, strict=True)}


def metadata_arrays(metadata: Node) -> tuple[Sequence[Node], Sequence[Node]]:
    """Keys and values of a MetadataMap."""
    arrays = [item for item in _annotation(metadata) if isinstance(item, Array)]
    if len(arrays) != 2 or len(arrays[0].items or ()) != len(arrays[1].items or ()):
        raise StreamError("metadata of an unknown layout")
    return arrays[0].items or (), arrays[1].items or ()


def measurements_of(node: Node) -> dict[str, float]:
    """A measurement list, in its order."""
    if node is None:
        return {}
    if not isinstance(node, Object):
        raise StreamError("measurements of an unknown layout")
    if node.name.endswith("DefaultMeasurementList"):
        return dict(_measurement(item) for item in list_items(node.field("list")))
    names = [str(name) for name in list_items(node.field("names"))]
    return dict(zip(names, numbers(node.field("values")).tolist(), strict=False))


def numbers(values: Node | bytes) -> np.ndarray[tuple[int], np.dtype[np.floating]]:
    """The content of a float[] or double[]."""
    if not isinstance(values, Array) or values.desc.name not in ("[F", "[D"):
        raise StreamError("measurements without values")
    return np.frombuffer(values.raw, dtype=">f4" if values.desc.name == "[F" else ">f8")


def list_items(node: Node | bytes) -> Sequence[Node]:
    """The items of a Java list, of the kinds that QuPath writes."""
    for _ in range(_MAX_WRAPPERS):
        wrapped = _WRAPPERS.get(node.name) if isinstance(node, Object) else None
        if wrapped is None or not isinstance(node, Object):
            break
        node = node.field(wrapped)
    if isinstance(node, Array):
        return node.items or ()
    if not isinstance(node, Object):
        raise StreamError("a list of an unknown kind")
    short = node.name.rpartition(".")[2]
    if short in ("ArrayList", "CollSer"):
        items = (item for item in _annotation(node) if not isinstance(item, Block))
        return [one for item in items for one in (item.objects() if isinstance(item, Run) else (item,))]
    if short == "Collections$EmptyList":
        return ()
    if short == "Collections$SingletonList":
        element = node.field("element")
        return () if isinstance(element, bytes) else (element,)
    raise StreamError(f"a list of an unknown kind: {node.name}")


def class_ref(node: Node) -> PathClassRef | None:
    """A PathClass; None for none, and for the nameless one that QuPath shows as unclassified."""
    if node is None:
        return None
    if not isinstance(node, Object):
        raise StreamError("a PathClass of an unknown layout")
    names: list[str] = []
    level: Node | bytes = node
    for _ in range(_MAX_NAMES):
        name = level.field("name") if isinstance(level, Object) else None
        if name is None or not isinstance(level, Object):
            break
        names.append(str(name))
        level = level.field("parentClass")
    if not names:
        return None
    colour = node.field("colorRGB")
    return PathClassRef(tuple(reversed(names)), None if isinstance(colour, bytes) else rgb_of(colour))


def rgb_of(node: Node) -> tuple[int, int, int] | None:
    """A packed ARGB Integer."""
    if node is None:
        return None
    value = integer(node)
    return rgb_of_packed(value)


def integer(node: Node) -> int:
    """A ``java.lang.Integer``."""
    value = node.field("value") if isinstance(node, Object) else None
    if not isinstance(value, bytes):
        raise StreamError("no number where one must be")
    return int.from_bytes(value, "big", signed=True)


def read_object(node: Object, parent_id: str | None) -> PathObject:
    """A record of an object (not of the root).

    Raises:
        StreamError: of a layout that we do not know.
    """
    fields = fields_of(node)
    metadata = strings(fields.metadata)
    object_id = metadata.pop(OBJECT_ID, None)
    if object_id is None:
        raise StreamError(f"an object without an id: {node.name}")
    description = metadata.pop(_DESCRIPTION, None) if fields.kind == "annotation" else None
    roi = read_roi(fields.roi) if isinstance(fields.roi, Object) else None
    locked = fields.after[0] if fields.after else None
    nucleus = next((item for item in fields.after[3:] if isinstance(item, Object)), None)
    return PathObject(
        kind=fields.kind,
        id=object_id,
        parent_id=parent_id,
        name=None if fields.name is None else str(fields.name),
        path_class=class_ref(fields.path_class),
        rgb=rgb_of(fields.colour),
        geometry=roi.geometry if roi else None,
        plane=roi.plane if roi else (-1, 0, 0),
        measurements=measurements_of(fields.measurements),
        metadata=metadata,
        locked=isinstance(locked, Object) and locked.field("value") == b"\x01",
        description=description,
        is_ellipse=roi.is_ellipse if roi else False,
        nucleus=read_roi(nucleus).geometry if nucleus is not None else None,
    )


def object_id(node: Object) -> str | None:
    """An object's UUID; None for one without."""
    return strings(fields_of(node).metadata).get(OBJECT_ID)


def may_hold_only_detections(run: Run) -> bool:
    """Whether a run's objects are detections without children, so that nobody who asks for annotations needs them."""
    model = run.form.model
    return KINDS.get(model.name) in DETECTIONS and not fields_of(model).children


def walk(node: Object, parent_id: str | None = None) -> Iterator[tuple[Object | Run, str | None]]:
    """All objects below one, depth first, with their parent's id; runs of childless detections as a whole."""
    for child in fields_of(node).children:
        if isinstance(child, Run) and may_hold_only_detections(child):
            yield child, parent_id
            continue
        for each in child.objects() if isinstance(child, Run) else (child,):
            assert isinstance(each, Object)
            yield each, parent_id
            yield from walk(each, object_id(each))


def _measurement(node: Node) -> tuple[str, float]:
    value = node.field("value") if isinstance(node, Object) else None
    if not isinstance(node, Object) or not isinstance(value, bytes):
        raise StreamError("a measurement of an unknown layout")
    form = {4: ">f", 8: ">d"}.get(len(value))
    if form is None:
        raise StreamError("a measurement that is no float")
    return str(node.field("name")), float(struct.unpack(form, value)[0])


def _annotation(node: Node) -> Sequence[Node]:
    """What an object wrote by itself, all classes of its lineage together."""
    if not isinstance(node, Object):
        raise StreamError("an object is missing")
    return [item for part in node.parts for item in part.annotation or ()]

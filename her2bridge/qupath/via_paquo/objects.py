"""Records to QuPath's own objects, and its hierarchy to a graph that ours are read from.

Each call into the JVM costs microseconds, so objects are read all at once: QuPath writes its hierarchy as a stream of
Java objects, which ``via_files`` reads in columns. They are made one by one, through PathObjects, and added in bulk.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jpype
import shapely

from her2bridge.qupath.seam import OWNERSHIP_KEY, NewTiles, PathClassRef, PathObject
from her2bridge.qupath.via_files.data_file import Graph, first_line
from her2bridge.qupath.via_files.java_maker import Maker as StreamMaker
from her2bridge.qupath.via_files.java_nodes import Block, Node
from her2bridge.qupath.via_files.java_writer import Writer
from her2bridge.qupath.via_files.new_objects import Objects
from her2bridge.qupath.via_files.path_objects import PACKAGE
from her2bridge.qupath.via_paquo.jvm import QuPath

_MAP_OF_OBJECTS = (0, 6)  # from this release on object metadata are an ordinary map; before, storing is not public


def graph_of(qupath: QuPath, hierarchy: Any, where: str) -> Graph:
    """A PathObjectHierarchy as a graph.

    Raises:
        DataFileDamaged: QuPath writes it in a form that we do not know.
    """
    buffer = qupath.java("java.io.ByteArrayOutputStream")()
    stream = qupath.java("java.io.ObjectOutputStream")(buffer)
    stream.writeObject(hierarchy)
    stream.close()
    return Graph(bytes(buffer.toByteArray()), where)


class Maker:
    """Makes and finds objects in a running QuPath.

    In a JVM there is one PathClass of a name, and one colour of it: the project's, where the project has the class.
    """

    def __init__(self, qupath: QuPath, known: Sequence[PathClassRef]) -> None:
        """``known`` are the project's classes."""
        self._colours = {one.names: one.rgb for one in known}
        self._java = qupath.java
        self._uuid = qupath.java("java.util.UUID").fromString
        self._text = qupath.java("java.lang.String")
        self._mark = self._marker_before_06() if qupath.release < _MAP_OF_OBJECTS else _put_mark

    def tiles(self, tiles: NewTiles) -> dict[str | None, Any]:
        """Tile objects, as a Java list for each parent's id: read by QuPath from one stream, not made call by call."""
        for one in tiles.path_classes:
            self.path_class(one)
        runs, data = _stream_of(tiles)
        stream = self._java("java.io.ByteArrayInputStream")(jpype.JArray(jpype.JByte)(data))
        root = self._java("qupath.lib.io.PathIO").readHierarchy(stream).getRootObject()
        made = self._java("java.util.ArrayList")(root.getChildObjects())
        root.clearChildObjects()
        lists: dict[str | None, Any] = {}
        first = 0
        for parent, count in runs:
            below = lists.setdefault(parent, self._java("java.util.ArrayList")())
            below.addAll(made.subList(first, first + count))
            first += count
        return lists

    def annotation(self, record: PathObject) -> Any:
        """An annotation with an area and without measurements; what is a box becomes a rectangle."""
        assert record.geometry is not None
        c, z, t = record.plane
        plane = self._java("qupath.lib.regions.ImagePlane").getPlaneWithChannel(c, z, t)
        x0, y0, x1, y1 = record.geometry.bounds
        if record.geometry.equals(shapely.box(x0, y0, x1, y1)):
            roi = self._java("qupath.lib.roi.ROIs").createRectangleROI(x0, y0, x1 - x0, y1 - y0, plane)
        else:
            area = self._java("org.locationtech.jts.io.WKTReader")().read(self._text(record.geometry.wkt))
            roi = self._java("qupath.lib.roi.GeometryTools").geometryToROI(area, plane)
        path_class = None if record.path_class is None else self.path_class(record.path_class)
        made = self._java("qupath.lib.objects.PathObjects").createAnnotationObject(roi, path_class)
        made.setID(self._uuid(record.id))
        made.setName(None if record.name is None else self._text(record.name))
        made.setDescription(None if record.description is None else self._text(record.description))
        if record.rgb is not None:
            made.setColor(*record.rgb)
        made.setLocked(record.locked)
        for key, value in record.metadata.items():
            self._mark(made, self._text(key), self._text(value))
        return made

    def marked(self, objects: Any) -> Any:
        """Those of a Java collection that carry our mark, as a Java list."""
        key = self._text(OWNERSHIP_KEY)
        found = self._java("java.util.ArrayList")()
        for one in objects:
            if one.getMetadata().containsKey(key):
                found.add(one)
        return found

    def path_class(self, wanted: PathClassRef) -> Any:
        """The PathClass of these names, in the project's colour, or in this one if the project lacks the class."""
        of = self._java("qupath.lib.objects.classes.PathClass")
        found: Any = None
        for name in wanted.names:
            found = of.getInstance(found, self._text(name), None)
        colour = self._colours.get(wanted.names) or wanted.rgb
        if colour is not None:
            found.setColor(*colour)
        return found

    def by_id(self, ids: Iterable[str], objects: Any) -> Any:
        """The objects that have these ids, from a Java collection, as a Java list."""
        wanted = self._java("java.util.Arrays").stream(self._text(" ".join(ids)).split(" ")).map(self._to_uuid).toList()
        found = self._java("qupath.lib.objects.PathObjectTools").findByUUID(wanted, objects)
        there = self._java("java.util.ArrayList")(found.values())
        there.removeAll(self._java("java.util.Collections").singleton(None))
        return there

    @functools.cached_property
    def _to_uuid(self) -> Any:
        """``UUID.fromString`` as a Java function, which Java calls without asking Python."""
        uuid, text = self._java("java.util.UUID").class_, self._text.class_
        handles = self._java("java.lang.invoke.MethodHandles").publicLookup()
        call = handles.findStatic(uuid, "fromString", self._java("java.lang.invoke.MethodType").methodType(uuid, text))
        function = self._java("java.util.function.Function")
        return self._java("java.lang.invoke.MethodHandleProxies").asInterfaceInstance(function.class_, call)

    def measure(self, annotation: Any, values: Mapping[str, float], ours: Sequence[str]) -> None:
        """Give an annotation these measurements, at the end; those of ``ours`` that it has leave it first."""
        measurements = annotation.getMeasurementList()
        have = {str(name) for name in measurements.getMeasurementNames()}
        gone = [self._text(name) for name in dict.fromkeys([*ours, *values]) if name in have]
        if not gone and not values:
            return
        for name in gone:
            measurements.remove(name)
        for name, value in values.items():
            measurements.put(self._text(name), float(value))
        measurements.close()

    def _marker_before_06(self) -> Any:
        store = self._java("qupath.lib.objects.PathObject").class_.getDeclaredMethod(
            "storeMetadataValue", self._text.class_, self._text.class_
        )
        store.setAccessible(True)
        return store.invoke


def _stream_of(tiles: NewTiles) -> tuple[list[tuple[str | None, int]], bytes]:
    """A data file of these tiles alone, all below the root: parents and numbers of tiles, in order, and the bytes."""
    maker = StreamMaker([])
    runs = Objects(maker).tiles(tiles)
    count = sum(len(run) for _, run in runs)
    size = Block(struct.pack(">i", count))
    root = maker.object(f"{PACKAGE}PathRootObject", annotation=[None, None, None, size, *(run for _, run in runs)])
    items: list[Node] = [first_line(), maker.object(f"{PACKAGE}hierarchy.PathObjectHierarchy", b"", [root, None])]
    return [(parent, len(run)) for parent, run in runs], Writer(len(maker.nodes)).stream(items)


def _put_mark(made: Any, key: Any, mark: Any) -> None:
    made.getMetadata().put(key, mark)

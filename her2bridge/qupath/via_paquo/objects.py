"""Records to QuPath's own objects, and its hierarchy to a graph that ours are read from.

Each call into the JVM costs microseconds, so objects are read all at once: QuPath writes its hierarchy as a stream of
Java objects, which ``via_files`` reads in columns. They are made one by one, through PathObjects, and added in bulk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import shapely

from her2bridge.qupath.seam import OWNERSHIP_KEY, NewTiles, PathClassRef, PathObject
from her2bridge.qupath.via_files.data_file import Graph
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
        """Tile objects, as a Java list for each parent's id."""
        roi = self._java("qupath.lib.roi.ROIs").createRectangleROI
        plane = self._java("qupath.lib.regions.ImagePlane").getDefaultPlane()
        tile = self._java("qupath.lib.objects.PathObjects").createTileObject
        new_list = self._java("qupath.lib.measurements.MeasurementListFactory").createMeasurementList
        floats = self._java("qupath.lib.measurements.MeasurementList$MeasurementListType").FLOAT
        classes = [*map(self.path_class, tiles.path_classes), None]
        names = [self._text(name) for name in tiles.measurement_names]
        key, mark = self._text(OWNERSHIP_KEY), self._text(tiles.mark)
        lists = [self._java("java.util.ArrayList")() for _ in tiles.parent_ids]
        rows = zip(
            tiles.ids, tiles.origins.tolist(), tiles.classes.tolist(), tiles.parents.tolist(),
            tiles.measurements.astype(float).tolist(), strict=True,
        )  # fmt: skip
        for id_, (x, y), class_number, parent, values in rows:
            measurements = new_list(len(names), floats)
            for name, value in zip(names, values, strict=True):
                measurements.put(name, value)
            measurements.close()
            made = tile(roi(x, y, tiles.side, tiles.side, plane), classes[class_number], measurements)
            made.setID(self._uuid(id_))
            self._mark(made, key, mark)
            lists[parent].add(made)
        return {parent: each for parent, each in zip(tiles.parent_ids, lists, strict=True) if each.size()}

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

    def by_id(self, ids: Iterable[str], objects: Any) -> list[Any]:
        """The objects that have these ids, from a Java collection."""
        wanted = self._java("java.util.ArrayList")()
        for one in ids:
            wanted.add(self._uuid(one))
        found = self._java("qupath.lib.objects.PathObjectTools").findByUUID(wanted, objects)
        return [found[one] for one in wanted if found[one] is not None]

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


def _put_mark(made: Any, key: Any, mark: Any) -> None:
    made.getMetadata().put(key, mark)

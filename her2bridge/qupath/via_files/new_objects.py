"""Records to objects of a data file: tiles as a run, annotations one by one, measurements of regions."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from her2bridge.qupath.seam import OWNERSHIP_KEY, NewTiles, PathClassRef, PathObject, packed_colour
from her2bridge.qupath.via_files.java_forms import form_of
from her2bridge.qupath.via_files.java_maker import Maker
from her2bridge.qupath.via_files.java_nodes import Block, ClassDesc, Node, Object, Part, StreamError
from her2bridge.qupath.via_files.java_runs import Run, distinct
from her2bridge.qupath.via_files.path_objects import OBJECT_ID, PACKAGE, class_ref, list_items, measurements_of
from her2bridge.qupath.via_files.rois import GEOMETRY, POLYGON, RECTANGLE, box_of
from her2bridge.records import IntArray

_PATH_CLASS = f"{PACKAGE}classes.PathClass"
_OBJECTS = "[Ljava.lang.Object;"
_DEFAULT_LIST = "qupath.lib.measurements.DefaultMeasurementList"
_FLOAT_LIST = "qupath.lib.measurements.NumericMeasurementList$FloatList"
_NO_PROBABILITY = Block(struct.pack(">d", float("nan")))
_NO_CHILDREN = Block(bytes(4))
_ALL_CHANNELS = struct.pack(">i", -1)


class Objects:
    """Makes objects in a graph; what objects share (PathClasses, booleans, keys) is made once."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        self._classes: dict[PathClassRef, Object] = {}
        for run in (node for node in distinct(maker.nodes) if isinstance(node, Run)):
            if any(isinstance(slot.node, ClassDesc) and slot.node.name == _PATH_CLASS for slot in run.form.slots):
                list(run.objects())  # each has a PathClass of its own, which so becomes a node
        for node in distinct(maker.nodes):
            if isinstance(node, Object) and node.name == _PATH_CLASS:
                found = class_ref(node)
                if found is not None:
                    self._classes.setdefault(found, node)
        self._booleans: dict[bool, Object] = {}

    def path_class(self, wanted: PathClassRef | None) -> Object | None:
        """The graph's own node of an equal PathClass, else a new one."""
        if wanted is None:
            return None
        if wanted not in self._classes:
            parent = self._parent(wanted)
            colour = None if wanted.rgb is None else self.maker.integer(packed_colour(wanted.rgb))
            fields = [colour, self.maker.text(wanted.names[-1]), parent]
            self._classes[wanted] = self.maker.object(_PATH_CLASS, b"", fields)
        return self._classes[wanted]

    def _parent(self, wanted: PathClassRef) -> Object | None:
        names = wanted.names[:-1]
        if not names:
            return None
        known = next((node for ref, node in self._classes.items() if ref.names == names), None)
        return known or self.path_class(PathClassRef(names))

    def boolean(self, value: bool) -> Object:
        """A ``java.lang.Boolean``."""
        if value not in self._booleans:
            self._booleans[value] = self.maker.object("java.lang.Boolean", bytes((value,)))
        return self._booleans[value]

    def metadata(self, values: Mapping[str, str], *, shared: bool = True) -> Object:
        """A MetadataMap."""
        maker = self.maker
        keys = [maker.text(key) for key in values]
        texts = [maker.text(value, shared=shared) for value in values.values()]
        arrays = [maker.array(_OBJECTS, items=list(items)) for items in (keys, texts)]
        return maker.object(f"{PACKAGE}MetadataMap", annotation=[maker.integer(1), *arrays])

    def annotation(self, record: PathObject) -> Object:
        """An annotation with an area.

        Raises:
            StreamError: its geometry is no area.
        """
        maker = self.maker
        values = dict(record.metadata) | {OBJECT_ID: record.id}
        if record.description is not None:
            values["ANNOTATION_DESCRIPTION"] = record.description
        items: list[Node] = [
            None if record.name is None else maker.text(record.name),
            None if record.rgb is None else maker.integer(packed_colour(record.rgb)),
            self.metadata(values),
            self.measurements(None, record.measurements, frozenset()),
            _NO_CHILDREN,
            self.boolean(record.locked),
            self.path_class(record.path_class),
            self._area(record.geometry, record.plane),
            _NO_PROBABILITY,
        ]
        return maker.object(f"{PACKAGE}PathAnnotationObject", annotation=items)

    def _area(self, geometry: BaseGeometry | None, plane: tuple[int, int, int]) -> Object:
        maker = self.maker
        c, z, t = plane
        numbers = struct.pack(">iii", c, t, z)
        if not isinstance(geometry, Polygon | MultiPolygon) or geometry.is_empty:
            raise StreamError("an annotation needs a polygon")
        if isinstance(geometry, Polygon) and not geometry.interiors:
            x0, y0, x1, y1 = geometry.bounds
            if geometry.equals(shapely.box(x0, y0, x1, y1)):
                return maker.object(RECTANGLE, struct.pack(">iiddddi", c, t, x0, x1, y0, y1, z), [None])
            points = shapely.get_coordinates(geometry.exterior)[:-1].astype(">f4")
            x, y = (maker.array("[F", points[:, axis].tobytes()) for axis in (0, 1))
            return maker.object(POLYGON, numbers, [None, None, x, y])
        wkb = maker.array("[B", shapely.to_wkb(geometry, byte_order=0))
        return maker.object(GEOMETRY, numbers, [None, wkb])

    def measurements(self, node: Node, values: Mapping[str, float], ours: frozenset[str]) -> Node:
        """An annotation's measurement list with other values: what is in ``ours`` or ``values`` leaves it first."""
        maker = self.maker
        gone = ours | set(values)
        kept: list[Node] = []
        if isinstance(node, Object) and node.name == _DEFAULT_LIST:
            before = list_items(node.field("list"))
            kept = [item for item in before if isinstance(item, Object) and str(item.field("name")) not in gone]
            if not values and len(kept) == len(before):
                return node
        else:
            have = measurements_of(node)
            if not values and not gone & set(have):
                return node
            kept = [self._measurement(name, value) for name, value in have.items() if name not in gone]
        items = [*kept, *(self._measurement(name, value) for name, value in values.items())]
        return maker.object(_DEFAULT_LIST, b"", [maker.array_list(items)]) if items else None

    def _measurement(self, name: str, value: float) -> Object:
        fields = [self.maker.text(name)]
        return self.maker.object("qupath.lib.measurements.DoubleMeasurement", struct.pack(">d", value), fields)

    def tiles(self, tiles: NewTiles) -> list[tuple[str | None, Run]]:
        """Tile objects as runs, each below one parent (an annotation's id, or None for the root)."""
        runs = []
        for is_classified in (True, False):
            rows = np.flatnonzero((tiles.classes >= 0) == is_classified)
            if not len(rows):
                continue
            run = self._tile_run(tiles, rows)
            for parent in np.unique(tiles.parents[rows]):
                below = run.select(np.flatnonzero(tiles.parents[rows] == parent))
                runs.append((tiles.parent_ids[int(parent)], below))
        return runs

    def _tile_run(self, tiles: NewTiles, rows: IntArray) -> Run:
        maker = self.maker
        classes = [self.path_class(one) for one in tiles.path_classes]
        path_class = classes[int(tiles.classes[rows[0]])] if tiles.classes[rows[0]] >= 0 else None
        names = maker.array_list([maker.text(name) for name in tiles.measurement_names])
        keys: list[Node] = [maker.text(OBJECT_ID), maker.text(OWNERSHIP_KEY)]
        version, mark, unlocked = maker.integer(1), maker.text(tiles.mark), self.boolean(False)
        for name in (f"{PACKAGE}MetadataMap", _OBJECTS, f"{PACKAGE}PathTileObject", _FLOAT_LIST, RECTANGLE, "[F"):
            maker.desc(name)
        first_key = maker.next_key  # from here on: what each tile has of its own
        id_ = maker.text("-" * 36, shared=False)
        arrays = [maker.array(_OBJECTS, items=list(items)) for items in (keys, (id_, mark))]
        metadata = maker.object(f"{PACKAGE}MetadataMap", annotation=[version, *arrays])
        values = maker.array("[F", bytes(4 * len(tiles.measurement_names)))
        measurements = maker.parts(_FLOAT_LIST, [Part(b"\0", [None, names]), Part(b"", [values])])
        roi = maker.object(RECTANGLE, _ALL_CHANNELS + bytes(40), [None])
        items: list[Node] = [
            None,
            None,
            metadata,
            measurements,
            _NO_CHILDREN,
            unlocked,
            path_class,
            roi,
            _NO_PROBABILITY,
        ]
        model = maker.object(f"{PACKAGE}PathTileObject", annotation=items)
        form, raw = form_of(model, first_key)
        table = np.tile(np.frombuffer(raw, dtype=np.uint8), (len(rows), 1))
        one = Run.of_equals(form, raw, 1, maker.nodes)

        def fill(node: Node | Part, at: int, content: bytes, width: int) -> None:
            slot = form.slot_of(node)
            assert slot is not None
            start = int(one.places(slot)[0][0]) + at
            table[:, start : start + width] = np.frombuffer(content, dtype=np.uint8).reshape(len(rows), width)

        fill(id_, 0, "".join(tiles.ids[row] for row in rows.tolist()).encode("ascii"), 36)
        if tiles.measurement_names:
            fill(values, 0, tiles.measurements[rows].astype(">f4").tobytes(), 4 * len(tiles.measurement_names))
        bounds = tiles.bounds()[rows].astype(">f8")
        for column, at in enumerate(box_of(roi.desc)):
            fill(roi.parts[-1], at, bounds[:, column].tobytes(), 8)
        if path_class is not None:
            handles = np.array([node.key if node else 0 for node in classes], dtype=np.int64)[tiles.classes[rows]]
            fill(path_class, 0, Run.handles_of(handles), 4)
        return Run.of_equals(form, table.tobytes(), len(rows), maker.nodes, register=True)

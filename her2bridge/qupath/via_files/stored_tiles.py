"""Our tiles as they stand in a data file: found, and read in columns where they stand in runs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Point

from her2bridge.qupath.seam import OWNERSHIP_KEY, StoredTiles
from her2bridge.qupath.via_files.java_forms import Slot
from her2bridge.qupath.via_files.java_nodes import Array, Keyed, Node, Object, Text
from her2bridge.qupath.via_files.java_runs import MAX_ROWS, Run
from her2bridge.qupath.via_files.path_objects import (
    DETECTIONS,
    KINDS,
    OBJECT_ID,
    class_ref,
    fields_of,
    list_items,
    may_hold_only_detections,
    metadata_arrays,
    object_id,
    read_object,
    strings,
    walk,
)
from her2bridge.qupath.via_files.rois import POLYGON, RECTANGLE, box_of, centroids_of_polygons, floats_of, read_roi
from her2bridge.records import Float32Array, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Columns:
    """Some of our tiles, m rows. ``rows`` are those of the run they stand in; of an object by itself, row 0."""

    holder: Object | Run
    rows: IntArray
    ids: list[str]
    bounds: FloatArray
    class_names: list[str | None]
    measurements: dict[str, Float32Array]
    marks: list[str]


def find_marked(root: Object) -> list[Columns]:
    """All detections that carry our mark, wherever in the tree."""
    found = []
    for item, _ in walk(root):
        if isinstance(item, Run):
            found += _of_run(item)
        elif (mark := _mark_of(item)) is not None:
            found.append(_of_object(item, item, 0, mark))
    return found


def joined(parts: Sequence[Columns]) -> StoredTiles:
    """The seam's record of all of them."""
    counts = [len(part.ids) for part in parts]
    total = sum(counts)
    names = list(dict.fromkeys(name for part in parts for name in part.measurements))
    measurements = {name: np.full(total, np.nan, dtype=np.float32) for name in names}
    at = 0
    for part, count in zip(parts, counts, strict=True):
        for name, values in part.measurements.items():
            measurements[name][at : at + count] = values
        at += count
    return StoredTiles(
        ids=[one for part in parts for one in part.ids],
        bounds=np.concatenate([np.empty((0, 4)), *(part.bounds for part in parts)]),
        class_names=[one for part in parts for one in part.class_names],
        measurements=measurements,
        run_ids=[one for part in parts for one in part.marks],
    )


def centroids(root: Object, last_names: frozenset[str]) -> FloatArray:
    """Centroids, float64 [m, 2], of detections without our mark whose class's last name is one of these."""
    points: list[FloatArray] = []
    for item, _ in walk(root):
        if isinstance(item, Object):
            points += _centroid_of(item, last_names)
            continue
        some = item.select(np.flatnonzero(_are_named(item, last_names)))
        mine = np.zeros(len(some), dtype=bool)
        for columns in _of_run(some):
            mine[columns.rows] = True
        rest = some.select(np.flatnonzero(~mine))
        for start in range(0, len(rest), MAX_ROWS):
            points += _centroids_of(rest.select(np.arange(start, min(start + MAX_ROWS, len(rest)))), last_names)
    return np.concatenate([np.empty((0, 2)), *points])


def _centroids_of(run: Run, last_names: frozenset[str]) -> list[FloatArray]:
    boxes = _boxes(run)
    if boxes is not None:
        return [_middles(boxes)]
    roi = fields_of(run.form.model).roi
    if isinstance(roi, Object) and roi.name == POLYGON:
        x, y = (_float_arrays(run, roi.field(axis)) for axis in ("x", "y"))
        if x and y and (x[1] == y[1]).all() and (x[1] >= 3).all():
            return [centroids_of_polygons(x[0], y[0], x[1])]
    return [point for one in run.objects() for point in _centroid_of(one, last_names)]


def _are_named(run: Run, last_names: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Of which objects the class's last name is one of these, bool [m]."""
    path_class = fields_of(run.form.model).path_class
    slot = run.form.slot_of(path_class)
    if path_class is None:
        return np.zeros(len(run), dtype=bool)
    if slot is None:
        return np.array([_is_named(fields_of(one).path_class, last_names) for one in run.objects()], dtype=bool)
    keys = run.referred(slot)
    named = [key for key in np.unique(keys).tolist() if _is_named(run.resolve(key), last_names)]
    return np.isin(keys, named)


def _float_arrays(run: Run, node: Node | bytes) -> tuple[FloatArray, IntArray] | None:
    """A float[] of each object, one after the other, and their lengths; None where the form has no such slot."""
    slot = run.form.slot_of(node) if isinstance(node, Array) and node.desc.name == "[F" else None
    if slot is None or slot.kind != "array":
        return None
    raw, widths = run.arrays_of(slot)
    return floats_of(raw), widths // 4


def _centroid_of(node: Object, last_names: frozenset[str]) -> list[FloatArray]:
    if KINDS.get(node.name) not in DETECTIONS or not _is_named(fields_of(node).path_class, last_names):
        return []
    if _mark_of(node) is not None:
        return []
    roi = fields_of(node).roi
    box = _exact_box(roi)
    if box is not None:
        return [_middles(box)]
    geometry = read_roi(roi).geometry if isinstance(roi, Object) else Point()
    return [] if geometry.is_empty else [shapely.get_coordinates(geometry.centroid)]


def _is_named(node: Node, last_names: frozenset[str]) -> bool:
    found = class_ref(node)
    return found is not None and found.names[-1] in last_names


def _mark_of(node: Object) -> str | None:
    fields = fields_of(node)
    return strings(fields.metadata).get(OWNERSHIP_KEY) if fields.kind in DETECTIONS else None


def _of_object(node: Object, holder: Object | Run, row: int, mark: str) -> Columns:
    read = read_object(node, None)
    bounds = _exact_box(fields_of(node).roi)
    if bounds is None:
        bounds = np.array([(np.nan,) * 4 if read.geometry is None else read.geometry.bounds])
    return Columns(
        holder=holder,
        rows=np.array([row]),
        ids=[read.id],
        bounds=bounds,
        class_names=[None if read.path_class is None else str(read.path_class)],
        measurements={name: np.array([value], dtype=np.float32) for name, value in read.measurements.items()},
        marks=[mark],
    )


def _of_run(run: Run) -> list[Columns]:
    """The marked ones of a run of detections; in columns where its form allows, else one by one."""
    assert may_hold_only_detections(run)
    if not len(run):
        return []
    if (columns := _columns(run)) is not None:
        return columns
    found = []
    for row in range(len(run)):
        node = run.object(row)
        if (mark := _mark_of(node)) is not None:
            found.append(_of_object(node, run, row, mark))
    return found


def _columns(run: Run) -> list[Columns] | None:
    """None where the form is not that of tiles as QuPath or we write them, or objects differ in more than values."""
    fields = fields_of(run.form.model)
    if fields.metadata is None:
        return []
    keys, values = metadata_arrays(fields.metadata)
    if not _all_as_in_model(run, keys):
        return None
    names = [str(key) for key in keys]
    if OWNERSHIP_KEY not in names:
        return []
    if OBJECT_ID not in names:
        return None
    boxes, measured = _boxes(run), _measured(run, fields.measurements)
    ids, marks = (_texts(run, values[names.index(name)]) for name in (OBJECT_ID, OWNERSHIP_KEY))
    classes = _class_names(run, fields.path_class)
    if boxes is None or measured is None or ids is None or marks is None or classes is None:
        return None
    return [Columns(run, np.arange(len(run)), ids, boxes, classes, measured, marks)]


def _all_as_in_model(run: Run, nodes: Sequence[Node]) -> bool:
    """Whether these are strings that are the same in every object."""
    for node in nodes:
        slot = run.form.slot_of(node)
        if slot is None or not isinstance(node, Text):
            return False
        if slot.kind == "reference":
            if any(not isinstance(one, Text) or one.raw != node.raw for one in _led_to(run, slot)):
                return False
        elif len(run):
            _, widths = run.places(slot)
            wanted = np.frombuffer(node.raw, dtype=np.uint8)
            if (widths != len(wanted)).any() or (run.bytes_of(slot, 0, len(wanted)) != wanted).any():
                return False
    return True


def _boxes(run: Run) -> FloatArray | None:
    """x0, y0, x1, y1 of rectangles, float64 [m, 4]; None where the form has another ROI."""
    roi = fields_of(run.form.model).roi
    if not isinstance(roi, Object) or roi.name != RECTANGLE:
        return None
    slot = run.form.slot_of(roi.parts[-1])
    if slot is None:
        return None
    columns = [
        np.ascontiguousarray(run.bytes_of(slot, at, 8)).view(">f8")[:, 0].astype(np.float64) for at in box_of(roi.desc)
    ]
    return _in_order(np.stack(columns, axis=1))


def _exact_box(roi: Node) -> FloatArray | None:
    """x0, y0, x1, y1 of a rectangle, float64 [1, 4], not rounded as its geometry is; None for another ROI."""
    if not isinstance(roi, Object) or roi.name != RECTANGLE:
        return None
    numbers = roi.parts[-1].primitives
    return _in_order(np.array([[struct.unpack_from(">d", numbers, at)[0] for at in box_of(roi.desc)]]))


def _middles(boxes: FloatArray) -> FloatArray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _in_order(corners: FloatArray) -> FloatArray:
    """Boxes from two opposite corners each, float64 [m, 4]; QuPath takes either order."""
    one, other = corners[:, :2], corners[:, 2:]
    return np.concatenate([np.minimum(one, other), np.maximum(one, other)], axis=1)


def _texts(run: Run, node: Node) -> list[str] | None:
    slot = run.form.slot_of(node)
    if slot is None:
        return None
    if slot.kind == "reference":
        keys = run.referred(slot)
        known = {key: str(run.resolve(key)) for key in np.unique(keys).tolist()}
        return [known[key] for key in keys.tolist()]
    values, widths = run.arrays_of(slot)
    data, ends = values.tobytes(), np.cumsum(widths)
    places = list(zip((ends - widths).tolist(), ends.tolist(), strict=True))
    if data.isascii():  # as UUIDs are: all decoded at once
        text = data.decode("ascii")
        return [text[first:end] for first, end in places]
    return [str(Text(0, data[first:end])) for first, end in places]


def class_names_of(run: Run) -> list[str | None]:
    """The PathClass of each object of a run of detections, as QuPath prints it; None for an unclassified one."""
    names = _class_names(run, fields_of(run.form.model).path_class)
    if names is not None:
        return names
    refs = [class_ref(fields_of(one).path_class) for one in run.objects()]
    return [None if ref is None else str(ref) for ref in refs]


def ids_of(run: Run) -> list[str | None]:
    """The UUID of each object of a run of detections."""
    metadata = fields_of(run.form.model).metadata
    keys, values = ((), ()) if metadata is None else metadata_arrays(metadata)
    names = [str(key) for key in keys]
    if OBJECT_ID in names and _all_as_in_model(run, keys):
        found = _texts(run, values[names.index(OBJECT_ID)])
        if found is not None:
            return list(found)
    return [object_id(one) for one in run.objects()]


def _class_names(run: Run, node: Node) -> list[str | None] | None:
    if node is None:
        return [None] * len(run)
    slot = run.form.slot_of(node)
    if slot is None or slot.kind != "reference":
        return None
    keys = run.referred(slot)
    refs = {key: class_ref(run.resolve(key)) for key in np.unique(keys).tolist()}
    known = {key: None if ref is None else str(ref) for key, ref in refs.items()}
    return [known[key] for key in keys.tolist()]


def _measured(run: Run, node: Node) -> dict[str, Float32Array] | None:
    if node is None:
        return {}
    if not isinstance(node, Object) or not node.name.endswith("NumericMeasurementList$FloatList"):
        return None
    listed, values = node.field("names"), node.field("values")
    if not isinstance(values, Array) or isinstance(listed, bytes):
        return None
    names = list_items(listed)
    as_one = run.form.slot_of(listed)
    if as_one is not None and as_one.kind == "reference":
        wanted = [str(name) for name in names]
        if any([str(name) for name in list_items(one)] != wanted for one in _led_to(run, as_one)):
            return None
    elif not _all_as_in_model(run, names):
        return None
    slot = run.form.slot_of(values)
    if slot is None or slot.kind != "array":
        return None
    _, widths = run.places(slot)
    if (widths < 4 * len(names)).any():
        return None
    raw = np.ascontiguousarray(run.bytes_of(slot, 0, 4 * len(names))).view(">f4").astype(np.float32)
    return {str(name): raw[:, index] for index, name in enumerate(names)}


def _led_to(run: Run, slot: Slot) -> list[Keyed]:
    """What a slot refers to in any of the objects, each once."""
    return [run.resolve(key) for key in np.unique(run.referred(slot)).tolist()]

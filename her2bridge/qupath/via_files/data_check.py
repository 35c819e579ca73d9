"""Whether what was written is what was asked for, and whether the rest is as it was: by records, not by bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import shapely

from her2bridge.qupath.seam import ImageUpdate, PathObject
from her2bridge.qupath.via_files.data_file import Graph
from her2bridge.qupath.via_files.java_nodes import StreamError
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.path_objects import KINDS, class_ref, fields_of, object_id, walk
from her2bridge.qupath.via_files.stored_tiles import class_names_of, ids_of

_ROUNDING = 0.02  # px; QuPath versions keep two decimals or single floats of the same outline


def check_measurements(before: Graph, after: Graph, update: ImageUpdate) -> set[str]:
    """Raise a StreamError where an annotation's measurements are not as wanted; the ids of those that we measure."""
    old, new = before.annotations(), after.annotations()
    if len(old) != len(new):
        raise StreamError("another number of annotations")
    measured = set(update.region_measurements)
    for had, has in zip(old, new, strict=True):
        if _measured(had, update) != [(name, repr(value)) for name, value in has.measurements.items()]:
            raise StreamError(f"other measurements of the annotation {had.id}")
        if update.measurement_names & set(had.measurements):
            measured.add(had.id)
    return measured


def _measured(annotation: PathObject, update: ImageUpdate) -> list[tuple[str, str]]:
    """The measurements that an annotation is to have; as text, so that NaN equals NaN."""
    values = update.region_measurements.get(annotation.id, {})
    gone = update.measurement_names | set(values)
    kept = {name: value for name, value in annotation.measurements.items() if name not in gone}
    return [(name, repr(float(value))) for name, value in {**kept, **values}.items()]


def check_ours(before: Graph, after: Graph, update: ImageUpdate) -> None:
    """Raise a StreamError where the marked tiles are not those that stay and those that were added."""
    removed = set(update.remove_ids)
    had, has = before.stored_tiles(), after.stored_tiles()
    stay = np.array([row for row, one in enumerate(had.ids) if one not in removed], dtype=np.int64)
    ids = [had.ids[row] for row in stay]
    names = [had.class_names[row] for row in stay]
    for group in update.tiles:
        ids += group.ids
        names += group.class_names()
    bounds = np.concatenate([had.bounds[stay], *(group.bounds() for group in update.tiles)])
    wanted, found = np.argsort(ids, kind="stable"), np.argsort(list(has.ids), kind="stable")
    if len(wanted) != len(found):
        raise StreamError(f"{len(found)} tiles instead of {len(wanted)}")
    for ours, theirs in zip(wanted.tolist(), found.tolist(), strict=True):
        if ids[ours] != has.ids[theirs] or names[ours] != has.class_names[theirs]:
            raise StreamError(f"another tile than {ids[ours]}")
    if not np.array_equal(bounds[wanted], has.bounds[found], equal_nan=True):
        raise StreamError("tiles lie elsewhere")


def check_rest(before: Graph, after: Graph) -> None:
    """Raise a StreamError where an object that is not ours has changed.

    Annotations are compared whole but for their measurements, outlines up to rounding; detections by their ids, kinds
    and classes.
    """
    for had, has in zip(before.annotations(), after.annotations(), strict=True):
        if _plain(had) != _plain(has):
            raise StreamError(f"the annotation {had.id} is another")
        if had.geometry is not None and not _same_outline(had.geometry, has.geometry):
            raise StreamError(f"the annotation {had.id} lies elsewhere")
    if Counter(_others(before)) != Counter(_others(after)):
        raise StreamError("other detections than before")


def _plain(one: PathObject) -> tuple[object, ...]:
    """What of an annotation can be compared by itself; of its class the names, since QuPath has one colour a class."""
    names = None if one.path_class is None else one.path_class.names
    shown = (one.name, names, one.rgb, one.description, one.locked, one.is_ellipse)
    return (one.id, one.parent_id, one.plane, dict(one.metadata), *shown)


def _same_outline(one: shapely.Geometry, other: shapely.Geometry | None) -> bool:
    return other is not None and bool(shapely.hausdorff_distance(one, other) <= _ROUNDING)


def _others(graph: Graph) -> Iterator[tuple[str, str | None, str | None]]:
    """Kind, class and id of every object but annotations and marked tiles."""
    ours = {one for columns in graph.marked for one in columns.ids}
    for item, _ in walk(graph.root):
        if isinstance(item, Run):
            kind = KINDS[item.form.model.name]
            rows = zip(class_names_of(item), ids_of(item), strict=True)
            yield from ((kind, name, one) for name, one in rows if one not in ours)
        elif KINDS[item.name] not in ("annotation", "root") and (one := object_id(item)) not in ours:
            path_class = class_ref(fields_of(item).path_class)
            yield KINDS[item.name], None if path_class is None else str(path_class), one

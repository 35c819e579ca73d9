"""Whether what was written is what was asked for, and whether the rest is as it was: by records, not by bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import shapely

from her2bridge.qupath.seam import OWNERSHIP_KEY, ImageUpdate, PathObject
from her2bridge.qupath.via_files.data_file import Graph
from her2bridge.qupath.via_files.java_nodes import StreamError
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.path_objects import KINDS, class_ref, fields_of, object_id, walk
from her2bridge.qupath.via_files.stored_tiles import class_names_of, ids_of

_ROUNDING = 0.02  # px; QuPath versions keep two decimals or single floats of the same outline


def check_measurements(before: Graph, after: Graph, update: ImageUpdate) -> set[str]:
    """Raise a StreamError where an annotation's measurements are not as wanted; the ids of those that we measure."""
    measured = set(update.region_measurements)
    for had, has in _staying(before, after, update):
        if _measured(had, update) != _texts(has.measurements):
            raise StreamError(f"other measurements of the annotation {had.id}")
        if update.measurement_names & set(had.measurements):
            measured.add(had.id)
    return measured


def _measured(annotation: PathObject, update: ImageUpdate) -> list[tuple[str, str]]:
    """The measurements that an annotation is to have; as text, so that NaN equals NaN."""
    values = update.region_measurements.get(annotation.id, {})
    gone = update.measurement_names | set(values)
    kept = {name: value for name, value in annotation.measurements.items() if name not in gone}
    return _texts({**kept, **values})


def _texts(measurements: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(name, repr(float(value))) for name, value in measurements.items()]


def _staying(before: Graph, after: Graph, update: ImageUpdate) -> Iterator[tuple[PathObject, PathObject]]:
    """The annotations that are neither removed nor new, as they were and as they are, by their ids.

    Not in the file's order: QuPath moves what lay below a removed object to the end.
    """
    removed, new = set(update.remove_ids), {one.id for one in update.annotations}
    had = [one for one in before.annotations() if not (one.id in removed and OWNERSHIP_KEY in one.metadata)]
    has = [one for one in after.annotations() if one.id not in new]
    if len(had) != len(has):
        raise StreamError("another number of annotations")
    yield from zip(*(sorted(some, key=lambda one: one.id) for some in (had, has)), strict=True)


def check_ours(before: Graph, after: Graph, update: ImageUpdate) -> None:
    """Raise a StreamError where marked tiles and new annotations are not those that stay and those that were added."""
    _check_new_annotations(after, update)
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


def _check_new_annotations(after: Graph, update: ImageUpdate) -> None:
    """Raise a StreamError where an annotation is not there once, or not as it was given."""
    wanted = {one.id: one for one in update.annotations}
    found = [one for one in after.annotations() if one.id in wanted]
    if Counter(one.id for one in found) != Counter(one.id for one in update.annotations):
        raise StreamError("other annotations than those that were added")
    for has in found:
        gave = wanted[has.id]
        if _plain(gave) != _plain(has) or _texts(gave.measurements) != _texts(has.measurements):
            raise StreamError(f"the new annotation {has.id} is another")
        if gave.geometry is None or not _same_outline(gave.geometry, has.geometry):
            raise StreamError(f"the new annotation {has.id} lies elsewhere")


def check_rest(before: Graph, after: Graph, update: ImageUpdate) -> None:
    """Raise a StreamError where an object that is not ours has changed.

    Annotations are compared whole but for their measurements, outlines up to rounding; detections by their ids, kinds
    and classes.
    """
    above = {one.id: one.parent_id for one in before.annotations() if OWNERSHIP_KEY in one.metadata}
    gone = above.keys() & set(update.remove_ids)
    for had, has in _staying(before, after, update):
        parent = had.parent_id
        while parent in gone:
            parent = above[parent]
        if _plain(replace(had, parent_id=parent)) != _plain(has):
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

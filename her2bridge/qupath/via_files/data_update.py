"""What changes in a data file: tiles and annotations of ours, measurements of regions; all else as it was.

Before bytes are given out they are read again: without what is ours, they and the file they come from must be one
graph; what is ours must be what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from her2bridge.errors import DataFileDamaged
from her2bridge.qupath.seam import ImageUpdate
from her2bridge.qupath.via_files.data_check import check_measurements, check_ours
from her2bridge.qupath.via_files.data_file import DataFile, annotation_id
from her2bridge.qupath.via_files.java_equal import assert_equal
from her2bridge.qupath.via_files.java_maker import Maker
from her2bridge.qupath.via_files.java_nodes import Keyed, Node, Object, StreamError
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.java_writer import Writer
from her2bridge.qupath.via_files.new_objects import Objects
from her2bridge.qupath.via_files.path_objects import fields_of, may_hold_only_detections, object_id, with_children

_Measure = Callable[[str, Node], Node]
"""From an annotation's id and measurement list to the list that it is to have."""


def updated(file: DataFile, update: ImageUpdate) -> DataFile:
    """The file with the update, read again and compared.

    Args:
        file: as it is; left so.
        update: its metadata are no matter here.

    Raises:
        DataFileDamaged: the new bytes are not what they should be. A fault of ours: they must not be written.
        ValueError: an id to be removed is not that of a marked object, or a parent is missing.
    """
    objects = Objects(Maker(file.nodes))
    below: dict[str | None, list[Object | Run]] = {}
    if update.annotations:
        below[None] = [objects.annotation(one) for one in update.annotations]
    for group in update.tiles:
        for parent, run in objects.tiles(group):
            below.setdefault(parent, []).append(run)

    def measure(annotation: str, node: Node) -> Node:
        values = update.region_measurements.get(annotation, {})
        return objects.measurements(node, values, update.measurement_names)

    edited = _Edit(_Gone.of(file, update.remove_ids), below, measure).of(file.root)
    new = DataFile(Writer(len(file.nodes), edited).stream(file.items), file.where)
    try:
        _same_apart_from_ours(file, new, update)
        check_ours(file, new, update)
    except StreamError as error:
        raise DataFileDamaged(
            f"The new data failed their check before writing ({error}); the file was left as it was.",
            where=file.where,
            next_step="Please report this, with the version of QuPath that wrote the project. The results are in the"
            " project's folder her2bridge/results.",
        ) from error
    return new


@dataclass(frozen=True)
class _Gone:
    """Objects to be taken out: rows by the identity of the run they stand in, keys of those by themselves."""

    rows: Mapping[int, Set[int]]
    keys: Set[int]

    @classmethod
    def of(cls, file: DataFile, ids: Collection[str]) -> _Gone:
        """Those of the marked tiles and annotations that have these ids."""
        wanted, found = set(ids), set[str]()
        rows: dict[int, set[int]] = {}
        keys: set[int] = set()
        for columns in file.marked:
            here = [row for row, one in zip(columns.rows.tolist(), columns.ids, strict=True) if one in wanted]
            if not here:
                continue
            found.update(columns.ids)
            if isinstance(columns.holder, Run):
                rows.setdefault(id(columns.holder), set()).update(here)
            else:
                keys.add(columns.holder.key)
        for annotation in file.marked_annotations():
            if (one := object_id(annotation)) in wanted:
                found.add(str(one))
                keys.add(annotation.key)
        if wanted - found:
            raise ValueError(f"not ours to remove: {', '.join(sorted(wanted - found)[:5])}")
        return cls(rows, keys)


class _Edit:
    """Objects in place of others, by key: ours taken out and put below parents, measurement lists exchanged."""

    def __init__(self, gone: _Gone, below: Mapping[str | None, Sequence[Object | Run]], measure: _Measure) -> None:
        self._gone = gone
        self._below = dict(below)
        self._measure = measure
        self._edited: dict[int, Keyed] = {}

    def of(self, root: Object) -> dict[int, Keyed]:
        """The edits of a whole hierarchy."""
        self._visit(root, None)
        if self._below:
            raise ValueError(f"no annotations to put tiles below: {', '.join(map(str, self._below))}")
        return self._edited

    def _visit(self, node: Object, own_id: str | None) -> None:
        fields = fields_of(node)
        children = self._children(fields.children)
        if own_id is not None or fields.kind == "root":
            children += self._below.pop(own_id, ())
        measurements = fields.measurements if own_id is None else self._measure(own_id, fields.measurements)
        if measurements is not fields.measurements or list(fields.children) != children:
            self._edited[node.key] = with_children(node, children, measurements)

    def _children(self, before: Sequence[Node]) -> list[Node]:
        children: list[Node] = []
        for child in before:
            gone = self._gone.rows.get(id(child), frozenset())
            if isinstance(child, Run) and may_hold_only_detections(child):
                rest = [row for row in range(len(child)) if row not in gone] if gone else None
                left = child if rest is None else child.select(np.array(rest, dtype=np.int64))
                children += [left] if len(left) else []
                continue
            for row, each in enumerate(child.objects() if isinstance(child, Run) else (child,)):
                assert isinstance(each, Object)
                self._visit(each, annotation_id(each))
                if row in gone or each.key in self._gone.keys:  # what a person put below it stays, in its place
                    edited = self._edited.get(each.key, each)
                    assert isinstance(edited, Object)
                    children += fields_of(edited).children
                else:
                    children.append(each)
        return children


def _same_apart_from_ours(file: DataFile, new: DataFile, update: ImageUpdate) -> None:
    """Raise a StreamError where anything that is not ours has changed."""
    measured = check_measurements(file, new, update)
    added = {one.id for one in update.annotations}
    bare = DataFile(Writer(len(new.nodes), _without_ours(new, measured, added)).stream(new.items), new.where)
    assert_equal(file.items, bare.items, len(file.nodes), _without_ours(file, measured, set(update.remove_ids)))


def _without_ours(file: DataFile, measured: Set[str], annotations: Set[str]) -> dict[int, Keyed]:
    """Edits that take out every marked tile, those marked annotations that have one of these ids, and the measurements
    of the annotations that we measured.
    """

    def measure(annotation: str, node: Node) -> Node:
        return None if annotation in measured else node

    marked = {one for one in map(object_id, file.marked_annotations()) if one is not None}
    gone = _Gone.of(file, {one for columns in file.marked for one in columns.ids} | (marked & annotations))
    return _Edit(gone, {}, measure).of(file.root)

"""Rows of objects of one form: kept as bytes, read and renumbered in columns.

Most of a large data file is one annotation list with a hundred thousand objects that differ only in numbers, strings
and references. From one of them a ``Form`` is made: which bytes are structure (tags, classes, counts) and which are
values (``Slot``). All neighbours with the same structure are then found without taking them apart, and their values
are columns: for each slot, positions in the buffer. A ``Run`` reads as the objects it stands for: ``objects()``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from her2bridge.qupath.via_files.java_forms import Bytes, Form, Slot, form_of
from her2bridge.qupath.via_files.java_nodes import BASE_HANDLE, Keyed, Object, Rows
from her2bridge.qupath.via_files.java_writer import Writer
from her2bridge.records import IntArray

if TYPE_CHECKING:
    from her2bridge.qupath.via_files.java_reader import Reader

_MIN_ROWS = 4
MAX_ROWS = 16_384  # that are handled at once
_MAX_BYTES = 20_000  # larger objects are too few to matter
_MAX_PAUSE = 256
_MAX_DEPTH = 10
_MAX_FORMS = 4  # of one class


class Run(Rows):
    """m objects of one form, side by side in a buffer.

    Attributes:
        form: their structure.
        data: the bytes that hold them.
        segments: int64 [m, s], where each segment of each object starts.
        ends: int64 [m], where each object ends.
        keys: int64 [m], ascending, the first key of each; an object takes ``form.handles`` of them.
        depth: how many runs must be looked into to read one of its objects: itself, a run that it refers to, and so on.
    """

    def __init__(
        self, form: Form, data: bytes, segments: IntArray, ends: IntArray, keys: IntArray, nodes: list[Keyed | Run]
    ) -> None:
        self.form = form
        self.data = data
        self.segments = segments
        self.ends = ends
        self.keys = keys
        self.depth = 1
        self._nodes = nodes
        self._buffer: Bytes = np.frombuffer(data, dtype=np.uint8)

    @classmethod
    def of_equals(cls, form: Form, data: bytes, count: int, nodes: list[Keyed | Run], *, register: bool = False) -> Run:
        """A run of ``count`` objects of the lengths of the form's model.

        Args:
            nodes: of the graph.
            register: take keys for the objects, after those that the graph has.
        """
        step = form.lengths[-1]
        starts = int(step) * np.arange(count, dtype=np.int64)
        segments = starts[:, None] + form.lengths[:-1][None, :]
        keys = len(nodes) + form.handles * np.arange(count, dtype=np.int64)
        run = cls(form, data, segments, starts + int(step), keys, nodes)
        if register:
            nodes.extend([run] * (form.handles * count))
        return run

    @staticmethod
    def handles_of(keys: IntArray) -> bytes:
        """Keys as they stand in a buffer, four bytes each."""
        return (keys + BASE_HANDLE).astype(">u4").tobytes()

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: IntArray) -> Run:
        """The run of some of its objects, in order."""
        return Run(self.form, self.data, self.segments[rows], self.ends[rows], self.keys[rows], self._nodes)

    def object(self, row: int) -> Object:
        """One of them, taken apart; the same one each time."""
        from her2bridge.qupath.via_files.java_reader import Reader

        key = int(self.keys[row])
        known = self._nodes[key]
        if not isinstance(known, Run):
            assert isinstance(known, Object)
            return known
        found = Reader(self.data, self._nodes, int(self.segments[row, 0]), key=key, find_runs=False).content()
        assert isinstance(found, Object)
        return found

    def objects(self) -> Iterator[Object]:
        """See ``Rows``."""
        return (self.object(row) for row in range(len(self)))

    def node(self, key: int) -> Keyed:
        """See ``Rows``."""
        self.object(int(np.searchsorted(self.keys, key, side="right")) - 1)
        node = self._nodes[key]
        assert not isinstance(node, Run)
        return node

    def places(self, slot: Slot) -> tuple[IntArray, IntArray]:
        """First byte and width, int64 [m] each, of a slot's value in each object."""
        if slot.offset >= 0:
            starts = self.segments[:, slot.segment] + slot.offset
            return starts, np.full(len(self), slot.width, dtype=np.int64)
        _, length, field, unit = self.form.patterns[slot.segment - 1]
        starts = self.segments[:, slot.segment - 1] + length + field
        widths = np.zeros(len(self), dtype=np.int64)
        for byte in range(field):
            widths = widths * 256 + self._buffer[starts - field + byte]
        return starts, widths * unit

    def bytes_of(self, slot: Slot, first: int, width: int) -> Bytes:
        """Some bytes of a slot's value in each object, uint8 [m, width]."""
        starts, _ = self.places(slot)
        return np.asarray(self._buffer[(starts + first)[:, None] + np.arange(width)])

    def arrays_of(self, slot: Slot) -> tuple[Bytes, IntArray]:
        """A slot's values one after another, uint8 [sum of widths], and their widths, int64 [m]."""
        starts, widths = self.places(slot)
        shift = np.repeat(starts - (np.cumsum(widths) - widths), widths)
        return self._buffer[shift + np.arange(len(shift))], widths

    def referred(self, slot: Slot) -> IntArray:
        """Keys that a reference slot refers to, int64 [m]."""
        raw = np.ascontiguousarray(self.bytes_of(slot, 0, 4))
        return raw.view(">u4")[:, 0].astype(np.int64) - BASE_HANDLE

    def resolve(self, key: int) -> Keyed:
        """The node of any key of its stream."""
        node = self._nodes[key]
        return node.node(key) if isinstance(node, Run) else node

    def without_references(self) -> bytes:
        """The objects' bytes with zero in place of every handle."""
        return self._renumbered(self.form.references, np.zeros((len(self.form.references), len(self)), np.int64))

    def sound(self, first_key: int) -> int:
        """How many objects at its head refer only to what has a key below this one, or to parts of themselves."""
        is_sound = np.ones(len(self), dtype=bool)
        for slot in self.form.references:
            target = self.referred(slot)
            is_own = (target >= self.keys) & (target < self.keys + slot.given)
            is_sound &= ((target >= 0) & (target < first_key)) | is_own
        return _leading(is_sound)

    def runs_below(self) -> list[Run]:
        """Other runs that its references lead into."""
        slots = [slot for slot in self.form.references if slot.kind == "reference"]
        keys = {key for slot in slots for key in np.unique(self.referred(slot)).tolist()}
        return [node for node in (self._nodes[key] for key in keys if key < self.keys[0]) if isinstance(node, Run)]

    def touched(self, keys: IntArray) -> npt.NDArray[np.bool_]:
        """Whether any of these keys, ascending, is an object's or of something it defines, bool [m]."""
        first, end = (np.searchsorted(keys, ends) for ends in (self.keys, self.keys + self.form.handles))
        return np.asarray(first < end)

    def write(self, writer: Writer) -> None:
        """See ``Rows``; references are renumbered in columns.

        An object is taken apart and written for itself if it is edited, if it refers to something that has not been
        written (its definition stood in an object that is gone), or if part of it has been (something that comes
        before it now refers to that part).
        """
        is_edited = self.touched(writer.edited_keys)
        start, step = 0, _MIN_ROWS
        while start < len(self):
            rows = np.arange(start, min(start + step, len(self)))
            good = 0 if is_edited[start] else self.select(rows[: _leading(~is_edited[rows])])._write_head(writer)
            start += good
            step = min(4 * step, MAX_ROWS)
            if good < len(rows):
                writer.node(self.object(start))
                start, step = start + 1, _MIN_ROWS

    def _write_head(self, writer: Writer) -> int:
        """Write objects up to the first that must be taken apart; how many those are."""
        own = self.keys[:, None] + np.arange(self.form.handles)
        count = _leading((writer.handles[own] < 0).all(axis=1))
        own = own[:count]
        writer.handles[own] = writer.taken + np.arange(own.size).reshape(own.shape)
        slots = self.form.references
        targets = np.array([self.referred(slot)[:count] for slot in slots], dtype=np.int64).reshape(len(slots), count)
        good = _leading(np.all(writer.handles[targets] >= 0, axis=0))
        writer.handles[own[good:]] = -1
        if good:
            writer.taken += good * self.form.handles
            writer.out += self.select(np.arange(good))._renumbered(slots, writer.handles[targets[:, :good]])
        return good

    def _renumbered(self, slots: list[Slot], handles: IntArray) -> bytes:
        """The objects' bytes with other handles, int64 [slots, m], in their references."""
        starts = self.segments[:, 0]
        breaks = np.flatnonzero(starts[1:] != self.ends[:-1]) + 1
        spans = zip(starts[[0, *breaks]], self.ends[[*(breaks - 1), -1]], strict=True)
        out = np.concatenate([self._buffer[first:last] for first, last in spans])
        lengths = self.ends - starts
        shift = np.cumsum(lengths) - lengths - starts
        for slot, column in zip(slots, handles, strict=True):
            places = self.places(slot)[0] + shift
            values = np.ascontiguousarray((column + BASE_HANDLE).astype(">u4"))
            out[places[:, None] + np.arange(4)] = values.view(np.uint8).reshape(-1, 4)
        return out.tobytes()


def distinct(nodes: Sequence[Keyed | Run]) -> Collection[Keyed | Run]:
    """The nodes of a graph, each once, in order: a run stands at the keys of all that its objects define."""
    return dict(zip(map(id, nodes), nodes, strict=True)).values()


def _leading(flags: npt.NDArray[np.bool_]) -> int:
    """How many stand before the first that is not set."""
    return len(flags) if flags.all() else int(flags.argmin())


class RunFinder:
    """Learns forms from objects that were read, and finds their like ahead of a reader.

    Learning gets rarer while it does not pay.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._buffer: Bytes = np.frombuffer(reader.data, dtype=np.uint8)
        self._forms: dict[bytes, list[Form]] = {}
        self._pause = 0  # objects that are not learned from
        self._next_pause = 0

    def match(self, head: bytes) -> Run | None:
        """The run that begins where the reader is, which then stands behind it; None where none does."""
        reader = self._reader
        for form in tuple(self._forms.get(head, ())):
            run = self._run(form)
            if run is not None:
                self._pause = self._next_pause = 0
                reader.at = int(run.ends[-1])
                reader.nodes.extend([run] * (form.handles * len(run)))
                reader.key += form.handles * len(run)
                return run
        return None

    def _run(self, form: Form) -> Run | None:
        """All sound objects of a form from the reader's place on; in growing steps, to stop soon where few are."""
        reader, at, step = self._reader, self._reader.at, _MIN_ROWS
        if not form.fits(reader.data, at, _MIN_ROWS):
            return None
        segments, ends, count = [], [], 0
        while True:
            found, end = form.match(reader.data, self._buffer, at, step)
            keys = reader.key + form.handles * np.arange(count, count + len(found), dtype=np.int64)
            part = Run(form, reader.data, found, np.append(found[1:, 0], end), keys, reader.nodes)
            sound = part.sound(reader.key)
            segments.append(found[:sound])
            ends.append(part.ends[:sound])
            count += sound
            if sound < step:
                break
            at, step = end, min(4 * step, MAX_ROWS)
        if count < _MIN_ROWS:
            self._forms[form.head].remove(form)  # its objects lead to each other: not to be tried with each
            return None
        keys = reader.key + form.handles * np.arange(count, dtype=np.int64)
        run = Run(form, reader.data, np.concatenate(segments), np.concatenate(ends), keys, reader.nodes)
        run.depth += max((below.depth for below in run.runs_below()), default=0)
        if run.depth > _MAX_DEPTH:
            self._forms[form.head].remove(form)
            return None
        return run

    def learn(self, model: Object, start: int, end: int, first_key: int) -> None:
        """Make a form of an object that the reader has read from ``start`` to ``end``."""
        reader = self._reader
        if self._pause:
            self._pause -= 1
            return
        if end - start > _MAX_BYTES or any(
            isinstance(item, Run) for part in model.parts for item in part.annotation or ()
        ):
            return  # what holds a run of its own is better left so
        self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause + 1, _MAX_PAUSE)
        form, raw = form_of(model, first_key)
        if raw != reader.data[start:end]:
            return
        forms = self._forms.setdefault(form.head, [])
        forms.insert(0, form)
        del forms[_MAX_FORMS:]

"""Rows of objects of one form: kept as bytes, read and renumbered in columns.

Most of a large data file is one annotation list with a hundred thousand objects that differ only in numbers, strings
and references. From one of them a ``Form`` is made: which bytes are structure (tags, classes, counts) and which are
values (``Slot``). All neighbours with the same structure are then found without taking them apart, and their values
are columns: for each slot, positions in the buffer. A ``Run`` reads as the objects it stands for: ``objects()``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from her2bridge.qupath.via_files.java_nodes import BASE_HANDLE, WIDTHS, Array, Keyed, Node, Object, Part, Rows
from her2bridge.qupath.via_files.java_writer import Tracer, Writer
from her2bridge.records import IntArray

if TYPE_CHECKING:
    from her2bridge.qupath.via_files.java_reader import Reader

Bytes = npt.NDArray[np.uint8]

_MIN_ROWS = 4
_MAX_BYTES = 20_000  # larger objects are too few to matter
_MAX_MISSES = 200
_MAX_FORMS = 4  # of one class


@dataclass(frozen=True, eq=False)
class Slot:
    """A value in an object of some form.

    Attributes:
        kind: ``reference``, ``class`` (a reference to a class), ``primitives``, ``block``, ``text`` or ``array``.
        node: whose value it is in the form's model: what is referred to, a ``Part``, ``Block``, ``Text`` or ``Array``.
        segment: after how many values of varying length it stands.
        offset: bytes from the segment's start.
        width: bytes; of the model, where lengths vary.
    """

    kind: str
    node: Node | Part
    segment: int
    offset: int
    width: int


@dataclass(frozen=True, eq=False)
class Form:
    """The structure of an object.

    Attributes:
        model: the object it was made from.
        handles: how many handles such an object takes.
        slots: its values, in order.
        head: its first six bytes.
    """

    model: Object
    handles: int
    slots: tuple[Slot, ...]
    head: bytes
    patterns: tuple[tuple[re.Pattern[bytes], int, int, int], ...]
    _fixed: tuple[Bytes, IntArray]

    @property
    def references(self) -> list[Slot]:
        """The slots that hold handles."""
        return [slot for slot in self.slots if slot.kind in ("reference", "class")]

    def slot_of(self, node: Node | Part) -> Slot | None:
        """The one slot of a node of the model; None where it has none, or several."""
        found = [slot for slot in self.slots if slot.node is node and slot.kind != "class"]
        return found[0] if len(found) == 1 else None

    def match(self, data: bytes, buffer: Bytes, at: int) -> tuple[IntArray, int]:
        """Segment starts, int64 [m, s], of the objects of this form in a row from ``at`` on, and their end."""
        if self.patterns[0][0].match(data, at) is None:
            return np.empty((0, len(self.patterns)), dtype=np.int64), at
        quick = self._match_fixed(buffer, at)
        lengths = np.cumsum([0, *(length + size for _, length, _, size in self._sized())])
        starts = at + int(lengths[-1]) * np.arange(quick, dtype=np.int64)
        at += quick * int(lengths[-1])
        more = []
        while (row := self._match_one(data, at)) is not None:
            segments, at = row
            more.append(segments)
        found = starts[:, None] + lengths[:-1][None, :]
        if more:
            found = np.concatenate([found, np.array(more, dtype=np.int64)])
        return found, at

    def _sized(self) -> Iterator[tuple[re.Pattern[bytes], int, int, int]]:
        """Patterns with the model's bytes after each: its length field and data."""
        varying = [slot for slot in self.slots if slot.kind in ("text", "array")]
        for index, (pattern, length, field, width) in enumerate(self.patterns):
            yield pattern, length, field, field + varying[index].width if width else 0

    def _match_fixed(self, buffer: Bytes, at: int) -> int:
        """How many objects from ``at`` on equal the model in structure and in all lengths."""
        literal, places = self._fixed
        size, count, step = len(literal), 0, 64
        while True:
            rows = min(step, (len(buffer) - at) // size)
            if rows <= 0:
                return count
            block = buffer[at : at + rows * size].reshape(rows, size)[:, places]
            same = (block == literal[places]).all(axis=1)
            if not same.all():
                return count + int(same.argmin())
            count, at, step = count + rows, at + rows * size, min(4 * step, 16_384)

    def _match_one(self, data: bytes, at: int) -> tuple[list[int], int] | None:
        segments = []
        for pattern, length, field, width in self.patterns:
            if pattern.match(data, at) is None:
                return None
            segments.append(at)
            at += length
            if width:
                if at + field > len(data):
                    return None
                at += field + int.from_bytes(data[at : at + field], "big") * width
        return (segments, at) if at <= len(data) else None


def form_of(model: Object, first_key: int) -> tuple[Form, bytes]:
    """The form of an object, and the object's bytes.

    Args:
        model: with keys from ``first_key`` on for all that it defines itself; smaller keys count as written before.
        first_key: see there.
    """
    tracer = Tracer(first_key)
    tracer.node(model)
    raw = bytes(tracer.out)
    slots: list[Slot] = []
    patterns = []
    is_value = np.zeros(len(raw), dtype=bool)
    start = 0
    pattern: list[bytes] = []
    done = 0

    def literal(to: int) -> None:
        nonlocal done
        pattern.append(re.escape(raw[done:to]))
        done = to

    for kind, node, at, width in tracer.slots:
        field, unit = {"text": (2, 1), "array": (4, _unit(node))}.get(kind, (0, 0))
        if unit:
            literal(at - field)
            patterns.append((re.compile(b"".join(pattern), re.DOTALL), at - field - start, field, unit))
            slots.append(Slot(kind, node, len(patterns), -1, width))
            pattern, start, done = [], at + width, at + width
            is_value[at : at + width] = True
            continue
        slots.append(Slot(kind, node, len(patterns), at - start, width))
        if kind != "class":
            literal(at)
            pattern.append(b".{%d}" % width)
            done = at + width
            is_value[at : at + width] = True
    literal(len(raw))
    patterns.append((re.compile(b"".join(pattern), re.DOTALL), len(raw) - start, 0, 0))
    fixed = (np.frombuffer(raw, dtype=np.uint8), np.flatnonzero(~is_value).astype(np.int64))
    return Form(model, tracer.taken, tuple(slots), raw[:6], tuple(patterns), fixed), raw


def _unit(node: Node | Part) -> int:
    return WIDTHS[node.desc.name[1]] if isinstance(node, Array) else 1


class Run(Rows):
    """m objects of one form, side by side in a buffer.

    Attributes:
        form: their structure.
        data: the bytes that hold them.
        segments: int64 [m, s], where each segment of each object starts.
        ends: int64 [m], where each object ends.
        keys: int64 [m], ascending, the first key of each; an object takes ``form.handles`` of them.
    """

    def __init__(
        self, form: Form, data: bytes, segments: IntArray, ends: IntArray, keys: IntArray, nodes: list[Keyed | Run]
    ) -> None:
        self.form = form
        self.data = data
        self.segments = segments
        self.ends = ends
        self.keys = keys
        self._nodes = nodes
        self._buffer: Bytes = np.frombuffer(data, dtype=np.uint8)

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

    def is_sound(self) -> bool:
        """Whether every reference refers to something before it."""
        limits = self.keys + self.form.handles
        slots = self.form.references
        return all(bool(((keys := self.referred(slot)) >= 0).all() and (keys < limits).all()) for slot in slots)

    def write(self, writer: Writer) -> None:
        """See ``Rows``; references are renumbered in columns.

        An object that refers to something which has not been written (its definition stood in an object that is gone)
        is taken apart and written for itself.
        """
        slots = self.form.references
        targets = np.stack([self.referred(slot) for slot in slots]) if slots else np.empty((0, len(self)), np.int64)
        is_edited = np.isin(self.keys, np.fromiter(writer.edited, dtype=np.int64, count=len(writer.edited)))
        start = 0
        while start < len(self):
            own = self.keys[start:, None] + np.arange(self.form.handles)
            writer.handles[own] = writer.taken + np.arange(own.size).reshape(own.shape)
            halts = is_edited[start:] | (writer.handles[targets[:, start:]] < 0).any(axis=0)
            good = int(halts.argmax()) if halts.any() else len(halts)
            writer.handles[own[good:]] = -1
            if good:
                writer.taken += good * self.form.handles
                rows = np.arange(start, start + good)
                writer.out += self.select(rows)._renumbered(slots, writer.handles[targets[:, rows]])
            start += good
            if start < len(self) and halts[good]:
                writer.node(self.object(start))
                start += 1

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


class RunFinder:
    """Learns forms from objects that were read, and finds their like ahead of a reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._buffer: Bytes = np.frombuffer(reader.data, dtype=np.uint8)
        self._forms: dict[bytes, list[Form]] = {}
        self._misses = 0

    def match(self, head: bytes) -> Run | None:
        """The run that begins where the reader is, which then stands behind it; None where none does."""
        reader = self._reader
        for form in self._forms.get(head, ()):
            segments, end = form.match(reader.data, self._buffer, reader.at)
            count = len(segments)
            if count < _MIN_ROWS:
                continue
            keys = reader.key + form.handles * np.arange(count, dtype=np.int64)
            ends = np.append(segments[1:, 0], end)
            run = Run(form, reader.data, segments, ends, keys, reader.nodes)
            if not run.is_sound():
                return None
            reader.at = end
            reader.nodes.extend([run] * (form.handles * count))
            reader.key += form.handles * count
            return run
        return None

    def learn(self, model: Object, start: int, end: int, first_key: int) -> None:
        """Make a form of an object that the reader has read from ``start`` to ``end``."""
        if end - start > _MAX_BYTES or self._misses > _MAX_MISSES:
            return
        form, raw = form_of(model, first_key)
        if raw != self._reader.data[start:end]:
            return
        forms = self._forms.setdefault(form.head, [])
        forms.insert(0, form)
        del forms[_MAX_FORMS:]
        segments, _ = form.match(self._reader.data, self._buffer, end)
        self._misses += len(segments) < _MIN_ROWS

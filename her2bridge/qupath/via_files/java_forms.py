"""The structure of objects: which of an object's bytes are tags, classes and counts, and which are values.

All neighbours with the same structure can then be found without taking them apart; see ``java_runs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from her2bridge.qupath.via_files.java_nodes import WIDTHS, Array, Node, Object, Part
from her2bridge.qupath.via_files.java_writer import Tracer
from her2bridge.records import IntArray

Bytes = npt.NDArray[np.uint8]

_MAX_ROWS = 1024  # that are compared at once


@dataclass(frozen=True, eq=False)
class Slot:
    """A value in an object of some form.

    Attributes:
        kind: ``reference``, ``fixed`` (a reference to a class or an enum's name, the same in all objects),
            ``primitives``, ``block``, ``text`` or ``array``.
        node: whose value it is in the form's model: what is referred to, a ``Part``, ``Block``, ``Text`` or ``Array``.
        segment: after how many values of varying length it stands.
        offset: bytes from the segment's start.
        width: bytes; of the model, where lengths vary.
        given: how many handles the object has given before.
    """

    kind: str
    node: Node | Part
    segment: int
    offset: int
    width: int
    given: int


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
        return [slot for slot in self.slots if slot.kind in ("reference", "fixed")]

    def slot_of(self, node: Node | Part) -> Slot | None:
        """The one slot of a node of the model; None where it has none, or several."""
        found = [slot for slot in self.slots if slot.node is node and slot.kind != "fixed"]
        return found[0] if len(found) == 1 else None

    def fits(self, data: bytes, at: int, count: int) -> bool:
        """Whether so many objects of this form stand in a row from ``at`` on; quick where they do not."""
        for _ in range(count):
            row = self._match_one(data, at)
            if row is None:
                return False
            at = row[1]
        return True

    def match(self, data: bytes, buffer: Bytes, at: int, limit: int) -> tuple[IntArray, int]:
        """Segment starts, int64 [m, s], of the objects of this form in a row from ``at`` on, and their end.

        Args:
            data: the stream.
            buffer: the same bytes.
            at: the first object's first byte.
            limit: of how many objects at most.
        """
        quick = self._match_fixed(buffer, at, limit)
        lengths = self.lengths
        starts = at + int(lengths[-1]) * np.arange(quick, dtype=np.int64)
        at += quick * int(lengths[-1])
        more: list[list[int]] = []
        while quick + len(more) < limit and (row := self._match_one(data, at)) is not None:
            segments, at = row
            more.append(segments)
        found = starts[:, None] + lengths[:-1][None, :]
        if more:
            found = np.concatenate([found, np.array(more, dtype=np.int64)])
        return found, at

    @cached_property
    def lengths(self) -> IntArray:
        """Where each segment of an object with the model's lengths starts, and where the object ends, int64 [s + 1]."""
        varying = [slot.width for slot in self.slots if slot.kind in ("text", "array")]
        after = [field + width for (_, _, field, _), width in zip(self.patterns, [*varying, 0], strict=True)]
        return np.cumsum([0, *(p[1] + size for p, size in zip(self.patterns, after, strict=True))], dtype=np.int64)

    def _match_fixed(self, buffer: Bytes, at: int, limit: int) -> int:
        """How many objects from ``at`` on, at most ``limit``, equal the model in structure and in all lengths."""
        literal, places = self._fixed
        size, count, step = len(literal), 0, 64
        while (rows := min(step, limit - count, (len(buffer) - at) // size)) > 0:
            block = buffer[at : at + rows * size].reshape(rows, size)[:, places]
            same = (block == literal[places]).all(axis=1)
            if not same.all():
                return count + int(same.argmin())
            count, at, step = count + rows, at + rows * size, min(4 * step, _MAX_ROWS)
        return count

    def _match_one(self, data: bytes, at: int) -> tuple[list[int], int] | None:
        segments = []
        for pattern, length, field, width in self.patterns:
            if pattern.match(data, at) is None:
                return None
            segments.append(at)
            at += length
            if width:
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

    for kind, node, at, width, given in tracer.slots:
        field, unit = _measure(kind, node)
        if unit:
            literal(at - field)
            patterns.append((re.compile(b"".join(pattern), re.DOTALL), at - field - start, field, unit))
            slots.append(Slot(kind, node, len(patterns), -1, width, given))
            pattern, start, done = [], at + width, at + width
            is_value[at : at + width] = True
            continue
        slots.append(Slot(kind, node, len(patterns), at - start, width, given))
        if kind != "fixed":
            literal(at)
            pattern.append(b".{%d}" % width)
            done = at + width
            is_value[at : at + width] = True
    literal(len(raw))
    patterns.append((re.compile(b"".join(pattern), re.DOTALL), len(raw) - start, 0, 0))
    fixed = (np.frombuffer(raw, dtype=np.uint8), np.flatnonzero(~is_value).astype(np.int64))
    return Form(model, tracer.taken, tuple(slots), raw[:6], tuple(patterns), fixed), raw


def _measure(kind: str, node: Node | Part) -> tuple[int, int]:
    """Bytes of the length before a value, and of what it counts; zeros where all objects have the same width."""
    if kind == "array" and isinstance(node, Array):
        return 4, WIDTHS[node.desc.name[1]]
    return (2, 1) if kind == "text" else (0, 0)

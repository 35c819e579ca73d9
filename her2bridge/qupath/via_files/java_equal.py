"""Whether two graphs of nodes are the same: not their bytes, nor their handles, but what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from her2bridge.qupath.via_files.java_nodes import (
    KEYED,
    Array,
    Block,
    ClassDesc,
    ClassObject,
    Enum,
    Keyed,
    Node,
    Object,
    StreamError,
    Text,
)
from her2bridge.qupath.via_files.java_runs import MAX_ROWS, Run
from her2bridge.records import IntArray


class _Comparison:
    """Pairs of keys that were found to stand for the same."""

    def __init__(self, keys: int, edited: Mapping[int, Keyed]) -> None:
        self._pairs: IntArray = np.full(keys, -1, dtype=np.int64)
        self._edited = edited
        self._edited_keys: IntArray = np.array(sorted(edited), dtype=np.int64)

    def lists(self, ours: Sequence[Node], theirs: Sequence[Node]) -> None:
        """Item by item; a run counts as the objects it stands for."""
        left, right = _Cursor(ours, self._edited_keys), _Cursor(theirs, self._edited_keys[:0])
        while not left.is_done and not right.is_done:
            count = self._in_columns(left, right)
            if count:
                self._runs(left.rows(count), right.rows(count))
            else:
                self.nodes(left.single(), right.single())
            left.step(count or 1)
            right.step(count or 1)
        if not (left.is_done and right.is_done):
            raise StreamError("lists of different length")

    def is_one_to_one(self) -> bool:
        """Whether no two nodes of ours were found to be the same one of theirs."""
        return int(np.bincount(self._pairs[self._pairs >= 0]).max(initial=0)) <= 1

    def _in_columns(self, left: _Cursor, right: _Cursor) -> int:
        """How many objects both stand before that can be compared as runs."""
        one, other = left.item, right.item
        if not (isinstance(one, Run) and isinstance(other, Run) and _alike(one, other)):
            return 0
        return min(left.untouched(), len(other) - right.row, MAX_ROWS)

    def nodes(self, one: Node, other: Node) -> None:
        """Two nodes; raises where they differ."""
        if type(one) is not type(other):
            raise StreamError(f"{type(one).__name__} is not {type(other).__name__}")
        if isinstance(one, Block) and isinstance(other, Block):
            self._values(one.data, other.data, "raw data")
        elif isinstance(one, KEYED) and isinstance(other, KEYED):
            self._keyed(one, other)

    def _keyed(self, one: Keyed, other: Keyed) -> None:
        if self._pairs[one.key] >= 0:
            if self._pairs[one.key] != other.key:
                raise StreamError("a reference leads elsewhere")
            return
        self._pairs[one.key] = other.key
        one = self._edited.get(one.key, one)
        if isinstance(one, Object) and isinstance(other, Object):
            self.nodes(one.desc, other.desc)
            if len(one.parts) != len(other.parts):
                raise StreamError(f"{one.name} has other parts")
            for mine, yours in zip(one.parts, other.parts, strict=True):
                self._values(mine.primitives, yours.primitives, one.name)
                self.lists(mine.objects, yours.objects)
                self.lists(mine.annotation or (), yours.annotation or ())
        elif isinstance(one, Text) and isinstance(other, Text):
            self._values(one.raw, other.raw, "text")
        elif isinstance(one, Array) and isinstance(other, Array):
            self.nodes(one.desc, other.desc)
            self._values(one.raw, other.raw, "array")
            self.lists(one.items or (), other.items or ())
        elif isinstance(one, ClassDesc) and isinstance(other, ClassDesc):
            self._descs(one, other)
        elif isinstance(one, Enum) and isinstance(other, Enum):
            self.nodes(one.desc, other.desc)
            self.nodes(one.constant, other.constant)
        elif isinstance(one, ClassObject) and isinstance(other, ClassObject):
            self.nodes(one.desc, other.desc)

    def _descs(self, one: ClassDesc, other: ClassDesc) -> None:
        mine = (one.name, one.uid, one.flags, one.interfaces, [field[:2] for field in one.fields])
        yours = (other.name, other.uid, other.flags, other.interfaces, [field[:2] for field in other.fields])
        self._values(mine, yours, f"class {one.name}")
        self.lists([field[2] for field in one.fields], [field[2] for field in other.fields])
        self.lists(one.annotation, other.annotation)
        self.nodes(one.parent, other.parent)

    def _values(self, one: object, other: object, what: str) -> None:
        if one != other:
            raise StreamError(f"{what} differs")

    def _runs(self, one: Run, other: Run) -> None:
        if one.without_references() != other.without_references():
            raise StreamError("objects of a run differ")
        own = np.arange(one.form.handles)
        keys, its_keys = one.keys[:, None] + own, other.keys[:, None] + own
        if ((self._pairs[keys] >= 0) & (self._pairs[keys] != its_keys)).any():
            raise StreamError("a reference leads to a part of another object")
        self._pairs[keys] = its_keys
        for mine, yours in zip(one.form.references, other.form.references, strict=True):
            left, right = one.referred(mine), other.referred(yours)
            is_open = self._pairs[left] < 0
            for key, its in sorted(set(zip(left[is_open].tolist(), right[is_open].tolist(), strict=True))):
                self.nodes(one.resolve(key), other.resolve(its))
            if (self._pairs[left] != right).any():
                raise StreamError("a reference in a run leads elsewhere")


class _Cursor:
    """A place in a list whose runs count as many items; ``edited`` are keys, ascending."""

    def __init__(self, items: Sequence[Node], edited: IntArray) -> None:
        self._items: Iterator[Node] = iter(items)
        self._edited = edited
        self._touched = np.zeros(0, dtype=bool)
        self.is_done = False
        self.item: Node = None
        self.row = 0
        self._next()

    def _next(self) -> None:
        self.row = 0
        for item in self._items:
            if not isinstance(item, Run) or len(item):
                self.item = item
                if isinstance(item, Run):
                    self._touched = item.touched(self._edited)
                return
        self.is_done = True

    def untouched(self) -> int:
        """How many rows of the run it is at come before one that is edited."""
        ahead = self._touched[self.row :]
        return int(ahead.argmax()) if ahead.any() else len(ahead)

    def rows(self, count: int) -> Run:
        """The next rows of the run it is at."""
        assert isinstance(self.item, Run)
        return self.item.select(np.arange(self.row, self.row + count))

    def single(self) -> Node:
        """What it is at, a run's object taken apart."""
        return self.item.object(self.row) if isinstance(self.item, Run) else self.item

    def step(self, count: int) -> None:
        """Go on by so many items."""
        self.row += count
        if not isinstance(self.item, Run) or self.row == len(self.item):
            self._next()


def _alike(one: Run, other: Run) -> bool:
    """Whether two runs have their values at the same places."""
    if one.form.handles != other.form.handles or len(one.form.slots) != len(other.form.slots):
        return False
    return all(
        (mine.kind, mine.segment, mine.offset) == (yours.kind, yours.segment, yours.offset)
        for mine, yours in zip(one.form.slots, other.form.slots, strict=True)
    )


def assert_equal(
    ours: Sequence[Node], theirs: Sequence[Node], keys: int, edited: Mapping[int, Keyed] | None = None
) -> None:
    """Compare two streams.

    Args:
        ours: items; nodes in ``edited`` (by key) stand in place of those with the same key.
        theirs: items.
        keys: how many keys ours has.
        edited: see there.

    Raises:
        StreamError: they differ; says in what.
    """
    comparison = _Comparison(keys, edited or {})
    try:
        comparison.lists(ours, theirs)
    except RecursionError as error:
        raise StreamError("what is to be compared is nested too deeply") from error
    if not comparison.is_one_to_one():
        raise StreamError("what stands apart in one is shared in the other")

"""Which PathClasses of regions mean a tile's label, and what the others are."""

from __future__ import annotations

import enum
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from her2bridge.errors import UsageError
from her2bridge.qupath.classes import class_of, is_exclusion, is_scored_region
from her2bridge.qupath.seam import PathClassRef
from her2bridge.records import LEFT_OUT, TileClass

UNCLASSIFIED = "unclassified"
"""Stands for the class of annotations that have none; a mapping file can name it."""

_IGNORE = "ignore"
_BEFORE = re.compile(r"^(?:(?:tumou?r|her-?2(?:[/ ]?neu)?|ihc|score|grade|label|class)[\s:_=-]+)+")
_GRADE = re.compile(r"^(?:(0)|([123])\s?\+)$")
_NORMAL = re.compile(r"^normal(?:[\s:_-]+tissue)?$")
_NOISE = re.compile(r"^noise\s?\*?$")
_LOOKS = re.compile(r"^(?:[123]|pos(?:itive)?|neg|equivocal|low|moderate|high|weak|strong)$")
_EXAMPLE = 'Write one class a line, for instance: "Negative" = "0" or "Stroma" = "ignore"'


class Use(enum.Enum):
    """What becomes of regions of a class."""

    LABEL = "label"
    CUT_OUT = "cut out"
    NOT_USED = "not used"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ClassUse:
    """What becomes of regions of one class, and why.

    Attributes:
        name: the class as QuPath prints it.
        use: what becomes of them.
        tile_class: the label; None for all that is none.
        reason: for people; empty for a label that the name itself says.
        is_open: whether a person may have meant a label by it, and we do not know which.
    """

    name: str
    use: Use
    tile_class: TileClass | None = None
    reason: str = ""
    is_open: bool = False

    @property
    def becomes(self) -> str:
        """For people: the label, or what else, and why."""
        told = self.use.value if self.tile_class is None else self.tile_class.label
        return f"{told} ({self.reason})" if self.reason else told


@dataclass(frozen=True)
class LabelClasses:
    """How names of classes are read.

    Attributes:
        mapping: the user's word, which counts before all others: class name -> label, None to ignore the class.
        negative_is_zero: whether ``Negative`` means 0.
    """

    mapping: Mapping[str, TileClass | None] = field(default_factory=dict)
    negative_is_zero: bool = False

    def use_of(self, path_class: PathClassRef | None) -> ClassUse:
        """What regions of a class are."""
        name = str(path_class) if path_class is not None else UNCLASSIFIED
        mapped = {_key(one): label for one, label in self.mapping.items()}
        if _key(name) in mapped:
            label = mapped[_key(name)]
            use = Use.NOT_USED if label is None else Use.LABEL
            return ClassUse(name, use, label, "as the mapping file says")
        if path_class is None:
            return ClassUse(name, Use.UNKNOWN, None, "no class", is_open=True)
        last = _BEFORE.sub("", _key(name))
        label = _label_of(last)
        if label is not None:
            return ClassUse(name, Use.LABEL, label)
        if last == "negative":
            return self._negative(name)
        if last != _key(name) and _LOOKS.match(last):
            reason = "looks like a label and is none: class it 0, 1+, 2+ or 3+, or give it one with a mapping file"
            return ClassUse(name, Use.NOT_USED, None, reason, is_open=True)
        if is_exclusion(path_class, ()):
            return ClassUse(name, Use.CUT_OUT, None, "a starred class: left out of all labels")
        if is_scored_region(path_class, ()) or last == "region*":
            return ClassUse(name, Use.NOT_USED, None, "a region to be scored, not a label")
        return ClassUse(name, Use.UNKNOWN, None, "no label's name; a mapping file can give it one", is_open=True)

    def unheard(self, names: Iterable[str]) -> list[str]:
        """What the mapping names and is none of these classes: perhaps written amiss."""
        known = set(map(_key, names))
        return [name for name in self.mapping if _key(name) not in known]

    def tile_class_of(self, class_name: str | None) -> int:
        """The label of a tile that a person gave this class; ``LEFT_OUT`` for none. Of tiles our own names count first,
        and ``Negative`` is 0.
        """
        own = class_of(class_name)
        if own != LEFT_OUT or class_name is None:
            return own
        label = self.use_of(PathClassRef(tuple(class_name.split(": ")))).tile_class
        return LEFT_OUT if label is None else int(label)

    def _negative(self, name: str) -> ClassUse:
        if self.negative_is_zero:
            return ClassUse(name, Use.LABEL, TileClass.ZERO, "as --negative-is-zero says")
        reason = "some mean 0 by it, others 0 and 1+: --negative-is-zero or a mapping file says so"
        return ClassUse(name, Use.NOT_USED, None, reason, is_open=True)


def read_mapping(path: Path) -> dict[str, TileClass | None]:
    """A mapping file: TOML, or JSON where its name ends so; class name -> label, or ``ignore`` (None).

    Raises:
        UsageError: no such file, not TOML or JSON, a value that is no label, a class that stands there twice.
    """
    try:
        data = path.read_bytes()
        values: Any = json.loads(data) if path.suffix.lower() == ".json" else tomllib.loads(data.decode())
    except OSError as error:
        what = f"The mapping cannot be read ({error.strerror})."
        raise UsageError(what, where=str(path), next_step="Check the path.") from error
    except ValueError as error:
        raise UsageError(f"The mapping is not TOML or JSON ({error}).", where=str(path), next_step=_EXAMPLE) from error
    if not isinstance(values, dict):
        raise UsageError("The mapping names no classes.", where=str(path), next_step=_EXAMPLE)
    found: dict[str, TileClass | None] = {}
    for name, value in values.items():
        if _key(name) in map(_key, found):
            raise UsageError(f"The mapping names the class {name!r} twice.", where=str(path), next_step=_EXAMPLE)
        found[name] = _mapped(name, value, path)
    return found


def _mapped(name: str, value: Any, path: Path) -> TileClass | None:
    text = value.strip().casefold() if isinstance(value, str) else value
    labels = {one.label: one for one in TileClass}
    if text == _IGNORE:
        return None
    if text not in labels:
        raise UsageError(
            f"The mapping gives the class {name!r} the label {value!r}, which is none.",
            where=str(path),
            next_step=f"Give one of {', '.join(labels)}, in quotes, or {_IGNORE}.",
        )
    return labels[text]


def _key(name: str) -> str:
    """A class's name without regard to case and spacing; between its parts stands a colon and a space, as in QuPath."""
    parts = (" ".join(part.split()) for part in name.casefold().split(":"))
    return ": ".join(part for part in parts if part)


def _label_of(text: str) -> TileClass | None:
    grade = _GRADE.match(text)
    if grade is not None:
        return TileClass(int(grade[1] or grade[2]))
    if _NORMAL.match(text):
        return TileClass.NORMAL
    return TileClass.NOISE if _NOISE.match(text) else None

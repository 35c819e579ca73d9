"""Names and colours of PathClasses: those we write, and which of the user's mean "score here" or "leave this out"."""

from __future__ import annotations

from collections.abc import Sequence

from her2bridge.qupath.seam import PathClassRef
from her2bridge.records import LEFT_OUT, TileClass

_WRITTEN: dict[TileClass, tuple[str, tuple[int, int, int]]] = {
    TileClass.ZERO: ("Negative", (112, 112, 225)),
    TileClass.ONE: ("1+", (255, 255, 0)),
    TileClass.TWO: ("2+", (255, 187, 62)),
    TileClass.THREE: ("3+", (250, 62, 62)),
    TileClass.NORMAL: ("Normal", (120, 190, 200)),
    TileClass.NOISE: ("Noise*", (150, 150, 150)),
}
"""QuPath's own graded classes, so that its Num, Positive % and H-score columns appear by themselves. "Negative" is a
tile's class 0 here, not a slide's status."""

GRADED_LAST_NAMES = frozenset({"Negative", "Positive", "1+", "2+", "3+"})
"""The last names of classes that QuPath's intensity measurements count (PathClassTools.isGradedIntensityClass)."""

_TUMOUR_NAMES = frozenset({"tumor", "tumour"})
_NOT_AN_EXCLUSION = frozenset({"region*"})  # QuPath's default class for "some region", starred for other reasons


def path_classes(prefix: str | None = None) -> list[PathClassRef]:
    """The six classes in the network's order, e.g. ``3+``, or ``HER2: 3+`` with the prefix ``HER2``."""
    head = (prefix,) if prefix else ()
    return [PathClassRef((*head, name), rgb) for name, rgb in _WRITTEN.values()]


def class_of(class_name: str | None) -> int:
    """The tile class that a stored class name means, whatever its prefix; ``LEFT_OUT`` for any other name or none."""
    last = class_name.rsplit(": ", 1)[-1] if class_name else None
    for tile_class, (name, _) in _WRITTEN.items():
        if last == name:
            return int(tile_class)
    return LEFT_OUT


def is_scored_region(path_class: PathClassRef | None, wanted: Sequence[str]) -> bool:
    """Whether an annotation of this class is to be scored.

    Args:
        path_class: the annotation's class.
        wanted: class names given by the user; where empty, ``Tumor``, ``Tumour`` and all derived from them.
    """
    if path_class is None:
        return False
    if wanted:
        return any(_is_or_derives_from(path_class, name) for name in wanted)
    return path_class.names[0].casefold() in _TUMOUR_NAMES


def is_exclusion(path_class: PathClassRef | None, excluded: Sequence[str]) -> bool:
    """Whether an annotation of this class is cut out of the regions: a starred class, or one the user named."""
    if path_class is None:
        return False
    if is_excluded_by_name(path_class, excluded):
        return True
    last = path_class.names[-1].casefold()
    return last.endswith("*") and last not in _NOT_AN_EXCLUSION


def is_excluded_by_name(path_class: PathClassRef | None, excluded: Sequence[str]) -> bool:
    """Whether the user named an annotation's class as one to be cut out."""
    return path_class is not None and any(_is_or_derives_from(path_class, name) for name in excluded)


def _is_or_derives_from(path_class: PathClassRef, name: str) -> bool:
    own, given = str(path_class).casefold(), name.strip().casefold()
    return own == given or own.startswith(given + ": ")

"""Labels that a model doubts, as annotations to look at in QuPath.

Each is a square over one tile, of a class of its own that no run scores. A person who finds the label wrong gives the
square the right class: it then is a label of that class, inside the old one, and no longer one of these.
"""

from __future__ import annotations

import uuid

import shapely

from her2bridge.qupath.seam import OWNERSHIP_KEY, PathClassRef, PathObject
from her2bridge.records import FloatArray, TileClass

SUSPECT_CLASS = PathClassRef(("Suspect label",), (214, 39, 214))
"""Magenta, which neither stain has."""

_MARK = "suspect label"  # instead of a run's id


def suspect_annotation(
    origin: FloatArray, side: float, labelled: TileClass, found: TileClass, probability: float
) -> PathObject:
    """The annotation of one tile.

    Args:
        origin: its top left corner, float64 [2].
        side: level-0 pixels.
        labelled: what the label says.
        found: what a model says that has not seen the label.
        probability: how sure that model is, 0–1.
    """
    x, y = origin.tolist()
    return PathObject(
        kind="annotation",
        id=str(uuid.uuid4()),
        parent_id=None,
        name=f"labelled {labelled.label}, the model says {found.label} ({probability:.2f})",
        path_class=SUSPECT_CLASS,
        geometry=shapely.box(x, y, x + side, y + side),
        metadata={OWNERSHIP_KEY: _MARK},
        locked=True,
        description=f"The label here is {labelled.label}; a model that was trained without this patient takes the tile"
        f" for {found.label}, with probability {probability:.2f}. Either may be wrong. If the label is, give this"
        " annotation the right class; if not, leave it. Research use only.",
    )


def is_answered(annotation: PathObject) -> bool:
    """Whether this was such an annotation, until a person gave it another class."""
    is_ours = annotation.kind == "annotation" and annotation.metadata.get(OWNERSHIP_KEY) == _MARK
    return is_ours and annotation.path_class is not None and annotation.path_class.names != SUSPECT_CLASS.names


def is_suspect(annotation: PathObject) -> bool:
    """Whether this is such an annotation, and no person has given it another class."""
    path_class = annotation.path_class
    is_ours = annotation.kind == "annotation" and OWNERSHIP_KEY in annotation.metadata
    return is_ours and path_class is not None and path_class.names == SUSPECT_CLASS.names

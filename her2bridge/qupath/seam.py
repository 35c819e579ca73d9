"""The seam between the engine and QuPath: what a backend must offer, and the records that cross it.

Two backends stand behind it, one behaviour: ``via_files`` (no QuPath, no JVM) and ``via_paquo``. Nothing on this side
of the seam knows which one it speaks to. Geometry crosses in QuPath's own pixels (the coordinate law, records.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from shapely.geometry.base import BaseGeometry

from her2bridge.records import Float32Array, FloatArray, IntArray

OWNERSHIP_KEY = "_her2bridge"
"""Object metadata key that marks an object as ours; a tile's value is the run's id. QuPath's tables hide such keys."""


@dataclass(frozen=True)
class PathClassRef:
    """A PathClass: its names from the base class on (``("Tumor", "Positive")``) and its colour.

    Attributes:
        names: at least one.
        rgb: 0–255 each; None where the class carries no colour.
    """

    names: tuple[str, ...]
    rgb: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        return ": ".join(self.names)


def packed_colour(rgb: tuple[int, int, int]) -> int:
    """QuPath's colour in files: a signed 32-bit number, opaque alpha first (``ColorTools.packRGB``)."""
    red, green, blue = rgb
    return (0xFF << 24 | red << 16 | green << 8 | blue) - (1 << 32)


def rgb_of_packed(value: int) -> tuple[int, int, int]:
    """The way back from ``packed_colour``; alpha is dropped."""
    return (value >> 16) & 255, (value >> 8) & 255, value & 255


@dataclass(frozen=True, eq=False)
class PathObject:
    """One QuPath object, read.

    Attributes:
        kind: ``annotation``, ``detection``, ``tile``, ``cell`` or ``tmaCore``, QuPath's GeoJSON words.
        id: UUID.
        parent_id: the parent's UUID; None below the root.
        path_class: None where unclassified.
        rgb: a colour of the object's own (not its class's); None where it has none.
        geometry: None where the object has no ROI.
        plane: (c, z, t); c is −1 for all channels.
        measurements: in the file's order; may hold NaN.
        metadata: the object's string metadata, without the object id.
        description: an annotation's description; None where it has none.
        nucleus: a cell's nucleus.
    """

    kind: str
    id: str
    parent_id: str | None
    name: str | None = None
    path_class: PathClassRef | None = None
    rgb: tuple[int, int, int] | None = None
    geometry: BaseGeometry | None = None
    plane: tuple[int, int, int] = (-1, 0, 0)
    measurements: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    locked: bool = False
    description: str | None = None
    is_ellipse: bool = False
    nucleus: BaseGeometry | None = None


@dataclass(frozen=True, eq=False)
class StoredTiles:
    """The tiles of earlier runs (objects that carry the ownership mark), in columns of m rows.

    Attributes:
        ids: UUIDs.
        bounds: float64 [m, 4]: x0, y0, x1, y1.
        class_names: the PathClass as QuPath prints it; None where a person took it away.
        measurements: name -> float32 [m]; NaN where a tile has no such measurement.
        run_ids: the mark's value.
    """

    ids: Sequence[str]
    bounds: FloatArray
    class_names: Sequence[str | None]
    measurements: Mapping[str, Float32Array]
    run_ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class NewTiles:
    """Tile objects to be stored, in columns of n rows.

    Attributes:
        origins: float64 [n, 2], top left corners.
        side: level-0 pixels; all tiles are squares of this side.
        parents: int64 [n], indices into ``parent_ids``.
        parent_ids: UUIDs of annotations; None stands for the root.
        classes: int64 [n], indices into ``path_classes``; −1 for an unclassified tile.
        path_classes: the classes used.
        measurement_names: p names.
        measurements: float32 [n, p].
        mark: the run's id, stored under ``OWNERSHIP_KEY``.
        ids: UUIDs, one a tile.
    """

    origins: FloatArray
    side: float
    parents: IntArray
    parent_ids: Sequence[str | None]
    classes: IntArray
    path_classes: Sequence[PathClassRef]
    measurement_names: Sequence[str]
    measurements: Float32Array
    mark: str
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def bounds(self) -> FloatArray:
        """float64 [n, 4]: x0, y0, x1, y1."""
        return np.concatenate([self.origins, self.origins + self.side], axis=1)

    def class_names(self) -> list[str | None]:
        """The PathClass of each tile as QuPath prints it."""
        names = [*(str(one) for one in self.path_classes), None]  # None is the last, and so number −1
        return [names[number] for number in self.classes]


@dataclass(frozen=True, eq=False)
class ImageUpdate:
    """All that one run changes in one image; applied whole or not at all.

    Attributes:
        remove_ids: tiles and annotations to be removed; each must carry the ownership mark. What a person put below one
            takes its place.
        tiles: tile objects to be added, in groups of one side and one mark each.
        region_measurements: annotation id -> {name: value}, in the order in which they are to stand.
        measurement_names: the names that are ours on annotations. Of these, what an annotation has and
            ``region_measurements`` lacks is removed, on every annotation; all other measurements stay.
        metadata: image metadata to be set in the project; keys not named stay. A value of None removes the key.
        annotations: new ones, with areas, to be added below the root.

    Raises:
        ValueError: a new annotation is none with an area, lies below another object, or lacks the ownership mark.
    """

    remove_ids: Sequence[str]
    tiles: Sequence[NewTiles]
    region_measurements: Mapping[str, Mapping[str, float]]
    measurement_names: frozenset[str]
    metadata: Mapping[str, str | None]
    annotations: Sequence[PathObject] = ()

    def __post_init__(self) -> None:
        for one in self.annotations:
            is_area = one.kind == "annotation" and one.geometry is not None and one.geometry.area > 0
            if not is_area or one.parent_id is not None or OWNERSHIP_KEY not in one.metadata:
                raise ValueError(f"not an area of ours below the root: {one.id}")


class Entry(Protocol):
    """One image of a project."""

    @property
    def id(self) -> str:
        """QuPath's entryID, which names the folder ``data/<id>``."""
        ...

    @property
    def name(self) -> str:
        """The image's name as the project shows it."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """The image's metadata in the project."""
        ...

    @property
    def server_json(self) -> Mapping[str, Any]:
        """QuPath's server builder as JSON."""
        ...

    @property
    def read_only_reason(self) -> str | None:
        """Why this image must not be written (its project, or its data file); None where it may be."""
        ...

    def annotations(self) -> list[PathObject]:
        """The annotations, in the project's order (depth first)."""
        ...

    def objects(self) -> Iterator[PathObject]:
        """Every object below the root, depth first. Slow on large images: ask for less where you can."""
        ...

    def stored_tiles(self) -> StoredTiles:
        """The tiles that carry our mark, wherever in the tree they are."""
        ...

    def detection_centroids(self, last_names: frozenset[str]) -> FloatArray:
        """Centroids, float64 [m, 2], of all detections not ours whose class's last name is one of these."""
        ...

    def apply(self, update: ImageUpdate) -> None:
        """Write all of ``update`` and read it back.

        Raises:
            ChangedOnDisk: QuPath saved the image since it was read; nothing was written.
            DataFileVersion: a data file that is read-only to us; nothing was written.
        """
        ...


class Project(Protocol):
    """A QuPath project."""

    @property
    def path(self) -> Path:
        """The ``project.qpproj`` itself."""
        ...

    @property
    def folder(self) -> Path:
        """The folder it lies in."""
        ...

    @property
    def backend(self) -> str:
        """``files`` or ``paquo``, with versions, as a person would like to read it."""
        ...

    @property
    def read_only_reason(self) -> str | None:
        """Why the project must not be written; None where it may be."""
        ...

    @property
    def saved_uri(self) -> str | None:
        """Where the project lay when QuPath last saved it; None where it does not say."""
        ...

    @property
    def keeps_results(self) -> bool:
        """Whether a run leaves its results beside the project too, for ``restore``."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """The images, in the project's order."""
        ...

    @property
    def path_classes(self) -> Sequence[PathClassRef]:
        """The project's class list, in its order."""
        ...

    def merge_path_classes(self, classes: Sequence[PathClassRef]) -> None:
        """Add classes the project lacks, at the end; those it has keep their colour and place."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Hold the project's write lock.

        Raises:
            ProjectLocked: another process has it.
            ProjectReadOnly: ``read_only_reason`` is set.
        """
        ...

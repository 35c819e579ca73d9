"""One image's ``data.qpdata``: a stream of Java objects, read as a graph and asked for its PathObjects.

``PathIO.writeImageDataSerialized`` (QuPath 0.4 to 0.7) writes, in this order: "Data file version 3", JSON with QuPath's
version and the image server, Locale, ImageType, stains or null, Workflow, PathObjectHierarchy, properties, "EOF".
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from her2bridge.qupath.entry_files import KNOWN_VERSION, damaged
from her2bridge.qupath.seam import OWNERSHIP_KEY, PathObject, StoredTiles
from her2bridge.qupath.via_files.java_maker import Maker
from her2bridge.qupath.via_files.java_nodes import Block, Enum, Keyed, Node, Object, Part, StreamError, Text
from her2bridge.qupath.via_files.java_reader import Reader
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.java_writer import Writer
from her2bridge.qupath.via_files.new_objects import Objects
from her2bridge.qupath.via_files.path_objects import (
    KINDS,
    OBJECT_ID,
    PACKAGE,
    fields_of,
    object_id,
    read_object,
    strings,
    walk,
)
from her2bridge.qupath.via_files.stored_tiles import Columns, centroids, find_marked, joined
from her2bridge.records import FloatArray

_HIERARCHY = f"{PACKAGE}hierarchy.PathObjectHierarchy"
_IMAGE_TYPE = "qupath.lib.images.ImageData$ImageType"
_WORKFLOW = "qupath.lib.plugins.workflow.Workflow"
_FIRST_LINE = "Data file version "
_LAST_LINE = "EOF"
_ENTRY_KEY = "PROJECT_ENTRY_ID"


class Graph:
    """A stream of Java objects that holds a PathObjectHierarchy; never changed in place.

    Attributes:
        where: what it was read from, for messages.
        data: its bytes.
        items: the stream's items.
        nodes: the graph's nodes by key.
        root: the hierarchy's root object.
    """

    def __init__(self, data: bytes, where: str) -> None:
        """Take the bytes apart.

        Raises:
            DataFileDamaged: they are no such stream, or are cut short.
        """
        self.where = where
        self.data = data
        self.nodes: list[Keyed | Run] = []
        with _translated(where):
            self.items = Reader(data, self.nodes).stream()
            self.root = _root(self.items)

    def objects(self) -> Iterator[PathObject]:
        """Every object below the root, depth first.

        Raises:
            DataFileDamaged: one is of a layout that we do not know.
        """
        with _translated(self.where):
            for item, parent in walk(self.root):
                for node in item.objects() if isinstance(item, Run) else (item,):
                    yield read_object(node, parent)

    @functools.cached_property
    def count(self) -> int:
        """How many objects lie below the root.

        Raises:
            DataFileDamaged: see ``objects``.
        """
        with _translated(self.where):
            return sum(len(item) if isinstance(item, Run) else 1 for item, _ in walk(self.root))

    def annotations(self) -> list[PathObject]:
        """The annotations, depth first; rows of detections are passed over as a whole.

        Raises:
            DataFileDamaged: one is of a layout that we do not know.
        """
        with _translated(self.where):
            return [
                read_object(item, parent)
                for item, parent in walk(self.root)
                if isinstance(item, Object) and KINDS.get(item.name) == "annotation"
            ]

    @functools.cached_property
    def marked(self) -> Sequence[Columns]:
        """The tiles that carry our mark, and where they stand.

        Raises:
            DataFileDamaged: see ``objects``.
        """
        with _translated(self.where):
            return find_marked(self.root)

    def marked_annotations(self) -> list[Object]:
        """The annotations that carry our mark.

        Raises:
            DataFileDamaged: see ``objects``.
        """
        with _translated(self.where):
            return [
                item
                for item, _ in walk(self.root)
                if isinstance(item, Object)
                and KINDS.get(item.name) == "annotation"
                and OWNERSHIP_KEY in strings(fields_of(item).metadata)
            ]

    def stored_tiles(self) -> StoredTiles:
        """The tiles that carry our mark, as the seam wants them."""
        return joined(self.marked)

    def detection_centroids(self, last_names: frozenset[str]) -> FloatArray:
        """Centroids, float64 [m, 2], of detections not ours whose class's last name is one of these."""
        with _translated(self.where):
            return centroids(self.root, last_names)


class DataFile(Graph):
    """The content of a data file.

    Attributes:
        version: the data file version.
    """

    def __init__(self, data: bytes, where: str) -> None:
        """Take the bytes apart.

        Raises:
            DataFileDamaged: they are no data file, or are cut short.
        """
        super().__init__(data, where)
        with _translated(where):
            self.version = _version(self.items)
            if not (isinstance(self.items[-1], Text) and str(self.items[-1]) == _LAST_LINE):
                raise StreamError("its end mark is missing")

    @classmethod
    def read(cls, path: Path) -> DataFile:
        """The file at a path.

        Raises:
            DataFileDamaged: it is no data file, is cut short, or cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise damaged(str(path), error.strerror or type(error).__name__) from error
        return cls(data, str(path))

    @property
    def image_type(self) -> str:
        """QuPath's ImageType, e.g. ``BRIGHTFIELD_H_DAB``."""
        types = [item for item in self.items if isinstance(item, Enum) and item.desc.name == _IMAGE_TYPE]
        return str(types[0].constant) if types else "UNSET"


def new_data_file(
    server: Mapping[str, Any], annotations: Sequence[PathObject], *, qupath_version: str, entry_key: str, where: str
) -> DataFile:
    """The data file of an image that has none: image type UNSET, no history, annotations in the order given.

    Args:
        server: QuPath's server builder.
        annotations: all below the root.
        qupath_version: whose file it should be.
        entry_key: path of the project file and entryID, as QuPath joins them.
        where: the file it will become, for messages.
    """
    maker = Maker([])
    objects = Objects(maker)
    head = {"dataVersion": KNOWN_VERSION, "qupathVersion": qupath_version, "server": server}
    below: list[Node] = [objects.annotation(one) for one in annotations]
    metadata = objects.metadata({OBJECT_ID: str(uuid.uuid4())})
    root = maker.object(
        f"{PACKAGE}PathRootObject",
        annotation=[None, None, metadata, None, Block(struct.pack(">i", len(below))), *below],
    )
    texts = [maker.text(value) for value in ("US", "", "en", "", "")]  # country, extensions, language, script, variant
    sizes = struct.pack(">ii", 16, 1)  # buckets and entries of the map
    items: list[Node] = [
        first_line(),
        maker.text(json.dumps(head, ensure_ascii=False, separators=(",", ":"))),
        maker.parts("java.util.Locale", [Part(struct.pack(">i", -1), texts, [])]),
        maker.enum(_IMAGE_TYPE, "UNSET"),
        None,
        maker.object(_WORKFLOW, annotation=[Block(struct.pack(">ii", 1, 0))]),
        maker.object(_HIERARCHY, b"", [root, None]),
        maker.object(
            "java.util.HashMap",
            struct.pack(">fi", 0.75, 12),
            [],
            [Block(sizes), maker.text(_ENTRY_KEY), maker.text(entry_key)],
        ),
        maker.text(_LAST_LINE),
    ]
    return DataFile(Writer(len(maker.nodes)).stream(items), where)


def first_line() -> Block:
    """What every data file begins with."""
    line = f"{_FIRST_LINE}{KNOWN_VERSION}".encode()
    return Block(struct.pack(">H", len(line)) + line)


def annotation_id(node: Object) -> str | None:
    """The UUID of an annotation; None for another object."""
    return object_id(node) if KINDS.get(node.name) == "annotation" else None


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except StreamError as error:
        raise damaged(where, str(error)) from error


def _version(items: Sequence[Node]) -> int:
    line = items[0].data[2:].decode("utf-8", "replace") if items and isinstance(items[0], Block) else ""
    match = re.fullmatch(rf"{_FIRST_LINE}(\d+)", line)
    if match is None:
        raise StreamError("it does not begin like a QuPath data file")
    return int(match[1])


def _root(items: Sequence[Node]) -> Object:
    for item in items:
        if isinstance(item, Object) and item.name == _HIERARCHY:
            root = item.field("rootObject")
            if isinstance(root, Object) and KINDS.get(root.name) == "root":
                return root
    raise StreamError("it holds no objects' hierarchy")

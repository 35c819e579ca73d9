"""``summary.json``: the counts of an image's objects that QuPath shows without opening its data file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from her2bridge.qupath.via_files.data_file import DataFile
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.path_objects import DETECTIONS, KINDS, class_ref, fields_of, walk
from her2bridge.qupath.via_files.stored_tiles import class_names_of

_PLURALS = {
    "root": "Root objects",
    "annotation": "Annotations",
    "detection": "Detections",
    "tile": "Tiles",
    "cell": "Cells",
    "tmaCore": "TMA cores",
}


def summary_of(file: DataFile, server: Mapping[str, Any], milliseconds: int) -> bytes:
    """The summary as QuPath's ``DefaultProject.ImageDataSummary`` writes it.

    Args:
        file: the image's data.
        server: what the image's summary said of its server before; else its server builder, as far as it tells.
        milliseconds: when the data file was written, since 1970.
    """
    kinds: Counter[str] = Counter({"root": 1})
    classes: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for kind, name, count in _counted(file):
        kinds[kind] += count
        if kind in DETECTIONS or kind == "annotation":
            classes[kind == "annotation"][name or "Unclassified"] += count
    content = {
        "timestamp": milliseconds,
        "imageType": file.image_type,
        "server": server,
        "hierarchy": {
            "nObjects": kinds.total(),
            "objectTypeCounts": {_PLURALS[kind]: count for kind, count in kinds.items()},
            "annotationClassificationCounts": dict(classes[True]),
            "detectionClassificationCounts": dict(classes[False]),
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def server_summary(server: Mapping[str, Any]) -> dict[str, int]:
    """Sizes as a server builder's metadata state them; empty where it has none."""
    metadata = server.get("metadata") or {}
    found = {name: metadata[name] for name in ("width", "height", "sizeZ", "sizeT") if name in metadata}
    return found | ({"sizeC": len(metadata["channels"])} if "channels" in metadata else {})


def _counted(file: DataFile) -> Iterator[tuple[str, str | None, int]]:
    """Kind, class and how many of them, in the order of the hierarchy."""
    for item, _ in walk(file.root):
        if isinstance(item, Run):
            kind = KINDS[item.form.model.name]
            for name, count in Counter(class_names_of(item)).items():
                yield kind, name, count
        else:
            path_class = class_ref(fields_of(item).path_class)
            yield KINDS[item.name], None if path_class is None else str(path_class), 1

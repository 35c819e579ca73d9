"""What the QuPath scripts do, in Python: put down a request for an image of a project, and take its answer in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from her2bridge.qupath.classes import GRADED_LAST_NAMES
from her2bridge.qupath.geojson import read_tiles
from her2bridge.qupath.request import ANNOTATIONS, IMAGE, NEW_TILES, TILES, UPDATE
from her2bridge.qupath.seam import Entry, ImageUpdate, PathObject, Project


def put_request(project: Project, folder: Path, **settings: Any) -> Path:
    """A request for the project's first image."""
    entry = project.entries[0]
    folder.mkdir()
    image = {
        "schema": 1,
        "entry": entry.id,
        "name": entry.name,
        "metadata": dict(entry.metadata),
        "server": dict(entry.server_json),
        "path_classes": [{"name": str(one), "color": one.rgb} for one in project.path_classes],
        "graded": entry.detection_centroids(GRADED_LAST_NAMES).tolist(),
        "settings": settings,
    }
    (folder / IMAGE).write_text(json.dumps(image), encoding="utf-8")
    features = [_feature(one) for one in entry.annotations()]
    (folder / ANNOTATIONS).write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    stored = entry.stored_tiles()
    columns = {
        "ids": list(stored.ids),
        "runs": list(stored.run_ids),
        "classes": list(stored.class_names),
        "bounds": stored.bounds.tolist(),
        "measurements": {name: _with_null(values) for name, values in stored.measurements.items()},
    }
    (folder / TILES).write_text(json.dumps(columns), encoding="utf-8")
    return folder


def take_answer(folder: Path, project: Project) -> None:
    """Put the answer into the project's first image."""
    update = json.loads((folder / UPDATE).read_text(encoding="utf-8"))
    entry: Entry = project.entries[0]
    with project.writing():
        entry.apply(
            ImageUpdate(
                update["remove"],
                read_tiles(folder / NEW_TILES),
                update["region_measurements"],
                frozenset(update["measurement_names"]),
                update["metadata"],
            )
        )


def _feature(annotation: PathObject) -> dict[str, Any]:
    path_class = annotation.path_class
    return {
        "type": "Feature",
        "id": annotation.id,
        "geometry": shapely.geometry.mapping(annotation.geometry),
        "properties": {
            "objectType": "annotation",
            "name": annotation.name,
            "measurements": dict(annotation.measurements),
            **({} if path_class is None else {"classification": {"names": path_class.names, "color": path_class.rgb}}),
        },
    }


def _with_null(values: np.ndarray[Any, np.dtype[np.float32]]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]

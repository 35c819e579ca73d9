"""Annotations as a GeoJSON file that QuPath imports; ``geojson.read_regions`` is the way back."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import shapely

from her2bridge.qupath.geojson import DESCRIPTION, classification_of
from her2bridge.qupath.seam import PathObject
from her2bridge.storage import write_atomically

_ALL_CHANNELS = (-1, 0, 0)


def write_annotations(path: Path, annotations: Sequence[PathObject]) -> None:
    """Write annotations as a FeatureCollection; equal annotations give equal bytes.

    QuPath puts them where they lie, not below a parent: ``parent_id`` is not written.

    Args:
        path: compressed where it ends in ``.gz``.
        annotations: each with a geometry, its coordinates finite.

    Raises:
        WriteFailed: the file cannot be written.
    """
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    features = ",\n".join(encoder.encode(_feature(one)) for one in annotations)
    data = f'{{"type":"FeatureCollection","features":[\n{features}\n]}}\n'.encode()
    write_atomically(path, gzip.compress(data, 6, mtime=0) if path.suffix.lower() == ".gz" else data)


def _feature(annotation: PathObject) -> dict[str, Any]:
    """One Feature; what an annotation does not have is left out, as in QuPath's own files."""
    geometry = dict(shapely.geometry.mapping(annotation.geometry))
    if annotation.plane != _ALL_CHANNELS:
        geometry["plane"] = dict(zip("czt", annotation.plane, strict=True))
    if annotation.is_ellipse:
        geometry["isEllipse"] = True
    properties: dict[str, Any] = {"objectType": "annotation"}
    if annotation.name is not None:
        properties["name"] = annotation.name
    if annotation.rgb is not None:
        properties["color"] = list(annotation.rgb)
    if annotation.path_class is not None:
        properties["classification"] = classification_of(annotation.path_class)
    if annotation.locked:
        properties["isLocked"] = True
    if annotation.measurements:
        properties["measurements"] = {name: _number(value) for name, value in annotation.measurements.items()}
    if metadata := _metadata(annotation):
        properties["metadata"] = metadata
    return {"type": "Feature", "id": annotation.id, "geometry": geometry, "properties": properties}


def _metadata(annotation: PathObject) -> Mapping[str, str]:
    """The string metadata, the description among them: QuPath keeps it there."""
    described = {} if annotation.description is None else {DESCRIPTION: annotation.description}
    return {**annotation.metadata, **described}


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else json.dumps(value)

"""QuPath's GeoJSON dialect to and from the seam's records.

Of a Feature QuPath 0.5 to 0.7 reads ``id``, ``geometry``, ``nucleusGeometry`` and ``properties``, and of a collection
``features``; all other members it drops without a word (``QuPathTypeAdapters``, ``GsonTools``). What a tile has beyond
QuPath's words therefore stands beside them: ``parent``, ``run`` (the mark) and ``side``. It is not in
``properties.metadata``, which 0.5 refuses for tiles.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import math
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import geojson
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from her2bridge.errors import BadRegion, UsageError
from her2bridge.qupath.seam import NewTiles, PathClassRef, PathObject, rgb_of_packed
from her2bridge.records import Float32Array
from her2bridge.storage import write_atomically

_DELIMITER = ":"  # between the names of a derived PathClass; QuPath prints a space after it, and strips when it reads
_UNCLASSIFIED = -1
DESCRIPTION = "ANNOTATION_DESCRIPTION"
_NO_ANNOTATIONS = frozenset(
    {"detection", "tile", "cell", "tmaCore", "tma_core", "root"}
    | {"PathDetectionObject", "PathTileObject", "PathCellObject", "TMACoreObject", "PathRootObject"}
)
_KINDS_AS_IDS = _NO_ANNOTATIONS | {"PathAnnotationObject"}  # QuPath 0.2 wrote an object's kind as its id
_GEOMETRIES = {
    "Point": geojson.Point,
    "MultiPoint": geojson.MultiPoint,
    "LineString": geojson.LineString,
    "MultiLineString": geojson.MultiLineString,
    "Polygon": geojson.Polygon,
    "MultiPolygon": geojson.MultiPolygon,
}
_COLLECTION = "GeometryCollection"
_GZIP_LEVEL = 2  # 100,000 tiles: 11 MB; at level 6 a fifth less, in more than twice the time
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_ID_SPACE = uuid.UUID("5d8ed8dc-0f0c-4b8e-9d4f-3c1c1f0f7a52")  # for regions without an id; any constant does
_EXPORT = "In QuPath, select the regions and export them: File, Export objects as GeoJSON."
_BROKEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Python raises where a value of a JSON is not of the form that it should have."""


def write_tiles(path: Path, tiles: Sequence[NewTiles]) -> None:
    """Write tile objects as a FeatureCollection that QuPath opens; equal tiles give equal bytes.

    QuPath makes rectangles of them: a ring of five points that is one needs no word that says so.

    Args:
        path: compressed where it ends in ``.gz``.
        tiles: origins and sides must be finite.

    Raises:
        WriteFailed: the file cannot be written.
    """
    features = ",\n".join(feature for group in tiles for feature in _features(group))
    data = f'{{"type":"FeatureCollection","features":[\n{features}\n]}}\n'.encode()
    write_atomically(path, gzip.compress(data, _GZIP_LEVEL, mtime=0) if path.suffix.lower() == ".gz" else data)


def read_tiles(path: Path) -> list[NewTiles]:
    """What ``write_tiles`` wrote, in groups of one side, one mark and the same measurements.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or ``write_tiles`` did not write it.
    """
    data = _unpacked(path.read_bytes())
    try:
        return _groups(json.loads(data)["features"])
    except _BROKEN as error:
        raise ValueError(f"no tiles of her2bridge's ({_reason(error)})") from error


def read_regions(path: Path) -> list[PathObject]:
    """The annotations of a GeoJSON file; its detections, tiles, cells and TMA cores are left out.

    Read is what QuPath reads: a FeatureCollection, a Feature, a geometry, or a list of these, as ``.geojson`` or
    ``.json``, also compressed as ``.gz`` or ``.zip``. An annotation without an id is given one that is the same
    whenever the file is read; an id that is no UUID is kept, so that tiles can be matched with their regions.

    Raises:
        BadRegion: an annotation that is not as it should be; the message says which and why.
        UsageError: no such file, or one that holds no GeoJSON.
    """
    try:
        documents = [json.loads(text) for text in _texts(path.read_bytes())]
        features = [feature for document in documents for feature in _features_in(document)]
    except OSError as error:
        what = f"The regions cannot be read ({error.strerror or type(error).__name__})."
        raise UsageError(what, where=str(path), next_step="Check the path.") from error
    except _BROKEN as error:
        what = f"This file holds no GeoJSON ({_reason(error)})."
        raise UsageError(what, where=str(path), next_step=_EXPORT) from error
    regions: list[PathObject] = []
    for number, feature in enumerate(features, start=1):
        try:
            regions += _annotations(feature, None, str(number))
        except (*_BROKEN, shapely.errors.ShapelyError) as error:
            raise BadRegion(
                f"A region cannot be read: {_reason(error)}.",
                where=f"{path}, feature {number}{_title(feature)}",
                next_step=f"Correct it or leave it out. {_EXPORT}",
            ) from error
    return regions


def _features(tiles: NewTiles) -> Iterator[str]:
    """The Features of a group of tiles as JSON; put together from its pieces, for there may be 100,000 of them.

    Raises:
        ValueError: an origin or the side is not finite.
    """
    bounds = tiles.bounds()
    if not np.isfinite(bounds).all():
        raise ValueError("a tile lies at no finite place")
    # Tiles of a grid share their edges; but −0.0 equals 0.0, and a cache would take the one for the other.
    number = repr if np.signbit(bounds[bounds == 0]).any() else functools.cache(repr)
    classified = [f'"classification":{_encode(classification_of(one))},' for one in tiles.path_classes]
    classes = [*classified, ""]  # the last one is number −1
    parents = [_encode(one) for one in tiles.parent_ids]
    run, side = _encode(tiles.mark), _encode(tiles.side)
    rows: Iterator[Sequence[float | str]] = iter(_numbers(tiles.measurements))
    measured = ",".join(_encode(name).replace("%", "%%") + ":%s" for name in tiles.measurement_names)
    columns = zip(
        map(_encode, tiles.ids), *bounds.T.tolist(), tiles.parents.tolist(), tiles.classes.tolist(), rows, strict=True
    )
    for id_, *box, parent, class_number, row in columns:
        left, top, right, bottom = map(number, box)
        yield (
            f'{{"type":"Feature","id":{id_},"geometry":{{"type":"Polygon","coordinates":[[[{left},{top}],[{right},{top}],'
            f'[{right},{bottom}],[{left},{bottom}],[{left},{top}]]]}},"parent":{parents[parent]},"run":{run},'
            f'"side":{side},"properties":{{"objectType":"tile",{classes[class_number]}'
            f'"measurements":{{{measured % tuple(row)}}}}}}}'
        )


def classification_of(path_class: PathClassRef) -> dict[str, Any]:
    """A PathClass as QuPath writes it; without a colour too it must have the key, or QuPath refuses the file.

    QuPath refuses a name that holds its delimiter, so such a name becomes several.
    """
    names = _split(str(path_class))
    colour = None if path_class.rgb is None else list(path_class.rgb)
    return {"name": names[0], "color": colour} if len(names) == 1 else {"names": names, "color": colour}


def _numbers(values: Float32Array) -> list[list[float | str]]:
    """Rows for JSON: a float32 is a float64 too, and what JSON has no number for is a string, as in QuPath."""
    rows: list[list[float | str]] = values.tolist()
    for row, column in np.argwhere(~np.isfinite(values)).tolist():
        rows[row][column] = f'"{json.dumps(rows[row][column])}"'
    return rows


def _groups(features: list[Any]) -> list[NewTiles]:
    if not isinstance(features, list):
        raise TypeError("features is no list")
    groups: dict[tuple[float, str, tuple[str, ...]], list[Any]] = {}
    for feature in features:
        names = tuple(feature["properties"]["measurements"])
        groups.setdefault((float(feature["side"]), feature["run"], names), []).append(feature)
    return [_group(side, mark, names, members) for (side, mark, names), members in groups.items()]


def _group(side: float, mark: str, names: Sequence[str], features: Sequence[Any]) -> NewTiles:
    parents = [feature["parent"] for feature in features]
    parent_ids = list(dict.fromkeys(parents))
    parent_rows = {parent: row for row, parent in enumerate(parent_ids)}
    classes = [path_class_of(feature["properties"].get("classification")) for feature in features]
    path_classes = [one for one in dict.fromkeys(classes) if one is not None]
    class_rows: dict[PathClassRef | None, int] = {one: row for row, one in enumerate(path_classes)}
    class_rows[None] = _UNCLASSIFIED
    corners = [feature["geometry"]["coordinates"][0][0] for feature in features]
    values = [[float(value) for value in feature["properties"]["measurements"].values()] for feature in features]
    return NewTiles(
        origins=np.array(corners, dtype=np.float64).reshape(len(features), 2),
        side=side,
        parents=np.array([parent_rows[parent] for parent in parents], dtype=np.int64),
        parent_ids=parent_ids,
        classes=np.array([class_rows[one] for one in classes], dtype=np.int64),
        path_classes=path_classes,
        measurement_names=names,
        measurements=np.array(values, dtype=np.float32),
        mark=mark,
        ids=[feature["id"] for feature in features],
    )


def _unpacked(data: bytes) -> bytes:
    """The content of a gzip file, or the data itself.

    Raises:
        ValueError: the gzip file is damaged.
    """
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"a damaged gzip file: {error}") from error


def _texts(data: bytes) -> Iterator[bytes]:
    """The JSON of a file, or every JSON in a zip file.

    Raises:
        ValueError: the zip or gzip file is damaged, locked, or without a JSON.
    """
    if not data.startswith(_ZIP):
        yield _unpacked(data)
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if _is_geojson(name)]
            contents = [archive.read(name) for name in names]
    except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError: it needs a password
        raise ValueError(f"a zip file that cannot be read: {error}") from error
    if not contents:
        raise ValueError("a zip file without .geojson or .json in it")
    yield from map(_unpacked, contents)


def _is_geojson(name: str) -> bool:
    """Whether QuPath would read a file of this name; macOS puts files beside it that begin with a dot."""
    last = name.lower().rpartition("/")[2]
    return last.removesuffix(".gz").endswith((".json", ".geojson")) and not last.startswith(".")


def _features_in(content: Any) -> Iterator[Mapping[str, Any]]:
    """All Features of a document; a geometry by itself becomes one.

    Raises:
        ValueError: what is there is no GeoJSON.
    """
    kind = content.get("type") if isinstance(content, dict) else None
    if isinstance(content, list):
        for one in content:
            yield from _features_in(one)
    elif kind == "FeatureCollection":
        if not isinstance(content["features"], list):
            raise ValueError("features is no list")
        yield from _features_in(content["features"])
    elif kind == "Feature":
        yield content
    elif kind in _GEOMETRIES or kind == _COLLECTION:
        yield {"geometry": content}
    else:
        raise ValueError(f"neither Feature nor geometry: {_shortened(content)}")


def _annotations(feature: Mapping[str, Any], parent_id: str | None, place: str) -> Iterator[PathObject]:
    """The annotation that a Feature is, if it is one, and those below it.

    Args:
        feature: as QuPath writes it since 0.2.
        parent_id: of the object that it is nested in.
        place: where it stands in the file, e.g. ``3`` or ``3.1``.
    """
    properties = feature.get("properties") or {}
    given = feature.get("id")
    kind = next((properties[key] for key in ("objectType", "object_type", "type") if key in properties), given)
    own_id = parent_id
    if kind not in _NO_ANNOTATIONS:
        is_id = given is not None and given not in _KINDS_AS_IDS
        own_id = str(given) if is_id else str(uuid.uuid5(_ID_SPACE, f"{place} {json.dumps(feature, sort_keys=True)}"))
        yield _annotation(own_id, parent_id, feature.get("geometry") or None, properties)
    children = properties.get("childObjects") or properties.get("children") or []
    for number, child in enumerate(children, start=1):
        yield from _annotations(child, own_id, f"{place}.{number}")


def _annotation(
    id_: str, parent_id: str | None, geometry: Mapping[str, Any] | None, properties: Mapping[str, Any]
) -> PathObject:
    name = properties.get("name")
    metadata = _strings(properties.get("metadata") or {})
    plane = (geometry or {}).get("plane") or {}
    return PathObject(
        kind="annotation",
        id=id_,
        parent_id=parent_id,
        name=None if name is None else str(name),
        path_class=path_class_of(properties.get("classification")),
        rgb=_rgb(properties.get("color")),
        geometry=None if geometry is None else _shape(geometry),
        plane=(int(plane.get("c", -1)), int(plane.get("z", 0)), int(plane.get("t", 0))),
        measurements=_measurements(properties.get("measurements") or {}),
        description=metadata.pop(DESCRIPTION, None),
        metadata=metadata,
        locked=properties.get("isLocked") is True,
        is_ellipse=geometry is not None and geometry.get("isEllipse") is True,
    )


def path_class_of(value: Any) -> PathClassRef | None:
    """A PathClass: a string, an object of name(s) and colour, or what QuPath wrote before 0.4."""
    if not value:  # {} is QuPath's class of the unclassified
        return None
    if isinstance(value, str):
        value = {"name": value}
    parent = path_class_of(value.get("parentClass"))
    own = map(str, value["names"]) if value.get("name") is None else _split(value["name"])
    names = (*(parent.names if parent else ()), *own)
    return PathClassRef(names, _rgb(value.get("color", value.get("colorRGB")))) if names else None


def _split(text: str) -> list[str]:
    names = (name.strip() for name in text.split(_DELIMITER))
    return [name for name in names if name]


def _rgb(value: Any) -> tuple[int, int, int] | None:
    """A colour: [r, g, b], [r, g, b, alpha], or one packed integer; null and [] are none."""
    if value is None or value == []:
        return None
    if isinstance(value, list):
        red, green, blue = map(int, value[:3])
        return red, green, blue
    packed = int(value)
    return rgb_of_packed(packed)


def _measurements(value: Any) -> dict[str, float]:
    """Name to number; before 0.4 QuPath wrote a list of pairs. What has no number is left out, as QuPath does."""
    pairs = [(one["name"], one["value"]) for one in value] if isinstance(value, list) else value.items()
    return {str(name): float(number) for name, number in pairs if number is not None}


def _strings(value: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(text) for key, text in value.items() if isinstance(text, str | int | float)}


def _shape(geometry: Mapping[str, Any]) -> BaseGeometry:
    """A geometry in two dimensions; of a collection the parts of the highest dimension, united.

    Raises:
        ValueError: it has no coordinates, or such as make no geometry.
    """
    kind = geometry.get("type")
    if kind == _COLLECTION:
        parts = np.array([_shape(one) for one in geometry["geometries"]], dtype=object)
        if not len(parts):
            raise ValueError("it has no coordinates")
        dimensions = shapely.get_dimensions(parts)
        highest = parts[dimensions == dimensions.max()]
        united: BaseGeometry = highest[0] if len(highest) == 1 else shapely.union_all(shapely.make_valid(highest))
        return united
    if kind not in _GEOMETRIES:
        raise ValueError(f"{_shortened(kind)} is no kind of geometry")
    checked = _GEOMETRIES[kind](geometry.get("coordinates"))
    numbers = [number for point in geojson.utils.coords(checked) for number in point]
    if not numbers:
        raise ValueError("it has no coordinates")
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a coordinate is no finite number")
    if faults := checked.errors():
        raise ValueError(faults if isinstance(faults, str) else faults[0])
    return shapely.force_2d(shapely.geometry.shape({"type": kind, "coordinates": geometry["coordinates"]}))


def _reason(error: Exception) -> str:
    """What an error of Python's says, as the middle of a sentence."""
    if isinstance(error, KeyError):
        return f"{_shortened(error.args[0])} is missing"
    text = _shortened(str(error).rstrip(".") or type(error).__name__)
    return f"a value of the wrong kind ({text})" if isinstance(error, AttributeError | TypeError) else text


def _title(feature: Mapping[str, Any]) -> str:
    """The feature's name for a message; empty where it has none."""
    properties = feature.get("properties")
    name = properties.get("name") if isinstance(properties, dict) else None
    return f" ({_shortened(name or feature['id'])})" if name or feature.get("id") else ""


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:119]}…"

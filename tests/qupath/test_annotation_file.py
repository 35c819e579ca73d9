"""Annotations for QuPath to import: what it reads, and the way there and back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from shapely import Point, Polygon, box

from her2bridge.errors import WriteFailed
from her2bridge.qupath.annotation_file import write_annotations
from her2bridge.qupath.geojson import read_regions
from her2bridge.qupath.seam import OWNERSHIP_KEY, PathClassRef, PathObject

ID = "00000000-0000-4000-8000-000000000001"
PLAIN = PathObject("annotation", ID, None, geometry=box(0.5, 1, 2, 3))
FULL = PathObject(
    kind="annotation",
    id=ID,
    parent_id=None,
    name="µ 1",
    path_class=PathClassRef(("Tumor", "Positive"), (250, 62, 62)),
    rgb=(1, 2, 3),
    geometry=Polygon([(0, 0), (9, 0), (9, 9.25)], [[(7, 1), (8, 1), (8, 2)]]),
    plane=(1, 2, 3),
    measurements={"a": 0.5, "b": float("nan"), "c": float("-inf")},
    metadata={OWNERSHIP_KEY: "0123456789ab"},
    locked=True,
    description="why",
)


def written(folder: Path, *annotations: PathObject) -> list[dict[str, object]]:
    write_annotations(folder / "some.geojson", annotations)
    found = json.loads((folder / "some.geojson").read_text(encoding="utf-8"))
    assert found["type"] == "FeatureCollection"
    return list(found["features"])


def test_a_plain_one(tmp_path: Path) -> None:
    ring = [[2.0, 1.0], [2.0, 3.0], [0.5, 3.0], [0.5, 1.0], [2.0, 1.0]]
    assert written(tmp_path, PLAIN) == [
        {
            "type": "Feature",
            "id": ID,
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation"},
        }
    ]


def test_what_qupath_reads(tmp_path: Path) -> None:
    (feature,) = written(tmp_path, FULL)
    assert isinstance(feature["geometry"], dict)
    assert feature["geometry"]["plane"] == {"c": 1, "z": 2, "t": 3}
    assert feature["properties"] == {
        "objectType": "annotation",
        "name": "µ 1",
        "color": [1, 2, 3],
        "classification": {"names": ["Tumor", "Positive"], "color": [250, 62, 62]},
        "isLocked": True,
        "measurements": {"a": 0.5, "b": "NaN", "c": "-Infinity"},
        "metadata": {OWNERSHIP_KEY: "0123456789ab", "ANNOTATION_DESCRIPTION": "why"},
    }


@pytest.mark.parametrize("name", ["some.geojson", "some.geojson.gz"])
def test_there_and_back(tmp_path: Path, name: str) -> None:
    ellipse = PathObject("annotation", ID.replace("1", "2"), None, geometry=Point(5, 5).buffer(3), is_ellipse=True)
    given = [FULL, PLAIN, ellipse]
    write_annotations(tmp_path / "below" / name, given)
    found = read_regions(tmp_path / "below" / name)
    for one, other in zip(given, found, strict=True):
        assert one.geometry is not None
        assert one.geometry.equals(other.geometry)
        assert {**vars(one), "geometry": None, "measurements": None} == {
            **vars(other),
            "geometry": None,
            "measurements": None,
        }
    assert str(found[0].measurements) == str(FULL.measurements)


def test_equal_annotations_equal_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "1.geojson.gz", tmp_path / "2.geojson.gz"
    for path in (first, second):
        write_annotations(path, [FULL, PLAIN])
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4)  # where gzip has the time
    assert gzip.decompress(first.read_bytes()).startswith(b'{"type":"FeatureCollection"')


def test_none_is_an_empty_collection(tmp_path: Path) -> None:
    assert written(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed):
        write_annotations(tmp_path / "file" / "some.geojson", [PLAIN])

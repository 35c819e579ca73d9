"""Reading every object kind of files that real QuPaths wrote, against QuPath's own exports."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import shapely
from conftest import FIXTURES
from shapely.geometry import shape

from her2bridge.qupath.seam import PathObject
from her2bridge.qupath.via_files.data_file import DataFile

FILES = sorted(FIXTURES.rglob("data.qpdata"))


def exported(path: Path) -> dict[str, dict[str, Any]]:
    """QuPath's export of an image, by id."""
    content = json.loads((path.parents[2] / "expected" / f"{path.parent.name}.geojson").read_bytes())
    features = content["features"] if isinstance(content, dict) else content
    return {feature["id"]: feature for feature in features}


def name_of(path: Path) -> str:
    return "-".join(path.relative_to(FIXTURES).parts[:-1])


def test_fixtures_are_there() -> None:
    assert len(FILES) == 19


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_equals_qupaths_own_export(path: Path) -> None:
    objects = list(DataFile.read(path).objects())
    expected = exported(path)
    assert [one.id for one in objects] == list(expected)
    for one in objects:
        same_object(one, expected[one.id])


def same_object(one: PathObject, feature: dict[str, Any]) -> None:
    properties, geometry = feature["properties"], feature["geometry"]
    assert one.kind == properties["objectType"]
    assert one.name == properties.get("name")
    assert one.parent_id == feature.get("x-parent-id")  # her2_cores has none: there all annotations lie at the root
    assert one.locked == properties.get("isLocked", False)
    classification = properties.get("classification")
    if classification is None:
        assert one.path_class is None
    else:
        assert one.path_class is not None
        assert list(one.path_class.names) == classification.get("names", [classification.get("name")])
        assert one.path_class.rgb == tuple(classification["color"])
    assert one.rgb == (tuple(properties["color"]) if "color" in properties else None)
    same_measurements(dict(one.measurements), properties.get("measurements", {}))
    metadata = dict(one.metadata)
    if one.description is not None:
        metadata["ANNOTATION_DESCRIPTION"] = one.description
    assert metadata == properties.get("metadata", {})
    plane = geometry.pop("plane", {"c": -1, "z": 0, "t": 0})
    assert one.plane == (plane["c"], plane["z"], plane["t"])
    assert one.is_ellipse == geometry.pop("isEllipse", False)
    assert one.geometry is not None
    same_geometry(one.geometry, geometry)
    if "nucleusGeometry" in feature:
        assert one.nucleus is not None
        same_geometry(one.nucleus, feature["nucleusGeometry"])
    else:
        assert one.nucleus is None


def same_measurements(ours: dict[str, float], theirs: dict[str, Any]) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if value == "NaN":
            assert math.isnan(ours[name])
        else:
            assert ours[name] == pytest.approx(value, rel=1e-6)


def same_geometry(ours: shapely.Geometry, theirs: dict[str, Any]) -> None:
    """Rings in either order; QuPath exports two decimals."""
    expected = shape(theirs)
    assert ours.geom_type == expected.geom_type
    assert shapely.hausdorff_distance(ours, expected) <= 0.0151
    assert ours.area == pytest.approx(expected.area, rel=1e-3)

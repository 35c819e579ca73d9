"""One slide without a project: the same tiles and score as a run gives, in the image's own coordinates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely.geometry import mapping

from her2bridge import events as ev
from her2bridge.analyze import analyze_slide
from her2bridge.demo import Demo
from her2bridge.errors import NoRegions, WriteFailed
from her2bridge.qupath.geojson import read_regions, read_tiles
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import PathObject
from her2bridge.qupath.server_builder import slide_source
from her2bridge.records import SlideSource, Specimen
from her2bridge.run import run_project
from her2bridge.scoring import ScoreSettings
from her2bridge.settings import RunSettings

FEW = ScoreSettings(min_tumour_tiles=5, min_tumour_mm2=0.0)
CPU = RunSettings(device="cpu", runtime="torch", precision="fp32", scores=FEW, specimen=Specimen.RESECTION)


def source_of(demo: Demo) -> SlideSource:
    (entry,) = open_project(demo.project, "files").entries
    return slide_source(entry.server_json, folder=demo.project.parent, saved_uri=None)


def annotations_of(demo: Demo) -> list[PathObject]:
    (entry,) = open_project(demo.project, "files").entries
    return entry.annotations()


def written(path: Path) -> dict[tuple[float, ...], tuple[str | None, str | None]]:
    """By the corners of each tile: its class and its parent."""
    (tiles,) = read_tiles(path)
    parents = [tiles.parent_ids[row] for row in tiles.parents]
    rows = zip(tiles.bounds().tolist(), tiles.class_names(), parents, strict=True)
    return {tuple(np.round(bounds, 3)): (name, parent) for bounds, name, parent in rows}


def test_equals_a_run(demo: Demo, tmp_path: Path) -> None:
    run_project(demo.project, CPU)
    (entry,) = open_project(demo.project, "files").entries
    regions = annotations_of(demo)
    heard: list[ev.Event] = []
    output = tmp_path / "tiles.geojson.gz"
    score = analyze_slide(source_of(demo), regions, output, CPU, heard.append)
    last = heard[-1]
    assert isinstance(last, ev.ImageScored)
    assert not any(isinstance(event, ev.ImageTimed) for event in heard)
    analyze_slide(source_of(demo), regions, output, replace(CPU, profile=True), heard.append)
    timed = heard[-2]
    assert isinstance(timed, ev.ImageTimed)
    assert timed.tiles == sum(last.counts.values())
    assert timed.stages["writing"] > 0
    for key in ("HER2 AI score", "HER2 AI % tiles 3+", "HER2 AI tile H-score", "HER2 AI review"):
        assert last.metadata[key] == entry.metadata[key]
    assert score.score == last.score
    assert last.written_to == str(output)
    tiles = [one for one in entry.objects() if one.kind == "tile"]
    in_project = {tuple(np.round(one.geometry.bounds, 3)): one for one in tiles if one.geometry is not None}
    found = written(output)
    assert set(found) == set(in_project)
    assert {corners: (str(one.path_class), one.parent_id) for corners, one in in_project.items()} == found


def test_a_crop_is_scored_in_its_own_coordinates(demo: Demo, tmp_path: Path) -> None:
    """A crop at a multiple of the tile's side has the same tiles, moved; read from QuPath's own JSON."""
    x, y = 512, 256
    (entry,) = open_project(demo.project, "files").entries
    crop = {"x": x, "y": y, "width": 2048, "height": 1536, "z": 0, "t": 0}
    server = {"builderType": "cropped", "region": {"downsample": 1.0, **crop}, "builder": entry.server_json}
    source = slide_source(server, folder=demo.project.parent, saved_uri=None)
    area = shapely.box(x, y, x + 2048, y + 1536)
    whole, cropped = [], []
    for one in annotations_of(demo):
        part = one.geometry.intersection(area) if one.geometry is not None else shapely.Polygon()
        if str(one.path_class) == "Tumor" and part.area > 0:
            whole.append(replace(one, geometry=part))
            cropped.append(replace(one, geometry=shapely.affinity.translate(part, -x, -y)))
    assert len(whole) >= 2
    analyze_slide(source_of(demo), whole, tmp_path / "whole.geojson", CPU)
    analyze_slide(source, cropped, tmp_path / "cropped.geojson", CPU)
    moved = {
        (x0 + x, y0 + y, x1 + x, y1 + y): found
        for (x0, y0, x1, y1), found in written(tmp_path / "cropped.geojson").items()
    }
    assert moved == written(tmp_path / "whole.geojson")
    assert len(moved) >= 10


def _feature(region: PathObject, **properties: object) -> dict[str, object]:
    geometry = mapping(region.geometry)
    return {"type": "Feature", "id": region.id, "geometry": geometry, "properties": properties}


def regions_file(folder: Path, features: Sequence[dict[str, object]]) -> Path:
    path = folder / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def test_regions_without_classes_are_all_scored(demo: Demo, tmp_path: Path) -> None:
    tumour = [one for one in annotations_of(demo) if str(one.path_class) == "Tumor"][:2]
    path = regions_file(tmp_path, [_feature(one, objectType="annotation") for one in tumour])
    analyze_slide(source_of(demo), read_regions(path), tmp_path / "tiles.geojson", CPU)
    assert {parent for _, parent in written(tmp_path / "tiles.geojson").values()} == {one.id for one in tumour}


def test_classes_decide_where_there_are_any(demo: Demo, tmp_path: Path) -> None:
    first, second = [one for one in annotations_of(demo) if str(one.path_class) == "Tumor"][:2]
    features = [_feature(first, classification={"name": "Tumor"}), _feature(second, classification="Stroma")]
    regions = read_regions(regions_file(tmp_path, features))
    analyze_slide(source_of(demo), regions, tmp_path / "tiles.geojson", CPU)
    assert {parent for _, parent in written(tmp_path / "tiles.geojson").values()} == {first.id}
    stroma = replace(CPU, region_classes=("Stroma",))
    analyze_slide(source_of(demo), regions, tmp_path / "tiles.geojson", stroma)
    assert {parent for _, parent in written(tmp_path / "tiles.geojson").values()} == {second.id}


def test_whole_slide_needs_no_regions(demo: Demo, tmp_path: Path) -> None:
    score = analyze_slide(source_of(demo), [], tmp_path / "tiles.geojson", replace(CPU, whole_slide=True))
    assert any("whole slide" in reason for reason in score.review)
    assert {parent for _, parent in written(tmp_path / "tiles.geojson").values()} == {None}


def test_no_regions(demo: Demo) -> None:
    with pytest.raises(NoRegions, match="no region to score"):
        analyze_slide(source_of(demo), [], None, CPU)


def test_an_output_that_cannot_be_written(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed):
        analyze_slide(source_of(demo), annotations_of(demo), tmp_path / "file" / "tiles.geojson", CPU)

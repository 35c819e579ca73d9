"""``her2bridge analyze``: one slide, regions and tiles as GeoJSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import shapely
from cli_calls import CPU, call, events_of, is_three_parts, types_of

from her2bridge.demo import Demo
from her2bridge.qupath.geojson import read_tiles
from her2bridge.records import SlideSource


@pytest.fixture
def regions(small_demo: Demo, tmp_path: Path) -> Path:
    """Some of the demo's annotations as QuPath exports them."""
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(region.geometry),
            "properties": {"objectType": "annotation", "classification": {"name": region.class_name}},
        }
        for region in small_demo.truth.regions[:2]
    ]
    path = tmp_path / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def server_json(demo: Demo) -> Path:
    (path,) = demo.project.parent.glob("data/*/server.json")
    return path


def scored(*args: str | Path) -> dict[str, Any]:
    told = call("analyze", "--json", *CPU, *args)
    assert told.exit_code == 0, told.stderr
    heard = events_of(told.stdout)
    assert types_of(heard) == ["run_started", "runtime_chosen", "image_started", "image_scored"]
    return heard[-1]


def test_a_slide_and_a_server_are_the_same(small_demo: Demo, regions: Path, tmp_path: Path) -> None:
    output = tmp_path / "tiles.geojson.gz"
    slide = scored(small_demo.slide, "--regions", regions, "--output", output)
    server = scored("--server", server_json(small_demo), "--regions", regions)
    assert slide["counts"] == server["counts"]
    assert sum(slide["counts"].values()) > 3
    assert slide["written_to"] == str(output)
    assert server["written_to"] == ""
    assert sum(map(len, read_tiles(output))) == sum(slide["counts"].values())


def test_people_are_told_the_score(small_demo: Demo, regions: Path) -> None:
    told = call("analyze", small_demo.slide, "--regions", regions, *CPU)
    assert told.exit_code == 0
    assert "Score" in told.stdout
    assert small_demo.slide.name in told.stdout
    assert "Research use only" in told.stdout
    assert "Close the project" not in told.stderr


def test_a_plain_slide_is_shown_within_its_bounds(monkeypatch: pytest.MonkeyPatch, regions: Path) -> None:
    """QuPath's OpenSlide server does so; no slide at hand has bounds, hence the look at what is asked for."""
    asked: list[SlideSource] = []

    def analyze_slide(source: SlideSource, *_: object) -> None:
        asked.append(source)

    monkeypatch.setattr("her2bridge.analyze.analyze_slide", analyze_slide)
    slide = regions.with_name("a.svs")
    slide.write_bytes(b"")
    assert call("analyze", slide, "--regions", regions).exit_code == 0
    assert asked == [SlideSource(slide, use_bounds=True)]


def test_the_server_json_of_a_moved_project(small_demo: Demo, regions: Path, tmp_path: Path) -> None:
    """Its slide is looked for beside the project, as in a run."""
    home = tmp_path / "home"
    shutil.copytree(small_demo.project.parent, home / "project")
    (home / "slides").mkdir()
    (home / "slides" / small_demo.slide.name).symlink_to(small_demo.slide)
    project = home / "project" / "project.qpproj"
    server = home / "project" / "data" / "1" / "server.json"
    for path in (project, server):
        text = path.read_text()
        assert str(small_demo.slide.parents[1]) in text
        path.write_text(text.replace(str(small_demo.slide.parents[1]), "/gone"))
    assert call("analyze", "--server", server, "--regions", regions, *CPU).exit_code == 0
    project.unlink()
    told = call("analyze", "--server", server, "--regions", regions, *CPU)
    assert told.exit_code == 1
    assert "/gone/slides" in told.stderr


def test_wrong_usage(small_demo: Demo, regions: Path, tmp_path: Path) -> None:
    slide, server = small_demo.slide, server_json(small_demo)
    (tmp_path / "folder.geojson").mkdir()
    for args, what in (
        (("--regions", regions), "No slide is named"),
        ((slide, "--server", server, "--regions", regions), "named twice"),
        ((slide,), "no regions"),
        ((slide, "--regions", tmp_path / "nowhere"), "regions cannot be read"),
        (("--server", tmp_path / "nowhere", "--regions", regions), "cannot be read"),
        ((slide, "--regions", regions, "--output", tmp_path / "tiles.txt"), "tiles are GeoJSON"),
        ((slide, "--regions", regions, "--output", tmp_path / "no" / "t.geojson"), "folder for the tiles is not there"),
        ((slide, "--regions", regions, "--output", tmp_path / "folder.geojson"), "cannot be written"),
    ):
        told = call("analyze", *args)
        assert told.exit_code == 2, args
        assert is_three_parts(told.stderr)
        assert what in told.stderr


def test_a_slide_that_is_not_there(regions: Path, tmp_path: Path) -> None:
    told = call("analyze", tmp_path / "nowhere.svs", "--regions", regions, "--json")
    assert told.exit_code == 2
    heard = events_of(told.stdout)
    assert types_of(heard) == ["failed"]
    assert heard[-1]["next_step"] == "Check the path."

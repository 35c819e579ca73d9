"""``her2bridge labels``: a dataset from projects and from GeoJSON, and what is told of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from cli_calls import call, events_of, is_three_parts, types_of
from labelled_projects import annotation, draw_picture, labelled_project
from shapely.geometry import box

from her2bridge.qupath.annotation_file import write_annotations
from her2bridge.training.dataset import load_dataset, read_pixels

TILE = ("--tile-px", "16", "--tile-mpp", "4.0", "--backend", "files")
CLASSES = ("Negative", "HER2: 3+", "Stroma", "Noise*")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Six slides of two patients each three, each slide with 6 tiles of 0, of 3+ and of noise."""
    labels = [annotation(name, name, box(n * 64, 0, n * 64 + 48, 32)) for n, name in enumerate(CLASSES)]
    images = {f"P{n % 3}-{n}.png": labels for n in range(6)}
    return labelled_project(tmp_path / "Dr A", images, {name: {"Case": name[:2]} for name in images})


def test_the_whole_way_for_people(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    told = call("labels", project.parent, "--out", out, "--patient-key", "Case", "--negative-is-zero", *TILE)
    assert told.exit_code == 0
    lines = [re.split(r"  +", line.strip()) for line in told.stdout.splitlines()]
    assert ["Negative", "6", "0 (as --negative-is-zero says)"] in lines
    assert ["HER2: 3+", "6", "3+"] in lines
    assert ["Noise*", "6", "noise"] in lines
    assert ["Stroma", "6", "unknown (no label's name; a mapping file can give it one)"] in lines
    for split in ("train", "val", "test"):
        assert [split, "12", "0", "0", "12", "0", "12", "36", "1"] in lines
    assert f"108 tiles of 6 slides: {out}" in told.stdout
    assert "Research use only" in told.stdout
    assert "Warning: regions classed Stroma are not used, 6: " in told.stderr
    dataset = load_dataset(out)
    assert (len(dataset.tiles), dataset.spec.size_px, dataset.spec.mpp) == (108, 16, 4.0)
    assert set(dataset.tiles.annotators) == {"Dr A"}
    assert set(dataset.patients) == {"P0", "P1", "P2"}
    assert dataset.card["settings"]["negative_is_zero"] is True
    assert dataset.card["settings"]["sources"] == [str(project)]
    assert {one["class"]: one["regions"] for one in dataset.card["classes"]} == dict.fromkeys(CLASSES, 6)


def test_events_and_what_negative_needs(project: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text('"Stroma" = "normal"\n"Noise*" = "ignore"\n')
    asked = ("labels", project, "--out", tmp_path / "set", "--mapping", mapping, "--json", *TILE)
    told = call(*asked, "--image", "P0-0.png", "--annotator", "somebody")
    assert told.exit_code == 0
    heard = events_of(told.stdout)
    assert [kind for kind in types_of(heard) if kind != "task_progress"] == [
        *("labels_read", "warned", "warned", "warned", "warned", "warned", "warned", "dataset_written")
    ]
    messages = [event["message"] for event in heard if event["type"] == "warned"]
    assert messages[0].startswith("regions classed Negative are not used, 1: some mean 0 by it")
    assert messages[1].startswith("each slide is taken as a patient's of its own")
    assert messages[2] == "one patient cannot fill 3 splits: all tiles go to train"
    written = heard[-1]
    assert written["tiles"] == {"0": 0, "1+": 0, "2+": 0, "3+": 6, "normal": 6, "noise": 0}
    assert (written["slides"], written["patients"]) == (1, 1)
    assert written["splits"] == {"train": 12, "val": 0, "test": 0}
    dataset = load_dataset(tmp_path / "set")
    assert written["sha256"] == dataset.sha256
    assert set(dataset.tiles.annotators) == {"somebody"}
    assert dataset.card["settings"]["mapping"] == {"Stroma": "normal", "Noise*": "ignore"}


def test_options_reach_the_settings(project: Path, tmp_path: Path) -> None:
    asked = ("--min-inside", "0.6", "--min-tissue", "0", "--offsets", "2", "--seed", "4", "--split", "paper")
    shared = ("--shares", "2:1:1", "--test-slide", "P2-5.png", "--no-corrections", "--mpp", "4")
    told = call(
        *("labels", project, "--out", tmp_path / "set", "--patient-pattern", "^(P.)-", *asked, *shared, *TILE),
    )
    assert told.exit_code == 0
    dataset = load_dataset(tmp_path / "set")
    settings = dataset.card["settings"]
    assert (settings["min_inside"], settings["min_tissue"], settings["seed"], settings["mpp"]) == (0.6, 0, 4, 4)
    assert (len(settings["grids"]), settings["corrections"], settings["patient_pattern"]) == (3, False, "^(P.)-")
    assert (settings["split"], settings["shares"], settings["test_slides"]) == ("paper", [2, 1, 1], ["P2-5.png"])
    splits = np.array(dataset.tiles.splits)
    patients = np.array(dataset.patients)
    assert set(splits[patients == "P2"]) == {"test"}
    assert set(splits[patients == "P1"]) == {"train", "val"}
    assert "--split paper mixes the tiles of every slide" in told.stderr


def test_geojson_pairs_sheets_and_files(tmp_path: Path) -> None:
    asked: list[str | Path] = []
    for name in ("x", "y"):
        slide, regions = draw_picture(tmp_path / f"{name}.png", seed=ord(name)), tmp_path / f"{name}.geojson"
        write_annotations(regions, [annotation("r", "2+" if name == "x" else "Normal", box(0, 0, 32, 32))])
        asked += ["--slide", slide, "--regions", regions]
    out = tmp_path / "set"
    told = call("labels", *asked, "--out", out, "--mpp", "4.0", "--sheets", "--export-tiles", *TILE)
    assert told.exit_code == 0
    assert {path.name for path in (out / "sheets").iterdir()} == {"2+.jpg", "normal.jpg"}
    dataset = load_dataset(out)
    assert {slide.name: slide.source.path for slide in dataset.slides} == {
        "x.png": tmp_path / "x.png",
        "y.png": tmp_path / "y.png",
    }
    assert dataset.card["classes"], "what export_tiles saves anew keeps the account"
    before = read_pixels(dataset, np.arange(8))
    for name in ("x.png", "y.png"):
        (tmp_path / name).unlink()
    assert (read_pixels(dataset, np.arange(8)) == before).all()


def test_a_failed_image_makes_it_1_and_the_rest_is_written(project: Path, tmp_path: Path) -> None:
    (tmp_path / "slides" / "P1-1.png").unlink()
    told = call("labels", project, "--out", tmp_path / "set", *TILE)
    assert told.exit_code == 1
    assert "P1-1.png failed: The slide" in told.stderr
    dataset = load_dataset(tmp_path / "set")
    assert len(dataset.slides) == 5
    assert dataset.card["failed_images"] == ["P1-1.png"]
    shelved = tmp_path / "other place"
    (tmp_path / "slides").rename(shelved)
    told = call("labels", project, "--out", tmp_path / "set", "--relocate", f"{tmp_path / 'slides'}={shelved}", *TILE)
    assert (told.exit_code, len(load_dataset(tmp_path / "set").slides)) == (1, 5)


def test_no_labels(project: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "map.json"
    mapping.write_text('{"HER2: 3+": "ignore", "noise*": "ignore"}')
    told = call("labels", project, "--out", tmp_path / "set", "--mapping", mapping, *TILE)
    assert told.exit_code == 1
    error = told.stderr[told.stderr.index("Error: ") :]
    assert is_three_parts(error)
    assert "HER2: 3+, 6: not used (as the mapping file says)" in error
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "There is nothing to take labels from."),
        (["--slide", "a.svs"], "Slides and files of regions do not pair: 1 and 0."),
        (["nowhere"], "There is no such file or folder."),
        (["nowhere", "--shares", "8:2"], "--shares cannot be '8:2'."),
        (["nowhere", "--shares", "0:0:0"], "--shares cannot be 0:0:0."),
        (["nowhere", "--split", "slide"], "--split cannot be 'slide'."),
        (["nowhere", "--min-inside", "0.4"], "--min-inside cannot be 0.4."),
        (["nowhere", "--patient-key", "a", "--patient-pattern", "(b)"], "The patient is named in two ways."),
        (["nowhere", "--mapping", "nowhere.toml"], "The mapping cannot be read"),
        (["nowhere", "--relocate", "x"], "--relocate cannot be 'x'."),
    ],
)
def test_wrong_usage(tmp_path: Path, options: list[str], told: str) -> None:
    found = call("labels", *options, "--out", tmp_path / "set")
    assert found.exit_code == 2
    assert is_three_parts(found.stderr)
    assert told in found.stderr
    assert not (tmp_path / "set").exists()


def test_a_file_in_the_datasets_place(project: Path, tmp_path: Path) -> None:
    (tmp_path / "set").write_text("mine")
    found = call("labels", project, "--out", tmp_path / "set")
    assert (found.exit_code, (tmp_path / "set").read_text()) == (2, "mine")


def test_help_is_of_the_making_and_names_compare() -> None:
    told = call("labels", "--help")
    assert told.exit_code == 0
    for word in ("[PROJECT]...", "--out DATASET", "--negative-is-zero", "\nCommands:\n  compare  "):
        assert word in told.stdout
    assert "make" not in told.stdout.partition("\nCommands:")[2]
    for args in (("labels", "make", "--help"), ("labels", "somewhere", "-h")):
        assert call(*args).stdout == told.stdout
    assert call("labels").exit_code == 2
    assert "Usage: her2bridge labels compare" in call("labels", "compare", "--help").stdout

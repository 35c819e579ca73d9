"""Suspect labels stand in the projects that the labels came from, and replace those of before; all else stays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import contents

from her2bridge.demo import Demo
from her2bridge.errors import DatasetDamaged, UsageError
from her2bridge.events import Event, TaskProgress, Warned
from her2bridge.qupath.geojson import read_regions
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import ImageUpdate, PathClassRef, PathObject
from her2bridge.qupath.suspect_labels import SUSPECT_CLASS, is_suspect
from her2bridge.records import IntArray, SlideSource, TileSpec
from her2bridge.run import run_project
from her2bridge.settings import RunSettings
from her2bridge.training.dataset import Dataset, LabelledSlide, TileTable, save_dataset
from her2bridge.training.suspect_writing import SuspectsWritten, write_suspects

SIDE = 64.0


def labelled(demo: Demo, folder: Path, *, project: Path | None, name: str | None = None) -> Dataset:
    """Six tiles of each of two slides: the demo's, and one without a project."""
    entry = open_project(demo.project, "files").entries[0]
    slides = [
        LabelledSlide("one", name or entry.name, "P1", SlideSource(demo.slide), 1.0, "0" * 16, project, entry.id),
        LabelledSlide("two", "two.tif", "P2", SlideSource(demo.slide), 1.0, "1" * 16),
    ]
    numbers = np.arange(12)
    tiles = TileTable(
        slide=numbers // 6,
        origins=np.stack([numbers % 6 * SIDE, numbers // 6 * SIDE], axis=1),
        sides=np.full(12, SIDE),
        labels=numbers % 6,
        regions=("r",) * 12,
        annotators=("a",) * 12,
        splits=("test",) * 12,
        files=(None,) * 12,
    )
    return save_dataset(folder / "dataset", TileSpec(64, 1.0), slides, tiles, {})


def write(dataset: Dataset, rows: list[int], folder: Path, heard: list[Event] | None = None) -> SuspectsWritten:
    at: IntArray = np.array(rows, dtype=np.int64)
    sure = np.full(len(at), 0.97, dtype=np.float32)
    emit = (heard if heard is not None else []).append
    return write_suspects(dataset, at, np.full(len(at), 3), sure, emit, backend="files", folder=folder / "suspects")


def annotations(demo: Demo) -> list[PathObject]:
    return open_project(demo.project, "files").entries[0].annotations()


def test_they_say_what_is_doubted(demo: Demo, tmp_path: Path) -> None:
    before = [one.id for one in annotations(demo)]
    dataset, heard = labelled(demo, tmp_path, project=demo.project), list[Event]()
    done = write(dataset, [1, 5, 8], tmp_path, heard)
    assert (done.in_projects, done.in_files) == (2, 1)
    assert done.files == (tmp_path / "suspects" / "two.geojson",)
    first, second = [one for one in annotations(demo) if one.id not in before]
    assert is_suspect(first)
    assert first.name == "labelled 1+, the model says 3+ (0.97)"
    assert first.geometry is not None
    assert first.geometry.bounds == (64, 0, 128, 64)
    assert first.locked
    assert "Research use only" in str(first.description)
    assert second.name == "labelled noise, the model says 3+ (0.97)"
    assert SUSPECT_CLASS in open_project(demo.project, "files").path_classes
    (other,) = read_regions(done.files[0])
    assert (other.name, is_suspect(other)) == ("labelled 2+, the model says 3+ (0.97)", True)
    assert other.geometry is not None
    assert other.geometry.bounds == (128, 64, 192, 128)
    assert [event for event in heard if isinstance(event, Warned)] == []
    assert [(e.done, e.total) for e in heard if isinstance(e, TaskProgress)][-1] == (2, 2)


def test_a_new_evaluation_replaces_them_and_nothing_else(demo: Demo, tmp_path: Path) -> None:
    dataset = labelled(demo, tmp_path, project=demo.project)
    before = {one.id for one in annotations(demo)}
    write(dataset, [0, 1, 2, 8], tmp_path)
    corrected, deleted = [one for one in annotations(demo) if one.id not in before][:2]
    entry = open_project(demo.project, "files").entries[0]
    own = replace(corrected, path_class=PathClassRef(("3+",), (250, 62, 62)))
    entry.apply(ImageUpdate([corrected.id, deleted.id], [], {}, frozenset(), {}, [own]))
    done = write(dataset, [4], tmp_path)
    assert (done.in_projects, done.in_files, done.files) == (1, 0, ())
    assert not (tmp_path / "suspects" / "two.geojson").exists()
    after = annotations(demo)
    assert {one.id for one in after if not is_suspect(one)} == before | {corrected.id}
    assert [one.name for one in after if is_suspect(one)] == ["labelled normal, the model says 3+ (0.97)"]
    write(dataset, [], tmp_path)
    kept = contents(demo.project.parent)
    assert {one.id for one in annotations(demo)} == before | {corrected.id}
    write(dataset, [], tmp_path)
    assert contents(demo.project.parent) == kept  # with nothing to do, nothing is written


def test_a_project_that_is_gone_or_another(demo: Demo, tmp_path: Path) -> None:
    before = contents(demo.project.parent)
    for fault in ({"project": tmp_path / "gone" / "project.qpproj"}, {"project": demo.project, "name": "another.tif"}):
        heard: list[Event] = []
        done = write(labelled(demo, tmp_path, **fault), [1, 5, 8], tmp_path, heard)  # type: ignore[arg-type]
        assert (done.in_projects, done.in_files) == (0, 3)
        assert len(read_regions(tmp_path / "suspects" / "one.geojson")) == 2
        assert len([event for event in heard if isinstance(event, Warned)]) == 1
        shutil.rmtree(tmp_path / "suspects")
    assert contents(demo.project.parent) == before


def test_a_project_that_another_writes(demo: Demo, tmp_path: Path) -> None:
    (demo.project.parent / "her2bridge").mkdir(exist_ok=True)
    (demo.project.parent / "her2bridge" / "lock").write_text("1\nanother-host\n")
    before = contents(demo.project.parent)
    heard: list[Event] = []
    done = write(labelled(demo, tmp_path, project=demo.project), [1, 5, 8], tmp_path, heard)
    assert (done.in_projects, done.in_files) == (0, 3)
    assert contents(demo.project.parent) == before
    assert any(isinstance(event, Warned) and "files instead" in event.message for event in heard)


def test_no_such_backend(demo: Demo, tmp_path: Path) -> None:
    dataset = labelled(demo, tmp_path, project=demo.project)
    none = np.empty(0, dtype=np.int64)
    with pytest.raises(UsageError):
        write_suspects(dataset, none, none, none.astype(np.float32), print, backend="x", folder=tmp_path)


def test_a_run_leaves_them_alone(demo: Demo, tmp_path: Path) -> None:
    """They are neither scored nor removed, and do not make a score stale."""
    settings = RunSettings(device="cpu", runtime="torch", precision="fp32", backend="files")
    assert run_project(demo.project, settings).scored == 1
    write(labelled(demo, tmp_path, project=demo.project), [1, 5], tmp_path)
    entry = open_project(demo.project, "files").entries[0]
    metadata, stored = dict(entry.metadata), len(entry.stored_tiles())
    assert run_project(demo.project, settings).skipped == 1
    assert run_project(demo.project, replace(settings, force=True)).scored == 1
    again = open_project(demo.project, "files").entries[0]
    assert sum(is_suspect(one) for one in again.annotations()) == 2
    assert len(again.stored_tiles()) == stored
    names = [name for name in metadata if name.startswith("HER2 AI") and "run" not in name]
    assert {name: again.metadata[name] for name in names} == {name: metadata[name] for name in names}
    assert json.loads((demo.project.parent / "data" / "1" / "summary.json").read_bytes())


def test_a_key_that_would_lead_out_of_the_folder(demo: Demo, tmp_path: Path) -> None:
    dataset = labelled(demo, tmp_path, project=None)
    bad = replace(dataset, slides=tuple(replace(one, key=f"../../{one.key}") for one in dataset.slides))
    (tmp_path / "a").mkdir()
    done = write(bad, [1, 8], tmp_path / "a")
    assert [path.parent for path in done.files] == [tmp_path / "a" / "suspects"] * 2
    assert not list(tmp_path.glob("*.geojson"))


def test_a_slide_of_two_projects_has_them_in_both(demo: Demo, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(demo.project.parent, other)
    dataset = labelled(demo, tmp_path, project=demo.project)
    entry = open_project(demo.project, "files").entries[0]
    place = {"key": "one", "project": str(other / demo.project.name), "entry": entry.id, "name": entry.name}
    dataset = replace(dataset, card={**dataset.card, "also_in": [place]})
    done = write(dataset, [1, 5], tmp_path)
    assert (done.in_projects, done.in_files) == (2, 0)
    for path in (demo.project, other / demo.project.name):
        assert sum(is_suspect(one) for one in open_project(path, "files").entries[0].annotations()) == 2
    with pytest.raises(DatasetDamaged):
        write(replace(dataset, card={"also_in": [{"key": "one"}]}), [1], tmp_path)

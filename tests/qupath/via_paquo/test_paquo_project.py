"""Projects through a real QuPath: what the seam's tests, which both backends pass, do not ask."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES, QUPATH, contents

from her2bridge.errors import ChangedOnDisk, DataFileDamaged, OutOfMemory, SlideUnreadable
from her2bridge.qupath.open import open_project
from her2bridge.qupath.project_json import as_json
from her2bridge.qupath.seam import ImageUpdate, PathClassRef, Project
from her2bridge.qupath.server_builder import slide_source
from her2bridge.qupath.via_files.java_nodes import StreamError

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_seam import OURS, everything, tiles

pytestmark = [
    pytest.mark.qupath,
    pytest.mark.skipif(QUPATH is None, reason="no QuPath: PAQUO_QUPATH_DIR is not set"),
]
SOURCE = FIXTURES / "qupath_objects" / "qupath_0_5_1"
SLIDES = Path(__file__).parents[4] / "shared" / "data" / "qupath_objects" / "images"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a project and its slides, as it arrives: both have moved."""
    if not SLIDES.is_dir():
        pytest.skip(f"the slides are not here: {SLIDES}")
    shutil.copytree(SOURCE, tmp_path / "home" / "project")
    shutil.copytree(SLIDES, tmp_path / "home" / "images")
    return tmp_path / "home"


@pytest.fixture
def project(home: Path) -> Project:
    return open_project(home / "project", "paquo")


def update(**metadata: str) -> ImageUpdate:
    return ImageUpdate([], [tiles([None])], {}, OURS, metadata)


def slides(project: Project) -> Iterator[Path]:
    for entry in project.entries:
        yield slide_source(entry.server_json, folder=project.folder, saved_uri=project.saved_uri).path


class TestMovedProjects:
    def test_the_project_file_is_ours_alone(self, home: Path, project: Project) -> None:
        """Where slides are, what QuPath does not know, and all other images stay as they were."""
        content = json.loads(project.path.read_bytes())
        content["x-lab"] = {"note": 1}
        content["images"][1]["x-note"] = "kept"
        project.path.write_bytes(as_json(content))
        again = open_project(project.path, "paquo")
        with again.writing():
            again.entries[0].apply(update(a="b"))
        content["images"][0]["metadata"]["a"] = "b"
        assert json.loads(project.path.read_bytes()) == content
        assert [path.parent for path in slides(open_project(project.path, "files"))] == [home / "images"] * 3

    def test_slides_that_are_not_here_are_found_again(self, home: Path, project: Project) -> None:
        (home / "images").rename(home.parent / "aside")
        if project_version(project) < (0, 6):
            with project.writing(), pytest.raises(SlideUnreadable):
                project.entries[0].apply(update())
        else:
            with project.writing():
                project.entries[0].apply(update())
        moved = home.rename(home.parent / "elsewhere")
        (home.parent / "aside").rename(moved / "images")
        again = open_project(moved / "project", "files")
        assert [path.parent for path in slides(again)] == [moved / "images"] * 3

    def test_relocated_slides(self, home: Path) -> None:
        (home / "images").rename(home / "other")
        relocations = [("/slides/her2/images", str(home / "other"))]
        project = open_project(home / "project", "paquo", relocations=relocations)
        with project.writing():
            project.entries[0].apply(update())
        assert len(open_project(project.path, "files").entries[0].stored_tiles()) == 40


def project_version(project: Project) -> tuple[int, ...]:
    """Of the QuPath that opened it."""
    text = project.backend.partition("(QuPath ")[2]
    return tuple(int(part) for part in text.split(";")[0].split(".")[:2])


def test_a_slide_that_qupath_cannot_open_costs_no_objects(home: Path, project: Project) -> None:
    for path in (home / "images").iterdir():
        path.write_bytes(b"no slide any more")
    entry = project.entries[0]
    before, files = everything(entry), contents(project.folder)
    if project_version(project) < (0, 6):
        with project.writing(), pytest.raises(SlideUnreadable, match="cannot open the slide") as caught:
            entry.apply(update(a="b"))
        assert "--backend files" in caught.value.next_step
        assert contents(project.folder) == files
    else:
        with project.writing():
            entry.apply(update(a="b"))
        after = everything(open_project(project.path, "files").entries[0])
        assert len(after) == len(before) + 40
        assert before.items() <= after.items()


def test_what_the_files_backend_wrote_is_read_alike(home: Path) -> None:
    files = open_project(home / "project", "files")
    annotations = [one.id for one in files.entries[0].annotations()]
    with files.writing():
        files.entries[0].apply(ImageUpdate([], [tiles([*annotations, None])], {}, OURS, {}))
    again = open_project(home / "project", "paquo")
    for ours, theirs in zip(files.entries, again.entries, strict=True):
        assert everything(theirs) == everything(ours)


def test_colours(home: Path, project: Project) -> None:
    """A class that the project has keeps its colour; one that it lacks gets ours, in the list and on the tiles."""
    new = [
        PathClassRef(("3+",), (1, 2, 3)),
        PathClassRef(("HER2", "2+"), (4, 5, 6)),
        PathClassRef(("Noise*",), (7, 8, 9)),
    ]
    had = list(project.path_classes)
    project.merge_path_classes(new)
    assert list(open_project(project.path, "files").path_classes) == [*had, *new[1:]]
    with project.writing():
        project.entries[0].apply(update())
    stored = {one.path_class for one in project.entries[0].objects() if one.kind == "tile"}
    assert {PathClassRef(("3+",), (255, 0, 0)), PathClassRef(("HER2", "2+"), (4, 5, 6))} <= stored


def test_what_qupath_saved_otherwise_is_taken_back(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from her2bridge.qupath.via_paquo import backend

    entry = project.entries[0]
    assert entry.annotations()
    before = _without_servers(project.folder)

    def differs(*_: object) -> None:
        raise StreamError("a tile is missing")

    monkeypatch.setattr(backend, "check_ours", differs)
    with project.writing(), pytest.raises(DataFileDamaged, match="put back as it was"):
        entry.apply(update(a="b"))
    assert _without_servers(project.folder) == before


@pytest.mark.parametrize("when", ["_image_data", "_change"])
def test_an_image_that_is_saved_while_qupath_works(
    project: Project, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whatever QuPath's user saved while we were at it is what stays."""
    from her2bridge.qupath.via_paquo import backend

    path = project.folder / "data" / "1" / "data.qpdata"
    saved = (project.folder / "data" / "3" / "data.qpdata").read_bytes()
    holder: Any = backend if when == "_image_data" else backend._LoadedImage
    original = getattr(holder, when)

    def meanwhile(*args: Any) -> Any:
        path.write_bytes(saved)
        return original(*args)

    monkeypatch.setattr(holder, when, meanwhile)
    with project.writing(), pytest.raises(ChangedOnDisk):
        project.entries[0].apply(update(a="b"))
    assert path.read_bytes() == saved
    assert "a" not in open_project(project.path, "files").entries[0].metadata


def test_too_little_memory_is_no_damage(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from her2bridge.qupath.via_paquo import backend, jvm

    def exhausted(*_: object) -> None:
        raise jvm.start().java("java.lang.OutOfMemoryError")("Java heap space")

    monkeypatch.setattr(backend, "graph_of", exhausted)
    with pytest.raises(OutOfMemory) as caught:
        project.entries[0].annotations()
    assert "PAQUO_JAVA_OPTS" in caught.value.next_step


def _without_servers(folder: Path) -> dict[str, bytes]:
    """All files but QuPath's server.json, which nobody reads, and the backup that a failed write may leave."""
    return {name: data for name, data in contents(folder).items() if not name.endswith(("server.json", ".bkp"))}


def test_a_cut_short_file_never_reaches_qupath(project: Project) -> None:
    """QuPath 0.5 would read it for ever."""
    path = project.folder / "data" / "1" / "data.qpdata"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFileDamaged, match="cut short"):
        project.entries[0].annotations()
